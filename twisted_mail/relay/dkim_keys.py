"""The keys that local domains sign with: made, rotated with overlap, kept in the store (space ``dkim/<domain>``).

Whoever can read the store can sign in the name of its domains: private keys lie there as they are, so that every node has
them.

A key goes through four states. *pending*: its record is to be published, and nobody signs with it yet; *signing*; *old*:
signatures made with it may still be checked, so its record stays; *spent*: its record may go, and the key is forgotten.
"""

from __future__ import annotations

import enum
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from twisted_mail.dns.values import DNS, DNSFailure, NoSuchName
from twisted_mail.signatures import BadKey, PrivateKey, parse_key_record
from twisted_mail.signatures.keys import KeyType
from twisted_mail.storage.interfaces import Corrupt, Records

__all__ = ["DKIMKey", "DKIMKeys", "KeyExists", "KeySettings", "Publication", "Published", "State", "zone_line"]

VERSION: Final = 1
_SELECTOR: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_DAY: Final = 86_400.0
_FOR_GOOD: Final = 2.0**62
TYPES: Final[tuple[KeyType, ...]] = ("rsa", "ed25519")


class KeyExists(Exception):
    """The domain has a key of that selector."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySettings:
    """How keys are made and how long they overlap."""

    rsa_bits: int = 2048
    publish_seconds: float = 3 * _DAY
    """A new key's record is to be published for so long before the key signs: negative answers are cached too."""
    keep_seconds: float = 30 * _DAY
    """An old key's record stays for so long after the last signature: mail waits in queues for five days, signatures hold
    for fourteen, and archives check late."""


class State(enum.Enum):
    PENDING = "pending"
    SIGNING = "signing"
    OLD = "old"
    SPENT = "spent"


class _Stored(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The value of a record (MessagePack, a map, so that fields may be added)."""

    version: int = VERSION
    key: bytes
    """PKCS #8, DER."""
    created: float
    signs_from: float
    signs_until: float = _FOR_GOOD
    keep_until: float = _FOR_GOOD


@dataclass(frozen=True, slots=True)
class DKIMKey:
    """One key of a domain. Times are seconds since 1970."""

    domain: str
    selector: str
    key: PrivateKey = field(repr=False, compare=False)
    created: float
    signs_from: float
    signs_until: float = _FOR_GOOD
    keep_until: float = _FOR_GOOD

    def state(self, now: float) -> State:
        if now >= self.keep_until:
            return State.SPENT
        if now >= self.signs_until:
            return State.OLD
        return State.SIGNING if now >= self.signs_from else State.PENDING

    @property
    def name(self) -> str:
        """Of its TXT record."""
        return f"{self.selector}._domainkey.{self.domain}"

    @property
    def text(self) -> str:
        """The TXT record."""
        return self.key.record()


def zone_line(name: str, text: str, ttl: int = 3600) -> str:
    """A TXT record for a zone file: in strings of at most 255 octets (RFC 1035 section 3.3)."""
    pieces = " ".join(f'"{text[at : at + 250]}"' for at in range(0, len(text), 250))
    return f"{name}. {ttl} IN TXT ( {pieces} )"


class Publication(enum.Enum):
    """What the DNS has of a key."""

    PUBLISHED = "published"
    MISSING = "missing"
    DIFFERENT = "different"
    UNKNOWN = "unknown"
    """The DNS does not answer."""


@dataclass(frozen=True, slots=True)
class Published:
    """One key compared with the DNS."""

    key: DKIMKey
    state: State
    found: Publication
    seen: str = ""
    """What is published instead."""

    @property
    def wrong(self) -> bool:
        """Mail is sent, or soon will be, that nobody can verify; or was."""
        return self.state is not State.SPENT and self.found in (Publication.MISSING, Publication.DIFFERENT)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Stored)


