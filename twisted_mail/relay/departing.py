"""What is done to a message as it leaves, and what is learned of our addresses from what is heard.

Signatures are made at sending time, with the body hash that was computed when the message came: a message that waited for
days is signed by today's key.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.logger import Logger

from twisted_mail.relay.items import Outbound
from twisted_mail.relay.pools import Grant, Pools
from twisted_mail.relay.signing import Signing
from twisted_mail.relay.suppression import Suppressions
from twisted_mail.relay.values import Result, Verdict

__all__ = ["Departing"]


class Departing:
    """Implements `worker.Departures`."""

    _log = Logger()

    def __init__(
        self,
        signing: Signing,
        pools: Pools,
        suppressions: Suppressions,
        *,
        unsubscribe: Callable[[Outbound, bytes], bytes] = lambda outbound, header: b"",
        results: Callable[[Outbound], str] = lambda outbound: "none",
        seal_domain: Callable[[Outbound], Awaitable[str]] | None = None,
    ) -> None:
        """*unsubscribe*: fields for one-click unsubscribe that a header lacks, for the outbound's recipient. *results*: what
        this server found when a message came that is forwarded (RFC 8617's AAR). *seal_domain*: who seals it."""
        self._signing = signing
        self._pools = pools
        self._suppressions = suppressions
        self._unsubscribe = unsubscribe
        self._results = results
        self._seal_domain = seal_domain

    async def refused(self, outbound: Outbound, now: float) -> str | None:
        stream = self._pools.streams.named(outbound.stream)
        if stream is None or not outbound.sender_domain:
            return None
        found = await self._suppressions.check(outbound.sender_domain, outbound.address, stream)
        return None if found is None else found.text

    async def fields(self, outbound: Outbound, header: bytes, now: float) -> bytes:
        front = b""
        if self.apart(outbound):
            front = self._unsubscribe(outbound, header)
        if not outbound.body_hash:
            return front
        if outbound.cause == "forward":
            domain = await self._seal_domain(outbound) if self._seal_domain is not None else ""
            return await self._signing.seal(header, outbound.body_hash, self._results(outbound), at=now, domain=domain)
        if not outbound.login and not outbound.cause:
            return front  # a stranger's From is not ours to vouch for
        sender = outbound.author or outbound.sender
        return await self._signing.fields(front + header, outbound.body_hash, sender=sender, at=now) + front

    def reverse_path(self, outbound: Outbound) -> str:
        return outbound.sender

    def apart(self, outbound: Outbound) -> bool:
        stream = self._pools.streams.named(outbound.stream)
        return stream is not None and stream.one_click

    async def heard(self, grant: Grant | None, outbound: Outbound, verdict: Verdict, now: float) -> None:
        if grant is not None:
            self._pools.heard(grant, verdict, now)
        if verdict.result is Result.PERMANENT and outbound.sender_domain:
            try:
                await self._suppressions.bounced(outbound.sender_domain, outbound.address, verdict)
            except Exception as error:
                self._log.warn("{address} is not suppressed: {why!r}", address=outbound.address, why=error)
