"""What scripts cause besides filing: redirect, reject, vacation answers, notifications; each once, whatever dies on the way."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.delivery.queue_house import Death
from tests.delivery.sorting_house import ANN, BOB, EVE, SortingHouse, SortingNode, mail, parsed
from tests.delivery.support import run
from twisted_mail.delivery.judgement import Judgement
from twisted_mail.filters.values import Action
from twisted_mail.relay.intake import Outgoing
from twisted_mail.relay.items import Outbound, outbound_of
from twisted_mail.relay.journal import Journal
from twisted_mail.relay.streams import NORMAL, Stream, Streams
from twisted_mail.services import MailRefused, Refusal
from twisted_mail.storage.interfaces import Alias, Unavailable

AWAY = 'require "vacation"; vacation :days 7 "I am away.";'
ELSEWHERE = "ann@elsewhere.example"


@pytest.fixture
def house(tmp_path: Path) -> SortingHouse:
    return SortingHouse(tmp_path)


def give(
    house: SortingHouse, script: str, message: bytes = mail(), *, straight: bool = True, sender: str = EVE, to: str = ANN
) -> SortingNode:
    """Deliver *message* to Ann, who has *script*, and let everything come to its end."""
    house.script(ANN, script)
    node = SortingNode(house, straight=straight)
    house.give(node, to, message=message, sender=sender)
    node.worker.start()
    house.go_on(2)
    assert house.items() == []
    return node


BOTH_WAYS = pytest.mark.parametrize("straight", [True, False], ids=["straight", "queued"])


# --- redirect


@BOTH_WAYS
def test_a_redirect_leaves_with_its_sender_and_says_who_redirected_it(house: SortingHouse, straight: bool) -> None:
    node = give(house, f'redirect "{ELSEWHERE}";', straight=straight)
    assert house.boxes(node, ANN) == {}
    [(sender, recipient, octets)] = house.world.sent.values()
    assert (sender, recipient) == (EVE, ELSEWHERE)
    assert octets.startswith(b"X-Sieve-Redirected-From: ann@example.org\r\nReceived: ")
    assert b"Return-Path" not in octets and octets.endswith(mail())


def test_a_redirect_with_a_copy_keeps_one(house: SortingHouse) -> None:
    node = give(house, f'require "copy"; redirect :copy "{ELSEWHERE}";')
    assert house.boxes(node, ANN) == {"INBOX": 1} and len(house.world.sent) == 1


def test_what_is_redirected_is_the_edited_message(house: SortingHouse) -> None:
    give(house, f'require "editheader"; addheader "X-Via" "ann"; redirect "{ELSEWHERE}";')
    [message] = house.world.to(ELSEWHERE)
    assert message["X-Via"] == "ann"


@BOTH_WAYS
def test_a_redirect_sends_what_there_was_when_it_was_come_to(house: SortingHouse, straight: bool) -> None:
    house.script(BOB, "keep;")
    script = f"""require ["editheader", "replace", "enclose", "copy"];
        redirect :copy "{ELSEWHERE}"; addheader "X-One" "1"; replace "other"; redirect :copy "{BOB}";
        enclose "look"; redirect :copy "two@elsewhere.example";"""
    node = give(house, script, straight=straight)
    [first] = house.world.to(ELSEWHERE)
    [second] = house.world.to("two@elsewhere.example")
    [(third, _)] = house.messages(node, BOB, "INBOX")
    [(kept, _)] = house.messages(node, ANN, "INBOX")
    assert first["X-One"] is None and "other" not in first.get_content()
    assert second["X-One"] == "1" and second.get_content().split() == ["other"] and second["Return-Path"] is None
    assert third.startswith(b"Return-Path: <eve@elsewhere.example>\r\nX-Sieve-Redirected-From: ann@example.org\r\nX-One: 1\r\n")
    assert third.endswith(b"\r\n\r\nother\r\n") and third.count(b"Return-Path") == 1
    assert kept.startswith(b"Return-Path: <eve@elsewhere.example>\r\nFrom: ann@example.org\r\n") and b"look" in kept


def test_what_cannot_be_redirected_is_kept_as_it_was_to_be_sent(house: SortingHouse) -> None:
    node = give(house, 'require ["editheader"]; addheader "X-One" "1"; redirect "nobody@example.org"; deleteheader "Subject";')
    [(octets, _)] = house.messages(node, ANN, "INBOX")
    assert b"X-One: 1" in octets and b"Subject: " in octets


@BOTH_WAYS
def test_a_redirect_to_one_of_us_goes_through_the_queue(house: SortingHouse, straight: bool) -> None:
    house.script(BOB, 'require "fileinto"; fileinto "Archive";')
    node = give(house, f'redirect "{BOB}";', straight=straight)
    assert house.boxes(node, ANN) == {} and house.boxes(node, BOB) == {"Archive": 1}
    [(octets, _)] = house.messages(node, BOB, "Archive")
    assert octets.startswith(b"Return-Path: <eve@elsewhere.example>\r\nX-Sieve-Redirected-From: ann@example.org\r\n")


@pytest.mark.parametrize(
    ("target", "fields"),
    [
        (ANN, ()),
        ("alias@example.org", ()),
        (ELSEWHERE, ("X-Sieve-Redirected-From: Ann@Example.org",)),
        (ELSEWHERE, ("Received: from x",) * 50),
        ("nobody@example.org", ()),
    ],
    ids=["self", "alias of self", "came back", "many hops", "nobody"],
)
def test_what_cannot_be_redirected_is_kept(house: SortingHouse, target: str, fields: tuple[str, ...]) -> None:
    run(house.engine.directory.add_alias(Alias("alias@example.org", (ANN,))))
    node = give(house, f'redirect "{target}";', mail(*fields))
    assert house.boxes(node, ANN) == {"INBOX": 1} and house.world.sent == {}
    assert any(line.startswith(f"not redirected to {target}") for line in node.story)


def test_a_redirect_is_a_forward_to_the_relay_which_rewrites_its_sender(house: SortingHouse) -> None:
    """SRS and ARC are the relay's, for what it takes for a forward (RFC 8617; `relay.departing`)."""

    async def rewrite(sender: str, recipient: str, stream: str) -> str:
        assert stream == "", "as a forward"
        return f"srs0=x={sender.replace('@', '=')}@example.org"

    house.script(ANN, f'require "editheader"; addheader "Authentication-Results" "mx.example.org; dkim=pass"; redirect "{ELSEWHERE}";')
    node = SortingNode(house)
    outgoing = Outgoing(
        node.queue, node.bodies, node.inbound.spools, Streams([Stream(NORMAL, ("main",))]), Journal(house.engine.records, "n"),
        house.clock, wall=house.wall, rewrite=rewrite,
    )  # fmt: skip
    found = outgoing.begin
    house.world.begin = found  # type: ignore[method-assign, assignment]
    judgement = Judgement(verified=True, envelope={"envid": "abc", "ret": "HDRS"})
    house.judged(node, ANN, mail("Authentication-Results: mx.example.org; spf=pass"), judgement)
    [status] = house.items()
    outbound = outbound_of(status.item)
    assert (outbound.cause, outbound.address, outbound.author) == ("forward", ELSEWHERE, EVE)
    assert outbound.sender == "srs0=x=eve=elsewhere.example@example.org"
    assert (outbound.verified, outbound.results) == (True, "mx.example.org; spf=pass"), "what a script adds is not believed"
    assert (outbound.envelope_id, outbound.dsn_return) == ("abc", "HDRS")


