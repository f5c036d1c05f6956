"""Clocks that go wrong: a mail node whose wall clock is minutes ahead or behind.

The node's Python is started with another ``time.time`` and ``time.time_ns`` (by a ``sitecustomize`` on its path); everything
of ours and of the drivers takes the wall clock from these. ``faketime`` cannot be used: under it waiting for a lock with a
time limit never ends in Python 3.11.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.services.mail import MailNode

__all__ = ["shift"]

_SITE = """\
import time
def shifted(now, by):
    return lambda: now() + by
time.time = shifted(time.time, {seconds})
time.time_ns = shifted(time.time_ns, {seconds} * 1_000_000_000)
"""


def shift(node: MailNode, seconds: int) -> None:
    """From its next start on *node* lives that far in the future (or the past); its monotonic clock is right."""
    place: Path = node.folder / "clock"
    place.mkdir()
    (place / "sitecustomize.py").write_text(_SITE.format(seconds=seconds))
    before = node.process.environment.get("PYTHONPATH", "")
    node.process.environment["PYTHONPATH"] = f"{place}{os.pathsep}{before}" if before else str(place)
