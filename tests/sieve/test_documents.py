"""The reference names every capability that scripts may require, and no other."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.sieve.scripts import environment
from twisted_mail.sieve import CompileLimits, Message, RunLimits, capabilities
from twisted_mail.sieve.arguments import Arguments
from twisted_mail.sieve.commands import actions, control
from twisted_mail.sieve.compiler import script_of
from twisted_mail.sieve.lexer import Source
from twisted_mail.sieve.registry import CommandSyntax, Tag, Vocabulary
from twisted_mail.sieve.running import Run
from twisted_mail.sieve.scope import Compilation
from twisted_mail.sieve.values import Keep, SieveError

DOCS = Path(__file__).resolve().parents[2] / "docs"
REFERENCE = DOCS / "reference" / "sieve.md"


def test_the_reference_lists_the_capabilities() -> None:
    table = REFERENCE.read_text("utf-8").partition("## Extensions")[2].partition("## Limits")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    named = {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    assert named == set(capabilities())


def test_the_reference_states_the_limits_that_there_are() -> None:
    text = REFERENCE.read_text("utf-8").partition("## Limits")[2]
    compiling, running = CompileLimits(), RunLimits()
    assert compiling.script_bytes == running.memory_bytes == 1 << 20
    for figure in (
        compiling.nesting,
        compiling.regexes,
        compiling.includes,
        compiling.include_depth,
        running.redirects,
        running.actions,
    ):
        assert re.search(rf"\b{figure}\b", text), figure
    for figure in (running.steps, running.variable_bytes):
        assert f"{figure:,}" in text


# --- how an extension is written


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """The module that docs/how-to/add-a-sieve-extension.md shows."""
    text = (DOCS / "how-to" / "add-a-sieve-extension.md").read_text("utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    module = ModuleType("example")
    exec(compile(code[1], "add-a-sieve-extension.md", "exec"), module.__dict__)
    return module


def test_the_extension_of_the_guide_works(example: ModuleType) -> None:
    compilation = Compilation(Vocabulary.of((actions, control, example)), None, CompileLimits())
    text = """require "vnd.example.priority";
        if priority "1" { flagimportant; } elsif priority "2" { flagimportant :as "two"; } else { discard :quietly; }"""
    step = script_of(Source(text), compilation)

    def kept(octets: bytes) -> list[object]:
        run = Run(Message(octets), environment(), RunLimits())
        step(run)
        return list(run.actions)

    assert kept(b"X-Priority: 1\r\n\r\n") == [Keep(("\\Flagged",))]
    assert kept(b"X-Priority: 2\r\n\r\n") == [Keep(("two",))]
    with pytest.raises(SieveError, match="a flag has a name"):
        script_of(Source('require "vnd.example.priority";\nflagimportant :as "";'), compilation)


def test_what_is_declared_twice_is_refused(example: ModuleType) -> None:
    with pytest.raises(ValueError, match="'flagimportant' is there already"):
        Vocabulary.of((actions, example, example))
    again = ModuleType("again")

    def nothing(args: Arguments) -> None:
        raise AssertionError

    again.__dict__["COMMANDS"] = {"keep": CommandSyntax(compile=nothing)}  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'keep' is there already"):
        Vocabulary.of((actions, again))
    again.__dict__.update(COMMANDS={}, TAGS={"fileinto": (Tag("copy"),)})
    with pytest.raises(ValueError, match=":copy of 'fileinto' is there already"):
        Vocabulary.of((actions, again))
    again.__dict__.update(TAGS={"teleport": (Tag("far"),)})
    with pytest.raises(ValueError, match="which is not there"):
        Vocabulary.of((actions, again))
