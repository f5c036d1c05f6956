"""Postfix's policy delegation: what is asked, what answers mean, connections that are used again, and postgrey itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.filters.milters import Message, a_mail, drive, recipient
from tests.services import running
from tests.services.postgrey import Postgrey
from twisted_mail.filters.origins import ReverseName
from twisted_mail.filters.policy import Policy, attributes, encode, parse_action
from twisted_mail.filters.stages import AtConnect, AtData, AtEnd, AtHelo, AtMail, AtRcpt, Transactions
from twisted_mail.filters.values import ACCEPTED, Action, Answer, Changes, Client, FilterDown, Moment, Verdict
from twisted_mail.filters.wires import HungUp, Place, dial
from twisted_mail.services import Identity
from twisted_mail.values import AccountId

reactor: Any = _reactor


class FakeWire:
    """A policy server in memory: each answer is given once; none left: it hangs up."""

    def __init__(self, answers: list[str]) -> None:
        self.answers = answers
        self.questions: list[dict[str, str]] = []
        self.ended = False
        self.waiting = False
        self._received = b""

    async def send(self, data: bytes, seconds: float) -> None:
        if self.ended:
            raise HungUp("it has closed the connection")
        lines = data.decode().split("\n")
        assert lines[-2:] == ["", ""]
        self.questions.append(dict(line.split("=", 1) for line in lines[:-2]))
        if self.answers:
            self._received = self.answers.pop(0).encode()

    async def receive(self, seconds: float) -> bytes:
        if not self._received:
            raise HungUp("it has closed the connection")
        data, self._received = self._received[:5], self._received[5:]
        return data

    def close(self) -> None:
        self.ended = True

    abort = close


class World:
    def __init__(self, *connections: list[str], **options: Any) -> None:
        self.left = [FakeWire(each) for each in connections]
        self.wires: list[FakeWire] = []
        self.now = 0.0
        self.filter = Policy(Place("127.0.0.1", 1), self.dial, lambda: self.now, name="p", **options)

    async def dial(self, place: Place, seconds: float) -> Any:
        if not self.left:
            raise FilterDown("no connection: refused")
        self.wires.append(self.left.pop(0))
        return self.wires[-1]

    def at_rcpt(self) -> Verdict:
        verdict = drive(self.filter.rcpt(a_mail(), recipient("bob@example.net")))
        assert isinstance(verdict, Verdict)
        return verdict


def answered(action: str) -> Verdict:
    return World([f"action={action}\n\n"]).at_rcpt()


def test_it_has_the_abilities_of_a_filter() -> None:
    for ability in (AtConnect, AtHelo, AtMail, AtRcpt, AtData, AtEnd, Transactions):
        assert isinstance(World().filter, ability)


# --- what is asked


def test_a_question_names_the_attributes_that_postfix_names() -> None:
    mail = a_mail()
    mail.size = 12345
    mail.client.extended = True
    mail.client.note(ReverseName("pass", "mail.example.org", ("mail.example.org", "other.example.org")))
    mail.client.secure, mail.client.tls_description = True, "TLS1.3 with cipher TLS_AES_256_GCM_SHA384"
    mail.client.identity = Identity(AccountId.new(), "ann@example.org")
    world = World(["action=DUNNO\n\n"], context="inbound")
    drive(world.filter.rcpt(mail, recipient("bob@example.net")))
    (asked,) = world.wires[0].questions
    assert asked.pop("instance")
    assert asked == {
        "request": "smtpd_access_policy",
        "protocol_state": "RCPT",
        "protocol_name": "ESMTP",
        "client_address": "192.0.2.1",
        "client_name": "mail.example.org",
        "client_port": "4711",
        "reverse_client_name": "mail.example.org",
        "server_address": "",
        "server_port": "",
        "helo_name": "mail.example.org",
        "sender": "ann@example.org",
        "recipient": "bob@example.net",
        "recipient_count": "0",
        "queue_id": "",
        "size": "12345",
        "etrn_domain": "",
        "stress": "",
        "sasl_method": "SASL",
        "sasl_username": "ann@example.org",
        "sasl_sender": "",
        "ccert_subject": "",
        "ccert_issuer": "",
        "ccert_fingerprint": "",
        "ccert_pubkey_fingerprint": "",
        "encryption_protocol": "TLSv1.3",
        "encryption_cipher": "TLS_AES_256_GCM_SHA384",
        "encryption_keysize": "0",
        "policy_context": "inbound",
    }


def test_what_is_not_known_of_a_client_is_unknown() -> None:
    asked = dict(attributes("CONNECT", Client("::ffff:192.0.2.1")))
    assert (asked["client_name"], asked["reverse_client_name"], asked["client_address"]) == ("unknown", "unknown", "192.0.2.1")
    assert asked["protocol_name"] == "SMTP"


def test_questions_about_one_message_have_one_instance() -> None:
    world = World(["action=DUNNO\n\n"] * 4)
    mail, other = a_mail(), a_mail()
    for each in (mail, mail, other):
        drive(world.filter.rcpt(each, recipient("x@example.net")))
    drive(world.filter.ended(mail))
    one, same, another = (each["instance"] for each in world.wires[0].questions)
    assert one == same != another


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(["sender", "helo_name"]), st.text(st.characters(codec="utf-8"), max_size=20)))
def test_no_value_can_add_an_attribute(pairs: dict[str, str]) -> None:
    wire = encode(pairs.items())
    assert wire.endswith(b"\n\n" if pairs else b"\n")
    assert wire.count(b"\n") == len(pairs) + 1


def test_it_is_asked_at_its_moments_only() -> None:
    everywhere = World(["action=DUNNO\n\n"] * 6, moments=tuple(Moment))
    mail = a_mail()
    mail.client.extended = True
    for world in (everywhere, World()):
        stage = world.filter
        assert drive(stage.connect(mail.client)) is ACCEPTED
        assert drive(stage.helo(mail.client)) is ACCEPTED
        assert drive(stage.mail(mail)) is ACCEPTED
        assert drive(stage.data(mail)) is ACCEPTED
        assert drive(stage.end(Message(mail, b"A: b\r\n\r\n1234"))) is ACCEPTED
    asked = everywhere.wires[0].questions
    assert [each["protocol_state"] for each in asked] == ["CONNECT", "EHLO", "MAIL", "DATA", "END-OF-MESSAGE"]
    assert (asked[3]["recipient"], asked[3]["recipient_count"], asked[3]["queue_id"]) == ("bob@example.net", "1", "")
    assert (asked[4]["recipient"], asked[4]["recipient_count"], asked[4]["size"], asked[4]["queue_id"]) == (
        "bob@example.net", "1", "12", "ABC1",
    )  # fmt: skip


def test_at_data_several_recipients_are_a_number_and_a_redirection_counts() -> None:
    world = World(["action=REDIRECT eve@example.net\n\n"], moments=(Moment.DATA,))
    mail = a_mail(None, "ann@example.org", "bob@example.net", "eve@example.net")
    assert drive(world.filter.data(mail)) is ACCEPTED
    question = world.wires[0].questions[0]
    assert (question["recipient"], question["recipient_count"]) == ("", "2")
    verdict = drive(world.filter.end(Message(mail, b"A: b\r\n\r\n1234")))
    assert verdict.changes == Changes(recipients_added=("eve@example.net",), recipients_removed=("bob@example.net",))


# --- what answers mean


@pytest.mark.parametrize("action", ["DUNNO", "OK", "ok", "dunno", "DEFER_IF_REJECT", "1", "permit"])
def test_what_changes_nothing(action: str) -> None:
    assert answered(action) == ACCEPTED


@pytest.mark.parametrize(
    ("action", "kind", "answer"),
    [
        ("REJECT", Action.REJECT, Answer(554, "5.7.1", "Access denied")),
        ("REJECT No thanks", Action.REJECT, Answer(554, "5.7.1", "No thanks")),
        ("reject 5.1.1 Gone", Action.REJECT, Answer(554, "5.1.1", "Gone")),
        ("DEFER", Action.DEFER, Answer(450, "4.7.1", "Service unavailable, try again later")),
        ("DEFER_IF_PERMIT Greylisted for 300 seconds", Action.DEFER, Answer(450, "4.7.1", "Greylisted for 300 seconds")),
        ("450 4.2.0 busy", Action.DEFER, Answer(450, "4.2.0", "busy")),
        ("421 4.2.0 go", Action.DEFER, Answer(421, "4.2.0", "go")),
        ("550", Action.REJECT, Answer(550, "5.7.1", "Refused by policy")),
        ("521 out", Action.REJECT, Answer(521, "5.7.1", "out")),
        ("550 4.7.1 mixed", Action.REJECT, Answer(550, "5.7.1", "mixed")),
    ],
)
def test_refusals(action: str, kind: Action, answer: Answer) -> None:
    verdict = answered(action)
    assert (verdict.action, verdict.answer) == (kind, answer)
    assert verdict.reason.startswith("p says: ")


@pytest.mark.parametrize("action", ["HOLD", "HOLD odd", "DISCARD", "DISCARD odd"])
def test_hold_and_discard_keep_the_message_where_an_operator_finds_it(action: str) -> None:
    verdict = answered(action)
    assert verdict.action is Action.QUARANTINE
    assert ("odd" in action) == ("odd" in verdict.reason)


def test_a_field_is_put_in_front_once_for_a_message() -> None:
    world = World(["action=PREPEND X-Greylist: delayed 300 seconds\n\n"] * 3)
    mail = a_mail()
    verdicts = [drive(world.filter.rcpt(mail, recipient("x@example.net"))) for _ in range(2)]
    assert verdicts[0].fields == (("X-Greylist", "delayed 300 seconds"),)
    assert verdicts[1] is ACCEPTED
    assert drive(world.filter.rcpt(a_mail(), recipient("x@example.net"))).fields


@pytest.mark.parametrize("action", ["WARN odd thing", "INFO odd thing", "OK odd thing"])
def test_what_is_only_said_is_in_the_trace(action: str) -> None:
    verdict = answered(action)
    assert (verdict.action, "odd thing" in verdict.reason) == (Action.ACCEPT, True)


@pytest.mark.parametrize("action", ["FILTER smtp:[127.0.0.1]:10025", "reject_unauth_destination", "greylist", "my-class"])
def test_what_has_no_meaning_here_is_ignored(action: str) -> None:
    assert answered(action) == ACCEPTED


def end_of(action: str) -> Verdict:
    world = World([f"action={action}\n\n"])
    mail = a_mail(None, "ann@example.org", "bob@example.net", "eve@example.net")
    assert drive(world.filter.rcpt(mail, mail.recipients[0])) is ACCEPTED
    verdict = drive(world.filter.end(Message(mail, b"A: b\r\n\r\n")))
    assert isinstance(verdict, Verdict)
    return verdict


def test_a_redirection_replaces_all_recipients_of_the_message() -> None:
    assert end_of("REDIRECT <all@example.net>") == Verdict(
        reason="p redirects it to all@example.net",
        changes=Changes(recipients_added=("all@example.net",), recipients_removed=("bob@example.net", "eve@example.net")),
    )


def test_a_copy_goes_to_one_recipient_more() -> None:
    assert end_of("BCC audit@example.net").changes == Changes(recipients_added=("audit@example.net",))


@pytest.mark.parametrize("answer", ["", "\n\n", "nonsense\n\n", "action=\n\n", "action=!\n\n", "action=DUNNO\n\nmore", "action=PREPEND nothing\n\n",
                                    "action=REDIRECT\n\n", "action=BCC a b\n\n", "x" * 40_000, "action=DUNNO\n"])  # fmt: skip
def test_an_answer_that_is_none_is_down(answer: str) -> None:
    world = World([answer])
    with pytest.raises(FilterDown):
        world.at_rcpt()


@settings(max_examples=100)
@given(st.text(max_size=40))
def test_any_action_is_read_or_refused(action: str) -> None:
    try:
        parse_action(action, "p")
    except FilterDown:
        pass


# --- connections


def test_a_connection_is_used_again() -> None:
    world = World(["action=DUNNO\n\n"] * 3)
    for _ in range(3):
        world.at_rcpt()
    assert len(world.wires) == 1
    world.filter.close()
    assert world.wires[0].ended


def test_one_that_was_closed_meanwhile_is_replaced() -> None:
    world = World(["action=DUNNO\n\n"], ["action=REJECT\n\n", "action=DUNNO\n\n"])
    world.at_rcpt()
    assert world.at_rcpt().action is Action.REJECT
    world.wires[1].ended = True
    with pytest.raises(FilterDown):
        world.at_rcpt()


def test_one_that_was_idle_for_long_is_not_used() -> None:
    world = World(["action=DUNNO\n\n"] * 2, ["action=DUNNO\n\n"])
    world.at_rcpt()
    world.now = 301
    world.at_rcpt()
    assert [wire.ended for wire in world.wires] == [True, False]


# --- the real ones


class SocketTests(TestCase):
    """On loopback."""

    timeout = 30

    async def test_questions_at_the_same_time_have_connections_of_their_own(self) -> None:
        asking: list[Any] = []

        class Server(Protocol):
            def dataReceived(self, data: bytes) -> None:
                asking.append(self.transport)
                if len(asking) == 2:
                    for each in asking:
                        each.write(b"action=DUNNO\n\n")

        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(Server))
        policy = Policy(Place("127.0.0.1", port.getHost().port), dial(reactor), reactor.seconds)
        both = [Deferred.fromCoroutine(policy.rcpt(a_mail(), recipient("x@example.net"))) for _ in range(2)]
        self.assertEqual([await each for each in both], [ACCEPTED, ACCEPTED])
        self.assertIsNot(asking[0], asking[1])
        policy.close()
        await port.stopListening()

    async def test_postgrey_greylists_and_then_lets_it_through(self) -> None:
        server = Postgrey(running.new_folder("postgrey"), delay=1)
        server.start()
        policy = Policy(Place("127.0.0.1", server.port), dial(reactor), reactor.seconds, name="postgrey")
        try:
            first = await policy.rcpt(a_mail(), recipient("bob@example.net"))
            self.assertEqual(first.action, Action.DEFER)
            self.assertEqual(first.answer, Answer(450, "4.2.0", "Greylisted for 1 seconds"))
            second = first
            while second.action is Action.DEFER:
                await deferLater(reactor, 0.25)
                second = await policy.rcpt(a_mail(), recipient("bob@example.net"))
            ((name, value),) = second.fields
            self.assertEqual(name, "X-Greylist")
            self.assertIn("delayed", value)
            server.kill()
            with self.assertRaises(FilterDown):
                await policy.rcpt(a_mail(), recipient("bob@example.net"))
        finally:
            policy.close()
            server.kill()  # told to stop it waits for its peers
            server.stop()
