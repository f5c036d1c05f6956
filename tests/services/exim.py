"""Debian's Exim, fetched without being installed (it and Postfix exclude each other): takes mail, keeps it in a Maildir,
and hands on what is for others."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path

from tests.services import fetch, running
from tests.services.processes import Killable, NotReady, Process, free_port

__all__ = ["Exim"]

_PACKAGES = ("exim4-daemon-light", "exim4-base", "libnss-wrapper")


def _program() -> Path:
    """Its folder; fetched by apt, at the first use. Ends the test where that cannot be."""
    place = fetch.folder() / "exim"
    if not place.exists():
        if os.getuid() != 0 or shutil.which("apt-get") is None or shutil.which("dpkg") is None:
            running.unavailable("Exim is fetched by apt-get and needs root")
        part = place.with_name(f"exim.part.{os.getpid()}")
        part.mkdir(parents=True)
        try:
            for words in (["apt-get", "update", "-qq"], ["apt-get", "download", "-qq", *_PACKAGES]):
                done = subprocess.run(words, cwd=part, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
                if done.returncode and "download" in words:
                    running.unavailable(f"Exim could not be fetched: {done.stderr.strip()[-200:]}")
            for package in part.glob("*.deb"):
                subprocess.run(["dpkg", "-x", package, part / "root"], check=True, capture_output=True, timeout=60)
            with contextlib.suppress(OSError):
                (part / "root").rename(place)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return place


class Exim(Killable):
    """Takes mail for *users* of *domain* into `maildir`; sends what is for *other* to a server on loopback."""

    def __init__(self, folder: Path, domain: str, users: list[str], other: str, other_port: int, certificate: Path) -> None:
        root = _program()
        self.port = free_port()
        self.folder = folder
        self.maildir = folder / "inbox"
        folder.mkdir(parents=True, exist_ok=True)
        # The program wants a user of its own to exist; it sees these files in place of /etc/passwd and /etc/group.
        owner = pwd.getpwnam("mail")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        own = {"passwd": f"x:{owner.pw_uid}:{owner.pw_gid}::/nonexistent:/bin/false", "group": f"x:{owner.pw_gid}:"}
        for name, rest in own.items():
            (folder / name).write_text(f"Debian-exim:{rest}\n" + Path(f"/etc/{name}").read_text())
        # It runs itself again as that user, who may not read the cache.
        program = Path(shutil.copy(root / "usr/sbin/exim4", folder / "exim4"))
        program.chmod(0o755)  # not setuid: that would keep it from seeing those files
        library = Path(shutil.copy(next((root / "usr/lib").rglob("libnss_wrapper.so*")), folder))
        configuration = folder / "exim.conf"
        configuration.write_text(
            f"""
exim_path = {program}
deliver_drop_privilege
keep_environment = LD_PRELOAD : NSS_WRAPPER_PASSWD : NSS_WRAPPER_GROUP : PATH
primary_hostname = mx.{domain}
spool_directory = {folder}/spool
log_file_path = {folder}/exim.%slog
local_interfaces = 127.0.0.1
daemon_smtp_ports = {self.port}
tls_advertise_hosts = *
tls_certificate = {certificate}
tls_privatekey = {certificate}
smtputf8_advertise_hosts = *
dsn_advertise_hosts = *
chunking_advertise_hosts = *
rfc1413_query_timeout = 0s
host_lookup =
acl_smtp_rcpt = acl_rcpt
acl_smtp_data = acl_data
allow_utf8_domains = true
begin acl
acl_rcpt:
  accept domains = {domain}
         local_parts = {" : ".join(users)}
  deny   domains = {domain}
         message = no such user here
  accept hosts = 127.0.0.1
acl_data:
  accept
begin routers
ours:
  driver = accept
  domains = {domain}
  local_parts = {" : ".join(users)}
  transport = maildir
others:
  driver = manualroute
  route_list = {other} 127.0.0.1
  self = send
  transport = to_other
begin transports
maildir:
  driver = appendfile
  directory = {self.maildir}
  maildir_format
  envelope_to_add
  create_directory
to_other:
  driver = smtp
  port = {other_port}
  allow_localhost
  hosts_try_chunking = *
begin retry
* * F,1h,1m
"""
        )
        environment = {
            "LD_PRELOAD": str(library),
            "NSS_WRAPPER_PASSWD": str(folder / "passwd"),
            "NSS_WRAPPER_GROUP": str(folder / "group"),
        }
        words = [str(program), "-C", str(configuration), "-bdf", "-q5s"]
        self.process = Process("exim", words, folder, environment)

    def start(self) -> None:
        """Until it greets. Raises NotReady."""
        self.process.start()
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 10.0) as probe:
                if probe.recv(1):
                    return
            if time.monotonic() > deadline or not self.process.running:
                raise NotReady(f"Exim does not greet:\n{self.process.end_of_log()}")
            time.sleep(0.1)

    def mail(self) -> list[bytes]:
        """What it has taken, oldest first."""
        files = sorted((self.maildir / "new").glob("*"), key=lambda path: path.stat().st_mtime_ns)
        return [path.read_bytes() for path in files]

    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("exim*log")))
