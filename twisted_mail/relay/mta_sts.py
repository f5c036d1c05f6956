"""MTA-STS (RFC 8461): a domain says, under a web server's certificate, which exchangers it has and that they speak TLS.

A policy stays in force until its time is over, whatever becomes of the TXT record and of the policy's host: only so it
protects against somebody who hides them. What is fetched anew replaces it when it is there; nobody waits for that.
"""

from __future__ import annotations

import json
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from twisted_mail.dns.names import BadName, a_labels, is_host_name
from twisted_mail.dns.values import DNS, DNSFailure, NoSuchName
from twisted_mail.relay.https import HTTPS, HTTPFailure, UntrustedServer
from twisted_mail.relay.values import TLSFailure
from twisted_mail.storage.interfaces import Records, StorageError

__all__ = ["SPACE", "BadPolicy", "MTASTS", "MTASTSSettings", "Policy", "parse_policy", "policy_id"]

SPACE: Final = "mta-sts"
"""The space of `Records`; the key is the domain."""
PATH: Final = "/.well-known/mta-sts.txt"

_ID: Final = re.compile(r"[A-Za-z0-9]{1,32}")
_FIELD: Final = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9_.-]{0,31})\s*=\s*([^;\s]+)\s*")
_MOST_AGE: Final = 31_557_600
"""Seconds, about a year (RFC 8461 section 3.2)."""
_MOST_PATTERNS: Final = 100
_MOST_LINES: Final = 110
_MOST_OF_LINES: Final = 20_000
"""Octets; a record of `Records` has room for 64 KiB."""


class BadPolicy(ValueError):
    """It is no policy; the text says why."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a domain has said (RFC 8461 section 3.2)."""

    mode: str
    """``enforce``, ``testing`` or ``none``."""
    mx: tuple[str, ...]
    """Names of exchangers, A-labels in lower case, perhaps with ``*.`` for one label."""
    max_age: int
    """Seconds."""
    lines: tuple[str, ...] = ()
    """As published, for reports."""
    id: str = ""
    """Of the TXT record under which it was fetched."""
    fetched: float = 0.0
    """Seconds since 1970."""

    def allows(self, host: str) -> bool:
        """Whether one of its patterns is *host* (section 4.1)."""
        _, dot, parent = host.partition(".")
        return host in self.mx or (bool(dot) and f"*.{parent}" in self.mx)

    @property
    def until(self) -> float:
        """Seconds since 1970."""
        return self.fetched + self.max_age


def policy_id(records: Sequence[bytes]) -> str | None:
    """The id in the TXT records of ``_mta-sts.DOMAIN``; None: there is no policy, or nobody could say which (section 3.1)."""
    ours = [record for record in records if record[:8] == b"v=STSv1;" or record == b"v=STSv1"]
    if len(ours) != 1 or not ours[0].isascii() or len(ours[0]) > 1000:
        return None
    fields: dict[str, str] = {}
    for field in ours[0].decode("ascii").split(";"):
        if not field.strip():
            continue
        if (read := _FIELD.fullmatch(field)) is None or read[1] in fields:
            return None
        fields[read[1]] = read[2]
    id = fields.get("id", "")
    return id if _ID.fullmatch(id) else None


def parse_policy(octets: bytes) -> Policy:
    """Read a policy file (section 3.2); unknown keys are passed over, of doubled ones the first counts. Raises BadPolicy."""
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        raise BadPolicy("it is not UTF-8") from None
    fields: dict[str, str] = {}
    patterns: list[str] = []
    lines = [line for line in re.split(r"\r?\n", text) if line.strip(" \t")]
    for line in lines:
        key, colon, value = line.partition(":")
        key, value = key.strip(" \t"), value.strip(" \t")
        if not colon or not key:
            raise BadPolicy("a line without a key")
        if key == "mx":
            patterns.append(_pattern(value))
            if len(patterns) > _MOST_PATTERNS:
                raise BadPolicy(f"more than {_MOST_PATTERNS} exchangers")
        else:
            fields.setdefault(key, value)
    if fields.get("version") != "STSv1":
        raise BadPolicy("its version is not STSv1")
    mode = fields.get("mode", "")
    if mode not in ("enforce", "testing", "none"):
        raise BadPolicy("it has no mode that is known")
    age = fields.get("max_age", "")
    if not re.fullmatch(r"[0-9]{1,10}", age):
        raise BadPolicy("it does not say for how long it holds")
    if mode != "none" and not patterns:
        raise BadPolicy("it names no exchanger")
    return Policy(mode, tuple(patterns), min(int(age), _MOST_AGE), _bounded(lines))


