"""From an address to accounts: users, aliases, sub-addresses, catch-alls, postmaster."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from twisted_mail.services import MailRefused, Refusal
from twisted_mail.storage.interfaces import AccountRecord, Directory
from twisted_mail.values import canonical_address, canonical_domain

__all__ = ["MAX_ALIAS_DEPTH", "MAX_TARGETS", "Resolution", "Resolver"]

MAX_ALIAS_DEPTH: Final = 10
"""Aliases of aliases, at most."""
MAX_TARGETS: Final = 1000
"""Addresses that one recipient may stand for."""
MAX_DETAIL_CUTS: Final = 5
"""Places at which an address is tried to be cut into user and detail."""
POSTMASTER: Final = "postmaster"

_quoted_pair = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Resolution:
    """What an address stands for."""

    accounts: tuple[AccountRecord, ...] = ()
    """Enabled, each once."""
    remote: tuple[str, ...] = ()
    """Addresses of other domains."""
    aliased: bool = False
    """It is an address of ours that stands for others."""
    detail: str = ""
    """The sub-address (RFC 5233), in the case in which it was written."""
    program: bool = False
    """The server reads what comes."""


@dataclass(slots=True)
class _Found:
    record: AccountRecord | None = None
    targets: tuple[str, ...] = ()
    detail: str = ""


def _split(address: str) -> tuple[str, str]:
    """Local part without quoting, domain. Raises MailRefused."""
    local, at, domain = address.rpartition("@")
    if local.startswith('"') and local.endswith('"') and len(local) > 1:
        local = _quoted_pair.sub(r"\1", local[1:-1])
    if not at or not local or not domain:
        raise MailRefused(Refusal.BAD_ADDRESS)
    return local, domain


def _key(local: str, domain: str) -> str:
    try:
        return canonical_address(f"{local}@{domain}")
    except ValueError:
        raise MailRefused(Refusal.BAD_ADDRESS)


class Resolver:
    """Looks addresses up in the directory. Everything raises what the directory raises, too."""

    def __init__(self, directory: Directory, *, hostname: str, delimiter: str, postmaster: str = "") -> None:
        self._directory = directory
        self._hostname = hostname
        self._delimiter = delimiter
        self._postmaster = postmaster

    async def resolve(self, address: str) -> Resolution:
        """What *address* (as SMTP gave it; ``postmaster`` alone is allowed) stands for.

        Other domains come back as `remote`. Of an alias's targets those that do not exist or are disabled are passed
        over, as long as any is left. Raises: MailRefused.
        """
        if address.casefold() == POSTMASTER:
            return await self._bare_postmaster()
        local, domain = _split(address)
        name = canonical_domain(domain)
        if not await self._is_local(name):
            return Resolution(remote=(address,))
        found = await self._find(local, name)
        if found is None:
            if local.casefold() == POSTMASTER:
                return await self._postmaster_of(name)
            raise MailRefused(Refusal.NO_SUCH_RECIPIENT)
        if found.record is not None:
            if not found.record.enabled:
                raise MailRefused(Refusal.RECIPIENT_DISABLED)
            return Resolution((found.record,), detail=found.detail)
        resolution = await self._expand(_key(local, name), found.targets)
        return Resolution(resolution.accounts, resolution.remote, aliased=True, detail=found.detail)

    async def _is_local(self, domain: str) -> bool:
        """Raises MailRefused for a domain of ours that is switched off."""
        known = await self._directory.domain(domain)
        if known is not None and not known.enabled:
            raise MailRefused(Refusal.RECIPIENT_DISABLED, "this domain does not take mail")
        return known is not None

    async def _find(self, local: str, domain: str) -> _Found | None:
        """The account or the alias that has the address: itself, then without details, then the catch-all."""
        found = await self._exactly(_key(local, domain))
        if found is not None:
            return found
        if self._delimiter:
            cut, tries = len(local), 0
            while (cut := local.rfind(self._delimiter, 0, cut)) > 0 and tries < MAX_DETAIL_CUTS:
                tries += 1
                found = await self._exactly(_key(local[:cut], domain))
                if found is not None:
                    found.detail = local[cut + len(self._delimiter) :]
                    return found
        if local.casefold() == POSTMASTER and self._postmaster:
            return _Found(targets=(self._postmaster,))
        catch_all = await self._directory.alias(f"@{domain}")
        if catch_all is None:
            return None
        # a target without a user keeps the user: one domain stands for another
        return _Found(
            targets=tuple(local + target if target.startswith("@") else target for target in catch_all.targets)
        )

    async def _exactly(self, key: str) -> _Found | None:
        record = await self._directory.account_by_address(key)
        if record is not None:
            return _Found(record)
        alias = await self._directory.alias(key)
        return _Found(targets=alias.targets) if alias is not None else None

    async def _expand(self, origin: str, targets: tuple[str, ...]) -> Resolution:
        """Follow aliases to their ends. Each address counts once, so a loop ends by itself."""
        seen = {origin}
        accounts: dict[bytes, AccountRecord] = {}
        remote: dict[str, None] = {}
        refusal = MailRefused(Refusal.NO_SUCH_RECIPIENT, "the alias leads nowhere")
        level = list(targets)
        for _ in range(MAX_ALIAS_DEPTH):
            below: list[str] = []
            for target in level:
                local, domain = _split(target)
                key = _key(local, domain)
                if key in seen:
                    continue
                seen.add(key)
                if len(seen) > MAX_TARGETS:
                    raise MailRefused(Refusal.LOOP, "the alias has too many targets")
                try:
                    if not await self._is_local(canonical_domain(domain)):
                        remote[target] = None
                        continue
                except MailRefused as error:
                    refusal = error
                    continue
                found = await self._find(local, canonical_domain(domain))
                if found is None:
                    continue
                if found.record is None:
                    below += found.targets
                elif found.record.enabled:
                    accounts[found.record.id.octets] = found.record
                else:
                    refusal = MailRefused(Refusal.RECIPIENT_DISABLED)
            if not below:
                break
            level = below
        else:
            raise MailRefused(Refusal.LOOP, "aliases of aliases without end")
        if not accounts and not remote:
            raise refusal
        return Resolution(tuple(accounts.values()), tuple(remote))

    # --- postmaster (RFC 5321 section 4.5.1: every domain that takes mail has one)

    async def _bare_postmaster(self) -> Resolution:
        """``<postmaster>``: of this host's name, of the domain that it lies in, or of the first domain there is."""
        labels = canonical_domain(self._hostname).split(".")
        for at in range(len(labels)):
            name = ".".join(labels[at:])
            known = await self._directory.domain(name)
            if known is not None and known.enabled:
                return await self.resolve(f"{POSTMASTER}@{name}")
        for domain in await self._directory.domains():
            if domain.enabled:
                return await self.resolve(f"{POSTMASTER}@{domain.name}")
        raise MailRefused(Refusal.NO_SUCH_RECIPIENT, "there is no postmaster yet", temporary=True)

    async def _postmaster_of(self, domain: str) -> Resolution:
        """Nobody was named: the oldest account of the domain, which is who set it up."""
        records = [record for record in await self._directory.accounts(domain) if record.enabled]
        if not records:
            raise MailRefused(Refusal.NO_SUCH_RECIPIENT, "there is no postmaster yet", temporary=True)
        return Resolution((min(records, key=lambda record: (record.created, record.address)),))
