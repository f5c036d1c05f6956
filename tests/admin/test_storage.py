"""Accounts move from one store to another, and back; what differs is found."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyroaring import BitMap

from tests.admin.calling import Mailctl
from twisted_mail.account.entries import pack_uids
from twisted_mail.account.intents import ChangeFlags, Expunge, SetSetting
from twisted_mail.admin.init import put_samples
from twisted_mail.admin.opening import Store
from twisted_mail.storage.interfaces import COLUMNS, MessageRow
from twisted_mail.values import ModSeq

USER = "ann@example.org"


@pytest.fixture
def full(ann: Mailctl) -> Mailctl:
    """With mail, a large message, a checkpoint, entries behind it, an alias and a script."""

    async def fill(store: Store) -> None:
        await put_samples(store, USER, [], 1_790_000_000, 60)
        await _large(store)
        async with store.account(await store.user(USER)) as account:
            await account.checkpoint()  # type: ignore[attr-defined]  # the one kind of account there is has it
        await _change(store)
        await store.directory.put_script((await store.user(USER)).id, "main", "keep;")
        await store.directory.activate_script((await store.user(USER)).id, "main")

    ann.inside(fill)
    ann.good("alias", "add", "info@example.org", USER)
    return ann


async def _large(store: Store) -> None:
    """A message with an attachment that does not fit into its row."""
    import base64
    import random

    from twisted_mail.account.intents import AddMessages, new_message

    body = base64.encodebytes(random.Random(1).randbytes(300_000)).replace(b"\n", b"\r\n")
    octets = (
        b'Subject: large\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n\r\nsee there\r\n'
        b"--b\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n" + body + b"--b--\r\n"
    )
    async with store.account(await store.user(USER)) as account:
        writer = store.accounts.writer()
        for start in range(0, len(octets), 50_000):
            await writer.write(octets[start : start + 50_000])
        stored = await account.store(await writer.finish())
        inbox = account.state.inbox.id
        await account.commit(AddMessages(mailbox=inbox, messages=(new_message(stored, 1_790_000_000),)))


async def _change(store: Store, flag: str = "\\Flagged") -> None:
    async with store.account(await store.user(USER)) as account:
        inbox = account.state.inbox
        await account.commit(Expunge(mailbox=inbox.id, uids=pack_uids(BitMap([1])), only_deleted=False))
        seen = ChangeFlags(mailbox=inbox.id, uids=pack_uids(BitMap([2, 3])), flags=(flag,), mode="add")
        await account.commit(seen)


@pytest.fixture
def other(tmp_path: Path) -> Mailctl:
    folder = tmp_path / "other"
    folder.mkdir()
    return Mailctl(folder)


def test_a_copy_has_everything_and_can_be_gone_on_with(full: Mailctl, other: Mailctl) -> None:
    first = full.json("storage", "copy", "--to", other.config)
    assert first["users"][0]["rows"] >= 61 and first["users"][0]["from_checkpoint"] is False
    assert first["users"][0]["compared"] == first["users"][0]["rows"] - 1, "one was expunged"
    again = full.json("storage", "copy", "--to", other.config, USER)
    assert (again["users"][0]["rows"], again["users"][0]["entries"]) == (0, 0)

    full.inside(lambda store: _change(store, "later"))
    more = full.json("storage", "copy", "--to", other.config, USER)
    assert more["users"][0]["rows"] == 0 and more["users"][0]["entries"] >= 1
    assert other.json("account", "check", USER, "--deep")["findings"] == []
    assert other.json("alias", "list")[0]["alias"] == "info@example.org"
    assert full.json("account", "log", USER, "--limit", "500") == other.json("account", "log", USER, "--limit", "500")

    async def script(store: Store) -> None:
        assert await store.directory.scripts((await store.user(USER)).id) == {"main": True}

    other.inside(script)


def test_it_goes_there_and_back(full: Mailctl, other: Mailctl) -> None:
    full.good("storage", "copy", "--to", other.config)

    async def more(store: Store) -> None:
        await put_samples(store, USER, [], 1_790_000_000, 5)

    other.inside(more)
    back = other.json("storage", "copy", "--to", full.config)
    assert back["users"][0]["rows"] == 5
    third = full.folder / "third"
    third.mkdir()
    assert full.json("storage", "copy", "--to", Mailctl(third).config)["users"][0]["compared"] >= 65


def test_a_log_that_was_trimmed_comes_as_its_checkpoint(full: Mailctl, other: Mailctl) -> None:
    async def trim(store: Store) -> None:
        async with store.account(await store.user(USER)) as account:
            await account.checkpoint()  # type: ignore[attr-defined]
            await store.backend.account_log.trim(account.id, ModSeq(10**6))
            await account.commit(SetSetting(name="later", value="yes"))

    full.inside(trim)
    report = full.json("storage", "copy", "--to", other.config)["users"][0]
    assert report["from_checkpoint"] is True and report["entries"] >= 1
    assert other.json("account", "check", USER, "--deep")["findings"] == []


def test_an_account_that_was_changed_at_both_ends_is_left_alone(full: Mailctl, other: Mailctl) -> None:
    full.good("storage", "copy", "--to", other.config)
    full.inside(lambda store: _change(store, "later"))

    async def differently(store: Store) -> None:
        async with store.account(await store.user(USER)) as account:
            await account.commit(SetSetting(name="mine", value="other"))

    other.inside(differently)
    result = full.run("storage", "copy", "--to", other.config)
    assert result.status == 1 and "own entry" in result.err


def test_a_row_with_other_octets_is_found(full: Mailctl, other: Mailctl) -> None:
    full.good("storage", "copy", "--to", other.config)

    async def damage(store: Store) -> None:
        account = (await store.user(USER)).id
        async for keys in store.backend.messages.iterate(account):
            async for batch in store.backend.messages.get_many(account, keys[5:6], COLUMNS):
                for cells in batch:
                    assert cells is not None
                    named = dict(zip(COLUMNS, cells, strict=True))
                    named["inline"] = named["inline"][:-1] + b"!"
                    await store.backend.messages.delete_many(account, keys[5:6])
                    await store.backend.messages.put(account, [MessageRow(keys[5], named)])
            return

    other.inside(damage)
    result = full.run("storage", "copy", "--to", other.config)
    assert result.status == 1 and "octets are not the same" in result.err
    assert full.run("storage", "copy", "--to", other.config, "--no-compare").status == 0


def test_wrong_use_is_said(full: Mailctl, other: Mailctl) -> None:
    assert "same store" in full.run("storage", "copy", "--to", full.config).err
    assert full.run("storage", "copy", "--to", other.config, "nobody@example.org").status == 3
    assert full.run("storage", "copy").status == 2


def test_tables_are_looked_at_and_brought_up_to_date(full: Mailctl) -> None:
    assert "up to date: sqlite, file" in full.good("storage", "migrate").out
    assert full.json("storage", "check")["findings"] == []


def test_garbage_is_taken_away_and_damage_is_found(full: Mailctl) -> None:
    whole = full.json("storage", "gc", "--audit")
    assert (whole["audit"]["garbage"], whole["audit"]["damage"]) == (0, 0)
    assert whole["audit"]["rows"] >= 61 and whole["audit"]["objects"] >= 1

    async def lose(store: Store) -> None:
        async for ref in store.backend.blobs.iterate():
            await store.backend.blobs.delete(ref)

    full.inside(lose)
    result = full.run("storage", "gc", "--audit")
    assert result.status == 1 and "damaged" in result.err
    assert full.run("storage", "gc", "--repair").status == 2


def test_blobs_of_expunged_messages_are_condemned(full: Mailctl) -> None:
    async def forget(store: Store) -> None:
        async with store.account(await store.user(USER)) as account:
            columns = await account.columns(account.state.inbox)
            largest = max(columns.iterate(), key=lambda each: columns.sizes[each[1]])[0]
            await account.commit(
                Expunge(mailbox=account.state.inbox.id, uids=pack_uids(BitMap([largest])), only_deleted=False)
            )

    full.config.write_text(full.config.read_text() + '[account]\nretention = "0s"\n')
    full.inside(forget)
    full.good("storage", "gc")
    full.good("storage", "gc")
    later = full.json("storage", "gc")
    assert later["troubles"] == []

    async def listed(store: Store) -> int:
        return len({ref.hash async for ref in store.backend.references.lost(4_000_000_000.0)})

    assert full.inside(listed) == 1
