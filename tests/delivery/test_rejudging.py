"""A message that waited in the queue for a filter: it is shown as it came, and what the filter makes of it is done."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.delivery.support import run
from tests.delivery.test_judging import MESSAGE, Court
from tests.filters.test_gauntlet import AtTheEnd
from twisted_mail.delivery.rejudging import FrontCut, Rejudged
from twisted_mail.filters.judged_by import JudgedBy
from twisted_mail.filters.values import Action, Arrived, Changes, FieldChange, FilterDown, Verdict, WhenDown

FRONT = b"Return-Path: <a@b.example>\r\nX-Spam-Score: 1.0\r\nReceived: from x\r\n\tby y; now\r\n"


class Late(AtTheEnd):
    """Down when the message comes; sees it whole when it is asked again."""

    seen = b""

    async def end(self, message: Arrived) -> Verdict:
        self.seen = await message.octets(1 << 20)
        return await super().end(message)


async def in_pieces(octets: bytes, size: int = 11) -> AsyncIterator[bytes]:
    for at in range(0, len(octets), size):
        yield octets[at : at + size]


async def joined(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


@pytest.mark.parametrize("size", [1, 2, 13, 1000])
@pytest.mark.parametrize(
    ("front", "message"),
    [
        (FRONT, MESSAGE),
        (FRONT, b"Received: from far\r\n\tby near; then\r\n" + MESSAGE),
        (FRONT, b"\r\njust text\r\n"),
        (FRONT, b""),
        (b"", MESSAGE),
        (b"", b"Return-Path: <x>\r\nSubject: no trace of ours\r\n\r\ntext\r\n"),
        (b"", b"R"),
        (b"", b""),
    ],
)
def test_what_we_put_in_front_is_told_apart(front: bytes, message: bytes, size: int) -> None:
    cut = FrontCut()
    octets = front + message
    came = b"".join(cut.feed(octets[at : at + size]) for at in range(0, len(octets), size)) + cut.end()
    assert (cut.front, came) == (front, message)


def test_a_front_without_end_is_none() -> None:
    cut = FrontCut()
    octets = b"Return-Path: <x>\r\n" + b"X: y\r\n" * 60_000
    assert cut.feed(octets) == octets and cut.front == b""


class Waiting:
    """A message in the queue, for which a filter was down."""

    def __init__(self, tmp_path: Path, *others: Any, message: bytes = MESSAGE, judged_by: JudgedBy | None = None) -> None:
        self.late = Late("late")
        self.late.says = FilterDown("nobody answers")
        self.court = Court(tmp_path, self.late, *others, when_down=WhenDown.QUEUE)
        self.court.judge.judged_by = judged_by
        self.court.send(message=message)
        (self.octets,) = self.court.stored()
        judgement = self.court.judgements[0]
        assert judgement is not None and judgement.pending == ("late",)
        self.judgement = judgement

    def again(self, **verdict: Any) -> tuple[Rejudged, bytes]:
        """What is found, and the message as it is stored then."""
        self.late.says = Verdict(**verdict)
        found = run(self.court.judge.again(self.judgement, lambda: in_pieces(self.octets), "a@b.example", "ann@example.org"))
        return found, run(joined(found.octets(in_pieces(self.octets))))


def test_it_is_shown_as_it_came_and_goes_on_as_it_is_where_nothing_is_changed(tmp_path: Path) -> None:
    waiting = Waiting(tmp_path)
    found, octets = waiting.again(reason="fine")
    assert waiting.late.seen == MESSAGE
    assert octets == waiting.octets and found.judgement.pending == ()


def test_header_and_body_are_changed_as_they_would_have_been_at_once(tmp_path: Path) -> None:
    changes = Changes(
        inserted=((0, "X-First", "1"),),
        changed=(FieldChange("Subject", 1, "[ext] x"), FieldChange("Message-ID", 1, None)),
        added=(("X-Last", "2"),),
        body=b"another text\r\n",
    )
    waiting = Waiting(tmp_path)
    _, octets = waiting.again(changes=changes)
    front = waiting.octets[: -len(MESSAGE)]
    assert octets == front + (
        b"X-First: 1\r\nFrom: a@b.example\r\nSubject: [ext] x\r\nX-Last: 2\r\n\r\nanother text\r\n"
    )


def test_fields_and_points_are_those_of_now(tmp_path: Path) -> None:
    waiting = Waiting(tmp_path)
    assert b"X-Spam-Status: No, score=0.0" in waiting.octets
    found, octets = waiting.again(score=7.0, fields=(("X-Found", "much"),))
    assert found.judgement.action is Action.JUNK
    lines = octets.split(b"\r\n")
    assert lines[:5] == [
        b"Return-Path: <a@b.example>",
        b"X-Spam-Status: Yes, score=7.0 required=5.0",
        b"X-Spam-Score: 7.0",
        b"X-Spam-Flag: YES",
        b"X-Found: much",
    ]
    assert octets.count(b"X-Spam-Status") == octets.count(b"X-Spam-Score") == 1
    assert octets.endswith(MESSAGE)


def test_who_judges_it_late_is_taught_too(tmp_path: Path) -> None:
    async def secret() -> bytes:
        return b"k" * 32

    judged_by = JudgedBy(frozenset({"late", "early"}), secret)
    early = AtTheEnd("early")
    early.says = Verdict(facts={"score": "1"})
    waiting = Waiting(tmp_path, early, judged_by=judged_by)
    assert run(judged_by.judges_of(waiting.octets)) == {"early"}
    changes = Changes(changed=(FieldChange("From", 1, "new@b.example"),))
    _, octets = waiting.again(facts={"score": "2"}, changes=changes)
    assert octets.count(b"X-Spam-Judged-By") == 1
    assert run(judged_by.judges_of(octets)) == {"early", "late"}


def test_another_sender_is_the_return_path(tmp_path: Path) -> None:
    waiting = Waiting(tmp_path)
    found, octets = waiting.again(changes=Changes(sender="other@b.example"))
    assert found.sender == "other@b.example"
    assert octets == b"Return-Path: <other@b.example>" + waiting.octets[waiting.octets.index(b"\r\n") :]


def test_a_recipient_who_is_taken_out_leaves_it_in_quarantine_and_one_more_is_only_told(tmp_path: Path) -> None:
    waiting = Waiting(tmp_path)
    found, _ = waiting.again(changes=Changes(recipients_removed=("ANN@example.org",)))
    assert found.judgement.action is Action.QUARANTINE and "is to get nothing" in found.judgement.trace[-1]
    found, _ = waiting.again(changes=Changes(recipients_added=("eve@example.org",)))
    assert found.judgement.action is Action.MARK and "eve@example.org would get it too" in found.judgement.trace[-1]


def test_a_message_without_a_header_keeps_its_body(tmp_path: Path) -> None:
    waiting = Waiting(tmp_path, message=b"just text\r\n")
    _, octets = waiting.again(changes=Changes(added=(("X-Last", "2"),)))
    assert octets.endswith(b"X-Last: 2\r\n\r\njust text\r\n")
