"""Domains, accounts, addresses, scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from twisted_mail.values import AccountId

__all__ = ["AccountRecord", "Alias", "Directory", "Domain"]


@dataclass(frozen=True, slots=True)
class Domain:
    """A mail domain that is ours. `name` is in lower-case A-labels."""

    name: str
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class AccountRecord:
    """A user: mailbox, address and login at once. Addresses are canonical (`values.canonical_address`)."""

    id: AccountId
    address: str
    credentials: tuple[str, ...] = ()
    """Stored credentials as `auth.passwords` writes them."""
    enabled: bool = True
    quota_bytes: int | None = None
    display_name: str = ""
    home: str = ""
    """The home data centre; empty: this one."""
    created: int = 0
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Alias:
    """An address that stands for others; ``@domain`` is the catch-all of a domain."""

    address: str
    targets: tuple[str, ...]


class Directory(Protocol):
    """Domains, accounts, aliases, Sieve scripts. An address belongs to one account or one alias, never both."""

    async def add_domain(self, domain: Domain) -> None:
        """Raises: AlreadyExists."""

    async def set_domain(self, domain: Domain) -> None:
        """Replace. Raises: NotFound."""

    async def remove_domain(self, name: str) -> None:
        """Raises: NotFound, Conflict (accounts or aliases are left)."""

    async def domain(self, name: str) -> Domain | None: ...

    async def domains(self) -> Sequence[Domain]:
        """All, by name."""

    async def add_account(self, record: AccountRecord) -> None:
        """Raises: AlreadyExists (the address or the id), NotFound (the domain)."""

    async def set_account(self, record: AccountRecord) -> None:
        """Replace the record of that id. Raises: NotFound, AlreadyExists (the new address is taken)."""

    async def remove_account(self, account: AccountId) -> None:
        """Raises: NotFound. Its scripts go too; aliases that name its address stay."""

    async def account(self, account: AccountId) -> AccountRecord | None: ...

    async def account_by_address(self, address: str) -> AccountRecord | None: ...

    async def accounts(self, domain: str | None = None) -> Sequence[AccountRecord]:
        """All, or those of one domain, by address."""

    async def add_alias(self, alias: Alias) -> None:
        """Raises: AlreadyExists (an alias or an account has the address), NotFound (the domain)."""

    async def set_alias(self, alias: Alias) -> None:
        """Replace. Raises: NotFound."""

    async def remove_alias(self, address: str) -> None:
        """Raises: NotFound."""

    async def alias(self, address: str) -> Alias | None: ...

    async def aliases(self, domain: str | None = None) -> Sequence[Alias]:
        """All, or those of one domain, by address."""

    async def put_script(self, account: AccountId, name: str, script: str) -> None:
        """Write or replace a Sieve script. Raises: NotFound (the account)."""

    async def script(self, account: AccountId, name: str) -> str | None: ...

    async def scripts(self, account: AccountId) -> Mapping[str, bool]:
        """Name of each script, and whether it is the active one."""

    async def activate_script(self, account: AccountId, name: str | None) -> None:
        """Make *name* the active script (None: none). Raises: NotFound."""

    async def rename_script(self, account: AccountId, name: str, new: str) -> None:
        """The active one stays active, at every moment (RFC 5804 section 2.11). Who dies at it may leave both behind.

        Raises: NotFound, AlreadyExists (there is a script *new*).
        """

    async def remove_script(self, account: AccountId, name: str) -> None:
        """Raises: NotFound, Conflict (it is active; RFC 5804 section 2.10)."""
