"""Daemons that die in the middle, are slow, answer garbage or without end; and what filters make of answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from tests.filters.asking import Message, ann, client, mail, now, recipient, started
from tests.filters.daemon import Daemon
from twisted_mail.filters.clamav import ClamAV
from twisted_mail.filters.origins import ReverseName
from twisted_mail.filters.rspamd import Rspamd, place_of_url
from twisted_mail.filters.spamassassin import SpamAssassin, received_field, user_name
from twisted_mail.filters.teaching import RspamdTeacher, SpamAssassinTeacher
from twisted_mail.filters.values import Action, FieldChange, FilterDown, Verdict
from twisted_mail.values import AccountId

OCTETS = b"From: bob@example.net\r\nSubject: one\r\nX-Spam: yes\r\nX-Spam: no\r\n\r\nHello.\r\n"


class Asked:
    """A question that may be waiting."""

    def __init__(self, deferred: Deferred[Verdict]) -> None:
        self.deferred = deferred
        self.outcome: Verdict | Failure | None = None
        deferred.addBoth(self._came)

    def _came(self, outcome: Verdict | Failure) -> None:
        self.outcome = outcome

    @property
    def verdict(self) -> Verdict:
        assert isinstance(self.outcome, Verdict), self.outcome
        return self.outcome

    @property
    def down(self) -> str:
        """Why; the filter must be down."""
        assert isinstance(self.outcome, Failure), self.outcome
        self.outcome.trap(FilterDown)
        return str(self.outcome.value)


def spamassassin(daemon: Daemon) -> Asked:
    stage = SpamAssassin(daemon.place, daemon.dial, hostname="mx.example.org", wall=lambda: 0.0)
    return Asked(started(stage.end(Message(OCTETS))))


def rspamd(daemon: Daemon, **options: Any) -> Asked:
    stage = Rspamd("unix:/run/daemon", daemon.dial, hostname="mx.example.org", **options)
    return Asked(started(stage.end(Message(OCTETS))))


def clamav(daemon: Daemon, octets: bytes = OCTETS) -> Asked:
    stage = ClamAV(daemon.place, daemon.dial)

    async def ask() -> Verdict:
        message = Message(octets)
        reader = stage.read(message.mail)
        await reader.write(octets)
        return await reader.finish(message)

    return Asked(started(ask()))


ALL = pytest.mark.parametrize("ask", [spamassassin, rspamd, clamav])
Ask = Callable[[Daemon], Asked]


@ALL
def test_where_nobody_listens_the_filter_is_down(ask: Ask) -> None:
    daemon = Daemon()
    asked = ask(daemon)
    while daemon.asked > daemon.connections:
        daemon.refuse()
    assert asked.down


@ALL
def test_one_that_dies_before_it_answers_is_down(ask: Ask) -> None:
    daemon = Daemon()
    asked = ask(daemon)
    while daemon.asked > daemon.connections:
        daemon.accept()
        daemon.die()
    assert "closed" in asked.down


@ALL
def test_one_that_never_answers_is_down_in_the_end(ask: Ask) -> None:
    daemon = Daemon()
    asked = ask(daemon)
    while daemon.asked > daemon.connections:
        daemon.accept()
        daemon.clock.advance(61)
    assert "no answer in" in asked.down
    assert daemon.hung_up
    assert not daemon.clock.getDelayedCalls()


@ALL
@pytest.mark.parametrize(
    "said", [b"\0\0\0\0garbage\n\n\0", b"220 mx ESMTP\r\n\r\n\0", b"HTTP/1.1 200 OK\r\n\r\nno json\0"]
)
def test_one_that_answers_garbage_is_down(ask: Ask, said: bytes) -> None:
    daemon = Daemon()
    asked = ask(daemon)
    while daemon.asked > daemon.connections:
        daemon.accept()
        daemon.say(said)
        daemon.die()
    assert asked.down


@ALL
def test_one_that_answers_without_end_is_cut_off(ask: Ask) -> None:
    daemon = Daemon()
    asked = ask(daemon)
    while daemon.asked > daemon.connections:
        daemon.accept()
        for _ in range(40):
            daemon.say(b"x" * 65_536)
            if daemon.hung_up:
                break
    assert "no end" in asked.down
    assert daemon.hung_up


@ALL
@settings(max_examples=60, deadline=None)
@given(said=st.binary(max_size=200), at=st.integers(0, 200))
def test_whatever_it_says_is_a_verdict_or_down(ask: Ask, said: bytes, at: int) -> None:
    daemon = Daemon()
    asked = ask(daemon)
    while daemon.asked > daemon.connections:
        daemon.accept()
        daemon.say(said[:at])
        daemon.say(said[at:])
        daemon.die()
    assert isinstance(asked.outcome, Verdict) or asked.down


@ALL
def test_a_question_that_is_given_up_closes_its_connection(ask: Ask) -> None:
    daemon = Daemon()
    asked = ask(daemon)
    daemon.accept()
    asked.deferred.cancel()
    assert isinstance(asked.outcome, Failure)
    asked.outcome.trap(CancelledError)
    assert daemon.hung_up
    assert not daemon.clock.getDelayedCalls()


# --- SpamAssassin


def test_what_spamd_is_asked() -> None:
    daemon = Daemon()
    asked = spamassassin(daemon)
    daemon.accept()
    head, _, body = daemon.received.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"SYMBOLS SPAMC/1.5"
    assert lines[1:] == [b"Content-length: %d" % len(body), b"User: ann@example.org"]
    assert body.endswith(OCTETS)
    assert daemon.half_closed
    daemon.say(b"SPAMD/1.1 0 EX_OK\r\nContent-length: 9\r\nSpam: Yes ; 7.5 / 5.0\r\n\r\nAAA,B")
    assert asked.outcome is None
    daemon.say(b"BB_C")
    assert asked.verdict.score == 7.5
    assert asked.verdict.facts["symbols"] == "AAA,BBB_C"


@pytest.mark.parametrize(
    "said",
    [
        b"SPAMD/1.0 76 Bad header line: x\r\n",
        b"SPAMD/1.1 0 EX_OK\r\nContent-length: 0\r\n\r\n",
        b"SPAMD/1.1 0 EX_OK\r\nContent-length: 99999999\r\nSpam: True ; 9 / 5\r\n\r\n",
        b"SPAMD/1.1 0 EX_OK\r\nContent-length: -1\r\nSpam: True ; 9 / 5\r\n\r\n",
        b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; many / 5\r\n\r\n",
    ],
)
def test_errors_of_spamd(said: bytes) -> None:
    daemon = Daemon()
    asked = spamassassin(daemon)
    daemon.accept()
    daemon.say(said)
    assert asked.down


def test_a_recipient_alone_gives_the_user() -> None:
    assert now(user_name(mail(recipients=["Ann+news@Example.org"]))) == "ann@example.org"
    assert now(user_name(mail(recipients=["ann@example.org", "cyd@example.org"]))) == ""
    assert now(user_name(mail())) == ""
    odd = mail()
    odd.recipients = [recipient("ann b@example.org")]
    assert now(user_name(odd)) == ""


def test_mail_to_an_alias_is_its_users() -> None:
    async def name_of(account: AccountId) -> str:
        return "ann@example.org" if account == alias.recipients[0].accounts[0] else ""

    alias = mail(recipients=["sales@example.org"])
    assert now(user_name(alias, name_of)) == "ann@example.org"
    assert now(user_name(mail(recipients=["cyd@example.org"]), name_of)) == "cyd@example.org"


def test_the_received_field_that_spamassassin_reads() -> None:
    peer = client("192.0.2.1", "mx.example.net", extended=True, secure=True)
    peer.note(ReverseName("pass", "out.example.net"))
    of = mail(peer=peer)
    of.id = "abc"
    assert received_field(of, "mx.example.org", 0.0) == (
        b"X-Envelope-From: <bob@example.net>\r\n"
        b"Received: from mx.example.net (out.example.net [192.0.2.1])\r\n"
        b"\tby mx.example.org with ESMTPS id abc;\r\n"
        b"\tThu, 01 Jan 1970 00:00:00 -0000\r\n"
    )
    peer.note(ReverseName("permerror"))
    assert b"(unknown [192.0.2.1])" in received_field(of, "mx.example.org", 0.0)


def test_nobody_can_smuggle_a_field_in() -> None:
    of = mail("a\r\nX-Evil: 1@b", client("2001:db8::1", "x\r\nX-Evil: 2", identity=ann()))
    text = received_field(of, "mx.example.org", 0.0)
    assert b"Evil" not in text
    assert b"[IPv6:2001:db8::1]" in text
    assert b"with SMTPA" in text


def test_at_most_so_many_questions_at_a_time() -> None:
    daemon = Daemon()
    stage = SpamAssassin(daemon.place, daemon.dial, hostname="mx.example.org", at_once=2)
    asked = [Asked(started(stage.end(Message(OCTETS)))) for _ in range(5)]
    assert daemon.asked == 2
    asked[4].deferred.cancel()
    daemon.accept()
    daemon.say(b"SPAMD/1.1 0 EX_OK\r\nSpam: False ; 1 / 5\r\n\r\n")
    assert asked[0].verdict.score == 1.0
    assert daemon.asked == 3
    asked[1].deferred.cancel()
    assert daemon.asked == 4


# --- rspamd


def answered(said: object, **options: Any) -> Asked:
    daemon = Daemon()
    asked = rspamd(daemon, **options)
    daemon.accept()
    body = json.dumps(said).encode()
    daemon.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert daemon.hung_up
    return asked


def test_what_rspamd_is_asked() -> None:
    daemon = Daemon()
    peer = client("192.0.2.1", "mx\r\nPassword: x", identity=ann())
    message = Message(OCTETS, mail("", peer, ["ann@example.org", "cyd@example.org"]))
    stage = Rspamd("http://x.example/a/", daemon.dial, hostname="mx.example.org", password="p", settings_id="s")
    stage._place = daemon.place
    Asked(started(stage.end(message)))
    daemon.accept()
    head, _, body = daemon.received.partition(b"\r\n\r\n")
    assert body == OCTETS
    assert head.split(b"\r\n") == [
        b"POST /a/checkv2 HTTP/1.0",
        b"Host: localhost",
        b"Content-Length: %d" % len(OCTETS),
        b"Ip: 192.0.2.1",
        b"Helo: mx Password: x",
        b"From: <>",
        b"Rcpt: ann@example.org",
        b"Rcpt: cyd@example.org",
        b"User: ann@example.org",
        b"MTA-Name: mx.example.org",
        b"MTA-Tag: mx.example.org",
        b"Settings-Id: s",
        b"Password: p",
    ]


@pytest.mark.parametrize(
    ("action", "score", "points", "became"),
    [
        ("no action", 2.0, 2.0, Action.ACCEPT),
        ("greylist", 5.5, 4.95, Action.ACCEPT),
        ("add header", 4.0, 5.0, Action.ACCEPT),
        ("rewrite subject", 7.0, 7.0, Action.ACCEPT),
        ("soft reject", 9.0, 5.0, Action.DEFER),
        ("reject", 3.0, 15.0, Action.REJECT),
        ("reject", 40.0, 40.0, Action.REJECT),
    ],
)
def test_actions_and_points(action: str, score: float, points: float, became: Action) -> None:
    verdict = answered({"score": score, "required_score": 15, "action": action, "symbols": {}}).verdict
    assert (verdict.score, verdict.action) == (points, became)
    if became is Action.DEFER:
        assert verdict.answer is not None
        assert verdict.answer.code == 451


def test_its_bound_and_ours_mean_the_same() -> None:
    said = {"score": 15, "required_score": 30, "action": "add header"}
    assert answered(said, reject_score=10.0, junk_score=2.0).verdict.score == 5.0


def test_fields_and_changes_that_rspamd_wants() -> None:
    verdict = answered(
        {
            "score": 8,
            "required_score": 15,
            "action": "rewrite subject",
            "subject": "*** SPAM *** one\r\nX-Evil: 1",
            "symbols": {"A_B": {"score": 6.5}, "C": {"score": -1}, "bad name": {"score": 3}},
            "milter": {
                "add_headers": {
                    "X-One": "1",
                    "X-Two": {"value": "a\r\nX-Evil: 2", "order": 1},
                    "X-Three": ["x", {"value": "y"}],
                    "Bad Name": "z",
                },
                "remove_headers": {"X-Spam": 0, "Subject": -1, "X-None": 1},
            },
        }
    ).verdict
    assert verdict.fields == (
        ("X-Spamd-Result", "rewrite subject [8.00 / 15.00];\r\n\tA_B(6.50);\r\n\tC(-1.00)"),
        ("X-One", "1"),
        ("X-Two", "a X-Evil: 2"),
        ("X-Three", "x"),
        ("X-Three", "y"),
    )
    assert verdict.changes is not None
    assert verdict.changes.changed == (
        FieldChange("Subject", 1, "*** SPAM *** one X-Evil: 1"),
        FieldChange("X-Spam", 2, None),
        FieldChange("X-Spam", 1, None),
        FieldChange("Subject", 1, None),
    )
    assert "by A_B (+6.5), C (-1.0)" in verdict.reason


def test_an_answer_may_end_with_the_connection() -> None:
    daemon = Daemon()
    asked = rspamd(daemon)
    daemon.accept()
    daemon.say(b'HTTP/1.0 200 OK\r\n\r\n{"score": 3, "required_score": 15, "action": "no')
    assert asked.outcome is None
    daemon.say(b' action"}')
    daemon.die()
    assert asked.verdict.score == 3.0


def test_long_and_foreign_fields_are_lines_that_a_header_may_have() -> None:
    said: dict[str, object] = {"score": 9, "required_score": 15, "action": "rewrite subject", "subject": "Grüße " * 60}
    said["milter"] = {"add_headers": {"X-Long": "word " * 500, "X-Longer": "x" * 3000}}
    verdict = answered(said).verdict
    assert verdict.changes is not None
    values = [value for _, value in verdict.fields] + [str(change.value) for change in verdict.changes.changed]
    assert len(values) == 4
    for value in values:
        lines = value.split("\r\n")
        assert all(len(line) < 998 and line.isascii() for line in lines)
        assert all(line[0] in " \t" for line in lines[1:])
    assert str(verdict.changes.changed[0].value).startswith("=?utf-8?")


@pytest.mark.parametrize(
    "said",
    [
        [],
        {"score": "1"},
        {"score": 1, "required_score": 15},
        {"score": float("nan"), "required_score": 15, "action": "reject"},
    ],
)
def test_answers_that_are_none(said: object) -> None:
    assert answered(said).down


@pytest.mark.parametrize(
    "said", [{"symbols": 5}, {"symbols": {"A": 5}}, {"milter": []}, {"milter": {"add_headers": [1], "remove_headers": {"a": "b"}}}, {"messages": ["x"]}]
)  # fmt: skip
def test_parts_of_an_answer_that_are_none_are_passed_over(said: dict[str, object]) -> None:
    assert answered({"score": 20, "required_score": 15, "action": "reject", **said}).verdict.action is Action.REJECT


@pytest.mark.parametrize("url", ["https://127.0.0.1:11333", "127.0.0.1:11333", "http://", "http://a/?b", "ftp://a"])
def test_addresses_of_rspamd_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match="no address of rspamd"):
        place_of_url(url, 11_333)


# --- ClamAV


def test_a_message_is_sent_in_pieces_while_it_comes() -> None:
    daemon = Daemon()
    stage = ClamAV(daemon.place, daemon.dial)
    message = Message(b"x" * 150_000)
    reader = stage.read(message.mail)
    writing = started(reader.write(b"x" * 100_000))
    daemon.accept()
    assert writing.called
    assert daemon.received == b"zINSTREAM\0" + (100_000).to_bytes(4, "big") + b"x" * 100_000
    assert started(reader.write(b"x" * 50_000)).called
    asked = Asked(started(reader.finish(message)))
    assert daemon.received.endswith((50_000).to_bytes(4, "big") + b"x" * 50_000 + b"\0\0\0\0")
    daemon.say(b"stream: Win.Test.EICAR_HDB-1 FOUND\0")
    assert asked.verdict.facts == {"virus": "Win.Test.EICAR_HDB-1"}
    assert daemon.hung_up


def test_while_the_daemon_takes_nothing_the_peer_waits() -> None:
    daemon = Daemon()
    reader = ClamAV(daemon.place, daemon.dial).read(mail())
    started(reader.write(b"x" * 70_000))
    daemon.accept()
    daemon.stall()
    writing = started(reader.write(b"x" * 70_000))
    assert not writing.called
    daemon.clock.advance(31)
    assert writing.called  # it is shown the message again when that is whole


def test_what_clamd_cannot_look_into_is_neither_clean_nor_infected() -> None:
    for said in (b"INSTREAM size limit exceeded. ERROR\0", b"stream: Heuristics.Encrypted.Zip FOUND\0", b"stream: Heuristics.Limits.Exceeded.MaxFileSize FOUND\0"):  # fmt: skip
        daemon = Daemon()
        asked = clamav(daemon)
        daemon.accept()
        daemon.say(said)
        assert asked.verdict.action is Action.MARK
        assert "unscannable" in asked.verdict.facts
        assert asked.verdict.fields == (("X-Virus-Status", "Not scanned"),)


def test_errors_of_clamd_are_no_verdict() -> None:
    daemon = Daemon()
    asked = clamav(daemon)
    daemon.accept()
    daemon.say(b"stream: Can't allocate memory ERROR\0")
    assert "allocate" in asked.down


def test_infected_mail_is_never_let_through() -> None:
    daemon = Daemon()
    for action in (Action.ACCEPT, Action.MARK, Action.JUNK, Action.DEFER):
        with pytest.raises(ValueError, match="infected"):
            ClamAV(daemon.place, daemon.dial, infected=action)


# --- teaching


@pytest.mark.parametrize(
    ("said", "known"),
    [
        (b'200 OK\r\n\r\n{"success":true}', True),
        (b'404 No\r\n\r\n{"error":"<1@example.net> has been already learned as spam, ignore it"}', False),
        (b'208 Known\r\n\r\n{"error":"x"}', False),
        (b'404 No\r\n\r\n{"error":"cannot find statfile backend"}', None),
        (b'401 No\r\n\r\n{"error":"Unauthorized"}', None),
        (b"500 No\r\n\r\n", None),
    ],
)
def test_what_rspamd_says_to_a_lesson(said: bytes, known: bool | None) -> None:
    daemon = Daemon()
    teacher = RspamdTeacher("unix:/run/daemon", daemon.dial, password="p")
    learning = started(teacher.learn(b"From: a@b\r\n\r\nx\r\n", spam=False, user="ann@example.org"))
    outcome: list[object] = []
    learning.addBoth(outcome.append)
    daemon.accept()
    assert daemon.received.startswith(b"POST /learnham HTTP/1.0\r\n")
    assert b"\r\nPassword: p\r\nDeliver-To: ann@example.org\r\n\r\nFrom: a@b" in daemon.received
    daemon.say(b"HTTP/1.1 " + said)
    daemon.die()
    if known is None:
        assert isinstance(outcome[0], Failure)
        outcome[0].trap(FilterDown)
    else:
        assert outcome == [known]


def test_what_spamd_is_taught() -> None:
    daemon = Daemon()
    teacher = SpamAssassinTeacher(daemon.place, daemon.dial)
    learning = started(teacher.learn(b"x" * 600_000, spam=True, user="ann@example.org"))
    daemon.accept()
    head, _, body = daemon.received.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"TELL SPAMC/1.5",
        b"Content-length: 524288",
        b"User: ann@example.org",
        b"Message-class: spam",
        b"Set: local",
    ]
    assert len(body) == 524_288
    daemon.say(b"SPAMD/1.1 0 EX_OK\r\nDidSet: local\r\n\r\n\r\n")
    assert learning.called
