"""Reverse-paths of our own: SRS for what is forwarded, VERP for what shall tell which recipient bounced; and loops.

Both carry a keyed hash and a day, so that nobody can make one, and none works for ever. What does not fit into 64 octets
(RFC 5321 section 4.5.3.1.1) is kept in the store (spaces ``paths/<two characters>``) and named by a token. Everything is in
lower case but the marks ``SRS0`` and ``SRS1``: some servers fold the case of local parts.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from twisted_mail.signatures.fields import split_header
from twisted_mail.storage.interfaces import Records

__all__ = ["SRS", "VERP", "BadPath", "Bounced", "ReturnPaths", "was_here"]

_LOCAL: Final = 64
_HASH: Final = 6
"""Characters, 30 bits: to guess one lets a stranger send one bounce to one address."""
_DIGITS: Final = "abcdefghijklmnopqrstuvwxyz234567"
_DAYS: Final = 1024
_TAG: Final = re.compile(r"[a-z0-9_]{0,12}")
_SRS0: Final = re.compile(r"srs0[=+-]([a-z2-7]{6})=([a-z2-7]{2})=([^=]*)=(.+)", re.IGNORECASE | re.DOTALL)
_SRS1: Final = re.compile(r"srs1[=+-]([a-z2-7]{6})=([^=]+)=([=+-].+)", re.IGNORECASE | re.DOTALL)
_FOREIGN0: Final = re.compile(r"srs0([=+-].+)", re.IGNORECASE | re.DOTALL)
_FOREIGN1: Final = re.compile(r"srs1[=+-][^=]+=([^=]+)=([=+-].+)", re.IGNORECASE | re.DOTALL)
_VERP: Final = re.compile(r"([a-z2-7]{6})([a-z2-7]{2})-([a-z0-9_]{0,12})-(?:([^=].*)=([^=]+)|=([a-z2-7]{16}))", re.DOTALL)


class BadPath(Exception):
    """It looks like one of ours, and is not, or not any more; the text says why."""


@dataclass(frozen=True, slots=True)
class Bounced:
    """What a VERP address says."""

    recipient: str
    domain: str
    """The sender's."""
    tag: str = ""


