"""Mail between the real server and Debian's Postfix and Exim, in both directions, over TLS, with everything that each offers."""

from __future__ import annotations

import email
import email.policy
import imaplib
import shutil
import smtplib
import tempfile
import time
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import TypeVar

import pytest

from tests.relay.receiver import Authority
from tests.services import running
from tests.services.exim import Exim
from tests.services.postfix import Postfix
from tests.services.processes import free_port
from tests.whole.running import PASSWORD, RunningServer

T = TypeVar("T")
Other = Postfix | Exim
USERS = ["olga", "bjørn"]


class Towns:
    """Ours (demo.example) and both others (postfix.test, exim.test), who know the way to each other."""

    def __init__(self, folder: Path) -> None:
        authority = Authority(folder)
        certificates = {name: folder / f"{name}.pem" for name in ("postfix", "exim")}
        for name, path in certificates.items():
            path.write_bytes(authority.pem(f"mx.{name}.test"))
        (folder / "ours").mkdir()
        self.ours = RunningServer(folder / "ours")
        port = self.ours.ports["smtp"]
        self.others: dict[str, Other] = {
            "postfix": Postfix.keeping(folder / "postfix", "postfix.test", USERS, "demo.example", port, certificates["postfix"]),
            "exim": Exim(folder / "exim", "exim.test", USERS, "demo.example", port, certificates["exim"]),
        }
        routes = "".join(f'"{name}.test" = "smtp://127.0.0.1:{other.port}"\n' for name, other in self.others.items())
        extra = f'[relay]\nretry = ["2s"]\n[relay.routes]\n{routes}[dns]\nservers = ["127.0.0.1:{free_port()}"]\n'
        self.ours.config.write_text(self.ours.config.read_text() + extra)

    def start(self) -> None:
        self.ours.populate()
        self.ours.start()
        for other in self.others.values():
            other.start()

    def stop(self) -> None:
        for other in self.others.values():
            other.stop()
        if self.ours.process is not None:
            self.ours.stop()

    # --- sending

    def submit(self, message: bytes, to: str, mail: tuple[str, ...] = (), rcpt: tuple[str, ...] = ()) -> None:
        with smtplib.SMTP("127.0.0.1", self.ours.ports["submission"], timeout=30) as client:
            client.ehlo("client.example")
            client.login("ann@demo.example", PASSWORD)
            _transaction(client, "ann@demo.example", to, message, mail, rcpt)

    def hand_to(self, other: Other, message: bytes, sender: str, to: str, mail: tuple[str, ...] = (), rcpt: tuple[str, ...] = ()) -> None:
        with smtplib.SMTP("127.0.0.1", other.port, timeout=30) as client:
            client.ehlo("client.example")
            _transaction(client, sender, to, message, mail, rcpt)

    # --- what has come

    def inbox(self, user: str) -> list[bytes]:
        client = imaplib.IMAP4("127.0.0.1", self.ours.ports["imap"])
        try:
            client.login(f"{user}@demo.example", PASSWORD)
            client.select("INBOX", readonly=True)
            _, found = client.search(None, "ALL")
            numbers = found[0].split()
            return [client.fetch(number.decode(), "(BODY.PEEK[])")[1][0][1] for number in numbers]  # type: ignore[index,misc]
        finally:
            client.logout()

    def at_ours(self, user: str, subject: str) -> bytes:
        return self.until(lambda: _with(self.inbox(user), subject), subject)

    def at(self, other: Other, subject: str) -> bytes:
        return self.until(lambda: _with(other.mail(), subject), subject)

    def until(self, look: Callable[[], T | None], what: str) -> T:
        deadline = time.monotonic() + 60
        while (found := look()) is None:
            if time.monotonic() > deadline:
                logs = "\n".join(f"--- {name}\n{other.log()[-3000:]}" for name, other in self.others.items())
                raise AssertionError(f"{what!r} has not come\n--- ours\n{self.ours.log()[-3000:]}\n{logs}")
            time.sleep(0.1)
        return found


def _transaction(client: smtplib.SMTP, sender: str, to: str, message: bytes, mail: tuple[str, ...], rcpt: tuple[str, ...]) -> None:
    client.command_encoding = "utf-8"
    code, said = client.mail(sender, mail)
    assert code == 250, said
    code, said = client.rcpt(to, rcpt)
    assert code in (250, 251), said
    code, said = client.data(message)
    assert code == 250, said


def _with(messages: list[bytes], subject: str) -> bytes | None:
    return next((each for each in messages if subject.encode() in each), None)


