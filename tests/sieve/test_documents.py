"""The reference names every capability that scripts may require, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from twisted_mail.sieve import CompileLimits, RunLimits, capabilities

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "sieve.md"


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
