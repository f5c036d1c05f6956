"""Signatures on what leaves: DKIM in the name of the author's domain, ARC on what is forwarded.

Who signs vouches. So `Signing.fields` is for what was submitted by somebody who logged in and for the server's own mail;
what strangers sent and is only passed on gets a seal.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted.logger import Logger

from twisted_mail.dns.values import DNS
from twisted_mail.mime import mailboxes_of, parse_addresses
from twisted_mail.relay.dkim_keys import TYPES, DKIMKey, DKIMKeys, State
from twisted_mail.signatures import (
    ARCSealer,
    ARCVerifier,
    CannotSeal,
    Chain,
    ChainResult,
    DKIMSigner,
    Reading,
    SigningKey,
)
from twisted_mail.signatures.fields import split_header
from twisted_mail.storage.interfaces import StorageError
from twisted_mail.values import canonical_domain

__all__ = ["Signing", "SigningSettings", "author_domain", "domains_to_try"]

_MOST_DOMAINS: Final = 10_000
_FROM_OCTETS: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningSettings:
    """What an operator may set."""

    lifetime_seconds: int | None = 14 * 86_400
    """``x=``; None: signatures do not expire."""
    remember_seconds: float = 60.0
    """How long a domain's keys are used without asking the store: a new key, or the end of one, waits as long."""
    stale_seconds: float = 86_400.0
    """How long they are good enough while the store does not answer."""
    seal_domain: str = ""
    """The domain whose RSA key seals forwarded mail; empty: nothing is sealed."""


@dataclass(slots=True)
class _Remembered:
    at: float
    keys: Sequence[DKIMKey]


class Signing:
    """Signs with the keys of `DKIMKeys`."""

    _log = Logger()

    def __init__(
        self,
        keys: DKIMKeys,
        settings: SigningSettings | None = None,
        *,
        dns: DNS | None = None,
        wall: Callable[[], float] = time.time,
        defer: Callable[..., Awaitable[Any]] | None = None,
    ) -> None:
        """*dns* is for the chains of what is sealed. *defer* calls a function in a thread (`tap.threads.Threads.defer`):
        an RSA signature of 2048 bits takes 0.7 ms; None: it is made here."""
        self._keys = keys
        self._settings = settings or SigningSettings()
        self._dns = dns
        self._wall = wall
        self._defer = defer
        self._remembered: OrderedDict[str, _Remembered] = OrderedDict()

    async def fields(self, header: bytes, body_hash: bytes, *, sender: str, at: float) -> bytes:
        """The DKIM-Signature fields to be put in front of a message, each with its line end; none where no key fits.

        *header* is its block, with or without the blank line; *body_hash* that of `BodyHash` (relaxed); *sender* the
        reverse-path, which was checked against the login; *at* the time, in seconds since 1970.
        Raises: StorageError where keys are not known and the store does not answer (rather later than unsigned).
        """
        for domain in domains_to_try(author_domain(header), sender.rpartition("@")[2]):
            chosen = _chosen(await self._of(domain), at)
            if chosen:
                signer = DKIMSigner(now=at, lifetime=self._settings.lifetime_seconds)
                Reading.of_header(header, body_hash, signer.at_body)
                made: bytes = await self._away(signer.unsigned(chosen).sign)
                return made
        return b""

    async def seal(
        self, header: bytes, body_hash: bytes, results: str, *, at: float, domain: str = "", chain: Chain | None = None
    ) -> bytes:
        """The ARC set to be put in front of a forwarded message; none where no key fits or the chain has ended.

        *results*: what this server found when the message came, as the value of its Authentication-Results. *chain*: what
        it found of the chain, which is checked now if it is not given. The keys are those of *domain*, or of the
        configured one.
        Raises: as `fields`.
        """
        domain = domain or self._settings.seal_domain
        # RSA alone: receivers that read ARC read nothing else yet.
        keys = [key for key in _chosen(await self._of(domain), at) if key.key.type == "rsa"] if domain else []
        if not keys:
            return b""
        verifier, sealer = ARCVerifier(), ARCSealer(now=at)
        Reading.of_header(header, body_hash, verifier.at_body, sealer.at_body)
        if chain is None and not verifier.instances:
            chain = Chain.NONE
        if chain is not None:
            found = ChainResult(chain, instances=verifier.instances)
        elif self._dns is not None:
            found = await verifier.result(self._dns, at)
            if found.temporary:
                # A chain that cannot be checked now must not be declared broken for good.
                return b""
        else:
            return b""
        try:
            made: bytes = await self._away(sealer.unsealed(keys[0], verifier, found, results).seal)
        except CannotSeal as error:
            self._log.debug("a forwarded message is not sealed: {why}", why=error)
            return b""
        return made

    def forget(self, domain: str) -> None:
        """Its keys have changed."""
        self._remembered.pop(domain, None)

    async def _away(self, call: Callable[[], bytes]) -> bytes:
        if self._defer is None:
            return call()
        made: bytes = await self._defer(call)
        return made

    async def _of(self, domain: str) -> Sequence[DKIMKey]:
        now = self._wall()
        known = self._remembered.get(domain)
        if known is not None and 0 <= now - known.at < self._settings.remember_seconds:
            return known.keys
        try:
            keys = await self._keys.of(domain)
        except StorageError:
            if known is not None and 0 <= now - known.at < self._settings.stale_seconds:
                return known.keys
            raise
        self._remembered[domain] = _Remembered(now, keys)
        self._remembered.move_to_end(domain)
        if len(self._remembered) > _MOST_DOMAINS:
            self._remembered.popitem(last=False)
        return keys


def _chosen(keys: Sequence[DKIMKey], at: float) -> list[SigningKey]:
    """The newest key of each type that signs now."""
    signing = [key for key in keys if key.state(at) is State.SIGNING]
    chosen = []
    for type in TYPES:
        of_type = [key for key in signing if key.key.type == type]
        if of_type:
            newest = max(of_type, key=lambda key: (key.signs_from, key.created, key.selector))
            chosen.append(SigningKey(newest.domain, newest.selector, newest.key))
    return chosen


def author_domain(header: bytes) -> str:
    """The domain of the first address of From; empty if there is none."""
    for field in split_header(header):
        if field.name == "from":
            for mailbox in mailboxes_of(parse_addresses(field.value[:_FROM_OCTETS])):
                return _canonical(mailbox.host.decode("utf-8", "replace"))
            return ""
    return ""


def domains_to_try(author: str, sender: str) -> list[str]:
    """Whose keys may sign, best first; *sender* is the reverse-path's domain as it was checked against the login.

    The author's domain or one above it (DMARC's relaxed alignment, RFC 7489 section 3.1.1) if the sender's is the same or
    above: whoever may use the one must not get a signature in the name of a neighbour or of a domain above. Otherwise the
    sender's, which is responsible (and aligned all the same if it is a subdomain). The null sender is the server's own.
    """
    sender = _canonical(sender)
    if author and (not sender or author == sender):
        return _with_parents(author)
    if author.endswith("." + sender):
        return [domain for domain in _with_parents(author) if domain == sender or domain.endswith("." + sender)]
    return [sender] if sender else []


def _with_parents(domain: str) -> list[str]:
    """The domain and those above it, but for the top level."""
    labels = domain.split(".") if domain else []
    return [".".join(labels[at:]) for at in range(max(len(labels) - 1, min(len(labels), 1)))][:6]


def _canonical(domain: str) -> str:
    try:
        return canonical_domain(domain)
    except ValueError:
        return ""
