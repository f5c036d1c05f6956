"""``mailctl user``: a user is mailbox, address and login at once."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Sequence
from typing import Any

import click

from twisted_mail.account.buckets import every_bucket
from twisted_mail.account.errors import AccountError
from twisted_mail.admin.credentials import credentials_for, matches
from twisted_mail.admin.invocation import Group, asks, on_store, the_invocation
from twisted_mail.admin.opening import Store, check_address, check_domain
from twisted_mail.admin.output import size_text
from twisted_mail.admin.passwords import Chosen, asks_password
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.filters.bayes import forget_learned
from twisted_mail.storage.interfaces import AccountRecord, Alias
from twisted_mail.tap.stores import datacenter_of
from twisted_mail.values import AccountId

__all__ = ["Octets", "create_user", "erase_account", "user"]


class Octets(click.ParamType[int]):
    """``500MiB``, ``2GB``, a number of octets, or ``none``."""

    name = "size"
    _UNITS = {
        "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
        "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
    }  # fmt: skip

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> int:
        """Octets; -1 for ``none`` (None is what click says for an option that was not given)."""
        if isinstance(value, int):
            return value
        if value.lower() == "none":
            return -1
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", value)
        if found is None or found[2].lower() not in self._UNITS:
            self.fail(f"{value!r} is not a size: write 500MiB, 2GB, a number of octets, or none", parameter, context)
        return int(float(found[1]) * self._UNITS[found[2].lower()])


@click.group(cls=Group)
def user() -> None:
    """Users: mailbox, address and login at once."""


def _facts(record: AccountRecord) -> dict[str, Any]:
    return {
        "user": record.address,
        "id": str(record.id),
        "name": record.display_name,
        "enabled": record.enabled,
        "quota_bytes": record.quota_bytes,
        "password": bool(record.credentials),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
    }


def _shown(chosen: Chosen | None) -> dict[str, str]:
    """A generated password, for the one time that it is printed."""
    return {"generated_password": chosen.text} if chosen is not None and chosen.generated else {}


def _say(text: str, chosen: Chosen | None, **facts: Any) -> None:
    out = the_invocation().out
    out.done(text, **facts, **_shown(chosen))
    if chosen is not None and chosen.generated:
        out.text(f"password: {chosen.text}")


async def create_user(
    store: Store, address: str, password: str, *, name: str = "", quota_bytes: int | None = None
) -> AccountRecord:
    """A user with its account, INBOX and default mailboxes. *address* is canonical. Raises Problem, StorageError."""
    domain = address.rpartition("@")[2]
    if await store.directory.domain(domain) is None:
        raise Problem(Status.NOT_FOUND, "not-found", f"no domain {domain}: add it with `mailctl domain add {domain}`")
    record = AccountRecord(
        AccountId.new(),
        address,
        credentials_for(store.configuration, password),
        quota_bytes=quota_bytes,
        display_name=name,
        home=datacenter_of(store.configuration),
        created=int(time.time()),
    )
    # the account first: a user who can log in has an INBOX; a crash between the two leaves only an empty log
    async with store.account(record):
        pass
    try:
        await store.directory.add_account(record)
    except BaseException:
        await erase_account(store, record.id)
        raise
    return record


async def erase_account(store: Store, account: AccountId) -> None:
    """Forget the account's search shard, lists, what it has taught, message rows and log.

    Blobs that nobody else holds are swept later.
    """
    if store.backend.search is not None:
        await store.backend.search.drop(account)
    for bucket in await _list_buckets(store, account):
        await store.backend.lists.drop(account, bucket)
    await forget_learned(store.backend.records, str(account))
    store.accounts.forget(account)
    async for _ in store.accounts.store.erase(account):
        pass
    await store.backend.account_log.erase(account)


async def _list_buckets(store: Store, account: AccountId) -> Sequence[int]:
    """The buckets of derived lists that there may be."""
    try:
        opened = await store.accounts.open(account)
    except AccountError:
        return [0]
    buckets = every_bucket(opened.state)
    store.accounts.release(opened)
    return buckets


@user.command("add")
@click.argument("address")
@click.option("--name", default="", metavar="TEXT", help="The user's name, for people.")
@click.option("--quota", type=Octets(), metavar="SIZE", help="What all mail may take, e.g. 2GiB. Default: no limit.")
@asks_password()
@on_store()
async def add(store: Store, address: str, name: str, quota: int | None, chosen: Chosen) -> None:
    """Add a user, with INBOX and the default mailboxes. Asks for the password."""
    wanted = check_address(address)
    for found in (await store.directory.account_by_address(wanted), await store.directory.alias(wanted)):
        if found is not None:
            kind = "user" if isinstance(found, AccountRecord) else "alias"
            raise Problem(Status.CONFLICT, "exists", f"there is a {kind} {wanted} already")
    record = await create_user(store, wanted, chosen.text, name=name, quota_bytes=_quota(quota))
    _say(f"user {record.address} added", chosen, **_facts(record))


def _quota(quota: int | None) -> int | None:
    return None if quota is None or quota < 0 else quota


@user.command("list")
@click.option("--domain", "of", metavar="DOMAIN", help="Only those of this domain.")
@on_store()
async def list_users(store: Store, of: str | None) -> None:
    """All users, by address."""
    found = await store.directory.accounts(check_domain(of) if of is not None else None)
    the_invocation().out.rows([_facts(each) for each in found], ("user", "enabled", "quota_bytes", "name"))


@user.command("show")
@click.argument("address")
@on_store()
async def show(store: Store, address: str) -> None:
    """One user: settings, mailboxes with their counts, usage."""
    record = await store.user(address)
    out = the_invocation().out
    async with store.account(record) as account:
        state = account.state
        mailboxes = [
            {
                "mailbox": each.name,
                "messages": each.messages,
                "unseen": each.unseen,
                "size": each.size,
                "special_use": list(each.special_use),
            }
            for each in state.in_order()
        ]
        facts = {**_facts(record), "messages": state.messages, "usage_bytes": state.size}
    aliases = [each.address for each in await store.directory.aliases() if record.address in each.targets]
    if out.as_json:
        out.one({**facts, "aliases": aliases, "mailboxes": mailboxes})
        return
    quota = "no limit" if record.quota_bytes is None else size_text(record.quota_bytes)
    shown = {key: value for key, value in facts.items() if key not in ("quota_bytes", "usage_bytes")}
    out.one({**shown, "usage": f"{size_text(facts['usage_bytes'])} of {quota}", "aliases": aliases})
    out.text("")
    out.rows(mailboxes)


@user.command("passwd")
@click.argument("address")
@asks_password()
@on_store()
async def passwd(store: Store, address: str, chosen: Chosen) -> None:
    """Give a user another password. Asks for it; sessions that are open stay."""
    record = await store.user(address)
    await store.directory.set_account(
        dataclasses.replace(record, credentials=credentials_for(store.configuration, chosen.text))
    )
    _say(f"password of {record.address} changed", chosen, user=record.address, changed=True)


async def _enable(store: Store, address: str, on: bool) -> None:
    record = await store.user(address)
    if record.enabled != on:
        await store.directory.set_account(dataclasses.replace(record, enabled=on))
    word = "enabled" if on else "disabled"
    the_invocation().out.done(
        f"user {record.address} {word}", user=record.address, enabled=on, changed=record.enabled != on
    )


@user.command("disable")
@click.argument("address")
@on_store()
async def disable(store: Store, address: str) -> None:
    """Refuse a user's logins and mail for it until it is enabled; what it has stays."""
    await _enable(store, address, False)


