"""Starts and stops what is measured, on loopback, each in a folder of its own; reads its CPU time and memory."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path

from tests.services.processes import free_port

__all__ = ["PASSWORD", "Dovecot", "Ours", "Postfix", "Server", "user"]

PASSWORD = "correct-horse-battery"
DOMAIN = "bench.example"
USERS = 8
_TICK = os.sysconf("SC_CLK_TCK")


def user(number: int = 0) -> str:
    """The address of one of the accounts that every server has."""
    return f"user{number}@{DOMAIN}"


def _children() -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                found.setdefault(int(fields[1]), []).append(int(entry.name))
    return found


def family(root: int) -> list[int]:
    """The process *root* and all below it."""
    children, found, waiting = _children(), [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


class Server(ABC):
    """A server that is measured."""

    name: str
    folder: Path
    ports: dict[str, int]
    pid: int = 0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {}

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def stop(self) -> None: ...

    def has(self, service: str) -> bool:
        """Whether it speaks *service* (smtp, lmtp, imap, pop3)."""
        return service in self.ports

    def cpu_seconds(self) -> float:
        """User and system time so far of all its processes, those that ended included."""
        total = 0
        for pid in family(self.pid):
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += sum(int(field) for field in fields[11:15])
        return total / _TICK

    def memory_bytes(self) -> int:
        """Proportional set size of all its processes."""
        total = 0
        for pid in family(self.pid):
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) * 1024
        return total

    def wait(self) -> None:
        """Until every port answers. Raises TimeoutError."""
        deadline = time.monotonic() + 30
        for port in self.ports.values():
            while True:
                try:
                    with socket.create_connection(("127.0.0.1", port), 5) as probe:
                        if probe.recv(1):  # ours opens its ports early, and greets when it is ready
                            break
                except OSError:
                    pass
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{self.name} does not answer on port {port}") from None
                time.sleep(0.05)


class Ours(Server):
    """`twistd mail` with the embedded store."""

    name = "ours"

    def __init__(self, folder: Path, workers: int = 1) -> None:
        super().__init__(folder)
        self.workers = workers
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ports = {name: free_port() for name in ("smtp", "lmtp", "imap", "pop3")}
        listen = "\n".join(f'{n} = ["tcp:{p}:interface=127.0.0.1"]' for n, p in self.ports.items())
        (self.folder / "mail.toml").write_text(
            f'hostname = "mx.{DOMAIN}"\ndata = "data"\n[listen]\n{listen}\n'
            "[auth]\nfailures_per_minute = 0\n[limits]\nconnections_per_address = 0\n"
        )
        scripts = Path(sys.executable).parent
        ctl = [str(scripts / "mailctl"), "--config", str(self.folder / "mail.toml")]
        if not (self.folder / "data").exists():
            subprocess.run([*ctl, "domain", "add", DOMAIN], check=True, capture_output=True)
            for number in range(USERS):
                subprocess.run(
                    [*ctl, "user", "add", user(number), "--password-stdin"],
                    input=PASSWORD.encode() + b"\n",
                    check=True,
                    capture_output=True,
                )
        arguments = [str(scripts / "twistd"), "-n", "--pidfile=", "mail", "--config", "mail.toml"]
        if self.workers > 1:
            arguments += ["--workers", str(self.workers)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(arguments, cwd=self.folder, stdout=log, stderr=log)
        self.pid = self._process.pid
        self.wait()

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


class _Daemon(Server):
    """One that goes into the background by itself and leaves a pid file."""

    def _launch(self, command: list[str], pid_file: Path) -> None:
        subprocess.run(
            command,
            check=True,
            env={**os.environ, "PATH": _PATH},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.pid = _pid_in(pid_file)
        self.wait()

    def stop(self) -> None:
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
            _gone(self.pid)
            self.pid = 0


class Dovecot(_Daemon):
    """Debian's Dovecot: IMAP, POP3, LMTP; sdbox, or Maildir."""

    name = "dovecot"

    def __init__(self, folder: Path, layout: str = "sdbox") -> None:
        super().__init__(folder)
        self.layout = layout

    @staticmethod
    def installed() -> bool:
        return shutil.which("dovecot", path="/usr/sbin:/usr/bin") is not None and os.getuid() == 0

    def start(self) -> None:
        self.ports = {name: free_port() for name in ("lmtp", "imap", "pop3")}
        run = self.folder
        run.mkdir(parents=True, exist_ok=True)
        owner = pwd.getpwnam("mail")
        (run / "home").mkdir(exist_ok=True)
        os.chown(run / "home", owner.pw_uid, owner.pw_gid)
        for parent in (run, *run.parents):
            if parent == Path("/tmp") or parent == Path("/"):
                break
            parent.chmod(0o755)
        hashed = subprocess.run(
            ["doveadm", "pw", "-s", "ARGON2ID", "-p", PASSWORD], check=True, capture_output=True, text=True
        ).stdout.strip()
        (run / "users").write_text("".join(f"{user(number)}:{hashed}::::::\n" for number in range(USERS)))
        (run / "dovecot.conf").write_text(f"""
base_dir = {run}/run
state_dir = {run}/state
log_path = {run}/dovecot.log
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
protocols = imap pop3 lmtp
mail_location = {self.layout}:~/mail
mail_uid = {owner.pw_uid}
mail_gid = {owner.pw_gid}
first_valid_uid = 1
auth_cache_size = 1M
auth_failure_delay = 0
passdb {{
  driver = passwd-file
  args = {run}/users
}}
userdb {{
  driver = static
  args = uid={owner.pw_uid} gid={owner.pw_gid} home={run}/home/%u
}}
service imap-login {{
  client_limit = 1000
  process_min_avail = 1
  inet_listener imap {{
    port = {self.ports["imap"]}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service imap {{
  process_limit = 1024
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {self.ports["pop3"]}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
service lmtp {{
  process_min_avail = 1
  inet_listener lmtp {{
    port = {self.ports["lmtp"]}
  }}
}}
service anvil {{
  client_limit = 5000
}}
service auth {{
  client_limit = 5000
}}
namespace inbox {{
  inbox = yes
  mailbox Trash {{
    auto = create
  }}
}}
mail_max_userip_connections = 5000
""")
        self._launch(["dovecot", "-c", str(run / "dovecot.conf")], run / "run/master.pid")



