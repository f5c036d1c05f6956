"""The text of a script: comments, strings, numbers, and where what is wrong with them stands."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sieve.scripts import A, fails, files, holds, run
from twisted_mail.sieve import CompileLimits, SieveError, compile_script
from twisted_mail.sieve.lexer import Source, Word, words_of
from twisted_mail.sieve.parser import parse
from twisted_mail.sieve.syntax import Item, Node, Number, Strings
from twisted_mail.sieve.values import Discard, FileInto, Keep


def string(text: str) -> str:
    """What the string *text*, as written in a script, says."""
    (word, _end) = words_of(Source(text))
    assert word.kind == Word.STRING
    return word.value


def test_comments_stand_wherever_white_space_may() -> None:
    assert run("if size :over 100k { # this is a comment\n discard;\n }").actions == (Keep(),)
    assert run(
        """if size :over 100K { /* this is a comment
           this is still a comment */ discard /* this is a comment
           */ ;
        }""",
        A + b"x" * 200_000,
    ).actions == (Discard(),)
    assert run("/**/keep/* * / # */;#end").actions == (Keep(),)


def test_a_byte_order_mark_is_no_word() -> None:
    assert run("\ufeffdiscard;").actions == (Discard(),)
    assert fails("keep;\ufeff").column == 6


def test_names_and_tags_are_the_same_in_capitals() -> None:
    assert run("KEEP; If Size :OVER 1g { Discard; }").actions == (Keep(),)


def test_lines_may_end_with_either_and_strings_end_theirs_with_crlf() -> None:
    assert string('"a\nb"') == string('"a\r\nb"') == "a\r\nb"
    assert string("text:\na\n.\n") == string("text:\r\na\r\n.\r\n") == "a\r\n"


def test_backslashes() -> None:
    assert string(r'"a\\b\"c\d"') == r'a\b"cd'
    assert string(r'"\\\\"') == r"\\"
    assert string('"a\\\nb"') == "a\r\nb"


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("text:\n.\n", ""),
        ("text: # with a comment\n..dot\n.\n", ".dot\r\n"),
        ("text:\n.foo\n...\n.\n", ".foo\r\n..\r\n"),
        ("TEXT:\na\n\nb\n.", "a\r\n\r\nb\r\n"),
        ('text:\n"\\\n.\n', '"\\\r\n'),
    ],
)
def test_text_over_several_lines(written: str, value: str) -> None:
    assert string(written) == value


@pytest.mark.parametrize(
    ("written", "value"),
    [("0", 0), ("17", 17), ("1k", 1024), ("2K", 2048), ("3m", 3 << 20), ("1G", 1 << 30), ("2147483647", 2**31 - 1)],
)
def test_numbers(written: str, value: int) -> None:
    (node,) = parse(Source(f"if size :over {written} {{}}"), 15)
    assert node.tests[0].arguments[1] == Number(value, 14)


@pytest.mark.parametrize(
    ("text", "line", "column", "why"),
    [
        ('keep;\n  "abc', 2, 3, "string has no end"),
        ("keep; /* x", 1, 7, "comment has no end"),
        ("keep;\ntext:\nabc\n", 2, 1, "text: has no end"),
        ("if size :over 12x { }", 1, 15, "a number is made of"),
        ("if size :over 99999999999999999999 { }", 1, 15, "a number may be"),
        ("if size :over 9223372036854775807G { }", 1, 15, "a number may be"),
        ("keep $;", 1, 6, "'$' has no place here"),
        ("keep :;", 1, 6, "a tag is a colon and a name"),
        ("keep\n;\n\0", 3, 1, "NUL"),
        ("keep", 1, 5, "';' or a block is missing"),
        ("keep;;", 1, 6, "a command should begin here"),
        ("if true {\n keep;\n", 1, 9, "this block has no end"),
        ("keep; }", 1, 7, "a command should begin here"),
        ("if anyof (true, ) { }", 1, 17, "a test should begin here"),
        ("if anyof (true false) { }", 1, 16, "takes no test"),
        ("if anyof (true; false) { }", 1, 15, "')' is missing"),
        ('if header ["a" "b"] "c" { }', 1, 16, "']' is missing"),
        ('if header [] "c" { }', 1, 12, "a string should stand here"),
        ('if header ["a", 3] "c" { }', 1, 17, "a string should stand here"),
        ('if header :contians "a" "b" { }', 1, 11, "no tag :contians"),
        ('if header :is :contains "a" "b" { }', 1, 15, "exclude each other"),
        ('if header :is :is "a" "b" { }', 1, 15, "given twice"),
        ('if header "a" { }', 1, 4, "lacks its keys"),
        ('if header "a" "b" "c" { }', 1, 19, "one more"),
        ('if header "a" :is "b" { }', 1, 15, "in front of the other arguments"),
        ('if header 3 "b" { }', 1, 11, "a string or a list"),
        ('if header :comparator 3 "a" "b" { }', 1, 23, "a string is expected"),
        ("if header :comparator", 1, 22, "';' or a block is missing"),
        ('redirect ["a@b.c"];', 1, 10, "a string is expected"),
        ('if size :over "3" { }', 1, 15, "a number is expected"),
        ('stop "now";', 1, 6, "no arguments"),
        ("frobnicate;", 1, 1, "no command that is known"),
        ("true;", 1, 1, "a test, not a command"),
        ("if keep { }", 1, 4, "a command, not a test"),
        ("if frobnicate { }", 1, 4, "no test that is known"),
    ],
)
def test_what_is_wrong_is_found_where_it_stands(text: str, line: int, column: int, why: str) -> None:
    error = fails(text)
    assert why in error.text
    assert (error.line, error.column) == (line, column)


def test_an_error_reads_with_its_place() -> None:
    assert str(fails("keep;\n\n  foo;")) == "line 3, column 3: foo is no command that is known here"


# --- encoded-character (section 2.4.2.4)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("$${hex:40}", "$@"),
        ("${hex: 40 }", "@"),
        ("${HEX: 40}", "@"),
        ("${hex:40", "${hex:40"),
        ("${hex:400}", "${hex:400}"),
        ("${hex:4${hex:30}}", "${hex:40}"),
        ("${unicode:40}", "@"),
        ("${ unicode:40}", "${ unicode:40}"),
        ("${UNICODE:40}", "@"),
        ("${UnICoDE:0000040}", "@"),
        ("${Unicode:40}", "@"),
        ("${Unicode:Cool}", "${Unicode:Cool}"),
        ("${hex:c3 bc}", "ü"),
        ("${hex:c3}${hex:bc}", "ü"),
        ("${hex:ff}", "\ufffd"),
        ("${unicode:1F600 4 1}", "\U0001f600\x04\x01"),
    ],
)
def test_encoded_characters(written: str, value: str) -> None:
    assert holds(f'string "{written}" "{value}"', require="encoded-character variables") or "${" in value
    text = f'require ["fileinto", "encoded-character"]; fileinto "x{written}";'
    if value.isprintable():
        assert run(text).actions == (FileInto("x" + value),)


@pytest.mark.parametrize("written", ["${unicode:200000}", "${Unicode:DF01}", "${unicode:40 ffffffffffff}"])
def test_characters_that_there_are_not(written: str) -> None:
    error = fails(f'require ["encoded-character", "fileinto"];\nfileinto "{written}";')
    assert (error.line, error.column) == (2, 10)


def test_encoded_characters_are_text_without_require() -> None:
    assert files(run('require "fileinto"; fileinto "${hex:40}";')) == ["${hex:40}"]


def test_dollars_of_section_2_4_2_4() -> None:
    text = 'require "encoded-character"; if header :contains "Subject" "$${hex:24 24}" { discard; }'
    assert run(text, b"Subject: $$$ YOU\n\n").actions == (Discard(),)


# --- limits


def nested(depth: int) -> str:
    return "if true { " * depth + "keep;" + " }" * depth


def nested_tests(depth: int) -> str:
    return "if " + "not " * (depth - 1) + "true { discard; }"


def test_fifteen_levels_are_the_least_and_thirty_two_the_most() -> None:
    assert run(nested(15)).actions == (Keep(),)
    assert run(nested(32)).actions == (Keep(),)
    assert "blocks in one another" in fails(nested(33)).text
    assert run(nested_tests(15)).actions == (Discard(),)
    assert run(nested_tests(32)).error is None
    assert "tests in one another" in fails(nested_tests(33)).text
    assert "tests in one another" in fails("if " + "anyof (" * 5_000).text
    assert "blocks in one another" in fails(nested(5_000)).text


def test_a_script_may_have_so_many_octets() -> None:
    limits = CompileLimits(script_bytes=100)
    compile_script("#" + "x" * 99, limits=limits)
    assert "larger than 100 octets" in fails("#" + "x" * 100, limits).text
    assert "larger than 100 octets" in fails("#" + "ü" * 50, limits).text


# --- properties

PIECES = st.sampled_from(
    "if elsif else require stop keep discard fileinto redirect set string header address envelope exists size true not anyof "
    'allof include return global error ihave body date currentdate vacation foreverypart break addheader "subject" "from" '
    '"a@example.org" ["a","b"] "${1}" "${x.y}" "variables" ["fileinto","variables","regex","body","date","include","ihave"] '
    ':is :contains :matches :regex :value :count "gt" :comparator "i;octet" :zone :over 10K ( ) { } [ ] , ; /* */ # \n '
    'text:\n .\n "(" "*?\\\\" \\ " $ \0 1000000000000000000000'.split(" ")
)
"""Words, and what looks like them."""


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=30).map(" ".join)))
def test_garbage_is_a_script_or_a_sieve_error_and_nothing_else(text: str) -> None:
    try:
        compile_script(text)
    except SieveError as error:
        assert error.text
        if error.line:
            lines = text.split("\n")
            assert 1 <= error.line <= len(lines)
            assert 1 <= error.column <= len(lines[error.line - 1]) + 1


def printed(node: Node) -> str:
    """A tree as a script again."""
    words = [node.name]
    for argument in node.arguments:
        if isinstance(argument, Number):
            words.append(str(argument.value))
        elif isinstance(argument, Strings):
            items = [quoted(item.value) for item in argument.items]
            words.append(f"[{', '.join(items)}]" if argument.bracketed else items[0])
        else:
            words.append(":" + argument.value)
    if node.tests:
        tests = ", ".join(map(printed, node.tests))
        words.append(f"({tests})" if node.parenthesized else tests)
    return " ".join(words)


def quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def stripped(node: Node) -> object:
    """A tree without its places."""
    arguments = [
        tuple(item.value for item in argument.items) if isinstance(argument, Strings) else argument.value
        for argument in node.arguments
    ]
    return node.name, arguments, node.parenthesized, [stripped(test) for test in node.tests]


NAMES = st.sampled_from(["header", "keep", "x_1", "anyof"])
ARGUMENTS = st.one_of(
    st.integers(0, 2**31).map(lambda value: Number(value, 0)),
    st.lists(
        st.text(st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"])), min_size=1, max_size=3
    ).map(lambda values: Strings(tuple(Item(value, 0) for value in values), 0, True)),
)


def nodes(children: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    return st.builds(
        Node,
        NAMES,
        st.just(0),
        st.lists(ARGUMENTS, max_size=3),
        st.lists(children, min_size=1, max_size=3),
        st.just(True),
    )


TREES = st.recursive(st.builds(Node, NAMES, st.just(0), st.lists(ARGUMENTS, max_size=3)), nodes, max_leaves=6)


@settings(max_examples=60, deadline=None)
@given(TREES)
def test_a_tree_that_is_printed_is_read_as_it_was(tree: Node) -> None:
    (read,) = parse(Source(printed(tree) + ";"), 32)
    assert stripped(read) == stripped(tree)
