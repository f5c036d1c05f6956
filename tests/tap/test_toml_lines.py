"""Where a key stands in a TOML text."""

from __future__ import annotations

import tomllib

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted_mail.tap.toml_lines import key_lines, line_of

DOCUMENT = '''\
# a comment with [brackets] and = signs
title = "x # not a comment"

[limits] # trailing
message_bytes = 5
"quoted key" = 1
dotted.key . inner = true
text = """
[not.a.table]
fake = 1
"""
after = \'\'\'
]]\'\'\'
list = [
  "a",   # one
  "b]",
  { x = 1, y = [
     2 ] },
]

[[tls.sni]]
names = ["a"]
[tls.sni.deep]
x = 1
[[tls.sni]]
names = ["b"]
inline = { a = 1, b = { c = "}" } }
'''


def test_every_key_has_its_line() -> None:
    lines = key_lines(DOCUMENT)
    assert lines == {
        ("title",): 2,
        ("limits",): 4,
        ("limits", "message_bytes"): 5,
        ("limits", "quoted key"): 6,
        ("limits", "dotted"): 7,
        ("limits", "dotted", "key"): 7,
        ("limits", "dotted", "key", "inner"): 7,
        ("limits", "text"): 8,
        ("limits", "after"): 12,
        ("limits", "list"): 14,
        ("limits", "list", 0): 15,
        ("limits", "list", 1): 16,
        ("limits", "list", 2): 17,
        ("limits", "list", 2, "x"): 17,
        ("limits", "list", 2, "y"): 17,
        ("limits", "list", 2, "y", 0): 18,
        ("tls", "sni"): 21,
        ("tls", "sni", 0): 21,
        ("tls", "sni", 0, "names"): 22,
        ("tls", "sni", 0, "names", 0): 22,
        ("tls", "sni", 0, "deep"): 23,
        ("tls", "sni", 0, "deep", "x"): 24,
        ("tls", "sni", 1): 25,
        ("tls", "sni", 1, "names"): 26,
        ("tls", "sni", 1, "names", 0): 26,
        ("tls", "sni", 1, "inline"): 27,
        ("tls", "sni", 1, "inline", "a"): 27,
        ("tls", "sni", 1, "inline", "b"): 27,
        ("tls", "sni", 1, "inline", "b", "c"): 27,
    }


def test_a_key_that_is_missing_stands_where_its_table_does() -> None:
    lines = key_lines("[a]\nb = 1\n")
    assert line_of(lines, ("a", "nothing", "deeper")) == 1
    assert line_of(lines, ("elsewhere",)) is None


def paths(value: object, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    out = {path} if path else set()
    if isinstance(value, dict):
        for key, inner in value.items():
            out |= paths(inner, (*path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            out |= paths(inner, (*path, number))
    return out


_KEYS = st.text("ab-_1", min_size=1, max_size=3) | st.text('a."\\]#=é\n', min_size=1, max_size=4)
_VALUES = st.recursive(
    st.integers() | st.booleans() | st.text('ab"\\#]}=\n[{,\'', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=8,
)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def written(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case str() if "'" not in value and "\\" not in value:
            return f"'''\n{value}'''"
        case str():
            return quoted(value)
        case list():
            return "[\n" + ",\n".join(written(item) for item in value) + "]"
        case dict():
            return "{" + ", ".join(f"{quoted(key)} = {written(item)}" for key, item in value.items()) + "}"
    raise AssertionError(value)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(_KEYS, st.dictionaries(_KEYS, _VALUES, max_size=3), max_size=3))
def test_whatever_tomllib_reads_has_a_line_for_every_key(document: dict[str, dict[str, object]]) -> None:
    text = "".join(
        f"[{quoted(name)}]\n" + "".join(f"{quoted(key)} = {written(value)}\n" for key, value in table.items())
        for name, table in document.items()
    )
    assert tomllib.loads(text) == document
    assert set(key_lines(text)) == paths(document)
