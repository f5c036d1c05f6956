"""Keys, a DNS that is a table, and messages, for everything that is signed."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any, Final, TypeVar

from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from twisted_mail.dns.values import MX, TLSA, Answer, DNSFailure, NoSuchName
from twisted_mail.signatures import (
    ARCVerifier,
    ChainResult,
    DKIMSigner,
    DKIMVerifier,
    Limits,
    PrivateKey,
    Reading,
    SigningKey,
    Verification,
)

T = TypeVar("T")
NOW: Final = 1_700_000_000
DOMAIN: Final = "example.org"

RSA: Final = PrivateKey.generate("rsa")
RSA_1024: Final = PrivateKey.generate("rsa", 1024)
RSA_SHORT: Final = PrivateKey.load(
    b"""-----BEGIN RSA PRIVATE KEY-----
MIIBOgIBAAJBAKj34GkxFhD90vcNLYLInFEX6Ppy1tPf9Cnzj4p4WGeKLs1Pt8Qu
KUpRKfFLfRYC9AIKjbJTWit+CqvjWYzvQwECAwEAAQJAIJLixBy2qpFoS4DSmoEm
o3qGy0t6z09AIJtH+5OeRV1be+N4cDYJKffGzDa88vQENZiRm0GRq6a+HPGQMd2k
TQIhAKMSvzIBnni7ot/OSie2TmJLY4SwTQAevXysE2RbFDYdAiEBCUEaRQnMnbp7
9mxDXDf6AU0cN/RPBjb9qSHDcWZHGzUCIG2Es59z8ugGrDY+pxLQnwfotadxd+Uy
v/Ow5T0q5gIJAiEAyS4RaI9YG8EWx/2w0T67ZUVAw8eOMB6BIUg0Xcu+3okCIBOs
/5OiPgoTdSy7bcF9IGpSE8ZgGKzgYQVZeN97YE00
-----END RSA PRIVATE KEY-----"""
)
ED25519: Final = PrivateKey.generate("ed25519")
KEYS: Final = (SigningKey(DOMAIN, "r1", RSA), SigningKey(DOMAIN, "e1", ED25519))


class Table:
    """A `DNS` that knows TXT records only; `down` names do not answer."""

    def __init__(self, texts: Mapping[str, str | bytes | tuple[bytes, ...]] | None = None, down: tuple[str, ...] = ()) -> None:
        self.texts = dict(texts or {})
        self.down = set(down)
        self.asked: list[str] = []

    async def txt(self, name: str) -> Answer[bytes]:
        self.asked.append(name)
        if name in self.down:
            raise DNSFailure(name)
        if name not in self.texts:
            raise NoSuchName(name)
        found = self.texts[name]
        records = found if isinstance(found, tuple) else (found.encode() if isinstance(found, str) else found,)
        return Answer(records, 300.0)

    async def mx(self, domain: str) -> Answer[MX]:
        raise NotImplementedError

    async def a(self, name: str) -> Answer[str]:
        raise NotImplementedError

    async def aaaa(self, name: str) -> Answer[str]:
        raise NotImplementedError

    async def tlsa(self, name: str) -> Answer[TLSA]:
        raise NotImplementedError

    async def ptr(self, address: str) -> Answer[str]:
        raise NotImplementedError

    async def cname(self, name: str) -> Answer[str]:
        raise NotImplementedError

    def flush(self, domain: str | None = None) -> None:
        """Nothing is kept."""


def published(*keys: SigningKey) -> Table:
    """The DNS with the records of *keys*."""
    return Table({f"{key.selector}._domainkey.{key.domain}": key.key.record() for key in keys})


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """A coroutine that waits for nothing."""
    results: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    (result,) = results
    if hasattr(result, "raiseException"):
        result.raiseException()
    return result  # type: ignore[no-any-return]


def read(message: bytes, *at_body: Any, step: int = 1 << 16) -> Reading:
    """*message* read in pieces of *step* octets."""
    reading = Reading(*at_body)
    for at in range(0, len(message), step):
        reading.feed(message[at : at + step])
    reading.close()
    return reading


def sign(message: bytes, *keys: SigningKey, now: float = NOW, lifetime: int | None = 86400, step: int = 1 << 16) -> bytes:
    """*message* with its signatures in front."""
    signer = DKIMSigner(now=now, lifetime=lifetime)
    read(message, signer.at_body, step=step)
    return signer.unsigned(keys or KEYS).sign() + message


def verify(
    message: bytes, dns: Table, *, now: float = NOW, step: int = 1 << 16, limits: Limits | None = None
) -> tuple[Verification, ...]:
    """What is said of the signatures of *message*."""
    verifier = DKIMVerifier(limits) if limits is not None else DKIMVerifier()
    read(message, verifier.at_body, step=step)
    return run(verifier.results(dns, now))


def check_chain(message: bytes, dns: Table, *, now: float = NOW, limits: Limits | None = None) -> ChainResult:
    """What is said of the ARC chain of *message*."""
    verifier = ARCVerifier(limits) if limits is not None else ARCVerifier()
    read(message, verifier.at_body)
    return run(verifier.result(dns, now))


MESSAGE: Final = (
    b"Received: from a.example by b.example; Tue, 12 Jan 2027 10:00:00 +0000\r\n"
    b"From: Ann <ann@example.org>\r\nTo: Bob <bob@example.net>\r\nSubject: Lunch  on\r\n\tFriday?\r\n"
    b"Date: Tue, 12 Jan 2027 10:00:00 +0000\r\nMessage-ID: <1@example.org>\r\n\r\n"
    b"Hello Bob,\r\n\r\nare you  there?\t\r\n\r\n\r\n"
)

_PIECES = st.sampled_from([b"\r\n", b"\r", b"\n", b" ", b"\t", b"  ", b"a", b"word", b".", b"\r\n\r\n", b" \r\n", "ü".encode()])
bodies = st.lists(_PIECES, max_size=40).map(b"".join)
"""Bodies of what canonicalisation looks at."""

_NAMES = st.sampled_from([b"From", b"to", b"SUBJECT", b"Date", b"Cc", b"List-Id", b"X-Other", b"Received", b"Content-Type"])
_VALUES = st.lists(
    st.sampled_from([b"a", b" ", b"\t", b"  ", b"<x@example.org>", b"\r\n\t", b"\r\n  ", b"b;", b"c=d", "é".encode(), b":"]),
    max_size=12,
).map(lambda parts: b"x" + b"".join(parts) + b"y")
fields = st.lists(st.builds(lambda name, value: name + b":" + value + b"\r\n", _NAMES, _VALUES), max_size=8).map(b"".join)
messages = st.builds(lambda header, body: b"From: ann@example.org\r\n" + header + b"\r\n" + body, fields, bodies)
"""Proper headers of many forms, and those bodies."""