class DKIMKeys:
    """Keys of all domains, in `Records`."""

    def __init__(
        self,
        records: Records,
        settings: KeySettings | None = None,
        *,
        wall: Callable[[], float] = time.time,
        defer: Callable[..., Awaitable[Any]] | None = None,
    ) -> None:
        """*defer* calls a function in a thread (`tap.threads.Threads.defer`): making an RSA key takes a good part of a
        second. None: here."""
        self._records = records
        self.settings = settings or KeySettings()
        self._wall = wall
        self._defer = defer

    async def of(self, domain: str) -> Sequence[DKIMKey]:
        """All keys of *domain* that are not spent, oldest first. Raises: StorageError."""
        now = self._wall()
        found = [_read(domain, record.key, record.value) for record in await self._records.list(_space(domain))]
        return sorted((key for key in found if key.state(now) is not State.SPENT), key=lambda key: (key.created, key.selector))

    async def add(
        self,
        domain: str,
        type: KeyType,
        *,
        selector: str = "",
        key: PrivateKey | None = None,
        signs_from: float | None = None,
        created: float | None = None,
    ) -> DKIMKey:
        """Make a key, or take *key*. It signs at once, or from *signs_from* on.

        Raises: KeyExists, ValueError (no selector), StorageError.
        """
        now = self._wall() if created is None else created
        taken = {record.key for record in await self._records.list(_space(domain))}
        if selector and not _SELECTOR.fullmatch(selector):
            raise ValueError(f"{selector!r} is no selector: letters, digits and hyphens are wanted")
        if selector in taken:
            raise KeyExists(f"{domain} has a key {selector}")
        if key is None:
            key = await self._generate(type)
        made = DKIMKey(
            domain, selector or _free_selector(key.type, now, taken), key, now, now if signs_from is None else signs_from
        )
        await self._write(made)
        return made

    async def begin(self, domain: str) -> Sequence[DKIMKey]:
        """An RSA and an Ed25519 key for a new domain; nothing if it has any. Raises: StorageError."""
        if await self.of(domain):
            return ()
        return [await self.add(domain, type) for type in TYPES]

    async def rotate(self, domain: str, *, publish_seconds: float | None = None) -> Sequence[DKIMKey]:
        """A new key for each type that signs (both if none does); the old ones sign until the new ones do.

        A rotation under way is not begun again: its pending keys are returned. Raises: StorageError.
        """
        now = self._wall()
        keys = await self.of(domain)
        pending = [key for key in keys if key.state(now) is State.PENDING]
        if pending:
            return pending
        change = now + (self.settings.publish_seconds if publish_seconds is None else publish_seconds)
        signing = [key for key in keys if key.state(now) is State.SIGNING]
        types = [type for type in TYPES if any(key.key.type == type for key in signing)] or TYPES
        made = [await self.add(domain, type, signs_from=change) for type in types]
        # The new ones first: a crash in between leaves two that sign, of which the newer is taken.
        for key in signing:
            await self._end(key, change)
        return made

    async def retire(self, domain: str, selector: str) -> DKIMKey | None:
        """Sign with it no more, from now on; its record must stay for a while. None if there is no such key."""
        for key in await self.of(domain):
            if key.selector == selector:
                now = self._wall()
                return await self._end(key, min(now, key.signs_until))
        return None

    async def delete(self, domain: str, selector: str) -> None:
        """Forget it at once: what it has signed may not be verified any more when its record goes."""
        await self._records.delete(_space(domain), selector)

    async def check(self, domain: str, dns: DNS) -> Sequence[Published]:
        """Each key compared with what the DNS has."""
        now = self._wall()
        return [await self._compare(key, key.state(now), dns) for key in await self.of(domain)]

    async def _compare(self, key: DKIMKey, state: State, dns: DNS) -> Published:
        try:
            records = (await dns.txt(key.name)).records
        except NoSuchName:
            records = ()
        except DNSFailure:
            return Published(key, state, Publication.UNKNOWN)
        if not records:
            return Published(key, state, Publication.MISSING)
        wanted = parse_key_record(key.text.encode()).key
        for record in records:
            try:
                if parse_key_record(record).key == wanted:
                    return Published(key, state, Publication.PUBLISHED)
            except BadKey:
                continue
        return Published(key, state, Publication.DIFFERENT, records[0].decode("utf-8", "replace"))

    async def _generate(self, type: KeyType) -> PrivateKey:
        if self._defer is None:
            return PrivateKey.generate(type, self.settings.rsa_bits)
        made: PrivateKey = await self._defer(PrivateKey.generate, type, self.settings.rsa_bits)
        return made

    async def _end(self, key: DKIMKey, at: float) -> DKIMKey:
        ended = DKIMKey(
            key.domain, key.selector, key.key, key.created, key.signs_from, at, at + self.settings.keep_seconds
        )
        await self._write(ended)
        return ended

    async def _write(self, key: DKIMKey) -> None:
        value = _encoder.encode(
            _Stored(
                key=key.key.dump(),
                created=key.created,
                signs_from=key.signs_from,
                signs_until=key.signs_until,
                keep_until=key.keep_until,
            )
        )
        # Kept a while longer than needed: clocks differ.
        ttl = None if key.keep_until >= _FOR_GOOD else max(key.keep_until - self._wall(), 0.0) + _DAY
        await self._records.put(_space(key.domain), key.selector, value, ttl)


def _space(domain: str) -> str:
    return f"dkim/{domain}"


def _read(domain: str, selector: str, value: bytes) -> DKIMKey:
    try:
        stored = _decoder.decode(value)
        key = PrivateKey.load(stored.key)
    except (msgspec.MsgspecError, BadKey) as error:
        raise Corrupt(f"malformed DKIM key {selector} of {domain}") from error
    return DKIMKey(domain, selector, key, stored.created, stored.signs_from, stored.signs_until, stored.keep_until)


def _free_selector(type: KeyType, now: float, taken: set[str]) -> str:
    """By type and day: ``r20261124``; a second one of a day ``r20261124-2``."""
    first = f"{type[0]}{time.strftime('%Y%m%d', time.gmtime(now))}"
    return next(name for number in range(1, 1000) if (name := first if number == 1 else f"{first}-{number}") not in taken)
