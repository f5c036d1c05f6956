"""Limits: how much one address, network, HELO, sender, domain, recipient or login may do in a time, over all nodes.

A limit is written as a line: ``connections per address 60/1m``, ``messages per sender_domain 1000/1h tarpit``. Counters are in
the shared `Cache`, two fixed windows for each: what counts is the present one and that part of the one before which a window
that slides would still cover. Limits of logins by the day are in `Allowances`, which last; they begin anew at midnight UTC.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from twisted_mail.filters.peers import domain_of, hashed_key, mailbox_of, network_of
from twisted_mail.filters.values import ACCEPTED, Action, Answer, Client, FilterDown, Mail, Verdict
from twisted_mail.services import Recipient
from twisted_mail.storage.interfaces import Allowances, Cache, StorageError

__all__ = ["DEFAULT_LIMITS", "Limit", "Rates", "limits_from"]

_WHAT: Final = ("connections", "messages", "recipients", "unknown")
_WHOM: Final = ("address", "network", "helo", "sender", "sender_domain", "recipient", "login")
_USUALLY: Final = {"address": "connections", "network": "connections", "recipient": "recipients"}
_POSSIBLE: Final = {
    "connections": {"address", "network"},
    "messages": {"address", "network", "helo", "sender", "sender_domain", "login"},
    "recipients": set(_WHOM),
    "unknown": {"address", "network"},
}
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_LINE: Final = re.compile(r"(?:([a-z]+) +per +)?([a-z_]+) +(\d{1,9})/(\d{0,6})([smhd])(?: +(defer|tarpit))?")
_ANSWERS: Final = {
    "connections": Answer(421, "4.7.0", "Too many connections"),
    "messages": Answer(451, "4.7.0", "Too many messages"),
    "recipients": Answer(451, "4.7.0", "Too many recipients"),
    "unknown": Answer(421, "4.7.0", "Too many unknown recipients"),
}
_MOST_COUNTERS: Final = 10_000
_DAY: Final = 86_400.0
_LONGEST_SECONDS: Final = 31 * _DAY
MOST_DELAY_SECONDS: Final = 30.0

DEFAULT_LIMITS: Final = (
    "connections per address 120/1m",
    "messages per address 600/1h tarpit",
    "unknown per address 10/10m tarpit",
)
"""What an honest peer of a small server does not reach. None for users: some of them send newsletters."""


@dataclass(frozen=True, slots=True)
class Limit:
    """``messages per sender 100/1h``."""

    what: str
    """``connections``, ``messages``, ``recipients``, or ``unknown``: recipients that do not exist."""
    whom: str
    most: int
    seconds: float
    tarpit: bool = False
    """Above it answers take longer and longer; else the peer is told to come back."""

    @classmethod
    def parse(cls, line: str) -> Limit:
        """``[WHAT per ]WHOM NUMBER/TIME[ tarpit]``. Raises: ValueError that says what is wrong."""
        match = _LINE.fullmatch(line.strip()) if isinstance(line, str) else None
        if match is None:
            raise ValueError(
                f'{line!r} is no limit; limits are like "messages per sender 100/1h", or end with "tarpit"'
            )
        what, whom, most, times, unit, action = match.groups()
        if whom not in _WHOM:
            raise ValueError(f"{line!r}: nothing is counted by {whom!r}; there are {', '.join(_WHOM)}")
        what = what or _USUALLY.get(whom, "messages")
        if what not in _WHAT:
            raise ValueError(f"{line!r}: {what!r} are not counted; there are {', '.join(_WHAT)}")
        if whom not in _POSSIBLE[what]:
            raise ValueError(f"{line!r}: {what} are counted by {', '.join(sorted(_POSSIBLE[what]))} only")
        seconds = float(times or 1) * _UNITS[unit]
        if not 1 <= seconds <= _LONGEST_SECONDS:
            raise ValueError(f"{line!r}: a time is between 1 s and 31 d")
        if int(most) < 1:
            raise ValueError(f"{line!r}: a limit is at least 1")
        return cls(what, whom, int(most), seconds, action == "tarpit")

    def __str__(self) -> str:
        unit = next((unit for unit in "dhm" if self.seconds % _UNITS[unit] == 0), "s")
        line = f"{self.what} per {self.whom} {self.most}/{self.seconds / _UNITS[unit]:g}{unit}"
        return line + " tarpit" if self.tarpit else line

    @property
    def lasting(self) -> bool:
        """Whether it is counted where nothing gets lost."""
        return self.whom == "login" and self.seconds == _DAY


def limits_from(lines: Sequence[str]) -> tuple[Limit, ...]:
    """Raises: ValueError, also for two limits of the same and the same time."""
    limits: list[Limit] = []
    for line in lines:
        limit = Limit.parse(line)
        if any((limit.what, limit.whom, limit.seconds) == (other.what, other.whom, other.seconds) for other in limits):
            raise ValueError(f"{line!r}: there is such a limit already")
        limits.append(limit)
    return tuple(limits)


class _Counter:
    """Where something is counted, and what the window before had: that is over, so it is asked for once."""

    __slots__ = ("before", "key", "name", "window")

    def __init__(self, name: str) -> None:
        self.name = name
        self.window = -1.0
        self.before = 0
        self.key = ""


class Rates:
    """A `Stage`, asked at connect, MAIL and RCPT, and about recipients that do not exist.

    What was refused does not count, so whoever keeps trying gets in again as soon as there is room. Limits by login are
    for users who have logged in, all others for strangers; trusted peers are not counted.
    """

    name = "rates"
    needs: frozenset[str] = frozenset()
    outbound = True

    def __init__(
        self, cache: Cache, allowances: Allowances, wall: Callable[[], float], limits: Sequence[Limit]
    ) -> None:
        self._cache = cache
        self._allowances = allowances
        self._wall = wall
        self._limits = {what: tuple(limit for limit in limits if limit.what == what) for what in _WHAT}
        self._ahead: dict[tuple[str, int], int] = {}
        """What was taken of an allowance and is not used yet."""
        self._counters: dict[tuple[Limit, str], _Counter] = {}

    async def connect(self, client: Client) -> Verdict:
        return await self._count("connections", client, None, None)

    async def mail(self, mail: Mail) -> Verdict:
        return await self._count("messages", mail.client, mail, None)

    async def rcpt(self, mail: Mail, recipient: Recipient) -> Verdict:
        return await self._count("recipients", mail.client, mail, recipient)

    async def unknown(self, client: Client, address: str) -> Verdict:
        """The peer has named a recipient that does not exist: who guesses addresses is slowed down."""
        return await self._count("unknown", client, None, None)

    async def _count(self, what: str, client: Client, mail: Mail | None, recipient: Recipient | None) -> Verdict:
        limits = self._limits[what]
        if not limits or client.trusted:
            return ACCEPTED
        worst = ACCEPTED
        counted: list[tuple[str, float]] = []
        try:
            for limit in limits:
                whom = _whom(limit, client, mail, recipient)
                if not whom:
                    continue
                if limit.lasting:
                    if not await self._take(limit, whom):
                        await self._give_back(counted)
                        return _over(limit, whom, limit.most, user=True)
                    continue
                key, number = await self._add(limit, whom)
                counted.append((key, limit.seconds))
                if number <= limit.most:
                    continue
                if not limit.tarpit:
                    await self._give_back(counted)
                    return _over(limit, whom, number, user=client.identity is not None)
                slow = _slow(limit, whom, number)
                worst = max(worst, slow, key=lambda verdict: verdict.delay_seconds)
        except StorageError as error:
            raise FilterDown(f"the counters do not answer: {error}") from error
        return worst

    async def _add(self, limit: Limit, whom: str) -> tuple[str, float]:
        """Count one more; its counter, and how many there were within the time that ends now."""
        counter = self._counters.get((limit, whom))
        if counter is None:
            if len(self._counters) >= _MOST_COUNTERS:
                self._counters.clear()
            counter = _Counter(hashed_key(f"rate/{limit.what}/{limit.seconds:g}", limit.whom, whom))
            self._counters[limit, whom] = counter
        window, into = divmod(self._wall(), limit.seconds)
        ttl = 2 * limit.seconds
        if counter.window != window:
            counter.before = await self._cache.increment(f"{counter.name}/{window - 1:.0f}", ttl, 0)
            counter.window, counter.key = window, f"{counter.name}/{window:.0f}"
        key = counter.key
        now = await self._cache.increment(key, ttl)
        return key, now + counter.before * (1 - into / limit.seconds)

    async def _give_back(self, counted: list[tuple[str, float]]) -> None:
        for key, seconds in counted:
            await self._cache.increment(key, 2 * seconds, -1)

    async def _take(self, limit: Limit, whom: str) -> bool:
        """One of the day's allowance; a few are taken ahead, so that not every message costs a write that agrees."""
        day = int(self._wall() // _DAY)
        name = hashed_key(f"rate/{limit.what}", whom)
        left = self._ahead.get((name, day), 0)
        if not left:
            if len(self._ahead) > 10_000:
                self._ahead.clear()
            left = await self._allowances.take(name, day, max(1, min(10, limit.most // 50)), limit.most)
        if not left:
            return False
        self._ahead[name, day] = left - 1
        return True


def _whom(limit: Limit, client: Client, mail: Mail | None, recipient: Recipient | None) -> str:
    """Whose counter it is; empty: the limit is not for this one."""
    identity = client.identity
    if (limit.whom == "login") != (identity is not None):
        return ""
    match limit.whom:
        case "login":
            return identity.login if identity is not None else ""
        case "address":  # a host of IPv6 has a /64
            return network_of(client.address, 32, 64)
        case "network":
            return network_of(client.address, 24, 48)
        case "helo":
            return client.helo.lower()
        case "sender":
            return mailbox_of(mail.sender) if mail is not None else ""
        case "sender_domain":
            return domain_of(mail.sender) if mail is not None else ""
        case _:
            return mailbox_of(recipient.address) if recipient is not None else ""


def _over(limit: Limit, whom: str, number: float, *, user: bool) -> Verdict:
    answer = _ANSWERS[limit.what]
    again = max(1, round(limit.seconds / 60))
    text = f"{answer.text}, please come back later (limit {limit.most} in {again} min)"
    return Verdict(
        action=Action.DEFER,
        reason=f"Above the limit of {limit} for {whom}",
        answer=Answer(450, "4.7.1", text) if user else replace(answer, text=text),
        facts={"limit": str(limit), "count": f"{number:.0f}"},
    )


def _slow(limit: Limit, whom: str, number: float) -> Verdict:
    """A second above the limit, and ten more for each time that it is exceeded as a whole."""
    delay = min(MOST_DELAY_SECONDS, 1.0 + 10.0 * (number - limit.most) / limit.most)
    return Verdict(
        reason=f"Above the limit of {limit} for {whom}: answered {delay:.0f} s late",
        delay_seconds=delay,
        facts={"limit": str(limit), "count": f"{number:.0f}"},
    )
