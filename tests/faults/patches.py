"""What no configuration offers and a test needs: a mail node whose clock is wrong, or whose sweeper does not wait.

The node's Python is started with a ``sitecustomize`` on its path, which changes that before anything else runs. ``faketime``
cannot be used for clocks: under it waiting for a lock with a time limit never ends in Python 3.11.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.services.mail import MailNode

__all__ = ["careless_sweeping", "shift_clock"]

_CLOCK = """\
import time
def shifted(now, by):
    return lambda: now() + by
time.time = shifted(time.time, {seconds})
time.time_ns = shifted(time.time_ns, {seconds} * 1_000_000_000)
"""
_SWEEPING = """\
from twisted_mail.account.sweeping import SweepSettings
SweepSettings.__init__.__defaults__ = ({wait}, {margin}, {lease})
"""


def shift_clock(node: MailNode, seconds: int) -> None:
    """From its next start on *node* lives that far in the future (or the past); its monotonic clock is right."""
    _add(node, _CLOCK.format(seconds=seconds))


def careless_sweeping(
    node: MailNode, *, every: float = 6.0, wait: float = 4.0, margin: float = 1.0, lease: float = 6.0
) -> None:
    """From its next start on *node* sweeps *every* so many seconds, and deletes what was condemned *wait* seconds ago.

    Each pass costs some thirty requests, even where there is nothing to do; six nodes make one a second.
    """
    _add(node, _SWEEPING.format(wait=wait, margin=margin, lease=lease))
    node.process.environment["TWISTED_MAIL__STORAGE__SWEEP"] = f"{every:g}s"


def _add(node: MailNode, text: str) -> None:
    place: Path = node.folder / "site"
    place.mkdir(exist_ok=True)
    with (place / "sitecustomize.py").open("a") as file:
        file.write(text)
    before = node.process.environment.get("PYTHONPATH", "")
    if str(place) not in before.split(os.pathsep):
        node.process.environment["PYTHONPATH"] = f"{place}{os.pathsep}{before}" if before else str(place)