def _bounded(lines: Sequence[str]) -> tuple[str, ...]:
    """For reports: printable, and not too much."""
    kept, octets = [], 0
    for line in lines[:_MOST_LINES]:
        octets += len(line.encode())
        if octets > _MOST_OF_LINES:
            break
        kept.append("".join(letter if letter.isprintable() else " " for letter in line))
    return tuple(kept)


def _pattern(text: str) -> str:
    star = text.startswith("*.")
    try:
        name = a_labels(text[2:] if star else text)
    except BadName:
        name = ""
    if not is_host_name(name):
        raise BadPolicy("an exchanger that is no host name")
    return f"*.{name}" if star else name


@dataclass(frozen=True, slots=True)
class MTASTSSettings:
    """Where, how long, how much."""

    port: int = 443
    """Where policy hosts listen."""
    fetch_seconds: float = 20.0
    """For one fetch with all it needs; mail for a domain without a policy in force waits for it (the RFC suggests 60)."""
    octets: int = 65_536
    """Most octets of a policy (RFC 8461 section 3.3)."""
    again_seconds: float = 300.0
    """After a fetch that failed the next is not before (section 3.3: at least five minutes)."""
    refresh_seconds: float = 86_400.0
    """A policy older than this (or half its life) is fetched again when it is used."""
    entries: int = 20_000
    """Domains in memory."""
    fetches: int = 20
    """At once."""
    remember_seconds: float = 3600.0
    """That nothing is stored for a domain is believed for so long."""


@dataclass(slots=True)
class _Known:
    """What memory has of a domain."""

    policy: Policy | None = None
    loaded: float = float("-inf")
    """When (clock) the store was last asked."""
    not_before: float = float("-inf")
    """The next fetch (clock), after one that failed."""
    failure: TLSFailure | None = None
    """What the last fetch ended with."""


