"""Clocks that go wrong: a mail node whose wall clock is minutes ahead or behind, by ``faketime`` (Debian's package)."""

from __future__ import annotations

from pathlib import Path

from tests.services import running
from tests.services.mail import MailNode

__all__ = ["shift"]


def shift(node: MailNode, seconds: int) -> None:
    """From its next start on *node* lives that far in the future (or the past); its monotonic clock is right.

    Without faketime the test is skipped, or fails, as for the servers.
    """
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        running.unavailable("faketime is not installed (apt-get install faketime)")
    node.process.environment |= {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME": f"{seconds:+d}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
