"""``mailctl domain``: the domains that are ours."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from twisted_mail.admin.invocation import Group, asks, on_store, the_invocation
from twisted_mail.admin.opening import Store, check_domain
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.relay.dkim_keys import DKIMKeys
from twisted_mail.storage.interfaces import Conflict, Domain

__all__ = ["domain"]


@click.group(cls=Group)
def domain() -> None:
    """Domains that are ours: mail for them is taken."""


async def _find(store: Store, text: str) -> Domain:
    name = check_domain(text)
    found = await store.directory.domain(name)
    if found is None:
        raise Problem(Status.NOT_FOUND, "not-found", f"no domain {name}")
    return found


async def _facts(store: Store, each: Domain) -> dict[str, Any]:
    return {
        "domain": each.name,
        "enabled": each.enabled,
        "users": len(await store.directory.accounts(each.name)),
        "aliases": len(await store.directory.aliases(each.name)),
    }


@domain.command("add")
@click.argument("name", metavar="DOMAIN")
@click.option("--dkim/--no-dkim", default=True, help="Whether keys to sign its mail are made.  [default: dkim]")
@on_store(create=True)
async def add(store: Store, name: str, dkim: bool) -> None:
    """Add a domain, with keys to sign its mail (`mailctl dkim show` says what to publish). Makes the store if there is none."""
    wanted = check_domain(name)
    await store.directory.add_domain(Domain(wanted))
    if dkim:
        await DKIMKeys(store.backend.records).begin(wanted)
    the_invocation().out.done(f"domain {wanted} added", domain=wanted, enabled=True, users=0, aliases=0)


@domain.command("list")
@on_store()
async def list_domains(store: Store) -> None:
    """All domains, by name."""
    rows = [await _facts(store, each) for each in await store.directory.domains()]
    the_invocation().out.rows(rows, ("domain", "enabled", "users", "aliases"))


@domain.command("show")
@click.argument("name", metavar="DOMAIN")
@on_store()
async def show(store: Store, name: str) -> None:
    """One domain."""
    the_invocation().out.one(await _facts(store, await _find(store, name)))


async def _enable(store: Store, name: str, on: bool) -> None:
    found = await _find(store, name)
    if found.enabled != on:
        await store.directory.set_domain(dataclasses.replace(found, enabled=on))
    word = "enabled" if on else "disabled"
    the_invocation().out.done(f"domain {found.name} {word}", domain=found.name, enabled=on, changed=found.enabled != on)


@domain.command("disable")
@click.argument("name", metavar="DOMAIN")
@on_store()
async def disable(store: Store, name: str) -> None:
    """Refuse mail for a domain, and logins of its users, until it is enabled; what they have stays."""
    await _enable(store, name, False)


@domain.command("enable")
@click.argument("name", metavar="DOMAIN")
@on_store()
async def enable(store: Store, name: str) -> None:
    """Take mail for a disabled domain again."""
    await _enable(store, name, True)


@domain.command("delete")
@click.argument("name", metavar="DOMAIN")
@asks("Delete the domain {name}?")
@on_store()
async def delete(store: Store, name: str) -> None:
    """Delete a domain that has no users and no aliases any more."""
    found = await _find(store, name)
    facts = await _facts(store, found)
    if facts["users"] or facts["aliases"]:
        raise Problem(
            Status.CONFLICT,
            "in-use",
            f"domain {found.name} still has {facts['users']} users and {facts['aliases']} aliases: delete them first",
        )
    try:
        await store.directory.remove_domain(found.name)
    except Conflict as error:
        raise Problem(Status.CONFLICT, "in-use", str(error)) from error
    the_invocation().out.done(f"domain {found.name} deleted", domain=found.name, deleted=True)
