"""What is asked of the domain name system, and what comes back.

A resolver is handed to whoever needs one, so a test can answer from a table. Names are given and returned in their ASCII
form (A-labels), lower case, without the last dot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

__all__ = ["DNS", "MX", "TLSA", "Answer", "DNSFailure", "NoSuchName"]

T = TypeVar("T")


class DNSFailure(Exception):
    """No answer that can be used: time-out, SERVFAIL (which is what bogus DNSSEC looks like), nonsense. May pass."""


class NoSuchName(Exception):
    """NXDOMAIN (RFC 8020): there is no such name, nor anything below it."""

    def __init__(self, name: str, *, secure: bool = False) -> None:
        super().__init__(name)
        self.name = name
        self.secure = secure
        """The denial was validated."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """The records of one question; none when the name exists without any of that type (NODATA)."""

    records: tuple[T, ...]
    ttl: float
    """Seconds that this may still be used; the least of all records on the way."""
    secure: bool = False
    """The whole of it, CNAMEs included, was validated (AD) by a resolver that is trusted to do so."""
    name: str = ""
    """The name that the records belong to, behind any CNAMEs."""


@dataclass(frozen=True, slots=True, order=True)
class MX:
    """RFC 5321 section 5.1; an empty `host` is the null MX (RFC 7505)."""

    preference: int
    host: str


@dataclass(frozen=True, slots=True)
class TLSA:
    """RFC 6698 section 2.1."""

    usage: int
    selector: int
    matching: int
    data: bytes


class DNS(Protocol):
    """A caching resolver. Every question raises NoSuchName or DNSFailure (within the resolver's own time limit).

    Answers are shared: who asks what is being asked already waits for the same one.
    """

    async def mx(self, domain: str) -> Answer[MX]: ...

    async def a(self, name: str) -> Answer[str]:
        """IPv4 addresses as text."""

    async def aaaa(self, name: str) -> Answer[str]:
        """IPv6 addresses as text."""

    async def txt(self, name: str) -> Answer[bytes]:
        """Each record's strings joined (RFC 7208 section 3.3)."""

    async def tlsa(self, name: str) -> Answer[TLSA]:
        """*name* as in ``_25._tcp.mx.example.org``."""

    async def ptr(self, address: str) -> Answer[str]:
        """Names of an IP address."""

    async def cname(self, name: str) -> Answer[str]:
        """The alias itself, not followed."""

    def flush(self, domain: str | None = None) -> None:
        """Forget what is cached, of *domain* and below it, or all."""
