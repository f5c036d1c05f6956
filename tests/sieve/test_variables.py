"""RFC 5229: what strings become, what wildcards took, what set makes of a value."""

from __future__ import annotations

import pytest

from tests.sieve.scripts import fails, files, holds, run
from twisted_mail.sieve import RunLimits
from twisted_mail.sieve.values import FileInto, Keep

SET = 'set "company" "ACME"; set "foo" "bar"; set "dollar" "$";'


def expanded(written: str) -> list[str]:
    return files(run(f'require ["fileinto", "variables"]; {SET} fileinto "<{written}>";'))


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("&%${}!", "&%${}!"),
        ("${doh!}", "${doh!}"),
        ("${full}", ""),
        ("${company}", "ACME"),
        ("${COMPANY}", "ACME"),
        ("${BAD${Company}", "${BADACME"),
        ("${President, ${Company} Inc.}", "${President, ACME Inc.}"),
        (r"${fo\o}", "bar"),
        (r"${fo\\o}", r"${fo\o}"),
        (r"\${foo}", "bar"),
        (r"\\${foo}", r"\bar"),
        ("regarding ${dollar}{beep}", "regarding ${beep}"),
        ("$${foo}${foo}$", "$barbar$"),
        ("${1}", ""),
    ],
)
def test_references(written: str, value: str) -> None:
    assert expanded(written) == [f"<{value}>"]


def test_encoded_characters_come_before_variables() -> None:
    text = """require ["encoded-character", "variables"];
        set "name" "Ethelbert";
        if header :contains "Subject" "dear${hex:20 24 7b 4e}ame}" { discard; }"""
    assert run(text, b"Subject: my dear Ethelbert!\n\n").actions != (Keep(),)


def test_without_require_a_reference_is_text() -> None:
    assert files(run('require "fileinto"; fileinto "${x}";')) == ["${x}"]


def test_a_namespace_that_there_is_not_is_an_error() -> None:
    error = fails('require ["fileinto", "variables"];\nfileinto "${no.such}";')
    assert (error.line, error.column) == (2, 10)
    assert fails('require ["fileinto", "variables"];\nfileinto "${global.x}";').line == 2


# --- match variables


def test_lists_of_section_3_2() -> None:
    text = """require ["fileinto", "variables"];
        if header :matches "List-ID" "*<*@*" {
            fileinto "INBOX.lists.${2}"; stop;
        }
        if header :matches "Subject" "[*] *" {
            fileinto "INBOX.lists.${1}/${2}"; stop;
        }
        if address :matches ["To", "Cc"] ["coyote@**.com", "wile@**.com"] {
            fileinto "INBOX.business.${2}/${1}/${0}"; stop;
        } else {
            fileinto "${0}none${1}";
        }"""
    assert files(run(text, b"List-Id: Friends <friends@example.org>\n\n")) == ["INBOX.lists.friends"]
    octets = b"Subject: [acme-users] [fwd] version 1.0 is out\n\n"
    assert files(run(text, octets)) == ["INBOX.lists.acme-users/[fwd] version 1.0 is out"]
    assert files(run(text, b"To: coyote@ACME.Example.COM\n\n")) == [
        "INBOX.business.ACME.Example//coyote@ACME.Example.COM"
    ]
    assert files(run(text, b"To: x@y\n\n")) == ["none"]


def test_tests_behind_the_first_true_one_are_not_looked_at() -> None:
    text = """require ["fileinto", "variables"];
        if anyof (true, address :domain :matches "To" "*.com") { fileinto "<${1}>"; }"""
    assert files(run(text, b"To: x@example.com\n\n")) == ["<>"]


def test_a_match_that_fails_changes_nothing() -> None:
    text = """require ["fileinto", "variables"];
        if header :matches "subject" "* *" { }
        if header :matches "subject" "x*" { }
        if header :is "subject" "one two" { }
        fileinto "${1}-${02}-${3}";"""
    assert files(run(text, b"Subject: one two\n\n")) == ["one-two-"]