TAGS = """require ["redirect-dsn", "redirect-deliverby"];
    redirect :notify "DELAY,FAILURE" :ret "HDRS" :bytimerelative 600 :bymode "return" :bytrace "{}";"""


def outbound_after(house: SortingHouse, script: str, judgement: Judgement) -> Outbound:
    """The item that *script* makes of a message with that envelope."""
    house.script(ANN, script)
    node = SortingNode(house)
    outgoing = Outgoing(
        node.queue, node.bodies, node.inbound.spools, Streams([Stream(NORMAL, ("main",))]), Journal(house.engine.records, "n"),
        house.clock, wall=house.wall,
    )  # fmt: skip
    house.world.begin = outgoing.begin  # type: ignore[method-assign, assignment]
    house.judged(node, ANN, mail(), judgement)
    [status] = house.items()
    return outbound_of(status.item)


def test_a_redirect_asks_for_what_its_tags_say(house: SortingHouse) -> None:
    """RFC 6009 sections 4 and 6."""
    given = {"notify": "SUCCESS", "ret": "FULL", "orcpt": "rfc822;ann@b.example"}
    outbound = outbound_after(house, TAGS.format(ELSEWHERE), Judgement(verified=True, envelope=given))
    assert (outbound.notify, outbound.dsn_return, outbound.original) == (("DELAY", "FAILURE"), "HDRS", "rfc822;ann@b.example")
    assert outbound.deliver_by == house.wall() + 600 and outbound.deliver_by_mode == "RT"


