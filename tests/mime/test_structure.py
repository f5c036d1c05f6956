"""ENVELOPE and BODYSTRUCTURE: known answers (RFC 3501 sections 7.4.2 and 8, RFC 9051 section 7.5.2)."""

from __future__ import annotations

import pytest

from tests.mime.reading import assert_sound, parse, read_values
from twisted_mail.mime import string


def crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


RFC3501 = crlf(
    """Date: Wed, 17 Jul 1996 02:23:25 -0700 (PDT)
From: Terry Gray <gray@cac.washington.edu>
Subject: IMAP4rev1 WG mtg summary and minutes
To: imap@cac.washington.edu
cc: minutes@CNRI.Reston.VA.US, John Klensin <KLENSIN@MIT.EDU>
Message-Id: <B27397-0100000@cac.washington.edu>
MIME-Version: 1.0
Content-Type: TEXT/PLAIN; CHARSET=US-ASCII

"""
)


def test_the_envelope_of_the_rfc() -> None:
    """RFC 3501 section 8: FETCH 12 FULL."""
    body = b"x" * 32 + b"\r\n"
    message = parse(RFC3501 + body * 90 + b"y" * 22 + b"\r\n" * 2)
    assert message.envelope == (
        b'("Wed, 17 Jul 1996 02:23:25 -0700 (PDT)" "IMAP4rev1 WG mtg summary and minutes" '
        b'(("Terry Gray" NIL "gray" "cac.washington.edu")) (("Terry Gray" NIL "gray" "cac.washington.edu")) '
        b'(("Terry Gray" NIL "gray" "cac.washington.edu")) ((NIL NIL "imap" "cac.washington.edu")) '
        b'((NIL NIL "minutes" "CNRI.Reston.VA.US")("John Klensin" NIL "KLENSIN" "MIT.EDU")) NIL NIL '
        b'"<B27397-0100000@cac.washington.edu>")'
    )
    assert message.body == b'("text" "plain" ("charset" "US-ASCII") NIL NIL "7bit" 3086 92)'


def test_the_structure_of_the_rfc() -> None:
    """RFC 3501 section 7.4.2: two texts, the second with a name, an id and a description."""
    message = parse(
        crlf(
            """Content-Type: multipart/mixed; boundary=b

--b
Content-Type: TEXT/PLAIN; CHARSET=US-ASCII

one
two
--b
Content-Type: TEXT/PLAIN; CHARSET=US-ASCII; NAME="cc.diff"
Content-ID: <960723163407.20117h@cac.washington.edu>
Content-Description: Compiler diff
Content-Transfer-Encoding: BASE64

TUlN
RQ==

--b--
"""
        )
    )
    assert message.body == (
        b'(("text" "plain" ("charset" "US-ASCII") NIL NIL "7bit" 8 1)'
        b'("text" "plain" ("charset" "US-ASCII" "name" "cc.diff") "<960723163407.20117h@cac.washington.edu>" '
        b'"Compiler diff" "base64" 12 2) "mixed")'
    )
    assert message.bodystructure == (
        b'(("text" "plain" ("charset" "US-ASCII") NIL NIL "7bit" 8 1 NIL NIL NIL NIL)'
        b'("text" "plain" ("charset" "US-ASCII" "name" "cc.diff") "<960723163407.20117h@cac.washington.edu>" '
        b'"Compiler diff" "base64" 12 2 NIL NIL NIL NIL) "mixed" ("boundary" "b") NIL NIL NIL)'
    )


def test_every_extension_field() -> None:
    message = parse(
        crlf(
            """Content-Type: image/png; name=x.png
Content-Transfer-Encoding: base64
Content-MD5: Q2hlY2sgSW50ZWdyaXR5IQ==
Content-Disposition: Attachment; filename="a b.png"; size=3
Content-Language: en, mi (Maori)
Content-Location: http://example.org/
 x.png

AAAA
"""
        )
    )
    assert message.bodystructure == (
        b'("image" "png" ("name" "x.png") NIL NIL "base64" 6 "Q2hlY2sgSW50ZWdyaXR5IQ==" '
        b'("attachment" ("filename" "a b.png" "size" "3")) ("en" "mi") "http://example.org/x.png")'
    )
    root = message.root
    assert root.disposition == ("attachment", (("filename", "a b.png"), ("size", "3")))
    assert root.language == ("en", "mi")
    assert root.location == "http://example.org/x.png"
    assert root.md5 == "Q2hlY2sgSW50ZWdyaXR5IQ=="
    assert root.filename == "a b.png"


