"""Greylisting: a stranger is told to come back, which spam programs seldom do (RFC 6647).

What is remembered is a triplet: where the mail comes from (the client's network; with an SPF pass the sender's domain, so
that a sender with many servers is known again), the sender, the recipient. First attempts are kept in the `Cache`, which all
nodes share; if it loses them, strangers wait once more. Who came back often enough is kept in `Records` and waits no more.

Never greylisted: who has logged in or is trusted, whom a list in the DNS speaks for, who came back often enough, and whoever
`correspondents` knows. The null sender is deferred at the end of the message only, as others ask at RCPT with it
whether an address exists.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from twisted_mail.filters.dnsbl import Listings
from twisted_mail.filters.origins import SPF, SPFResult
from twisted_mail.filters.peers import domain_of, hashed_key, is_ours, mailbox_of, network_of
from twisted_mail.filters.values import ACCEPTED, Action, Answer, Arrived, FilterDown, Mail, Verdict
from twisted_mail.services import Recipient
from twisted_mail.storage.interfaces import Cache, Records, StorageError

__all__ = ["Greylisting", "GreylistingSettings"]

_DAY: Final = 86_400.0
_PASSED: Final = b"passed"


@dataclass(frozen=True, slots=True, kw_only=True)
class GreylistingSettings:
    """How long, how often, how exactly."""

    delay_seconds: float = 300.0
    """A stranger that comes back sooner waits on."""
    window_seconds: float = 2 * _DAY
    """One that comes back later is a stranger again."""
    known_after: int = 5
    """So many triplets that came back, and their network or domain waits no more; 0: never."""
    kept_seconds: float = 36 * _DAY
    """What came back is remembered for so long since it was last seen."""
    v4_bits: int = 24
    v6_bits: int = 64
    by_domain: bool = True
    """Of the sender only the domain counts: lists and shops give each message a sender of its own."""


@dataclass(frozen=True, slots=True)
class _Known:
    """Noted on the `Mail`: where it comes from, and whether that is known well."""

    origin: str
    well: bool


class Greylisting:
    """A `Stage`, asked at RCPT, and at the end for the null sender."""

    name = "greylisting"
    needs = frozenset({"spf", "dnsbl"})
    outbound = False

    def __init__(
        self,
        cache: Cache,
        records: Records,
        wall: Callable[[], float],
        settings: GreylistingSettings | None = None,
        *,
        correspondents: Callable[[str, Recipient], Awaitable[bool]] | None = None,
    ) -> None:
        """*correspondents*: whether the recipient has written to that sender; nobody is asked if None."""
        self._cache = cache
        self._records = records
        self._wall = wall
        self.settings = settings or GreylistingSettings()
        self._correspondents = correspondents

    async def rcpt(self, mail: Mail, recipient: Recipient) -> Verdict:
        if not mail.sender:
            return ACCEPTED
        return await self._judge(mail, [recipient])

    async def end(self, message: Arrived) -> Verdict:
        if message.mail.sender:
            return ACCEPTED
        return await self._judge(message.mail, message.mail.recipients)

    async def _judge(self, mail: Mail, recipients: list[Recipient]) -> Verdict:
        if is_ours(mail.client) or not mail.client.address:
            return ACCEPTED
        listings = mail.noted(Listings)
        if listings is not None and listings.welcome:
            return ACCEPTED
        try:
            known = await self._known(mail)
            if known.well:
                return ACCEPTED
            longest, waited = 0.0, 0.0
            for recipient in recipients:
                if self._correspondents is not None and await self._correspondents(mail.sender, recipient):
                    continue
                left, since = await self._left(known.origin, mail.sender, recipient)
                longest, waited = max(longest, left), max(waited, since)
        except StorageError as error:
            raise FilterDown(f"the store of greylisting does not answer: {error}") from error
        if longest > 0:
            minutes = max(1, round(longest / 60))
            text = f"Greylisted: please come back in {minutes} minute{'s' if minutes > 1 else ''}"
            return Verdict(
                action=Action.DEFER,
                reason=f"A stranger to this recipient: it was asked to come back in {longest:.0f} s (greylisting)",
                answer=Answer(451, "4.7.1", text),
                facts={"origin": known.origin},
            )
        if waited > 0:
            return Verdict(reason=f"It came back after {waited:.0f} s, as honest servers do (greylisting)")
        return ACCEPTED

    async def _left(self, origin: str, sender: str, recipient: Recipient) -> tuple[float, float]:
        """How long it still has to wait, and how long it has waited if it comes back for the first time."""
        settings = self.settings
        whose = domain_of(sender) if settings.by_domain else mailbox_of(sender)
        key = hashed_key("greylist", origin, whose, recipient.address.lower())
        first = await self._cache.get(key)
        now = self._wall()
        if first == _PASSED:
            await self._cache.set(key, _PASSED, settings.kept_seconds)
            return 0.0, 0.0
        began = _number(first)
        if began is None:
            await self._cache.set(key, b"%.3f" % now, settings.window_seconds)
            return settings.delay_seconds, 0.0
        left = began + settings.delay_seconds - now
        if left > settings.delay_seconds:  # written by a node whose clock runs ahead
            left = settings.delay_seconds
        if left > 0:
            return left, 0.0
        await self._cache.set(key, _PASSED, settings.kept_seconds)
        await self._came_back(origin)
        return 0.0, max(now - began, 0.001)

    # --- who is known well

    async def _known(self, mail: Mail) -> _Known:
        """Looked up once for each transaction."""
        known = mail.noted(_Known)
        if known is None:
            origin = self._origin(mail)
            known = _Known(
                origin, bool(self.settings.known_after) and await self._records.get(*_place(origin)) is not None
            )
            mail.note(known)
        return known

    def _origin(self, mail: Mail) -> str:
        spf = mail.noted(SPFResult)
        if spf is not None and spf.result is SPF.PASS and spf.domain:
            return f"domain {spf.domain}"
        return f"network {network_of(mail.client.address, self.settings.v4_bits, self.settings.v6_bits)}"

    async def _came_back(self, origin: str) -> None:
        settings = self.settings
        if not settings.known_after:
            return
        times = await self._cache.increment(hashed_key("greylist-back", origin), settings.kept_seconds)
        if times >= settings.known_after:
            await self._records.put(*_place(origin), b"%.0f" % self._wall(), settings.kept_seconds)


def _place(origin: str) -> tuple[str, str]:
    """Space and key in `Records`, spread over 256 spaces."""
    key = hashed_key("known", origin).partition("/")[2]
    return f"greylisting/{key[:2]}", key


def _number(octets: bytes | None) -> float | None:
    try:
        return None if octets is None else float(octets)
    except ValueError:
        return None
