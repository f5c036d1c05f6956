"""Packets of the milter protocol: what is encoded is decoded, however it is cut, and garbage is said to be garbage."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted_mail.filters import milter_packets as p
from twisted_mail.filters.milter_packets import (
    Command,
    Malformed,
    Modification,
    Negotiation,
    Packet,
    Packets,
    Reply,
    ReplyCode,
    Step,
    Steps,
    Tells,
    encoded_modification,
    modification,
    reply_code,
)

kinds = st.sampled_from([each.value for each in (*Command, *Reply)])
packets = st.builds(Packet, kinds, st.binary(max_size=60))
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
addresses = st.from_regex(r"[a-z.+]{1,10}@[a-zé.]{1,10}", fullmatch=True)
names = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,20}", fullmatch=True)
places = st.integers(0, 0xFFFF_FFFF)
modifications = st.one_of(
    st.builds(Modification, st.just(Reply.ADD_HEADER), names, texts),
    st.builds(Modification, st.sampled_from([Reply.INSERT_HEADER, Reply.CHANGE_HEADER]), names, texts, places),
    st.builds(Modification, st.just(Reply.REPLACE_BODY), octets=st.binary(max_size=50)),
    st.builds(Modification, st.just(Reply.QUARANTINE), value=texts),
    st.builds(Modification, st.sampled_from([Reply.ADD_RECIPIENT, Reply.DELETE_RECIPIENT]), value=addresses),
    st.builds(
        Modification,
        st.sampled_from([Reply.ADD_RECIPIENT_WITH_PARAMETERS, Reply.CHANGE_SENDER]),
        value=addresses,
        parameters=st.sampled_from(["", "BODY=8BITMIME"]),
    ),
)


def cut(wire: bytes, at: int) -> list[Packet]:
    incoming = Packets()
    found = []
    for part in (wire[:at], wire[at:]):
        incoming.feed(part)
        while (packet := incoming.next()) is not None:
            found.append(packet)
    assert incoming.empty
    return found


@settings(max_examples=60)
@given(st.lists(packets, max_size=5), st.data())
def test_packets_come_out_as_they_went_in_however_they_are_cut(sent: list[Packet], data: st.DataObject) -> None:
    wire = b"".join(each.encode() for each in sent)
    assert cut(wire, data.draw(st.integers(0, len(wire)))) == sent


@settings(max_examples=100)
@given(modifications)
def test_a_modification_is_read_as_it_was_written(change: Modification) -> None:
    assert modification(encoded_modification(change)) == change


@given(st.integers(2, 6), st.integers(0, 0x1FF), st.integers(0, 0x1FFFFF), st.dictionaries(st.sampled_from(Step), st.lists(names, min_size=1)))
@settings(max_examples=60)
def test_a_negotiation_is_read_as_it_was_written(version: int, actions: int, steps: int, macros: dict[Step, list[str]]) -> None:
    sent = Negotiation(version, Tells(actions), Steps(steps), {step: tuple(each) for step, each in macros.items()})
    assert Negotiation.decode(sent.encode()) == sent


@settings(max_examples=200)
@given(st.binary(max_size=64))
def test_garbage_gives_malformed_and_nothing_else(garbage: bytes) -> None:
    incoming = Packets()
    incoming.feed(garbage)
    try:
        while (packet := incoming.next()) is not None:
            for read in (modification, Negotiation.decode):
                try:
                    read(packet)
                except Malformed:
                    pass
            try:
                reply_code(packet.data)
            except Malformed:
                pass
    except Malformed:
        pass


@pytest.mark.parametrize("length", [0, (1 << 20) + 1, 0xFFFF_FFFF])
def test_a_packet_longer_than_any_is_not_waited_for(length: int) -> None:
    incoming = Packets()
    incoming.feed(struct.pack("!I", length))
    with pytest.raises(Malformed):
        incoming.next()


def test_the_commands_octets_are_those_of_the_protocol() -> None:
    assert p.connect("mx.example", "192.0.2.1", 4711).encode() == b"\0\0\0\x19Cmx.example\x004\x12\x67192.0.2.1\0"
    assert p.connect("[::1]", "2001:db8::1", 25).data == b"[::1]\x006\0\x192001:db8::1\0"
    assert p.connect("localhost", "", 0).data == b"localhost\0U"
    assert p.helo("x").encode() == b"\0\0\0\x03Hx\0"
    assert p.mail("ann@example.org", ["SIZE=10"]).data == b"<ann@example.org>\0SIZE=10\0"
    assert p.mail("").data == b"<>\0"
    assert p.rcpt("bob@example.net").encode() == b"\0\0\0\x13R<bob@example.net>\0"
    assert p.header(b"Subject", b"a\n b").data == b"Subject\0a\n b\0"
    assert p.simple(Command.DATA).encode() == b"\0\0\0\x01T"
    assert p.simple(Command.QUIT_NEW_CONNECTION).encode() == b"\0\0\0\x01K"
    assert p.macros(Command.MAIL, [("i", "1"), ("{mail_addr}", "a")]).data == b"Mi\x001\0{mail_addr}\0a\0"


def test_a_nul_in_a_string_does_not_end_it_early() -> None:
    assert p.helo("a\0b").data == b"ab\0"
    assert p.header(b"X", b"a\0b").data == b"X\0ab\0"


def test_a_field_that_no_packet_has_room_for_is_cut_off() -> None:
    assert len(p.header(b"X-Long", b"a" * 100_000).data) < p.BODY_CHUNK


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"550 5.7.1 No such luck\0", ReplyCode(550, "5.7.1", "No such luck")),
        (b"451\0", ReplyCode(451, "", "")),
        (b"451 later\0", ReplyCode(451, "", "later")),
        (b"554-5.7.1 one\r\n554-5.7.1 two\r\n554 5.7.1 three\0", ReplyCode(554, "5.7.1", "one two three")),
        (b"550 4.7.1 mixed\0", ReplyCode(550, "", "mixed")),
        (b"550 5.7.1 100%% spam\0", ReplyCode(550, "5.7.1", "100% spam")),
        (b"550 5.7.1 a\x07b", ReplyCode(550, "5.7.1", "a?b")),
    ],
)
def test_a_reply_code_is_read(octets: bytes, expected: ReplyCode) -> None:
    assert reply_code(octets) == expected


@pytest.mark.parametrize("octets", [b"", b"250 fine\0", b"5xx\0", b"550 a\r\n551 b\0", b"5501 a\0"])
def test_what_is_no_reply_code_is_malformed(octets: bytes) -> None:
    with pytest.raises(Malformed):
        reply_code(octets)


@pytest.mark.parametrize(
    "packet",
    [
        Packet(b"h", b"X\0value"),
        Packet(b"h", b"X Y\0value\0"),
        Packet(b"h", b"X\0a\0b\0"),
        Packet(b"h", b"\0value\0"),
        Packet(b"i", b"\0\0"),
        Packet(b"+", b"<a@b>\r\nRCPT TO:<c@d>\0"),
        Packet(b"2", b"a\0b\0c\0"),
        Packet(b"?", b""),
        Packet(b"c", b""),
    ],
)
def test_a_modification_that_is_none_is_malformed(packet: Packet) -> None:
    with pytest.raises(Malformed):
        modification(packet)
