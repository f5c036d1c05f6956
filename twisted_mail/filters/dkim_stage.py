"""The filter ``dkim``: who has signed the message (RFC 6376, 8301, 8463). It refuses nothing: what a missing or broken
signature means is for DMARC to say (RFC 6376 section 6.3)."""

from __future__ import annotations

import time
from collections.abc import Callable

from twisted_mail.dns.values import DNS
from twisted_mail.filters.origins import DKIMResults
from twisted_mail.filters.signed import SharedReading
from twisted_mail.filters.values import Arrived, AuthenticationResult, Mail, Verdict
from twisted_mail.signatures import DKIMVerifier, Limits, Result, Verification

__all__ = ["DKIMStage"]


class DKIMStage:
    """Notes `DKIMResults`."""

    name = "dkim"
    needs: frozenset[str] = frozenset()
    outbound = False

    def __init__(self, dns: DNS, *, limits: Limits | None = None, wall: Callable[[], float] = time.time) -> None:
        self._dns = dns
        self._limits = limits or Limits()
        self._wall = wall

    def read(self, mail: Mail) -> _Reader:
        """The body is hashed as it passes."""
        return _Reader(mail, self._dns, self._limits, self._wall)


class _Reader:
    def __init__(self, mail: Mail, dns: DNS, limits: Limits, wall: Callable[[], float]) -> None:
        self._mail = mail
        self._dns = dns
        self._wall = wall
        self._verifier = DKIMVerifier(limits)
        self._place = SharedReading.join(mail, self._verifier.at_body)

    async def write(self, chunk: bytes) -> None:
        self._place.feed(chunk)

    async def finish(self, message: Arrived) -> Verdict:
        if self._place.close().too_long:
            self._mail.note(DKIMResults())
            why = "the header is too long"
            return Verdict(reason=f"{why} to look for signatures (DKIM)", results=(AuthenticationResult("dkim", "policy", why),))
        found = DKIMResults(await self._verifier.results(self._dns, self._wall()))
        self._mail.note(found)
        results = tuple(_result(each) for each in found.signatures) or (AuthenticationResult("dkim", "none"),)
        return Verdict(reason=_sentence(found), results=results)

    async def abort(self) -> None:
        """Nothing is held."""


def _result(signature: Verification) -> AuthenticationResult:
    """RFC 8601 section 2.7.1."""
    properties = (
        ("header.d", signature.domain),
        ("header.s", signature.selector),
        ("header.a", signature.algorithm),
        ("header.b", signature.signature_start),
    )
    comment = "test mode" if signature.testing else ""
    return AuthenticationResult("dkim", signature.result.value, signature.reason, properties, comment)


def _sentence(found: DKIMResults) -> str:
    if not found.signatures:
        return "nobody has signed it (DKIM)"
    if found.passed:
        return f"signed by {' and '.join(found.passed[:3])} (DKIM)"
    first = found.signatures[0]
    who = first.domain or "somebody"
    if first.result is Result.TEMPERROR:
        return f"the signature of {who} cannot be checked now (DKIM)"
    return f"the signature of {who} is not accepted: {first.reason or 'it cannot be read'} (DKIM)"
