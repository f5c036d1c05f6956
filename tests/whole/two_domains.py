"""Two real servers, each with a domain of its own, that know each other only by the DNS: a name server that signs, a
resolver that validates, and a web server for policies."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import imaplib
import os
import smtplib
import socket
import sqlite3
import ssl
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import dns.message
import dns.query
import dns.rdatatype
import msgspec

from tests.admin.calling import Mailctl
from tests.relay.authority import Certified, authority, server
from tests.services.knot import Knot
from tests.services.processes import Process, free_port, loopback_address
from tests.services.unbound import Unbound
from twisted_mail.relay.journal import Step, space_of

__all__ = ["PASSWORD", "Instance", "PolicyHost", "TwoDomains", "eventually"]

PASSWORD = "wise owls hoot at 3"
SECONDS = 120.0
"""How long anything may take on a busy machine."""
T = TypeVar("T")


def eventually(look: Callable[[], T | None], *, otherwise: Callable[[], str] = lambda: "") -> T:
    """What *look* gives, once it gives something. Raises AssertionError, with what *otherwise* says."""
    deadline = time.monotonic() + SECONDS
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.1)


class Instance:
    """One `twistd mail` for one domain, at an address of its own."""

    def __init__(
        self,
        folder: Path,
        domain: str,
        user: str,
        *,
        address: str,
        smtp_port: int,
        certified: Certified,
        extra: str,
        environment: Mapping[str, str],
    ) -> None:
        folder.mkdir(parents=True)
        self.folder, self.domain, self.user, self.address = folder, domain, user, address
        self.certified = certified
        self.ports = {"smtp": smtp_port, "submission": free_port(address), "imap": free_port(address)}
        certificate, key = certified.write(folder)
        listen = "\n".join(f'{name} = ["tcp:{port}:interface={address}"]' for name, port in self.ports.items())
        self.config = folder / "mail.toml"
        self.config.write_text(
            f'hostname = "mx.{domain}"\ndata = "data"\n[listen]\n{listen}\n'
            f'[tls]\ncertificate = "{certificate}"\nkey = "{key}"\n'
            f"[auth]\nfailures_per_minute = 0\n[limits]\nconnections_per_address = 0\n"
            f'[process]\ndrain = "5s"\n{extra}'
        )
        words = [str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile=", "mail", "--config", str(self.config)]
        self.process = Process(f"mail-{domain}", words, folder, environment)

    def prepare(self) -> str:
        """The domain with its keys, and its user; returns the keys' records, as lines of the zone's file."""
        mailctl = Mailctl(self.folder)  # in this process: a new one takes seconds to begin on a busy machine
        mailctl.good("domain", "add", self.domain)
        mailctl.good("user", "add", f"{self.user}@{self.domain}", "--password-stdin", given=PASSWORD + "\n")
        return "".join(line + "\n" for line in mailctl.good("dkim", "show", self.domain).out.splitlines() if " TXT " in line)

    def ready(self) -> None:
        """Until it greets. Raises AssertionError with its log."""

        def greets() -> bool:
            assert self.process.running, self.process.end_of_log()
            with contextlib.suppress(OSError), self.imap():
                return True
            return False

        eventually(greets, otherwise=self.process.end_of_log)

    def stop(self) -> None:
        self.process.stop(30.0)

    # --- as a mail program

    def imap(self) -> imaplib.IMAP4:
        return imaplib.IMAP4(self.address, self.ports["imap"], timeout=SECONDS)

    def submit(self, recipient: str, subject: str, *, mail: tuple[str, ...] = ()) -> str:
        """Log in and hand a message in, with parameters for MAIL; its Message-ID without angle brackets."""
        message_id = f"{os.urandom(8).hex()}@{self.domain}"
        author = f"{self.user}@{self.domain}"
        message = (
            f"From: {author}\r\nTo: {recipient}\r\nSubject: {subject}\r\nMessage-ID: <{message_id}>\r\n\r\n"
            f"A message from {author}.\r\n.\r\n"
        ).encode()
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        with smtplib.SMTP(self.address, self.ports["submission"], timeout=SECONDS) as client:
            client.starttls(context=trusting)
            client.login(author, PASSWORD)
            client.sendmail(author, [recipient], message, mail_options=mail)
        return message_id

    def inbox(self, text: str) -> bytes | None:
        """The newest message in INBOX that has *text* somewhere."""
        with self.imap() as client:
            client.login(f"{self.user}@{self.domain}", PASSWORD)
            client.select("INBOX", readonly=True)
            _, found = client.uid("SEARCH", "TEXT", f'"{text}"')
            numbers = (found[0] or b"").split()
            if not numbers:
                return None
            _, fetched = client.uid("FETCH", numbers[-1].decode(), "(BODY.PEEK[])")
            return bytes(fetched[0][1])

    # --- as an operator

    def steps(self, message_id: str) -> list[Step]:
        """What the trace has of a message (its Message-ID without angle brackets)."""
        file = self.folder / "data" / "mail.sqlite"
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=SECONDS)) as db:
            rows = db.execute("SELECT value FROM record WHERE space = ? ORDER BY key", (space_of(message_id),))
            return [msgspec.msgpack.decode(value, type=Step) for (value,) in rows]

    def step(self, message_id: str, what: str) -> Step:
        """The first of a kind, once it was taken."""

        def look() -> Step | None:
            return next((step for step in self.steps(message_id) if step.what == what), None)

        return eventually(look, otherwise=lambda: f"{self.steps(message_id)}\n{self.process.end_of_log()}")


class PolicyHost:
    """An HTTPS server that answers every request with one policy, for `mta-sts.DOMAIN`."""

    def __init__(self, folder: Path, certified: Certified, address: str, policy: str) -> None:
        self.policy = policy
        self.asked: list[str] = []
        host = self

        class Answering(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host.asked.append(f"{self.headers['Host']}{self.path}")
                body = host.policy.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        folder.mkdir(parents=True)
        certificate, key = certified.write(folder)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        self._server = http.server.ThreadingHTTPServer((address, 0), Answering)
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


class Between:
    """Somebody on the way to a server, at an address of his own, who takes STARTTLS out of what it says."""

    def __init__(self, server: tuple[str, int], port: int) -> None:
        self.address = loopback_address()
        self.sent: list[bytes] = []
        """What clients said."""
        self._server = server
        self._listening = socket.create_server((self.address, port))
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(self._server, SECONDS)
                threading.Thread(target=self._pass_on, args=(client, server, self.sent.append), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(server, client, lambda data: None), daemon=True).start()

    @staticmethod
    def _pass_on(here: socket.socket, there: socket.socket, seen: Callable[[bytes], None]) -> None:
        with contextlib.suppress(OSError), here, there:
            while data := here.recv(65536):
                seen(data)
                there.sendall(data.replace(b"STARTTLS", b"XSTRIPPED"))

    def stop(self) -> None:
        self._listening.close()


class TwoDomains:
    """``a.test`` is not signed and has an MTA-STS policy; ``b.test`` is signed and has TLSA records."""

    def __init__(self, folder: Path, *, extra: str = "") -> None:
        self._parts: list[Knot | Unbound | PolicyHost | Between | Instance] = []
        try:
            self._start(folder, extra)
        except BaseException:  # a test's time limit too: nothing stays behind
            self.stop()
            raise

    def _start(self, folder: Path, extra: str) -> None:
        root = authority()
        (folder / "root.pem").write_bytes(root.pem)
        self.knot = Knot({"a.test": "", "b.test": ""}, signed=frozenset({"b.test"}))
        self._parts.append(self.knot)
        self.knot.start()
        self.unbound = Unbound(self.knot)
        self._parts.append(self.unbound)
        self.unbound.start()
        self.port = free_port()
        web_address = loopback_address()
        self.web = PolicyHost(
            folder / "web", server("mta-sts.a.test", issuer=root), web_address,
            "version: STSv1\nmode: enforce\nmx: mx.a.test\nmax_age: 86400\n",
        )  # fmt: skip
        b_address = loopback_address()
        self.between = Between((b_address, self.port), self.port)
        settings = (
            f'[relay]\nport = {self.port}\nmta_sts_port = {self.web.port}\nrefused = []\nipv6 = false\nretry = ["1h"]\n'
            'tls_reports = "tls-report@DOMAIN"\n'
            f'[dns]\nservers = ["{self.unbound.address}:{self.unbound.port}"]\ndnssec = true\n{extra}'
        )
        environment = {"SSL_CERT_FILE": str(folder / "root.pem")}
        self._parts += [self.web, self.between]
        certificates = {"a.test": server("mx.a.test", issuer=root), "b.test": server("mx.b.test")}
        self.a, self.b = (
            Instance(
                folder / domain, domain, user, address=address, smtp_port=self.port, certified=certified,
                extra=settings.replace("DOMAIN", domain), environment=environment,
            )
            for (domain, certified), user, address in zip(
                certificates.items(), ("ann", "bob"), (loopback_address(), b_address)
            )
        )  # fmt: skip
        self._parts += [self.a, self.b]
        keys_a, keys_b = self.a.prepare(), self.b.prepare()
        self.publish(
            "a.test",
            f"@ MX 10 mx\nmx A {self.a.address}\n{keys_a}"
            f'mta-sts A {web_address}\n_mta-sts TXT "v=STSv1; id=1;"\n'
            "null MX 0 .\n"
        )
        self.publish(
            "b.test",
            f"@ MX 10 mx\nmx A {self.b.address}\n{keys_b}{self.tlsa('mx', self.b.certified)}"
            f"wrong MX 10 other\nother A {self.b.address}\n{self.tlsa('other', certificates['a.test'])}"
            f"stripped MX 10 between\nbetween A {self.between.address}\n{self.tlsa('between', self.b.certified)}"
            '_smtp._tls TXT "v=TLSRPTv1; rua=mailto:tls-report@b.test"\n',
        )
        for instance in (self.a, self.b):
            instance.process.start()
        for instance in (self.a, self.b):
            instance.ready()

    def tlsa(self, host: str, certified: Certified) -> str:
        return f"_{self.port}._tcp.{host} TLSA 3 1 1 {hashlib.sha256(certified.spki).hexdigest()}\n"

    def publish(self, zone: str, text: str) -> None:
        """Serve *text* as the zone."""
        self.knot.set(zone, text)
        self.unbound.forget(zone)

    def txt(self, name: str) -> bytes | None:
        """What the name server has there, for who checks signatures."""
        question = dns.message.make_query(name, "TXT")
        reply = dns.query.tcp(question, self.knot.address, SECONDS, self.knot.port)
        for rrset in reply.answer:
            for record in rrset:
                if record.rdtype == dns.rdatatype.TXT:
                    return b"".join(record.strings)
        return None

    def stop(self) -> None:
        while self._parts:
            self._parts.pop().stop()
