"""Debian's HAProxy, passing TCP connections on with a PROXY header in front."""

from __future__ import annotations

from pathlib import Path

from tests.services import running
from tests.services.knot import program
from tests.services.processes import Killable, Process, free_port

__all__ = ["HAProxy"]


class HAProxy(Killable):
    """One proxy at 127.0.0.1:`port`, before a server at 127.0.0.1:*server*. *options*: of its ``server`` line, such as
    ``send-proxy-v2``. *bind*: of its ``bind`` line, such as ``ssl crt FILE``."""

    def __init__(self, folder: Path, server: int, options: str, bind: str = "") -> None:
        self.folder = folder
        self.port = free_port()
        lines = [
            "global",
            "    nbthread 1",
            "defaults",
            "    mode tcp",
            "    timeout connect 5s",
            "    timeout client 20s",
            "    timeout server 20s",
            "listen mail",
            f"    bind 127.0.0.1:{self.port} {bind}",
            f"    server mail 127.0.0.1:{server} {options}",
        ]
        configuration = folder / "haproxy.cfg"
        configuration.write_text("\n".join(lines) + "\n")
        self.process = Process("haproxy", [program("haproxy", "haproxy"), "-db", "-f", str(configuration)], folder)

    def start(self) -> None:
        """Until it listens. Raises NotReady."""
        self.process.start()
        self.process.wait("127.0.0.1", self.port, 30)

    def stop(self) -> None:
        self.process.stop()
        running.remove(self.folder)