@pytest.mark.parametrize(
    ("pattern", "value", "taken"),
    [
        ("*", "abc", ("abc", "abc")),
        ("?b?", "abc", ("abc", "a", "c")),
        ("*b*", "abcbd", ("abcbd", "a", "cbd")),
        ("**", "abc", ("abc", "", "abc")),
        ("*a*a*", "banana", ("banana", "b", "n", "na")),
        ("a*c", "ABC", ("ABC", "B")),
        ("*?", "ab", ("ab", "a", "b")),
        ("?*", "ab", ("ab", "a", "b")),
        ("*??c", "abxc", ("abxc", "a", "b", "x")),
        (r"\\**", "*x", ("*x", "x")),
        (r"a\\?c", "a?c", ("a?c",)),
        (r"\\\\*", r"\\x", (r"\x", "x")),
        ("*.?", "a.b.c", ("a.b.c", "a.b", "c")),
        ("x*", "xÜy", ("xÜy", "Üy")),
    ],
)
def test_wildcards_take_as_little_as_they_can(pattern: str, value: str, taken: tuple[str, ...]) -> None:
    names = "|".join(f"${{{number}}}" for number in range(len(taken)))
    text = f'require ["fileinto", "variables"]; if string :matches "{value}" "{pattern}" {{ fileinto "{names}|${{{len(taken)}}}"; }}'
    assert files(run(text)) == ["|".join(taken) + "|"]


@pytest.mark.parametrize(
    ("pattern", "value"),
    [("a*a", "a"), ("a?", "a"), ("?", ""), ("*ab", "abx"), ("ab*ba", "aba"), ("", "x"), (r"\\*", "x"), ("*a?c*", "ac")],
)
def test_patterns_that_do_not_match(pattern: str, value: str) -> None:
    assert not holds(f'string :matches "{value}" "{pattern}"', require="variables")
    assert not holds(f'header :matches "x" "{pattern}"', f"X: {value}\n\n".encode())


@pytest.mark.parametrize(
    "pattern", ["", "*", "a*", "*c", "a*c", "*b*", "a?c", "?*", "*a*b*c*", "abc", r"a\\bc", "*abc", "abc*", "*a*c"]
)
def test_patterns_match_with_variables_and_without(pattern: str) -> None:
    for value in ("abc", "", "xabcx", "ABC"):
        without = holds(f'header :matches "x" "{pattern}"', f"X: {value}\n\n".encode())
        within = holds(f'header :matches "x" "{pattern}"', f"X: {value}\n\n".encode(), require="variables")
        assert without == within


# --- set


@pytest.mark.parametrize(
    ("modifiers", "value", "made"),
    [
        ("", "juMBlEd lETteRS", "juMBlEd lETteRS"),
        (":length", "juMBlEd lETteRS", "15"),
        (":lower", "juMBlEd lETteRS", "jumbled letters"),
        (":upperfirst", "juMBlEd lETteRS", "JuMBlEd lETteRS"),
        (":upperfirst :lower", "juMBlEd lETteRS", "Jumbled letters"),
        (":lower :upperfirst", "juMBlEd lETteRS", "Jumbled letters"),
        (":quotewildcard", "Rock*", r"Rock\*"),
        (":quotewildcard", r"a?b\\", r"a\?b\\"),
        (":quotewildcard :length", "Rock*", "6"),
        (":length", "Grüße", "5"),
        (":upper", "Grüße", "GRüßE"),
        (":lowerfirst", "ABC", "aBC"),
        (":lowerfirst :upper", "abc", "aBC"),
        (":lowerfirst", "", ""),
        (":length", "", "0"),
    ],
)
def test_modifiers(modifiers: str, value: str, made: str) -> None:
    text = f'require ["fileinto", "variables"]; set "a" "{value}"; set {modifiers} "b" "${{a}}"; fileinto "<${{b}}>";'
    assert files(run(text)) == [f"<{made}>"]
    text = f'require ["fileinto", "variables"]; set {modifiers} "b" "{value}"; fileinto "<${{b}}>";'
    assert files(run(text)) == [f"<{made}>"]