def test_one_language_is_a_string_and_a_disposition_may_have_no_parameters() -> None:
    message = parse(b"Content-Language: de\r\nContent-Disposition: inline\r\n\r\nx")
    assert message.bodystructure.endswith(b'NIL ("inline" NIL) "de" NIL)')


def test_an_embedded_message_has_its_envelope_structure_and_lines() -> None:
    message = parse(
        crlf(
            """Content-Type: message/rfc822

Subject: inner
From: a@b

hello
world
"""
        )
    )
    assert message.body == (
        b'("message" "rfc822" NIL NIL NIL "7bit" 43 (NIL "inner" ((NIL NIL "a" "b")) ((NIL NIL "a" "b")) '
        b'((NIL NIL "a" "b")) NIL NIL NIL NIL NIL) ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 14 2) 5)'
    )


def test_message_global_is_embedded_like_rfc822() -> None:
    message = parse("Content-Type: message/global\r\nContent-Transfer-Encoding: 8bit\r\n\r\nSubject: ü\r\n\r\nx".encode())
    assert message.root.message is not None
    assert '(NIL {2}\r\nü NIL'.encode() in message.bodystructure


def test_sender_and_reply_to_default_to_from() -> None:
    (envelope,) = read_values(parse(b"From: a@b\r\nSender:\r\nReply-To: c@d\r\nTo:\r\n\r\n").envelope)
    assert envelope == [
        None, None, [[None, None, b"a", b"b"]], [[None, None, b"a", b"b"]], [[None, None, b"c", b"d"]],
        None, None, None, None, None,
    ]  # fmt: skip


def test_empty_fields_are_empty_and_missing_ones_nil() -> None:
    """RFC 9051 section 7.5.2: of Date, Subject, In-Reply-To and Message-ID."""
    assert parse(b"Date:\r\nSubject:  \r\nIn-Reply-To:\r\nMessage-ID:\r\n\r\n").envelope == (
        b'("" "" NIL NIL NIL NIL NIL NIL "" "")'
    )


def test_groups_begin_and_end_without_a_host() -> None:
    message = parse(b'To: "My Group": Joe <joe@a>, <@r:b@c>;, last@d\r\nCc: undisclosed-recipients:;\r\n\r\n')
    (envelope,) = read_values(message.envelope)
    assert isinstance(envelope, list)
    assert envelope[5] == [
        [None, None, b"My Group", None], [b"Joe", None, b"joe", b"a"], [None, b"@r", b"b", b"c"], [None] * 4,
        [None, None, b"last", b"d"],
    ]  # fmt: skip
    assert envelope[6] == [[None, None, b"undisclosed-recipients", None], [None] * 4]


def test_an_address_without_a_host_does_not_look_like_a_group() -> None:
    (envelope,) = read_values(parse(b"From: root\r\nTo: <>\r\n\r\n").envelope)
    assert isinstance(envelope, list)
    assert envelope[2] == [[None, None, b"root", b""]]
    assert envelope[5] == [[None, None, b"", b""]]


def test_encoded_words_stay_encoded_and_folds_are_undone() -> None:
    message = parse(b"Subject: =?utf-8?q?=C3=BC?=\r\n =?utf-8?q?=C3=A4?=\r\nFrom: =?utf-8?q?J=C3=B6rg?= <j@d>\r\n\r\n")
    assert b'"=?utf-8?q?=C3=BC?= =?utf-8?q?=C3=A4?="' in message.envelope
    assert b'(("=?utf-8?q?J=C3=B6rg?=" NIL "j" "d"))' in message.envelope
    assert message.subject == "üä"
    assert message.sender == "Jörg"


