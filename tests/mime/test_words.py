"""Encoded words, charsets and raw 8-bit text in header fields (RFC 2047, RFC 6532)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted_mail.mime import decode_header
from twisted_mail.mime.charsets import decode, decode_unlabelled, python_codec


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        # RFC 2047 section 8
        (b"=?US-ASCII?Q?Keith_Moore?= <moore@cs.utk.edu>", "Keith Moore <moore@cs.utk.edu>"),
        (b"=?ISO-8859-1?Q?Keld_J=F8rn_Simonsen?= <keld@dkuug.dk>", "Keld Jørn Simonsen <keld@dkuug.dk>"),
        (b"=?ISO-8859-1?Q?Andr=E9?= Pirard <PIRARD@vm1.ulg.ac.be>", "André Pirard <PIRARD@vm1.ulg.ac.be>"),
        (b"=?ISO-8859-1?B?SWYgeW91IGNhbiByZWFkIHRoaXMgeW8=?=\r\n =?ISO-8859-2?B?dSB1bmRlcnN0YW5kIHRoZSBleGFtcGxlLg==?=",
         "If you can read this you understand the example."),
        (b"(=?ISO-8859-1?Q?a?=)", "(a)"),
        (b"(=?ISO-8859-1?Q?a?= b)", "(a b)"),
        (b"(=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=)", "(ab)"),
        (b"(=?ISO-8859-1?Q?a?=  =?ISO-8859-1?Q?b?=)", "(ab)"),
        (b"(=?ISO-8859-1?Q?a?=\r\n    =?ISO-8859-1?Q?b?=)", "(ab)"),
        (b"(=?ISO-8859-1?Q?a_b?=)", "(a b)"),
        (b"(=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=)", "(a b)"),
        # RFC 2231 section 5: a language
        (b"=?US-ASCII*EN?Q?Keith_Moore?=", "Keith Moore"),
        # a character cut between two words
        (b"=?utf-8?b?4pyT4p8=?= =?utf-8?b?kw==?=", "\u2713\u27d3"),
        (b"=?utf-8?q?=E2=9C?= =?UTF-8?q?=93?=", "\u2713"),
        # what senders really do
        (b"=?utf-8?q?with space in it?=", "with space in it"),
        (b"=?utf-8?Q?what??=", "what?"),
        (b"x=?utf-8?q?y?=z", "xyz"),
        (b"=?utf-8?B?w7xiZXI?=", "über"),
        (b"=?utf-8?B?w7xi=ZXI=?=", "über"),
        (b"=?x-unknown?q?gr=C3=BC=C3=9Fe?=", "grüße"),
        (b"=?no-such-charset?q?gr=FC=DFe?=", "grüße"),
        (b"=?utf-8?q?unfinished", "=?utf-8?q?unfinished"),
        (b"=?utf-8?x?abc?=", "=?utf-8?x?abc?="),
        (b"=?utf-7?q?+AGE-?=", "+AGE-"),
        (b"=?us-ascii?q?=C3=A4?=", "ä"),
        (b"=?utf-8?q?a=0D=0ABcc:_x?=", "aBcc: x"),  # no line of a header can be smuggled in
        # raw 8-bit text
        ("Grüße".encode(), "Grüße"),
        ("Grüße".encode("cp1252"), "Grüße"),
        (b"a\r\n b\r\n\tc", "a b c"),
        (b"", ""),
    ],
)  # fmt: skip
def test_text_of_a_field(raw: bytes, text: str) -> None:
    assert decode_header(raw) == text


@pytest.mark.parametrize(
    ("label", "codec"),
    [
        ("UTF-8", "utf-8"),
        ("utf8", "utf-8"),
        ('"utf-8"', "utf-8"),
        ("cp-1252", "cp1252"),
        ("windows1252", "cp1252"),
        ("x-cp1251", "cp1251"),
        ("iso88591", "iso8859-1"),
        ("iso8859-15", "iso8859-15"),
        ("ISO-8859-8-I", "iso8859-8"),
        ("gb2312", "gb18030"),
        ("x-sjis", "cp932"),
        ("ks_c_5601-1987", "cp949"),
        ("utf-7", None),
        ("unicode-1-1-utf-7", None),
        ("rot13", None),
        ("hex", None),
        ("zlib", None),
        ("idna", None),
        ("unicode_escape", None),
        ("", None),
        ("../../etc/passwd", None),
        ("x" * 100, None),
        ("\x00", None),
        ("ütf", None),
    ],
)
def test_charset_labels(label: str, codec: str | None) -> None:
    assert python_codec(label) == codec


@pytest.mark.parametrize(
    ("data", "label", "text"),
    [
        ("日本語".encode("iso2022_jp"), "iso-2022-jp", "日本語"),
        ("日本語".encode("cp932"), "x-sjis", "日本語"),
        ("中文".encode("gbk"), "gb2312", "中文"),
        ("€".encode("cp1252"), "iso-8859-1", "€"),
        ("Grüße".encode(), "us-ascii", "Grüße"),
        (b"\xff\xfe", "utf-8", "ÿþ"),
    ],
)
def test_octets_by_label(data: bytes, label: str, text: str) -> None:
    assert decode(data, label) == text


def test_utf8_that_was_cut_keeps_its_good_characters() -> None:
    assert decode_unlabelled("Größe und Maße".encode() + b"\xc3") == "Größe und Maße\ufffd"


@given(st.binary(max_size=200))
@settings(max_examples=150, deadline=None)
def test_no_octets_raise(raw: bytes) -> None:
    decode_header(raw)
    decode_header(b"=?" + raw + b"?q?" + raw + b"?=")


@given(st.binary(max_size=60), st.text(max_size=20))
@settings(max_examples=150, deadline=None)
def test_no_label_raises(data: bytes, label: str) -> None:
    assert isinstance(decode(data, label), str)
