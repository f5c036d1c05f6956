"""The filter ``arc``: what servers on the way have seen, and whether one of them is trusted (RFC 8617).

A chain that passes says that its sealers wrote what stands there; whether what they wrote is true is a matter of trust,
and trust goes from the last one back: somebody in between who is not trusted may have changed the message after all that
earlier ones say of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from twisted_mail.dns.names import BadName, a_labels
from twisted_mail.dns.values import DNS
from twisted_mail.filters.authentication_results import BadResults, parse
from twisted_mail.filters.origins import ARCResult
from twisted_mail.filters.signed import SharedReading
from twisted_mail.filters.values import Arrived, AuthenticationResult, Mail, Verdict
from twisted_mail.signatures import ArcSet, ARCVerifier, Chain, ChainResult, Limits

__all__ = ["ARCStage", "TrustedSealers"]


class TrustedSealers:
    """Domains (``d=``) whose seals are believed; ``.example.org`` stands for all below it."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """Raises: ValueError."""
        self._names: set[str] = set()
        for name in names:
            below = name.startswith(".")
            try:
                self._names.add(("." if below else "") + a_labels(name[1:] if below else name))
            except BadName as error:
                raise ValueError(f"{name!r} is no domain") from error

    def __contains__(self, domain: str) -> bool:
        if domain in self._names:
            return True
        labels = domain.split(".")
        return any("." + ".".join(labels[at:]) in self._names for at in range(1, len(labels)))

    def oldest(self, sets: Sequence[ArcSet]) -> ArcSet | None:
        """Of *sets* in ascending order, the oldest with only trusted ones behind it; None: not even the last is."""
        found = None
        for each in reversed(sets):
            if each.domain not in self:
                break
            found = each
        return found


class ARCStage:
    """Notes `ARCResult`."""

    name = "arc"
    needs: frozenset[str] = frozenset()
    outbound = False

    def __init__(
        self,
        dns: DNS,
        trusted_sealers: Iterable[str] = (),
        *,
        limits: Limits | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._dns = dns
        self._trusted = TrustedSealers(trusted_sealers)
        self._limits = limits or Limits()
        self._wall = wall

    def read(self, mail: Mail) -> _Reader:
        """The body is hashed as it passes."""
        return _Reader(mail, self._dns, self._trusted, self._limits, self._wall)


class _Reader:
    def __init__(
        self, mail: Mail, dns: DNS, trusted: TrustedSealers, limits: Limits, wall: Callable[[], float]
    ) -> None:
        self._mail = mail
        self._dns = dns
        self._trusted = trusted
        self._wall = wall
        self._verifier = ARCVerifier(limits)
        self._place = SharedReading.join(mail, self._verifier.at_body)

    async def write(self, chunk: bytes) -> None:
        self._place.feed(chunk)

    async def finish(self, message: Arrived) -> Verdict:
        if self._place.close().too_long:
            chain = ChainResult(Chain.NONE, "the header is too long")
        else:
            chain = await self._verifier.result(self._dns, self._wall())
        if chain.chain is Chain.NONE:
            self._mail.note(ARCResult(chain))
            return Verdict(results=(AuthenticationResult("arc", "none"),))
        oldest = self._trusted.oldest(chain.sets) if chain.chain is Chain.PASS else None
        if oldest is None:
            found = ARCResult(chain)
        else:
            seen = _read(oldest.results)
            dmarc = next((each.value for each in seen if each.method == "dmarc"), "")
            found = ARCResult(chain, oldest.domain, dmarc, seen)
        self._mail.note(found)
        return Verdict(reason=_sentence(found), results=(self._result(found),))

    async def abort(self) -> None:
        """Nothing is held."""

    def _result(self, found: ARCResult) -> AuthenticationResult:
        """RFC 8617 section 10.2."""
        chain = found.chain
        properties = (
            ("header.oldest-pass", str(chain.oldest_pass) if chain.chain is Chain.PASS else ""),
            ("smtp.remote-ip", self._mail.client.address),
        )
        sealer = f" by {chain.sets[-1].domain}" if chain.sets else ""
        comment = f"i={chain.instances}{sealer}{', trusted' if found.trusted else ''}"
        return AuthenticationResult("arc", chain.chain.value, chain.reason, properties, comment)


def _read(results: str) -> tuple[AuthenticationResult, ...]:
    try:
        return parse(results).results
    except BadResults:
        return ()


def _sentence(found: ARCResult) -> str:
    chain = found.chain
    if chain.chain is Chain.FAIL:
        now = " now" if chain.temporary else ""
        return f"the chain of seals on its way does not hold{now}: {chain.reason} (ARC)"
    way = " and ".join(each.domain for each in chain.sets[-3:])
    trust = f", {found.trusted} is trusted" if found.trusted else ", none of whom is trusted"
    return f"it came by way of {way}{trust} (ARC)"
