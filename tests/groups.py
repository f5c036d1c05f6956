"""Which tests stay together when pytest-xdist spreads them (``-n 2 --dist loadgroup``).

Everything that starts the servers of `tests.services` is one group: they are started once, as without xdist, and no two
tests kill and starve them at a time. Every other module is a group of its own, so that its fixtures are made once.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

__all__ = ["SERVERS", "group_of"]

SERVERS = "servers"
FILTERS = "filters"
"""The daemons that mail is filtered by: others than those of the store, hence beside them."""
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


def group_of(path: Path) -> str:
    """The group of the tests in *path*."""
    near = path.parent / "conftest.py"
    if _starts_servers(path) or (near.exists() and _starts_servers(near)):
        return FILTERS if path.is_relative_to(_ROOT / "tests" / "filters") else SERVERS
    return str(path.relative_to(_ROOT / "tests").with_suffix("")).replace("/", ".")
