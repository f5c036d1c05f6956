"""The slow pure model that judges `apply`: an account as plain dicts, brought forward from decoded entries."""

from __future__ import annotations

import copy
from typing import Any

from pyroaring import BitMap

from twisted_mail.account.columns import SYSTEM_FLAGS
from twisted_mail.account.entries import (
    Entry,
    FlagChanged,
    MailboxCreated,
    MailboxDeleted,
    MailboxRenamed,
    MessagesAdded,
    MessagesExpunged,
    SettingChanged,
    Subscribed,
)
from twisted_mail.account.state import AccountState

Shape = dict[str, Any]
"""A state as comparable data; its values differ by key, hence Any."""


class Model:
    """An account as dicts: mailbox id -> {name, validity, next, highest, messages: {uid: {...}}, vanished}."""

    def __init__(self) -> None:
        self.modseq = 0
        self.boxes: dict[bytes, dict[str, Any]] = {}
        self.subscriptions: set[str] = set()
        self.settings: dict[str, str] = {}
        self.last_uid: dict[bytes, int] = {}
        self.validities: list[int] = []

    def apply(self, entry: Entry) -> None:
        """The next entry."""
        self.modseq += 1
        for change in entry.changes:
            if isinstance(change, MailboxCreated):
                assert change.mailbox not in self.boxes
                assert all(change.uid_validity > earlier for earlier in self.validities), "UIDVALIDITY only ascends"
                self.validities.append(change.uid_validity)
                self.boxes[change.mailbox] = {
                    "name": change.name,
                    "validity": change.uid_validity,
                    "use": change.special_use,
                    "next": 1,
                    "highest": self.modseq,
                    "messages": {},
                    "vanished": {},
                }
            elif isinstance(change, MailboxDeleted):
                del self.boxes[change.mailbox]
            elif isinstance(change, MailboxRenamed):
                self.boxes[change.mailbox]["name"] = change.name
            elif isinstance(change, Subscribed):
                (self.subscriptions.add if change.on else self.subscriptions.discard)(change.name)
            elif isinstance(change, SettingChanged):
                if change.value is None:
                    self.settings.pop(change.name, None)
                else:
                    self.settings[change.name] = change.value
            elif isinstance(change, MessagesAdded):
                box = self.boxes[change.mailbox]
                box["highest"] = self.modseq
                for message in change.messages:
                    uid = box["next"]
                    assert uid > self.last_uid.get(change.mailbox, 0), "UIDs only ascend"
                    self.last_uid[change.mailbox] = uid
                    box["next"] += 1
                    box["messages"][uid] = {
                        "id": message.message,
                        "bucket": message.bucket,
                        "size": message.size,
                        "received": message.received,
                        "zone": message.zone,
                        "sent": message.sent_days,
                        "saved": entry.time // 1000,
                        "flags": {SYSTEM_FLAGS.get(flag.lower(), flag) for flag in message.flags},
                        "modseq": self.modseq,
                    }
            elif isinstance(change, FlagChanged):
                box = self.boxes[change.mailbox]
                box["highest"] = self.modseq
                for uid in BitMap.deserialize(change.set):
                    assert change.flag not in box["messages"][uid]["flags"], "only real changes"
                    box["messages"][uid]["flags"].add(change.flag)
                    box["messages"][uid]["modseq"] = self.modseq
                for uid in BitMap.deserialize(change.cleared):
                    box["messages"][uid]["flags"].remove(change.flag)
                    box["messages"][uid]["modseq"] = self.modseq
            elif isinstance(change, MessagesExpunged):
                box = self.boxes[change.mailbox]
                box["highest"] = self.modseq
                gone = [(uid, box["messages"].pop(uid)) for uid in BitMap.deserialize(change.uids)]
                assert sum(message["size"] for _, message in gone) == change.size
                assert sum("\\Seen" not in message["flags"] for _, message in gone) == change.unseen
                assert sum("\\Deleted" in message["flags"] for _, message in gone) == change.deleted
                for uid, _ in gone:
                    box["vanished"][uid] = self.modseq

    def shape(self) -> Shape:
        """For comparing with `shape_of` a state."""
        boxes = {}
        for id, box in self.boxes.items():
            messages = box["messages"]
            boxes[id] = {
                "name": box["name"],
                "validity": box["validity"],
                "use": box["use"],
                "next": box["next"],
                "highest": box["highest"],
                "count": len(messages),
                "size": sum(m["size"] for m in messages.values()),
                "unseen": sum("\\Seen" not in m["flags"] for m in messages.values()),
                "deleted": sum("\\Deleted" in m["flags"] for m in messages.values()),
                "messages": copy.deepcopy(messages),
                "vanished": dict(box["vanished"]),
            }
        return {
            "modseq": self.modseq,
            "boxes": boxes,
            "subscriptions": set(self.subscriptions),
            "settings": dict(self.settings),
            "messages": sum(box["count"] for box in boxes.values()),
            "size": sum(box["size"] for box in boxes.values()),
        }


def shape_of(state: AccountState) -> Shape:
    """A state as comparable data; mailboxes whose columns are not loaded have no ``messages`` and ``vanished``."""
    boxes: dict[bytes, dict[str, Any]] = {}
    for id, mailbox in state.mailboxes.items():
        assert state.by_name[mailbox.name] is mailbox
        boxes[id.octets] = {
            "name": mailbox.name,
            "validity": mailbox.uid_validity,
            "use": mailbox.special_use,
            "next": mailbox.uid_next,
            "highest": mailbox.highest_modseq,
            "count": mailbox.messages,
            "size": mailbox.size,
            "unseen": mailbox.unseen,
            "deleted": mailbox.deleted,
        }
        columns = mailbox.columns
        if columns is not None:
            boxes[id.octets]["messages"] = {
                uid: {
                    "id": columns.message_id(slot),
                    "bucket": columns.buckets[slot],
                    "size": columns.sizes[slot],
                    "received": columns.received[slot],
                    "zone": columns.zones[slot],
                    "sent": columns.sent[slot],
                    "saved": columns.saved[slot],
                    "flags": set(columns.flags_of(slot)),
                    "modseq": columns.modseqs[slot],
                }
                for uid, slot in columns.iterate()
            }
            boxes[id.octets]["vanished"] = dict(zip(columns.vanished_uids, columns.vanished_modseqs, strict=True))
    assert len(state.by_name) == len(state.mailboxes)
    return {
        "modseq": int(state.modseq),
        "boxes": boxes,
        "subscriptions": set(state.subscriptions),
        "settings": dict(state.settings),
        "messages": state.messages,
        "size": state.size,
    }


def assert_same(state: AccountState, model: Shape) -> None:
    """*state* equals the model as far as it is loaded."""
    shape = shape_of(state)
    for id, box in shape["boxes"].items():
        if "messages" not in box and id in model["boxes"]:
            box["messages"] = model["boxes"][id]["messages"]
            box["vanished"] = model["boxes"][id]["vanished"]
    assert shape == model
