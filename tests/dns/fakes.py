"""Name servers made of tables, below the resolver (`Scripted`) and in its place (`TableDNS`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from twisted_mail.dns.servers import NameServer
from twisted_mail.dns.transport import SuspiciousReplies, Unanswered
from twisted_mail.dns.values import MX, TLSA, Answer, DNSFailure, NoSuchName

__all__ = ["Asked", "Scripted", "TableDNS", "reply_to"]

R = TypeVar("R")


def reply_to(
    question: bytes,
    *answer: str,
    authority: tuple[str, ...] = (),
    rcode: str = "NOERROR",
    authentic: bool = False,
    truncated: bool = False,
) -> bytes:
    """A reply with records in the presentation form ``name ttl IN type data``."""
    asked = dns.message.from_wire(question)
    reply = dns.message.make_response(asked, recursion_available=True)
    reply.set_rcode(dns.rcode.from_text(rcode))
    if authentic:
        reply.flags |= dns.flags.AD
    if truncated:
        reply.flags |= dns.flags.TC
    for section, lines in ((reply.answer, answer), (reply.authority, authority)):
        for line in lines:
            name, ttl, _, type, data = line.split(None, 4)
            section.append(dns.rrset.from_text(name, int(ttl), "IN", type, data))
    return reply.to_wire(max_size=65535)


@dataclass(slots=True)
class Asked:
    """One question that reached a server."""

    server: NameServer
    octets: bytes
    tcp: bool
    judge: Callable[[bytes], Any]
    answer: Deferred[Any]

    @property
    def question(self) -> str:
        """``example.org MX``."""
        asked = dns.message.from_wire(self.octets).question[0]
        return asked.to_text().replace(" IN ", " ").replace(". ", " ")

    def reply(self, *answer: str, **more: Any) -> None:
        self.receive(reply_to(self.octets, *answer, **more))

    def receive(self, octets: bytes) -> None:
        """As if these octets had come from the network."""
        meaning = self.judge(octets)
        if meaning is not None and not self.answer.called:
            self.answer.callback(meaning)


class Scripted:
    """A transport whose servers say what the test says, or nothing until the time is over."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.asked: list[Asked] = []
        self.silent: set[str] = set()
        """Addresses of servers that answer nothing."""
        self.answering: Callable[[Asked], None] | None = None
        """Called with every question as it comes."""

    async def datagram(
        self, server: NameServer, question: bytes, judge: Callable[[bytes], R | None], seconds: float
    ) -> R:
        return await self._ask(Asked(server, question, False, judge, Deferred()), seconds)  # type: ignore[no-any-return]

    async def stream(self, server: NameServer, question: bytes, judge: Callable[[bytes], R | None], seconds: float) -> R:
        return await self._ask(Asked(server, question, True, judge, Deferred()), seconds)  # type: ignore[no-any-return]

    async def _ask(self, asked: Asked, seconds: float) -> Any:
        self.asked.append(asked)

        def late() -> None:
            if not asked.answer.called:
                asked.answer.errback(Unanswered("late"))

        call = self._clock.callLater(seconds, late)
        if self.answering is not None and asked.server.address not in self.silent:
            self.answering(asked)
        try:
            return await asked.answer
        finally:
            if call.active():
                call.cancel()

    def flood(self, asked: Asked) -> None:
        """Somebody guesses."""
        asked.answer.errback(SuspiciousReplies("twenty lies"))


@dataclass
class TableDNS:
    """`values.DNS` out of a table.

    Keys are ``(name, type)``; values lists of records, or DNSFailure. A name without any entry does not exist. A list of
    str under CNAME is followed. Names at or below one of `secure` are signed.
    """

    table: dict[tuple[str, str], Any]
    secure: tuple[str, ...] = ()
    ttl: float = 300.0
    asked: list[tuple[str, str]] = field(default_factory=list)

    def _is_secure(self, name: str) -> bool:
        return any(name == zone or name.endswith("." + zone) for zone in self.secure)

    async def _ask(self, name: str, type: str) -> Answer[Any]:
        self.asked.append((name, type))
        secure = True
        for _ in range(10):
            secure = secure and self._is_secure(name)
            found = self.table.get((name, type))
            if isinstance(found, DNSFailure):
                raise found
            if found is not None:
                return Answer(tuple(found), self.ttl, secure, name)
            alias = self.table.get((name, "CNAME"))
            if alias is None:
                break
            name = alias[0]
        if not any(known == name or known.endswith("." + name) for known, _ in self.table):
            raise NoSuchName(name, secure=secure)
        return Answer((), self.ttl, secure, name)

    async def mx(self, domain: str) -> Answer[MX]:
        return await self._ask(domain, "MX")

    async def a(self, name: str) -> Answer[str]:
        return await self._ask(name, "A")

    async def aaaa(self, name: str) -> Answer[str]:
        return await self._ask(name, "AAAA")

    async def txt(self, name: str) -> Answer[bytes]:
        return await self._ask(name, "TXT")

    async def tlsa(self, name: str) -> Answer[TLSA]:
        return await self._ask(name, "TLSA")

    async def ptr(self, address: str) -> Answer[str]:
        return await self._ask(address, "PTR")

    async def cname(self, name: str) -> Answer[str]:
        return await self._ask(name, "CNAME")

    def flush(self, domain: str | None = None) -> None:
        pass
