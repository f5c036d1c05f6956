"""Debian's clamav-milter before the `clamd` of this run: infected mail is refused."""

from __future__ import annotations

from pathlib import Path

from tests.services import running
from tests.services.clamd import clamd
from tests.services.daemon import Daemon
from tests.services.knot import program
from tests.services.processes import free_port

__all__ = ["ClamAVMilter", "clamav_milter"]


class ClamAVMilter(Daemon):
    """One milter, at 127.0.0.1:`port`. *more*: lines of clamav-milter.conf."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.folder = folder
        self.port = free_port()
        lines = [
            f"MilterSocket inet:{self.port}@127.0.0.1",
            f"ClamdSocket tcp:{clamd().address}",
            f"TemporaryDirectory {folder}",
            "Foreground yes",
            "OnInfected Reject",
            'RejectMsg "Infected: %v"',
            "AddHeader Replace",
            *more,
        ]
        self.configure("clamav-milter", [program("clamav-milter", "clamav-milter"), "-c"], lines)


def clamav_milter() -> ClamAVMilter:
    """The one of this run."""
    return running.shared("clamav-milter", ClamAVMilter)
