"""A server that does what it is told, on loopback, for the sending side to be tried on.

    receiver = Receiver()
    receiver.on["RCPT"] = [b"450 4.2.0 greylisted\\r\\n", OK]      # one answer after another, the last again and again
    receiver.on["DATA"] = DROP

An answer is octets, `DROP` (the connection is reset), `CLOSE` (it ends in order), `SILENCE` (from now on), or a function of the line and
the connection that gives one of these.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions, PrivateCertificate
from twisted.python.failure import Failure

__all__ = ["CLOSE", "DROP", "OK", "SILENCE", "Authority", "Receiver"]

OK = b"250 2.0.0 ok\r\n"
DROP = "drop"
CLOSE = "close"
SILENCE = "silence"
Answer = bytes | str | Callable[[bytes, "Connection"], Any]  # Any: an Answer again


@dataclass
class Receiver(Factory):
    """Keeps what it was sent."""

    noisy = False
    greeting: Answer = b"220 mx.there.example ESMTP\r\n"
    extensions: Sequence[str] = ("PIPELINING", "8BITMIME", "SIZE 1000000")
    on: dict[str, Any] = field(default_factory=dict)  # an Answer, or a list of them
    options: Any = None  # what `startTLS` takes
    implicit_tls: bool = False
    cut: Callable[[bytes], Sequence[bytes]] = lambda data: [data]
    """How replies are cut into writes."""
    lmtp: bool = False

    commands: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)

    def __hash__(self) -> int:
        return id(self)

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        connection = Connection(self)
        self.connections.append(connection)
        return connection

    def answer(self, verb: str, default: Answer) -> Answer:
        answer: Any = self.on.get(verb, default)
        if isinstance(answer, list):
            return answer.pop(0) if len(answer) > 1 else answer[0]  # type: ignore[no-any-return]  # see `on`
        return answer  # type: ignore[no-any-return]

    @property
    def open(self) -> int:
        return sum(1 for each in self.connections if each.connected)


class Connection(Protocol):
    """One client."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.buffer = b""
        self.in_data = False
        self.chunk: tuple[int, bool] | None = None
        self.taken: list[str] = []
        self.body = b""
        self.mailed = False
        self.deaf = False
        self.secure = receiver.implicit_tls

    def connectionMade(self) -> None:
        transport: Any = self.transport
        if self.receiver.implicit_tls:
            transport.startTLS(self.receiver.options)
        self.say(self.receiver.answer("greeting", self.receiver.greeting), b"")

    def settled(self, answer: Answer, line: bytes) -> Answer:
        while callable(answer):
            answer = answer(line, self)
        return answer

    def say(self, answer: Answer, line: bytes) -> None:
        transport: Any = self.transport
        answer = self.settled(answer, line)
        if isinstance(answer, bytes):
            for piece in self.receiver.cut(answer):
                transport.write(piece)
        else:
            self.deaf = True
            if answer == DROP:
                transport.abortConnection()
            elif answer == CLOSE:
                transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.connected = 0

    def dataReceived(self, data: bytes) -> None:
        self.buffer += data
        while self.buffer and self.connected and not self.deaf:
            if self.in_data:
                # the CRLF of DATA is the first line's
                end = self.buffer.find(b"\r\n.\r\n") if self.body or not self.buffer.startswith(b".\r\n") else -2
                if end == -1:
                    keep = self.buffer[-4:]
                    self.body += self.buffer[:-4] if len(self.buffer) > 4 else b""
                    if self.body:
                        self.buffer = keep
                    return
                self.body += self.buffer[: end + 2]
                self.buffer = self.buffer[end + 5 :]
                self.in_data = False
                body = self.body.replace(b"\r\n.", b"\r\n")
                self.end(body[1:] if body.startswith(b".") else body)
                continue
            if self.chunk is not None:
                size, last = self.chunk
                piece, self.buffer = self.buffer[:size], self.buffer[size:]
                self.body += piece
                self.chunk = (size - len(piece), last)
                self.chunk_taken()
                continue
            line, ended, rest = self.buffer.partition(b"\r\n")
            if not ended:
                return
            self.buffer = rest
            self.command(line)

    def chunk_taken(self) -> None:
        if self.chunk is not None and self.chunk[0] == 0:
            last = self.chunk[1]
            self.chunk = None
            if not self.mailed:
                self.say(b"503 5.5.1 no transaction\r\n", b"BDAT")
            elif last:
                self.end(self.body)
            else:
                answer = self.settled(self.receiver.answer("BDAT", OK), b"BDAT")
                self.mailed = isinstance(answer, bytes) and answer.startswith(b"2")
                self.say(answer, b"BDAT")

    def end(self, body: bytes) -> None:
        self.receiver.bodies.append(body)
        self.body = b""
        for _ in self.taken if self.receiver.lmtp else (None,):
            self.say(self.receiver.answer("end", OK), b".")

    def command(self, line: bytes) -> None:
        receiver = self.receiver
        receiver.commands.append(line.decode())
        verb = line[:4].decode().upper()
        match verb:
            case "EHLO" | "LHLO":
                offered = [each for each in receiver.extensions if not (self.secure and each == "STARTTLS")]
                lines = ["mx.there.example", *offered]
                default = "".join(f"250{'-' if at + 1 < len(lines) else ' '}{each}\r\n" for at, each in enumerate(lines)).encode()
            case "MAIL":
                self.taken = []
                answer = self.settled(receiver.answer("MAIL", OK), line)
                self.mailed = isinstance(answer, bytes) and answer.startswith(b"2")
                return self.say(answer, line)
            case "RCPT":
                answer = self.settled(receiver.answer("RCPT", OK) if self.mailed else b"503 5.5.1 MAIL first\r\n", line)
                if isinstance(answer, bytes) and answer.startswith(b"2"):
                    self.taken.append(line.decode())
                return self.say(answer, line)
            case "DATA":
                default = b"354 go\r\n" if self.taken else b"554 5.5.1 no recipients\r\n"
                answer = receiver.answer("DATA", default)
                self.in_data = isinstance(answer, bytes) and answer.startswith(b"354")
                self.body = b""
                return self.say(answer, line)
            case "BDAT":
                words = line.split()
                self.chunk = (int(words[1]), words[-1] == b"LAST")
                return self.chunk_taken()
            case "STAR":
                self.say(receiver.answer("STARTTLS", b"220 go\r\n"), line)
                if receiver.options is not None and self.connected:
                    self.secure = True
                    transport: Any = self.transport
                    transport.startTLS(receiver.options)
                return None
            case "QUIT":
                self.say(receiver.answer("QUIT", b"221 bye\r\n"), line)
                return self.say(CLOSE, line)
            case _:
                default = OK
        return self.say(receiver.answer(verb, default), line)


