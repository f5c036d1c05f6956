"""RFC 5173: what bodies are asked for."""

from __future__ import annotations

import pytest

from tests.sieve.scripts import files, holds, run
from twisted_mail.sieve import compile_script
from twisted_mail.sieve.values import Discard

SECTION_5_2 = b"""\
From: Whomever
To: Someone
Date: Whenever
Subject: whatever
Content-Type: multipart/mixed; boundary=outer

This is a multi-part message in MIME format.

--outer
Content-Type: multipart/alternative; boundary=inner

This is a nested multi-part message in MIME format.

--inner
Content-Type: text/plain; charset="us-ascii"

Hello

--inner
Content-Type: text/html; charset="us-ascii"

<html><body>Hello</body></html>

--inner--

This is the end of the inner MIME multipart.

--outer
Content-Type: message/rfc822

From: Someone Else
Subject: hello request

Please say Hello

--outer--

This is the end of the outer MIME multipart.
"""


@pytest.mark.parametrize(
    ("test", "true"),
    [
        (':content "multipart" :contains "MIME"', True),
        (':content "multipart" :contains "Hello"', False),
        (':content "multipart" :contains "end of the inner"', True),
        (':content "multipart" :contains "end of the outer"', True),
        (':content "multipart/alternative" :contains "nested"', True),
        (':content "multipart/alternative" :contains "end of the outer"', False),
        (':content "text/plain" :contains "Please say Hello"', True),
        (':content "text/plain" :contains "html"', False),
        (':content "text/html" :contains "<body>Hello"', True),
        (':content "text" :contains "Hello"', True),
        (':content "TEXT" :contains "Hello"', True),
        (':content "message/rfc822" :contains "Hello"', True),
        (':content "message/rfc822" :contains "Please"', False),
        (':content ["audio", "text/html"] :contains "Hello"', True),
        (':content "/html" :contains ""', False),
        (':content "text/" :contains ""', False),
        (':content "text/html/x" :contains ""', False),
        (':content "" :contains "Please say"', True),
        (':content "audio/mp3" :contains ""', False),
        (':content "multipart" :contains ""', True),
        (':raw :contains "Content-Type: text/html"', True),
        (':raw :contains "Subject: whatever"', False),
        (':raw :contains ":\\r\\nFrom: Someone Else"', False),
        (':contains "please say hello"', True),
        (':text :contains "Please say Hello"', True),
        (':text :contains "<body>"', False),
        (':raw :matches "*nested*inner*"', True),
    ],
)
def test_the_message_of_section_5_2(test: str, true: bool) -> None:
    assert holds(f"body {test}", SECTION_5_2, require="body") is true


def test_raw_of_section_5_1_and_text_of_5_3() -> None:
    text = 'require "body"; if body :raw :contains "MAKE MONEY FAST" { discard; }'
    assert run(text, b"Subject: x\n\nyou can\nmake money fast\n").actions == (Discard(),)
    assert run(text, b"Subject: MAKE MONEY FAST\n\nx").actions != (Discard(),)
    text = 'require ["body", "fileinto"]; if body :text :contains "project schedule" { fileinto "project/schedule"; }'
    assert files(run(text, b"\nThe Project Schedule\n")) == ["project/schedule"]


def test_transfer_encodings_are_undone_but_in_raw() -> None:
    octets = b"Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\nGr=FC=DFe\n"
    assert holds('body :contains "Grüße"', octets, require="body")
    assert holds('body :content "text" :contains "Grüße"', octets, require="body")
    assert not holds('body :raw :contains "Grüße"', octets, require="body")


def test_a_message_without_a_blank_line_has_no_body_not_even_an_empty_one() -> None:
    for kind in (":raw", ":text", ':content ""', ':content "text"'):
        assert not holds(f'body {kind} :contains ""', b"Subject: x\n", require="body")
        assert holds(f'body {kind} :contains ""', b"Subject: x\n\n", require="body")
    assert holds('body :raw :is ""', b"Subject: x\n\n", require="body")


def test_wildcards_of_bodies_are_not_remembered_and_variables_are_read() -> None:
    text = """require ["body", "variables", "fileinto"];
        set "k" "anvil"; set "t" "text";
        if header :matches "subject" "* *" { }
        if body :content "${t}" :matches "*${k}*" { fileinto "${1}"; }"""
    assert files(run(text, b"Subject: one two\n\nthe anvil thing\n")) == ["one"]


def test_only_body_tests_need_the_body() -> None:
    assert compile_script('require "body"; if body "x" { keep; }').needs_body
    assert not compile_script('require "fileinto"; if size :over 3 { fileinto "x"; }').needs_body
