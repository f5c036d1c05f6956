"""Domains, accounts, aliases and scripts in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import json

from twisted_mail.storage.interfaces import AccountRecord, Alias, AlreadyExists, Conflict, Domain, NotFound
from twisted_mail.storage.sqlite.election import Writers
from twisted_mail.storage.sqlite.operations import Transaction, operation
from twisted_mail.storage.sqlite.threads import ReaderPool
from twisted_mail.values import AccountId

__all__ = ["SQLiteDirectory"]

_ACCOUNT = "id, address, credentials, enabled, quota_bytes, display_name, home, created"

# a row or a parameter has values of SQLite's types, hence Any
Row = Sequence[Any]


def _domain_of(address: str) -> str:
    return address.rpartition("@")[2]


def _one(db: sqlite3.Connection, statement: str, *parameters: object) -> Any:
    return db.execute(statement, parameters).fetchone()


# --- writing


@operation("directory.add_domain")
def add_domain(tx: Transaction, name: str, enabled: bool) -> None:
    if not tx.db.execute("INSERT INTO domain VALUES (?, ?) ON CONFLICT DO NOTHING", (name, enabled)).rowcount:
        raise AlreadyExists(f"the domain {name} exists")


@operation("directory.set_domain", repeatable=True)
def set_domain(tx: Transaction, name: str, enabled: bool) -> None:
    if not tx.db.execute("UPDATE domain SET enabled = ? WHERE name = ?", (enabled, name)).rowcount:
        raise NotFound(f"no domain {name}")


@operation("directory.remove_domain")
def remove_domain(tx: Transaction, name: str) -> None:
    _need_domain(tx.db, name)
    for table in ("account", "alias"):
        if _one(tx.db, f"SELECT 1 FROM {table} WHERE domain = ? LIMIT 1", name):
            raise Conflict(f"accounts or aliases of {name} are left")
    tx.db.execute("DELETE FROM domain WHERE name = ?", (name,))


@operation("directory.add_account")
def add_account(tx: Transaction, record: Row) -> None:
    id, address = record[0], record[1]
    _need_domain(tx.db, _domain_of(address))
    if _one(tx.db, "SELECT 1 FROM account WHERE id = ?", id):
        raise AlreadyExists(f"an account with the id {id.hex()} exists")
    _need_free(tx.db, address)
    tx.db.execute(
        f"INSERT INTO account ({_ACCOUNT}, domain) VALUES (?,?,?,?,?,?,?,?,?)", (*record, _domain_of(address))
    )


@operation("directory.set_account", repeatable=True)
def set_account(tx: Transaction, record: Row) -> None:
    id, address = record[0], record[1]
    old = _one(tx.db, "SELECT address FROM account WHERE id = ?", id)
    if old is None:
        raise NotFound(f"no account {id.hex()}")
    if old[0] != address:
        _need_domain(tx.db, _domain_of(address))
        _need_free(tx.db, address)
    tx.db.execute(
        f"UPDATE account SET ({_ACCOUNT}, domain) = (?,?,?,?,?,?,?,?,?) WHERE id = ?",
        (*record, _domain_of(address), id),
    )


@operation("directory.remove_account")
def remove_account(tx: Transaction, id: bytes) -> None:
    if not tx.db.execute("DELETE FROM account WHERE id = ?", (id,)).rowcount:
        raise NotFound(f"no account {id.hex()}")
    tx.db.execute("DELETE FROM script WHERE account = ?", (id,))


@operation("directory.add_alias")
def add_alias(tx: Transaction, address: str, targets: str) -> None:
    _need_domain(tx.db, _domain_of(address))
    _need_free(tx.db, address)
    tx.db.execute("INSERT INTO alias VALUES (?, ?, ?)", (address, _domain_of(address), targets))


@operation("directory.set_alias", repeatable=True)
def set_alias(tx: Transaction, address: str, targets: str) -> None:
    if not tx.db.execute("UPDATE alias SET targets = ? WHERE address = ?", (targets, address)).rowcount:
        raise NotFound(f"no alias {address}")


@operation("directory.remove_alias")
def remove_alias(tx: Transaction, address: str) -> None:
    if not tx.db.execute("DELETE FROM alias WHERE address = ?", (address,)).rowcount:
        raise NotFound(f"no alias {address}")


@operation("directory.put_script", repeatable=True)
def put_script(tx: Transaction, account: bytes, name: str, text: str) -> None:
    _need_account(tx.db, account)
    tx.db.execute(
        "INSERT INTO script (account, name, text) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET text = excluded.text",
        (account, name, text),
    )


@operation("directory.activate_script", repeatable=True)
def activate_script(tx: Transaction, account: bytes, name: str | None) -> None:
    _need_account(tx.db, account)
    if name is not None and not _one(tx.db, "SELECT 1 FROM script WHERE account = ? AND name = ?", account, name):
        raise NotFound(f"no script {name}")
    tx.db.execute("UPDATE script SET active = (name IS ?) WHERE account = ?", (name, account))


@operation("directory.rename_script")
def rename_script(tx: Transaction, account: bytes, name: str, new: str) -> None:
    if not _one(tx.db, "SELECT 1 FROM script WHERE account = ? AND name = ?", account, name):
        raise NotFound(f"no script {name}")
    if _one(tx.db, "SELECT 1 FROM script WHERE account = ? AND name = ?", account, new):
        raise AlreadyExists(f"a script {new} exists")
    tx.db.execute("UPDATE script SET name = ? WHERE account = ? AND name = ?", (new, account, name))


@operation("directory.remove_script")
def remove_script(tx: Transaction, account: bytes, name: str) -> None:
    found = _one(tx.db, "SELECT active FROM script WHERE account = ? AND name = ?", account, name)
    if found is None:
        raise NotFound(f"no script {name}")
    if found[0]:
        raise Conflict(f"the script {name} is active")
    tx.db.execute("DELETE FROM script WHERE account = ? AND name = ?", (account, name))


def _need_domain(db: sqlite3.Connection, name: str) -> None:
    if not _one(db, "SELECT 1 FROM domain WHERE name = ?", name):
        raise NotFound(f"no domain {name}")


def _need_account(db: sqlite3.Connection, id: bytes) -> None:
    if not _one(db, "SELECT 1 FROM account WHERE id = ?", id):
        raise NotFound(f"no account {id.hex()}")


def _need_free(db: sqlite3.Connection, address: str) -> None:
    for table in ("account", "alias"):
        if _one(db, f"SELECT 1 FROM {table} WHERE address = ?", address):
            raise AlreadyExists(f"{address} is taken")


# --- reading


def _rows(db: sqlite3.Connection, statement: str, *parameters: object) -> list[Row]:
    return db.execute(statement, parameters).fetchall()


def _to_account(row: Row) -> AccountRecord:
    id, address, credentials, enabled, quota, display_name, home, created = row
    stored = json.decode(credentials, type=tuple[str, ...])
    return AccountRecord(AccountId(id), address, stored, bool(enabled), quota, display_name, home, created)


def _from_account(record: AccountRecord) -> tuple[object, ...]:
    return (
        record.id.octets,
        record.address,
        json.encode(record.credentials).decode(),
        record.enabled,
        record.quota_bytes,
        record.display_name,
        record.home,
        record.created,
    )


def _to_alias(row: Row) -> Alias:
    return Alias(row[0], json.decode(row[1], type=tuple[str, ...]))


class SQLiteDirectory:
    """Implements `Directory`."""

    def __init__(self, writers: Writers, readers: ReaderPool) -> None:
        self._write = writers.write
        self._readers = readers

    async def _read(self, statement: str, *parameters: object) -> list[Row]:
        return await self._readers.run(_rows, statement, *parameters)

    async def add_domain(self, domain: Domain) -> None:
        await self._write("directory.add_domain", domain.name, domain.enabled)

    async def set_domain(self, domain: Domain) -> None:
        await self._write("directory.set_domain", domain.name, domain.enabled)

    async def remove_domain(self, name: str) -> None:
        await self._write("directory.remove_domain", name)

    async def domain(self, name: str) -> Domain | None:
        rows = await self._read("SELECT name, enabled FROM domain WHERE name = ?", name)
        return Domain(rows[0][0], bool(rows[0][1])) if rows else None

    async def domains(self) -> Sequence[Domain]:
        return [
            Domain(row[0], bool(row[1])) for row in await self._read("SELECT name, enabled FROM domain ORDER BY name")
        ]

    async def add_account(self, record: AccountRecord) -> None:
        await self._write("directory.add_account", _from_account(record))

    async def set_account(self, record: AccountRecord) -> None:
        await self._write("directory.set_account", _from_account(record))

    async def remove_account(self, account: AccountId) -> None:
        await self._write("directory.remove_account", account.octets)

    async def account(self, account: AccountId) -> AccountRecord | None:
        rows = await self._read(f"SELECT {_ACCOUNT} FROM account WHERE id = ?", account.octets)
        return _to_account(rows[0]) if rows else None

    async def account_by_address(self, address: str) -> AccountRecord | None:
        rows = await self._read(f"SELECT {_ACCOUNT} FROM account WHERE address = ?", address)
        return _to_account(rows[0]) if rows else None

    async def accounts(self, domain: str | None = None) -> Sequence[AccountRecord]:
        if domain is None:
            rows = await self._read(f"SELECT {_ACCOUNT} FROM account ORDER BY address")
        else:
            rows = await self._read(f"SELECT {_ACCOUNT} FROM account WHERE domain = ? ORDER BY address", domain)
        return [_to_account(row) for row in rows]

    async def add_alias(self, alias: Alias) -> None:
        await self._write("directory.add_alias", alias.address, json.encode(alias.targets).decode())

    async def set_alias(self, alias: Alias) -> None:
        await self._write("directory.set_alias", alias.address, json.encode(alias.targets).decode())

    async def remove_alias(self, address: str) -> None:
        await self._write("directory.remove_alias", address)

    async def alias(self, address: str) -> Alias | None:
        rows = await self._read("SELECT address, targets FROM alias WHERE address = ?", address)
        return _to_alias(rows[0]) if rows else None

    async def aliases(self, domain: str | None = None) -> Sequence[Alias]:
        if domain is None:
            rows = await self._read("SELECT address, targets FROM alias ORDER BY address")
        else:
            rows = await self._read("SELECT address, targets FROM alias WHERE domain = ? ORDER BY address", domain)
        return [_to_alias(row) for row in rows]

    async def put_script(self, account: AccountId, name: str, script: str) -> None:
        await self._write("directory.put_script", account.octets, name, script)

    async def script(self, account: AccountId, name: str) -> str | None:
        rows = await self._read("SELECT text FROM script WHERE account = ? AND name = ?", account.octets, name)
        return rows[0][0] if rows else None

    async def scripts(self, account: AccountId) -> Mapping[str, bool]:
        rows = await self._read("SELECT name, active FROM script WHERE account = ? ORDER BY name", account.octets)
        return {name: bool(active) for name, active in rows}

    async def activate_script(self, account: AccountId, name: str | None) -> None:
        await self._write("directory.activate_script", account.octets, name)

    async def rename_script(self, account: AccountId, name: str, new: str) -> None:
        await self._write("directory.rename_script", account.octets, name, new)

    async def remove_script(self, account: AccountId, name: str) -> None:
        await self._write("directory.remove_script", account.octets, name)