class Authority:
    """Signs certificates for tests; `file` holds its own, for who is to trust it."""

    def __init__(self, folder: Path) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "An authority for tests")])
        now = datetime.datetime.now(datetime.UTC)
        self.certificate = (
            self._builder(self._name, self._key, now - datetime.timedelta(days=1), now + datetime.timedelta(days=9))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / "authority.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(self, name: x509.Name, key: Any, begin: datetime.datetime, end: datetime.datetime) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
        )

    def server(self, *names: str, expired: bool = False) -> tuple[Any, x509.Certificate]:
        """What a server's `startTLS` takes, and the certificate."""
        pem = self.pem(*names, expired=expired)
        return PrivateCertificate.loadPEM(pem).options(), x509.load_pem_x509_certificate(pem)

    def pem(self, *names: str, expired: bool = False) -> bytes:
        """A fresh key and its certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        end = now + datetime.timedelta(hours=-1 if expired else 24)
        general: list[x509.GeneralName] = []
        for name in names:
            try:
                general.append(x509.IPAddress(ipaddress.ip_address(name)))
            except ValueError:
                general.append(x509.DNSName(name))
        certificate = (
            self._builder(x509.Name([]), key, now - datetime.timedelta(days=1), end)
            .add_extension(x509.SubjectAlternativeName(general), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        return key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ) + certificate.public_bytes(serialization.Encoding.PEM)


class Broken(CertificateOptions):
    """A server that has no cipher in common with anybody."""

    def getContext(self) -> SSL.Context:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        return context  # without a certificate no handshake comes about
