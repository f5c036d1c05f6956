"""Comparators (RFC 4790, RFC 5051), relational (RFC 5231), regular expressions, and what they cost."""

from __future__ import annotations

import re
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sieve.scripts import fails, files, holds, run
from twisted_mail.sieve.comparators import COMPARATORS, fold
from twisted_mail.sieve.patterns import glob, plain_glob, regex
from twisted_mail.sieve.values import Discard

NUMERIC = "relational comparator-i;ascii-numeric"


def x(value: str) -> bytes:
    return f"X: {value}\n\n".encode()


# --- match types (RFC 5228 section 2.7.1)


@pytest.mark.parametrize(
    ("kind", "key", "true"),
    [
        (":contains", "frob", True),
        (":contains", "nit", True),
        (":contains", "fbm", False),
        (":contains", "", True),
        (":is", "frobnitzm", True),
        (":is", "FROBNITZM", True),
        (":is", "frob", False),
        (":is", "", False),
        (":matches", "frob*", True),
        (":matches", "*tz?", True),
        (":matches", "frob", False),
    ],
)
def test_match_types(kind: str, key: str, true: bool) -> None:
    assert holds(f'header {kind} "x" "{key}"', x("frobnitzm")) is true
    before = f'set "k" "{key}";'
    assert holds(f'header {kind} "x" "${{k}}"', x("frobnitzm"), require="variables", before=before) is true


def test_octets_of_section_2_7_3() -> None:
    text = 'if header :contains :comparator "i;octet" "Subject" "MAKE MONEY FAST" { discard; }'
    assert run(text, b"Subject: You can MAKE MONEY FAST\n\n").actions == (Discard(),)
    assert run(text, b"Subject: You can Make Money Fast\n\n").actions != (Discard(),)


# --- comparators


def test_comparators_are_known_and_required() -> None:
    assert fails('if header :comparator "i;klingon" "a" "b" { }').column == 11
    assert 'require "comparator-i;ascii-numeric"' in fails('if header :comparator "i;ascii-numeric" "a" "b" { }').text
    assert holds('header :comparator "i;ascii-casemap" "x" "A"', x("a"))
    assert holds('header :comparator "i;octet" "x" "a"', x("a"), require="comparator-i;octet")


@pytest.mark.parametrize("kind", [":contains", ":matches", ":regex"])
def test_numbers_have_no_parts(kind: str) -> None:
    error = fails(
        f'require ["comparator-i;ascii-numeric", "regex"]; if header {kind} :comparator "i;ascii-numeric" "a" "b" {{ }}'
    )
    assert "whole numbers" in error.text


@pytest.mark.parametrize(
    ("value", "key", "true"),
    [
        ("1", "01", True),
        ("1", "1x", True),
        ("10", "9", False),
        ("x", "", True),  # neither is a number: both are infinite
        ("x", "99999999999999999999999999", False),
        ("0", "000", True),
    ],
)
def test_numbers_are_equal(value: str, key: str, true: bool) -> None:
    assert holds(f'header :comparator "i;ascii-numeric" "x" "{key}"', x(value), require=NUMERIC) is true


@pytest.mark.parametrize(
    ("value", "relation", "key", "true"),
    [
        ("10", "gt", "9", True),
        ("9", "lt", "10", True),
        ("9", "ge", "9", True),
        ("9", "ne", "9", False),
        ("9", "eq", "09", True),
        ("x", "gt", "18446744073709551616", True),
        ("18446744073709551617", "gt", "18446744073709551616", True),
        ("18446744073709551617", "le", "18446744073709551616", False),
    ],
)
def test_numbers_are_ordered(value: str, relation: str, key: str, true: bool) -> None:
    test = f'header :value "{relation}" :comparator "i;ascii-numeric" "x" "{key}"'
    assert holds(test, x(value), require=NUMERIC) is true


def test_ascii_casemap_orders_as_capitals() -> None:
    order = COMPARATORS["i;ascii-casemap"].order
    assert order("a") == order("A") < order("_") and order("z") < order("[")
    assert sorted(["b", "A", "C"], key=order) == ["A", "b", "C"]
    assert sorted(["b", "A", "C"], key=COMPARATORS["i;octet"].order) == ["A", "C", "b"]


@pytest.mark.parametrize(
    ("one", "other"),
    [("grüße", "GRÜßE"), ("é", "e\u0301"), ("Ω", "\u2126"), ("ǆ", "ǅ"), ("Σ", "σ")],
)
def test_unicode_casemap_takes_them_for_the_same(one: str, other: str) -> None:
    folded = COMPARATORS["i;unicode-casemap"].folded
    assert folded is not None and folded(one) == folded(other)
    test = f'string :comparator "i;unicode-casemap" "{one}" "{other}"'
    assert holds(test, require="variables comparator-i;unicode-casemap")


def test_unicode_casemap_keeps_apart_what_is_not_the_same() -> None:
    folded = COMPARATORS["i;unicode-casemap"].folded
    assert folded is not None and folded("ß") != folded("ss") and folded("a") != folded("ä") and folded("ﬁ") == "fi"


