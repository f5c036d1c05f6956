"""The log for people and programs; a check that finds what is wrong and repairs what is derived."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pyroaring import BitMap

from tests.admin.calling import Mailctl
from twisted_mail.account.checkpoint import HEAD, _encode_head, decode_head
from twisted_mail.account.entries import pack_uids
from twisted_mail.account.intents import Expunge
from twisted_mail.account.lists import MessageLists
from twisted_mail.account.service import AccountService
from twisted_mail.admin import accounts
from twisted_mail.admin.init import put_samples
from twisted_mail.admin.opening import Store
from twisted_mail.storage.interfaces import ListDelete, ListName, MessageRow
from twisted_mail.values import ModSeq

USER = "ann@example.org"


@pytest.fixture
def filled(ann: Mailctl) -> Mailctl:
    """With mail, a checkpoint, entries behind it, and lists."""

    async def fill(store: Store) -> None:
        await put_samples(store, USER, [], 1_790_000_000, 60)
        async with store.account(await store.user(USER)) as account:
            await account.checkpoint()  # type: ignore[attr-defined]  # the one kind of account there is has it
            inbox = account.state.inbox.id
            await account.commit(Expunge(mailbox=inbox, uids=pack_uids(BitMap([1, 3])), only_deleted=False))
            await MessageLists(store.backend.lists).bring_up_to_date(account)

    ann.inside(fill)
    return ann


def test_a_log_is_readable(filled: Mailctl) -> None:
    entries = filled.json("account", "log", USER)
    assert [entry["modseq"] for entry in entries] == list(range(1, len(entries) + 1))
    assert entries[0]["cause"] == "initialise" and entries[0]["changes"][0]["name"] == "INBOX"
    assert set(entries[0]) == {"modseq", "id", "time", "cause", "changes"}
    assert entries[-1]["changes"][0] | {"mailbox": ""} == {
        "change": "messages-expunged", "mailbox": "", "uids": "1,3", **{
            key: entries[-1]["changes"][0][key] for key in ("size", "unseen", "deleted")
        },
    }  # fmt: skip
    some = filled.json("account", "log", USER, "--after", "2", "--limit", "3")
    assert [entry["modseq"] for entry in some] == [3, 4, 5]
    newest = filled.json("account", "log", USER, "--limit", "2")
    assert newest == entries[-2:]
    assert filled.json("account", "log", USER, "--after", "100000") == []
    line = filled.good("account", "log", USER, "--limit", "1").out
    assert "\texpunge\tmessages-expunged INBOX uids=1,3 " in line
    assert filled.run("account", "log", "nobody@example.org").status == 3
    assert filled.run("account", "log", USER, "--after", "-1").status == 2


def test_a_log_whose_beginning_is_gone_begins_where_it_begins(filled: Mailctl) -> None:
    head = len(filled.json("account", "log", USER))

    async def trim(store: Store) -> int:
        record = await store.user(USER)
        log = store.backend.account_log
        async with store.account(record) as account:
            await account.checkpoint()  # type: ignore[attr-defined]  # as above
        await log.trim(record.id, ModSeq(5))
        return await accounts._first_kept(store, record.id, 0, head)

    first = filled.inside(trim)
    assert first > 1
    shown = filled.json("account", "log", USER)
    assert shown[0]["modseq"] == first
    result = filled.run("account", "log", USER, "--after", "0", "--json")
    assert (result.status, result.error()["first"]) == (3, first)
    assert filled.json("account", "check", USER, "--deep")["result"] == "ok"


def test_a_sound_account_is_found_sound(filled: Mailctl) -> None:
    facts = filled.json("account", "check", USER, "--deep")
    assert (facts["result"], facts["findings"], facts["messages"], facts["rows_unused"]) == ("ok", [], 58, 2)
    assert facts["replayed"] == "whole" and 0 < facts["checkpoint"] < facts["head"] == facts["lists_reached"]
    before = filled.json("account", "log", USER)
    assert filled.json("account", "check", USER, "--repair")["repaired"] == ["checkpoint"]
    assert filled.json("account", "log", USER) == before, "nothing was wrong, nothing was written to the log"


async def _lose_a_row(store: Store, account: Any) -> None:
    columns = await account.columns(account.state.inbox)
    await store.backend.messages.delete_many(account.id, [columns.key(columns.live[0])])


async def _change_octets(store: Store, account: Any) -> None:
    columns = await account.columns(account.state.inbox)
    key = columns.key(columns.live[0])
    names = ("header", "envelope", "manifest", "inline")
    async for rows in account.rows([key], names):
        cells = dict(zip(names, rows[0], strict=True))
    await store.backend.messages.delete_many(account.id, [key])
    cells["inline"] = cells["inline"][:-1]
    await store.backend.messages.put(account.id, [MessageRow(key, cells)])


async def _lose_a_line(store: Store, account: Any) -> None:
    columns = await account.columns(account.state.inbox)
    slot = columns.live[0]
    name: ListName = "read" if slot in columns.with_flag("\\Seen") else "unread"
    gone = ListDelete(name, 0, account.state.inbox.id, columns.received[slot] * 1000, columns.uids[slot])
    await store.backend.lists.apply(account.id, [gone], account.state.modseq)


async def _miscount(store: Store, account: Any) -> None:
    """A checkpoint that says something else than the log."""
    log = store.backend.account_log
    await account.checkpoint()
    checkpoint = await log.load_checkpoint(account.id, None)
    assert checkpoint is not None
    state, history = decode_head(checkpoint.chunks[HEAD])
    state.by_name["INBOX"].unseen += 7
    state.modseq = ModSeq(checkpoint.modseq + 1)
    from twisted_mail.account.intents import SetSetting

    await account.commit(SetSetting(name="x", value="y"))
    state.settings["x"] = "y"
    kept = {name: at for name, at in checkpoint.manifest.items() if name != HEAD}
    await log.save_checkpoint(account.id, checkpoint.modseq, state.modseq, {HEAD: _encode_head(state, history)}, kept)


async def _scribble(store: Store, account: Any) -> None:
    """A checkpoint whose chunk cannot be read."""
    from twisted_mail.account.intents import SetSetting

    log = store.backend.account_log
    await account.checkpoint()
    previous = account.state.modseq
    checkpoint = await log.load_checkpoint(account.id, ())
    assert checkpoint is not None
    await account.commit(SetSetting(name="x", value="y"))
    name = next(name for name in checkpoint.manifest if name.endswith("/0"))
    kept = {each: at for each, at in checkpoint.manifest.items() if each not in (name, HEAD)}
    head = _encode_head(account.state, ())
    await log.save_checkpoint(account.id, previous, account.state.modseq, {HEAD: head, name: b"\x01rubbish"}, kept)


@pytest.mark.parametrize(
    ("harm", "code", "deep", "repairable"),
    [
        (_lose_a_row, "row", False, False),
        (_change_octets, "row", False, False),
        (_lose_a_line, "list", False, True),
        (_miscount, "checkpoint-differs", False, True),
        (_scribble, "checkpoint", True, True),
    ],
)
def test_what_is_wrong_is_found_and_what_is_derived_repaired(
    filled: Mailctl, harm: Callable[[Store, Any], Any], code: str, deep: bool, repairable: bool
) -> None:
    async def act(store: Store) -> None:
        async with store.account(await store.user(USER)) as account:
            await harm(store, account)

    filled.inside(act)
    words = ("account", "check", USER, "--json", *(["--deep"] if deep else []))
    result = filled.run(*words)
    assert result.status == 1 and result.error()["code"] == "check"
    findings = result.json()["findings"]
    assert code in {finding["code"] for finding in findings}
    assert set(findings[0]) == {"code", "severity", "text", "repairable"}
    assert filled.run(*words).json()["findings"] == findings, "looking changes nothing"
    repaired = filled.run(*words, "--repair")
    assert repaired.status == (0 if repairable else 1)
    assert (repaired.json()["result"] == "ok") == repairable
    assert filled.run(*words).status == repaired.status
    shown = filled.json("user", "show", USER)
    assert shown["messages"] == 58


def test_an_account_that_was_never_opened_is_no_error(ann: Mailctl) -> None:
    async def erase(store: Store) -> None:
        assert isinstance(store.accounts, AccountService)
        await store.backend.account_log.erase((await store.user(USER)).id)

    ann.inside(erase)
    facts = ann.json("account", "check", USER)
    assert facts["result"] == "warning" and facts["findings"][0]["code"] == "no-inbox"
