"""Storage engines by the scheme of their URL: ours, and those that other packages declare as entry points."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from twisted_mail.storage.interfaces import Engine, EngineContext

__all__ = ["GROUP", "EngineUnknown", "known_schemes", "open_engine", "table"]

GROUP: Final = "twisted_mail.storage"
"""The entry-point group: name is the URL's scheme, value is ``module:function`` of ``(url, context) -> Engine``."""

BUILT_IN: Final = {
    "memory": "twisted_mail.storage.memory:engine",
    "sqlite": "twisted_mail.storage.sqlite:engine",
    "file": "twisted_mail.storage.files:engine",
    "whoosh": "twisted_mail.storage.whoosh:engine",
    "tantivy": "twisted_mail.storage.tantivy:engine",
    "cql": "twisted_mail.storage.cql:engine",
    "s3": "twisted_mail.storage.s3:engine",
    "nats": "twisted_mail.storage.nats:engine",
}
"""Ours by name too, so that a checkout whose metadata is old or missing works."""


class EngineUnknown(ValueError):
    """No engine has that scheme, or two have; the text is for operators."""


def table(declared: Iterable[EntryPoint]) -> dict[str, str]:
    """Scheme to ``module:function``. Raises: EngineUnknown when two different engines claim one scheme."""
    found = dict(BUILT_IN)
    for point in declared:
        present = found.setdefault(point.name, point.value)
        if present != point.value:
            raise EngineUnknown(f"two storage engines claim {point.name}: {present} and {point.value}")
    return found


def known_schemes() -> list[str]:
    """The schemes that `open_engine` knows, sorted."""
    return sorted(table(entry_points(group=GROUP)))


def open_engine(url: str, context: EngineContext) -> Engine:
    """Build (not start) the engine for *url*; its driver is imported now and not before.

    A bare scheme (``memory``) is a URL too. Raises: EngineUnknown; ValueError for a URL that the engine refuses;
    ImportError when the engine's driver is not installed.
    """
    scheme = url.partition(":")[0].lower()
    engines = table(entry_points(group=GROUP))
    if scheme not in engines:
        raise EngineUnknown(f"no storage engine is called {scheme!r}; there are {', '.join(sorted(engines))}")
    module, _, name = engines[scheme].partition(":")
    build: Callable[[str, EngineContext], Engine] = getattr(import_module(module), name)
    return build(url, context)
