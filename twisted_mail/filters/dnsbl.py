"""Lists in the DNS of who sends spam (DNSBL) and who does not (DNSWL), with weights (RFC 5782).

An address is looked up when it connects, beside the greeting; its answers are waited for at MAIL. The domains of the sender
and of HELO are looked up in lists of domains (RFC 5782 section 3) at MAIL.

Three things a list says are not believed: an answer outside 127.0.0.0/8 (the zone is dead and somebody sells
its name), one of 127.255.255.0/24 (large lists say so that they do not answer *this* resolver), and any answer at all while
the list also has 127.0.0.1, which no list holds (section 5: it then lists everybody).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.defer import TimeoutError as TwistedTimeout
from twisted.logger import Logger

from twisted_mail.dns.values import DNS, DNSFailure, NoSuchName
from twisted_mail.filters.peers import domain_of, ip_of, is_ours, is_public
from twisted_mail.filters.values import ACCEPTED, Action, Answer, Client, FilterDown, Mail, Verdict

__all__ = ["DNSBL", "Listing", "Listings", "Zone", "reversed_name", "zones_from"]

_NAME: Final = re.compile(
    r"(?=.{1,200}\Z)[a-z0-9_](?:[a-z0-9_-]*[a-z0-9])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9])?)+", re.I
)
_OCTET: Final = r"(?:\*|\d{1,3})"
_PATTERN: Final = re.compile(rf"127(?:\.{_OCTET}){{3}}")
_WARNED_SECONDS: Final = 3600.0
_MOST_POINTS: Final = 1000.0


@dataclass(frozen=True, slots=True)
class Zone:
    """A list, and what its answers are worth."""

    name: str
    points: Mapping[str, float]
    """Points by answer: ``127.0.0.2``, or with stars for whole octets, ``127.0.*.3``. Below 0 it speaks for the peer."""

    def weigh(self, answers: Sequence[str]) -> float:
        """Points for *answers*: each counts by the pattern with the fewest stars, and each pattern once."""
        used = set()
        for answer in answers:
            matching = [pattern for pattern in self.points if fnmatch.fnmatchcase(answer, pattern)]
            if matching:
                used.add(min(matching, key=lambda pattern: pattern.count("*")))
        return sum(self.points[pattern] for pattern in used)


@dataclass(frozen=True, slots=True)
class Listing:
    """One list has something."""

    zone: str
    what: str
    """What was looked up: an address or a domain."""
    answers: tuple[str, ...]
    points: float


@dataclass(frozen=True, slots=True)
class Listings:
    """Noted on the `Mail`: what lists say of its client and its domains."""

    found: tuple[Listing, ...]
    asked: int = 0

    @property
    def points(self) -> float:
        return sum(listing.points for listing in self.found)

    @property
    def welcome(self) -> bool:
        """A list speaks for it, and all of them together do."""
        return self.points < 0


@dataclass(slots=True)
class _Looking:
    """Noted on the `Client`: what is being asked of its address."""

    address: str
    answer: Deferred[tuple[list[Listing], int]]


def zones_from(table: Mapping[str, Any]) -> tuple[Zone, ...]:
    """Zones as the configuration has them: ``{"zen.example": 5.0, "wl.example": {"127.0.*.3": -3.0}}``.

    Raises: ValueError that names the zone.
    """
    zones = []
    for name, value in table.items():
        if not _NAME.fullmatch(name.rstrip(".")):
            raise ValueError(f"{name!r} is no name of a list")
        points = value if isinstance(value, Mapping) else {"127.*.*.*": value}
        if not points:
            raise ValueError(f"{name}: no answers are named")
        for pattern, worth in points.items():
            numbers = [part for part in pattern.split(".") if part != "*"] if isinstance(pattern, str) else ["256"]
            if not _PATTERN.fullmatch(str(pattern)) or any(int(number) > 255 for number in numbers):
                raise ValueError(
                    f'{name}: {pattern!r} is no answer of a list; they are like "127.0.0.2" or "127.0.*.3"'
                )
            if isinstance(worth, bool) or not isinstance(worth, (int, float)) or not abs(worth) <= _MOST_POINTS:
                raise ValueError(
                    f"{name}: {worth!r} is no number of points between -{_MOST_POINTS:g} and {_MOST_POINTS:g}"
                )
        zones.append(Zone(name.rstrip(".").lower(), {pattern: float(worth) for pattern, worth in points.items()}))
    return tuple(zones)


def reversed_name(address: str) -> str:
    """The name of an address in a list: its octets (IPv4, RFC 5782 section 2.1) or hexadecimal digits (IPv6, section 2.4),
    the last one first. Raises: ValueError."""
    ip = ip_of(address)
    if ip is None:
        raise ValueError(f"{address!r} is no IP address")
    parts = str(ip).split(".") if ip.version == 4 else ip.exploded.replace(":", "")
    return ".".join(reversed(parts))


class DNSBL:
    """A `Stage`, asked at connect and MAIL."""

    name = "dnsbl"
    needs: frozenset[str] = frozenset()
    outbound = False
    _log = Logger()

    def __init__(
        self,
        dns: DNS,
        clock: Any,
        zones: Sequence[Zone],
        domain_zones: Sequence[Zone] = (),
        *,
        reject_points: float | None = None,
        seconds: float = 3.0,
    ) -> None:
        """*clock*: IReactorTime. With *reject_points* and more the transaction is refused at MAIL. What a list has not
        answered within *seconds* it has not said."""
        self._dns = dns
        self._clock = clock
        self._zones = tuple(zones)
        self._domain_zones = tuple(domain_zones)
        self._reject = reject_points
        self._seconds = seconds
        self._warned: dict[str, float] = {}

    async def connect(self, client: Client) -> Verdict:
        """Begin to ask."""
        if self._zones and not is_ours(client) and is_public(client.address):
            self._look(client)
        return ACCEPTED

    async def mail(self, mail: Mail) -> Verdict:
        client = mail.client
        if is_ours(client):
            return ACCEPTED
        questions = [
            self._ask(zone, domain, domain)
            for domain in self._domains(mail)
            for zone in self._domain_zones
        ]  # fmt: skip
        here = self._gather(questions)
        found: list[Listing] = []
        answered, asked = 0, len(questions)
        if self._zones and is_public(client.address):
            looking = client.noted(_Looking)
            if looking is None or looking.address != client.address:  # XCLIENT may have told another one
                looking = self._look(client)
            listings, replies = await _shared(looking)
            found += listings
            answered, asked = answered + replies, asked + len(self._zones)
        listings, replies = await here
        found += listings
        answered += replies
        mail.note(Listings(tuple(found), asked))
        if asked and not answered:
            raise FilterDown("no list in the DNS answers")
        return self._verdict(Listings(tuple(found), asked), client)

    async def closed(self, client: Client) -> None:
        looking = client.noted(_Looking)
        if looking is not None:
            looking.answer.cancel()

    async def examine(self, zone: Zone) -> str:
        """What is wrong with a list of addresses, by its test entries (RFC 5782 section 5): empty if nothing is."""
        try:
            holds, everybody = (
                await self._answers(f"2.0.0.127.{zone.name}"),
                await self._answers(f"1.0.0.127.{zone.name}"),
            )
        except DNSFailure as error:
            return f"{zone.name} does not answer: {error}"
        if everybody:
            return f"{zone.name} lists everybody"
        if not holds:
            return f"{zone.name} does not hold 127.0.0.2: it is dead, or no list of addresses"
        if _unusable(holds):
            return f"{zone.name} answers {', '.join(holds)}: it does not serve this resolver, or is not a list any more"
        return ""

    # --- asking

    def _domains(self, mail: Mail) -> list[str]:
        names = dict.fromkeys((domain_of(mail.sender), mail.client.helo.rstrip(".").lower()))
        return [name for name in names if _NAME.fullmatch(name) and ip_of(name) is None]

    def _look(self, client: Client) -> _Looking:
        name = reversed_name(client.address)
        looking = _Looking(
            client.address, self._gather([self._ask(zone, name, client.address) for zone in self._zones])
        )
        # Who waits for it takes what is there by then; the connection may be gone before anybody does.
        looking.answer.addErrback(lambda failure: ([], 0))
        client.note(looking)
        return looking

    def _gather(self, questions: Sequence[Coroutine[Any, Any, Listing | None]]) -> Deferred[tuple[list[Listing], int]]:
        """What comes within the time, and how many answered."""
        asking = []
        for question in questions:
            one: Deferred[Listing | None] = Deferred.fromCoroutine(question)
            asking.append(one.addTimeout(self._seconds, self._clock))
        everything = DeferredList(asking, consumeErrors=True)

        def sort(outcomes: Any) -> tuple[list[Listing], int]:
            listings, answered = [], 0
            for succeeded, result in outcomes:
                if succeeded:
                    answered += 1
                    if result is not None:
                        listings.append(result)
                elif not result.check(DNSFailure, TwistedTimeout, CancelledError):
                    self._log.failure("asking a list", result)
            return listings, answered

        return everything.addCallback(sort)

    async def _ask(self, zone: Zone, name: str, what: str) -> Listing | None:
        """Raises: DNSFailure."""
        answers = await self._answers(f"{name}.{zone.name}")
        if not answers:
            return None
        if unusable := _unusable(answers):
            self._warn(zone.name, unusable)
            answers = tuple(answer for answer in answers if not _unusable((answer,)))
            if not answers:
                return None
        points = zone.weigh(answers)
        if not points:
            return None
        if await self._lists_everybody(zone, what):
            return None
        return Listing(zone.name, what, answers, points)

    async def _lists_everybody(self, zone: Zone, what: str) -> bool:
        """The resolver remembers the answer, so this costs a question an hour."""
        never = "1.0.0.127" if ip_of(what) is not None else "invalid"
        try:
            everybody = await self._answers(f"{never}.{zone.name}")
        except DNSFailure:
            return False
        if everybody:
            self._warn(zone.name, "it lists everybody")
        return bool(everybody)

    async def _answers(self, name: str) -> tuple[str, ...]:
        try:
            return tuple((await self._dns.a(name)).records)
        except NoSuchName:
            return ()

    def _warn(self, zone: str, why: str) -> None:
        now = self._clock.seconds()
        if self._warned.get(zone, 0.0) <= now:
            self._warned[zone] = now + _WARNED_SECONDS
            self._log.warn("the list {zone} is not believed: {why}", zone=zone, why=why)

    # --- what comes of it

    def _verdict(self, listings: Listings, client: Client) -> Verdict:
        if not listings.found:
            return ACCEPTED
        bad = [listing for listing in listings.found if listing.points > 0]
        good = [listing for listing in listings.found if listing.points < 0]
        sentences = [f"{listing.what} is listed by {listing.zone}" for listing in bad]
        sentences += [f"{listing.zone} speaks for {listing.what}" for listing in good]
        facts = {listing.zone: f"{', '.join(listing.answers)} ({listing.points:+g})" for listing in listings.found}
        points = listings.points
        if self._reject is not None and bad and points >= self._reject:
            first = max(bad, key=lambda listing: listing.points)
            answer = Answer(554, "5.7.1", f"Service refused: {first.what} is listed by {first.zone}")
            return Verdict(action=Action.REJECT, reason="; ".join(sentences), answer=answer, score=points, facts=facts)
        return Verdict(reason="; ".join(sentences), score=points, facts=facts)


def _unusable(answers: Sequence[str]) -> str:
    """Why some of *answers* say nothing of the peer; empty if all do."""
    for answer in answers:
        if not answer.startswith("127."):
            return f"it answers {answer}, which is outside 127.0.0.0/8"
        if answer.startswith("127.255.255."):
            return f"it answers {answer}: it refuses questions of this resolver"
    return ""


def _shared(looking: _Looking) -> Deferred[tuple[list[Listing], int]]:
    """The answer for one of several who wait; one who is cancelled takes it from no other."""
    waiting: Deferred[tuple[list[Listing], int]] = Deferred()

    def tell(result: tuple[list[Listing], int]) -> tuple[list[Listing], int]:
        if not waiting.called:
            waiting.callback(result)
        return result

    looking.answer.addCallback(tell)
    return waiting
