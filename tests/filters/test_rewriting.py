"""The header as several filters want it: each of them saw the same one, and none shifts the numbers of another."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.filters.milters import Message, a_mail, drive
from twisted_mail.filters.rewriting import Rewritten, rewritten
from twisted_mail.filters.values import Changes, FieldChange

HEADER = b"A: 1\r\nB: 2\r\n folded\r\na: 3\r\nno field\r\nC: 4\r\n"


@pytest.mark.parametrize(
    ("removed", "changes", "expected"),
    [
        ([], [], HEADER),
        ([], [Changes(added=(("X", "1"),))], HEADER + b"X: 1\r\n"),
        ([], [Changes(inserted=((0, "X", "1"), (0, "Y", "2")))], b"X: 1\r\nY: 2\r\n" + HEADER),
        ([], [Changes(inserted=((1, "X", "1\r\n\tmore"),))], HEADER.replace(b"B:", b"X: 1\r\n\tmore\r\nB:")),
        ([], [Changes(inserted=((99, "X", "1"),))], HEADER + b"X: 1\r\n"),
        ([], [Changes(changed=(FieldChange("A", 2, "new"),))], HEADER.replace(b"a: 3", b"A: new")),
        ([], [Changes(changed=(FieldChange("b", 1, None),))], HEADER.replace(b"B: 2\r\n folded\r\n", b"")),
        ([], [Changes(changed=(FieldChange("A", 3, "new"), FieldChange("A", 4, None)))], HEADER + b"A: new\r\n"),
        # a field that is removed keeps its number
        ([0], [Changes(changed=(FieldChange("A", 2, "new"),))], HEADER.replace(b"A: 1\r\n", b"").replace(b"a: 3", b"A: new")),
        ([0], [Changes(changed=(FieldChange("A", 1, "new"),))], HEADER.replace(b"A: 1\r\n", b"")),
        # what one filter puts in front is none of what another counts
        (
            [],
            [Changes(inserted=((0, "A", "0"),)), Changes(inserted=((0, "X", "1"),), changed=(FieldChange("A", 1, None),))],
            b"A: 0\r\nX: 1\r\n" + HEADER.replace(b"A: 1\r\n", b""),
        ),
    ],
)
def test_changes_are_made_by_the_numbers_of_the_message_as_it_came(
    removed: list[int], changes: list[Changes], expected: bytes
) -> None:
    assert rewritten(HEADER, removed, changes) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # the second one sees what the first has put in front, and takes it out
        (
            [Changes(inserted=((0, "A", "0"),), chained=True), Changes(changed=(FieldChange("A", 1, None),), chained=True)],
            HEADER,
        ),
        (
            [Changes(inserted=((0, "A", "0"),), chained=True), Changes(changed=(FieldChange("A", 2, "new"),), chained=True)],
            b"A: 0\r\n" + HEADER.replace(b"A: 1", b"A: new"),
        ),
        (
            [Changes(changed=(FieldChange("A", 1, None),), chained=True), Changes(changed=(FieldChange("A", 1, "x"),), chained=True)],
            HEADER.replace(b"A: 1\r\n", b"").replace(b"a: 3", b"A: x"),
        ),
        (
            [Changes(added=(("X", "1"),), chained=True), Changes(inserted=((4, "Y", "2"),), chained=True)],
            HEADER + b"Y: 2\r\nX: 1\r\n",
        ),
        # who is not in the chain has seen the message as it came, wherever it stands
        (
            [
                Changes(inserted=((0, "A", "0"),), chained=True),
                Changes(changed=(FieldChange("A", 1, "one"),)),
                Changes(changed=(FieldChange("A", 1, "nought"),), chained=True),
            ],
            b"A: nought\r\n" + HEADER.replace(b"A: 1", b"A: one"),
        ),
    ],
)
def test_in_a_chain_each_counts_what_the_ones_before_have_left(changes: list[Changes], expected: bytes) -> None:
    assert rewritten(HEADER, [], changes) == expected


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize("body", [None, b"", b"new\r\n"])
def test_the_next_of_a_chain_sees_the_message_as_changed(size: int, body: bytes | None) -> None:
    octets = HEADER + b"\r\nold\r\n"

    class Cut(Message):
        async def chunks(self) -> AsyncIterator[bytes]:
            for at in range(0, len(octets), size):
                yield octets[at : at + size]

    changes = [Changes(changed=(FieldChange("B", 1, None),), chained=True), Changes(body=body, added=(("X", "1"),), chained=True)]
    seen = Rewritten(Cut(a_mail(), octets), changes)
    expected = b"A: 1\r\na: 3\r\nno field\r\nC: 4\r\nX: 1\r\n\r\n" + (b"old\r\n" if body is None else body)

    async def read() -> bytes:
        return b"".join([chunk async for chunk in seen.chunks()])

    assert drive(read()) == expected
    assert seen.size == len(expected)
    assert drive(seen.octets(9)) == expected[:9]
    assert seen.named[b"a"] == [b" 1", b" 3"] and b"b" not in seen.named
