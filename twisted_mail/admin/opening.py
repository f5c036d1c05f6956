"""Opening the store that a configuration names, as the server does; beside a running server, through its writer."""

from __future__ import annotations

import os
import pwd
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted_mail.account.service import AccountService
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.services import Account
from twisted_mail.storage import Backend
from twisted_mail.storage.interfaces import AccountRecord, Directory
from twisted_mail.tap.service import prepare_data
from twisted_mail.tap.settings import Configuration
from twisted_mail.tap.stores import open_stores
from twisted_mail.values import canonical_address, canonical_domain

__all__ = ["Store", "check_address", "check_domain", "embedded", "opened"]


@dataclass(frozen=True, slots=True)
class Store:
    """Everything a command may need, started."""

    configuration: Configuration
    backend: Backend
    accounts: AccountService
    reactor: Any
    """The process's reactor; Any: it provides more interfaces than a type can say."""

    @property
    def directory(self) -> Directory:
        return self.backend.directory

    async def user(self, address: str) -> AccountRecord:
        """The user of *address* as it was typed. Raises Problem."""
        wanted = check_address(address)
        record = await self.directory.account_by_address(wanted)
        if record is None:
            raise Problem(Status.NOT_FOUND, "not-found", f"no user {wanted}")
        return record

    @asynccontextmanager
    async def account(self, record: AccountRecord) -> AsyncIterator[Account]:
        """The account of *record*, open."""
        account = await self.accounts.open(record.id)
        try:
            yield account
        finally:
            self.accounts.release(account)


def check_domain(text: str) -> str:
    """*text* as the directory names a domain. Raises Problem (usage)."""
    name = canonical_domain(text.strip())
    labels = name.split(".")
    if (
        not name.isascii()
        or len(name) > 253
        or not all(
            0 < len(label) < 64
            and label.replace("-", "").replace("_", "").isalnum()
            and not label.startswith("-")
            and not label.endswith("-")
            for label in labels
        )
    ):
        raise Problem(Status.USAGE, "usage", f"{text!r} is not a domain")
    return name


_SPECIALS = set('()<>[]:;@\\,"')


def check_address(text: str, *, catch_all: bool = False) -> str:
    """*text* as the directory names an address; with *catch_all* ``@domain`` too. Raises Problem (usage).

    A local part is a dot-string of RFC 5321 section 4.1.2, or its UTF-8 form of RFC 6531, of at most 64 octets.
    """
    try:
        local, at, domain = canonical_address(text.strip()).rpartition("@")
    except ValueError:
        local = at = domain = ""
    if at and catch_all and not local:
        return "@" + check_domain(domain)
    atoms = local.split(".")
    good = all(atom and not any(c in _SPECIALS or c.isspace() or not c.isprintable() for c in atom) for atom in atoms)
    if not at or not good or len(local.encode()) > 64:
        wanted = "name@domain or @domain" if catch_all else "name@domain"
        raise Problem(Status.USAGE, "usage", f"{text!r} is not an address: {wanted} is wanted")
    return f"{local}@{check_domain(domain)}"


def embedded(configuration: Configuration) -> bool:
    """Whether the accounts lie in a file in the data folder."""
    return configuration.storage.metadata.partition("?")[0] in ("sqlite:", "sqlite")


def _check_user(data: Path) -> None:
    """Root would leave files that the server cannot read. Raises Problem."""
    if os.geteuid() != 0 or not data.exists():
        return
    owner = data.stat().st_uid
    if owner != 0:
        try:
            name = pwd.getpwuid(owner).pw_name
        except KeyError:
            name = f"#{owner}"
        text = f"{data} belongs to the user {name}: run this as that user (sudo -u {name} mailctl …)"
        raise Problem(Status.FAILED, "wrong-user", text)


@asynccontextmanager
async def opened(reactor: Any, configuration: Configuration, *, create: bool = False) -> AsyncIterator[Store]:
    """The store, started, and stopped again. *create*: makes the data folder where there is none.

    Raises Problem, StartError, StorageError.
    """
    if not create and embedded(configuration) and not (configuration.data / "mail.sqlite").exists():
        raise Problem(
            Status.NOT_FOUND,
            "no-store",
            f"there is no store in {configuration.data}: name its configuration with --config, or make one with "
            "`mailctl init` or `mailctl domain add`",
        )
    _check_user(configuration.data)
    prepare_data(configuration.data)
    stores = open_stores(reactor, configuration, search=True)
    await stores.backend.start()  # not stores.start(), which does not say whether a later attempt may succeed
    try:
        yield Store(configuration, stores.backend, stores.accounts, reactor)
    finally:
        await stores.stop()