def test_a_star_that_only_looks_like_one_is_none() -> None:
    assert not holds(
        'string :matches :comparator "i;unicode-casemap" "abc" "a\uff0a"',
        require="variables comparator-i;unicode-casemap",
    )
    text = """require ["fileinto", "variables", "comparator-i;unicode-casemap"];
        if string :matches :comparator "i;unicode-casemap" "GRÜN und Blau" "grün * blau" { fileinto "${1}"; }"""
    assert files(run(text)) == ["UND"]  # a fold that moves offsets shows what was folded


# --- relational (RFC 5231)

SECTION_6 = (
    b"received: ...\nreceived: ...\nsubject: example\nto: foo@example.com, baz@example.com\ncc: qux@example.com\n\n"
)


@pytest.mark.parametrize(
    ("test", "true"),
    [
        ('address :count "ge" :comparator "i;ascii-numeric" ["to", "cc"] ["3"]', True),
        (
            'anyof ( address :count "ge" :comparator "i;ascii-numeric" ["to"] ["3"], '
            'address :count "ge" :comparator "i;ascii-numeric" ["cc"] ["3"] )',
            False,
        ),
        ('header :count "ge" :comparator "i;ascii-numeric" ["received"] ["3"]', False),
        ('header :count "ge" :comparator "i;ascii-numeric" ["received", "subject"] ["3"]', True),
        ('header :count "ge" :comparator "i;ascii-numeric" ["to", "cc"] ["3"]', False),
        ('header :count "eq" :comparator "i;ascii-numeric" "bcc" "0"', True),
        ('address :count "eq" :comparator "i;ascii-numeric" "bcc" "0"', True),
    ],
)
def test_counts_of_section_6(test: str, true: bool) -> None:
    assert holds(test, SECTION_6, require=NUMERIC) is true


EXTENDED = """require ["relational", "comparator-i;ascii-numeric", "fileinto"];
    if header :value "lt" :comparator "i;ascii-numeric" ["x-priority"] ["3"]
    {
        fileinto "Priority";
    }
    elsif address :count "gt" :comparator "i;ascii-numeric" ["to"] ["5"]
    {
        # everything with more than 5 recipients in the "to" field
        # is considered SPAM
        fileinto "SPAM";
    }
    elsif address :value "gt" :all :comparator "i;ascii-casemap" ["from"] ["M"]
    {
        fileinto "From N-Z";
    } else {
        fileinto "From A-M";
    }
    if allof ( address :count "eq" :comparator "i;ascii-numeric" ["to", "cc"] ["1"] ,
               address :all :comparator "i;ascii-casemap" ["to", "cc"] ["me@foo.example.com"] )
    {
        fileinto "Only me";
    }"""


@pytest.mark.parametrize(
    ("octets", "mailboxes"),
    [
        (b"X-Priority: 1 (high)\nTo: a@b, c@d\n\n", ["Priority"]),
        (b"X-Priority: 5\nTo: a@b, c@b, d@b, e@b, f@b, g@b\n\n", ["SPAM"]),
        (b"From: Someone <zoe@b>\nTo: me@foo.example.com\n\n", ["From N-Z", "Only me"]),
        (b"From: Zoe <anna@b>\n\n", ["From A-M"]),
    ],
)
def test_extended_example_of_section_7(octets: bytes, mailboxes: list[str]) -> None:
    assert files(run(EXTENDED, octets)) == mailboxes


def test_relations_are_six() -> None:
    error = fails('require "relational"; if header :value "about" "a" "b" { }')
    assert "gt, ge, lt, le, eq, ne" in error.text and error.column == 33
    assert 'require "relational"' in fails('if header :count "eq" "a" "b" { }').text
    assert holds('header :value "GT" "x" "a"', x("b"), require="relational")


def test_any_pair_does() -> None:
    assert holds('header :value "lt" ["x", "y"] ["b", "z"]', b"X: c\nY: d\n\n", require="relational")
    assert not holds('header :value "lt" ["x", "y"] ["b", "c"]', b"X: c\nY: d\n\n", require="relational")


# --- :regex


@pytest.mark.parametrize(
    ("pattern", "value", "true"),
    [
        ("^a+b?$", "AAB", True),
        ("b", "abc", True),
        ("^b", "abc", False),
        ("(one|two) (three)?", "xx two x", True),
        ("[[:digit:]]{3}", "a123", True),
        ("[[:digit:]]{3}", "a12", False),
        (r"\\$[0-9]+\\.", "costs $5.", True),
        ("^ü$", "Ü", True),
        (r"^\\w+\\s\\w+$", "two words", True),
        ("", "x", True),
    ],
)
def test_regular_expressions(pattern: str, value: str, true: bool) -> None:
    assert holds(f'header :regex "x" "{pattern}"', x(value), require="regex") is true


def test_the_ends_of_a_regular_expression_are_those_of_the_value_and_a_dot_is_any_character() -> None:
    octets = b"Subject: x\n\none\ntwo\nthree\n"
    assert not holds('body :raw :regex "^two"', octets, require="regex body")
    assert not holds('body :raw :regex "two$"', octets, require="regex body")
    assert holds('body :raw :regex "^one..two"', octets, require="regex body")