def test_quoteregex_needs_regex() -> None:
    text = 'require ["fileinto", "variables", "regex"]; set :quoteregex "b" "a.b[c]$"; if string :regex "xa.b[c]$" "${b}" { fileinto "yes"; }'
    assert files(run(text)) == ["yes"]
    assert 'require "regex"' in fails('require "variables"; set :quoteregex "b" "a";').text


@pytest.mark.parametrize("name", ["1", "", "a b", "${x}", "x.y", "ü", "a-b"])
def test_what_is_no_name_of_a_variable(name: str) -> None:
    assert fails(f'require "variables";\nset "{name}" "x";').line == 2


def test_modifiers_of_one_precedence_exclude_each_other_and_others_are_unknown() -> None:
    assert "exclude" in fails('require "variables"; set :lower :upper "x" "y";').text
    assert "no tag" in fails('require "variables"; set :shout "x" "y";').text


def test_vacation_text_of_section_4() -> None:
    text = """require ["variables", "fileinto"];
        set "honorific"  "Mr";
        set "first_name" "Wile";
        set "last_name"  "Coyote";
        set "vacation" text:
Dear ${HONORIFIC} ${last_name},
I'm out, please leave a message after the meep.
.
;
        if string :matches "${vacation}" "Dear Mr Coyote,*" { fileinto "yes"; }"""
    assert files(run(text)) == ["yes"]


# --- string


def test_string_of_section_5() -> None:
    assert holds(
        'string :matches " ${state} " "* pending *"', require="variables", before='set "state" "${state} pending";'
    )
    assert not holds('string " a " "a"', require="variables")
    assert holds('string ["a", "b"] ["c", "B"]', require="variables")


def test_counts_leave_out_empty_strings() -> None:
    require = "variables relational comparator-i;ascii-numeric"
    assert holds('string :count "eq" :comparator "i;ascii-numeric" ["a", "", "b", "${x}"] "2"', require=require)
    assert holds('string :count "eq" :comparator "i;ascii-numeric" "" "0"', require=require)


# --- limits


def test_too_long_a_value_is_cut_and_no_error() -> None:
    text = """require ["variables", "fileinto"];
        set "a" "0123456789";
        set "b" "ü${a}${a}";
        set :length "n" "${b}";
        fileinto "${n}";"""
    assert files(run(text, limits=RunLimits(variable_bytes=13))) == ["12"]
    text = f'require ["variables", "fileinto"]; set "a" "{"x" * 4000}"; set :length "n" "${{a}}"; fileinto "${{n}}";'
    assert files(run(text)) == ["4000"]


def test_all_variables_have_so_much_room() -> None:
    text = 'require "variables"; ' + " ".join(f'set "v{number}" "{"x" * 90}";' for number in range(128))
    assert run(text).error is None
    outcome = run(text, limits=RunLimits(memory_bytes=10_000))
    assert outcome.error is not None and "variables hold" in outcome.error.text
    assert outcome.actions == (Keep(),)
    again = 'require "variables"; ' + 'set "v" "0123456789";' * 500
    assert run(again, limits=RunLimits(memory_bytes=100)).error is None


def test_a_string_of_many_variables_ends_somewhere() -> None:
    text = f'require ["variables", "fileinto"]; set "a" "{"x" * 4096}"; fileinto "{"${a}" * 10_000}";'
    outcome = run(text)
    assert outcome.error is not None
    assert outcome.actions == (Keep(),)


def test_variables_in_addresses_and_mailboxes_are_checked_when_they_are_known() -> None:
    text = 'require ["variables", "fileinto"]; set "m" "a"; fileinto "${m}/b"; redirect "${m}@example.org";'
    assert run(text).actions[0] == FileInto("a/b")
    outcome = run('require ["variables", "fileinto"];\nfileinto "${m}";')
    assert outcome.error is not None and outcome.error.line == 2
