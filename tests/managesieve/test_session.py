"""What transcripts do not show: SCRAM, faults of the store, bounds, chunks, garbage."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.auth.support import ScramClient
from tests.managesieve.support import LOCAL, Conversation, House, identity, logged_in, now
from twisted_mail.managesieve.replies import string
from twisted_mail.managesieve.settings import Settings
from twisted_mail.managesieve.wire import Input, LineFault, Raw
from twisted_mail.services import ScriptFault, ScriptRefused
from twisted_mail.storage.interfaces import Unavailable


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_scram_ends_with_what_the_server_proves_in_the_ok() -> None:
    talk = Conversation(House())
    talk.take()
    client = ScramClient("tim", "tanstaaftanstaaf")
    first = now(talk.say(f'AUTHENTICATE "SCRAM-SHA-256" "{encoded(client.first())}"'))
    challenge = base64.b64decode(first.strip().strip(b'"'))
    answer = now(talk.say(f'"{encoded(client.final(challenge))}"'))
    assert answer.startswith(b'OK (SASL "') and answer.endswith(b'")\r\n'), answer
    assert base64.b64decode(answer.split(b'"')[1]) == b"v=" + base64.b64encode(client.server_signature)
    assert now(talk.say("LISTSCRIPTS")) == b"OK\r\n"


def test_scram_with_a_wrong_password_is_refused() -> None:
    talk = Conversation(House())
    talk.take()
    client = ScramClient("tim", "wrong")
    first = now(talk.say('AUTHENTICATE "SCRAM-SHA-256"', f'"{encoded(client.first())}"'))
    empty, line, _ = first.split(b"\r\n")
    assert empty == b'""'
    assert now(talk.say(f'"{encoded(client.final(base64.b64decode(line.strip(bytes([34])))))}"')).startswith(b"NO ")
    assert now(talk.say("LISTSCRIPTS")) == b'NO "log in first"\r\n'


class Broken:
    """A directory that does not answer, for one of its methods."""

    def __init__(self, inner: Any, *broken: str) -> None:
        self._inner, self._broken = inner, broken

    def __getattr__(self, name: str) -> Any:
        if name in self._broken:

            async def fail(*arguments: Any) -> Any:
                raise Unavailable("10.0.0.1 does not answer")

            return fail
        return getattr(self._inner, name)


@pytest.mark.parametrize(
    ("method", "line"),
    [
        ("scripts", "LISTSCRIPTS"),
        ("scripts", 'PUTSCRIPT "a" "keep;"'),
        ("put_script", 'PUTSCRIPT "a" "keep;"'),
        ("script", 'GETSCRIPT "a"'),
        ("activate_script", 'SETACTIVE "a"'),
        ("remove_script", 'DELETESCRIPT "a"'),
        ("rename_script", 'RENAMESCRIPT "a" "b"'),
    ],
)
def test_a_store_that_does_not_answer_means_try_later(method: str, line: str) -> None:
    house = House()
    house.scripts._directory = Broken(house.backend.directory, method)
    talk = logged_in(house)
    answer = now(talk.say(line))
    assert answer == b'NO (TRYLATER) "the scripts cannot be reached at the moment"\r\n'
    assert now(talk.say("NOOP")) == b'OK "NOOP completed"\r\n'


def test_a_failure_of_ours_ends_the_command_and_not_the_connection() -> None:
    house = House()
    talk = logged_in(house)

    async def fail(account: Any) -> Any:
        raise ZeroDivisionError

    house.scripts.names = fail  # type: ignore[method-assign]
    assert now(talk.say("LISTSCRIPTS")) == b'NO (TRYLATER) "something failed here"\r\n'
    assert [type(error) for error in house.failures] == [ZeroDivisionError]
    assert now(talk.say("NOOP")) == b'OK "NOOP completed"\r\n'


def test_who_delivers_is_told_of_every_change_and_of_nothing_else() -> None:
    house = House()
    talk = logged_in(house)
    now(talk.say('LISTSCRIPTS', 'HAVESPACE "a" 3', 'CHECKSCRIPT "keep;"', 'PUTSCRIPT "a" "nonsense"', 'GETSCRIPT "a"'))
    assert not house.changed
    for line in ('PUTSCRIPT "a" "keep;"', 'SETACTIVE "a"', 'RENAMESCRIPT "a" "b"', 'SETACTIVE ""', 'DELETESCRIPT "b"'):
        assert now(talk.say(line)) == b"OK\r\n", line
        assert house.changed == [identity("tim")], line
        house.changed.clear()


def test_a_script_that_is_refused_leaves_the_one_that_is_there() -> None:
    house = House()
    talk = logged_in(house)
    now(talk.say('PUTSCRIPT "a" "keep;"'))
    assert now(talk.say('PUTSCRIPT "a" "nonsense"')).startswith(b"NO ")
    assert now(talk.say('GETSCRIPT "a"')) == b"{5}\r\nkeep;\r\nOK\r\n"


def test_what_a_script_includes_may_come_later() -> None:
    talk = logged_in()
    assert now(talk.say('PUTSCRIPT "a" {40+}', 'require "include"; include "come-later";', "")).startswith(b"OK")


def test_warnings_are_shown_beside_ok() -> None:
    house = House()

    async def check(account: Any, text: str) -> list[str]:
        return ["line 8: one", "line 9: two"]

    house.scripts.check = check  # type: ignore[method-assign]
    talk = logged_in(house)
    assert now(talk.say('PUTSCRIPT "a" "keep;"')) == b"OK (WARNINGS) {24}\r\nline 8: one\r\nline 9: two\r\n"


def test_names_have_128_characters() -> None:
    house = House()
    for name in ("東" * 128, "a" * 128):
        now(house.scripts.put(identity("tim"), name, "keep;"))
    with pytest.raises(ScriptRefused) as caught:
        now(house.scripts.put(identity("tim"), "東" * 129, "keep;"))
    assert caught.value.fault is ScriptFault.BAD_NAME


def test_a_script_of_ten_thousand_lines_goes_up_and_comes_down_as_it_was() -> None:
    script = "\r\n".join(f'if header :contains "subject" "number {n}" {{ keep; }}' for n in range(10_000)) + "\r\n"
    talk = logged_in()
    octets = script.encode()
    now(talk.feed(b'PUTSCRIPT "long" {%d+}\r\n' % len(octets)))
    for at in range(0, len(octets), 9000):
        now(talk.feed(octets[at : at + 9000]))
    now(talk.feed(b"\r\n"))
    assert talk.take() == b"OK\r\n"
    assert now(talk.say('GETSCRIPT "long"')) == b"{%d}\r\n%b\r\nOK\r\n" % (len(octets), octets)


def test_answers_are_written_as_they_are_made() -> None:
    """A client that asks for more than it reads fills no memory: what is long goes through push."""
    talk = logged_in()
    script = "# " + "x" * 40_000 + "\r\nkeep;"
    assert now(talk.say(f'PUTSCRIPT "long" {{{len(script)}+}}', script)) == b"OK\r\n"
    pushed: list[int] = []

    async def push(data: bytes) -> None:
        pushed.append(len(data))

    talk.session._push = push
    now(talk.feed(b'GETSCRIPT "long"\r\n' * 50))
    assert len(pushed) == 25 and max(pushed) < 150_000


def test_draining_and_timing_out_say_goodbye() -> None:
    talk = logged_in()
    talk.session.drain()
    assert talk.session.take_output() == b'BYE (TRYLATER) "the server is shutting down"\r\n' and talk.session.closing
    for who, text in ((logged_in(), b"nothing has come for too long"), (Conversation(House()), b"log in sooner")):
        who.session.take_output()
        who.session.time_out()
        assert who.session.take_output() == b'BYE "%b"\r\n' % text and who.session.closing


# --- octets


COMMANDS = st.lists(
    st.one_of(
        st.sampled_from(
            [
                b'PUTSCRIPT "a" "keep;"', b'PUTSCRIPT "a" {5+}\r\nkeep;', b"PUTSCRIPT {1+}\r\na {5+}\r\nstop;", b"LISTSCRIPTS",
                b'GETSCRIPT "a"', b'SETACTIVE "a"', b'SETACTIVE ""', b'RENAMESCRIPT "a" "b"', b'DELETESCRIPT "b"',
                b"NOOP", b'NOOP {3+}\r\n"\r\n', b"CAPABILITY", b"UNAUTHENTICATE", b'HAVESPACE "a" 12',
                b'AUTHENTICATE "PLAIN" "AHRpbQB0YW5zdGFhZnRhbnN0YWFm"', b'AUTHENTICATE "LOGIN"', b'"*"', b'""',
                b"STARTTLS", b'CHECKSCRIPT {400+}\r\n' + b"#" * 400, b'GETSCRIPT {70+}\r\n' + b"x" * 70,
            ]
        ),
        st.binary(max_size=40),
        st.text(' "\\{}+0123456789abNOOPGET\r\n()', max_size=60).map(str.encode),
    ),
    max_size=8,
)
SMALL = Settings(line_bytes=60, auth_bytes=300, short_bytes=50, discard_bytes=2000, bad_commands=0, failed_logins=0)


def talked(chunks: list[bytes]) -> tuple[bytes, bool]:
    house = House(max_bytes=300)
    talk = logged_in(house, SMALL)
    for chunk in chunks:
        now(talk.feed(chunk))
    assert not house.failures, house.failures
    return talk.take(), talk.session.closing


@settings(max_examples=60, deadline=None)
@given(commands=COMMANDS, data=st.data())
def test_chunking_changes_nothing_and_garbage_gives_replies(commands: list[bytes], data: st.DataObject) -> None:
    octets = b"\r\n".join(commands) + b"\r\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=6)))
    whole = talked([octets])
    assert talked([octets[a:b] for a, b in zip([0, *cuts], [*cuts, len(octets)], strict=True)]) == whole
    assert talked([octets[at : at + 1] for at in range(len(octets))]) == whole


@settings(max_examples=100, deadline=None)
@given(
    pieces=st.lists(st.binary(max_size=50), max_size=5), line=st.integers(1, 80), literal=st.integers(0, 60), data=st.data()
)
def test_literals_come_whole_or_with_their_fault(pieces: list[bytes], line: int, literal: int, data: st.DataObject) -> None:
    octets = b"X" + b"".join(b" {%d+}\r\n%b" % (len(piece), piece) for piece in pieces) + b"\r\n"
    found: list[list[Raw]] = []
    for size in (len(octets), data.draw(st.integers(1, 9))):
        wire, got = Input(), []
        for at in range(0, len(octets), size):
            wire.feed(octets[at : at + size])
            while (raw := wire.command(line, literal, 10_000)) is not None:
                got.append(raw)
        assert not len(wire) or any(raw.fault is LineFault.LINE_TOO_LONG for raw in got) or line < 50
        found.append(got)
    assert found[0] == found[1]
    (raw,) = found[0]
    if raw.fault is None:
        assert raw.literals == tuple(pieces) and all(len(piece) <= literal for piece in pieces)
    elif raw.fault is LineFault.LITERAL_TOO_LONG:
        assert any(len(piece) > literal for piece in pieces)


@settings(max_examples=100, deadline=None)
@given(text=st.binary(max_size=60))
def test_a_string_is_quoted_or_counted(text: bytes) -> None:
    wire = string(text)
    if wire.startswith(b'"'):
        assert wire == b'"%b"' % text and not set(text) & set(b'"\\\r\n\0')
    else:
        assert wire == b"{%d}\r\n%b" % (len(text), text)


def test_a_peer_that_sends_a_line_without_end_is_left() -> None:
    talk = Conversation(House())
    talk.take()
    for _ in range(30):
        now(talk.feed(b"x" * 65_536))
        assert talk.session.waiting < 70_000
    assert talk.take() == b'BYE "more comes than can be taken"\r\n' and talk.session.closing


def test_a_peer_from_afar_is_offered_no_password() -> None:
    from dataclasses import replace

    talk = Conversation(House(), peer=replace(LOCAL, address="192.0.2.7"))
    assert b'"SASL" "SCRAM-SHA-256"\r\n' in talk.take()
