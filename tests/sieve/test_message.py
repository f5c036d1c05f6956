"""What a script sees of a message: fields, addresses, parts and bodies, whatever the octets."""

from __future__ import annotations

from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mime.generate import SHAPES, generate
from twisted_mail.mime import MessageParser, mailboxes_of, parse_addresses, unfold
from twisted_mail.sieve.comparators import fold
from twisted_mail.sieve.editing import edit_header
from twisted_mail.sieve.header import _address
from twisted_mail.sieve.message import Message
from twisted_mail.sieve.values import Edit

PLAIN = (
    b"Received: one\r\nReceived: two\r\n"
    b"From: =?utf-8?q?J=C3=BCrgen?= <j@example.org>\r\n"
    b'To: Friends: ann@example.org, "b c"@Example.COM;, plain words, <x@>\r\n'
    b"To: last@example.org\r\n"
    b"SUBJECT:  =?iso-8859-1?q?Gr=FC=DFe?=\r\n aus  Wien \r\n"
    b"X-Empty:\r\n"
    b"\r\n"
    b"Hello\r\n"
)
NESTED = (
    b"Subject: outer\r\nContent-Type: multipart/mixed; boundary=foo\r\n\r\n"
    b"prologue\r\n--foo\r\nContent-Type: text/plain\r\n\r\nplain text\r\n"
    b"--foo\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    b"<b>bold=20words</b><!-- hidden -->\r\n"
    b"--foo\r\nContent-Type: message/rfc822\r\n\r\n"
    b"Subject: inner\r\nFrom: someone@example.org\r\n\r\ninner body\r\n"
    b"--foo\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\nc2VjcmV0\r\n"
    b"--foo--\r\nepilogue\r\n"
)


def test_values_are_unfolded_decoded_and_trimmed_in_the_order_of_the_header() -> None:
    header = Message(PLAIN).header
    assert header.values("subject") == ("Grüße aus  Wien",)
    assert header.values("received") == ("one", "two")
    assert header.values("from") == ("Jürgen <j@example.org>",)
    assert header.raw("from") == (b"=?utf-8?q?J=C3=BCrgen?= <j@example.org>",)
    assert header.folded("subject") == ("grüße aus  wien",)


def test_an_empty_field_is_there_and_a_missing_one_is_not() -> None:
    message = Message(PLAIN)
    assert message.header.exists("x-empty") and message.values("x-empty") == ("",)
    assert not message.header.exists("x-missing") and message.values("x-missing") == ()
    assert message.values("süß") == ()
    assert message.header.names() == ["received", "from", "to", "subject", "x-empty"]


def test_addresses_stand_by_field_and_what_is_none_matches_as_a_whole_only() -> None:
    first, second = Message(PLAIN).addresses("to")
    assert [address.full for address in second] == ["last@example.org"]
    assert [(address.full, address.local, address.domain) for address in first if address.valid] == [
        ("ann@example.org", "ann", "example.org"),
        ('"b c"@Example.COM', "b c", "Example.COM"),
    ]
    assert [address.full for address in first if not address.valid] == ["plain words", "x"]
    assert all(not address.local and not address.domain for address in first if not address.valid)


@pytest.mark.parametrize(
    ("octets", "subject", "body"),
    [
        (b"", (), ""),
        (b"\r\nSubject: no\r\n\r\nx", (), "Subject: no\r\n\r\nx"),
        (b"no header at all\r\nSubject: no\r\n\r\nx", (), "no header at all\r\nSubject: no\r\n\r\nx"),
        (b"Subject: yes", ("yes",), ""),
        (b"Subject: yes\n\nx\n", ("yes",), "x\n"),
        (b"From ann Mon Jan  1\nSubject: yes\n\nx\n", ("yes",), "x\n"),
        (b"garbage: is\x00fine\xff\r\nSubject: yes\r\n\r\n\xfc", ("yes",), "ü"),
    ],
)
def test_whatever_the_octets_header_and_body_part_where_the_parser_parts_them(
    octets: bytes, subject: tuple[str, ...], body: str
) -> None:
    parser = MessageParser()
    parser.feed(octets)
    for message in (Message(octets), Message(octets, root=parser.close().root)):
        assert message.values("subject") == subject
        assert message.body_raw() == body
        assert message.size == len(octets)