PIECES = st.sampled_from(
    ["a", "b", ".", "(a|b)", "[ab]", "[^a]", "a*", "b+", "^", "$", "(ab)?", "c{2}", "(a|ab)(c|bcd)*"]
)


@settings(max_examples=100, deadline=None)
@given(st.lists(PIECES, min_size=1, max_size=5).map("".join), st.text("abcdAB\n", max_size=8))
def test_regular_expressions_find_what_others_find(pattern: str, value: str) -> None:
    ours, _weight = regex(pattern, True)
    theirs = re.compile(re.sub(r"(?<!\[)\^", r"\\A", pattern).replace("$", r"\Z"), re.IGNORECASE | re.DOTALL)
    assert (ours(value) is not None) == (theirs.search(value) is not None)


def test_regular_expressions_of_octets_know_case() -> None:
    assert not holds('header :regex :comparator "i;octet" "x" "ABC"', x("abc"), require="regex")


def test_groups_are_match_variables_and_the_longest_alternative_wins() -> None:
    text = """require ["fileinto", "variables", "regex"];
        if header :regex "x" "\\\\[(a|ab|abc)(z?)\\\\] (.*) (x)?$" { fileinto "${0}|${1}|${2}|${3}|${4}|${5}"; }"""
    assert files(run(text, x("re: [ABC] Größe "))) == []
    assert files(run(text, x("re: [ABC] Größe drei"))) == []
    text = """require ["fileinto", "variables", "regex"];
        if header :regex "x" "\\\\[(a|ab|abc)(z?)\\\\] ([^ ]*)( x)?" { fileinto "${0}|${1}|${2}|${3}|${4}|${5}"; }"""
    assert files(run(text, x("re: [ABC] Größe drei"))) == ["[ABC] Größe|ABC||Größe||"]


@pytest.mark.parametrize("pattern", ["(", "[a", "a{2000}", "*", r"(a)\\1", "(?P<n>a)", "((a{100}){100}){100}"])
def test_what_is_no_regular_expression_is_found_when_the_script_is_compiled(pattern: str) -> None:
    error = fails(f'require "regex";\nif header :regex "x" "{pattern}" {{ }}')
    assert (error.line, error.column) == (2, 22)
    assert "regular expression" in error.text


def test_a_regular_expression_of_variables_fails_when_it_is_made() -> None:
    outcome = run('require ["regex", "variables"];\nset "a" "(";\nif header :regex "subject" "${a}" { discard; }')
    assert outcome.error is not None and outcome.error.line == 3
    assert run(
        'require ["regex", "variables"]; set "a" "pre+"; if header :regex "subject" "${a}" { discard; }'
    ).actions == (Discard(),)


@pytest.mark.parametrize("pattern", ["(a*)*b", "(a+)+$", "(a|a)*b", "(a|aa)+$", "^(.*a){20}b"])
def test_no_regular_expression_takes_for_ever(pattern: str) -> None:
    before = process_time()
    assert not holds(f'header :regex "x" "{pattern}"', x("a" * 30_000 + "!"), require="regex variables")
    assert process_time() - before < 2


@pytest.mark.parametrize("pattern", ["*a" * 500 + "b", "*?" * 500 + "b", "*" * 1000 + "b", "?*a" * 300 + "b"])
def test_no_glob_takes_for_ever(pattern: str) -> None:
    before = process_time()
    for require in ("", "variables"):
        assert not holds(f'header :matches "x" "{pattern}"', x("a" * 50_000 + "!"), require=require)
    assert process_time() - before < 2


# --- properties


@settings(max_examples=200, deadline=None)
@given(st.text("ab*?\\Ä", max_size=8), st.text("abA*?\\äÄ", max_size=8))
def test_globs_match_as_an_expression_that_says_the_same(pattern: str, value: str) -> None:
    taken = glob(pattern, fold)(value)
    assert plain_glob(pattern, fold)(fold(value)) is (taken is not None)
    assert (taken is not None) == naive(fold(pattern), fold(value))
    if taken is not None:
        assert taken[0] == value
        pieces = iter(taken[1:])
        rebuilt = "".join(next(pieces) if wild else text for wild, text in parts(pattern))
        assert fold(rebuilt) == fold(value)


def parts(pattern: str) -> list[tuple[bool, str]]:
    """(is it a wildcard, the character) for each of a pattern's."""
    found = []
    index = 0
    while index < len(pattern):
        if pattern[index] == "\\" and index + 1 < len(pattern):
            found.append((False, pattern[index + 1]))
            index += 2
            continue
        found.append((pattern[index] in "*?", pattern[index]))
        index += 1
    return found


def naive(pattern: str, value: str) -> bool:
    """By definition, for short patterns."""
    places = {0}
    for wild, text in parts(pattern):
        if wild and text == "*":
            places = set(range(min(places), len(value) + 1)) if places else set()
        else:
            places = {at + 1 for at in places if at < len(value) and (wild or value[at] == text)}
    return len(value) in places
