"""The audit: finds what crashes have left and what is missing, and judges nothing that may be on its way."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

from tests.account.house import START, now, put
from tests.account.test_graves import BIG, DAY, Cellar, add, copy, expunge, later
from twisted_mail.account.audit import Audit, AuditReport, PackedIds
from twisted_mail.account.references import message_holder
from twisted_mail.account.sweeping import Sweeper
from twisted_mail.services import Account
from twisted_mail.storage.interfaces import MessageRow
from twisted_mail.values import AccountId, BlobRef, MessageId, MessageKey


def old_id(days: float = 3, number: int = 0) -> MessageId:
    """An id as it was given so many days before the house's beginning."""
    return MessageId(int((START - days * DAY) * 1000).to_bytes(6, "big") + bytes(6) + number.to_bytes(4, "big"))


def audit(house: Cellar, *accounts: Account | AccountId, repair: bool = False, memory: int = 10**6) -> AuditReport:
    ids = [each if isinstance(each, AccountId) else each.id for each in accounts]

    async def listed() -> AsyncIterator[AccountId]:
        for id in ids:
            yield id

    async def known(id: AccountId) -> bool:
        return id in ids

    async def pause() -> None:
        pass

    engine = house.engine
    made = Audit(
        log=engine.account_log,
        messages=engine.messages,
        blobs=engine.blobs,
        references=engine.references,
        wall=house.wall,
        pause=pause,
        repair=repair,
        ids_in_memory=memory,
    )
    return now(made.run(listed(), known))


def aged(house: Cellar, account: Account) -> None:
    """Make every row and reference of the account's messages old, as far as ids tell: the wall clock goes on."""
    house.clock.advance(1_000_000_000)  # ids come from the real clock


def test_a_sound_store_has_nothing_to_find_at_any_age() -> None:
    house = Cellar()
    first, second = house.open(), house.open()
    add(house, first)
    copy(first, "INBOX", "Archive")
    add(house, second, octets=BIG + b"2")
    expunge(second)
    put(house, first, b"Subject: small\r\n\r\n")  # nothing names it yet
    assert audit(house, first, second) == AuditReport(accounts=2, rows=3, references=2, objects=2)
    house.checkpoint(first)
    house.checkpoint(second)
    add(house, first, octets=BIG + b"3")  # in the tail
    now(first.columns(first.state.mailbox("Trash")))
    found = audit(house, first, second)
    assert (found.garbage, found.damage, found.rows, found.objects) == (0, 0, 4, 3)
    aged(house, first)
    found = audit(house, first, second)
    assert (found.stray_rows, found.garbage) == (1, 1)  # the small one


def test_what_a_crash_has_left_is_garbage_once_it_is_old() -> None:
    house = Cellar()
    account = house.open()
    kept = add(house, account)
    put(house, account, BIG + b"crashed before its entry")
    engine = house.engine
    lost = now(_blob(house, b"x" * 90_000))
    now(engine.references.add(BlobRef("ab" * 32, 5), message_holder(account.id, old_id())))
    now(engine.references.add(lost, message_holder(AccountId.new(), old_id())))
    found = audit(house, account)
    assert (found.stray_rows, found.stray_references, found.stray_objects) == (0, 2, 0)
    aged(house, account)
    found = audit(house, account)
    assert (found.stray_rows, found.stray_references, found.stray_objects, found.damage) == (1, 2, 0, 0)
    assert len(found.examples) == 3 and house.lost() == []
    found = audit(house, account, repair=True)
    assert (found.stray_rows, found.stray_references, found.stray_objects) == (1, 2, 2)
    assert house.keys(account) == {kept}
    for _ in range(3):
        house.clock.advance(7200)
        sweeper = Sweeper(engine.references, engine.blobs, engine.leases, clock=house.clock, wall=house.wall)
        now(sweeper.run_once())
    found = audit(house, account)
    assert (found.garbage, found.damage, found.objects, found.rows) == (0, 0, 1, 1) and house.lost() == []


async def _blob(house: Cellar, content: bytes) -> BlobRef:
    writer = house.engine.blobs.writer()
    await writer.write(content)
    return await writer.finish()


def test_what_is_missing_is_told_and_a_reference_is_mended() -> None:
    house = Cellar()
    account = house.open()
    one, two = add(house, account), add(house, account, octets=BIG + b"2")
    engine = house.engine
    first, second = sorted(house.refs(), key=lambda ref: ref.size)
    now(engine.references.remove([first], message_holder(account.id, one.id)))
    now(engine.blobs.delete(second))
    broken = MessageKey(0, old_id())
    now(engine.messages.put(account.id, [MessageRow(broken, {"manifest": b"\xc1"})]))
    found = audit(house, account, repair=True)
    assert (found.missing_references, found.missing_blobs, found.stray_rows, found.stray_objects) == (1, 1, 1, 0)
    assert house.keys(account) == {two, one}
    found = audit(house, account)
    assert (found.missing_references, found.missing_blobs, found.garbage) == (0, 1, 0)


def test_rows_in_graves_are_named_until_they_are_swept() -> None:
    house = Cellar()
    account = house.open()
    add(house, account)
    expunge(account)
    house.checkpoint(account)
    aged(house, account)
    assert audit(house, account).garbage == 0
    later(house, account, 0)
    later(house, account, 8)
    assert house.keys(account) == set()
    found = audit(house, account)
    assert (found.stray_rows, found.stray_references, found.stray_objects) == (0, 0, 1)  # which the sweeper has listed


def test_an_account_that_is_gone_leaves_nothing_and_one_that_is_unknown_keeps_everything() -> None:
    house = Cellar()
    account, gone = house.open(), house.open()
    add(house, account)
    add(house, gone)
    aged(house, account)
    assert audit(house, account, repair=True).garbage == 0  # it has a log: not in the directory is not enough
    now(house.engine.account_log.erase(gone.id))
    found = audit(house, account, repair=True)
    assert house.keys(gone) == set() and found.stray_rows == 1
    assert len(house.holders(house.refs()[0])) == 1


def test_more_rows_than_are_remembered_take_more_rounds_over_the_references() -> None:
    house = Cellar()
    accounts = [house.open() for _ in range(5)]
    for account in accounts:
        for number in range(3):
            add(house, account, octets=BIG + bytes((number,)))
        now(house.engine.references.add(BlobRef("cd" * 32, 5), message_holder(account.id, old_id())))
    assert audit(house, *accounts, memory=100).stray_references == 5
    assert audit(house, *accounts).stray_references == 5


def test_packed_ids_are_a_set() -> None:
    draw = random.Random(3)
    ids = PackedIds()
    members = [draw.randbytes(16) for _ in range(300_000)]
    for at in range(0, len(members), 1000):
        ids.add(members[at : at + 1000])
    assert len(ids) == 300_000
    assert all(id in ids for id in members[::97]) and not any(draw.randbytes(16) in ids for _ in range(3000))


def test_an_account_whose_log_cannot_be_read_is_passed_over() -> None:
    house = Cellar()
    account = house.open()
    add(house, account)
    aged(house, account)
    log: Any = house.engine.account_log
    read = log.read

    async def broken(*arguments: Any) -> Any:
        raise ValueError("no entry")

    log.read = broken
    found = audit(house, account, repair=True)
    assert found.unread_accounts == 1 and found.garbage == 0 and len(house.keys(account)) == 1
    log.read = read