def test_without_tags_it_asks_for_what_the_sender_has_asked_for(house: SortingHouse) -> None:
    """RFC 3461 section 5.2.7: who wants to hear nothing hears nothing of forwards either."""
    outbound = outbound_after(house, f'redirect "{ELSEWHERE}";', Judgement(verified=True, envelope={"notify": "NEVER"}))
    assert (outbound.notify, outbound.deliver_by) == (("NEVER",), None)


def test_a_redirect_to_one_of_us_has_the_tags_in_its_envelope(house: SortingHouse) -> None:
    house.script(
        BOB,
        """require ["envelope", "envelope-dsn", "envelope-deliverby", "fileinto"];
        if allof (envelope "ret" "HDRS", envelope "notify" "DELAY", envelope "bytimerelative" "600", envelope "bymode" "R",
                  envelope "bytrace" "T") { fileinto "Archive"; }""",
    )
    node = give(house, TAGS.format(BOB))
    assert house.boxes(node, BOB) == {"Archive": 1}


def test_what_is_to_come_back_and_is_late_already_is_kept(house: SortingHouse) -> None:
    script = f"""require "redirect-deliverby";
        redirect :bytimeabsolute "2001-01-01T00:00:00Z" :bymode "return" "{ELSEWHERE}";"""
    node = give(house, script)
    assert house.boxes(node, ANN) == {"INBOX": 1} and house.world.sent == {}
    assert any("is over" in line for line in node.story)


def test_two_users_who_redirect_to_each_other_get_it_once(house: SortingHouse) -> None:
    house.script(BOB, f'redirect "{ANN}";')
    node = give(house, f'redirect "{BOB}";')
    assert sorted((*house.boxes(node, ANN).items(), *house.boxes(node, BOB).items())) == [("INBOX", 1)]


def test_a_redirect_waits_for_a_queue_that_is_down_and_the_copy_does_not(house: SortingHouse) -> None:
    house.world.fail = MailRefused(Refusal.UNAVAILABLE)
    house.script(ANN, f'require "copy"; redirect :copy "{ELSEWHERE}";')
    node = SortingNode(house)
    house.give(node, ANN)
    assert house.boxes(node, ANN) == {"INBOX": 1} and len(house.items()) == 1
    house.world.fail = None
    node.worker.start()
    house.go_on(10)
    assert house.boxes(node, ANN) == {"INBOX": 1} and len(house.world.sent) == 1 and house.items() == []


def test_a_redirect_that_can_never_be_queued_is_kept(house: SortingHouse) -> None:
    house.world.fail = MailRefused(Refusal.BAD_ADDRESS)
    node = give(house, f'redirect "{ELSEWHERE}";')
    assert house.boxes(node, ANN) == {"INBOX": 1}


def test_a_redirect_that_was_made_is_not_made_again_while_another_waits(house: SortingHouse) -> None:
    house.script(ANN, f'redirect "{ELSEWHERE}"; redirect "{BOB}";')
    node = SortingNode(house, straight=False)
    house.give(node, ANN)
    node.queue.mode, node.queue.only = "down", {"put"}
    node.worker.start()
    house.go_on(60)
    assert len(house.world.to(ELSEWHERE)) == 1 and house.boxes(node, BOB) == {} and node.counts.retried > 1
    node.queue.mode = "up"
    house.go_on(600)
    assert house.boxes(node, BOB) == {"INBOX": 1} and house.items() == []
    assert len(house.world.to(ELSEWHERE)) == 1 and house.world.twice == 0


