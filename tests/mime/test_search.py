"""Folding, what is stored for search, and the preview (RFC 9051 section 6.4.4, RFC 5051, RFC 8970)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mime.reading import parse
from twisted_mail.mime import fold, match_body, match_header, match_text, part_text
from twisted_mail.mime.markup import html_text


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("HELLO", "hello"),
        ("Grüße", "GRÜSSE"),
        ("é", "e\u0301"),
        ("É", "e\u0301"),
        ("ﬁne", "FINE"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("a\u00a0b", "a b"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("①", "1"),
        ("ſ", "S"),
    ],
)
def test_what_is_the_same(text: str, same: str) -> None:
    assert fold(text) == fold(same)


def test_what_is_not_the_same() -> None:
    assert fold("e") != fold("é")
    assert fold("a  b") != fold("a b")
    assert fold("a b") != fold("a\nb")


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_folding_twice_changes_nothing(text: str) -> None:
    once = fold(text)
    assert fold(once.decode()) == once
    assert b"\x00" not in once and b"\r" not in once


@given(st.text(max_size=30), st.text(max_size=10), st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_an_ascii_needle_in_any_case_is_found(before: str, needle: str, after: str) -> None:
    needle = "".join(character for character in needle if "a" <= character <= "z") or "x"
    assert fold(needle.upper()) in fold(before + " " + needle + " " + after)


HEADER = (
    b"From: =?utf-8?q?J=C3=B6rg?= <Joerg@Example.DE>\r\nSubject: One\r\n two\r\nX-Empty:\r\nSubject: Third\r\n"
    b"X-Raw: Gr\xc3\xbc\xc3\x9fe\r\n\r\n"
)


@pytest.mark.parametrize(
    ("name", "needle", "found"),
    [
        ("from", "jörg", True),
        ("From", "joerg@example.de", True),
        ("FROM", "jörg <joerg", True),
        ("from", "one", False),
        ("subject", "one two", True),
        ("subject", "one  two", False),
        ("subject", "third", True),
        ("subject", "two third", False),
        ("subject", "one two\n", False),
        ("subject", "subject", False),
        ("subject", "", True),
        ("x-empty", "", True),
        ("x-empty", "x", False),
        ("cc", "", False),
        ("rom", "", False),
        ("x-raw", "GRÜSSE", True),
        ("", "", False),
        ("subject", ":", False),
        ("fro", "m:", False),
    ],
)
def test_searching_fields(name: str, needle: str, found: bool) -> None:
    assert match_header(parse(HEADER).search_header, name, fold(needle)) is found


def test_a_needle_in_a_name_and_a_value_of_one_line_is_found_in_the_value() -> None:
    header = parse(b"To: x\r\nX-Tag: tag\r\nTag: other\r\nTag: my tag\r\n\r\n").search_header
    assert match_header(header, "x-tag", b"tag")
    assert match_header(header, "tag", b"tag")
    assert not match_header(header, "to", b"tag")


NESTED = (
    b"Subject: outermost\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\npreamble\r\n"
    b"--b\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    b"Gr=FC=DFe aus K=F6ln=\r\n und Bonn\r\nnext  line\r\n"
    b"--b\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    b"PHN0eWxlPnguaGlkZGVuPC9zdHlsZT48cD53PGI+b3I8L2I+ZCAmYW1wOyA8YSBocmVmPSJzZWNyZXQiPmxpbms8L2E+PC9wPjxwPm1vcmU8L3A+\r\n"
    b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner =?utf-8?q?m=C3=A4il?=\r\n\r\ninner text\r\n"
    b'--b\r\nContent-Type: application/pdf; name="report.pdf"\r\n\r\nbinary words\r\n--b--\r\n'
)


@pytest.mark.parametrize(
    ("needle", "body", "text"),
    [
        ("grüße aus köln und bonn", True, True),
        ("bonn\r\nnext  line", True, True),
        ("next line", False, False),
        ("word & link", True, True),
        ("link\nmore", True, True),
        ("hidden", False, False),
        ("secret", False, False),
        ("subject:inner mäil", True, True),
        ("inner text", True, True),
        ("binary words", False, False),
        ("report.pdf", False, True),  # RFC 9051: TEXT looks into MIME headers, BODY does not
        ("outermost", False, True),
        ("preamble", False, False),
    ],
)
def test_searching_bodies_and_everything(needle: str, body: bool, text: bool) -> None:
    message = parse(NESTED)
    assert match_body(message.search_text, fold(needle)) is body
    assert match_text(message.search_header, message.search_text, fold(needle)) is text


def test_no_needle_reaches_from_one_part_into_the_next() -> None:
    message = parse(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--")
    assert message.search_text == b"one\n\x00\ntwo"
    assert not match_body(message.search_text, fold("one\ntwo"))
    nul = parse(b"Subject: x\r\n\r\none\x00two")
    assert nul.search_text == b"onetwo"


def test_an_attachment_is_found_by_its_decoded_name() -> None:
    message = parse(
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: image/png\r\n"
        b"Content-Disposition: attachment; filename*=utf-8''%C3%9Cbersicht.png\r\n\r\nx\r\n--b--"
    )
    assert match_text(message.search_header, message.search_text, fold("übersicht.PNG"))
    assert not match_body(message.search_text, fold("übersicht"))


def test_html_may_name_its_own_charset() -> None:
    html = b'<html><META http-equiv=x content="text/html; charset=koi8-r">' + "привет".encode("koi8-r")
    assert part_text(html, "html", "8bit", None) == "привет"
    assert part_text(html, "html", "8bit", "koi8-r") == "привет"


def test_text_of_an_unknown_encoding_is_no_text() -> None:
    assert part_text(b"abc", "plain", "x-odd", "utf-8") == ""


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>one</p><p>two", "one\ntwo"),
        ("a<br>b<BR/>c", "a\nb\nc"),
        ("a\n  b\t<i>c</i>", "a b c"),
        ("w<b>or</b>d", "word"),
        ("<td>1</td><td>2</td>", "1\n2"),
        ("a &lt;b&gt; &auml;&#228;&#xe4; &nbsp;c", "a <b> äää \xa0c"),
        ("&amp &copy &#8364 &#x80; &#0; &#xD800; &#1114112; &unknown; &x; &;", "& © € € \ufffd \ufffd \ufffd &unknown; &x; &;"),
        ("<!-- <p>no</p> -->yes", "yes"),
        ("<script>if (a<b) x()</script>yes<STYLE>p {}</STYLE >!", "yes !"),
        ("<script>never closed", ""),
        ("<!-- never closed", ""),
        ("<title>T</title>yes", "yes"),
        ("a < b > c", "a < b > c"),
        ("a<3 b", "a<3 b"),
        ("a<unclosed", "a"),
        ('<p class="x">y', "y"),
        ("<sx>a</sx>", "a"),
        ("", ""),
        ("no tags at  all", "no tags at all"),
    ],
)
def test_text_of_html(html: str, text: str) -> None:
    assert html_text(html) == text


def test_large_html_is_read_in_slices_without_a_seam() -> None:
    piece = "<p>some <b>bold</b> words and mo<i>re</i> of them</p> \n<div>line</div> "
    assert html_text(piece * 20_000) == "\n".join(["some bold words and more of them\nline"] * 20_000)


# --- preview


@pytest.mark.parametrize(
    ("octets", "preview"),
    [
        (b"\r\n  Hello \r\n\r\n\tworld  again\r\n", "Hello world again"),
        (b"Content-Type: text/html\r\n\r\n<h1>Title</h1><p>Some&nbsp;text", "Title Some text"),
        (b"\r\n" + b"word " * 100, ("word " * 40).strip()),
        (b"\r\n> quoted\r\n> more\r\nanswer\r\n-- \r\nsignature", "answer"),
        (b"\r\n> only quoted", "> only quoted"),
        (b"Content-Type: image/png\r\n\r\nxx", ""),
        (b"", ""),
        ("Content-Type: text/plain; charset=utf-8\r\n\r\n\u200b\u200bHi\ufeff!".encode(), "Hi!"),
    ],
)
def test_previews(octets: bytes, preview: str) -> None:
    assert parse(octets).preview == preview


def test_plain_text_is_preferred_and_attachments_come_last() -> None:
    html = b"--b\r\nContent-Type: text/html\r\n\r\n<p>from html</p>\r\n"
    plain = b"--b\r\nContent-Type: text/plain\r\n\r\nfrom plain\r\n"
    attached = b"--b\r\nContent-Type: text/plain\r\nContent-Disposition: attachment\r\n\r\nattached\r\n"
    inner = b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nforwarded\r\n"
    head = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    assert parse(head + html + plain + b"--b--").preview == "from plain"
    assert parse(head + attached + html + b"--b--").preview == "from html"
    assert parse(head + inner + attached + plain + b"--b--").preview == "from plain"
    assert parse(head + inner + b"--b--").preview == "forwarded"


# --- what else is kept of the header


def test_facts_for_lists_and_threads() -> None:
    message = parse(
        b"From: =?utf-8?q?J=C3=B6rg?= <j@example.de>\r\nDate: Fri, 21 Nov 1997 23:55:06 -0800\r\n"
        b"Message-ID: <3@x>\r\nReferences: <1@x>\r\n <2@x>\r\nIn-Reply-To: <2@x> (of Friday)\r\n"
        b"Subject: Re: [list] =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\n"
    )
    assert message.sender == "Jörg"
    assert (message.sent_days, message.sent) == (10186, 880185306)
    assert message.message_id == "3@x"
    assert message.references == ("1@x", "2@x")
    assert message.in_reply_to == ("2@x",)
    assert (message.subject, message.base_subject) == ("Re: [list] Grüße", "Grüße")
    empty = parse(b"\r\n")
    assert (empty.sent_days, empty.message_id, empty.references, empty.subject, empty.sender) == (None, None, (), "", "")
    assert parse(b"Sender: only@example.org\r\n\r\n").sender == "only@example.org"
