"""Debian's postgrey, a policy server that greylists, without the lists that its package brings."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

from tests.services.daemon import Daemon
from tests.services.knot import program
from tests.services.processes import Process, free_port

__all__ = ["Postgrey"]


class Postgrey(Daemon):
    """One server, at 127.0.0.1:`port`, that lets a triplet through after *delay* seconds."""

    def __init__(self, folder: Path, *, delay: int = 1) -> None:
        self.folder = folder
        self.port = free_port()
        (folder / "db").mkdir(exist_ok=True)
        (folder / "empty").write_text("")
        words = [
            program("postgrey", "postgrey"),
            f"--inet=127.0.0.1:{self.port}",
            f"--dbdir={folder / 'db'}",
            f"--delay={delay}",
            f"--whitelist-clients={folder / 'empty'}",
            f"--whitelist-recipients={folder / 'empty'}",
            f"--user={pwd.getpwuid(os.getuid()).pw_name}",
            f"--group={grp.getgrgid(os.getgid()).gr_name}",
            "--hostname=mx.example.net",
            "--greylist-text=Greylisted for %s seconds",
        ]
        self.process = Process("postgrey", words, folder)
