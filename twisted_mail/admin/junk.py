"""``mailctl user junk``: what a user takes for junk: the points, and senders that never or always are."""

from __future__ import annotations

from typing import Any

import click

from twisted_mail.account.intents import SetSetting
from twisted_mail.admin.invocation import on_store, the_invocation
from twisted_mail.admin.opening import Store
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.admin.users import user
from twisted_mail.delivery.junk import ALLOW, BLOCK, THRESHOLD, read_list, read_threshold
from twisted_mail.services import Account

__all__ = ["junk"]

DEFAULT = "default"


@user.command("junk")
@click.argument("address")
@click.option(
    "--threshold",
    metavar="POINTS",
    help="Mail with so many points of spam is junk; off: never for its points; default: as the server says.",
)
@click.option("--allow", multiple=True, metavar="SENDER", help="Mail from this address or @domain is never junk.")
@click.option("--block", multiple=True, metavar="SENDER", help="Mail from this address or @domain is always junk.")
@click.option("--forget", multiple=True, metavar="SENDER", help="Take this address or @domain off both lists.")
@on_store()
async def junk(
    store: Store,
    address: str,
    threshold: str | None,
    allow: tuple[str, ...],
    block: tuple[str, ...],
    forget: tuple[str, ...],
) -> None:
    """Show or change what a user takes for junk.

    An address or @domain that is allowed counts only for mail whose From can be believed, if the server looks at that.
    """
    record = await store.user(address)
    wanted = {name: _entries(entries) for name, entries in ((ALLOW, allow), (BLOCK, block))}
    gone = _entries(forget)
    if threshold is not None and threshold != DEFAULT:
        try:
            read_threshold(threshold)
        except ValueError:
            text = f"{threshold!r} is not a number of points: write 5.5, off or default"
            raise Problem(Status.USAGE, "usage", text) from None
    account = await store.accounts.open(record.id)
    try:
        if threshold is not None:
            await _set(account, THRESHOLD, None if threshold == DEFAULT else threshold)
        for name, other in ((ALLOW, BLOCK), (BLOCK, ALLOW)):
            have = _entries((account.state.settings.get(name, ""),))
            new = (have | wanted[name]) - gone - (wanted[other] - wanted[name])
            if new != have:
                await _set(account, name, " ".join(sorted(new)) or None)
        facts = _facts(record.address, account)
    finally:
        store.accounts.release(account)
    the_invocation().out.one(facts)


def _entries(texts: tuple[str, ...]) -> frozenset[str]:
    try:
        return read_list(" ".join(texts))
    except ValueError as error:
        raise Problem(Status.USAGE, "usage", str(error)) from None


async def _set(account: Account, name: str, value: str | None) -> None:
    await account.commit(SetSetting(name=name, value=value))


def _facts(address: str, account: Account) -> dict[str, Any]:
    settings = account.state.settings
    return {
        "user": address,
        "threshold": settings.get(THRESHOLD, DEFAULT),
        "allow": sorted(_entries((settings.get(ALLOW, ""),))),
        "block": sorted(_entries((settings.get(BLOCK, ""),))),
    }
