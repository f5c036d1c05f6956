"""The stores that a configuration names, and the accounts on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twisted_mail.account.service import AccountService, AccountSettings
from twisted_mail.account.tree import NewMailbox
from twisted_mail.storage import Backend, open_backend
from twisted_mail.storage.interfaces import EngineContext, StorageError
from twisted_mail.tap.listeners import StartError
from twisted_mail.tap.settings import Configuration

__all__ = ["Stores", "account_settings", "open_stores"]

_ROLES = ("metadata", "blobs", "messaging", "queue", "bus", "cache")


@dataclass(frozen=True, slots=True)
class Stores:
    """One of each store, and the account service on top."""

    backend: Backend
    accounts: AccountService

    async def start(self) -> None:
        """Raises: StartError with the engine's words."""
        try:
            await self.backend.start()
        except StorageError as error:
            raise StartError(f"storage: {error}") from None

    async def stop(self) -> None:
        """Finish what is in flight, then close the stores."""
        try:
            await self.accounts.stop()
        finally:
            await self.backend.stop()


def account_settings(configuration: Configuration) -> AccountSettings:
    """What the account service is told: the mailboxes of a new account, how far back a log reaches."""
    others = (
        NewMailbox(name=name, special_use=(f"\\{use.capitalize()}",) if use else ())
        for name, use in configuration.account.mailboxes.items()
    )
    return AccountSettings(
        default_mailboxes=(NewMailbox(name="INBOX"), *others), retention_seconds=configuration.account.retention
    )


def open_stores(reactor: Any, configuration: Configuration) -> Stores:
    """Build everything; nothing is opened yet. Raises: StartError."""
    storage, threads = configuration.storage, configuration.threads
    urls = {role: url for role in _ROLES if (url := getattr(storage, role))}
    if urls["blobs"] == "file:":
        urls["blobs"] = f"file:?threads={threads.blobs}"
    context = EngineContext(reactor=reactor, data=configuration.data, options={"readers": str(threads.storage)})
    try:
        backend = open_backend(urls, context)
    except (ValueError, ImportError) as error:
        raise StartError(f"storage: {error}") from None
    accounts = AccountService(
        log=backend.account_log,
        messages=backend.messages,
        blobs=backend.blobs,
        leases=backend.leases,
        bus=backend.bus,
        clock=reactor,
        settings=account_settings(configuration),
    )
    return Stores(backend, accounts)
