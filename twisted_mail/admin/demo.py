"""``python -m twisted_mail.admin.demo``: a server with two users and their mail, on loopback, to look at.

Everything lies in ./demo; done again, it goes on with what is there (``--fresh``: from nothing). The server is the real
one, `twistd mail`, in a process of its own; Ctrl-C ends both.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import msgspec

from twisted_mail.admin.doctor_ports import endpoint_parts, greeting
from twisted_mail.admin.init import DEV_PORTS, loopback, make
from twisted_mail.admin.init import configuration_text as text_of
from twisted_mail.admin.problems import Problem, Status, problem_of
from twisted_mail.tap.configuration import load

__all__ = ["Demo", "main"]

DOMAIN: Final = "demo.example"
USERS: Final = ("ann", "bob")
MESSAGES: Final = 180
"""For each user."""
START_SECONDS: Final = 60.0
_OURS: Final = {
    "mail.toml", "mail.toml.part", "mail-data", "hello.eml", "passwords.json", "passwords.part", "demo.pid", "server.log",
}  # fmt: skip
_LETTER: Final = """\
From: Ann <ann@demo.example>
To: Bob <bob@demo.example>
Subject: Hello from the command line
Date: Tue, 24 Nov 2026 10:00:00 +0000
Message-ID: <hello@demo.example>

Hello Bob,

this came by submission, and is in your INBOX now.

Ann
"""


def free(port: int) -> bool:
    """Whether *port* can be bound on loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def choose_ports(wanted: Mapping[str, int]) -> dict[str, int]:
    """*wanted*, but another for each that is taken."""
    chosen: dict[str, int] = {}
    for name, port in wanted.items():
        while not free(port) or port in chosen.values():
            port += 1 if port < 65_000 else -20_000
        chosen[name] = port
    return chosen


