"""RFC 6609: scripts in scripts, and what they share; RFC 5463: scripts that ask what there is."""

from __future__ import annotations

import pytest

from tests.sieve.scripts import A, fails, files, run
from twisted_mail.sieve import CompileLimits, compile_script
from twisted_mail.sieve.values import Discard, Keep

SECTION_3_2 = {
    "always_allow": """
        if address :is "from" "boss@example.com"
        {
            keep;
        }
        elsif address :is "from" "ceo@example.com"
        {
            keep;
        }""",
    "spam_tests": """
        require ["reject"];
        if header :contains "Subject" "XXXX"
        {
            reject "Subject XXXX is unacceptable.";
        }
        elsif address :is "from" "money@example.com"
        {
            reject "Mail from this sender is unwelcome.";
        }""",
    "mailing_lists": """
        require ["fileinto"];
        if header :is "List-ID" "sieve.ietf.org"
        {
            fileinto "lists.sieve";
        }
        elsif header :is "List-ID" "ietf-imapext.imc.org"
        {
            fileinto "lists.imapext";
        }""",
    "/spam_tests": """
        require ["reject"];
        if anyof (header :contains "Subject" "$$",
                  header :contains "Subject" "Make money")
        {
            reject "No thank you.";
        }""",
}
DEFAULT = """
    require ["include"];
    include :personal "always_allow";
    include :global "spam_tests";
    include :personal "spam_tests";
    include :personal "mailing_lists";"""


def test_the_scripts_of_section_3_2() -> None:
    def actions(octets: bytes) -> list[str]:
        outcome = run(DEFAULT, octets, scripts=SECTION_3_2)
        assert outcome.error is None
        return [getattr(action, "reason", getattr(action, "mailbox", "keep")) for action in outcome.actions]

    assert actions(b"From: boss@example.com\n\n") == ["keep"]
    assert actions(b"Subject: $$\n\n") == ["No thank you."]
    assert actions(b"Subject: XXXX\n\n") == ["Subject XXXX is unacceptable."]
    assert actions(b"List-Id: sieve.ietf.org\n\n") == ["lists.sieve"]
    assert actions(b"Subject: x\n\n") == ["keep"]


def test_variables_of_section_3_4_1_are_shared() -> None:
    text = """
        require ["fileinto", "include", "variables", "relational"];
        global "test";
        global "test_mailbox";
        set "test" "$$";
        include "subject_tests";
        set "test" "Make money";
        include "subject_tests";
        if string :count "eq" "${test_mailbox}" "1"
        {
            fileinto "${test_mailbox}";
            stop;
        }"""
    inner = """
        require ["include", "variables"];
        global ["test", "test_mailbox"];
        if header :contains "Subject" "${test}"
        {
            set "test_mailbox" "spam-${test}";
        }"""
    assert files(run(text, b"Subject: make money now\n\n", scripts={"subject_tests": inner})) == ["spam-Make money"]
    assert files(run(text, b"Subject: $$\n\n", scripts={"subject_tests": inner})) == ["spam-$$"]
    assert run(text, b"Subject: x\n\n", scripts={"subject_tests": inner}).actions == (Keep(),)


def test_the_namespace_global_is_the_same_as_the_command() -> None:
    text = """require ["variables", "include", "fileinto"];
        global "i_am_on_vacation";
        set "global.i_am_on_vacation" "1";
        if string :is "${i_am_on_vacation}" "1" { fileinto "yes${GLOBAL.I_am_on_vacation}"; }"""
    assert files(run(text)) == ["yes1"]


def test_other_variables_and_match_variables_are_private() -> None:
    text = """require ["variables", "include", "fileinto"];
        set "a" "outer";
        if header :matches "subject" "* *" { include "inner"; fileinto "${a}|${1}|${b}"; }"""
    inner = """require ["variables", "fileinto", "include"];
        fileinto "<${a}${1}>";
        set "a" "inner"; set "b" "inner";
        if header :matches "from" "*@*" { return; }"""
    assert files(run(text, b"Subject: one two\nFrom: x@y\n\n", scripts={"inner": inner})) == ["<>", "outer|one|"]


def test_stop_ends_all_and_return_ends_one() -> None:
    text = 'require ["include", "fileinto"]; include "inner"; fileinto "behind";'
    inner = 'require ["include", "fileinto"]; fileinto "a"; {}; fileinto "b";'
    assert files(run(text, scripts={"inner": inner.replace("{}", "return")})) == ["a", "behind"]
    assert files(run(text, scripts={"inner": inner.replace("{}", "stop")})) == ["a"]
    assert run('require "include"; return; discard;').actions == (Keep(),)


def test_require_is_each_script_s_own() -> None:
    outcome = run('require ["include", "fileinto"]; include "inner";', scripts={"inner": 'keep; fileinto "x";'})
    assert outcome.error is not None
    assert "inner" in outcome.error.text and 'require "fileinto"' in outcome.error.text
    assert outcome.actions == (Keep(),)
    assert "needs" in fails('fileinto "x";').text


def test_what_is_missing_is_an_error_when_it_is_come_to_but_for_optional_ones() -> None:
    outcome = run('require "include";\nkeep;\ninclude "nothing";', scripts={})
    assert outcome.error is not None and outcome.error.line == 3
    assert run('require "include"; if false { include "nothing"; } discard;', scripts={}).actions == (Discard(),)
    assert run('require "include"; include :optional "nothing"; discard;', scripts={}).actions == (Discard(),)
    assert compile_script('require "include"; include "nothing";').uses("include")