@user.command("enable")
@click.argument("address")
@on_store()
async def enable(store: Store, address: str) -> None:
    """Let a disabled user log in again."""
    await _enable(store, address, True)


@user.command("delete")
@click.argument("address")
@asks("Delete the user {address} and all its mail?")
@on_store()
async def delete(store: Store, address: str) -> None:
    """Delete a user and all its mail. Cannot be undone; `export` keeps a copy."""
    record = await store.user(address)
    # the user last, so that a deletion that was cut off can be done again by name
    await store.directory.set_account(dataclasses.replace(record, enabled=False, credentials=()))
    await erase_account(store, record.id)
    await store.directory.remove_account(record.id)
    the_invocation().out.done(f"user {record.address} deleted", user=record.address, id=str(record.id), deleted=True)


@user.command("rename")
@click.argument("address")
@click.argument("new_address")
@click.option("--keep-alias", is_flag=True, help="Mail for the old address still comes, by an alias.")
@on_store()
async def rename(store: Store, address: str, new_address: str, keep_alias: bool) -> None:
    """Give a user another address, which is its login too. The mail stays."""
    record = await store.user(address)
    wanted = check_address(new_address)
    domain = wanted.rpartition("@")[2]
    if await store.directory.domain(domain) is None:
        raise Problem(Status.NOT_FOUND, "not-found", f"no domain {domain}: add it with `mailctl domain add {domain}`")
    await store.directory.set_account(dataclasses.replace(record, address=wanted))
    if keep_alias and wanted != record.address:
        await store.directory.add_alias(Alias(record.address, (wanted,)))
    the_invocation().out.done(
        f"user {record.address} is now {wanted}", user=wanted, was=record.address, alias=keep_alias
    )


