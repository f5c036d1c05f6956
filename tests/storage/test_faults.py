"""The stores that fail on demand do what their script says, and otherwise what a store does."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.trial.unittest import TestCase

from twisted_mail.storage import testing
from twisted_mail.storage.interfaces import AccountLog, Blobs, Conflict, Messages, Refused, Unavailable
from twisted_mail.storage.memory import MemoryAccountLog, MemoryBlobs, MemoryMessages
from twisted_mail.storage.testing.faults import Fault, FaultyAccountLog, FaultyBlobs, FaultyMessages
from twisted_mail.storage.testing.log import new_entries
from twisted_mail.storage.testing.messages import message_row
from twisted_mail.values import AccountId, ModSeq


class QuietAccountLogTests(testing.AccountLogContract, TestCase):
    async def build(self) -> AccountLog:
        return FaultyAccountLog(MemoryAccountLog(), [])


class QuietMessagesTests(testing.MessagesContract, TestCase):
    async def build(self) -> Messages:
        return FaultyMessages(MemoryMessages(), [])


class QuietBlobsTests(testing.BlobsContract, TestCase):
    async def build(self) -> Blobs:
        return FaultyBlobs(MemoryBlobs(), [])


def run(coroutine: Any) -> Any:
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it suspended")


@pytest.mark.parametrize(
    ("fault", "error", "written"),
    [
        (Fault.REFUSED, Refused, 0),
        (Fault.LOST, Unavailable, 0),
        (Fault.HIDDEN, Unavailable, 2),
        (Fault.RACE, Conflict, 2),
        (Fault.LATE, Unavailable, 0),
    ],
)
def test_an_append_fails_as_the_script_says(fault: Fault, error: type[Exception], written: int) -> None:
    inner, account = MemoryAccountLog(), AccountId.new()
    log = FaultyAccountLog(inner, [fault], operations={"append"}, late_by=2)
    with pytest.raises(error) as raised:
        run(log.append(account, ModSeq(0), new_entries(2)))
    assert isinstance(raised.value, Refused) == (fault is Fault.REFUSED)
    assert run(inner.head(account)) == written
    assert log.happened == [("append", fault)]


def test_a_late_append_is_not_settled_before_it_has_come() -> None:
    inner, account, entries = MemoryAccountLog(), AccountId.new(), new_entries(2)
    log = FaultyAccountLog(inner, [Fault.LATE], operations={"append"}, late_by=3)
    ids = [entry.id for entry in entries]
    with pytest.raises(Unavailable):
        run(log.append(account, ModSeq(0), entries))
    with pytest.raises(Unavailable):
        run(log.settle(account, ModSeq(0), ids))
    assert run(log.head(account)) == 0
    assert run(log.settle(account, ModSeq(0), ids)) is True


def test_a_late_append_that_finds_the_head_moved_never_happens() -> None:
    inner, account, entries = MemoryAccountLog(), AccountId.new(), new_entries(2)
    log = FaultyAccountLog(inner, [Fault.LATE], operations={"append"})
    with pytest.raises(Unavailable):
        run(log.append(account, ModSeq(0), entries))
    run(inner.append(account, ModSeq(0), new_entries(1)))
    run(log.settle_late())
    assert run(log.settle(account, ModSeq(0), [entry.id for entry in entries])) is False


def test_a_checkpoint_loses_its_race_without_a_trace() -> None:
    inner, account = MemoryAccountLog(), AccountId.new()
    log = FaultyAccountLog(inner, [Fault.RACE])
    with pytest.raises(Conflict):
        run(log.save_checkpoint(account, ModSeq(0), ModSeq(1), {"head": b""}, {}))
    assert run(inner.load_checkpoint(account, None)) is None


def test_rows_and_blobs_fail_too() -> None:
    messages, account, row = MemoryMessages(), AccountId.new(), message_row()
    rows = FaultyMessages(messages, [Fault.LOST, Fault.HIDDEN, Fault.LOST])
    for _ in range(2):
        with pytest.raises(Unavailable):
            run(rows.put(account, [row]))
    with pytest.raises(Unavailable):
        run(anext(rows.get_many(account, [row.key], ["body"])))
    assert run(anext(rows.get_many(account, [row.key], ["body"]))) == [(row.cells["body"],)]

    inner = MemoryBlobs()
    blobs = FaultyBlobs(inner, [Fault.LOST, Fault.HIDDEN], operations={"finish"})
    for kept in (0, 1):
        writer = blobs.writer()
        run(writer.write(b"content"))
        with pytest.raises(Unavailable):
            run(writer.finish())
        assert len(inner._contents) == kept
