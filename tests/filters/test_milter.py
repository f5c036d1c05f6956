"""Milters as a filter: what they hear, what becomes of what they say, and what happens when they do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.filters.milters import (
    Answers,
    FakeWire,
    Message,
    ScriptedMilter,
    a_mail,
    changed,
    code,
    drive,
    recipient,
    say,
)
from twisted_mail.filters.milter import Milter
from twisted_mail.filters.milter_packets import (
    BODY_CHUNK,
    Command,
    Modification,
    Negotiation,
    Packet,
    Reply,
    Step,
    Steps,
    Tells,
)
from twisted_mail.filters.origins import ReverseName
from twisted_mail.filters.stages import AtConnect, AtHelo, AtMail, AtMessage, AtRcpt, Transactions, Visits
from twisted_mail.filters.values import (
    ACCEPTED,
    Action,
    Answer,
    Changes,
    Client,
    FieldChange,
    FilterDown,
    Mail,
    Verdict,
)
from twisted_mail.filters.wires import Place
from twisted_mail.services import Identity
from twisted_mail.values import AccountId

MAIL = b"From: ann@example.org\r\nSubject: a\r\n folded line\r\n\r\nHello\r\n"


class World:
    """A filter, and every milter that answered it, one for each connection."""

    def __init__(self, *milters: ScriptedMilter) -> None:
        self.left = list(milters)
        self.wires: list[FakeWire] = []
        self.filter = Milter(Place("127.0.0.1", 1), self.dial, "mx.example.net", name="m", version="1")

    async def dial(self, place: Place, seconds: float) -> Any:
        if not self.left:
            raise FilterDown("no connection: refused")
        self.wires.append(FakeWire(self.left.pop(0)))
        return self.wires[-1]

    def message(self, mail: Mail, octets: bytes = MAIL, size: int = 1 << 16) -> Verdict:
        reader = self.filter.read(mail)
        for start in range(0, len(octets), size):
            drive(reader.write(octets[start : start + size]))
        verdict = drive(reader.finish(Message(mail, octets)))
        assert isinstance(verdict, Verdict)
        return verdict

    def whole(self, mail: Mail, octets: bytes = MAIL) -> Verdict:
        """Step by step, as SMTP goes."""
        client, recipients = mail.client, mail.recipients
        mail.recipients = []
        for verdict in (drive(self.filter.connect(client)), drive(self.filter.helo(client)), drive(self.filter.mail(mail))):
            assert verdict is ACCEPTED
        for each in recipients:
            assert drive(self.filter.rcpt(mail, each)).action < Action.DEFER
            mail.recipients.append(each)
        return self.message(mail, octets)


def answering(answers: Answers) -> World:
    return World(ScriptedMilter(answers=answers))


def at_the_end(*packets: Packet) -> Verdict:
    return answering({Command.END_OF_BODY: packets}).whole(a_mail())


def test_it_has_the_abilities_of_a_filter() -> None:
    stage = World().filter
    for ability in (AtConnect, AtHelo, AtMail, AtRcpt, AtMessage, Transactions, Visits):
        assert isinstance(stage, ability)


def test_a_milter_hears_the_whole_story_in_order() -> None:
    milter = ScriptedMilter()
    world = World(milter)
    mail = a_mail(None, "ann@example.org", "bob@example.net", "eve@example.net")
    mail.size = 10
    assert world.whole(mail) == ACCEPTED
    assert milter.heard == [
        (Command.CONNECT, b"[192.0.2.1]\x004\x12\x67192.0.2.1\0"),
        (Command.HELO, b"mail.example.org\0"),
        (Command.MAIL, b"<ann@example.org>\0SIZE=10\0"),
        (Command.RCPT, b"<bob@example.net>\0"),
        (Command.RCPT, b"<eve@example.net>\0"),
        (Command.DATA, b""),
        (Command.HEADER, b"From\0ann@example.org\0"),
        (Command.HEADER, b"Subject\0a\n folded line\0"),
        (Command.END_OF_HEADER, b""),
        (Command.BODY, b"Hello\r\n"),
        (Command.END_OF_BODY, b""),
    ]


def test_its_connection_is_kept_over_transactions_and_closed_with_ours() -> None:
    milter = ScriptedMilter()
    world = World(milter)
    first = a_mail()
    world.whole(first)
    drive(world.filter.ended(first))
    second = a_mail(first.client)
    drive(world.filter.mail(second))
    drive(world.filter.ended(second))
    drive(world.filter.closed(first.client))
    assert milter.commands == "CHMRTLLNBE" + "MRA" + "Q"
    assert world.wires[0].ended
    drive(world.filter.closed(first.client))  # again is harmless


def test_macros_tell_who_it_is() -> None:
    milter = ScriptedMilter()
    mail = a_mail()
    mail.client.note(ReverseName("pass", "mail.example.org", ("mail.example.org",)))
    mail.client.secure, mail.client.tls_description = True, "TLS1.3 with cipher TLS_AES_256_GCM_SHA384"
    mail.client.identity = Identity(AccountId.new(), "ann@example.org")
    World(milter).whole(mail)
    assert milter.heard[0][1].startswith(b"mail.example.org\0")
    assert milter.macros[Command.CONNECT] == {
        "j": "mx.example.net", "_": "mail.example.org [192.0.2.1]", "v": "1", "{daemon_name}": "smtp",
        "{client_addr}": "192.0.2.1", "{client_name}": "mail.example.org", "{client_port}": "4711",
        "{client_ptr}": "mail.example.org", "{client_resolve}": "OK",
    }  # fmt: skip
    assert milter.macros[Command.HELO] == {"{tls_version}": "TLSv1.3", "{cipher}": "TLS_AES_256_GCM_SHA384"}
    assert milter.macros[Command.MAIL] == {
        "i": "ABC1", "{mail_addr}": "ann@example.org", "{mail_host}": "example.org", "{mail_mailer}": "esmtp",
        "{auth_type}": "SASL", "{auth_authen}": "ann@example.org", "{auth_author}": "ann@example.org",
    }  # fmt: skip
    assert milter.macros[Command.RCPT] == {
        "i": "ABC1", "{rcpt_addr}": "bob@example.net", "{rcpt_host}": "example.net", "{rcpt_mailer}": "local",
    }  # fmt: skip
    assert milter.macros[Command.END_OF_BODY] == {"i": "ABC1"}


def test_a_milter_that_chooses_its_macros_gets_those() -> None:
    milter = ScriptedMilter(Negotiation(6, Tells(0), Steps(0), {Step.CONNECT: ("j", "{client_addr}"), Step.MAIL: ("nonsense",)}))
    World(milter).whole(a_mail())
    assert milter.macros[Command.CONNECT] == {"j": "mx.example.net", "{client_addr}": "192.0.2.1"}
    assert Command.MAIL not in milter.macros


def test_what_it_does_not_want_is_not_said() -> None:
    unwanted = Steps.NO_CONNECT | Steps.NO_HELO | Steps.NO_MAIL | Steps.NO_RCPT | Steps.NO_DATA
    unwanted |= Steps.NO_HEADERS | Steps.NO_END_OF_HEADER | Steps.NO_BODY
    milter = ScriptedMilter(Negotiation(6, Tells(0), unwanted))
    assert World(milter).whole(a_mail()) == ACCEPTED
    assert milter.commands == "E"


def test_what_it_does_not_answer_is_not_waited_for() -> None:
    unanswered = Steps.UNANSWERED_CONNECT | Steps.UNANSWERED_HELO | Steps.UNANSWERED_MAIL | Steps.UNANSWERED_RCPT
    unanswered |= Steps.UNANSWERED_DATA | Steps.UNANSWERED_HEADERS | Steps.UNANSWERED_END_OF_HEADER | Steps.UNANSWERED_BODY
    milter = ScriptedMilter(Negotiation(6, Tells(0), unanswered))
    milter.silent = set(Command) - {Command.END_OF_BODY}
    assert World(milter).whole(a_mail()) == ACCEPTED
    assert milter.commands == "CHMRTLLNBE"


def test_a_command_that_nobody_knows_is_told_and_decides_about_nothing_else() -> None:
    milter = ScriptedMilter(answers={Command.UNKNOWN: [code("550 5.7.1 What is that?")]})
    world, mail = World(milter), a_mail()
    verdict = drive(world.filter.strange(mail.client, "GET / HTTP/1.1"))
    assert verdict.answer == Answer(550, "5.7.1", "What is that?")
    assert milter.heard[-1] == (Command.UNKNOWN, b"GET / HTTP/1.1\0")
    assert world.whole(mail) == ACCEPTED
    assert milter.commands == "CHU" + "MRTLLNBE"


@pytest.mark.parametrize(
    "negotiation", [Negotiation(6, Tells(0), Steps.NO_UNKNOWN), Negotiation(2, Tells(0), Steps(0))]
)
def test_who_does_not_want_unknown_commands_hears_none(negotiation: Negotiation) -> None:
    milter = ScriptedMilter(negotiation)
    assert drive(World(milter).filter.strange(a_mail().client, "GET /")) is ACCEPTED
    assert milter.commands == "CH"


@pytest.mark.parametrize("reply", [Reply.ACCEPT, Reply.DISCARD, Reply.CONTINUE])
def test_an_unknown_command_that_is_accepted_stays_one(reply: Reply) -> None:
    world = answering({Command.UNKNOWN: [say(reply)]})
    mail = a_mail()
    assert drive(world.filter.strange(mail.client, "GET /")) is ACCEPTED
    assert world.whole(mail) == ACCEPTED


def test_version_2_has_no_data_command() -> None:
    milter = ScriptedMilter(Negotiation(2, Tells(0x3F), Steps(0)))
    assert World(milter).whole(a_mail()) == ACCEPTED
    assert milter.commands == "CHMRLLNBE"


def test_leading_space_goes_both_ways_where_it_is_asked_for() -> None:
    milter = ScriptedMilter(
        Negotiation(6, Tells(0x1FF), Steps.LEADING_SPACE),
        {Command.END_OF_BODY: [*changed(Modification(Reply.ADD_HEADER, "X", " yes")), say(Reply.CONTINUE)]},
    )
    verdict = World(milter).whole(a_mail())
    assert (Command.HEADER, b"Subject\0 a\n folded line\0") in milter.heard
    assert verdict.changes == Changes(added=(("X", "yes"),))


def test_a_long_body_goes_in_pieces_that_no_packet_exceeds() -> None:
    milter = ScriptedMilter()
    octets = b"A: b\r\n\r\n" + b"x" * (3 * BODY_CHUNK + 5)
    mail = a_mail()
    World(milter).message(mail, octets, 10_000)
    body = [data for command, data in milter.heard if command is Command.BODY]
    assert [len(each) for each in body] == [BODY_CHUNK, BODY_CHUNK, BODY_CHUNK, 5]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("octets", "heard"),
    [
        (MAIL, [b"From", b"Subject", b"Hello\r\n"]),
        (b"\r\nbody only\r\n", [b"body only\r\n"]),
        (b"A: header only\r\n", [b"A"]),
        (b"A: b\r\n\r\n", [b"A"]),
        (b"no header at all", []),
        (b"A: b\r\nnonsense\r\n nothing\r\nC: d\r\n\r\nx", [b"A", b"C", b"x"]),
        (b"", []),
    ],
)
def test_how_a_message_comes_in_changes_nothing_of_what_is_heard(size: int, octets: bytes, heard: Sequence[bytes]) -> None:
    milter = ScriptedMilter()
    World(milter).message(a_mail(), octets, size)
    told = [data.split(b"\0")[0] for command, data in milter.heard if command in (Command.HEADER, Command.BODY)]
    assert told == heard


def test_skip_ends_the_fields_and_the_body_but_not_the_message() -> None:
    milter = ScriptedMilter(answers={Command.HEADER: [say(Reply.SKIP)], Command.BODY: [say(Reply.SKIP)]})
    assert World(milter).message(a_mail(), b"A: b\r\nC: d\r\n\r\n" + b"x" * 200_000) == ACCEPTED
    assert milter.commands == "CHMRTLNBE"


def test_skip_at_a_recipient_spares_it_the_others() -> None:
    milter = ScriptedMilter(answers={Command.RCPT: [say(Reply.SKIP)]})
    World(milter).whole(a_mail(None, "", "bob@example.net", "eve@example.net"))
    assert milter.commands.count("R") == 1


def test_progress_is_a_sign_of_life_and_no_answer() -> None:
    busy = [say(Reply.PROGRESS), say(Reply.PROGRESS), say(Reply.CONTINUE)]
    assert answering({Command.MAIL: busy, Command.END_OF_BODY: busy}).whole(a_mail()) == ACCEPTED


# --- decisions


REFUSALS = [
    (say(Reply.REJECT), Action.REJECT, None),
    (say(Reply.TEMPORARY_FAILURE), Action.DEFER, None),
    (code("550 5.7.1 No"), Action.REJECT, Answer(550, "5.7.1", "No")),
    (code("451 Later"), Action.DEFER, Answer(451, "4.7.1", "Later")),
    (code("421 4.3.2 Gone"), Action.DEFER, Answer(421, "4.3.2", "Gone")),
    (say(Reply.SHUTDOWN), Action.DEFER, Answer(421, "4.7.0", "Service not available, closing the connection")),
    (say(Reply.CONNECTION_FAILURE), Action.DEFER, Answer(421, "4.7.0", "Service not available, closing the connection")),
]


@pytest.mark.parametrize(("packet", "action", "answer"), REFUSALS)
@pytest.mark.parametrize("command", [Command.HELO, Command.MAIL, Command.RCPT])
def test_a_refusal_is_said_where_it_is_made(command: Command, packet: Packet, action: Action, answer: Answer | None) -> None:
    world = answering({command: [packet]})
    mail = a_mail()
    mail.recipients = []
    steps = {
        Command.HELO: lambda: world.filter.helo(mail.client),
        Command.MAIL: lambda: world.filter.mail(mail),
        Command.RCPT: lambda: world.filter.rcpt(mail, recipient("bob@example.net")),
    }
    verdict = drive(steps[command]())
    assert (verdict.action, verdict.answer) == (action, answer)
    assert command.name in verdict.reason and verdict.reason.startswith("m ")


@pytest.mark.parametrize(("packet", "action", "answer"), REFUSALS)
@pytest.mark.parametrize(
    "command", [Command.DATA, Command.HEADER, Command.END_OF_HEADER, Command.BODY, Command.END_OF_BODY]
)
def test_a_refusal_of_the_message_is_its_verdict(command: Command, packet: Packet, action: Action, answer: Answer | None) -> None:
    world = answering({command: [packet]})
    verdict = world.whole(a_mail())
    assert (verdict.action, verdict.answer) == (action, answer)
    letter = command.value.decode()
    assert world.wires[0].milter.commands.endswith(letter), "and it is asked no more"


def test_a_refusal_at_connect_is_for_the_whole_connection() -> None:
    world = answering({Command.CONNECT: [say(Reply.REJECT)]})
    mail = a_mail()
    assert drive(world.filter.connect(mail.client)).answer == Answer(554, "5.7.1", "Service refused")
    assert drive(world.filter.mail(mail)).action is Action.REJECT
    assert world.message(mail).action is Action.REJECT
    assert world.wires[0].milter.commands == "C"


def test_another_helo_is_another_chance() -> None:
    world = answering({Command.HELO: [say(Reply.REJECT)]})
    client = Client("192.0.2.1")
    client.helo = "bad.example"
    assert drive(world.filter.helo(client)).action is Action.REJECT
    world.wires[0].milter.answers = {}
    client.helo = "good.example"
    assert drive(world.filter.helo(client)) == ACCEPTED
    assert world.wires[0].milter.heard[-1] == (Command.HELO, b"good.example\0")


def test_the_same_helo_is_said_again_when_tls_has_begun() -> None:
    milter = ScriptedMilter()
    world = World(milter)
    client = Client("192.0.2.1")
    client.helo = "mail.example.org"
    drive(world.filter.helo(client))
    drive(world.filter.helo(client))
    assert Command.HELO not in milter.macros
    client.secure, client.tls_description = True, "TLS1.2"
    drive(world.filter.helo(client))
    assert milter.commands == "CHH"
    assert milter.macros[Command.HELO] == {"{tls_version}": "TLSv1.2"}


@pytest.mark.parametrize(
    ("command", "heard"), [(Command.CONNECT, "C"), (Command.HELO, "CH"), (Command.MAIL, "CHM"), (Command.RCPT, "CHMR"),
                           (Command.HEADER, "CHMRTL"), (Command.BODY, "CHMRTLLNB")],
)  # fmt: skip
def test_accept_means_that_it_wants_to_hear_no_more(command: Command, heard: str) -> None:
    world = answering({command: [say(Reply.ACCEPT)]})
    assert world.whole(a_mail()) == ACCEPTED
    assert world.wires[0].milter.commands == heard


def test_a_recipient_is_refused_alone() -> None:
    world = answering({Command.RCPT: [say(Reply.REJECT), say(Reply.CONTINUE)]})
    mail = a_mail()
    mail.recipients = []
    assert drive(world.filter.rcpt(mail, recipient("no@example.net"))).action is Action.REJECT
    assert drive(world.filter.rcpt(mail, recipient("yes@example.net"))) == ACCEPTED
    mail.recipients.append(recipient("yes@example.net"))
    assert world.message(mail) == ACCEPTED


@pytest.mark.parametrize("command", [Command.MAIL, Command.RCPT, Command.BODY, Command.END_OF_BODY])
def test_what_it_wants_thrown_away_is_kept(command: Command) -> None:
    world = answering({command: [say(Reply.DISCARD)]})
    verdict = world.message(a_mail())
    assert verdict.action is Action.QUARANTINE
    assert "thrown away" in verdict.reason


# --- changes


def test_fields_are_added_inserted_changed_and_removed() -> None:
    verdict = at_the_end(
        *changed(
            Modification(Reply.ADD_HEADER, "X-Last", "1\n\tfolded\nnot folded"),
            Modification(Reply.INSERT_HEADER, "X-First", "1", 0),
            Modification(Reply.INSERT_HEADER, "X-First-Too", "1", 1),
            Modification(Reply.INSERT_HEADER, "X-Third", "1", 3),
            Modification(Reply.CHANGE_HEADER, "subject", "b", 1),
            Modification(Reply.CHANGE_HEADER, "From", "", 1),
            Modification(Reply.CHANGE_HEADER, "X-New", "added", 1),
            Modification(Reply.CHANGE_HEADER, "X-None", "", 1),
        ),
        say(Reply.ACCEPT),
    )
    assert verdict == Verdict(
        reason="m has added X-Last, X-First, X-First-Too and X-Third, changed subject and X-New and removed From and X-None",
        changes=Changes(
            added=(("X-Last", "1\r\n\tfolded\r\n\tnot folded"), ("X-New", "added")),
            inserted=((0, "X-First", "1"), (0, "X-First-Too", "1"), (2, "X-Third", "1")),
            changed=(FieldChange("subject", 1, "b"), FieldChange("From", 1, None)),
        ),
    )


def test_a_body_is_replaced_in_pieces_and_gets_line_ends() -> None:
    verdict = at_the_end(
        *changed(Modification(Reply.REPLACE_BODY, octets=b"one\ntw"), Modification(Reply.REPLACE_BODY, octets=b"o\r\n")),
        say(Reply.CONTINUE),
    )
    assert verdict.changes == Changes(body=b"one\r\ntwo\r\n")


def test_a_body_may_be_replaced_by_nothing() -> None:
    assert at_the_end(Packet(Reply.REPLACE_BODY.value), say(Reply.CONTINUE)).changes == Changes(body=b"")


def test_sender_and_recipients_are_changed() -> None:
    verdict = at_the_end(
        *changed(
            Modification(Reply.CHANGE_SENDER, value="new@example.org", parameters="BODY=8BITMIME"),
            Modification(Reply.ADD_RECIPIENT, value="more@example.net"),
            Modification(Reply.ADD_RECIPIENT_WITH_PARAMETERS, value="dsn@example.net", parameters="NOTIFY=NEVER"),
            Modification(Reply.ADD_RECIPIENT, value="shortly@example.net"),
            Modification(Reply.DELETE_RECIPIENT, value="shortly@example.net"),
            Modification(Reply.DELETE_RECIPIENT, value="bob@example.net"),
        ),
        say(Reply.CONTINUE),
    )
    assert verdict.changes == Changes(
        sender="new@example.org",
        recipients_added=("more@example.net", "dsn@example.net"),
        recipients_removed=("bob@example.net",),
    )


def test_quarantine_has_its_reason_and_keeps_the_changes() -> None:
    verdict = at_the_end(
        *changed(Modification(Reply.QUARANTINE, value="odd\x01 thing"), Modification(Reply.ADD_HEADER, "X", "1")),
        say(Reply.ACCEPT),
    )
    assert verdict.action is Action.QUARANTINE
    assert verdict.reason == "m holds it back: odd  thing; it has added X"
    assert verdict.changes == Changes(added=(("X", "1"),))


def test_changes_of_a_message_that_is_refused_do_not_count() -> None:
    verdict = at_the_end(*changed(Modification(Reply.ADD_HEADER, "X", "1")), say(Reply.REJECT))
    assert (verdict.action, verdict.changes) == (Action.REJECT, None)


# --- faults


@pytest.mark.parametrize("command", [Command.CONNECT, Command.MAIL, Command.RCPT, Command.DATA, Command.BODY, Command.END_OF_BODY])
@pytest.mark.parametrize("how", ["dies", "is silent", "garbage", "a change too early"])
def test_a_milter_that_fails_is_down(command: Command, how: str) -> None:
    milter = ScriptedMilter()
    if how == "dies":
        milter.dies_at = command
    elif how == "is silent":
        milter.silent = {command}
    elif how == "garbage":
        milter.answers = {command: [Packet(b"\xff", b"garbage")]}
    elif command is Command.END_OF_BODY:
        milter.answers = {command: [Packet(Reply.ADD_HEADER.value, b"no end")]}
    else:
        milter.answers = {command: changed(Modification(Reply.ADD_HEADER, "X", "1"))}
    with pytest.raises(FilterDown):
        World(milter).message(a_mail())


@pytest.mark.parametrize(
    "negotiation",
    [Negotiation(7, Tells(0), Steps(0)), Negotiation(1, Tells(0), Steps(0)),
     Negotiation(6, Tells(0), Steps.REJECTED_RECIPIENTS), Negotiation(2, Tells.CHANGE_SENDER, Steps(0)), None],
)  # fmt: skip
def test_a_negotiation_that_comes_to_nothing_is_down(negotiation: Negotiation | None) -> None:
    world = World(ScriptedMilter(negotiation))
    with pytest.raises(FilterDown):
        drive(world.filter.connect(Client("192.0.2.1")))
    assert world.wires[0].ended


def test_after_a_failure_a_new_connection_hears_everything_again() -> None:
    first, second = ScriptedMilter(), ScriptedMilter()
    first.dies_at = Command.RCPT
    world = World(first, second)
    mail = a_mail()
    with pytest.raises(FilterDown):
        drive(world.filter.rcpt(mail, mail.recipients[0]))
    assert world.message(mail) == ACCEPTED
    assert second.commands == "CHMRTLLNBE"


def test_a_message_is_not_continued_on_another_connection() -> None:
    first, second = ScriptedMilter(), ScriptedMilter()
    world = World(first, second)
    mail = a_mail()
    reader = world.filter.read(mail)
    drive(reader.write(b"A: b\r\n\r\n" + b"x" * BODY_CHUNK))
    world.wires[0].ended = True
    with pytest.raises(FilterDown):
        drive(reader.finish(Message(mail, MAIL)))
    assert second.heard == []


def test_a_recipient_that_is_refused_too_late_refuses_the_message() -> None:
    """It was accepted while the milter could not be asked."""
    verdict = answering({Command.RCPT: [code("550 5.1.1 Not here")]}).message(a_mail())
    assert verdict.answer == Answer(550, "5.1.1", "Not here")


def test_changes_without_end_are_not_collected() -> None:
    endless = [Packet(Reply.REPLACE_BODY.value, b"x" * 60_000)] * 40
    world = World(ScriptedMilter(answers={Command.END_OF_BODY: endless}))
    world.filter = Milter(Place("127.0.0.1", 1), world.dial, "mx", changes_bytes=1 << 20)
    with pytest.raises(FilterDown, match="do not end"):
        world.message(a_mail())


def test_a_milter_that_is_not_there_is_down_at_every_moment() -> None:
    world = World()
    mail = a_mail()
    for question in (lambda: world.filter.connect(mail.client), lambda: world.filter.mail(mail)):
        with pytest.raises(FilterDown):
            drive(question())
    with pytest.raises(FilterDown):
        world.message(mail)
    drive(world.filter.ended(mail))
    drive(world.filter.closed(mail.client))


def test_rset_aborts_what_has_begun_and_a_peer_that_goes_is_let_go() -> None:
    milter = ScriptedMilter()
    world = World(milter)
    mail = a_mail()
    reader = world.filter.read(mail)
    drive(reader.write(b"A: b\r\n\r\nhalf"))
    drive(reader.abort())
    drive(world.filter.ended(mail))
    drive(world.filter.closed(mail.client))
    assert milter.commands == "CHMRTLNAQ"
