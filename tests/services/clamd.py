"""Debian's clamd with two signatures of its own: no database is downloaded, and it is up in a moment.

It knows EICAR's test file, whole (also inside archives, and in base64), and the same octets anywhere in a file.
"""

from __future__ import annotations

from pathlib import Path

from tests.services import running
from tests.services.daemon import Daemon
from tests.services.knot import program
from tests.services.processes import free_port

__all__ = ["EICAR", "MOST_BYTES", "Clamd", "clamd"]

EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
"""The test file of eicar.org: harmless, and found by every scanner."""
MOST_BYTES = 4_194_304
"""StreamMaxLength: more in one INSTREAM is refused."""


class Clamd(Daemon):
    """One daemon, by TCP at 127.0.0.1:`port` and at the UNIX socket `socket`. *more*: lines of clamd.conf."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.socket = folder / "clamd.sock"
        database = folder / "db"
        database.mkdir(parents=True, exist_ok=True)
        (database / "local.hdb").write_text("44d88612fea8a8f36de82e1278abb02f:68:Eicar-Test-Signature\n")
        (database / "local.ndb").write_text(f"Eicar-Signature:0:*:{EICAR.hex()}\n")
        lines = [
            f"DatabaseDirectory {database}",
            "TCPAddr 127.0.0.1",
            f"TCPSocket {self.port}",
            f"LocalSocket {self.socket}",
            "Foreground yes",
            f"StreamMaxLength {MOST_BYTES}",
            "MaxThreads 2",
            "ReadTimeout 10",
            "User root",
            f"TemporaryDirectory {folder}",
            *more,
        ]
        self.configure("clamd", [program("clamd", "clamav-daemon"), "-c"], lines)


def clamd() -> Clamd:
    """The one of this run."""
    return running.shared("clamd", Clamd)
