"""Addresses that are not written to: they bounced for good, their owners unsubscribed or complained, or an operator says so.

There is a list for each sender domain: what one customer's readers do is no other customer's business. An entry ends by
itself, except where a person asked for it; an operator's `allow` wins over all of them.

The entries of an address lie together in the space ``suppress/<sender domain>/<2 hex digits of the address's hash>``, so a
look costs one read. Their keys are ``<address> <source>`` and, for what is about one stream, ``<address> <source> <stream>``.
"""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import msgspec

from twisted_mail.relay.streams import Stream
from twisted_mail.relay.values import Result, Stage, Verdict
from twisted_mail.storage.interfaces import Records
from twisted_mail.values import canonical_address, canonical_domain

__all__ = [
    "ALLOWED",
    "BOUNCE",
    "COMPLAINT",
    "OPERATOR",
    "UNSUBSCRIBE",
    "Suppressed",
    "SuppressionSettings",
    "Suppressions",
    "kept_for",
]

BOUNCE: Final = "bounce"
COMPLAINT: Final = "complaint"
UNSUBSCRIBE: Final = "unsubscribe"
OPERATOR: Final = "operator"
ALLOWED: Final = "allowed"
"""An operator's override."""
_SOURCES: Final = (BOUNCE, COMPLAINT, UNSUBSCRIBE, OPERATOR, ALLOWED)
_DAY: Final = 86_400.0
_DOMAINS: Final = "suppress-domains"
_BELIEVED_SECONDS: Final = 60.0
"""So long a process goes on writing to an address of which another has made its domain's first entry."""
_REMEMBERED: Final = 10_000
_MOST: Final = 200
"""Entries of one address that are looked at: a stream has at most two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuppressionSettings:
    """For how long an address that bounced is not written to, seconds; 0: it is not suppressed for that."""

    unknown: float = 180 * _DAY
    """There is no such mailbox (5.1.1, 5.1.3, 5.1.6)."""
    domain: float = 30 * _DAY
    """There is no such domain, or it takes no mail (5.1.2, 5.1.10)."""
    disabled: float = 30 * _DAY
    """The mailbox is there and switched off (5.2.1)."""


_ENHANCED: Final = re.compile(r"(\d{3})[ -](?:(\d)\.(\d{1,3})\.(\d{1,3})\b)?")
_KINDS: Final = {
    (1, 1): "unknown",
    (1, 2): "domain",
    (1, 3): "unknown",
    (1, 6): "unknown",
    (1, 10): "domain",
    (2, 1): "disabled",
}
"""RFC 3463 sections 3.2 and 3.3, RFC 7505 section 4.2."""
_VAGUE: Final = {(0, 0), (5, 0), (1, 0)}
"""Codes that say nothing: the words count."""
_UNKNOWN_WORDS: Final = re.compile(
    r"(user|recipient|mailbox|account|address)\b.{0,40}\b(unknown|not found|does ?n[o']t exist|not exist|no longer exists)"
    r"|(unknown|no such|invalid|non-?existent) (local )?(user|recipient|mailbox|account|person)",
    re.IGNORECASE,
)


def kept_for(reply: str, settings: SuppressionSettings, stage: Stage = Stage.RCPT) -> float:
    """How long an address that was refused for good with *reply* is to be suppressed, seconds; 0: it is not.

    Only what is about the recipient counts: no mailbox, no domain. A refusal by policy (5.7.x), of content, for a full
    mailbox or of our address says nothing about whether the next message will be taken.
    """
    match = _ENHANCED.match(reply)
    if match is None or not match[1].startswith("5"):
        return 0.0
    if match[2] is not None and match[2] != "5":
        return 0.0
    code = (int(match[3]), int(match[4])) if match[3] else (0, 0)
    kind = _KINDS.get(code)
    if kind is None and code in _VAGUE and stage in (Stage.RCPT, Stage.END) and _UNKNOWN_WORDS.search(reply):
        kind = "unknown"
    found: float = getattr(settings, kind) if kind is not None else 0.0
    return found


class Suppressed(msgspec.Struct, frozen=True, omit_defaults=True):
    """An entry of a list."""

    address: str
    source: str
    """`BOUNCE`, `COMPLAINT`, `UNSUBSCRIBE`, `OPERATOR`, or `ALLOWED`: the override."""
    reason: str = ""
    """What the server said, or a person."""
    at: float = 0.0
    """Since when; seconds since 1970."""
    until: float | None = None
    """None: for good."""
    stream: str = ""
    """The only stream that it is about; empty: see `stops`."""

    def stops(self, stream: Stream) -> bool:
        """Whether mail of *stream* must not be sent to the address because of this entry."""
        if self.source == OPERATOR:
            return not self.stream or self.stream == stream.name
        if self.source == BOUNCE:
            return stream.suppress
        if self.source in (COMPLAINT, UNSUBSCRIBE):
            return self.stream == stream.name if self.stream else stream.one_click
        return False

    @property
    def text(self) -> str:
        """Why a message is not sent, for the trace and for who sent it."""
        what = {
            BOUNCE: "mail to it was refused for good",
            COMPLAINT: "its owner complained",
            UNSUBSCRIBE: "its owner unsubscribed",
            OPERATOR: "an operator suppressed it",
        }.get(self.source, self.source)
        since = datetime.datetime.fromtimestamp(self.at, datetime.UTC).date().isoformat()
        return f"{self.address} is suppressed since {since}: {what}" + (f" ({self.reason})" if self.reason else "")

    def verdict(self) -> Verdict:
        """What stands in the trace instead of a server's answer. Not 5.1.1: nobody was asked."""
        reply = f"550 5.7.1 not sent: {self.text}"
        return Verdict(Result.PERMANENT, reply, Stage.ROUTE, remote=False)


