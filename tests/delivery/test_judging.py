"""A message that filters look at: held, judged, and passed on with what they found; refused where they say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock

from tests.delivery.support import NOW, House, run
from tests.filters.test_gauntlet import AtTheEnd, Early
from twisted_mail.delivery.intake import DeliverySettings, MailIntake
from twisted_mail.delivery.judgement import Judgement
from twisted_mail.delivery.judging import Judge, JudgedVisit, JudgeSettings
from twisted_mail.delivery.stories import Chapter
from twisted_mail.filters.clamav import VirusCheck
from twisted_mail.filters.gauntlet import Gauntlet, Post
from twisted_mail.filters.judged_by import JudgedBy
from twisted_mail.filters.values import (
    Action,
    Answer,
    AuthenticationResult,
    Changes,
    FieldChange,
    FilterDown,
    Verdict,
    WhenDown,
)
from twisted_mail.queueing.spool import SpoolFolder
from twisted_mail.services import Envelope, Identity, MailRefused, Outcome, Peer
from twisted_mail.values import AccountId

MESSAGE = b"From: a@b.example\r\nSubject: x\r\nMessage-ID: <1@b.example>\r\n\r\ntext\r\n"
STRANGER = Peer("192.0.2.7", 4711, service="smtp")


class Court:
    """A delivery room with filters in front of it."""

    def __init__(self, tmp_path: Path, *filters: Any, when_down: WhenDown = WhenDown.ACCEPT_AND_MARK, **settings: Any):
        self.house = House()
        self.house.user("ann@example.org")
        self.house.user("bob@example.org")
        self.chapters: list[Chapter] = []
        self.judgements: list[Judgement | None] = []
        self.queue_only: list[bool] = []
        self.envelopes: list[Envelope] = []
        self.judge = Judge(
            Gauntlet([Post(stage=each, when_down=when_down) for each in filters], Clock()),
            SpoolFolder(tmp_path, maybeDeferred),
            JudgeSettings(hostname="mx.example.org", **settings),
            tell=self.chapters.append,
            wall=lambda: NOW,
        )
        self.intake = MailIntake(
            self.house.directory,
            self.house.ways,
            DeliverySettings(hostname="mx.example.org"),
            judge=self.judge,
            wall=lambda: NOW,
        )
        accepted = self.intake.accepted

        def seen(envelope: Envelope, **more: Any) -> Any:
            self.judgements.append(more["judgement"])
            self.queue_only.append(more["queue_only"])
            self.envelopes.append(envelope)
            return accepted(envelope, **{**more, "queue_only": False})

        self.intake.accepted = seen  # type: ignore[method-assign]

    def send(
        self,
        *recipients: str,
        message: bytes = MESSAGE,
        peer: Peer = STRANGER,
        identity: Identity | None = None,
        sender: str = "a@b.example",
    ) -> list[Outcome]:
        visit = self.intake.visit(peer)
        assert isinstance(visit, JudgedVisit)
        run(visit.connected())
        run(visit.greeted("client.example", peer, extended=True))
        run(visit.sender(sender, identity=identity, size=None, body="7BIT", smtputf8=False))
        taken = []
        for address in recipients or ("ann@example.org",):
            recipient = run(self.intake.recipient(address, identity=identity))
            run(visit.recipient(recipient))
            taken.append(recipient)
        envelope = Envelope(sender, tuple(taken), peer, "client.example", "ESMTP", identity=identity, visit=visit)
        incoming = run(self.intake.begin(envelope))
        for at in range(0, len(message), 7):
            run(incoming.write(message[at : at + 7]))
        outcomes = list(run(incoming.finish()))
        run(visit.ended())
        run(visit.closed())
        return outcomes

    def stored(self, address: str = "ann@example.org", mailbox: str = "INBOX") -> list[bytes]:
        return self.house.mailbox(address, mailbox)


def saying(name: str, **verdict: Any) -> AtTheEnd:
    stage = AtTheEnd(name)
    stage.says = Verdict(**verdict)
    return stage


def test_a_message_that_nobody_minds_goes_on_as_it_came_with_what_was_found_in_front(tmp_path: Path) -> None:
    result = AuthenticationResult("spf", "pass", properties=(("smtp.mailfrom", "b.example"),))
    court = Court(tmp_path, saying("spf", reason="it may send", results=(result,), score=-0.5))
    outcomes = court.send()
    assert [outcome.refused for outcome in outcomes] == [None]
    (octets,) = court.stored()
    head, _, rest = octets.partition(b"Received: ")
    assert head.splitlines()[0] == b"Return-Path: <a@b.example>"
    assert b"Authentication-Results: mx.example.org" in head and b"spf=pass smtp.mailfrom=b.example" in head
    assert b"X-Spam-Status: No, score=-0.5 required=5.0\r\n" in head and b"X-Spam-Flag" not in head
    assert rest.endswith(MESSAGE)
    judgement = court.judgements[0]
    assert judgement is not None
    assert (judgement.action, judgement.peer, judgement.helo) == (Action.ACCEPT, "192.0.2.7", "client.example")
    (envelope,) = court.envelopes
    assert envelope.results.startswith("mx.example.org;") and "spf=pass" in envelope.results, "for ARC, if it is forwarded"
    assert not envelope.verified, "a result that nobody has noted vouches for nobody"
    (chapter,) = court.chapters
    assert (chapter.what, chapter.message_id, chapter.recipients) == ("accepted", "1@b.example", ("ann@example.org",))
    assert chapter.lines[0].startswith("spf: it may send (-0.5 points)")


def test_fields_that_only_we_may_write_are_taken_out(tmp_path: Path) -> None:
    forged = (
        b"Authentication-Results: mx.example.org;\r\n dkim=pass header.d=bank.example\r\n"
        b"authentication-results: other.example; dkim=pass header.d=bank.example\r\n"
        b"X-Spam-Status: No, score=-100\r\n"
    )
    court = Court(tmp_path, saying("nothing"))
    court.send(message=forged + MESSAGE)
    (octets,) = court.stored()
    assert b"score=-100" not in octets and octets.count(b"Authentication-Results: mx.example.org") == 1
    assert b"authentication-results: other.example; dkim=pass" in octets
    assert b"Authentication-Results: mx.example.org;\r\n\tnone\r\n" in octets


def test_who_judged_it_is_sealed_and_a_seal_that_somebody_brings_is_taken_out(tmp_path: Path) -> None:
    async def secret() -> bytes:
        return b"k" * 32

    judged_by = JudgedBy(frozenset({"rspamd", "spamassassin"}), secret)
    down = AtTheEnd("spamassassin")
    down.says = FilterDown("nobody answers")
    court = Court(tmp_path, saying("rspamd", facts={"score": "1"}), down, saying("other", facts={"score": "1"}))
    court.judge.judged_by = judged_by
    name, value = run(judged_by.field(frozenset({"spamassassin"}), MESSAGE)) or ("", "")
    forged = f"{name.lower()}: {value}\r\n".encode()
    for at, peer in enumerate((STRANGER, Peer("", service="lmtp"))):
        court.send(message=forged + MESSAGE, peer=peer)
        octets = court.stored()[at]
        assert octets.lower().count(b"x-spam-judged-by") == 1
        assert run(judged_by.judges_of(octets)) == {"rspamd"}
    scanner = saying("scanner", facts={"score": "1"})
    scanner.outbound = True
    court = Court(tmp_path, scanner)
    court.judge.judged_by = JudgedBy(frozenset({"scanner"}), secret)
    court.send(message=forged + MESSAGE, identity=Identity(AccountId(bytes(16)), "bob@example.org"))
    assert b"judged-by" not in court.stored()[0].lower(), "nobody judges our own users' mail"


@pytest.mark.parametrize(
    ("verdict", "temporary", "code"),
    [
        ({"action": Action.REJECT}, False, 0),
        ({"action": Action.DEFER}, True, 0),
        ({"action": Action.REJECT, "answer": Answer(550, "5.7.1", "A virus")}, False, 550),
        ({"score": 15.0}, False, 550),
    ],
)
def test_a_message_that_is_refused_is_nowhere_and_the_story_says_why(
    tmp_path: Path, verdict: dict[str, Any], temporary: bool, code: int
) -> None:
    court = Court(tmp_path, saying("clamav", reason="it is bad", **verdict))
    with pytest.raises(MailRefused) as caught:
        court.send()
    assert (caught.value.temporary, caught.value.code) == (temporary, code)
    assert court.stored() == []
    (chapter,) = court.chapters
    assert chapter.what == ("deferred" if temporary else "refused") and "it is bad" in chapter.lines[0]


def test_at_a_recipient_only_that_recipient_is_refused(tmp_path: Path) -> None:
    class NotBob(Early):
        async def rcpt(self, mail: Any, recipient: Any) -> Verdict:
            return Verdict(action=Action.REJECT if recipient.address.startswith("bob") else Action.ACCEPT)

    court = Court(tmp_path, NotBob("policy"))
    with pytest.raises(MailRefused):
        court.send("ann@example.org", "bob@example.org")
    assert court.chapters[0].recipients == ("bob@example.org",)


def test_at_data_the_message_is_refused_before_it_comes(tmp_path: Path) -> None:
    class AtData(Early):
        async def data(self, mail: Any) -> Verdict:
            assert [each.address for each in mail.recipients] == ["ann@example.org"]
            return Verdict(action=Action.DEFER, reason="not yet", answer=Answer(450, "4.7.1", "Not yet"))

        async def strange(self, client: Any, line: str) -> Verdict:
            return Verdict(action=Action.REJECT if line == "GET /" else Action.ACCEPT)

    court = Court(tmp_path, AtData("policy"))
    with pytest.raises(MailRefused) as caught:
        court.send()
    assert (caught.value.code, caught.value.temporary, court.judgements) == (450, True, [])
    assert [chapter.lines[0].partition(",")[0] for chapter in court.chapters] == ["policy: not yet [defer]"]
    visit = court.intake.visit(STRANGER)
    assert isinstance(visit, JudgedVisit)
    run(visit.strange("HELP ME"))
    with pytest.raises(MailRefused):
        run(visit.strange("GET /"))
    assert len(court.chapters) == 1, "that is no mail"


@pytest.mark.parametrize(("score", "action", "by_score"), [(4.9, Action.ACCEPT, False), (5.0, Action.JUNK, True)])
def test_points_of_all_filters_are_added_up(tmp_path: Path, score: float, action: Action, by_score: bool) -> None:
    court = Court(tmp_path, saying("one", score=score - 2), saying("two", score=2.0))
    court.send()
    judgement = court.judgements[0]
    assert judgement is not None
    assert (judgement.action, judgement.by_score, judgement.percent) == (action, by_score, round(score * 10))
    (octets,) = [*court.stored(), *court.stored(mailbox="Junk")] if action is Action.ACCEPT else [b"X-Spam-Flag: YES"]
    assert (b"X-Spam-Flag: YES" in octets) is by_score


def test_our_own_users_mail_is_neither_scored_nor_marked(tmp_path: Path) -> None:
    stage = saying("clamav", score=100.0)
    stage.outbound = True
    court = Court(tmp_path, stage)
    court.send(identity=Identity(AccountId(bytes(16)), "bob@example.org"), peer=Peer("192.0.2.9", service="submission"))
    (octets,) = court.stored()
    assert b"X-Spam" not in octets and b"Authentication-Results" not in octets
    judgement = court.judgements[0]
    assert judgement is not None and judgement.login == "bob@example.org" and judgement.verified


def test_a_virus_in_mail_of_our_own_users_is_refused_too(tmp_path: Path) -> None:
    stage = saying("clamav", action=Action.REJECT)
    stage.outbound = True
    court = Court(tmp_path, stage)
    with pytest.raises(MailRefused):
        court.send(identity=Identity(AccountId(bytes(16)), "bob@example.org"))


@pytest.mark.parametrize("policy", list(WhenDown))
def test_with_a_filter_down_no_mail_is_lost_and_its_policy_is_kept(tmp_path: Path, policy: WhenDown) -> None:
    stage = AtTheEnd("clamav")
    stage.says = FilterDown("nobody answers")
    court = Court(tmp_path, stage, when_down=policy)
    if policy is WhenDown.DEFER:
        with pytest.raises(MailRefused) as caught:
            court.send()
        assert caught.value.temporary and court.stored() == []
        return
    court.send()
    judgement = court.judgements[0]
    assert judgement is not None and judgement.action is Action.MARK
    assert judgement.pending == (("clamav",) if policy is WhenDown.QUEUE else ())
    assert court.queue_only == [policy is WhenDown.QUEUE]
    assert any("no answer" in line for line in judgement.trace)


def test_who_is_asked_again_before_delivery_and_now_refuses_puts_it_into_quarantine(tmp_path: Path) -> None:
    stage = AtTheEnd("clamav")
    stage.says = FilterDown("nobody answers")
    other = AtTheEnd("other")
    court = Court(tmp_path, stage, other, when_down=WhenDown.QUEUE)
    court.send()
    judgement = court.judgements[0]
    assert judgement is not None

    async def chunks() -> Any:
        yield MESSAGE

    with pytest.raises(FilterDown):
        run(court.judge.again(judgement, lambda: chunks(), "a@b.example", "ann@example.org"))
    stage.says = Verdict(action=Action.REJECT, reason="EICAR", facts={"virus": "EICAR"})
    stage.notes = VirusCheck(5, "EICAR")
    asked = len(other.log)
    again = run(court.judge.again(judgement, lambda: chunks(), "a@b.example", "ann@example.org")).judgement
    assert (again.action, again.pending, again.virus) == (Action.QUARANTINE, (), 5)
    assert len(other.log) == asked, "who has answered is not asked again"
    assert again.peer == "192.0.2.7" and len(again.trace) == len(judgement.trace) + 1
    stage.says, stage.notes = Verdict(), VirusCheck(1)
    again = run(court.judge.again(judgement, lambda: chunks(), "a@b.example", "ann@example.org")).judgement
    assert (again.action, again.virus) == (Action.MARK, 1)


def test_a_quarantined_message_goes_by_the_queue_only(tmp_path: Path) -> None:
    court = Court(tmp_path, saying("policy", action=Action.QUARANTINE))
    court.send()
    assert court.queue_only == [True]


def test_what_filters_change_is_changed(tmp_path: Path) -> None:
    changes = Changes(
        inserted=((0, "X-First", "1"),),
        added=(("X-Last", "long\n value"),),
        changed=(
            FieldChange("subject", 1, "[ext] x"),
            FieldChange("x-twice", 1, None),
            FieldChange("x-twice", 2, "second"),
            FieldChange("Message-ID", 1, None),
        ),
        body=b"another text\r\n",
        recipients_added=("bob@example.org", "nobody@example.org"),
    )
    court = Court(tmp_path, saying("milter", changes=changes))
    outcomes = court.send(message=MESSAGE.replace(b"Message-ID", b"X-Twice: 1\r\nX-Twice: 2\r\nMessage-ID"))
    assert [outcome.recipient.address for outcome in outcomes] == ["ann@example.org"]
    for address in ("ann@example.org", "bob@example.org"):
        (octets,) = court.stored(address)
        assert octets.endswith(
            b"X-First: 1\r\nFrom: a@b.example\r\nsubject: [ext] x\r\nx-twice: second\r\nX-Last: long\r\n value\r\n\r\nanother text\r\n"
        )


def test_a_recipient_whom_a_filter_takes_out_is_told_to_nobody(tmp_path: Path) -> None:
    court = Court(tmp_path, saying("milter", changes=Changes(recipients_removed=("BOB@example.org",))))
    outcomes = court.send("ann@example.org", "bob@example.org")
    assert [(each.recipient.address, each.refused) for each in outcomes] == [
        ("ann@example.org", None),
        ("bob@example.org", None),
    ]
    assert len(court.stored()) == 1 and court.stored("bob@example.org") == []


@pytest.mark.parametrize("peer", [Peer("", service="lmtp"), Peer("192.0.2.7", service="lmtp"), Peer("10.1.2.3", service="smtp")])
def test_mail_from_our_own_servers_is_judged_by_its_content_only(tmp_path: Path, peer: Peer) -> None:
    early, content = Early("manners"), AtTheEnd("content")
    early.says = Verdict(action=Action.REJECT)
    court = Court(tmp_path, early, content, trusted=lambda address: address.startswith("10."))
    said_by_ours = b"X-Spam-Status: No, says the server in front\r\n"
    court.send(peer=peer, message=said_by_ours + MESSAGE)
    assert early.log == ["manners ended", "manners closed"] and content.log == ["content end"]
    (octets,) = court.stored()
    assert octets.endswith(said_by_ours + MESSAGE) and octets.count(b"X-Spam") == 1


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\r\nno header\r\n",
        b"just text, no field\r\nmore\r\n",
        b"Subject: header only\r\n",
        b"Subject: x\r\n\r\n",
        b"A: " + b"b" * 70_000 + b"\r\n\r\ntext\r\n",
    ],
)
def test_odd_messages_come_through_octet_for_octet(tmp_path: Path, message: bytes) -> None:
    court = Court(tmp_path, saying("nothing"))
    court.send(message=message)
    (octets,) = court.stored()
    assert octets.endswith(message)


def test_a_header_beyond_a_megabyte_is_passed_on_unchanged(tmp_path: Path) -> None:
    message = b"".join(b"X-%06d: %s\r\n" % (at, b"v" * 80) for at in range(12_500)) + b"\r\ntext\r\n"
    court = Court(tmp_path, saying("nothing"))
    visit = court.intake.visit(STRANGER)
    assert isinstance(visit, JudgedVisit)
    run(visit.sender("a@b.example", identity=None, size=None, body="7BIT", smtputf8=False))
    recipient = run(court.intake.recipient("ann@example.org", identity=None))
    incoming = run(court.intake.begin(Envelope("a@b.example", (recipient,), STRANGER, visit=visit)))
    for at in range(0, len(message), 65536):
        run(incoming.write(message[at : at + 65536]))
    run(incoming.finish())
    assert court.stored()[0].endswith(message)


def test_where_nobody_is_asked_the_message_is_not_even_held(tmp_path: Path) -> None:
    spam, limits = AtTheEnd("spam"), Early("limits", outbound=True)
    court = Court(tmp_path, spam, limits)
    court.send(peer=Peer("192.0.2.9", service="submission"), identity=Identity(AccountId(bytes(16)), "bob@example.org"))
    assert court.judgements[0] is not None and court.judgements[0].login == "bob@example.org"
    assert spam.log == [] and court.stored()[0].endswith(MESSAGE)
    assert court.chapters == [] and limits.log[0] == "limits connect", "who was asked has found nothing"
    limits.says = Verdict(action=Action.MARK, reason="in a hurry")
    court.send(peer=Peer("192.0.2.9", service="submission"), identity=Identity(AccountId(bytes(16)), "bob@example.org"))
    (chapter,) = court.chapters
    assert "in a hurry" in chapter.lines[0]


def test_a_message_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    court = Court(tmp_path, saying("nothing"))
    visit = court.intake.visit(STRANGER)
    assert isinstance(visit, JudgedVisit)
    run(visit.sender("a@b.example", identity=None, size=None, body="7BIT", smtputf8=False))
    recipient = run(court.intake.recipient("ann@example.org", identity=None))
    incoming = run(court.intake.begin(Envelope("a@b.example", (recipient,), STRANGER, visit=visit)))
    run(incoming.write(MESSAGE))
    run(incoming.abort())
    assert court.stored() == [] and court.chapters == []
