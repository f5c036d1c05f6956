"""Log entries: what one intent did, as values with a versioned, readable encoding.

An entry holds only what really changed (flags that were not set before, UIDs that were there), together with the few
sums that let the head of a state (counts, usage) be brought up to date without the columns.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from pyroaring import BitMap

from twisted_mail.storage.interfaces import Corrupt

__all__ = [
    "ENTRY_VERSION",
    "AddedMessage",
    "Change",
    "Entry",
    "EntryError",
    "FlagChanged",
    "MailboxCreated",
    "MailboxDeleted",
    "MailboxRenamed",
    "MessagesAdded",
    "MessagesExpunged",
    "SettingChanged",
    "Subscribed",
    "decode_entry",
    "describe_entry",
    "encode_entry",
    "pack_uids",
    "unpack_uids",
]

ENTRY_VERSION: Final = 1


class EntryError(Corrupt, ValueError):
    """The octets are not an entry that this version understands."""


def pack_uids(uids: BitMap) -> bytes:
    """A set of UIDs as portable Roaring octets."""
    uids.run_optimize()
    return uids.serialize()


def unpack_uids(data: bytes) -> BitMap:
    """Inverse of `pack_uids`. Raises EntryError."""
    try:
        return BitMap.deserialize(data)
    except ValueError as error:
        raise EntryError("not a set of UIDs") from error


class MailboxCreated(msgspec.Struct, frozen=True, array_like=True, tag="mailbox-created"):
    """A mailbox exists from here on. `uid_validity` is above every earlier one of the account."""

    mailbox: bytes
    name: str
    uid_validity: int
    special_use: tuple[str, ...] = ()


class MailboxDeleted(msgspec.Struct, frozen=True, array_like=True, tag="mailbox-deleted"):
    """A mailbox and what was in it is gone."""

    mailbox: bytes


class MailboxRenamed(msgspec.Struct, frozen=True, array_like=True, tag="mailbox-renamed"):
    """A mailbox has another name; its inferiors have changes of their own in the same entry."""

    mailbox: bytes
    name: str


class Subscribed(msgspec.Struct, frozen=True, array_like=True, tag="subscribed"):
    """A name was put on the subscription list, or taken off it."""

    name: str
    on: bool


class AddedMessage(msgspec.Struct, frozen=True, array_like=True):
    """A message that enters a mailbox. Its UID is given by `apply`, in order."""

    message: bytes
    bucket: int
    size: int
    received: int
    """INTERNALDATE, seconds since 1970."""
    zone: int
    """Its zone in minutes east of UTC."""
    sent_days: int
    """The Date field's calendar date, days since 1970-01-01."""
    flags: tuple[str, ...] = ()


class MessagesAdded(msgspec.Struct, frozen=True, array_like=True, tag="messages-added"):
    """Messages enter a mailbox, in this order."""

    mailbox: bytes
    messages: tuple[AddedMessage, ...]


class FlagChanged(msgspec.Struct, frozen=True, array_like=True, tag="flag-changed"):
    """One flag was set on some messages and cleared on others; only those on which it changed."""

    mailbox: bytes
    flag: str
    set: bytes
    cleared: bytes


class MessagesExpunged(msgspec.Struct, frozen=True, array_like=True, tag="messages-expunged"):
    """Messages left a mailbox; `size`, `unseen` and `deleted` are the sums over them."""

    mailbox: bytes
    uids: bytes
    size: int
    unseen: int
    deleted: int


class SettingChanged(msgspec.Struct, frozen=True, array_like=True, tag="setting-changed"):
    """A setting of the account has this value (None: none any more)."""

    name: str
    value: str | None


Change = (
    MailboxCreated
    | MailboxDeleted
    | MailboxRenamed
    | Subscribed
    | MessagesAdded
    | FlagChanged
    | MessagesExpunged
    | SettingChanged
)


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """What one intent did, under one modseq."""

    time: int
    """Milliseconds since 1970, by the clock of the node that wrote it. Also the SAVEDATE of messages it adds."""
    cause: str
    """The intent's name."""
    changes: tuple[Change, ...]
    delivery: bytes = b""
    """The DeliveryId, for entries that a delivery caused."""
    intent: bytes = b""
    """The intent's id, for one that was sent from node to node."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)


def encode_entry(entry: Entry) -> bytes:
    """The version as one octet, then MessagePack."""
    return bytes((ENTRY_VERSION,)) + _encoder.encode(entry)


def decode_entry(data: bytes) -> Entry:
    """Inverse of `encode_entry`. Raises EntryError for another version or anything malformed."""
    if not data or data[0] != ENTRY_VERSION:
        raise EntryError(f"entry of unknown version {data[0] if data else 'none'}")
    try:
        return _decoder.decode(memoryview(data)[1:])
    except msgspec.MsgspecError as error:
        raise EntryError(f"malformed entry: {error}") from error


def _ranges(uids: BitMap) -> str:
    """``1:3,7``."""
    out: list[str] = []
    start = previous = -1
    for uid in uids:
        if uid != previous + 1 or start < 0:
            if start >= 0:
                out.append(f"{start}:{previous}" if previous > start else f"{start}")
            start = uid
        previous = uid
    if start >= 0:
        out.append(f"{start}:{previous}" if previous > start else f"{start}")
    return ",".join(out)


def describe_entry(entry: Entry) -> dict[str, Any]:
    """The entry as plain data for people and for JSON: sets as ``1:3,7``, ids in hexadecimal.

    The values' types vary with the kind of change, hence Any."""
    changes: list[dict[str, Any]] = []
    for change in entry.changes:
        shown: dict[str, Any] = {"change": change.__struct_config__.tag}
        for name in change.__struct_fields__:
            value = getattr(change, name)
            if isinstance(change, FlagChanged | MessagesExpunged) and name in ("set", "cleared", "uids"):
                value = _ranges(unpack_uids(value))
            elif isinstance(value, bytes):
                value = value.hex()
            elif name == "messages":
                value = [
                    {
                        "message": message.message.hex(),
                        "bucket": message.bucket,
                        "size": message.size,
                        "received": datetime.fromtimestamp(message.received, UTC).isoformat(),
                        "flags": list(message.flags),
                    }
                    for message in value
                ]
            shown[name] = value
        changes.append(shown)
    shown_entry: dict[str, Any] = {
        "time": datetime.fromtimestamp(entry.time / 1000, UTC).isoformat(timespec="milliseconds"),
        "cause": entry.cause,
        "changes": changes,
    }
    if entry.delivery:
        shown_entry["delivery"] = entry.delivery.hex()
    return shown_entry