# --- reject


def test_a_single_recipient_refuses_by_reply(house: SortingHouse) -> None:
    house.script(ANN, 'require "reject"; reject "Not you.\r\nNever.";')
    node = SortingNode(house)
    [outcome] = house.give(node, ANN)
    refused = outcome.refused
    assert refused is not None and not refused.temporary and (refused.code, refused.enhanced) == (550, "5.7.1")
    assert refused.text.splitlines() == ["Not you.", "Never."]
    assert house.boxes(node, ANN) == {} and house.world.sent == {} and house.items() == []


def test_with_other_recipients_the_sender_is_told_by_a_message(house: SortingHouse) -> None:
    house.script(ANN, 'require "reject"; reject "Not you.";')
    node = SortingNode(house)
    outcomes = house.give(node, ANN, BOB, sender=EVE)
    assert [outcome.refused for outcome in outcomes] == [None, None]
    assert house.boxes(node, BOB) == {"INBOX": 1} and house.boxes(node, ANN) == {}
    [message] = house.world.to(EVE)
    parts = list(message.walk())
    assert message.get_content_type() == "multipart/report"
    assert "disposition-notification" in str(message["Content-Type"])
    assert "Not you." in parts[1].get_content()
    assert "automatic-action/MDN-sent-automatically; deleted" in parts[2].as_string()
    assert [sender for sender, _, _ in house.world.sent.values()] == [""]


@BOTH_WAYS
@pytest.mark.parametrize("verified", [True, False])
def test_ereject_tells_only_senders_who_are_known(house: SortingHouse, straight: bool, verified: bool) -> None:
    house.script(ANN, 'require "ereject"; ereject "Not you.";')
    node = SortingNode(house, straight=False)
    house.judged(node, ANN, mail(), Judgement(verified=verified))
    node.worker.start()
    house.go_on(1)
    assert house.boxes(node, ANN) == {} and house.items() == []
    found = house.world.to(EVE)
    assert len(found) == verified
    if found:
        assert "delivery-status" in str(found[0]["Content-Type"])
        assert "Not you." in list(found[0].walk())[1].get_content()
        assert re.search(r"Action: failed", found[0].as_string())


def test_the_null_sender_is_never_told(house: SortingHouse) -> None:
    node = give(house, 'require "reject"; reject "Not you.";', sender="", straight=False)
    assert house.world.sent == {} and house.boxes(node, ANN) == {}


def test_words_that_a_reply_cannot_have_go_by_message(house: SortingHouse) -> None:
    house.script(ANN, 'require "reject"; reject "Nö.";')
    node = SortingNode(house)
    [outcome] = house.give(node, ANN, sender=EVE)
    assert outcome.refused is None
    assert "Nö." in list(house.world.to(EVE)[0].walk())[1].get_content()


# --- vacation


@BOTH_WAYS
def test_a_vacation_answer(house: SortingHouse, straight: bool) -> None:
    node = give(house, AWAY, mail("References: <0@x>", subject="=?utf-8?q?Gr=C3=BC=C3=9Fe?="), straight=straight)
    assert house.boxes(node, ANN) == {"INBOX": 1}
    [(sender, recipient, octets)] = house.world.sent.values()
    assert (sender, recipient) == ("", EVE)
    message = parsed(octets)
    assert (message["From"], message["To"], message["Subject"]) == (ANN, EVE, "Auto: Grüße")
    assert (message["In-Reply-To"], message["References"]) == ("<1@x>", "<0@x> <1@x>")
    assert message["Auto-Submitted"] == "auto-replied" and message["Message-ID"].endswith(".vacation@mx.example.org>")
    assert message.get_content().strip() == "I am away."
    assert octets.isascii()