@user.command("quota")
@click.argument("address")
@click.argument("size", type=Octets())
@on_store()
async def quota(store: Store, address: str, size: int) -> None:
    """Say how much all mail of a user may take: 500MiB, 2GB, a number of octets, or none."""
    record = await store.user(address)
    changed = dataclasses.replace(record, quota_bytes=_quota(size))
    await store.directory.set_account(changed)
    text = "no limit" if changed.quota_bytes is None else size_text(changed.quota_bytes)
    the_invocation().out.done(
        f"quota of {record.address}: {text}", user=record.address, quota_bytes=changed.quota_bytes
    )


@user.command("ensure")
@click.argument("address")
@click.option("--name", metavar="TEXT", help="The user's name, for people.")
@click.option("--quota", type=Octets(), metavar="SIZE", help="What all mail may take; none: no limit.")
@click.option("--enabled/--disabled", default=None, help="Whether it may log in and receives mail.")
@asks_password(needed=False)
@on_store()
async def ensure(
    store: Store,
    address: str,
    name: str | None,
    quota: int | None,
    enabled: bool | None,
    chosen: Chosen | None,
) -> None:
    """Make sure that a user exists and is as the options say; run again, it changes nothing.

    A password from --password-stdin is set where it is not the present one; --generate makes one only for a new user.
    """
    wanted = check_address(address)
    record = await store.directory.account_by_address(wanted)
    if record is None:
        if chosen is None:
            raise Problem(Status.USAGE, "usage", f"{wanted} is new: use --password-stdin or --generate")
        record = await create_user(store, wanted, chosen.text, name=name or "", quota_bytes=_quota(quota))
        if enabled is False:
            record = dataclasses.replace(record, enabled=False)
            await store.directory.set_account(record)
        _say(f"user {wanted} added", chosen, **_facts(record), added=True, changed=[])
        return
    new = dataclasses.replace(
        record,
        display_name=record.display_name if name is None else name,
        quota_bytes=record.quota_bytes if quota is None else _quota(quota),
        enabled=record.enabled if enabled is None else enabled,
    )
    if chosen is not None and not chosen.generated and not matches(chosen.text, record.credentials):
        new = dataclasses.replace(new, credentials=credentials_for(store.configuration, chosen.text))
    named = {"display_name": "name", "quota_bytes": "quota", "enabled": "enabled", "credentials": "password"}
    changed = [word for field, word in named.items() if getattr(new, field) != getattr(record, field)]
    if changed:
        await store.directory.set_account(new)
    text = f"user {wanted}: {', '.join(changed)} changed" if changed else f"user {wanted} is as it should be"
    the_invocation().out.done(text, **_facts(new), added=False, changed=changed)