@given(st.one_of(st.binary(max_size=300), st.integers(0, 10 * len(SHAPES)).map(generate)))
@settings(max_examples=60, deadline=None)
def test_no_octets_raise_and_knowing_the_parts_changes_nothing(octets: bytes) -> None:
    parser = MessageParser()
    parser.feed(octets)
    known = Message(octets, root=parser.close().root)
    message = Message(octets)
    assert message.header.octets == known.header.octets
    for name in [*message.header.names(), "x"]:
        assert message.values(name) == known.values(name)
        message.addresses(name)
    assert message.body_raw() == known.body_raw()
    assert message.body_text() == known.body_text()
    assert message.body_content([""]) == known.body_content([""])
    assert message.edited(Edit("x", None)) is message or message.header.exists("x")


def test_content_is_decoded_by_type_and_wrappings_show_their_own_text_alone() -> None:
    message = Message(NESTED)
    assert message.body_content(["text/plain"]) == ("plain text", "inner body")
    assert message.body_content(["text"])[1] == "<b>bold words</b><!-- hidden -->"
    assert message.body_content(["application/octet-stream"]) == ("secret",)
    assert message.body_content(["multipart"]) == ("prologue", "epilogue\r\n")
    assert message.body_content(["message/rfc822"]) == ("Subject: inner\r\nFrom: someone@example.org\r\n\r\n",)
    assert len(message.body_content([""])) == 7
    for malformed in ("text/plain/x", "/", "text/", "/plain", "image"):
        assert message.body_content([malformed]) == ()


def test_text_is_what_a_reader_sees_of_text_parts() -> None:
    text = Message(NESTED).body_text()
    assert text.split("\r\n") == ["plain text", "bold words", "inner body"]


def test_parts_come_in_order_with_their_own_headers() -> None:
    parts = list(Message(NESTED).entity.walk())
    assert [part.part.content_type for part in parts] == [
        "multipart/mixed",
        "text/plain",
        "text/html",
        "message/rfc822",
        "text/plain",
        "application/octet-stream",
    ]
    assert [part.header.values("subject") for part in parts] == [("outer",), (), (), (), ("inner",), ()]


def test_a_message_may_be_its_first_octets_and_a_size() -> None:
    message = Message(NESTED[: NESTED.index(b" text\r\n--foo")], 50_000)
    assert message.size == 50_000
    assert message.values("subject") == ("outer",)
    assert message.body_text() == "plain"


def test_an_edit_makes_another_message_and_the_root_part_sees_it() -> None:
    message = Message(NESTED)
    edited = message.edited(Edit("X-New", "value")).edited(Edit("subject", None))
    assert edited.values("x-new") == ("value",) and edited.values("subject") == ()
    assert edited.entity.header.values("x-new") == ("value",)
    assert edited.body_text() == message.body_text()
    assert message.values("subject") == ("outer",) and message.values("x-new") == ()


def test_a_header_of_a_megabyte_and_ten_thousand_parts_are_bounded() -> None:
    huge = Message(b"Subject: x\r\n" + b"X-Many: value of some length\r\n" * 40_000 + b"Subject: late\r\n\r\nbody")
    wide = Message(
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n" * 10_500
    )
    deep = Message(
        b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(3000))
    )
    began = process_time()
    assert huge.values("subject") == ("x",), "the header is looked at to its first MiB"
    assert len(huge.values("x-many")) < 36_200
    assert len(list(wide.entity.walk())) == 10_001
    assert len(list(deep.entity.walk())) <= 102
    wide.body_content([""])
    assert process_time() - began < 3


# --- edits on octets


HEADER = b"Received: r\r\nSubject: one\r\nX-A: 1\r\nSubject: two\r\n folded\r\nX-A: 2\r\nX-A: 3\r\n\r\n"


def test_a_field_is_added_first_or_last_before_the_blank_line() -> None:
    assert edit_header(HEADER, [Edit("X-New", "v")]) == b"X-New: v\r\n" + HEADER
    assert edit_header(HEADER, [Edit("X-New", "v", last=True)]) == HEADER[:-2] + b"X-New: v\r\n\r\n"
    assert edit_header(b"", [Edit("X-New", "v", last=True)]) == b"X-New: v\r\n"
    assert edit_header(b"\r\n", [Edit("X-New", "v", last=True)]) == b"X-New: v\r\n\r\n"
    assert edit_header(b"A: b", [Edit("X-New", "v", last=True)]) == b"A: b\r\nX-New: v\r\n"
    assert edit_header(b"From ann\nA: b\n\n", [Edit("X-New", "v")]) == b"From ann\nX-New: v\r\nA: b\n\n"