def test_the_answer_as_the_script_wants_it(house: SortingHouse) -> None:
    script = """require ["vacation", "fcc", "mailbox"];
    vacation :subject "Bin weg, wirklich schön weit weg, und das noch eine ganze Weile, glaube ich" :from "Ann <ann@example.org>"
        :fcc "Sent" "Ich bin im Süden.\r\nBis bald!";"""
    node = give(house, script)
    [message] = house.world.to(EVE)
    assert message["Subject"] == "Bin weg, wirklich schön weit weg, und das noch eine ganze Weile, glaube ich"
    assert message["From"] == "Ann <ann@example.org>"
    assert message.get_content().splitlines() == ["Ich bin im Süden.", "Bis bald!"]
    assert house.boxes(node, ANN) == {"INBOX": 1, "Sent": 1}
    [(filed, _)] = house.messages(node, ANN, "Sent")
    assert parsed(filed)["Message-ID"] == message["Message-ID"]


def test_a_mime_answer_has_its_own_type_and_no_other_fields(house: SortingHouse) -> None:
    script = """require "vacation";
vacation :mime text:
Content-Type: multipart/alternative; boundary=foo
Bcc: everybody@example.com

--foo

I'm at the beach relaxing.  Mmmm, surf...

--foo
Content-Type: text/html; charset=us-ascii

<p>beach</p>

--foo--
.
;"""
    give(house, script)
    [message] = house.world.to(EVE)
    assert message.get_content_type() == "multipart/alternative" and message["Bcc"] is None
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]


def test_another_from_must_be_the_users_own(house: SortingHouse) -> None:
    run(house.engine.directory.add_alias(Alias("sales@example.org", (ANN,))))
    give(house, 'require "vacation"; vacation :from "sales@example.org" "x";')
    give(house, 'require "vacation"; vacation :from "bob@example.org" "y";')
    assert [message["From"] for message in house.world.to(EVE)] == ["sales@example.org", ANN]


def test_nothing_can_be_slipped_into_the_header_of_an_answer(house: SortingHouse) -> None:
    script = 'require ["vacation", "variables", "encoded-character"]; set "s" "a${hex:0d 0a}Bcc: x@y${hex:0d 0a 0d 0a}text"; vacation :subject "${s}" "x";'
    give(house, script)
    [message] = house.world.to(EVE)
    assert message["Bcc"] is None and message.get_content().strip() == "x"


@pytest.mark.parametrize(
    ("message", "sender"),
    [
        (mail(), ""),
        (mail(), "MAILER-DAEMON@elsewhere.example"),
        (mail(), "owner-list@elsewhere.example"),
        (mail(), "list-request@elsewhere.example"),
        (mail(), "LISTSERV@elsewhere.example"),
        (mail(), "ann@example.org"),
        (mail("List-Id: <x.example>"), EVE),
        (mail("List-Unsubscribe: <mailto:x@y>"), EVE),
        (mail("Precedence: bulk"), EVE),
        (mail("Precedence: List"), EVE),
        (mail("Auto-Submitted: auto-replied"), EVE),
        (mail("Auto-Submitted: auto-generated; x=y"), EVE),
        (mail("X-Auto-Response-Suppress: DR, OOF"), EVE),
        (mail(to="undisclosed-recipients:;"), EVE),
        (mail(to="bob@example.org"), EVE),
        (mail(to="team@example.org"), EVE),
    ],
)
def test_who_must_not_be_answered_is_not(house: SortingHouse, message: bytes, sender: str) -> None:
    run(house.engine.directory.add_alias(Alias("team@example.org", (ANN, BOB))))
    node = give(house, AWAY, message, sender=sender)
    assert house.world.sent == {} and house.boxes(node, ANN) == {"INBOX": 1}
    assert any(line.startswith("no vacation answer: ") for line in node.story)


@pytest.mark.parametrize(
    ("message", "to"),
    [
        (mail("Auto-Submitted: no"), ANN),
        (mail("Cc: Ann <ANN@Example.ORG>", to="bob@example.org"), ANN),
        (mail("Resent-To: ann@example.org", to="bob@example.org"), ANN),
        (mail(to="sales@example.org"), "sales@example.org"),
        (mail(to="sales@example.org"), ANN),
        (mail(to="ann+tag@example.org"), "ann+tag@example.org"),
        (mail(to="other@else.example"), ANN),
    ],
)
def test_who_wrote_to_one_of_the_users_addresses_is_answered(house: SortingHouse, message: bytes, to: str) -> None:
    run(house.engine.directory.add_alias(Alias("sales@example.org", (ANN,))))
    give(house, 'require "vacation"; vacation :addresses ["other@else.example"] "x";', message, to=to)
    assert len(house.world.to(EVE)) == 1


