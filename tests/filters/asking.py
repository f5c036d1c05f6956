"""Peers, transactions and messages to ask filters about, and stores that are down."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_mail.filters.values import Client, Mail, by_name
from twisted_mail.mime.headers import split_fields
from twisted_mail.services import Identity, Recipient
from twisted_mail.storage.interfaces import Record, Unavailable
from twisted_mail.values import AccountId

R = TypeVar("R")

__all__ = ["DownCache", "DownRecords", "Message", "ann", "client", "mail", "now", "recipient", "started"]


def now(coroutine: Coroutine[Any, Any, R]) -> R:
    """The result of what waits for nothing (or for what has come already)."""
    results: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    assert results, "it still waits"
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]  # type: ignore[no-any-return]


def started(coroutine: Coroutine[Any, Any, R]) -> Deferred[R]:
    """It runs until it waits."""
    return Deferred.fromCoroutine(coroutine)


def client(address: str = "198.51.100.7", helo: str = "mx.example.net", **more: Any) -> Client:
    made = Client(address)
    made.helo = helo
    for name, value in more.items():
        setattr(made, name, value)
    return made


def ann() -> Identity:
    return Identity(AccountId.new(), "ann@example.org")


def mail(sender: str = "bob@example.net", peer: Client | None = None, recipients: Sequence[str] = ()) -> Mail:
    made = Mail(peer or client(), sender)
    made.recipients = [recipient(address) for address in recipients]
    return made


def recipient(address: str = "ann@example.org") -> Recipient:
    return Recipient(address, (AccountId.new(),))


class Message:
    """Implements `Arrived` over octets in memory."""

    def __init__(self, octets: bytes, of: Mail | None = None) -> None:
        self._octets = octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        self._mail = of or mail(recipients=["ann@example.org"])
        end = 0 if self._octets.startswith(b"\r\n") else self._octets.find(b"\r\n\r\n") + 2
        self._header = self._octets[:end] if end != 1 else self._octets
        self._fields = [(name.rstrip(), value.removesuffix(b"\r")) for name, value in split_fields(self._header)]

    @property
    def mail(self) -> Mail:
        return self._mail

    @property
    def size(self) -> int:
        return len(self._octets)

    @property
    def header(self) -> bytes:
        return self._header

    @property
    def fields(self) -> Sequence[tuple[bytes, bytes]]:
        return self._fields

    @property
    def named(self) -> Mapping[bytes, Sequence[bytes]]:
        return by_name(self._fields)

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._octets

    async def octets(self, most: int) -> bytes:
        return self._octets[:most]


class DownCache:
    """Implements `Cache`: it does not answer."""

    async def get(self, key: str) -> bytes | None:
        raise Unavailable("down")

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        raise Unavailable("down")

    async def increment(self, key: str, ttl: float, by: int = 1) -> int:
        raise Unavailable("down")


class DownRecords:
    """Implements `Records`: they do not answer."""

    async def put(self, space: str, key: str, value: bytes, ttl: float | None = None) -> None:
        raise Unavailable("down")

    async def get(self, space: str, key: str) -> bytes | None:
        raise Unavailable("down")

    async def delete(self, space: str, key: str) -> None:
        raise Unavailable("down")

    async def list(self, space: str, after: str = "", limit: int = 1000) -> Sequence[Record]:
        raise Unavailable("down")
