"""Domains, accounts, aliases and scripts in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from twisted_mail.storage.interfaces import AccountRecord, Alias, AlreadyExists, Conflict, Domain, NotFound
from twisted_mail.values import AccountId

__all__ = ["MemoryDirectory"]


def _domain_of(address: str) -> str:
    return address.rpartition("@")[2]


class MemoryDirectory:
    """Implements `Directory`."""

    def __init__(self) -> None:
        self._domains: dict[str, Domain] = {}
        self._accounts: dict[AccountId, AccountRecord] = {}
        self._addresses: dict[str, AccountId] = {}
        self._aliases: dict[str, Alias] = {}
        self._scripts: dict[AccountId, dict[str, str]] = {}
        self._active: dict[AccountId, str] = {}

    # --- domains

    async def add_domain(self, domain: Domain) -> None:
        if domain.name in self._domains:
            raise AlreadyExists(f"the domain {domain.name} exists")
        self._domains[domain.name] = domain

    async def set_domain(self, domain: Domain) -> None:
        self._need_domain(domain.name)
        self._domains[domain.name] = domain

    async def remove_domain(self, name: str) -> None:
        self._need_domain(name)
        if any(_domain_of(address) == name for address in (*self._addresses, *self._aliases)):
            raise Conflict(f"accounts or aliases of {name} are left")
        del self._domains[name]

    async def domain(self, name: str) -> Domain | None:
        return self._domains.get(name)

    async def domains(self) -> Sequence[Domain]:
        return [self._domains[name] for name in sorted(self._domains)]

    def _need_domain(self, name: str) -> None:
        if name not in self._domains:
            raise NotFound(f"no domain {name}")

    # --- accounts

    async def add_account(self, record: AccountRecord) -> None:
        self._need_domain(_domain_of(record.address))
        if record.id in self._accounts:
            raise AlreadyExists(f"an account with the id {record.id} exists")
        self._need_free(record.address)
        self._accounts[record.id] = record
        self._addresses[record.address] = record.id

    async def set_account(self, record: AccountRecord) -> None:
        old = self._need_account(record.id)
        if record.address != old.address:
            self._need_domain(_domain_of(record.address))
            self._need_free(record.address)
            del self._addresses[old.address]
            self._addresses[record.address] = record.id
        self._accounts[record.id] = record

    async def remove_account(self, account: AccountId) -> None:
        record = self._need_account(account)
        del self._accounts[account], self._addresses[record.address]
        self._scripts.pop(account, None)
        self._active.pop(account, None)

    async def account(self, account: AccountId) -> AccountRecord | None:
        return self._accounts.get(account)

    async def account_by_address(self, address: str) -> AccountRecord | None:
        id = self._addresses.get(address)
        return None if id is None else self._accounts[id]

    async def accounts(self, domain: str | None = None) -> Sequence[AccountRecord]:
        return [
            self._accounts[self._addresses[address]]
            for address in sorted(self._addresses)
            if domain is None or _domain_of(address) == domain
        ]

    def _need_account(self, account: AccountId) -> AccountRecord:
        if account not in self._accounts:
            raise NotFound(f"no account {account}")
        return self._accounts[account]

    def _need_free(self, address: str) -> None:
        if address in self._addresses or address in self._aliases:
            raise AlreadyExists(f"{address} is taken")

    # --- aliases

    async def add_alias(self, alias: Alias) -> None:
        self._need_domain(_domain_of(alias.address))
        self._need_free(alias.address)
        self._aliases[alias.address] = alias

    async def set_alias(self, alias: Alias) -> None:
        self._need_alias(alias.address)
        self._aliases[alias.address] = alias

    async def remove_alias(self, address: str) -> None:
        self._need_alias(address)
        del self._aliases[address]

    async def alias(self, address: str) -> Alias | None:
        return self._aliases.get(address)

    async def aliases(self, domain: str | None = None) -> Sequence[Alias]:
        return [
            self._aliases[address]
            for address in sorted(self._aliases)
            if domain is None or _domain_of(address) == domain
        ]

    def _need_alias(self, address: str) -> None:
        if address not in self._aliases:
            raise NotFound(f"no alias {address}")

    # --- Sieve scripts

    async def put_script(self, account: AccountId, name: str, script: str) -> None:
        self._need_account(account)
        self._scripts.setdefault(account, {})[name] = script

    async def script(self, account: AccountId, name: str) -> str | None:
        return self._scripts.get(account, {}).get(name)

    async def scripts(self, account: AccountId) -> Mapping[str, bool]:
        active = self._active.get(account)
        return {name: name == active for name in sorted(self._scripts.get(account, {}))}

    async def activate_script(self, account: AccountId, name: str | None) -> None:
        self._need_account(account)
        if name is None:
            self._active.pop(account, None)
            return
        self._need_script(account, name)
        self._active[account] = name

    async def rename_script(self, account: AccountId, name: str, new: str) -> None:
        self._need_script(account, name)
        scripts = self._scripts[account]
        if new in scripts:
            raise AlreadyExists(f"a script {new} exists")
        scripts[new] = scripts.pop(name)
        if self._active.get(account) == name:
            self._active[account] = new

    async def remove_script(self, account: AccountId, name: str) -> None:
        self._need_script(account, name)
        if self._active.get(account) == name:
            raise Conflict(f"the script {name} is active")
        del self._scripts[account][name]

    def _need_script(self, account: AccountId, name: str) -> None:
        if name not in self._scripts.get(account, {}):
            raise NotFound(f"no script {name}")
