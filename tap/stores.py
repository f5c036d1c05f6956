"""The stores that a configuration names, and the accounts on them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any
from urllib.parse import parse_qs, urlsplit

from twisted_mail.account.service import AccountService, AccountSettings
from twisted_mail.account.tree import NewMailbox
from twisted_mail.storage import Backend, open_backend
from twisted_mail.storage.interfaces import EngineContext, StorageError
from twisted_mail.tap.listeners import StartError
from twisted_mail.tap.masking import masked_in
from twisted_mail.tap.settings import Configuration

__all__ = ["Stores", "account_settings", "datacenter_of", "open_stores", "search_url"]

_ROLES = ("metadata", "blobs", "messaging", "queue", "bus", "cache")
_DRIVERS = {"cql": "scylla-driver", "s3": "boto3", "nats": "nats-py"}
_EXTRAS = {"tantivy": "tantivy"}
"""Drivers that are no part of ``cluster``."""


@dataclass(frozen=True, slots=True)
class Stores:
    """One of each store, and the account service on top."""

    backend: Backend
    accounts: AccountService
    urls: tuple[str, ...] = ()
    """Where the stores are; they may hold passwords."""

    async def start(self) -> None:
        """Raises: StartError with the engine's words."""
        try:
            await self.backend.start()
        except StorageError as error:
            raise StartError(f"storage: {masked_in(str(error), self.urls)}") from None

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
        default_mailboxes=(NewMailbox(name="INBOX"), *others),
        retention_seconds=configuration.account.retention,
        cache_bytes=configuration.account.cache,
    )


def datacenter_of(configuration: Configuration) -> str:
    """The data centre that this node is in, as the URL of its metadata says; empty: there is only one."""
    return parse_qs(urlsplit(configuration.storage.metadata).query).get("datacenter", [""])[0]


def search_url(configuration: Configuration) -> str:
    """The engine of the search shards; empty: none. Where blobs are objects, the shards lie beside them."""
    search = configuration.search
    if search.engine == "none":
        return ""
    scheme = search.engine
    if scheme == "auto":
        scheme = "tantivy" if find_spec("tantivy") is not None else "whoosh"
    return f"{scheme}:?shards={search.shards}&cache={search.cache}"


def open_stores(reactor: Any, configuration: Configuration, node: str = "", *, search: bool = False) -> Stores:
    """Build everything; nothing is opened yet. *node*: this one's name among the members; empty: it will not be one,
    and has search shards only if it asks for them.

    Raises: StartError.
    """
    storage, threads = configuration.storage, configuration.threads
    urls = {role: url for role in _ROLES if (url := getattr(storage, role))}
    if (node or search) and (index := search_url(configuration)):
        urls["search"] = index
    secrets = tuple(urls.values())
    sizes = {"file": f"threads={threads.blobs}", "sqlite": f"readers={threads.storage}"}
    urls = {role: _with_option(url, sizes.get(url.partition(":")[0], "")) for role, url in urls.items()}
    context = EngineContext(reactor=reactor, data=configuration.data)
    try:
        backend = open_backend(urls, context)
    except ImportError as error:
        raise StartError(f"storage: {_missing(error, urls)}") from None
    except ValueError as error:
        raise StartError(f"storage: {masked_in(str(error), (*urls.values(), *secrets))}") from None
    accounts = AccountService(
        log=backend.account_log,
        messages=backend.messages,
        blobs=backend.blobs,
        references=backend.references,
        leases=backend.leases,
        bus=backend.bus,
        clock=reactor,
        settings=account_settings(configuration),
        members=backend.members,
        node=node,
        datacenter=datacenter_of(configuration),
        directory=backend.directory,
    )
    return Stores(backend, accounts, secrets)


def _with_option(url: str, option: str) -> str:
    """*url* with *option* (``name=value``), unless it is empty or the URL says it itself."""
    name = option.partition("=")[0]
    base, mark, query = url.partition("?")
    if not option or name in parse_qs(query, keep_blank_values=True):
        return url
    return f"{base}?{query}&{option}" if mark and query else f"{base}?{option}"


def _missing(error: ImportError, urls: dict[str, str]) -> str:
    """Which driver it takes, and how it is had."""
    schemes = {url.partition(":")[0] for url in urls.values()}
    for scheme in schemes & {error.name or ""} & set(_EXTRAS):
        return f"{scheme} is not installed: pip install 'twisted-mail-suite[{_EXTRAS[scheme]}]'"
    wanted = sorted({_DRIVERS[scheme] for url in urls.values() if (scheme := url.partition(":")[0]) in _DRIVERS})
    if not wanted:
        return str(error)
    names = ", ".join(wanted)
    return f"a driver is not installed ({error}); {names}: pip install 'twisted-mail-suite[cluster]'"
