"""Every message comes back octet for octet, whichever way it went in and out."""

from __future__ import annotations

import imaplib
import poplib
import re
import smtplib
import socket
import ssl
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

import pytest

from tests.mime.generate import generate
from tests.whole.running import PASSWORD, RunningServer

GENERATED = 600
setattr(imaplib, "_MAXLINE", 50_000_000)  # noqa: B010  # no public way, and not in its stubs
setattr(poplib, "_MAXLINE", 50_000_000)  # noqa: B010


def cpython_messages() -> list[bytes]:
    """The messages of CPython's own email tests, with CRLF line ends; empty where that package is not installed."""
    try:
        folder = resources.files("test.test_email.data")
    except ModuleNotFoundError:
        return []
    found = [file.read_bytes() for file in folder.iterdir() if re.fullmatch(r"msg_\d+\.txt", file.name)]
    return [re.sub(rb"\r?\n|\r", b"\r\n", octets) for octets in found]


def wire_safe(octets: bytes) -> bytes:
    """What may go through SMTP's DATA: lines that end with CRLF, no bare CR or LF, no NUL."""
    octets = re.sub(rb"\r\n|\r|\n", b"\r\n", octets.replace(b"\x00", b"?"))
    return octets if octets.endswith(b"\r\n") else octets + b"\r\n"


CPYTHON = cpython_messages()
MESSAGES = [octets for octets in (*CPYTHON, *(generate(seed) for seed in range(GENERATED))) if octets]
"""An empty one cannot be appended: RFC 3502 section 6.3.11 makes it the end of the command."""
SAFE = [wire_safe(octets) for octets in MESSAGES]


def test_cpythons_messages_are_there() -> None:
    assert len(CPYTHON) > 40


class Wire:
    """Just enough of SMTP and LMTP to send octets that smtplib would repair."""

    def __init__(self, port: int, hello: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 30)
        self.file = self.socket.makefile("rb")
        self.reply(b"220")
        self.command(hello, b"250")

    def reply(self, wanted: bytes) -> bytes:
        while True:
            line = self.file.readline()
            assert line.startswith(wanted), line
            if line[3:4] == b" ":
                return line

    def command(self, line: bytes, wanted: bytes) -> bytes:
        self.socket.sendall(line + b"\r\n")
        return self.reply(wanted)

    def send(self, octets: bytes, recipient: bytes) -> None:
        self.socket.sendall(b"MAIL FROM:<x@elsewhere.example> BODY=8BITMIME\r\nRCPT TO:<" + recipient + b">\r\nDATA\r\n")
        self.reply(b"250"), self.reply(b"250"), self.reply(b"354")
        stuffed = re.sub(rb"(?m)^\.", b"..", octets)
        self.socket.sendall(stuffed + (b"" if octets.endswith(b"\r\n") or not octets else b"\r\n") + b".\r\n")
        self.reply(b"250")

    def close(self) -> None:
        self.command(b"QUIT", b"221")
        self.file.close()
        self.socket.close()


def imap(server: RunningServer, user: str = "ann") -> imaplib.IMAP4:
    connection = imaplib.IMAP4("127.0.0.1", server.ports["imap"])
    # imaplib sends a literal and its CRLF in two writes, which without this wait 40 ms for each other
    connection.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.login(f"{user}@demo.example", PASSWORD)
    return connection


def all_bodies(connection: imaplib.IMAP4, mailbox: str) -> list[bytes]:
    """Every message of a mailbox, in order."""
    typ, count = connection.select(mailbox, readonly=True)
    assert typ == "OK"
    if count == [b"0"]:
        return []
    typ, answers = connection.fetch("1:*", "(BODY.PEEK[])")
    assert typ == "OK"
    return [answer[1] for answer in answers if isinstance(answer, tuple)]


def clear(server: RunningServer, user: str) -> None:
    connection = imap(server, user)
    connection.select("INBOX")
    connection.store("1:*", "+FLAGS.SILENT", "(\\Deleted)")
    connection.expunge()
    connection.logout()


def same_behind_trace(received: Sequence[bytes], sent: Sequence[bytes]) -> None:
    """Each is what was sent, behind a Return-Path and a Received field."""
    assert len(received) == len(sent)
    for got, octets in zip(received, sent, strict=True):
        assert got.endswith(octets)
        trace = got[: len(got) - len(octets)]
        assert trace.startswith(b"Return-Path: <") and b"\r\nReceived: from " in trace and trace.endswith(b"\r\n")


def test_append_to_fetch(server: RunningServer) -> None:
    connection = imap(server)
    connection.create("appended")
    for octets in MESSAGES:
        if b"\x00" in octets:
            continue
        typ, answer = connection.append("appended", "", "", octets)
        assert typ == "OK", answer
    # imaplib makes every line end CRLF
    wanted = [re.sub(rb"\r\n|\r|\n", b"\r\n", octets) for octets in MESSAGES if b"\x00" not in octets]
    assert all_bodies(connection, "appended") == wanted
    connection.logout()


