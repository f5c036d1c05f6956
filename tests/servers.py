"""Which tests need real servers: they run one after the other, since what they see depends on how busy the machine is.

`make test` runs all others in two processes first (``--servers=without``), then these (``--servers=only``).
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

__all__ = ["needs_servers"]

_ROOT = Path(__file__).resolve().parents[1]
_LIGHT = {"tests.services", "tests.services.processes", "tests.services.isolation"}
"""Of `tests.services`, what starts nothing by itself."""


def _path_of(module: str) -> Path | None:
    path = _ROOT.joinpath(*module.split("."))
    for found in (path.with_suffix(".py"), path / "__init__.py"):
        if found.exists():
            return found
    return None


@cache
def _imported(path: Path) -> frozenset[str]:
    """The modules of ours that *path* names anywhere."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(name for name in found if name.startswith("tests.") and _path_of(name) is not None)


@cache
def _starts_servers(path: Path) -> bool:
    seen, left = {path}, [path]
    while left:
        for module in _imported(left.pop()) - _LIGHT:
            if module.startswith("tests.services."):
                return True
            inside = _path_of(module)
            if inside is not None and inside not in seen:
                seen.add(inside)
                left.append(inside)
    return False


def needs_servers(path: Path) -> bool:
    """Whether the tests in *path* start servers of `tests.services`, or the whole suite in processes of its own."""
    near = path.parent / "conftest.py"
    return path.parent.name == "whole" or _starts_servers(path) or (near.exists() and _starts_servers(near))
