"""Content-Type, Content-Disposition and their parameters (RFC 2045 section 5.1, RFC 2183, RFC 2231)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted_mail.mime import parse_content_type, parse_structured


def content_type(raw: bytes) -> tuple[str, tuple[tuple[str, str], ...]]:
    structured = parse_content_type(raw)
    assert structured is not None
    return structured.value, structured.params


@pytest.mark.parametrize(
    ("raw", "value", "params"),
    [
        (b"text/plain; charset=us-ascii (Plain text)", "text/plain", (("charset", "us-ascii"),)),
        (b'text/plain; charset="us-ascii"', "text/plain", (("charset", "us-ascii"),)),
        (b"TEXT/Html;Charset=UTF-8;FORMAT=flowed", "text/html", (("charset", "UTF-8"), ("format", "flowed"))),
        (b"text/plain", "text/plain", ()),
        (b" text / plain ;", "text/plain", ()),
        (b"(a) text (b) / (c) plain (d); (e) a (f) = (g) b (h)", "text/plain", (("a", "b"),)),
        (b'x/y; a="q\\"uo\\\\ted; b=c"; d=e', "x/y", (("a", 'q"uo\\ted; b=c'), ("d", "e"))),
        # RFC 2231 section 3
        (b'message/external-body; access-type=URL;\r\n URL*0="ftp://";\r\n URL*1="cs.utk.edu/pub/moore/bulk-mailer.tar"',
         "message/external-body", (("access-type", "URL"), ("url", "ftp://cs.utk.edu/pub/moore/bulk-mailer.tar"))),
        # RFC 2231 section 4
        (b"application/x-stuff;\r\n title*=us-ascii'en-us'This%20is%20%2A%2A%2Afun%2A%2A%2A",
         "application/x-stuff", (("title", "This is ***fun***"),)),
        # RFC 2231 section 4.1
        (b"application/x-stuff;\r\n title*0*=us-ascii'en'This%20is%20even%20more%20;\r\n"
         b' title*1*=%2A%2A%2Afun%2A%2A%2A%20;\r\n title*2="isn\'t it!"',
         "application/x-stuff", (("title", "This is even more ***fun*** isn't it!"),)),
        # out of order, and with a gap
        (b"a/b; x*1=b; x*0=a; x*3=d", "a/b", (("x", "ab"),)),
        (b"a/b; x*10=k; x*9=j; x*8=i; x*7=h; x*6=g; x*5=f; x*4=e; x*3=d; x*2=c; x*1=b; x*0=a", "a/b", (("x", "abcdefghijk"),)),
        (b"a/b; x*1=b; x*2=c", "a/b", (("x", "bc"),)),
        # the extended form is the better of two
        (b"a/b; filename=\"fallback\"; filename*=utf-8''gr%C3%BC%C3%9Fe", "a/b", (("filename", "grüße"),)),
        (b"a/b; x*=utf-8''100%25%zz", "a/b", (("x", "100%%zz"),)),
        (b"a/b; x*=nothing", "a/b", (("x", "nothing"),)),
        (b"a/b; x*=iso-8859-1''gr%FC", "a/b", (("x", "grü"),)),
        # what senders do
        (b"a/b; name=My File.pdf", "a/b", (("name", "My File.pdf"),)),
        (b'a/b; name="=?utf-8?q?gr=C3=BC?="', "a/b", (("name", "grü"),)),
        (b'a/b; name="=?utf-8?q?gr=C3?=\r\n =?utf-8?q?=BC?="', "a/b", (("name", "grü"),)),
        (b'a/b; name="open', "a/b", (("name", "open"),)),
        ('a/b; name="grü"'.encode(), "a/b", (("name", "grü"),)),
        ('a/b; name="grü"'.encode("cp1252"), "a/b", (("name", "grü"),)),
        (b"a/b;;; x = y ;", "a/b", (("x", "y"),)),
        (b"a/b x=y", "a/b", (("x", "y"),)),
        (b"a/b; x", "a/b", ()),
        (b"a/b; =y", "a/b", ()),
        (b"a/b; x=1; x=2", "a/b", (("x", "1"),)),
        (b'a/b; x=""', "a/b", (("x", ""),)),
    ],
)  # fmt: skip
def test_content_types(raw: bytes, value: str, params: tuple[tuple[str, str], ...]) -> None:
    assert content_type(raw) == (value, params)


@pytest.mark.parametrize("raw", [b"", b"text", b"/", b"text/", b"/plain", b"a b/c", b";", b"(text/plain", b"te\xfft/plain", b"a/b/c"])
def test_a_malformed_type_is_no_type(raw: bytes) -> None:
    assert parse_content_type(raw) is None


def test_parameters_for_bodystructure_are_put_together_but_not_decoded() -> None:
    structured = parse_content_type(b"a/b; t*0*=us-ascii'en'This%20is; t*1=\" 100% fun\"; n*0=a; n*1=b; p=\"=?utf-8?q?x?=\"")
    assert structured is not None
    assert structured.raw == ((b"t*", b"us-ascii'en'This%20is 100%25 fun"), (b"n", b"ab"), (b"p", b"=?utf-8?q?x?="))
    assert structured.get("t") == "This is 100% fun"
    assert structured.get("none") is None


@pytest.mark.parametrize(
    ("raw", "value", "params"),
    [
        (b'attachment; filename="a.txt"', "attachment", (("filename", "a.txt"),)),
        (b"INLINE", "inline", ()),
        (b"attachment; filename=genome.jpeg;\r\n modification-date=\"Wed, 12 Feb 1997 16:29:51 -0500\"", "attachment",
         (("filename", "genome.jpeg"), ("modification-date", "Wed, 12 Feb 1997 16:29:51 -0500"))),
        (b'"attachment"', "attachment", ()),
        (b"filename=x", "filename=x", ()),
        (b"", "", ()),
    ],
)  # fmt: skip
def test_dispositions(raw: bytes, value: str, params: tuple[tuple[str, str], ...]) -> None:
    structured = parse_structured(raw)
    assert (structured.value, structured.params) == (value, params)


@given(st.lists(st.sampled_from([b"a/b", b";", b"x", b"*", b"0", b"1", b"=", b'"', b"\\", b"(", b")", b"'", b"%", b"C3", b"\xff", b" "]), max_size=40))
@settings(max_examples=300, deadline=None)
def test_no_octets_raise(pieces: list[bytes]) -> None:
    raw = b"".join(pieces)
    parse_content_type(raw)
    parse_content_type(b"a/b;" + raw)
    names = [name for name, _ in parse_structured(b"x;" + raw).params]
    assert len(names) == len(set(names))