def test_a_sender_is_answered_once_a_week_and_each_by_itself(house: SortingHouse) -> None:
    node = give(house, AWAY)
    house.give(node, ANN, message=mail(id="<2@x>"), sender="EVE@elsewhere.example")
    house.give(node, ANN, message=mail(id="<3@x>"), sender="mal@elsewhere.example")
    assert len(house.world.sent) == 2
    house.clock.advance(7 * 86_400)
    house.give(node, ANN, message=mail(id="<4@x>"), sender=EVE)
    assert len(house.world.to(EVE)) == 2


def test_two_nodes_that_have_two_messages_of_one_sender_at_once_answer_once(house: SortingHouse) -> None:
    house.script(ANN, AWAY)
    nodes = [SortingNode(house), SortingNode(house)]
    for node in nodes:  # both know the account as it is now
        house.give(node, BOB)
        house.boxes(node, ANN)
    for at, node in enumerate(nodes):
        house.give(node, ANN, message=mail(id=f"<{at}@x>"), sender=EVE)
    assert len(house.world.to(EVE)) == 1 and house.boxes(nodes[0], ANN) == {"INBOX": 2}
    assert [any("has had it" in line for line in node.story) for node in nodes] == [False, True]


def test_an_answer_to_one_of_us_is_filtered_too_and_not_answered(house: SortingHouse) -> None:
    house.script(BOB, AWAY)
    node = give(house, AWAY, mail(sender=BOB), sender=BOB)
    house.go_on(2)
    assert house.boxes(node, BOB) == {"INBOX": 1} and house.boxes(node, ANN) == {"INBOX": 1}


def test_junk_is_not_answered_by_a_script_that_looks_at_it(house: SortingHouse) -> None:
    house.script(ANN, 'require ["vacation", "spamtest"]; if spamtest :is "9" { discard; } vacation "away";')
    node = SortingNode(house)
    house.judged(node, ANN, mail(), Judgement(action=Action.JUNK, score=6.0, percent=60, verified=True))
    assert house.world.sent == {} and any("it is junk" in line for line in node.story)


# --- duplicate


def test_a_message_that_comes_twice_is_filed_once(house: SortingHouse) -> None:
    node = give(house, 'require "duplicate"; if duplicate { discard; }')
    house.give(SortingNode(house), ANN, message=mail(), sender=EVE)
    house.give(node, ANN, message=mail(id="<2@x>"), sender=EVE)
    assert house.boxes(node, ANN) == {"INBOX": 2}


def test_a_repeated_delivery_is_no_duplicate_of_itself(house: SortingHouse) -> None:
    house.world.fail = Unavailable("no answer")
    house.script(ANN, f'require ["duplicate", "copy"]; if duplicate {{ discard; }} else {{ redirect :copy "{ELSEWHERE}"; }}')
    node = SortingNode(house)
    house.give(node, ANN, message=mail(), sender=EVE)
    house.world.fail = None
    node.worker.start()
    house.go_on(10)
    assert house.boxes(node, ANN) == {"INBOX": 1} and len(house.world.to(ELSEWHERE)) == 1 and house.items() == []


# --- notifications


def test_a_notification_is_sent(house: SortingHouse) -> None:
    script = """require "enotify";
    notify :importance "1" :message "Neu: schön" "mailto:phone@elsewhere.example,x@elsewhere.example?body=look%0Aat%20it&X-Test=y";"""
    give(house, script)
    assert {to for _, to, _ in house.world.sent.values()} == {"phone@elsewhere.example", "x@elsewhere.example"}
    [message] = house.world.to("phone@elsewhere.example")
    assert message["Auto-Submitted"] == 'auto-notified; owner-email="ann@example.org"'
    assert (message["From"], message["Subject"], message["X-Test"]) == (ANN, "Neu: schön", "y")
    assert message["To"] == "phone@elsewhere.example, x@elsewhere.example"
    assert message.get_content().splitlines() == ["look", "at it"]