def test_fields_are_deleted_all_by_number_from_either_end_or_by_value() -> None:
    def left(edit: Edit) -> tuple[bytes, ...]:
        return Message(edit_header(HEADER, [edit])).header.raw("x-a")

    assert left(Edit("x-a", None)) == ()
    assert left(Edit("X-A", None, nth=2)) == (b"1", b"3")
    assert left(Edit("X-A", None, nth=1, last=True)) == (b"1", b"2")
    assert left(Edit("X-A", None, nth=4)) == (b"1", b"2", b"3")
    assert left(Edit("X-A", None, matching=("1", "3"))) == (b"2",)
    assert edit_header(HEADER, [Edit("subject", None, matching=("two folded",))]) == HEADER.replace(
        b"Subject: two\r\n folded\r\n", b""
    )
    assert edit_header(HEADER, [Edit("x", None)]) == HEADER


def test_what_is_added_cannot_end_the_header_and_long_values_are_folded_at_spaces() -> None:
    added = edit_header(HEADER, [Edit("X-New", "a\r\n\r\nbody: x\x00y\n")]).removesuffix(HEADER)
    assert added == b"X-New: a  body: xy\r\n"
    value = "word " * 60 + "w" * 200 + " end"
    added = edit_header(b"\r\n", [Edit("X-New", value)])
    assert Message(added).values("x-new") == (value,)
    assert max(len(line) for line in added.split(b"\r\n") if b"ww" not in line) <= 78
    assert Message(edit_header(b"\r\n", [Edit("X-New", "ü" * 90)])).values("x-new") == ("ü" * 90,)


@given(st.text(max_size=200), st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_value_leaves_one_field_and_the_others_untouched(value: str, last: bool) -> None:
    edited = Message(edit_header(HEADER, [Edit("X-New", value, last=last)]) + b"body")
    assert len(edited.values("x-new")) == 1
    assert edited.values("x-a") == ("1", "2", "3") and edited.body_raw() == "body"


# --- what is quick says the same as what is thorough


@given(
    st.lists(
        st.sampled_from(
            ["a@b.c", "<a@b.c>", "Ann <A@b.C>", '"q, r" <x@y>', "a b@c", "x", ",", ", ", ";", ":", "(c)", " ", "<", ">", "@", "ü@b.c", ".", ".."]
        ),
        max_size=8,
    ).map("".join)
)
@settings(max_examples=150, deadline=None)
def test_addresses_of_the_plain_form_are_what_the_grammar_makes_of_them(value: str) -> None:
    octets = value.encode()
    expected = tuple(map(_address, mailboxes_of(parse_addresses(unfold(octets)))))
    message = Message(b"From: " + octets.replace(b"\n", b"") + b"\r\n\r\n")
    (found,) = message.addresses("from")
    assert found == expected
    for names in (frozenset(), frozenset({"from"})):
        header = Message(message.octets).header
        header.expect(names)
        fulls, locals, domains = header.folded_parts("from")
        assert [*fulls] == [fold(address.full) for address in expected]
        assert [*locals] == [fold(address.local) for address in expected if address.valid]
        assert [*domains] == [fold(address.domain) for address in expected if address.valid]


@given(st.integers(0, 10 * len(SHAPES)).map(generate), st.sets(st.sampled_from(["from", "to", "subject", "x-none", "date"])))
@settings(max_examples=60, deadline=None)
def test_a_header_read_for_some_names_says_the_same_of_all(octets: bytes, names: set[str]) -> None:
    plain, told = Message(octets).header, Message(octets).header
    told.expect(frozenset(names))
    for name in [*sorted(names), "received", "subject", "from"]:
        assert told.folded(name) == plain.folded(name)
        assert told.values(name) == plain.values(name)
        assert told.addresses(name) == plain.addresses(name)
        assert told.exists(name) == plain.exists(name)
    assert told.names() == plain.names()
