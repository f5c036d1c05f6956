"""Debian's Postfix as the other side of a conversation: takes mail by SMTP, keeps it or gives it to somebody's LMTP, and
hands on what is for others."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tests.services.processes import Killable, NotReady, Process, free_port

__all__ = ["Postfix", "Sink"]

_SBIN = "/usr/sbin"


class Sink(Killable):
    """smtp-sink of the same package: takes everything and throws it away, or fails as its options say."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        user = ["-u", "nobody"] if os.getuid() == 0 else []
        words = [f"{_SBIN}/smtp-sink", *user, *options, f"127.0.0.1:{self.port}", "64"]
        self.process = Process(f"smtp-sink-{self.port}", words, folder)

    @staticmethod
    def installed() -> bool:
        return shutil.which("smtp-sink", path=_SBIN) is not None

    def start(self) -> None:
        self.process.start()
        self.process.wait("127.0.0.1", self.port, 30)


class Postfix(Killable):
    """Takes mail for *domain*; offers STARTTLS with *certificate* (PEM, key and chain together). *more*: settings."""

    def __init__(
        self, folder: Path, lmtp_port: int, domain: str, certificate: Path | None = None, more: Mapping[str, str] | None = None
    ) -> None:
        self.port = free_port()
        self.folder = folder
        for name in ("etc", "spool", "data"):
            (folder / name).mkdir(parents=True)
        for parent in (folder, *folder.parents):
            if parent == Path("/tmp") or parent == Path("/"):
                break
            with contextlib.suppress(OSError):
                parent.chmod(parent.stat().st_mode | 0o055)
        shutil.chown(folder / "data", "postfix", "postfix")
        settings = {
            "compatibility_level": "3.6",
            "queue_directory": f"{folder}/spool",
            "data_directory": f"{folder}/data",
            "command_directory": _SBIN,
            "daemon_directory": "/usr/lib/postfix/sbin",
            "mail_owner": "postfix",
            "setgid_group": "postdrop",
            "myhostname": f"mx.{domain}",
            "mydestination": "",
            "mynetworks": "127.0.0.0/8",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "alias_maps": "",
            "local_recipient_maps": "",
            "virtual_mailbox_domains": domain,
            "virtual_transport": f"lmtp:inet:127.0.0.1:{lmtp_port}",
            "smtpd_client_connection_rate_limit": "0",
            "smtpd_client_connection_count_limit": "0",
            "maillog_file": "/dev/stdout",
            **(more or {}),
        }
        if certificate is not None:
            settings |= {"smtpd_tls_chain_files": str(certificate), "smtpd_tls_security_level": "may"}
        (folder / "etc/main.cf").write_text("".join(f"{key} = {value}\n" for key, value in settings.items()))
        (folder / "etc/master.cf").write_text(
            f"127.0.0.1:{self.port} inet n - n - - smtpd\n"
            "pickup unix n - n 60 1 pickup\n"
            "cleanup unix n - n - 0 cleanup\n"
            "qmgr unix n - n 300 1 qmgr\n"
            "tlsmgr unix - - n 1000? 1 tlsmgr\n"
            "rewrite unix - - n - - trivial-rewrite\n"
            "bounce unix - - n - 0 bounce\n"
            "defer unix - - n - 0 bounce\n"
            "trace unix - - n - 0 bounce\n"
            "verify unix - - n - 1 verify\n"
            "proxymap unix - - n - - proxymap\n"
            "smtp unix - - n - - smtp\n"
            "error unix - - n - - error\n"
            "retry unix - - n - - error\n"
            "lmtp unix - - n - - lmtp\n"
            "virtual unix - n n - - virtual\n"
            "anvil unix - - n - 1 anvil\n"
            "scache unix - - n - 1 scache\n"
            "postlog unix-dgram n - n - 1 postlogd\n"
        )
        words = [f"{_SBIN}/postfix", "-c", str(folder / "etc"), "start-fg"]
        self.process = Process("postfix", words, folder, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})

    def stop(self) -> None:
        """Its master is a child of what was started, and does not end with it."""
        with contextlib.suppress(OSError, ValueError):
            master = int((self.folder / "spool/pid/master.pid").read_text())
            os.kill(master, signal.SIGTERM)
            deadline = time.monotonic() + 20
            while Path(f"/proc/{master}").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
        self.process.stop()

    @staticmethod
    def keeping(folder: Path, domain: str, users: list[str], other: str, other_port: int, certificate: Path) -> Postfix:
        """One that keeps mail for *users* in `maildir`, and sends what is for *other* to a server on loopback."""
        known = " ".join(f"{{ {user}@{domain} = inbox/ }}" for user in users)
        owner = pwd.getpwnam("mail")
        postfix = Postfix(
            folder,
            0,
            domain,
            certificate,
            {
                "virtual_transport": "virtual",
                "virtual_mailbox_base": str(folder / "mail"),
                "virtual_mailbox_maps": f"inline:{{ {known} }}",
                "virtual_minimum_uid": "1",
                "virtual_uid_maps": f"static:{owner.pw_uid}",
                "virtual_gid_maps": f"static:{owner.pw_gid}",
                "transport_maps": f"inline:{{ {{ {other} = smtp:[127.0.0.1]:{other_port} }} }}",
                "smtp_tls_security_level": "may",
                "minimal_backoff_time": "5s",
                "queue_run_delay": "5s",
            },
        )
        (folder / "mail").mkdir()
        os.chown(folder / "mail", owner.pw_uid, owner.pw_gid)
        return postfix

    def mail(self) -> list[bytes]:
        """What it has kept, oldest first."""
        files = sorted((self.folder / "mail/inbox/new").glob("*"), key=lambda path: path.stat().st_mtime_ns)
        return [path.read_bytes() for path in files]

    def log(self) -> str:
        return self.process.end_of_log(200)

    @staticmethod
    def installed() -> bool:
        """As root only: Postfix gives its files to users of its own."""
        return os.getuid() == 0 and shutil.which("postfix", path=_SBIN) is not None

    def start(self) -> None:
        """Until it greets. Raises NotReady."""
        self.process.start()
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 10.0) as probe:
                if probe.recv(1):
                    return
            if time.monotonic() > deadline or not self.process.running:
                raise NotReady(f"Postfix does not greet:\n{self.process.end_of_log()}")
            time.sleep(0.1)