def letter(subject: str, sender: str, to: str, body: str = "Räksmörgås\r\n.\r\n..dots\r\n") -> bytes:
    return (
        f"From: {sender}\r\nTo: {to}\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\n"
        f"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{body}"
    ).encode()


def body_of(message: bytes) -> bytes:
    return message.replace(b"\r\n", b"\n").partition(b"\n\n")[2]


def parts_of(message: bytes) -> EmailMessage:
    parsed = email.message_from_bytes(message, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    return parsed


@pytest.fixture(scope="module")
def towns() -> Iterator[Towns]:
    if not Postfix.installed():
        running.unavailable("Postfix is not installed (apt-get install postfix), or this is not root")
    folder = Path(tempfile.mkdtemp(prefix="mail-others-"))
    folder.chmod(0o755)
    towns = Towns(folder)
    try:
        towns.start()
        yield towns
    finally:
        towns.stop()
        shutil.rmtree(folder, ignore_errors=True)


BOTH = pytest.mark.parametrize("name", ["postfix", "exim"])
EIGHT_BIT = ("BODY=8BITMIME",)
UTF8 = ("BODY=8BITMIME", "SMTPUTF8")


@BOTH
def test_ours_sends_to_theirs(towns: Towns, name: str) -> None:
    subject, to = f"out to {name}", f"olga@{name}.test"
    message = letter(subject, "ann@demo.example", to)
    towns.submit(message, to, EIGHT_BIT)
    came = towns.at(towns.others[name], subject)
    assert body_of(came) == body_of(message)
    assert b"with ESMTPS" in came or b"with esmtps" in came, "it went by TLS"


@BOTH
def test_theirs_sends_to_ours(towns: Towns, name: str) -> None:
    subject, sender = f"in from {name}", f"olga@{name}.test"
    message = letter(subject, sender, "bob@demo.example")
    towns.hand_to(towns.others[name], message, sender, "bob@demo.example", EIGHT_BIT)
    came = towns.at_ours("bob", subject)
    assert body_of(came) == body_of(message)
    assert b"with ESMTPS" in came, "it came by TLS"


@BOTH
def test_addresses_that_are_not_ascii_go_both_ways(towns: Towns, name: str) -> None:
    bjorn = f"bjørn@{name}.test"
    towns.submit(letter(f"utf8 to {name}", "ann@demo.example", bjorn), bjorn, UTF8)
    assert "bjørn".encode() in towns.at(towns.others[name], f"utf8 to {name}")
    message = letter(f"utf8 from {name}", bjorn, "bob@demo.example")
    towns.hand_to(towns.others[name], message, bjorn, "bob@demo.example", UTF8)
    assert f"Return-Path: <{bjorn}>".encode() in towns.at_ours("bob", f"utf8 from {name}")


@BOTH
def test_a_report_of_success_comes_back_from_theirs(towns: Towns, name: str) -> None:
    to, subject = f"olga@{name}.test", f"notify {name}"
    towns.submit(letter(subject, "ann@demo.example", to), to, (*EIGHT_BIT, "RET=HDRS", f"ENVID=id-{name}"), ("NOTIFY=SUCCESS",))
    towns.at(towns.others[name], subject)

    def report() -> EmailMessage | None:
        for message in map(parts_of, towns.inbox("ann")):
            if message.get_content_type() == "multipart/report" and f"id-{name}" in message.as_string():
                return message
        return None

    said = towns.until(report, f"the report about {subject}").as_string().lower()
    assert "action: delivered" in said
    assert f"final-recipient: rfc822;{to}" in said.replace("; ", ";")


@BOTH
def test_our_bounce_of_what_theirs_refuses(towns: Towns, name: str) -> None:
    to = f"nobody@{name}.test"
    towns.submit(letter(f"in vain to {name}", "ann@demo.example", to), to)

    def bounce() -> EmailMessage | None:
        for message in map(parts_of, towns.inbox("ann")):
            if message.get_content_type() == "multipart/report" and to in message.as_string():
                return message
        return None

    message = towns.until(bounce, f"the bounce from {name}")
    said = message.as_string()
    assert "Action: failed" in said and "\nStatus: 5." in said
    assert f"in vain to {name}" in said, "the original's header is in it"


@BOTH
def test_their_bounce_of_what_ours_refuses(towns: Towns, name: str) -> None:
    sender = f"olga@{name}.test"
    other = towns.others[name]
    towns.hand_to(other, letter(f"in vain from {name}", sender, "nobody@demo.example"), sender, "nobody@demo.example")
    bounce = towns.until(lambda: _with([each for each in other.mail() if b"Return-Path: <>" in each or b"multipart/report" in each],
                                       "nobody@demo.example"), f"the bounce at {name}")  # fmt: skip
    assert b"550" in bounce