@dataclass(slots=True)
class Demo:
    """The demo in one folder."""

    folder: Path

    @property
    def configuration(self) -> Path:
        return self.folder / "mail.toml"

    @property
    def _passwords(self) -> Path:
        return self.folder / "passwords.json"

    @property
    def pid_file(self) -> Path:
        return self.folder / "demo.pid"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    # --- making

    def prepare(self, *, fresh: bool) -> list[str]:
        """Make what is not there; lines to say about it. Raises Problem, and what `init.make` raises."""
        running = self.running()
        if running is not None:
            raise Problem(Status.CONFLICT, "running", f"the demo in {self.folder} runs already (process {running})")
        self._check()
        if fresh or not self._passwords.exists():
            # also what an attempt that was cut off has left
            shutil.rmtree(self.folder, ignore_errors=True)
        said: list[str] = []
        ports = choose_ports(DEV_PORTS)
        for name, port in ports.items():
            if port != DEV_PORTS[name]:
                said.append(f"port {DEV_PORTS[name]} is taken: {name} listens on {port}")
        if self._passwords.exists():
            # the ports may be other ones this time
            self.configuration.write_text(text_of("localhost", loopback(ports)), "utf-8")
            return [*said, f"going on with the mail in {self.folder}; --fresh begins anew"]
        started = time.monotonic()
        today = int(time.time()) // 86_400 * 86_400
        made = make(
            self.folder,
            DOMAIN,
            "localhost",
            loopback(ports),
            USERS,
            sample_messages=MESSAGES,
            end=today,
        )
        (self.folder / "hello.eml").write_bytes(_LETTER.replace("\n", "\r\n").encode("ascii"))
        temporary = self._passwords.with_suffix(".part")
        temporary.touch(mode=0o600)
        temporary.write_bytes(msgspec.json.encode(made.passwords))
        temporary.replace(self._passwords)
        seconds = time.monotonic() - started
        return [*said, f"made {self.folder}: {DOMAIN}, {len(USERS)} users, {MESSAGES} messages each, in {seconds:.1f} s"]

    def _check(self) -> None:
        """A folder of something else is left alone. Raises Problem."""
        if self.folder.exists() and {each.name for each in self.folder.iterdir()} - _OURS:
            raise Problem(Status.CONFLICT, "exists", f"{self.folder} is no demo: name another folder with --folder")

    def passwords(self) -> dict[str, str]:
        """Address to password."""
        return msgspec.json.decode(self._passwords.read_bytes(), type=dict[str, str])

    # --- running

    def ports(self) -> dict[str, int]:
        """Listener to port, as the configuration has it."""
        listen = load(self.configuration, {}).listen
        return {name: int(endpoint_parts(at[0])[1][0]) for name in DEV_PORTS if (at := getattr(listen, name))}

    def running(self) -> int | None:
        """The process of a server that was left in the background, if it is alive."""
        try:
            pid = int(self.pid_file.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes() if Path("/proc/self").exists() else b"twistd"
            os.kill(pid, 0)
        except (OSError, ValueError):
            return None
        return pid if b"twistd" in command else None

    def command(self) -> list[str]:
        """What runs the server."""
        twistd = Path(sys.executable).with_name("twistd")
        if not twistd.exists():
            raise Problem(Status.FAILED, "no-twistd", f"there is no {twistd}: install the suite where this Python is")
        return [str(twistd), "-n", "--pidfile=", "mail", "--config", str(self.configuration)]

    def start(self) -> subprocess.Popen[bytes]:
        """Start the server and wait until every listener answers. Raises Problem with the end of its log."""
        words = self.command()
        with self.log.open("wb") as log:
            # a session of its own: Ctrl-C on the terminal is for this process, which then ends the server in order
            server = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            self.pid_file.write_text(str(server.pid))
            self._wait(server)
        except BaseException:
            self.stop(server)
            raise
        return server

    def _wait(self, server: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        for name, port in self.ports().items():
            while True:
                if server.poll() is not None:
                    raise Problem(Status.FAILED, "server", f"the server has ended:\n{self._end_of_log()}")
                try:
                    if greeting(name, ("127.0.0.1", port), 5.0):
                        break
                except OSError:
                    pass
                if time.monotonic() > deadline:
                    raise Problem(Status.FAILED, "server", f"{name} does not answer:\n{self._end_of_log()}")
                time.sleep(0.1)

    def _end_of_log(self) -> str:
        lines = self.log.read_text("utf-8", "replace").splitlines()
        return "\n".join(lines[-15:])

    def stop(self, server: subprocess.Popen[bytes]) -> None:
        """End a server that this process has started."""
        if server.poll() is None:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
        self.pid_file.unlink(missing_ok=True)

    def stop_background(self) -> bool:
        """End a server that was left in the background; False if there is none."""
        pid = self.running()
        if pid is None:
            self.pid_file.unlink(missing_ok=True)
            return False
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 40
        while self.running() is not None and time.monotonic() < deadline:
            time.sleep(0.1)
        self.pid_file.unlink(missing_ok=True)
        return True

    # --- telling

    def instructions(self) -> str:
        """How to read and send the demo's mail."""
        ports, passwords = self.ports(), self.passwords()
        ann, bob = (f"{user}@{DOMAIN}" for user in USERS)
        login, other = f"--user {ann}:{passwords[ann]}", f"--user {bob}:{passwords[bob]}"
        at = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
        letter = self.folder / "hello.eml"
        return f"""
{ann}  password {passwords[ann]}
{bob}  password {passwords[bob]}

Read by IMAP: mailboxes, counts, a message, a search (and encrypted from the start):

    curl imap://{at["imap"]}/ {login}
    curl imap://{at["imap"]}/ {login} --request 'STATUS INBOX (MESSAGES UNSEEN)'
    curl 'imap://{at["imap"]}/INBOX;MAILINDEX=1' {login}
    curl 'imap://{at["imap"]}/INBOX?SUBJECT%20meeting' {login}
    curl --insecure 'imaps://{at["imaps"]}/INBOX;MAILINDEX=1' {login}

Read by POP3: the list, a message:

    curl pop3://{at["pop3"]}/ {login}
    curl pop3://{at["pop3"]}/1 {login}

Send from Ann to Bob by submission, and see it arrive; as another server would, by SMTP:

    curl smtp://{at["submission"]} {login} --mail-from {ann} --mail-rcpt {bob} --upload-file {letter}
    curl 'imap://{at["imap"]}/INBOX;MAILINDEX=*' {other}
    curl smtp://{at["smtp"]} --mail-from someone@example.net --mail-rcpt {bob} --upload-file {letter}

Thunderbird: add an account, "Configure manually":

    name Ann, address {ann}, password as above
    incoming  IMAP, 127.0.0.1, port {ports["imaps"]}, SSL/TLS, normal password, user {ann}
              (or POP3, port {ports["pop3s"]})
    outgoing  SMTP, 127.0.0.1, port {ports["submissions"]}, SSL/TLS, normal password, user {ann}
    "Re-test", "Done", and confirm the exception for the self-signed certificate (for sending once more)

Manage it:

    {Path(sys.executable).with_name("mailctl")} --config {self.configuration} user list
"""


@click.command()
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), default=Path("demo"), show_default=True)
@click.option("--fresh", is_flag=True, help="Throw the demo's mail away and begin anew.")
@click.option("--once", is_flag=True, help="Start, see that everything answers, and end.")
@click.option("--background", is_flag=True, help="Leave the server running, and end.")
@click.option("--stop", "stopping", is_flag=True, help="End a server that was left in the background.")
def main(folder: Path, fresh: bool, once: bool, background: bool, stopping: bool) -> None:
    """A mail server with two users and their mail, to look at."""
    demo = Demo(folder)
    for number in (signal.SIGTERM, signal.SIGHUP):
        # the terminal is closed, or the system goes down: as Ctrl-C, so that the server does not stay behind
        signal.signal(number, signal.default_int_handler)
    try:
        if stopping:
            click.echo("the server has ended" if demo.stop_background() else "no server runs")
            return
        for line in demo.prepare(fresh=fresh):
            click.echo(line)
        server = demo.start()
        click.echo(demo.instructions())
        if background:
            click.echo(f"The server is process {server.pid}; `python -m twisted_mail.admin.demo --stop` ends it.")
            return
        try:
            if not once:
                click.echo(f"The server runs, its log is {demo.log}. Ctrl-C ends it.")
                server.wait()
                raise Problem(Status.FAILED, "server", f"the server has ended; see {demo.log}")
        except KeyboardInterrupt:
            click.echo("ending")
        finally:
            demo.stop(server)
    except (Exception, KeyboardInterrupt) as error:
        problem = problem_of(error)
        if problem is None:
            raise
        click.echo(problem.text, err=True)
        sys.exit(int(problem.status))


if __name__ == "__main__":
    main()
