"""mailctl called inside this process, over a real embedded store in a folder."""

from __future__ import annotations

import io
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

from twisted_mail.admin.cli import call
from twisted_mail.admin.opening import Store, opened
from twisted_mail.admin.running import run
from twisted_mail.tap.configuration import load

T = TypeVar("T")
PASSWORD = "correct horse 8"
CONFIGURATION = """\
hostname = "mail.example.org"
data = "data"
[auth]
argon2_memory = "8KiB"
argon2_passes = 1
[listen]
imap = ["tcp:0:interface=127.0.0.1"]
"""


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)

    def error(self) -> Any:
        return json.loads(self.err)["error"]


class Mailctl:
    """Commands over the store in *folder*."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "mail.toml"
        if not self.config.exists():
            self.config.write_text(CONFIGURATION)

    def words(self, *words: str | Path) -> list[str]:
        return ["--config", str(self.config), *map(str, words)]

    def run(self, *words: str | Path, given: str = "") -> Result:
        """In this process; *given* is its stdin, which is no terminal."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err), patch("sys.stdin", io.StringIO(given)):
            status = call(self.words(*words))
        return Result(status, out.getvalue(), err.getvalue())

    def good(self, *words: str | Path, given: str = "") -> Result:
        result = self.run(*words, given=given)
        assert result.status == 0, result
        return result

    def json(self, *words: str | Path, given: str = "") -> Any:
        return self.good(*words, "--json", given=given).json()

    def process(self, *words: str | Path, given: str = "") -> Result:
        """In a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", "twisted_mail.admin", *self.words(*words)],
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def inside(self, act: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
        """What *act* returns, with the store open."""

        async def main(reactor: Any) -> T:
            async with opened(reactor, load(self.config, {}), create=True) as store:
                return await act(store)

        return run(main)

    def entries(self) -> int:
        """Entries of all accounts, read from the file: whoever opens the store may become the one that writes."""
        with closing(sqlite3.connect(f"file:{self.folder}/data/mail.sqlite?mode=ro", uri=True)) as db:
            found: int = db.execute("SELECT count(*) FROM account_log").fetchone()[0]
        return found

    def wait_for_entries(self, count: int, running: subprocess.Popen[Any]) -> None:
        """Until there are so many, or *running* has ended."""
        deadline = time.monotonic() + 30
        while self.entries() < count and running.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)

    def with_user(self, address: str = "ann@example.org") -> Mailctl:
        """A domain and a user."""
        domain = address.partition("@")[2]
        if self.run("domain", "show", domain).status:
            self.good("domain", "add", domain, "--no-dkim")
        self.good("user", "add", address, "--password-stdin", given=PASSWORD + "\n")
        return self