class Postfix(_Daemon):
    """Debian's Postfix, which gives what it takes to Dovecot's LMTP: SMTP's peer."""

    name = "postfix+dovecot"

    def __init__(self, folder: Path, behind: Dovecot) -> None:
        super().__init__(folder)
        self.behind = behind

    @staticmethod
    def installed() -> bool:
        return shutil.which("postfix", path="/usr/sbin") is not None and Dovecot.installed()

    def start(self) -> None:
        self.ports = {"smtp": free_port()}
        run = self.folder
        for name in ("etc", "spool", "data"):
            (run / name).mkdir(parents=True, exist_ok=True)
        shutil.chown(run / "data", "postfix", "postfix")
        (run / "etc/main.cf").write_text(f"""
compatibility_level = 3.6
queue_directory = {run}/spool
data_directory = {run}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = mx.{DOMAIN}
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
local_recipient_maps =
virtual_mailbox_domains = {DOMAIN}
virtual_transport = lmtp:inet:127.0.0.1:{self.behind.ports["lmtp"]}
maillog_file = {run}/postfix.log
maillog_file_prefixes = {run}
smtpd_client_connection_rate_limit = 0
smtpd_client_connection_count_limit = 0
default_destination_concurrency_limit = 8
""")
        (run / "etc/master.cf").write_text(f"""
127.0.0.1:{self.ports["smtp"]} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
""")
        self._launch(["postfix", "-c", str(run / "etc"), "start"], run / "spool/pid/master.pid")

    def cpu_seconds(self) -> float:
        return super().cpu_seconds() + self.behind.cpu_seconds()


_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def _pid_in(file: Path) -> int:
    """The number in a pid file, once it is there. Raises TimeoutError."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            return int(file.read_text())
        time.sleep(0.05)
    raise TimeoutError(f"{file} was not written")


def _gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