class ReturnPaths:
    """What SRS and VERP share: secrets, days, and what does not fit."""

    def __init__(
        self,
        secrets: Sequence[bytes],
        *,
        records: Records | None = None,
        wall: Callable[[], float] = time.time,
        days: int = 30,
    ) -> None:
        """The first of *secrets* (at least 16 octets each) makes, all are believed. *days*: how long a path works.

        Raises: ValueError.
        """
        if not secrets or any(len(secret) < 16 for secret in secrets):
            raise ValueError("a secret of at least 16 octets is needed")
        if not 1 <= days < _DAYS // 2:
            raise ValueError(f"days must be in 1..{_DAYS // 2 - 1}")
        self._secrets = tuple(secrets)
        self._records = records
        self._wall = wall
        self._days = days

    def day(self) -> str:
        """Today, in two characters, which come again after 1,024 days."""
        number = int(self._wall() // 86_400) % _DAYS
        return _DIGITS[number >> 5] + _DIGITS[number & 31]

    def signed(self, *parts: str) -> str:
        """The keyed hash of *parts*, whatever their case."""
        return self._hash(self._secrets[0], parts)

    def check(self, given: str, *parts: str) -> None:
        """Raises: BadPath."""
        for secret in self._secrets:
            if hmac.compare_digest(given.lower().encode(), self._hash(secret, parts).encode()):
                return
        raise BadPath("the hash is not ours")

    def check_day(self, text: str) -> None:
        """Raises: BadPath for what is older than it may be (or from the day after tomorrow)."""
        then = _DIGITS.index(text[0].lower()) << 5 | _DIGITS.index(text[1].lower())
        age = (int(self._wall() // 86_400) - then + 1) % _DAYS - 1
        if age > self._days:
            raise BadPath("it is too old")

    def _hash(self, secret: bytes, parts: Sequence[str]) -> str:
        text = "\0".join(parts).lower().encode("utf-8", "surrogateescape")
        return base64.b32encode(hmac.digest(secret, text, "sha256")).decode().lower()[:_HASH]

    async def keep(self, address: str) -> str:
        """A token of 16 characters for *address*. Raises: BadPath (there is no store), StorageError."""
        if self._records is None:
            raise BadPath("it is too long")
        digest = hashlib.blake2b(address.encode("utf-8", "surrogateescape"), digest_size=10, key=self._secrets[0][:64])
        token = base64.b32encode(digest.digest()).decode().lower()
        await self._records.put(_space(token), token, address.encode("utf-8", "surrogateescape"), (self._days + 2) * 86_400.0)
        return token

    async def kept(self, token: str) -> str:
        """What `keep` kept. Raises: BadPath, StorageError."""
        found = await self._records.get(_space(token), token) if self._records is not None else None
        if found is None:
            raise BadPath("it is not known any more")
        return found.decode("utf-8", "surrogateescape")


def _space(token: str) -> str:
    return f"paths/{token[:2]}"


class SRS:
    """Sender rewriting: a forward leaves with an address of ours, which SPF allows, and its bounces find the way back.

    The scheme is that of "SRS" (M. Wong, 2003): ``SRS0=hash=day=host=local``; of what somebody else has rewritten only his
    host is remembered, ``SRS1=hash=host=`` and the rest, so that addresses do not grow.
    """

    def __init__(
        self, paths: ReturnPaths, domain: str, local: Callable[[str], Awaitable[bool]] | None = None
    ) -> None:
        """*domain*: where our rewritten addresses are. *local*: whether a domain is ours, and needs no rewriting."""
        self._paths = paths
        self._domain = domain
        self._is_local = local

    async def forward(self, sender: str) -> str:
        """The reverse-path for a forward of what *sender* sent; the null one and our own domains' stay as they are.

        Raises: BadPath (too long, and no store), StorageError.
        """
        local, at, host = sender.rpartition("@")
        if not at or host.lower() == self._domain or (self._is_local is not None and await self._is_local(host.lower())):
            return sender
        paths, day = self._paths, self._paths.day()
        if found := _FOREIGN0.fullmatch(local):
            host, rest = host.lower(), found[1]
            made = f"SRS1={paths.signed('srs1', host, rest)}={host}={rest}"
        elif found := _FOREIGN1.fullmatch(local):
            host, rest = found[1].lower(), found[2]
            made = f"SRS1={paths.signed('srs1', host, rest)}={host}={rest}"
        else:
            host = host.lower()
            made = f"SRS0={paths.signed('srs0', day, host, local)}={day}={host}={local}"
        if len(made.encode("utf-8", "surrogateescape")) > _LOCAL:
            token = await paths.keep(sender)
            made = f"SRS0={paths.signed('srs0', day, '', token)}={day}=={token}"
        return f"{made}@{self._domain}"

    def ours(self, address: str) -> bool:
        """Whether it looks like one that `forward` made: then `reverse` decides."""
        local, _, host = address.rpartition("@")
        return host.lower() == self._domain and local[:4].lower() in ("srs0", "srs1") and local[4:5] in ("=", "+", "-")

    async def reverse(self, address: str) -> str:
        """Whither a bounce to *address* belongs. Raises: BadPath, StorageError.

        Mail to it is to be taken with the null reverse-path only: it is no way to write to the sender.
        """
        local = address.rpartition("@")[0]
        if found := _SRS0.fullmatch(local):
            mark, day, host, rest = found.groups()
            self._paths.check(mark, "srs0", day, host, rest)
            self._paths.check_day(day)
            return f"{rest}@{host}" if host else await self._paths.kept(rest.lower())
        if found := _SRS1.fullmatch(local):
            mark, host, rest = found.groups()
            self._paths.check(mark, "srs1", host, rest)
            return f"SRS0{rest}@{host}"
        raise BadPath("it is not ours")


class VERP:
    """Variable envelope return paths: the recipient stands in the reverse-path, so a bounce says for whom it is, however
    it is worded. ``b+hashday-tag-local=host@domain``, in a domain of the sender's (SPF and DMARC look at it)."""

    def __init__(self, paths: ReturnPaths, prefix: str = "b+") -> None:
        self._paths = paths
        self._prefix = prefix.lower()

    async def encode(self, domain: str, recipient: str, tag: str = "") -> str:
        """*tag*: up to twelve letters, digits and ``_``, e.g. the pool. Raises: ValueError, BadPath, StorageError."""
        if not _TAG.fullmatch(tag):
            raise ValueError(f"{tag!r} is no tag")
        recipient, domain, day = recipient.lower(), domain.lower(), self._paths.day()
        local, _, host = recipient.rpartition("@")
        made = self._made(domain, day, tag, f"{local}={host}")
        if "=" in host or not local or local.startswith("=") or len(made.encode("utf-8", "surrogateescape")) > _LOCAL:
            made = self._made(domain, day, tag, f"={await self._paths.keep(recipient)}")
        return f"{made}@{domain}"

    def _made(self, domain: str, day: str, tag: str, rest: str) -> str:
        return f"{self._prefix}{self._paths.signed('verp', domain, day, tag, rest)}{day}-{tag}-{rest}"

    def ours(self, address: str) -> bool:
        """Whether it looks like one that `encode` made: then `decode` decides."""
        local = address.rpartition("@")[0].lower()
        return local.startswith(self._prefix) and _VERP.fullmatch(local, len(self._prefix)) is not None

    async def decode(self, address: str) -> Bounced:
        """Raises: BadPath, StorageError."""
        local, _, domain = address.lower().rpartition("@")
        found = _VERP.fullmatch(local, len(self._prefix)) if local.startswith(self._prefix) else None
        if found is None:
            raise BadPath("it is not ours")
        mark, day, tag, name, host, token = found.groups()
        self._paths.check(mark, "verp", domain, day, tag, f"={token}" if token else f"{name}={host}")
        self._paths.check_day(day)
        return Bounced(await self._paths.kept(token) if token else f"{name}@{host}", domain, tag)


def was_here(header: bytes, address: str) -> bool:
    """Whether a forward to *address* would go in a circle: it was delivered there before, as its Delivered-To says."""
    wanted = address.lower().encode("utf-8", "surrogateescape")
    return any(
        field.name == "delivered-to" and field.value.strip(b" \t\r\n<>").lower() == wanted for field in split_header(header)
    )
