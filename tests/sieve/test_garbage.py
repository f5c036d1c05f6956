"""Whatever compiles runs, over whatever octets, and ends in an outcome."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sieve.scripts import environment
from twisted_mail.sieve import Message, RunLimits, SieveError, capabilities, compile_script
from twisted_mail.sieve.entity import shown
from twisted_mail.sieve.registry import Kind, Tests
from twisted_mail.sieve.vocabulary import VOCABULARY

REQUIRE = "require [" + ", ".join(f'"{name}"' for name in capabilities()) + "];\n"

STRINGS = st.sampled_from(
    ["", "a", "from", "to", "subject", "date", "content-type", "*", "?*x", "(a+)+$", "[", "a@example.org", "INBOX", "${1}",
     "${a}${a}", "${global.g}", "${hex:ff}", "gt", "count", "year", "+0100", "1", "i;octet", "i;ascii-numeric", "x\ny", "ü",
     "mailto:a@example.org", "NEVER", "2026-07-06T22:00:00+0200", "return", "X-A", "Content-Type: a/b\n\nx",
     "\\\\Seen", "text", "multipart", "name", "percent", "9" * 30, "a" * 5000]
).map(lambda text: '"' + text.replace('"', '\\"') + '"')  # fmt: skip
LISTS = st.lists(STRINGS, min_size=1, max_size=3).map(lambda items: f"[{', '.join(items)}]")
NUMBERS = st.sampled_from(["0", "1", "2", "7", "100", "1M", "9223372036854775807"])


KINDS = {Kind.STRING: STRINGS, Kind.STRINGS: st.one_of(STRINGS, LISTS), Kind.NUMBER: NUMBERS}


@st.composite
def use(draw: st.DrawFn, commands: bool) -> str:
    """A command or a test with arguments of the kinds that it declares."""
    table = VOCABULARY.commands if commands else VOCABULARY.tests
    name = draw(st.sampled_from(sorted(set(table) - {"foreverypart"})))
    syntax = table[name]
    tags = (VOCABULARY.command_tags if commands else VOCABULARY.test_tags)[name]
    words = [name]
    groups: set[str] = set()
    for tag in draw(st.lists(st.sampled_from(sorted(tags)), max_size=3)) if tags else ():
        group = tags[tag].group or tag
        if group not in groups:
            groups.add(group)
            takes = tags[tag].takes
            words += [f":{tag}", "" if takes is None else draw(KINDS[takes])]
    words += [draw(KINDS[operand.kind]) for operand in syntax.operands]
    if syntax.tests is Tests.ONE:
        words.append("true")
    elif syntax.tests is Tests.LIST:
        words.append("(true, false)")
    return " ".join(words) + (";" if commands else "")


TEST = use(False)
COMMAND = use(True)
BLOCK = st.lists(COMMAND, max_size=2).map(" ".join)
RULE = st.one_of(
    COMMAND,
    st.tuples(TEST, BLOCK).map(lambda both: f"if {both[0]} {{ {both[1]} }}"),
    BLOCK.map(lambda block: f"foreverypart {{ {block} }}"),
)
OCTETS = st.one_of(
    st.binary(max_size=200),
    st.lists(
        st.sampled_from(
            [b"From: a@b", b"To: <x@y>, z", b"Subject: =?utf-8?q?=C3?=", b"Date: now", b"Content-Type: multipart/mixed; boundary=b",
             b"", b"--b", b"--b--", b"Content-Type: message/rfc822", b" folded", b"\xff\xfe", b"a" * 100, b"From:"]
        ),
        max_size=12,
    ).map(b"\r\n".join),
)  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(RULE, st.lists(RULE, max_size=3), OCTETS)
def test_what_compiles_runs(rule: str, rules: list[str], octets: bytes) -> None:
    kept = []
    for each in (rule, *rules):
        try:
            compile_script(REQUIRE + each)
            kept.append(each)
        except SieveError:
            pass
    script = compile_script(REQUIRE + "\n".join(kept))
    outcome = script.run(Message(octets), environment(), RunLimits(steps=5000))
    assert isinstance(outcome.trace, tuple)
    assert outcome.actions or outcome.error is None
    for version in outcome.rewritten.values():
        assert len(shown(version.pieces, octets, 1 << 30)) == version.size
