"""imap4flags (RFC 5232)."""

from __future__ import annotations

import pytest

from tests.sieve.scripts import A, fails, holds, run
from twisted_mail.sieve.values import FileInto, Keep

REQUIRE = 'require ["fileinto", "imap4flags", "variables", "relational", "comparator-i;ascii-numeric"];\n'


def flags(text: str, octets: bytes = A) -> set[str]:
    """Of the one mailbox, or of what is kept."""
    outcome = run(REQUIRE + text, octets)
    assert outcome.error is None, outcome.error
    (action,) = outcome.actions
    assert isinstance(action, FileInto | Keep)
    return {flag.lower() for flag in action.flags}


def test_the_extended_example_of_section_9() -> None:
    text = REQUIRE + r"""
        if size :over 1M {
            addflag "MyFlags" "Big";
            if header :is "From" "boss@company.example.com" { addflag "MyFlags" "\\Flagged"; }
            fileinto :flags "${MyFlags}" "Big messages";
        }
        if header :is "From" "grandma@example.net" {
            addflag "MyFlags" ["\\Answered", "$MDNSent"];
            fileinto :flags "${MyFlags}" "GrandMa";
        }
        if header :is "Sender" "owner-ietf-mta-filters@example.org" {
            set "MyFlags" "\\Flagged $Work";
            keep :flags "${MyFlags}";
        } elsif anyof (address :domain :is ["From", "To"] "company.example.com") {
            keep :flags "${MyFlags}";
        } elsif anyof (not address :all :contains ["To", "Cc"] "me@company.example.com",
                       header :matches "subject" ["*make*money*fast*", "*university*dipl*mas*"]) {
            removeflag "MyFlags" "\\Flagged";
            fileinto :flags "${MyFlags}" "spam";
        } else {
            fileinto :flags "${MyFlags}" "personal";
        }"""

    def done(octets: bytes) -> list[tuple[str, set[str]]]:
        return [
            (getattr(action, "mailbox", "keep"), set(action.flags))
            for action in run(text, octets).actions
            if isinstance(action, FileInto | Keep)
        ]

    big = b"x" * (1 << 20)
    boss = b"From: boss@company.example.com\n\n"
    assert done(boss + big) == [("Big messages", {"Big", "\\Flagged"}), ("keep", {"Big", "\\Flagged"})]
    assert done(b"From: grandma@example.net\nTo: me@company.example.com\n\nx") == [
        ("GrandMa", {"\\Answered", "$MDNSent"}),
        ("keep", {"\\Answered", "$MDNSent"}),
    ]
    assert done(b"Sender: owner-ietf-mta-filters@example.org\n\n") == [("keep", {"\\Flagged", "$Work"})]
    assert done(b"From: x@example.org\nSubject: MAKE some money fast\n\n") == [("spam", set())]


@pytest.mark.parametrize(
    "change",
    [
        r'addflag "flagvar" "\\Deleted"; addflag "flagvar" "\\Answered";',
        r'addflag "flagvar" ["\\Deleted", "\\Answered"];',
        r'addflag "flagvar" "\\Deleted \\Answered";',
        r'addflag "flagvar" "\\Answered   \\Deleted ";',
        r'addflag "flagvar" ["", "\\Answered \\answered", "\\Deleted"];',
    ],
)
def test_lists_of_section_3_2_are_the_same(change: str) -> None:
    assert flags(change + ' keep :flags "${flagvar}";') == {"\\deleted", "\\answered"}


def test_the_internal_variable_is_what_keeping_and_filing_use() -> None:
    assert flags(r'setflag ["\\Seen", "a b"];') == {"\\seen", "a", "b"}
    assert flags(r'setflag "a"; addflag "B"; removeflag ["A"]; fileinto "x";') == {"b"}
    assert flags(r'setflag "a"; keep :flags "c";') == {"c"}
    assert flags(r'setflag "a"; keep :flags "";') == set()
    assert flags(r'setflag "a"; setflag []; keep;'.replace("[]", '""')) == set()


def test_of_several_actions_each_has_the_flags_of_its_moment_and_of_one_twice_the_last_count() -> None:
    outcome = run(REQUIRE + 'setflag "a"; fileinto "x"; setflag "b"; fileinto "y"; fileinto :flags "c" "x";')
    assert outcome.actions == (FileInto("x", ("c",)), FileInto("y", ("b",)))


def test_what_no_client_could_set_is_left_out() -> None:
    assert flags(r'setflag ["\\Recent", "\\*", "\\Nonsense", "a(b", "ü", "ok"];') == {"ok"}


@pytest.mark.parametrize(
    ("test", "true"),
    [
        (r'hasflag :is "b A"', True),
        (r'hasflag ["b", "A"]', True),
        (r'hasflag "c"', False),
        (r'hasflag ""', False),
        (r'hasflag :contains "MyVar" "Junk"', True),
        (r'hasflag :contains "MyVar" "forward"', True),
        (r'hasflag :contains "MyVar" ["label", "forward"]', True),
        (r'hasflag :contains "MyVar" ["junk", "forward"]', True),
        (r'hasflag :contains "MyVar" "junk forward"', True),
        (r'hasflag :contains "MyVar" "forward junk"', True),
        (r'hasflag :contains "MyVar" "label"', False),
        (r'hasflag :contains "MyVar" ["label1", "label2"]', False),
        (r'hasflag :count "ge" :comparator "i;ascii-numeric" "MyFlags" "2"', True),
        (r'hasflag :count "ge" :comparator "i;ascii-numeric" "MyFlags" "3"', False),
        (r'hasflag :count "eq" :comparator "i;ascii-numeric" ["MyFlags", "MyVar", "none"] "10"', True),
        (r'hasflag :matches "MyVar" "$for*"', True),
        (r'hasflag ["none", "MyVar"] "gnus-forward"', True),
        (r'hasflag "MyVar" "${wanted}"', True),
        (r'hasflag "none" "a"', False),
    ],
)
def test_the_examples_of_section_4(test: str, true: bool) -> None:
    before = """setflag "A B"; set "MyFlags" "A B a"; set "wanted" "x junk";
        set "MyVar" "NonJunk Junk gnus-forward $Forwarded NotJunk JunkRecorded $Junk $NotJunk";"""
    assert holds(test, A, "imap4flags variables relational comparator-i;ascii-numeric", before) is true


def test_variables_need_their_extension() -> None:
    for text in ('setflag "v" "x";', 'if hasflag "v" "x" { keep; }'):
        assert '"variables"' in fails('require "imap4flags"; ' + text).text


def test_global_variables_hold_flags_too() -> None:
    scripts = {"flags": 'require ["include", "variables", "imap4flags"]; global "f"; addflag "f" "x";'}
    text = """require ["include", "variables", "imap4flags"];
        global "f"; addflag "f" "y"; include "flags"; if hasflag "global.f" "x" { keep :flags "${f}"; }"""
    assert run(text, scripts=scripts).actions == (Keep(("y", "x")),)


def test_flags_are_no_tag_without_the_extension() -> None:
    assert '"imap4flags"' in fails('keep :flags "x";').text