class MTASTS:
    """Policies of domains, kept in memory and in `Records`."""

    _log = Logger()

    def __init__(
        self,
        dns: DNS,
        https: HTTPS,
        records: Records | None,
        clock: IReactorTime,
        settings: MTASTSSettings | None = None,
        *,
        wall: Callable[[], float] = time.time,
        failed: Callable[[str, TLSFailure, str], None] = lambda domain, failure, why: None,
    ) -> None:
        """*failed* hears of each fetch that failed: the domain, what RFC 8460 calls it, and why."""
        self._dns = dns
        self._https = https
        self._records = records
        self._clock = clock
        self._settings = settings or MTASTSSettings()
        self._wall = wall
        self._failed = failed
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._fetching: dict[str, Deferred[None]] = {}
        self._turns = DeferredSemaphore(self._settings.fetches)

    async def policy(self, domain: str) -> Policy | None:
        """What is in force for *domain* (A-labels); None: nothing. Never raises but when cancelled.

        It waits for a fetch only where nothing is in force, and not longer than a fetch may take.
        """
        known = await self._load(domain)
        id = await self._published(domain)
        held = self._held(known)
        if id is not None and self._to_be_fetched(known, held, id):
            fetch = self._start(domain, known, id)
            if held is None:
                await _beside(fetch)
                held = self._held(known)
        return held

    def forget(self, domain: str) -> None:
        """Only in memory, for tests and after an operator's deletion."""
        self._known.pop(domain, None)

    # --- what is known

    async def _load(self, domain: str) -> _Known:
        known = self._known.get(domain)
        if known is None:
            known = self._known[domain] = _Known()
            while len(self._known) > max(1, self._settings.entries):
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(domain)
        now = self._clock.seconds()
        if self._records is None or known.policy is not None or now - known.loaded < self._settings.remember_seconds:
            return known
        known.loaded = now
        try:
            stored = await self._records.get(SPACE, domain)
        except StorageError as error:
            self._log.warn("the policy of {domain} cannot be read: {error}", domain=domain, error=error)
            known.loaded = now - self._settings.remember_seconds + 10.0
            return known
        if stored is not None and known.policy is None:
            known.policy = _from_record(stored)
        return known

    def _held(self, known: _Known) -> Policy | None:
        """The policy, if its time is not over; a clock that was put back does not make it live longer than its age."""
        policy = known.policy
        if policy is None:
            return None
        now = self._wall()
        if not policy.fetched - 86_400 <= now < policy.until:
            known.policy = None
            return None
        return policy

    async def _published(self, domain: str) -> str | None:
        try:
            return policy_id((await self._dns.txt(f"_mta-sts.{domain}")).records)
        except (NoSuchName, DNSFailure):
            return None

    def _to_be_fetched(self, known: _Known, held: Policy | None, id: str) -> bool:
        if self._clock.seconds() < known.not_before:
            return False
        if held is None or held.id != id:
            return True
        return self._wall() - held.fetched > min(held.max_age / 2, self._settings.refresh_seconds)

    # --- fetching

    def _start(self, domain: str, known: _Known, id: str) -> Deferred[None]:
        fetch = self._fetching.get(domain)
        if fetch is None:
            fetch = self._fetching[domain] = Deferred.fromCoroutine(self._fetch(domain, known, id))
            if fetch.called:
                self._fetching.pop(domain, None)
        return fetch

    async def _fetch(self, domain: str, known: _Known, id: str) -> None:
        """Never raises but for faults of ours, which are logged."""
        deadline = self._clock.seconds() + self._settings.fetch_seconds
        try:
            policy = await self._turn(domain, deadline)
            policy = replace(policy, id=id, fetched=self._wall())
            known.policy, known.failure = policy, None
            await self._store(domain, policy)
        except (HTTPFailure, BadPolicy) as error:
            known.failure = (
                TLSFailure.STS_POLICY_INVALID
                if isinstance(error, BadPolicy)
                else TLSFailure.STS_WEBPKI_INVALID
                if isinstance(error, UntrustedServer)
                else TLSFailure.STS_POLICY_FETCH_ERROR
            )
            known.not_before = self._clock.seconds() + self._settings.again_seconds
            self._log.info("no policy of {domain}: {why}", domain=domain, why=str(error))
            self._failed(domain, known.failure, str(error))
        except Exception:
            known.not_before = self._clock.seconds() + self._settings.again_seconds
            self._log.failure("fetching the policy of {domain}", domain=domain)
        finally:
            self._fetching.pop(domain, None)

    async def _turn(self, domain: str, deadline: float) -> Policy:
        """Wait for a place among the fetches, no longer than the fetch itself might take. Raises HTTPFailure, BadPolicy."""
        place = self._turns.acquire()
        call = self._clock.callLater(deadline - self._clock.seconds(), place.cancel)
        try:
            await place
        except Exception:
            raise HTTPFailure("too many policies are being fetched") from None
        finally:
            if call.active():
                call.cancel()
        try:
            response = await self._https.get(
                f"mta-sts.{domain}",
                PATH,
                port=self._settings.port,
                seconds=max(0.0, deadline - self._clock.seconds()),
                octets=self._settings.octets,
            )
        finally:
            self._turns.release()
        if response.status != 200:
            raise HTTPFailure(f"the policy's host answered {response.status}")
        if response.type != "text/plain":
            raise BadPolicy(f"its media type is {response.type[:60]!r}, not text/plain")
        return parse_policy(response.body)

    async def _store(self, domain: str, policy: Policy) -> None:
        if self._records is None:
            return
        try:
            await self._records.put(SPACE, domain, _to_record(policy), ttl=max(1.0, float(policy.max_age)))
        except StorageError as error:
            self._log.warn("the policy of {domain} cannot be kept: {error}", domain=domain, error=error)


async def _beside(running: Deferred[None]) -> None:
    """Until *running* is done; being cancelled does not cancel it."""
    mine: Deferred[None] = Deferred()

    def done(result: Any) -> Any:
        if not mine.called:
            mine.callback(None)
        return result

    running.addBoth(done)
    await mine


def _to_record(policy: Policy) -> bytes:
    fields = {"id": policy.id, "mode": policy.mode, "mx": policy.mx, "max_age": policy.max_age, "fetched": policy.fetched,
              "lines": policy.lines}  # fmt: skip
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()


def _from_record(stored: bytes) -> Policy | None:
    try:
        fields = json.loads(stored)
        return Policy(
            str(fields["mode"]),
            tuple(map(str, fields["mx"])),
            int(fields["max_age"]),
            tuple(map(str, fields["lines"])),
            str(fields["id"]),
            float(fields["fetched"]),
        )
    except (ValueError, TypeError, KeyError):
        return None
