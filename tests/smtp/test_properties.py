"""Chunking changes nothing, dot-stuffing is undone exactly, and no octets raise."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.smtp.fakes import Conversation, after_rcpt
from twisted_mail.smtp.commands import BadCommand, Command, Mail, Rcpt
from twisted_mail.smtp.parser import VERBS, decode_xtext, parse_command
from twisted_mail.smtp.profiles import LMTP, MX, SUBMISSION, Limits
from twisted_mail.smtp.wire import DotStuffed, LineEnds

some = settings(max_examples=150, deadline=None)

nasty = st.lists(
    st.sampled_from([b"\r\n", b".", b"\r", b"\n", b"a", b"\r\n.", b"\r\n.\r\n", b"..", b"\x00", b"\xff", b"RSET\r\n"]),
    max_size=30,
).map(b"".join)
lines = st.lists(st.sampled_from([b"", b".", b"..", b".a", b"text", b"a.", b"-\xe9-"]), max_size=12).map(
    lambda each: b"".join(line + b"\r\n" for line in each)
)
commands = st.lists(
    st.sampled_from(
        [
            b"EHLO a\r\n",
            b"LHLO a\r\n",
            b"MAIL FROM:<a@b.example>\r\n",
            b"MAIL FROM:<a@b.example> BODY=BINARYMIME\r\n",
            b"RCPT TO:<ann@example.org>\r\n",
            b"RCPT TO:<nobody@example.org>\r\n",
            b"DATA\r\n",
            b"text\r\n.\r\n",
            b"a\n.\nb\r\n",
            b"BDAT 7\r\nRSET\r\nx",
            b"BDAT 3 LAST\r\na\r\n",
            b"BDAT 0 LAST\r\n",
            b"RSET\r\n",
            b"NOOP\n\r\n",
            b"AUTH PLAIN\r\n",
            b"AGFubgBzZWNyZXQ=\r\n",
            b"*\r\n",
            b"\xff\r\n",
            b"HELP\r\n",
            b"x" * 60 + b"\r\n",
        ]
    ),
    max_size=25,
).map(b"".join)
profiles = st.sampled_from([MX, SUBMISSION, LMTP])


def cuts(data: st.DataObject, octets: bytes) -> list[bytes]:
    places = sorted(set(data.draw(st.lists(st.integers(0, len(octets)), max_size=6))))
    return [octets[a:b] for a, b in zip([0, *places], [*places, len(octets)], strict=True)]


@some
@given(profile=profiles, wire=st.one_of(commands, commands, st.binary(max_size=200)), data=st.data())
def test_chunking_never_changes_replies_or_messages(profile, wire, data) -> None:  # type: ignore[no-untyped-def]
    limits = Limits(bad_commands=0, line_bytes=50, auth_line_bytes=55)
    whole, cut = Conversation(profile, limits=limits), Conversation(profile, limits=limits)
    expected = whole.say(wire)
    got = b"".join(cut.say(piece) for piece in cuts(data, wire))
    # names and dates that submission adds are new each time
    strip = re.compile(rb"<[0-9a-f]{32}@")
    assert got == expected
    assert [(e, strip.sub(b"", o)) for e, o in cut.intake.messages] == [
        (e, strip.sub(b"", o)) for e, o in whole.intake.messages
    ]
    assert whole.failures == cut.failures == []


@some
@given(text=lines, data=st.data())
def test_dot_stuffing_is_undone_exactly(text: bytes, data: st.DataObject) -> None:
    stuffed = re.sub(rb"(?m)^\.", b"..", text)
    dots = DotStuffed()
    out, behind = b"", b""
    for piece in cuts(data, stuffed + b".\r\nQUIT\r\n"):
        if dots.ended:
            behind += piece
        else:
            some_octets, rest = dots.feed(piece)
            out += some_octets
            behind += rest
    assert dots.ended
    assert (out, behind) == (text, b"QUIT\r\n")


@some
@given(octets=nasty, data=st.data())
def test_the_end_is_where_a_plain_reading_finds_it(octets: bytes, data: st.DataObject) -> None:
    """The model: split at CRLF, whole lines only, a line of one dot is the end."""
    dots = DotStuffed()
    out, behind = b"", b""
    for piece in cuts(data, octets):
        if dots.ended:
            behind += piece
        else:
            some_octets, rest = dots.feed(piece)
            out += some_octets
            behind += rest
    *whole, last = octets.split(b"\r\n")
    assert dots.ended == (b"." in whole)
    if dots.ended:
        end = whole.index(b".")
        wanted = b"".join((line[1:] if line.startswith(b".") else line) + b"\r\n" for line in whole[:end])
        assert out == wanted
        assert behind == b"\r\n".join([*whole[end + 1 :], last])


@some
@given(octets=nasty, data=st.data())
def test_bare_line_ends_are_found_however_they_are_cut(octets: bytes, data: st.DataObject) -> None:
    ends = LineEnds()
    for piece in cuts(data, octets):
        ends.feed(piece)
    ends.close()
    rest = octets.replace(b"\r\n", b"")
    assert ends.bare == (b"\r" in rest or b"\n" in rest)


@some
@given(wire=st.one_of(nasty, st.binary(max_size=300)), data=st.data())
def test_whatever_comes_as_a_message_is_taken_whole_or_refused(wire: bytes, data: st.DataObject) -> None:
    conversation = Conversation(MX, limits=Limits(bad_commands=0))
    after_rcpt(conversation)
    conversation.say(b"DATA\r\n")
    for piece in cuts(data, wire):
        conversation.say(piece)
    assert not conversation.failures
    for _, octets in conversation.intake.messages:
        rest = octets.replace(b"\r\n", b"")
        assert b"\r" not in rest and b"\n" not in rest


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=80),
        st.builds(
            lambda verb, rest: verb + b" " + rest,
            st.sampled_from(sorted(VERBS)),
            st.one_of(
                st.binary(max_size=60),
                st.text(alphabet="<>@:.,[]\" =;\\+aZ1-IPv6:ÿя", max_size=60).map(str.encode),
                st.text(alphabet="<>@:.,[]\" =;\\+aZ1-", max_size=60).map(lambda t: b"FROM:<a@b> " + t.encode()),
            ),
        ),
    )
)
def test_every_line_is_a_command_of_some_kind(line: bytes) -> None:
    command = parse_command(line)
    assert isinstance(command, Command)
    if isinstance(command, BadCommand):
        assert 500 <= command.code <= 555


atoms = st.text(alphabet="abcXYZ019!#$%&'*+/=?^_`{|}~-я", min_size=1, max_size=12)
quoted = st.text(alphabet='ab <>@,:;\\".я', max_size=12)
labels = st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?\Z")


@some
@given(st.lists(atoms, min_size=1, max_size=3), st.lists(labels, min_size=1, max_size=4), st.booleans())
def test_dot_strings_are_read_as_they_are(local: list[str], domain: list[str], routed: bool) -> None:
    address = ".".join(local) + "@" + ".".join(domain)
    route = "@a.example,@b.example:" if routed else ""
    command = parse_command(f"RCPT TO:<{route}{address}>".encode())
    assert isinstance(command, Rcpt) and command.recipient is not None
    assert command.text == command.recipient.plain == address


@some
@given(quoted)
def test_quoted_strings_are_unquoted(local: str) -> None:
    written = '"' + re.sub(r'(["\\])', r"\\\1", local) + '"@example.org'
    command = parse_command(f"MAIL FROM:<{written}> SMTPUTF8".encode())
    assert isinstance(command, Mail) and command.sender is not None
    assert command.sender.text == written
    assert command.sender.local == local


@some
@given(st.text(max_size=30))
def test_xtext_is_decoded(text: str) -> None:
    encoded = "".join(
        chr(octet) if 33 <= octet <= 126 and octet not in b"+=" else f"+{octet:02X}" for octet in text.encode()
    )
    assert decode_xtext(encoded) == text
