"""A directory with a few users, fake time, and a SCRAM client written from the RFC for these tests."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock

from twisted_mail.auth.passwords import PasswordParameters, PasswordVerifier, credentials_for
from twisted_mail.auth.service import AuthenticationService
from twisted_mail.services import AuthenticationFailed, Challenge, Exchange, Identity, Peer
from twisted_mail.storage.interfaces import AccountRecord, Alias, Domain, EngineContext
from twisted_mail.storage.memory import MemoryEngine
from twisted_mail.values import AccountId

R = TypeVar("R")
CHEAP = PasswordParameters(memory_kib=64, passes=1, scram_iterations=4096)
ANN = AccountId(b"a" * 16)
BOB = AccountId(b"b" * 16)
PASSWORD = "correct horse"
CREDENTIALS = credentials_for(PASSWORD, CHEAP)
LOCAL = Peer("127.0.0.1", service="imap")
FAR = Peer("192.0.2.7", service="imap")
BINDINGS = {"tls-exporter": b"e" * 32, "tls-server-end-point": b"p" * 32}
SECURE = Peer("192.0.2.7", secure=True, channel_bindings=BINDINGS, service="imap")


def now(coroutine: Coroutine[Any, Any, R]) -> R:
    """The result of a coroutine that does not have to wait. Raises what it raises."""
    results: list[Any] = []
    failures: list[Any] = []
    Deferred.fromCoroutine(coroutine).addCallbacks(results.append, failures.append)
    if failures:
        failures[0].raiseException()
    assert results, "the coroutine is still waiting"
    result: R = results[0]
    return result


class Counting:
    """Calls at once, in this thread, and counts."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.arguments: list[tuple[Any, ...]] = []

    def __call__(self, call: Callable[..., Any], *arguments: Any) -> Awaitable[Any]:
        self.calls.append(call.__name__)
        self.arguments.append(arguments)
        return maybeDeferred(call, *arguments)


class Town:
    """example.org with ann and bob; closed.example, which is disabled, with carol."""

    def __init__(self, *, parameters: PasswordParameters = CHEAP, **settings: Any) -> None:
        # settings: keywords of AuthenticationService, of many types
        self.clock = Clock()
        self.engine = MemoryEngine(EngineContext(self.clock, Path("/nonexistent")))
        self.directory = self.engine.directory
        self.threads = Counting()
        self.verifier = PasswordVerifier(self.threads, self.clock, parameters)
        now(self.directory.add_domain(Domain("example.org")))
        now(self.directory.add_domain(Domain("closed.example", enabled=False)))
        now(self.directory.add_account(AccountRecord(ANN, "ann@example.org", CREDENTIALS)))
        now(self.directory.add_account(AccountRecord(BOB, "bob@example.org", CREDENTIALS, enabled=False)))
        now(self.directory.add_account(AccountRecord(AccountId(b"c" * 16), "carol@closed.example", CREDENTIALS)))
        settings.setdefault("failure_seconds", 0.0)
        settings.setdefault("secret", b"s" * 32)
        self.service = AuthenticationService(self.directory, self.engine.cache, self.verifier, self.clock, **settings)

    def alias(self, address: str, *targets: str) -> None:
        now(self.directory.add_alias(Alias(address, targets)))

    def login(self, user: str = "ann@example.org", password: str = PASSWORD, peer: Peer = LOCAL) -> Identity | str:
        """Who it is, or the reason why not."""
        try:
            return now(self.service.login(user, password, peer))
        except AuthenticationFailed as error:
            return error.reason

    def exchange(
        self, mechanism: str, responses: Sequence[bytes | None], peer: Peer = SECURE
    ) -> Identity | str | bytes:
        """Who it is, the reason why not, or the last challenge."""
        return run(self.service.begin(mechanism, peer), responses)


def run(exchange: Exchange, responses: Sequence[bytes | None]) -> Identity | str | bytes:
    result: Identity | str | bytes = b""
    for response in responses:
        try:
            answer = now(exchange.step(response))
        except AuthenticationFailed as error:
            return error.reason
        result = answer.data if isinstance(answer, Challenge) else answer
    return result


class ScramClient:
    """The client's side, straight from RFC 5802 section 3."""

    def __init__(
        self,
        user: str,
        password: str,
        header: str = "n,,",
        binding: bytes = b"",
        nonce: str = "fyko+d2lbbFgONRv9qkxdawL",
        hash: str = "sha256",
    ) -> None:
        self.header, self.binding, self.nonce, self.hash = header, binding, nonce, hash
        self.password = password
        self.bare = f"n={user.replace('=', '=3D').replace(',', '=2C')},r={nonce}"
        self.server_signature = b""

    def first(self) -> bytes:
        return (self.header + self.bare).encode()

    def final(self, server_first: bytes, more: str = "") -> bytes:
        """*more*: what a client that breaks the rules puts behind the nonce."""
        nonce, salt64, iterations = re.fullmatch(rb"r=([^,]+),s=([^,]+),i=(\d+)", server_first).groups()  # type: ignore[union-attr]
        assert nonce.decode().startswith(self.nonce) and len(nonce) > len(self.nonce)
        salt = base64.b64decode(salt64)
        # Hi(), spelt out
        block = last = hmac.new(self.password.encode(), salt + b"\0\0\0\1", self.hash).digest()
        for _ in range(int(iterations) - 1):
            last = hmac.new(self.password.encode(), last, self.hash).digest()
            block = bytes(a ^ b for a, b in zip(block, last, strict=True))
        client_key = hmac.new(block, b"Client Key", self.hash).digest()
        stored_key = hashlib.new(self.hash, client_key).digest()
        server_key = hmac.new(block, b"Server Key", self.hash).digest()
        c = base64.b64encode(self.header.encode() + self.binding).decode()
        without = f"c={c},r={nonce.decode()}{more}"
        message = ",".join((self.bare, server_first.decode(), without)).encode()
        signature = hmac.new(stored_key, message, self.hash).digest()
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self.server_signature = hmac.new(server_key, message, self.hash).digest()
        return f"{without},p={base64.b64encode(proof).decode()}".encode()

    def log_in(self, exchange: Exchange) -> Identity | str:
        """The whole exchange; the server must prove itself too."""
        server_first = run(exchange, [self.first()])
        if not isinstance(server_first, bytes):
            return server_first
        server_final = run(exchange, [self.final(server_first)])
        if not isinstance(server_final, bytes):
            return server_final
        assert server_final == b"v=" + base64.b64encode(self.server_signature)
        result = run(exchange, [b""])
        assert not isinstance(result, bytes)
        return result