def _space(domain: str, bucket: str) -> str:
    return f"suppress/{domain}/{bucket}"


def _bucket(address: str) -> str:
    return blake2b(address.encode("utf-8", "surrogatepass"), digest_size=1).hexdigest()


_BUCKETS: Final = tuple(f"{number:02x}" for number in range(256))
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Suppressed)


class Suppressions:
    """The lists. Addresses and domains may be written in any form that means the same."""

    def __init__(
        self,
        records: Records,
        settings: SuppressionSettings | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._records = records
        self.settings = settings if settings is not None else SuppressionSettings()
        self._wall = wall
        self._domains: set[str] = set()
        """Sender domains that have a list."""
        self._without: dict[str, float] = {}
        """Those that had none when it was looked; until when that is believed."""

    async def check(self, sender_domain: str, address: str, stream: Stream) -> Suppressed | None:
        """Why mail of *stream* from *sender_domain* must not go to *address*; None: it may. Raises: StorageError."""
        if not sender_domain:
            return None  # the null sender's mail tells of other mail
        entries = await self.entries(sender_domain, address)
        if any(entry.source == ALLOWED for entry in entries):
            return None
        return next((entry for entry in entries if entry.stops(stream)), None)

    async def entries(self, sender_domain: str, address: str) -> Sequence[Suppressed]:
        """All that is written of *address*. Raises: StorageError."""
        domain, name = _canonical(sender_domain, address)
        if not name:
            return []
        if domain not in self._domains and not await self._has_list(domain):
            return []
        prefix = f"{name} "
        found = await self._records.list(_space(domain, _bucket(name)), prefix, _MOST)
        now = self._wall()
        entries = [_decoder.decode(record.value) for record in found if record.key.startswith(prefix)]
        return [entry for entry in entries if entry.until is None or entry.until > now]

    async def _has_list(self, domain: str) -> bool:
        """Most domains have none: not worth a question for each message."""
        now = self._wall()
        if now < self._without.get(domain, 0.0):
            return False
        if await self._records.get(_DOMAINS, domain) is not None:
            self._domains.add(domain)
            return True
        if len(self._without) >= _REMEMBERED:
            self._without.clear()
        self._without[domain] = now + _BELIEVED_SECONDS
        return False

    async def add(
        self,
        sender_domain: str,
        address: str,
        reason: str,
        source: str = OPERATOR,
        ttl: float | None = None,
        stream: str = "",
    ) -> Suppressed:
        """Suppress *address* for *ttl* seconds (None: for good); what was written of it by the same *source* is replaced.

        Raises: StorageError, ValueError (no address, or it is too long).
        """
        if source not in _SOURCES:
            raise ValueError(f"{source!r} is not a source: {', '.join(_SOURCES)} are")
        domain, name = _canonical(sender_domain, address)
        if not name or not domain:
            raise ValueError(f"{address!r} of {sender_domain!r} cannot be suppressed")
        now = self._wall()
        entry = Suppressed(name, source, reason[:1000], now, now + ttl if ttl is not None else None, stream)
        if domain not in self._domains:
            # first: without it nobody looks for the entry
            await self._records.put(_DOMAINS, domain, b"")
            self._domains.add(domain)
        await self._records.put(_space(domain, _bucket(name)), _key(entry), _encoder.encode(entry), ttl)
        return entry

    async def bounced(self, sender_domain: str, address: str, verdict: Verdict) -> Suppressed | None:
        """Suppress *address* if *verdict*, its last, says that it will not do better next time. Raises: StorageError."""
        ttl = kept_for(verdict.reply, self.settings, verdict.stage) if verdict.result is Result.PERMANENT else 0.0
        if not ttl or not sender_domain:
            return None
        try:
            return await self.add(sender_domain, address, verdict.reply, BOUNCE, ttl)
        except ValueError:
            return None

    async def allow(self, sender_domain: str, address: str, reason: str = "", ttl: float | None = None) -> Suppressed:
        """Write to *address* whatever else is written of it. Raises: StorageError, ValueError."""
        return await self.add(sender_domain, address, reason, ALLOWED, ttl)

    async def remove(self, sender_domain: str, address: str) -> Sequence[Suppressed]:
        """Forget all that is written of *address*, an override too; what that was. Raises: StorageError."""
        domain, name = _canonical(sender_domain, address)
        found = await self.entries(sender_domain, address)
        for entry in found:
            await self._records.delete(_space(domain, _bucket(name)), _key(entry))
        return found

    async def page(
        self, sender_domain: str, after: str = "", limit: int = 1000
    ) -> tuple[Sequence[Suppressed], str | None]:
        """Some entries of a domain, and where to go on (None: that was all). The order means nothing, but stays.

        Raises: StorageError.
        """
        domain = canonical_domain(sender_domain)
        bucket, _, key = after.partition("/")
        found: list[Suppressed] = []
        now = self._wall()
        for number in range(_BUCKETS.index(bucket) if bucket in _BUCKETS else 0, 256):
            while True:
                records = await self._records.list(_space(domain, _BUCKETS[number]), key, min(limit - len(found), 1000))
                for record in records:
                    key = record.key
                    entry = _decoder.decode(record.value)
                    if entry.until is None or entry.until > now:
                        found.append(entry)
                if len(found) >= limit:
                    return found, f"{_BUCKETS[number]}/{key}"
                if not records:
                    break
            key = ""
        return found, None

    async def every(self, sender_domain: str) -> AsyncIterator[Suppressed]:
        """All entries of a domain. Raises: StorageError."""
        after: str | None = ""
        while after is not None:
            found, after = await self.page(sender_domain, after)
            for entry in found:
                yield entry

    async def domains(self) -> AsyncIterator[str]:
        """Sender domains that have, or had, a list. Raises: StorageError."""
        after = ""
        while True:
            found = await self._records.list(_DOMAINS, after)
            for record in found:
                yield record.key
            if not found:
                return
            after = found[-1].key


def _key(entry: Suppressed) -> str:
    return f"{entry.address} {entry.source}" + (f" {entry.stream}" if entry.stream else "")


def _canonical(sender_domain: str, address: str) -> tuple[str, str]:
    try:
        return canonical_domain(sender_domain), canonical_address(address)
    except ValueError:
        return "", ""
