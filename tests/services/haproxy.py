"""Debian's HAProxy, passing TCP connections on with a PROXY header in front."""

from __future__ import annotations

from pathlib import Path

from tests.services.daemon import Daemon
from tests.services.knot import program
from tests.services.processes import free_port

__all__ = ["HAProxy"]


class HAProxy(Daemon):
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
        self.configure("haproxy", [program("haproxy", "haproxy"), "-db", "-f"], lines)