def test_append_of_any_octets_as_a_binary_literal(server: RunningServer) -> None:
    """imaplib mends line ends, so this one speaks for itself: NULs, bare CR, bare LF (RFC 3516 section 4.4)."""
    odd = [octets for seed in range(200) if (octets := generate(seed))] + [b"a: b\n\nLF only\n", b"a: b\r\rCR only\r", b"\x00\x00", b"\r\n"]
    raw = socket.create_connection(("127.0.0.1", server.ports["imap"]), 30)
    file = raw.makefile("rb")
    file.readline()
    raw.sendall(b'l LOGIN "bob@demo.example" "' + PASSWORD.encode() + b'"\r\nc CREATE odd\r\n')
    while not file.readline().startswith(b"c OK"):
        pass
    for octets in odd:
        raw.sendall(b"a APPEND odd ~{%d+}\r\n" % len(octets) + octets + b"\r\n")
        while not (line := file.readline()).startswith(b"a "):
            pass
        assert line.startswith(b"a OK"), line
    raw.sendall(b"s SELECT odd\r\nf FETCH 1:* (BINARY.PEEK[])\r\n")
    found = []
    while not (line := file.readline()).startswith(b"f "):
        if match := re.search(rb"BINARY\[\] ~?\{(\d+)\}\r\n$", line):
            found.append(file.read(int(match[1])))
    assert found == odd
    raw.close()


def test_smtp_to_imap(server: RunningServer) -> None:
    clear(server, "ann")
    wire = Wire(server.ports["smtp"], b"EHLO client.example")
    for octets in SAFE:
        wire.send(octets, b"ann@demo.example")
    wire.close()
    connection = imap(server)
    same_behind_trace(all_bodies(connection, "INBOX"), SAFE)
    connection.logout()


def test_lmtp_to_pop3(server: RunningServer) -> None:
    clear(server, "bob")
    wire = Wire(server.ports["lmtp"], b"LHLO client.example")
    for octets in SAFE:
        wire.send(octets, b"bob@demo.example")
    wire.close()
    pop = poplib.POP3("127.0.0.1", server.ports["pop3"])
    pop.user("bob@demo.example")
    pop.pass_(PASSWORD)
    count, size = pop.stat()
    received = []
    for number in range(1, count + 1):
        received.append(b"\r\n".join(pop.retr(number)[1]) + b"\r\n")
    assert size == sum(map(len, received))
    same_behind_trace(received, SAFE)
    pop.quit()


def test_submission_to_imap(server: RunningServer) -> None:
    """What lacks nothing (From, Date, Message-ID) comes out as it went in, without blind copies; RFC 6409 section 8
    completes the others."""
    clear(server, "bob")
    sent = []
    with smtplib.SMTP("127.0.0.1", server.ports["submission"]) as smtp:
        smtp.ehlo("client.example")
        smtp.starttls(context=trusting())
        smtp.login("ann@demo.example", PASSWORD)
        for octets in SAFE:
            header = octets.partition(b"\r\n\r\n")[0]
            if not all(re.search(rb"(?im)^%s:" % field, header) for field in (b"From", b"Date", b"Message-ID")):
                octets = b"From: ann@demo.example\r\nDate: Tue, 1 Sep 2026 10:00:00 +0000\r\nMessage-ID: <a@b>\r\n\r\n" + octets
            options = ["BODY=8BITMIME"] if any(octet > 127 for octet in octets) else []
            smtp.sendmail("ann@demo.example", ["bob@demo.example"], octets, options)
            sent.append(without_blind_copies(octets))
    connection = imap(server, "bob")
    same_behind_trace(all_bodies(connection, "INBOX"), sent)
    connection.logout()


def without_blind_copies(octets: bytes) -> bytes:
    """RFC 5322 section 3.6.3: the field is taken out before a message is sent."""
    header, blank, body = octets.partition(b"\r\n\r\n")
    lines: list[bytes] = []
    dropping = False
    for line in header.split(b"\r\n"):
        if line[:1] not in (b" ", b"\t"):
            dropping = line.partition(b":")[0].strip().lower() in (b"bcc", b"resent-bcc")
        if not dropping:
            lines.append(line)
    return b"\r\n".join(lines) + blank + body


def trusting() -> ssl.SSLContext:
    """Takes the server's self-signed certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.fixture
def restarted(tmp_path: Path) -> Iterator[RunningServer]:
    running = RunningServer(tmp_path)
    running.populate()
    running.start()
    yield running
    if running.process is not None:
        running.stop()


def test_what_was_acknowledged_survives_a_kill(restarted: RunningServer) -> None:
    wire = Wire(restarted.ports["smtp"], b"EHLO client.example")
    sent = [b"Subject: %d\r\n\r\n" % number + b"x" * (number * 3000) + b"\r\n" for number in range(40)]
    for octets in sent:
        wire.send(octets, b"ann@demo.example")
    restarted.kill()
    restarted.start()
    connection = imap(restarted)
    same_behind_trace(all_bodies(connection, "INBOX"), sent)
    connection.logout()
    assert restarted.stop() in (0, -15)  # twistd ends by the signal that stopped it