def test_a_repeated_field_counts_once_but_addresses_are_all_taken() -> None:
    message = parse(b"Subject: one\r\nTo: a@b\r\nSubject: two\r\nTo: c@d\r\nDate: x\r\nDate: y\r\n\r\n")
    (envelope,) = read_values(message.envelope)
    assert isinstance(envelope, list)
    assert envelope[:2] == [b"x", b"one"]
    assert envelope[5] == [[None, None, b"a", b"b"], [None, None, b"c", b"d"]]


@pytest.mark.parametrize(
    ("value", "rendered"),
    [
        (b"", b'""'),
        (b"a b", b'"a b"'),
        (b'a"b\\c', b'"a\\"b\\\\c"'),
        (b"tab\tbell\x07", b'"tab\tbell\x07"'),
        (b"a\r\nb", b"{4}\r\na\r\nb"),
        ("ü".encode(), "{2}\r\nü".encode()),
        (b"a\x00b", b'"ab"'),
        (b"\xff\x00\xfe", b"{2}\r\n\xff\xfe"),
        (b"x" * 1001, b"{1001}\r\n" + b"x" * 1001),
    ],
)
def test_strings(value: bytes, rendered: bytes) -> None:
    assert string(value) == rendered


@pytest.mark.parametrize(
    ("header", "structure"),
    [
        # RFC 2045 section 5.2
        (b"", b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 3 0)'),
        (b"Content-Type: nonsense\r\n", b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 3 0)'),
        (b"Content-Type: text\r\n", b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 3 0)'),
        (b"Content-Type:\r\n", b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 3 0)'),
        (b"Content-Type: x-own/thing\r\n", b'("x-own" "thing" NIL NIL NIL "7bit" 3)'),
        (b"Content-Type: multipart/mixed\r\n", b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 3 0)'),
        (b"Content-Type: text/html\r\nContent-Transfer-Encoding:\r\n", b'("text" "html" NIL NIL NIL "7bit" 3 0)'),
        (b"Content-Transfer-Encoding: (c) Base64 ;x\r\n", b'("text" "plain" ("charset" "us-ascii") NIL NIL "base64" 3 0)'),
        (b"Content-Transfer-Encoding: x-odd\r\n", b'("text" "plain" ("charset" "us-ascii") NIL NIL "x-odd" 3 0)'),
        # RFC 2046 section 5.2.1 forbids it: a leaf, whose structure is valid all the same
        (b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n",
         b'("message" "rfc822" NIL NIL NIL "base64" 3 (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) '
         b'("text" "plain" NIL NIL NIL "7bit" 0 0) 0)'),
        (b"Content-Type: message/delivery-status\r\n", b'("message" "delivery-status" NIL NIL NIL "7bit" 3)'),
        (b"Content-Type: a/b; n*=utf-8''%C3%BC\r\n", b'("a" "b" ("n*" "utf-8\'\'%C3%BC") NIL NIL "7bit" 3)'),
        ("Content-Type: a/b; n=ü\r\n".encode(), '("a" "b" ("n" {2}\r\nü) NIL NIL "7bit" 3)'.encode()),
    ],
)  # fmt: skip
def test_defaults_and_odd_types(header: bytes, structure: bytes) -> None:
    octets = header + b"\r\nabc"
    message = parse(octets)
    assert message.body == structure
    assert_sound(octets, message)


def test_a_digest_holds_messages_by_default() -> None:
    message = parse(
        b"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: one\r\n\r\n1\r\n"
        b"--b\r\nContent-Type: text/html\r\n\r\n2\r\n--b--"
    )
    first, second = message.root.parts
    assert first.content_type == "message/rfc822" and first.message is not None
    assert second.content_type == "text/html"


def test_a_multipart_without_parts_has_an_empty_one() -> None:
    message = parse(b"Content-Type: multipart/mixed; boundary=b\r\n\r\nno delimiter here\r\n")
    assert message.body == b'(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0) "mixed")'


def test_a_multipart_is_never_encoded_as_a_whole() -> None:
    octets = b"Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: base64\r\n\r\n--b\r\n\r\nx\r\n--b--"
    message = parse(octets)
    assert message.root.encoding == "7bit"
    assert len(message.root.parts) == 1
