"""Milters in a row: each sees what the ones before have made of a message, and what they change adds up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from tests.filters.milters import FakeWire, Message, ScriptedMilter, a_mail, changed, drive, say
from twisted_mail.filters.findings import Finding
from twisted_mail.filters.gauntlet import Gauntlet, Post
from twisted_mail.filters.milter import Milter
from twisted_mail.filters.milter_chain import MilterChain
from twisted_mail.filters.milter_packets import Command, Modification, Negotiation, Reply, Steps, Tells
from twisted_mail.filters.rewriting import rewritten
from twisted_mail.filters.values import Action, Changes, FilterDown
from twisted_mail.filters.wires import Place

MAIL = b"From: ann@example.org\r\nSubject: a\r\n\r\nHello\r\n"
LOOKS_ONLY = Negotiation(6, Tells.QUARANTINE | Tells.ADD_RECIPIENTS, Steps(0))


class SlowWire(FakeWire):
    """Its milter answers to the end of the body when the test says so."""

    def __init__(self, milter: ScriptedMilter, row: Row) -> None:
        super().__init__(milter)
        self.row = row

    async def receive(self, seconds: float) -> bytes:
        if self.milter.heard and self.milter.heard[-1][0] is Command.END_OF_BODY and self.milter is self.row.slow:
            self.row.waiting = Deferred()
            await self.row.waiting
        return await super().receive(seconds)


class Row:
    """A gauntlet of milters, and one message on its way through."""

    def __init__(self, *milters: ScriptedMilter | None) -> None:
        self.milters = milters
        self.clock = Clock()
        self.slow: ScriptedMilter | None = None
        self.waiting: Deferred[None] | None = None
        chain = MilterChain()
        posts = [
            Post(stage=Milter(Place("127.0.0.1", at), self.dial, "mx.example.net", name=f"m{at}", chain=chain), message_seconds=60.0 * at + 60)
            for at in range(len(milters))
        ]
        self.gauntlet = Gauntlet(posts, self.clock)
        self.mail = a_mail()
        self.passage = self.gauntlet.enter(self.mail.client)
        drive(self.passage.connect())
        drive(self.passage.helo())
        recipients, self.mail.recipients = self.mail.recipients, []
        drive(self.passage.begin(self.mail))
        for each in recipients:
            drive(self.passage.recipient(each))
        self.reading = self.passage.read()

    async def dial(self, place: Place, seconds: float) -> Any:
        milter = self.milters[place.port]
        if milter is None:
            raise FilterDown("no connection")
        return SlowWire(milter, self)

    def write(self, octets: bytes = MAIL) -> None:
        for start in range(0, len(octets), 9):
            drive(self.reading.write(octets[start : start + 9]))

    def finish(self, octets: bytes = MAIL, only: frozenset[str] | None = None) -> list[Finding]:
        found = drive(self.reading.finish(Message(self.mail, octets), only))
        assert isinstance(found, list)
        return found

    def shown(self, octets: bytes = MAIL) -> list[Finding]:
        self.write(octets)
        return self.finish(octets)


def changing(*changes: Modification, **more: Any) -> ScriptedMilter:
    return ScriptedMilter(answers={Command.END_OF_BODY: [*changed(*changes), say(Reply.CONTINUE)]}, **more)


def seen(milter: ScriptedMilter) -> tuple[list[bytes], bytes]:
    """Fields and body of the message as that milter was shown it."""
    fields = [data for command, data in milter.heard if command is Command.HEADER]
    return fields, b"".join(data for command, data in milter.heard if command is Command.BODY)


def result(findings: Sequence[Finding], octets: bytes = MAIL) -> bytes:
    """What becomes of the message, as delivery makes it."""
    changes = [each.verdict.changes for each in findings if each.verdict.changes is not None]
    header, _, body = octets.partition(b"\r\n\r\n")
    bodies = [each.body for each in changes if each.body is not None]
    return rewritten(header + b"\r\n", (), changes) + b"\r\n" + (bodies[-1] if bodies else body)


def test_the_next_one_sees_what_the_one_before_has_changed() -> None:
    first = changing(
        Modification(Reply.INSERT_HEADER, "X-First", "1", 0),
        Modification(Reply.CHANGE_HEADER, "Subject", "[ext] a", 1),
        Modification(Reply.REPLACE_BODY, octets=b"Goodbye\n"),
    )
    second = changing(Modification(Reply.INSERT_HEADER, "X-Signed", "x", 1))
    findings = Row(first, second).shown()
    assert seen(first) == ([b"From\0ann@example.org\0", b"Subject\0a\0"], b"Hello\r\n")
    assert seen(second) == ([b"X-First\x001\0", b"From\0ann@example.org\0", b"Subject\0[ext] a\0"], b"Goodbye\r\n")
    assert result(findings) == b"X-Signed: x\r\nX-First: 1\r\nFrom: ann@example.org\r\nSubject: [ext] a\r\n\r\nGoodbye\r\n"


def test_changes_of_several_add_up_by_the_numbers_that_each_has_seen() -> None:
    octets = b"A: 1\r\nA: 2\r\n\r\nx\r\n"
    first = changing(Modification(Reply.CHANGE_HEADER, "A", "", 1))
    second = changing(Modification(Reply.CHANGE_HEADER, "A", "two", 1), Modification(Reply.ADD_HEADER, "B", "3"))
    third = changing(Modification(Reply.CHANGE_HEADER, "B", "4", 1), Modification(Reply.CHANGE_HEADER, "A", "last", 2))
    findings = Row(first, second, third).shown(octets)
    assert seen(third)[0] == [b"A\0two\0", b"B\x003\0"]
    assert result(findings, octets) == b"A: two\r\nB: 4\r\nA: last\r\n\r\nx\r\n"


def test_behind_one_that_changes_nothing_the_message_is_shown_while_it_comes() -> None:
    first, second = ScriptedMilter(LOOKS_ONLY), changing(Modification(Reply.ADD_HEADER, "X", "1"))
    third = ScriptedMilter()
    row = Row(first, second, third)
    row.write()
    assert seen(second)[0], "it is told the header before the message has ended"
    assert Command.DATA not in dict(third.heard), "it waits for what the second one changes"
    findings = row.finish()
    assert seen(third)[0][-1] == b"X\x001\0"
    assert result(findings).startswith(MAIL.partition(b"\r\n\r\n")[0] + b"\r\nX: 1\r\n")


def test_one_that_lets_everything_pass_keeps_nobody_waiting() -> None:
    first = ScriptedMilter(answers={Command.MAIL: [say(Reply.ACCEPT)]})
    second = ScriptedMilter()
    row = Row(first, second)
    row.write()
    assert seen(second)[0]


@pytest.mark.parametrize("how", ["never there", "dies in the body", "dies at the end", "not asked"])
def test_behind_one_that_is_down_the_message_is_seen_as_it_came(how: str) -> None:
    first = changing(Modification(Reply.ADD_HEADER, "X", "1"))
    if how.startswith("dies"):
        first.dies_at = Command.BODY if how == "dies in the body" else Command.END_OF_BODY
    second = changing(Modification(Reply.ADD_HEADER, "Y", "2"))
    row = Row(None if how == "never there" else first, second)
    octets = MAIL + b"x" * 70_000
    row.write(octets)
    findings = row.finish(octets, frozenset({"m1"}) if how == "not asked" else None)
    assert seen(second) == ([b"From\0ann@example.org\0", b"Subject\0a\0"], octets.partition(b"\r\n\r\n")[2])
    assert findings[-1].verdict.changes == Changes(added=(("Y", "2"),))
    assert [each.down for each in findings] == ([False] if how == "not asked" else [True, False])


def test_what_is_refused_is_shown_to_nobody_else() -> None:
    first, second = ScriptedMilter(answers={Command.END_OF_BODY: [say(Reply.REJECT)]}), ScriptedMilter()
    findings = Row(first, second).shown()
    assert [each.verdict.action for each in findings] == [Action.REJECT, Action.ACCEPT]
    assert Command.DATA not in dict(second.heard)


def test_one_that_hangs_holds_up_the_next_until_its_time_is_over_and_no_longer() -> None:
    first, second = changing(Modification(Reply.ADD_HEADER, "X", "1")), ScriptedMilter()
    row = Row(first, second)
    row.slow = first
    row.write()
    finishing = Deferred.fromCoroutine(row.reading.finish(Message(row.mail, MAIL)))
    assert not seen(second)[0]
    row.clock.advance(60)
    findings: Any = finishing.result
    assert [each.down for each in findings] == [True, False]
    assert len(seen(second)[0]) == 2


def test_one_that_is_slow_is_waited_for() -> None:
    first, second = changing(Modification(Reply.ADD_HEADER, "X", "1")), ScriptedMilter()
    row = Row(first, second)
    row.slow = first
    row.write()
    finishing = Deferred.fromCoroutine(row.reading.finish(Message(row.mail, MAIL)))
    row.clock.advance(50)
    assert not seen(second)[0] and row.waiting is not None
    row.waiting.callback(None)
    assert finishing.called
    assert seen(second)[0][-1] == b"X\x001\0"


def test_a_message_that_is_given_up_while_one_waits_leaves_nothing() -> None:
    first, second = changing(Modification(Reply.ADD_HEADER, "X", "1")), ScriptedMilter()
    row = Row(first, second)
    row.slow = first
    row.write()
    finishing = Deferred.fromCoroutine(row.reading.finish(Message(row.mail, MAIL)))
    failed: list[Any] = []
    finishing.addErrback(failed.append)
    finishing.cancel()
    assert failed and failed[0].check(CancelledError)
    drive(row.passage.close())
    assert second.commands.endswith("Q")
