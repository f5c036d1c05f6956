"""What transcripts cannot say well: bad input by the megabyte, errors of the store, bulk that must not touch a row."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.account.house import House, now
from tests.imap.session.fakes import Node, Talk, add
from tests.imap.session.mailbox import MESSAGES, PARTS
from twisted_mail.account.errors import AccountUnavailable, OutcomeUnknown, OverQuota
from twisted_mail.account.intents import AddMessages, NewMessage
from twisted_mail.imap.cursor import InternalDate
from twisted_mail.imap.execute import EXECUTE, FAMILIES, STREAMED
from twisted_mail.imap.execute.fetch_columns import _date
from twisted_mail.imap.printing import date_time
from twisted_mail.imap.registry import FAMILIES as SYNTAXES
from twisted_mail.imap.settings import Settings
from twisted_mail.imap.syntax import BadCommand, Command


def given(node: Node | None = None) -> Node:
    node = node or Node()
    for message in MESSAGES:
        add(node, message.octets, flags=message.flags, received=message.received, zone=message.zone)
    return node


def test_every_command_that_can_be_read_can_be_carried_out() -> None:
    values: set[type[Command]] = set()
    for family in SYNTAXES:
        for syntax in family.values():
            for name in re.findall(r"\w+", str(syntax.parse.__annotations__["return"])):
                value = syntax.parse.__globals__.get(name)
                if isinstance(value, type) and issubclass(value, Command):
                    values.add(value)
    assert len(values) > 30
    missing = values - set(EXECUTE) - set(STREAMED) - {BadCommand}
    assert not missing


def test_each_family_says_what_it_adds_to_capability() -> None:
    talk = Node().talk().login()
    offered = set(talk.lines("a CAPABILITY")[0].split()[2:])
    wanted = """IMAP4rev1 IMAP4rev2 LITERAL+ SASL-IR IDLE NAMESPACE ID ENABLE UNSELECT UIDPLUS MOVE CHILDREN LIST-EXTENDED
    LIST-STATUS SPECIAL-USE CREATE-SPECIAL-USE ESEARCH SEARCHRES WITHIN STATUS=SIZE CONDSTORE QRESYNC BINARY MULTIAPPEND
    OBJECTID SAVEDATE PREVIEW REPLACE UNAUTHENTICATE COMPRESS=DEFLATE UTF8=ACCEPT APPENDLIMIT=52428800"""
    assert offered == set(wanted.split())
    assert len(FAMILIES) == 10


# --- bad input


def test_ten_thousand_unterminated_commands_cost_one_bad() -> None:
    talk = Node().talk().login()
    talk.feed(b"a FETCH 1 (FLAGS " * 10_000)
    assert talk.session.buffered < 1000
    assert talk.say("").startswith(b"a BAD Line too long")
    assert talk.say("b NOOP") == b"b OK NOOP completed\r\n"


def test_a_line_of_ten_megabytes() -> None:
    talk = Node().talk().login()
    for _ in range(160):
        talk.feed(b"x" * 65_536)
    assert talk.session.buffered < 200_000
    assert talk.say("").count(b"BAD") == 1
    assert talk.say("b NOOP") == b"b OK NOOP completed\r\n"


def test_a_literal_of_four_gigabytes() -> None:
    talk = Node().talk().login()
    assert talk.say("a APPEND INBOX {4294967295}") == b"a NO [TOOBIG] The message is too large\r\n"
    assert talk.say("b LOGIN {4294967295}").startswith(b"b BAD")
    assert talk.say("c APPEND INBOX {99999999999999999999999}").startswith(b"c NO [TOOBIG]")
    assert talk.say("d NOOP") == b"d OK NOOP completed\r\n"


def test_before_login_nothing_large_is_kept() -> None:
    talk = Node().talk()
    talk.take()
    assert talk.say("a LOGIN {100000}").startswith(b"a BAD [TOOBIG]")
    talk.feed(b"b LOGIN ann {100000+}\r\n" + b"x" * 50_000)
    assert talk.session.buffered == 0
    talk.feed(b"x" * 50_000 + b"\r\n")
    assert talk.take().startswith(b"b BAD [TOOBIG]")
    assert b"c OK" in talk.say("c LOGIN ann secret")


def test_a_set_of_a_million_elements() -> None:
    talk = given(Node(settings=Settings(line_bytes=8_000_000))).talk().login().select()
    numbers = ",".join(str(number) for number in range(1, 1_000_001))
    assert talk.say(f"a UID FETCH {numbers} FLAGS").count(b"FETCH (UID") == 4
    assert talk.say(f"b FETCH {numbers} FLAGS").startswith(b"b BAD")
    odd = ",".join(str(number) for number in range(1, 1_000_000, 2))
    assert talk.say(f"c UID SEARCH UID {odd}") == b"* SEARCH 1 3\r\nc OK UID SEARCH completed\r\n"
    assert talk.say(f"d UID SEARCH {odd}") == b"* SEARCH 1 3\r\nd OK UID SEARCH completed\r\n"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "a//b",
        "/a",
        "INBOX/",
        "*",
        "%",
        "a%",
        "a\\\\b",
        "." * 2000,
        "/".join("x" * 1000),
        "a/../b",
        "inBox",
        "&AAA-",
    ],
)
@pytest.mark.parametrize("command", ["CREATE", "DELETE", "SELECT", "SUBSCRIBE", "STATUS"])
def test_mailbox_names_of_every_kind_are_answered(name: str, command: str) -> None:
    talk = Node().talk().login()
    tail = " (MESSAGES)" if command == "STATUS" else ""
    answer = talk.say(f'a {command} "{name}"{tail}')
    assert re.search(rb"^a (OK|NO|BAD) ", answer, re.MULTILINE), answer
    assert not talk.failures
    assert b"b OK" in talk.say("b NOOP")


def test_nul_in_a_name_and_in_a_literal() -> None:
    talk = Node().talk().login()
    assert talk.say(b"a CREATE x\0y").startswith(b"a BAD")
    assert talk.say(b"b CREATE {3+}\r\nx\0y").startswith(b"b BAD")
    assert talk.say("c NOOP") == b"c OK NOOP completed\r\n"


# --- bulk


class Untouchable:
    """An account whose rows must not be read."""

    def __init__(self, account: Any) -> None:
        self._account = account

    def __getattr__(self, name: str) -> Any:
        if name in ("rows", "octets", "reading"):
            raise AssertionError(f"{name} was touched")
        return getattr(self._account, name)


def many(node: Node, count: int) -> None:
    """*count* messages that have no rows at all."""
    account = now(node.open())
    inbox = account.state.inbox.id
    for start in range(0, count, 10_000):
        messages = tuple(
            NewMessage(
                number.to_bytes(16, "big"), 0, 1000 + number % 7, 18_000, 1_600_000_000 + number,
                flags=("\\Seen",) * (number % 3 > 0) + ("\\Flagged",) * (number % 50 == 0) + ("$Junk",) * (number % 11 == 0),
            )
            for number in range(start, min(start + 10_000, count))
        )  # fmt: skip
        now(account.commit(AddMessages(mailbox=inbox, messages=messages)))


def test_columns_of_fifty_thousand_messages_are_answered_without_a_row() -> None:
    node = Node()
    many(node, 50_000)
    talk = node.talk().login()
    session: Any = talk.session
    session._account = Untouchable(session._account)
    talk.select()
    answer = talk.say("a FETCH 1:* (FLAGS)").splitlines()
    assert len(answer) == 50_001
    assert answer[0] == b"* 1 FETCH (FLAGS (\\Flagged \\Recent $Junk))"
    assert answer[1] == b"* 2 FETCH (FLAGS (\\Seen \\Recent))"
    assert answer[49_999].startswith(b"* 50000 FETCH ")
    items = "UID FLAGS INTERNALDATE RFC822.SIZE MODSEQ SAVEDATE EMAILID THREADID"
    answer = talk.say(f"b UID FETCH 1:* ({items})").splitlines()
    assert len(answer) == 50_001
    assert b'INTERNALDATE "13-Sep-2020 12:26:42 +0000" RFC822.SIZE 1002 MODSEQ (2)' in answer[2]
    talk.say("c STATUS INBOX (MESSAGES UNSEEN SIZE)")
    assert talk.say("d SEARCH UNSEEN FLAGGED SMALLER 2000").count(b" ") > 200
    assert b"e OK" in talk.say("e STORE 1:* +FLAGS.SILENT (x)")
    assert not talk.failures


def test_every_combination_of_flags_is_told_as_it_is() -> None:
    node = Node()
    many(node, 3000)
    talk = node.talk().login().select()
    talk.say("a STORE 1:3000 +FLAGS.SILENT (everywhere)")
    account = now(node.open())
    columns: Any = account.state.inbox.columns
    for numbers in ("1:*", "5:7", "2,500,2999", ",".join(map(str, range(1, 3000, 2)))):
        for line in talk.lines(f"b UID FETCH {numbers} FLAGS")[:-1]:
            match = re.fullmatch(r"\* (\d+) FETCH \(UID (\d+) FLAGS \((.*)\)\)", line)
            assert match is not None
            assert set(match[3].split()) == {*columns.flags_of(int(match[2]) - 1), "\\Recent"}
            assert match[1] == match[2]


# --- the store has troubles


class Broken:
    """An account whose methods fail as told."""

    def __init__(self, account: Any, **failing: Any) -> None:
        self._account, self._failing = account, failing

    def __getattr__(self, name: str) -> Any:
        return self._failing.get(name) or getattr(self._account, name)

    def reading(self, keys: Any) -> Any:
        """Octets fail as told, also when they are read ahead."""
        return self if "octets" in self._failing else self._account.reading(keys)


class Temporary(Exception):
    temporary = True


def failing(error: Exception) -> Any:
    async def fail(*arguments: Any) -> Any:
        raise error

    return fail


def with_trouble(talk: Talk, **trouble: Any) -> None:
    session: Any = talk.session
    account = session._account
    session._account = Broken(account, **trouble)
    if session.view is not None:
        session.view.account = session._account


def test_an_unknown_outcome_ends_the_connection_without_a_tagged_answer() -> None:
    talk = given().talk().login().select()
    with_trouble(talk, commit=failing(OutcomeUnknown("?")))
    assert talk.say("a STORE 1 +FLAGS (\\Deleted)") == b""
    assert talk.ended
    assert talk.error is None


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AccountUnavailable("down"), b"NO [UNAVAILABLE]"),
        (Temporary(), b"NO [UNAVAILABLE]"),
        (OverQuota("full"), b"NO [OVERQUOTA]"),
        (ValueError("a defect"), b"NO [SERVERBUG]"),
    ],
)
def test_errors_of_the_store_have_codes(error: Exception, code: bytes) -> None:
    talk = given().talk().login().select()
    with_trouble(talk, commit=failing(error))
    assert talk.say("a COPY 1 Sent").startswith(b"a " + code)
    assert talk.say("b NOOP").endswith(b"b OK NOOP completed\r\n")
    assert bool(talk.failures) == isinstance(error, ValueError)


def test_a_store_that_is_down_gives_what_there_is_read_only() -> None:
    talk = given().talk().login()
    with_trouble(talk, refresh=failing(AccountUnavailable("down")))
    answer = talk.say("a SELECT INBOX")
    assert b"[NOMODSEQ]" in answer
    assert b"[HIGHESTMODSEQ" not in answer
    assert b"a OK [READ-ONLY]" in answer
    assert talk.say("b STORE 1 +FLAGS (x)").startswith(b"b NO [READ-ONLY]")
    assert talk.say("c NOOP") == b"c OK NOOP completed\r\n"


def test_a_store_that_is_down_does_not_show_a_client_less_than_it_has_seen() -> None:
    talk = given().talk().login()
    talk.say("a ENABLE QRESYNC")
    selected = talk.say("b SELECT INBOX")
    validity, modseq = (
        int(re.search(rb"%s (\d+)" % name, selected)[1])  # type: ignore[index]  # or the test fails
        for name in (b"UIDVALIDITY", b"HIGHESTMODSEQ")
    )
    with_trouble(talk, refresh=failing(AccountUnavailable("down")))
    answer = talk.say(f"c SELECT INBOX (QRESYNC ({validity} {modseq + 1}))")
    assert answer.endswith(b"c NO [UNAVAILABLE] What can be read now is older than what was seen\r\n")
    assert b"VANISHED" not in answer
    assert b"d OK [READ-ONLY]" in talk.say(f"d SELECT INBOX (QRESYNC ({validity} {modseq}))")
    assert b"e OK [READ-ONLY]" in talk.say(f"e SELECT INBOX (QRESYNC ({validity + 1} {modseq + 1}))")


async def _one_piece_then_nothing(*arguments: Any) -> AsyncIterator[bytes]:
    yield b"From"
    raise Temporary


async def _nothing(*arguments: Any) -> AsyncIterator[bytes]:
    raise Temporary
    yield b""


def test_octets_that_cannot_be_read_cost_one_answer() -> None:
    talk = given().talk().login().select()
    with_trouble(talk, octets=_nothing)
    assert talk.say("a FETCH 1 (BODY.PEEK[])").startswith(b"a NO [UNAVAILABLE]")
    assert b"b OK" in talk.say("b FETCH 1 (ENVELOPE)")


def test_octets_that_stop_inside_a_literal_cost_the_connection() -> None:
    talk = given().talk().login().select()
    with_trouble(talk, octets=_one_piece_then_nothing)
    answer = talk.say("a FETCH 1 (BODY.PEEK[])")
    assert answer == b"* 1 FETCH (BODY[] {395}\r\nFrom"
    assert talk.ended


def test_an_append_that_the_store_refuses_keeps_the_sync() -> None:
    node = given()
    talk = node.talk().login()

    class Refusing:
        async def write(self, chunk: bytes) -> None:
            raise Temporary

        async def finish(self) -> Any:
            raise AssertionError

        async def abort(self) -> None:
            pass

    service: Any = node.service
    service.writer = lambda account: Refusing()
    talk.feed(b"a APPEND INBOX {100000+}\r\n" + b"a1 NOOP\r\n" * 10_000 + b"x" * 10_000)
    assert talk.take() == b""
    assert talk.say("").startswith(b"a NO [UNAVAILABLE]")
    assert talk.say("b NOOP") == b"b OK NOOP completed\r\n"


def test_what_waits_for_a_lost_connection_is_undone() -> None:
    talk = given().talk().login().select()
    talk.paused = True
    talk.feed(b"a FETCH 1:* (BODY.PEEK[])\r\n")
    view = talk.session.view
    assert view is not None
    assert view.columns.views == 1
    talk.lose()
    assert talk.ended
    assert view.columns.views == 0
    assert not talk.failures


def test_the_account_read_anew_from_a_checkpoint_keeps_the_numbers() -> None:
    house = House()
    node = given(Node(house=house))
    talk = node.talk().login().select()
    other = now(house.node().open(node.logins.account("ann")))
    account: Any = now(node.open())
    assert other.state.modseq == account.state.modseq
    # The other node's state does not matter: this one loads everything again.
    with_rows = talk.say("a FETCH 1:* (UID FLAGS)")
    now(account.checkpoint())
    now(account._reload())
    assert talk.session.selected.superseded
    assert talk.say("b NOOP") == b"b OK NOOP completed\r\n"
    assert not talk.session.selected.superseded
    assert talk.say("a FETCH 1:* (UID FLAGS)") == with_rows
    assert b"c OK" in talk.say("c STORE 2 +FLAGS (\\Deleted)")
    now(account.checkpoint())
    now(account._reload())
    second = node.talk().login().select()
    assert b"* 2 EXPUNGE" in second.say("d EXPUNGE")
    assert talk.say("e FETCH 2 UID").startswith(b"* 2 FETCH (UID 2)")
    assert talk.say("f NOOP") == b"* 2 EXPUNGE\r\nf OK NOOP completed\r\n"
    assert talk.say("g FETCH 1:* UID").count(b"FETCH (UID") == 3


def test_sessions_on_two_nodes_see_each_others_changes() -> None:
    house = House()
    here = given(Node(house=house))
    there = Node(house.node(), house=house)
    there.logins = here.logins
    idle, poll = here.talk().login().select(), here.talk().login().select()
    far = there.talk().login().select()
    idle.say("a IDLE")
    assert far.say("b STORE 2 +FLAGS (\\Deleted)").startswith(b"* 2 FETCH (FLAGS (")
    house.clock.advance(0)
    assert idle.take().startswith(b"* 2 FETCH (FLAGS (\\Flagged \\Deleted")
    assert b"* 2 EXPUNGE" in far.say("c EXPUNGE")
    house.clock.advance(0)
    assert idle.take() == b"* 2 EXPUNGE\r\n"
    assert poll.say("d NOOP").startswith(b"* 2 EXPUNGE\r\n")
    assert b"e OK" in poll.say("e STORE 2 +FLAGS (two)")
    assert b"* 2 FETCH (FLAGS (\\Recent two))" in far.say("f NOOP")


def test_the_account_cannot_be_read_anew_yet() -> None:
    talk = given().talk().login().select()
    account: Any = talk.session.account
    now(account.checkpoint())
    now(account._reload())
    with_trouble(talk, columns=failing(AccountUnavailable("down")))
    assert talk.say("a NOOP") == b"a OK NOOP completed\r\n"
    assert talk.say("b FETCH 1 UID").startswith(b"* 1 FETCH (UID 1)")
    talk.session.selected.account = account
    assert talk.say("c NOOP") == b"c OK NOOP completed\r\n"
    assert not talk.session.selected.superseded


def test_internal_dates_from_tables_are_those_of_the_calendar() -> None:
    for seconds in (*range(-10_000_000_000, 10_000_000_000, 123_456_789), 0, 59, 86_399, 951_782_400):
        for zone in (0, 60, -420, 840, -719, 330):
            assert _date(seconds, zone) == date_time(InternalDate(seconds, zone)).decode()


def test_qresync_when_the_server_has_forgotten_what_vanished() -> None:
    node = Node()
    for number in range(20):
        add(node, b"Subject: %d\r\n\r\n" % number)
    worker = node.talk().login().select()
    worker.say("a STORE 2,8,9,15 +FLAGS.SILENT (\\Deleted)")
    worker.say("b EXPUNGE")
    columns: Any = now(node.open()).state.inbox.columns
    columns.vanished_floor = 1000
    talk = node.talk().login()
    talk.say("a ENABLE QRESYNC")
    validity = now(node.open()).state.inbox.uid_validity
    answer = talk.say(f"b SELECT INBOX (QRESYNC ({validity} 5 1:12))")
    assert b"* VANISHED (EARLIER) 2,8:9\r\n" in answer
    # From where the client's numbers and UIDs differ on: 6 was UID 7, 7 is UID 10.
    answer = talk.say(f"c SELECT INBOX (QRESYNC ({validity} 5 1:20 (1,3,6:7 1,4,7:8)))")
    assert b"* VANISHED (EARLIER) 8:9,15\r\n" in answer
    answer = talk.say(f"d SELECT INBOX (QRESYNC ({validity} 5))")
    assert b"* VANISHED (EARLIER) 2,8:9,15\r\n" in answer


def test_a_resynchronisation_of_many_messages_comes_in_pieces() -> None:
    node = Node()
    many(node, 10_000)
    talk = node.talk().login()
    talk.say("a ENABLE QRESYNC")
    validity = now(node.open()).state.inbox.uid_validity
    assert talk.say(f"b SELECT INBOX (QRESYNC ({validity} 1))").count(b" FETCH (UID ") == 10_000


# --- octets


def test_sections_of_a_large_message_are_streamed_and_exact() -> None:
    node = Node()
    encoded = b"\r\n".join([b"QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJz"] * 20_000)
    octets = PARTS.replace(b"AAECAwQFBgcICQ==", encoded)
    add(node, octets)
    talk = node.talk().login().select()
    assert octets in talk.say("a FETCH 1 BODY.PEEK[]")
    assert b"{%d}\r\n%b" % (len(encoded), encoded) in talk.say("b FETCH 1 BODY.PEEK[2]")
    decoded = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrs" * 20_000
    assert talk.say("c FETCH 1 BINARY.SIZE[2]").startswith(b"* 1 FETCH (BINARY.SIZE[2] %d)" % len(decoded))
    assert b"~{%d}\r\n%b)" % (len(decoded), decoded) in talk.say("d FETCH 1 BINARY.PEEK[2]")
    partial = talk.say("e FETCH 1 BINARY.PEEK[2]<44999.100000>")
    assert b"BINARY[2]<44999> ~{100000}\r\n%b)" % decoded[44_999:144_999] in partial
    partial = talk.say("f FETCH 1 BODY.PEEK[]<65530.20>")
    assert b"BODY[]<65530> {20}\r\n%b)" % octets[65_530:65_550] in partial


def test_a_header_of_several_megabytes_comes_back_whole() -> None:
    node = Node()
    header = (
        b"Subject: long\r\n" + b"".join([b"X-%d: %s\r\n" % (n, b"y" * 900) for n in range(3000)]) + b"X-Last: z\r\n\r\n"
    )
    add(node, header + b"body\r\n")
    talk = node.talk().login().select()
    assert b"BODY[HEADER] {%d}\r\n%b)" % (len(header), header) in talk.say("a FETCH 1 BODY.PEEK[HEADER]")
    assert b"RFC822.HEADER {%d}\r\n%b)" % (len(header), header) in talk.say("b FETCH 1 RFC822.HEADER")
    assert b"{13}\r\nX-Last: z\r\n\r\n" in talk.say("c FETCH 1 BODY.PEEK[HEADER.FIELDS (X-Last)]")
    answer = talk.say("d FETCH 1 (ENVELOPE BODY.PEEK[HEADER]<2700000.10> BODY.PEEK[TEXT])")
    assert b"BODY[HEADER]<2700000> {10}\r\n%b" % header[2_700_000:2_700_010] in answer
    assert answer.count(b"body\r\n") == 1


def test_an_unknown_transfer_encoding() -> None:
    node = Node()
    add(node, b"Content-Type: a/b\r\nContent-Transfer-Encoding: x-secret\r\n\r\nbody")
    talk = node.talk().login().select()
    assert talk.say("a FETCH 1 BINARY.PEEK[1]").startswith(b"a NO [UNKNOWN-CTE]")
    assert b"body)" in talk.say("b FETCH 1 BODY.PEEK[1]")


def test_a_search_is_interrupted_when_the_connection_is_lost() -> None:
    node = given()
    talk = node.talk().login().select()
    waiting: Deferred[None] = Deferred()

    async def rows(*arguments: Any) -> AsyncIterator[Any]:
        await waiting
        yield []

    with_trouble(talk, rows=rows)
    talk.feed(b"a SEARCH TEXT x\r\nb NOOP\r\n")
    assert talk.take() == b""
    talk.lose()
    assert talk.ended
    assert talk.take() == b""


def test_a_quota_holds_for_append_replace_and_copy_but_not_for_move() -> None:
    node = given()
    size = now(node.open()).state.size
    node.logins.quota_bytes = size + 20
    talk = node.talk().login().select()
    assert b"a OK" in talk.say(b"a APPEND Trash {10+}\r\n0123456789")
    assert b"b NO [OVERQUOTA]" in talk.say(b"b APPEND Trash {11+}\r\n0123456789a")
    assert b"c NO [OVERQUOTA]" in talk.say("c COPY 1 Trash")
    assert b"d NO [OVERQUOTA]" in talk.say(b"d REPLACE 1 Trash {5000+}\r\n" + b"x" * 5000)
    assert b"e OK" in talk.say("e MOVE 1 Trash")
    assert now(node.open()).state.size == size + 10