def test_recursion_is_an_error_when_it_happens_and_once_is_none() -> None:
    a = 'require ["include", "fileinto"]; fileinto "a"; include {} "b";'
    b = 'require ["include", "fileinto"]; fileinto "b"; include {} "a";'
    main = 'require "include"; include "a";'
    outcome = run(main, scripts={"a": a.format(""), "b": b.format("")})
    assert outcome.error is not None and "includes itself" in outcome.error.text
    outcome = run(main, scripts={"a": a.format(":once"), "b": b.format(":once")})
    assert outcome.error is None
    assert files(outcome) == ["a", "b"]


def test_once_is_once_wherever_it_was_included() -> None:
    scripts = {
        "x": 'require ["variables", "include"]; set "global.n" "${global.n}x";',
        "y": 'require "include"; include "x"; include :once "x";',
    }
    text = 'require ["include", "variables", "fileinto"]; include :once "x"; include "y"; include :once "x"; fileinto "${global.n}";'
    assert files(run(text, scripts=scripts)) == ["xx"]


def test_personal_and_global_scripts_of_one_name_are_two() -> None:
    scripts = {"x": 'require "fileinto"; fileinto "personal";', "/x": 'require "fileinto"; fileinto "global";'}
    assert files(run('require "include"; include :global "x"; include "x";', scripts=scripts)) == ["global", "personal"]


def test_scripts_in_scripts_have_an_end() -> None:
    scripts = {f"s{number}": f'require "include"; include "s{number + 1}";' for number in range(30)}
    outcome = run('require "include"; include "s0";', scripts=scripts)
    assert outcome.error is not None and "in one another" in outcome.error.text
    fan = 'require "include";' + 'include "s{}";' * 6
    scripts = {f"s{number}": fan.replace("{}", str(number + 1)) for number in range(8)} | {"s8": "keep;"}
    outcome = run('require "include"; include "s0";', scripts=scripts)
    assert outcome.error is not None and "steps" in outcome.error.text
    many = 'require "include";' + 'include :optional "x";' * 65
    assert "65" not in fails(many).text and "64 scripts" in fails(many).text


def test_all_scripts_together_have_so_much_room() -> None:
    scripts = {name: "#" + name * 400 for name in "abc"}
    text = 'require "include"; include "a"; include "b"; include "c";'
    outcome = run(text, scripts=scripts, compile_limits=CompileLimits(script_bytes=1000))
    assert outcome.error is not None and "larger" in outcome.error.text
    assert run(text, scripts=scripts).error is None


@pytest.mark.parametrize(
    "text",
    [
        'include "";',
        'include "a\nb";',
        'set "n" "x"; include "${n}";',
        'global "1";',
        'global "a.b";',
        'set "x" "y"; global "x";',
        'global "${x}";',
        'set "global.12" "value";',
        'set "global.data.from" "me@example.com";',
        'keep; fileinto "${global.12}";',
        'include :personal :global "x";',
    ],
)
def test_what_is_wrong_with_includes_when_they_are_compiled(text: str) -> None:
    assert fails(f'require ["include", "variables", "fileinto"];\n{text}').line == 2 or "\n" in text


def test_global_needs_both() -> None:
    assert 'require "variables"' in fails('require "include"; global "x";').text
    assert 'require "include"' in fails('require "variables"; global "x";').text
    assert 'require "include"' in fails('require "variables"; set "global.x" "1";').text


def test_what_a_script_uses_counts_what_it_includes() -> None:
    scripts = {"x": 'require "body"; if body "x" { keep; }'}
    script = compile_script('require "include"; include "x";', include=lambda location, name: scripts.get(name))
    assert script.needs_body
    assert script.uses("body") and not script.uses("fileinto")


# --- ihave (RFC 5463)


def test_ihave_makes_what_there_is_usable() -> None:
    text = 'require "ihave"; if ihave ["fileinto", "copy"] { fileinto :copy "x"; }'
    assert files(run(text)) == ["x"]


def test_ihave_lets_a_script_hold_what_is_not_there() -> None:
    text = """require "ihave";
        if ihave "vnd.example.teleport" {
            teleport :far "moon" { beam; }
            if teleported "x" { keep; }
        } elsif ihave "fileinto" {
            fileinto "there";
        }"""
    assert files(run(text)) == ["there"]
    text = 'require "ihave"; if not ihave "nothing" { discard; } else { nothing; }'
    assert run(text).actions == (Discard(),)
    text = 'require "ihave"; if allof (ihave "nothing", nothing "x") { keep; } else { discard; }'
    assert run(text).actions == (Discard(),)


def test_what_ihave_did_not_find_fails_when_it_is_come_to() -> None:
    outcome = run('require "ihave";\nif ihave "nothing" { }\nnothing;')
    assert outcome.error is not None and outcome.error.line == 3
    assert outcome.actions == (Keep(),)


def test_ihave_does_not_forgive_what_is_not_well_formed() -> None:
    assert fails('require "ihave"; if ihave "nothing" { keep }').column == 44
    assert fails('require "ihave"; if ihave "nothing" { keep; } else { } else { }').text
    assert "variables" in fails('require ["ihave", "variables"]; if ihave "${x}" { }').text


def test_error_ends_the_script() -> None:
    text = """require ["ihave", "fileinto"];
        fileinto "x";
        error "Something is missing.";"""
    outcome = run(text)
    assert outcome.error is not None
    assert (outcome.error.text, outcome.error.line) == ("Something is missing.", 3)
    assert outcome.actions == (Keep(),)


def test_without_ihave_an_unknown_command_is_an_error() -> None:
    assert "needs" in fails('if ihave "x" { }').text
    assert A
