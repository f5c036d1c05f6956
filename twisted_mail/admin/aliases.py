"""``mailctl alias``: addresses that stand for others."""

from __future__ import annotations

from typing import Any

import click

from twisted_mail.admin.invocation import Group, asks, on_store, the_invocation
from twisted_mail.admin.opening import Store, check_address, check_domain
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.storage.interfaces import Alias, AlreadyExists, NotFound

__all__ = ["alias"]


@click.group(cls=Group)
def alias() -> None:
    """Addresses that stand for others; @DOMAIN is the catch-all of a domain."""


def _facts(each: Alias) -> dict[str, Any]:
    return {"alias": each.address, "targets": list(each.targets), "catch_all": each.address.startswith("@")}


async def _find(store: Store, text: str) -> Alias:
    address = check_address(text, catch_all=True)
    found = await store.directory.alias(address)
    if found is None:
        raise Problem(Status.NOT_FOUND, "not-found", f"no alias {address}")
    return found


@alias.command("add")
@click.argument("address")
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...")
@click.option("--replace", is_flag=True, help="Give an alias that exists these targets instead.")
@on_store()
async def add(store: Store, address: str, targets: tuple[str, ...], replace: bool) -> None:
    """Make ADDRESS stand for each TARGET; @DOMAIN takes what no user and no other alias does.

    A target may be a user, another alias, or (once mail is relayed) an address elsewhere; of a catch-all also
    @OTHERDOMAIN, which keeps the local part.
    """
    wanted = check_address(address, catch_all=True)
    new = Alias(wanted, tuple(dict.fromkeys(check_address(target, catch_all=wanted.startswith("@")) for target in targets)))
    if new.address in new.targets:
        raise Problem(Status.USAGE, "usage", f"{new.address} cannot stand for itself")
    directory = store.directory
    domain = wanted.rpartition("@")[2]
    if await directory.domain(domain) is None:
        raise Problem(Status.NOT_FOUND, "not-found", f"no domain {domain}: add it with `mailctl domain add {domain}`")
    out = the_invocation().out
    for target in new.targets:
        if target.startswith("@") or await directory.domain(target.rpartition("@")[2]) is None:
            continue
        if await directory.account_by_address(target) is None and await directory.alias(target) is None:
            out.note(f"note: there is no user and no alias {target} yet")
    try:
        await directory.add_alias(new)
    except AlreadyExists:
        if not replace or await directory.alias(wanted) is None:
            raise
        await directory.set_alias(new)
    out.done(f"alias {new.address} -> {', '.join(new.targets)}", **_facts(new))


@alias.command("list")
@click.option("--domain", "of", metavar="DOMAIN", help="Only those of this domain.")
@on_store()
async def list_aliases(store: Store, of: str | None) -> None:
    """All aliases, by address."""
    found = await store.directory.aliases(check_domain(of) if of is not None else None)
    the_invocation().out.rows([_facts(each) for each in found], ("alias", "targets"))


@alias.command("show")
@click.argument("address")
@on_store()
async def show(store: Store, address: str) -> None:
    """One alias."""
    the_invocation().out.one(_facts(await _find(store, address)))


@alias.command("delete")
@click.argument("address")
@asks("Delete the alias {address}?")
@on_store()
async def delete(store: Store, address: str) -> None:
    """Delete an alias; the mail of its targets stays where it is."""
    found = await _find(store, address)
    try:
        await store.directory.remove_alias(found.address)
    except NotFound as error:
        raise Problem(Status.NOT_FOUND, "not-found", f"no alias {found.address}") from error
    the_invocation().out.done(f"alias {found.address} deleted", alias=found.address, deleted=True)
