"""``mailctl storage rewrap``: encrypted objects come under the newest key, so that an old one can be taken away."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol, cast

import click

from twisted_mail.admin.invocation import Command, on_store, the_invocation
from twisted_mail.admin.opening import Store
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.storage.interfaces import StorageError
from twisted_mail.storage.objects import KeepsObjects

__all__ = ["rewrap"]

NOTED_SECONDS: Final = 60.0
"""How often a long run says where it is."""


class _Report(Protocol):
    objects: int
    plain: int
    changed: int
    damaged: int
    reached: str
    examples: list[str]

    @property
    def under(self) -> Mapping[str, int]: ...


class _Rewraps(Protocol):
    """An ability of blobs that are encrypted under master keys."""

    @property
    def key_ids(self) -> Sequence[str]: ...

    async def rewrap(self, *, change: bool, after: str, progress: Callable[[Any], None]) -> _Report: ...


class _RewrapsObjects(Protocol):
    """An ability of objects that are encrypted under the same keys."""

    async def rewrap(self, prefix: str) -> int: ...


SHARDS: Final = "search/"
"""What the names of the objects begin with that search shards consist of."""


async def _rewrap_shards(store: Store) -> int:
    """Bring search shards under the first key; how many objects were changed. Raises: StorageError."""
    changed = 0
    for engine in store.backend.engines:
        if isinstance(engine, KeepsObjects) and hasattr(engine.objects, "rewrap"):
            changed += await cast(_RewrapsObjects, engine.objects).rewrap(SHARDS)
    return changed


@click.command("rewrap", cls=Command)
@click.option("--count", is_flag=True, help="Change nothing: only count the objects under each key.")
@click.option("--after", default="", metavar="HASH", help="Go on behind this object (where an earlier run says it was).")
@on_store()
async def rewrap(store: Store, count: bool, after: str) -> None:
    """Bring encrypted objects under the first key of the object store's option `encryption`, and count what is under each.

    Content is not encrypted again: the key of each object is, which lies in its header. Servers may run meanwhile; a run
    that was cut off is given again, with --after or from the beginning. An old key may be taken away when every server
    was restarted with the new one in front, and a run without --after says that nothing is left under the old one.
    Exit status 1 while something is.
    """
    if not re.fullmatch(r"(?:[0-9a-f]{64})?", after):
        raise Problem(Status.USAGE, "usage", "--after wants a hash of 64 hexadecimal digits")
    out = the_invocation().out
    if not hasattr(store.backend.blobs, "rewrap"):
        raise Problem(Status.FAILED, "no-keys", "the blobs of this store are not encrypted by it: there are no keys")
    blobs = cast(_Rewraps, store.backend.blobs)
    if not blobs.key_ids:
        raise Problem(Status.FAILED, "no-keys", "the object store's option `encryption` is off: there are no keys")
    noted, reached = time.monotonic(), after

    def progress(report: _Report) -> None:
        nonlocal noted, reached
        reached = report.reached
        if time.monotonic() - noted >= NOTED_SECONDS:
            noted = time.monotonic()
            out.note(f"{report.objects} objects looked at, {report.changed} changed; at {reached}")

    try:
        report = await blobs.rewrap(change=not count, after=after, progress=progress)
        shards = 0 if count else await _rewrap_shards(store)
    except StorageError as error:
        status = Status.TEMPORARY if error.temporary else Status.FAILED
        again = f"; go on with --after {reached}" if reached else ""
        raise Problem(status, "cut-off", f"{error}{again}", reached=reached) from error
    _say(report, blobs.key_ids, shards, counted=count, whole=not after)


def _say(report: _Report, ids: Sequence[str], shards: int, *, counted: bool, whole: bool) -> None:
    current = ids[0]
    under = {id: report.under.get(id, 0) for id in ids} | dict(report.under)
    left = sum(number for id, number in under.items() if id != current)
    lines = [f"{report.objects} objects, {report.plain} of them not encrypted; {report.changed} changed"]
    for id, number in under.items():
        known = "the first" if id == current else "an old one" if id in ids else "not among the keys given"
        lines.append(f"under the key {id} ({known}): {number}")
    if shards:
        lines.append(f"{shards} objects of search shards changed")
    lines += report.examples
    facts: dict[str, Any] = {
        "objects": report.objects,
        "plain": report.plain,
        "changed": report.changed,
        "under": under,
        "first": current,
        "left": left,
        "damaged": report.damaged,
        "shards": shards,
        "whole": whole,
    }
    if report.damaged or (left and not counted):
        raise Problem(Status.FAILED, "left", "\n".join(lines), **facts)
    if not whole:
        lines.append("objects before --after were not looked at")
    the_invocation().out.done("\n".join(lines), **facts)