@pytest.mark.parametrize("value", ["auto-notified", "auto-generated", "auto-replied; x=y"])
def test_programs_cause_no_notification(house: SortingHouse, value: str) -> None:
    give(house, 'require "enotify"; notify "mailto:phone@elsewhere.example";', mail(f"Auto-Submitted: {value}"))
    assert house.world.sent == {}


def test_a_bounce_may_cause_a_notification(house: SortingHouse) -> None:
    give(house, 'require "enotify"; notify "mailto:phone@elsewhere.example";', sender="")
    [message] = house.world.to("phone@elsewhere.example")
    assert message["Subject"] == "Hello"


# --- everything once, whatever dies


EVERYTHING = f"""require ["vacation", "copy", "fileinto", "enotify", "editheader", "mailbox", "fcc", "duplicate"];
if duplicate {{ discard; stop; }}
addheader "X-Sorted" "yes";
fileinto :create "Lists/New"; keep;
redirect :copy "{ELSEWHERE}"; redirect :copy "{BOB}";
vacation :fcc "Sent" "away";
notify "mailto:phone@elsewhere.example";
"""


def counted(house: SortingHouse, node: SortingNode) -> dict[str, int]:
    found = {f"ann/{name}": number for name, number in house.boxes(node, ANN).items()}
    found |= {f"bob/{name}": number for name, number in house.boxes(node, BOB).items()}
    for _, to, _ in house.world.sent.values():
        found[to] = found.get(to, 0) + 1
    return found


WANTED = {
    "ann/INBOX": 1,
    "ann/Lists/New": 1,
    "ann/Sent": 1,
    "bob/INBOX": 1,
    ELSEWHERE: 1,
    EVE: 1,
    "phone@elsewhere.example": 1,
}


def steps_of(tmp_path: Path) -> list[str]:
    house = SortingHouse(tmp_path)
    house.script(ANN, EVERYTHING)
    house.give(SortingNode(house, straight=False), ANN, sender=EVE, message=mail())
    death = Death()
    node = SortingNode(house, death=death)
    node.worker.start()
    house.go_on(3)
    assert counted(house, SortingNode(house)) == WANTED
    return death.operations


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_worker_may_die_at_any_step_and_everything_is_there_once(tmp_path: Path, after: bool) -> None:
    steps = steps_of(tmp_path)
    assert len(steps) > 30
    notes = [at for at, step in enumerate(steps, 1) if step == "note"]
    for at in range(1, len(steps) + 1):
        house = SortingHouse(tmp_path)
        house.script(ANN, EVERYTHING)
        house.give(SortingNode(house, straight=False), ANN, sender=EVE, message=mail())
        dying = SortingNode(house, death=Death(at, after=after))
        dying.worker.start()
        house.go_on(3)
        living = SortingNode(house)
        living.worker.start()
        house.go_on(200)
        assert counted(house, living) == WANTED, f"it died at step {at}: {steps[at - 1]}"
        assert house.items() == []
        # what was sent when it died, and not yet noted, is sent again
        assert house.world.twice == (not after and at in notes), f"it died at step {at}"


@pytest.mark.parametrize("mode", ["down", "lost once", "hang"])
@pytest.mark.parametrize("store", ["log", "messages", "queue", "directory"])
def test_a_store_that_fails_on_the_straight_way_leaves_the_rest_to_the_queue(
    house: SortingHouse, store: str, mode: str
) -> None:
    house.script(ANN, EVERYTHING)
    node = SortingNode(house)
    house.give(node, BOB)
    [only] = [{"append"}, {"put"}, {"put"}, {"scripts"}][["log", "messages", "queue", "directory"].index(store) :][:1]
    switched = getattr(node, store)
    switched.only, switched.mode = only, mode
    outcomes = house.give(node, ANN, sender=EVE, message=mail(), wait=60)
    switched.mode = "up"
    if any(outcome.refused is not None for outcome in outcomes):
        assert store == "queue" and all(outcome.refused.temporary for outcome in outcomes if outcome.refused)
        return
    living = SortingNode(house)
    living.worker.start()
    house.go_on(400)
    wanted = {**WANTED, "bob/INBOX": 2}
    assert counted(house, living) == wanted and house.items() == []
