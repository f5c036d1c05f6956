"""Modified UTF-7, INBOX, and LIST patterns."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted_mail.imap.names import Pattern, decode_name, encode_name, from_utf7, to_utf7


@pytest.mark.parametrize(
    ("name", "octets"),
    [
        # RFC 3501 section 5.1.3
        ("~peter/mail/台北/日本語", b"~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
        ("", b""),
        ("&", b"&-"),
        ("R&D", b"R&-D"),
        ("&&", b"&-&-"),
        ("ä&ö", b"&AOQ-&-&APY-"),
        ("&-", b"&--"),
        ("Entwürfe", b"Entw&APw-rfe"),
        ("😀", b"&2D3eAA-"),
        ("a\tb", b"a&AAk-b"),
        ("\x7f", b"&AH8-"),
        ("\0", b"&AAA-"),
        ("INBOX", b"INBOX"),
    ],
)
def test_modified_utf7(name: str, octets: bytes) -> None:
    assert to_utf7(name) == octets
    assert from_utf7(octets) == name


@pytest.mark.parametrize(
    "octets",
    [
        b"&",
        b"&AOQ",  # not ended
        b"&A-",  # no whole octets
        b"&AA-",  # half a character
        b"&AOR-",  # bits left over
        b"&AOQA-",
        b"&AOQ=-",
        b"&AO/-",  # "/" is no letter of this base64
        b"&AO.-",
        b"&2D0-",  # half of a surrogate pair
        b"&3gA-",
        b"&AGE-",  # "a" must stand for itself
        b"&ACY-",  # "&" is "&-"
        b"&AOQ-&APY-",  # two shifts in a row, RFC 3501's "superfluous shift"
        b"\xc3\xa4",
        b"\x00",
        b"a\x1fb",
        b"\x7f",
        b"a\r\nb",
    ],
)
def test_bad_modified_utf7_is_refused(octets: bytes) -> None:
    with pytest.raises(ValueError):
        from_utf7(octets)


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("&-,ä/😀"), max_size=30))
def test_names_round_trip(name: str) -> None:
    assert from_utf7(to_utf7(name)) == name
    assert encode_name(name, utf8=True).decode() == name


@settings(max_examples=300, deadline=None)
@given(st.text("&-,AOQab+/=", max_size=12).map(str.encode) | st.binary(max_size=12))
def test_each_name_has_one_spelling(octets: bytes) -> None:
    try:
        name = from_utf7(octets)
    except ValueError:
        return
    assert to_utf7(name) == octets


def test_inbox_is_the_same_in_any_case() -> None:
    for utf8 in (False, True):
        assert decode_name(b"iNbOx", utf8=utf8) == "INBOX"
        assert decode_name(b"inbox/x", utf8=utf8) == "inbox/x"
    assert decode_name("ınbox".encode(), utf8=True) != "INBOX"
    assert decode_name(b"Entw\xc3\xbcrfe", utf8=True) == "Entwürfe"
    assert decode_name(b"&AOQ-", utf8=True) == "&AOQ-"
    with pytest.raises(ValueError):
        decode_name(b"\xff", utf8=True)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*", ["a", "a/b", "INBOX", ""], []),
        ("%", ["a", "INBOX", ""], ["a/b", "/"]),
        ("%/%", ["a/b", "INBOX/x"], ["a", "a/b/c"]),
        ("a/*", ["a/b", "a/b/c", "a/"], ["a", "ab"]),
        ("a*c", ["ac", "a/b/c"], ["acb"]),
        ("*%", ["a/b/c"], []),
        ("%*", ["a/b/c"], []),
        ("%%", ["abc"], ["a/b"]),
        ("", [""], ["a"]),
        ("a.b", ["a.b"], ["axb"]),
        ("a\n%", ["a\nb\nc"], []),
        ("inbox", ["INBOX"], ["inbox/x"]),
        ("InBoX/%", ["INBOX/x"], ["INBOX"]),
        ("inb%", ["INBOX"], ["Inbred"]),
        ("i*", ["INBOX", "INBOX/x", "items"], []),
        ("%x", ["x"], ["INBOX"]),
        ("*a*b*c*", ["abc", "xaxbxcx", "a/b/c"], ["acb", "ab"]),
        ("%a%b%c%", ["abc", "xaxbxcx"], ["a/bc", "acb"]),
        ("a%/%b*/c", ["ax/yb/c", "a/b/x/c"], ["a/c", "a/x/b/d"]),
    ],
)
def test_patterns(pattern: str, yes: list[str], no: list[str]) -> None:
    matches = Pattern(pattern, "/").matches
    assert [name for name in yes if not matches(name)] == []
    assert [name for name in no if matches(name)] == []


def test_the_separator_may_be_another_or_none() -> None:
    assert Pattern("a.%", ".").matches("a.b/c") and not Pattern("a.%", ".").matches("a.b.c")
    assert Pattern("%", "").matches("a/b.c")


@settings(max_examples=400, deadline=None)
@given(pattern=st.text("ab/*%", max_size=10), name=st.text("ab/", max_size=10))
def test_patterns_agree_with_a_regular_expression(pattern: str, name: str) -> None:
    regex = "".join({"*": ".*", "%": "[^/]*"}.get(character, re.escape(character)) for character in pattern)
    assert Pattern(pattern).matches(name) is (re.fullmatch(regex, name) is not None)


@pytest.mark.parametrize("pattern", ["*a" * 200, "%a" * 200, "*%" * 500 + "b", "%*a" * 200 + "b", "a*" * 400 + "/"])
def test_many_wildcards_cost_no_more_than_their_number(pattern: str) -> None:
    name = "a" * 1000
    started = time.process_time()
    Pattern(pattern).matches(name)
    assert time.process_time() - started < 2
