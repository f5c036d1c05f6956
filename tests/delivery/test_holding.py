"""The header as several filters want it: each of them saw the same one, and none shifts the numbers of another."""

from __future__ import annotations

import pytest

from twisted_mail.delivery.holding import fields_of, rewritten
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
    assert rewritten(HEADER, fields_of(HEADER), removed, changes) == expected
