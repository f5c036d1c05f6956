"""The doctor's look at the store: its folder, the disk, the schema, the clock, and what is in the directory."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final

from twisted_mail.admin.findings import Finding
from twisted_mail.admin.opening import embedded, opened
from twisted_mail.admin.output import size_text
from twisted_mail.admin.problems import problem_of
from twisted_mail.storage.sqlite.schema import VERSION
from twisted_mail.tap.settings import Configuration

__all__ = ["look", "look_inside"]

LITTLE: Final = 1 << 30
VERY_LITTLE: Final = 100 << 20
"""Octets of free disk below which there is a warning, an error."""
FUTURE_SECONDS: Final = 120.0
FIRST_YEAR: Final = 2025


def look(configuration: Configuration) -> list[Finding]:
    """Findings about the data folder and the file in it, without opening the store."""
    findings = _folder(configuration.data) + _clock(configuration.data)
    if embedded(configuration) and configuration.data.exists():
        findings += _schema(configuration.data / "mail.sqlite")
    return findings


def _folder(data: Path) -> list[Finding]:
    if not data.exists():
        return [Finding("storage.missing", "error", f"there is no data folder {data}",
                        "make one with `mailctl init`, or name its configuration with --config")]  # fmt: skip
    findings: list[Finding] = []
    try:
        with NamedTemporaryFile(dir=data, prefix=".may-write-"):
            pass
        findings.append(Finding("storage.writable", "ok", f"{data} can be written"))
    except OSError as error:
        owner = data.stat().st_uid
        findings.append(Finding("storage.writable", "error", f"{data} cannot be written: {error.strerror}",
                                f"run this as the server's user (the folder belongs to user {owner})"))  # fmt: skip
    if data.stat().st_mode & 0o007:
        findings.append(Finding("storage.mode", "warning", f"everybody on this machine can look into {data}",
                                f"chmod o-rwx {data}"))  # fmt: skip
    free = shutil.disk_usage(data).free
    remedy = "make room: below 100 MiB mail is refused sooner or later"
    if free < VERY_LITTLE:
        findings.append(Finding("storage.disk", "error", f"{size_text(free)} of disk are free", remedy))
    elif free < LITTLE:
        findings.append(Finding("storage.disk", "warning", f"{size_text(free)} of disk are free", remedy))
    else:
        findings.append(Finding("storage.disk", "ok", f"{size_text(free)} of disk are free"))
    return findings


def _clock(data: Path) -> list[Finding]:
    """A clock that was set back, or was never set: dates of messages and UIDVALIDITY come from it."""
    now = time.time()
    remedy = "set this machine's clock, and keep it by NTP"
    if time.gmtime(now).tm_year < FIRST_YEAR:
        return [Finding("storage.clock", "error", f"it is {time.strftime('%Y', time.gmtime(now))} by this machine's clock", remedy)]
    newest = max((entry.stat().st_mtime for entry in os.scandir(data)), default=0.0) if data.is_dir() else 0.0
    if newest > now + FUTURE_SECONDS:
        return [Finding("storage.clock", "error", f"files in {data} were written {int(newest - now)} s in the future", remedy)]
    return [Finding("storage.clock", "ok", f"the clock says {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(now))} UTC")]


def _schema(path: Path) -> list[Finding]:
    if not path.exists():
        return [Finding("storage.missing", "error", f"there is no {path}", "make one with `mailctl domain add`")]
    try:
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)
        try:
            version = db.execute("SELECT max(version) FROM schema_version").fetchone()[0]
        finally:
            db.close()
    except sqlite3.Error as error:
        return [Finding("storage.schema", "error", f"{path} cannot be read: {error}", "restore it from a backup")]
    if version > VERSION:
        return [Finding("storage.schema", "error", f"schema {version} is of a newer version of the suite (this one: {VERSION})",
                        "install that version")]  # fmt: skip
    if version < VERSION:
        return [Finding("storage.schema", "warning", f"schema {version} is brought to {VERSION} at the next start",
                        "make a backup before")]  # fmt: skip
    return [Finding("storage.schema", "ok", f"schema {version}")]


async def look_inside(reactor: Any, configuration: Configuration) -> list[Finding]:
    """Findings that need the store open: what is in the directory, and who writes."""
    try:
        async with opened(reactor, configuration) as store:
            domains = await store.directory.domains()
            users = await store.directory.accounts()
            aliases = await store.directory.aliases()
    except Exception as error:
        problem = problem_of(error)
        if problem is None:
            raise
        return [Finding("storage.open", "error", problem.text, "see the server's log")]
    findings = [Finding("storage.open", "ok", f"{len(domains)} domains, {len(users)} users, {len(aliases)} aliases")]
    if not domains:
        findings.append(Finding("storage.domains", "warning", "no domain is ours: all mail is refused", "mailctl domain add"))
    elif not users:
        findings.append(Finding("storage.users", "warning", "there is no user", "mailctl user add"))
    addresses = {user.address for user in users} | {alias.address for alias in aliases}
    for alias in aliases:
        for target in alias.targets:
            local = any(target.endswith("@" + domain.name) for domain in domains)
            if target.startswith("@") or not local:
                continue
            if target not in addresses and f"@{target.rpartition('@')[2]}" not in addresses:
                text = f"alias {alias.address} stands for {target}, which is nobody"
                remedy = f"mailctl user add {target}, or mailctl alias add --replace {alias.address} TARGET"
                findings.append(Finding("storage.alias", "warning", text, remedy))
    return findings
