"""What a script may cost: however large, nested, or ill-meant it is, compiling and running it comes to an end."""

from __future__ import annotations

from time import process_time

import pytest

from tests.sieve.scripts import A, environment, fails, files, run
from twisted_mail.sieve import Message, RunLimits, Script, compile_script
from twisted_mail.sieve.values import Keep

LINES = 10_000


def large() -> str:
    """A script of 10,000 lines, one rule each."""
    rules = [
        f'if header :contains "subject" "offer {line}." {{ fileinto "folder{line}"; stop; }}'
        if line % 2
        else f'if address :is "from" "person{line}@example.org" {{ fileinto "folder{line}"; stop; }}'
        for line in range(LINES - 2)
    ]
    return "\n".join(['require "fileinto";', *rules, 'fileinto "last";'])


@pytest.fixture(scope="module")
def ten_thousand_lines() -> Script:
    before = process_time()
    script = compile_script(large())
    assert process_time() - before < 10
    return script


def test_ten_thousand_lines_run_within_the_limits(ten_thousand_lines: Script) -> None:
    before = process_time()
    outcome = ten_thousand_lines.run(Message(A), environment())
    assert process_time() - before < 1
    assert outcome.error is None
    assert files(outcome) == ["last"]


def test_a_script_is_run_again_and_again_and_holds_nothing_of_a_message(ten_thousand_lines: Script) -> None:
    first = ten_thousand_lines.run(Message(b"Subject: offer 77.\n\n"), environment())
    assert files(first) == ["folder77"]
    assert files(ten_thousand_lines.run(Message(b"From: person78@example.org\n\n"), environment())) == ["folder78"]
    assert ten_thousand_lines.run(Message(b"Subject: offer 77.\n\n"), environment()) == first


def test_steps_are_counted(ten_thousand_lines: Script) -> None:
    outcome = ten_thousand_lines.run(Message(A), environment(), RunLimits(steps=1000))
    assert outcome.error is not None and "more than 1000 steps" in outcome.error.text
    assert outcome.actions == (Keep(),)
    assert outcome.edits == () and not outcome.tracked


def test_a_large_header_makes_steps_dearer(ten_thousand_lines: Script) -> None:
    octets = b"Subject: " + b"x" * (1 << 20) + b"\r\n\r\n"
    before = process_time()
    outcome = ten_thousand_lines.run(Message(octets), environment())
    assert process_time() - before < 2
    assert outcome.error is not None and "steps" in outcome.error.text


def test_a_large_body_makes_steps_dearer() -> None:
    keys = ", ".join(f'"needle {number}"' for number in range(500))
    text = 'require ["body", "fileinto"];' + f"if body :contains [{keys}] {{ discard; }}\n" * 20
    octets = b"Subject: x\r\n\r\n" + b"needles and pins\r\n" * 60_000
    before = process_time()
    outcome = run(text, octets)
    assert process_time() - before < 5
    assert outcome.error is not None and "steps" in outcome.error.text


def test_redirects_and_actions_are_counted() -> None:
    redirects = "".join(f'redirect "u{number}@example.org";' for number in range(4))
    assert len(run(redirects).actions) == 4
    outcome = run(redirects + "\nif true {\n" + 'redirect "x@example.org"; }')
    assert outcome.error is not None and "4 addresses" in outcome.error.text and outcome.error.line == 3
    assert outcome.actions == (Keep(),)
    text = 'require "fileinto";' + "".join(f'fileinto "m{number}";' for number in range(33))
    outcome = run(text)
    assert outcome.error is not None and "32 actions" in outcome.error.text
    assert len(run(text, limits=RunLimits(actions=33)).actions) == 33


def test_the_trace_is_bounded() -> None:
    text = 'require ["include", "fileinto"];' + 'include "x";' * 60
    outcome = run(text, scripts={"x": "if true { keep; }" * 60})
    assert outcome.error is None
    assert len(outcome.trace) == 1000


def test_parts_times_includes_end() -> None:
    octets = b"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + b"--x\r\n\r\npart\r\n" * 5000 + b"--x--\r\n"
    inner = 'require ["foreverypart", "mime"]; foreverypart { if header :mime :anychild :contains "content-type" "x" { stop; } }'
    text = 'require ["foreverypart", "include"]; foreverypart { include "x"; include "x"; include "x"; }'
    before = process_time()
    outcome = run(text, octets, scripts={"x": inner})
    assert process_time() - before < 10
    assert outcome.error is not None and "steps" in outcome.error.text


def test_loops_in_loops_end() -> None:
    octets = b"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + b"--x\r\n\r\npart\r\n" * 2000 + b"--x--\r\n"
    text = 'require ["foreverypart", "variables"];' + "foreverypart { " * 4 + 'set "a" "${a}x";' + " }" * 4
    before = process_time()
    run(text, octets)
    assert process_time() - before < 10


def test_a_string_that_doubles_ends() -> None:
    text = 'require ["variables", "fileinto"]; set "a" "0123456789";' + 'set "a" "${a}${a}";' * 2000
    outcome = run(text + 'set :length "n" "${a}"; fileinto "${n}";')
    assert outcome.error is None
    assert files(outcome) == ["4096"]


@pytest.mark.parametrize(
    "test",
    [
        'body :regex "[^x]{500}[^y]{500}q"',
        'header :regex "subject" "[^x]{500}[^y]{500}q"',
        'body :regex "(a|b)*a(a|b){15}c"',
        f'body :matches "*{"?" * 200}b*"',
        f'header :matches "subject" "*{"a?" * 100}b*"',
        'body :contains :comparator "i;unicode-casemap" "ä"',
        'header :value "gt" "subject" ["x", "y"]',
        'string :matches "${long}${long}${long}" "*${long}?b"',
    ],
)
def test_what_looks_long_is_charged_for_as_much(test: str) -> None:
    octets = b"Subject: " + b"a" * 900_000 + b"\r\n\r\n" + b"a" * (1 << 20)
    for require in ("", ', "variables"'):
        if "$" in test and not require:
            continue
        text = f'require ["body", "regex", "relational", "comparator-i;unicode-casemap"{require}];\n'
        if require:
            text += f'set "long" "{"a" * 4000}";'
        before = process_time()
        outcome = run(text + f"if {test} {{ stop; }}\n" * 60, octets)
        assert process_time() - before < 5
        assert outcome.error is not None and "steps" in outcome.error.text


def test_regular_expressions_are_counted() -> None:
    keys = ", ".join(f'"k{number}"' for number in range(250))
    text = 'require "regex";' + f'if header :regex "x" [{keys}] {{ }}\n' * 2
    assert run(text).error is None
    assert "500 regular" in fails(text + 'if header :regex "x" "y" { }').text


def test_a_regular_expression_looks_at_the_beginning() -> None:
    octets = b"\r\n" + b"a" * 40_000 + b"b"
    assert run('require "regex"; require "body"; if body :regex "b" { discard; }', octets).actions == (Keep(),)
    assert run('require "body"; if body :contains "b" { discard; }', octets).actions != (Keep(),)


def test_ten_lists_of_two_thousand_keys_are_no_matter() -> None:
    keys = ", ".join(f'"bad{number}@example.org"' for number in range(2000))
    fields = '["from", "to", "cc", "subject"]'
    text = f"if header :contains {fields} [{keys}] {{ discard; }}" * 10
    assert run(text, b"X-Large: " + b"x" * 8000 + b"\r\n" + A).error is None
