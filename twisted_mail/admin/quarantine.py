"""``mailctl quarantine``: mail that filters keep from its recipients: held items of the inbound queue, with what was found."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import click
import msgspec

from twisted_mail.admin.invocation import Group, asks, on_store, the_invocation
from twisted_mail.admin.opening import Store
from twisted_mail.admin.output import size_text
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.admin.queue_items import address_of, bodies_of, body_of, facts_of, find, identifier
from twisted_mail.delivery.failing import QUARANTINED
from twisted_mail.delivery.items import USE, Inbound, inbound_of
from twisted_mail.delivery.judgement import Judgement
from twisted_mail.delivery.placing import Placer
from twisted_mail.delivery.scripts import ActiveScripts
from twisted_mail.delivery.sorting import Arrival, Sorter, SortSettings
from twisted_mail.delivery.versions import given_up
from twisted_mail.filters.values import Action
from twisted_mail.sieve import compile_script
from twisted_mail.storage.interfaces import Corrupt, ItemState, QueueFilter, QueueStatus

__all__ = ["quarantine"]

PAGE = 200
COLUMNS = ("id", "sender", "recipient", "size", "queued", "why")


@click.group(cls=Group)
def quarantine() -> None:
    """Mail that filters keep from its recipients, until an operator decides."""


def _kept(status: QueueStatus) -> Inbound | None:
    """The envelope of an item that is in quarantine; None: it is held for another reason, or not at all."""
    if status.state is not ItemState.HELD or status.item.use != USE:
        return None
    try:
        inbound = inbound_of(status.item)
    except Corrupt:
        return None
    judgement = inbound.judgement
    if judgement is None or judgement.action >= Action.QUARANTINE:
        return None if judgement is None else inbound
    _, quarantined, why = status.item.last_reply.partition(QUARANTINED)
    if not quarantined:
        return None
    # a filter said so that did not answer when the item was written
    judgement = msgspec.structs.replace(judgement, action=Action.QUARANTINE, trace=(*judgement.trace, why))
    return msgspec.structs.replace(inbound, judgement=judgement)


async def _all(store: Store) -> AsyncIterator[tuple[QueueStatus, Inbound]]:
    after = None
    while True:
        page = await store.backend.queue.list(QueueFilter(use=USE, state=ItemState.HELD), after=after, limit=PAGE)
        for status in page:
            inbound = _kept(status)
            if inbound is not None:
                yield status, inbound
        if len(page) < PAGE:
            return
        after = page[-1].item.id


def _facts(status: QueueStatus, inbound: Inbound) -> dict[str, Any]:
    judgement = inbound.judgement or Judgement()
    return {
        **facts_of(status, time.time()),
        "recipient": address_of(status.item, inbound),
        "client": judgement.peer or None,
        "score": judgement.score,
        "why": judgement.trace[-1] if judgement.trace else None,
        "lines": list(judgement.trace),
    }


async def _one(store: Store, id: str) -> tuple[QueueStatus, Inbound]:
    status = await find(store, identifier(id))
    inbound = _kept(status)
    if inbound is None:
        raise Problem(Status.NOT_FOUND, "not-found", f"item {id} is not in quarantine")
    return status, inbound


@quarantine.command("list")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="At most so many.")
@on_store()
async def list_items(store: Store, limit: int) -> None:
    """What is kept, for whom, and why."""
    found: list[dict[str, Any]] = []
    async for status, inbound in _all(store):
        found.append(_facts(status, inbound))
        if len(found) >= limit:
            break
    out = the_invocation().out
    if not out.as_json:
        found = [facts | {"size": size_text(facts["size"])} for facts in found]
    out.rows(found, COLUMNS)


@quarantine.command("show")
@click.argument("id")
@on_store()
async def show(store: Store, id: str) -> None:
    """All that was found about one message."""
    the_invocation().out.one(_facts(*await _one(store, id)))


@quarantine.command("release")
@click.argument("id")
@click.option("--junk", is_flag=True, help="Into the recipient's Junk mailbox.")
@on_store()
async def release(store: Store, id: str, junk: bool) -> None:
    """Deliver a message to its recipient all the same, sorted by the recipient's script; nobody looks at it again.

    What the script would send elsewhere stays with the recipient."""
    status, inbound = await _one(store, id)
    body, judgement = body_of(status.item), inbound.judgement
    if body is None or judgement is None:
        raise Problem(Status.FAILED, "no-body", f"item {id} has no message")
    copy = inbound.copy(status.item.id)
    action = Action.JUNK if junk else Action.MARK
    trace = (*judgement.trace, "an operator let it go")
    copy = replace(copy, judgement=msgspec.structs.replace(judgement, action=action, pending=(), trace=trace))
    scripts = ActiveScripts(store.directory, store.reactor, compile_script)
    placer = Placer(store.accounts, sorter=Sorter(scripts, SortSettings(hostname=store.configuration.hostname)))
    bodies = bodies_of(store)
    writer = store.accounts.writer(copy.account)
    try:
        async for chunk in bodies.open(body):
            await writer.write(chunk)
        arrival = Arrival(sender=inbound.sender, received=inbound.received, zone=inbound.zone)
        # the delivery's id is the item's: were it delivered already, nothing would be put there again
        await placer.place(await writer.finish(), copy, arrival, repeated=True)
    finally:
        await given_up(writer)
    await store.backend.queue.delete(status.item.id)
    await bodies.forget(body, status.item.id)
    to = address_of(status.item, inbound)
    the_invocation().out.done(f"delivered to {to}{' as junk' if junk else ''}", id=id, recipient=to, junk=junk)


@quarantine.command("delete")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@asks("Delete mail that nobody has got?")
@on_store()
async def delete(store: Store, ids: tuple[str, ...]) -> None:
    """Throw messages away."""
    bodies = bodies_of(store)
    for id in ids:
        status, _ = await _one(store, id)
        if await store.backend.queue.delete(status.item.id):
            body = body_of(status.item)
            if body is not None:
                await bodies.forget(body, status.item.id)
    the_invocation().out.done(f"{len(ids)} deleted", deleted=list(ids))
