"""Debian's clamav-milter before the `clamd` of this run: infected mail is refused."""

from __future__ import annotations

from pathlib import Path

from tests.services import running
from tests.services.clamd import clamd
from tests.services.knot import program
from tests.services.processes import Killable, Process, free_port

__all__ = ["ClamAVMilter", "clamav_milter"]


class ClamAVMilter(Killable):
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
        configuration = folder / "clamav-milter.conf"
        configuration.write_text("\n".join(lines) + "\n")
        words = [program("clamav-milter", "clamav-milter"), "-c", str(configuration)]
        self.process = Process("clamav-milter", words, folder)

    def start(self) -> None:
        """Until it listens. Raises NotReady."""
        self.process.start()
        self.process.wait("127.0.0.1", self.port, 30)

    def stop(self) -> None:
        self.process.stop()
        running.remove(self.folder)


def clamav_milter() -> ClamAVMilter:
    """The one of this run."""
    return running.shared("clamav-milter", ClamAVMilter)
