"""Which tests need the machine for themselves: they run one after the other, since what they see depends on how busy it is.

`make test` runs all others in two processes first (``--servers=without``), also those that start a small daemon of their own,
which is up in a second; then these (``--servers=only``).
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

__all__ = ["needs_servers"]

_ROOT = Path(__file__).resolve().parents[1]
_SERVICES = "tests.services."
_SMALL = frozenset(
    "clamav_milter clamd haproxy isolation knot opendkim postfix postgrey processes rspamd spamd unbound".split()
)
"""Of `tests.services`, what starts nothing by itself, or a daemon that is up in a second and that no other test knows."""
_LARGE = frozenset("cassandra nats nats_cluster two_data_centres versity".split())
"""What `tests.services.running` starts for many tests; the rest of it starts nothing by itself."""


def _path_of(module: str) -> Path | None:
    path = _ROOT.joinpath(*module.split("."))
    for found in (path.with_suffix(".py"), path / "__init__.py"):
        if found.exists():
            return found
    return None


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@cache
def _imported(path: Path) -> frozenset[str]:
    """The modules of ours that *path* names anywhere."""
    found = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(name for name in found if name.startswith("tests.") and _path_of(name) is not None)


def _asks_for_large(path: Path) -> bool:
    """Whether *path* has ``running.cassandra`` or the like."""
    return any(
        isinstance(node, ast.Attribute)
        and node.attr in _LARGE
        and isinstance(node.value, ast.Name)
        and node.value.id == "running"
        for node in ast.walk(_tree(path))
    )


@cache
def _starts_servers(path: Path) -> bool:
    seen, left = {path}, [path]
    while left:
        at = left.pop()
        for module in _imported(at) - {"tests.services"}:
            service = module.removeprefix(_SERVICES)
            if service == "running":
                if _asks_for_large(at):
                    return True
            elif service != module:
                if service not in _SMALL:
                    return True
            else:
                inside = _path_of(module)
                if inside is not None and inside not in seen:
                    seen.add(inside)
                    left.append(inside)
    return False


def needs_servers(path: Path) -> bool:
    """Whether the tests in *path* start large servers of `tests.services`, or the whole suite in processes of its own."""
    near = path.parent / "conftest.py"
    return path.parent.name == "whole" or _starts_servers(path) or (near.exists() and _starts_servers(near))
