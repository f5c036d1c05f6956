"""``mailctl queue``: mail that waits, and dead letters."""

from __future__ import annotations

import datetime
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import click

from twisted_mail.admin.invocation import Group, asks, on_store, the_invocation
from twisted_mail.admin.opening import Store, check_domain
from twisted_mail.admin.output import size_text
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.delivery import Bodies
from twisted_mail.delivery.bodies import Body
from twisted_mail.delivery.items import USE, Inbound, NewerVersion, inbound_of
from twisted_mail.storage.interfaces import Corrupt, ItemState, QueueFilter, QueueItem, QueueStatus
from twisted_mail.values import DeliveryId

__all__ = ["queue"]

PAGE: Final = 500


@click.group(cls=Group)
def queue() -> None:
    """Mail that was accepted and is not delivered yet. What cannot be delivered is held here: a dead letter."""


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _inbound(item: QueueItem) -> Inbound | None:
    try:
        return inbound_of(item)
    except (Corrupt, NewerVersion):
        return None


def _facts(status: QueueStatus, now: float) -> dict[str, Any]:
    item, inbound = status.item, _inbound(status.item)
    return {
        "id": str(item.id),
        "state": status.state.value,
        "sender": f"<{item.sender}>",
        "recipient": inbound.address if inbound is not None else item.domain,
        "size": item.body.size if item.body is not None else 0,
        "queued": _time(item.created),
        "age_seconds": max(int(now - item.created), 0),
        "attempts": item.attempts,
        "last_reply": item.last_reply or None,
    }


def _identifier(text: str) -> DeliveryId:
    try:
        return DeliveryId.parse(text)
    except ValueError:
        raise Problem(Status.USAGE, "usage", f"{text!r} is not the id of an item: 32 hexadecimal digits are") from None


async def _find(store: Store, id: DeliveryId) -> QueueStatus:
    number = int.from_bytes(id.octets, "big")
    before = DeliveryId((number - 1).to_bytes(16, "big")) if number else None
    found = await store.backend.queue.list(QueueFilter(), before, 1)
    if not found or found[0].item.id != id:
        raise Problem(Status.NOT_FOUND, "not-found", f"no item {id} waits in the queue")
    return found[0]


async def _every(store: Store, filter: QueueFilter, limit: int | None = None) -> AsyncIterator[QueueStatus]:
    after, left = None, limit
    while left is None or left > 0:
        page = await store.backend.queue.list(filter, after, PAGE if left is None else min(PAGE, left))
        for status in page:
            yield status
        if not page:
            return
        after = page[-1].item.id
        left = None if left is None else left - len(page)


def _filter(state: str | None, domain: str | None, sender: str | None) -> QueueFilter:
    return QueueFilter(
        use=USE,
        state=ItemState(state) if state is not None else None,
        domain=check_domain(domain) if domain is not None else None,
        sender=sender.strip("<>") if sender is not None else None,
    )


_which = (
    click.option("--domain", metavar="DOMAIN", help="Only items for recipients in this domain."),
    click.option("--sender", metavar="ADDRESS", help="Only items from this sender; <> is the null one."),
)


def _with_filters(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_which):
        command = option(command)
    return command


def _with_items(command: Callable[..., Any]) -> Callable[..., Any]:
    """Items by their ids, or all that match."""
    command = _with_filters(command)
    command = click.option("--all", "every", is_flag=True, help="All items (with --domain, --sender: those that match).")(
        command
    )
    return click.argument("ids", nargs=-1, metavar="[ID]...")(command)


async def _chosen(
    store: Store, ids: tuple[str, ...], every: bool, domain: str | None, sender: str | None, state: str | None = None
) -> list[QueueStatus]:
    if bool(ids) == every:
        raise Problem(Status.USAGE, "usage", "name items by their ids, or --all")
    if ids and (domain is not None or sender is not None):
        raise Problem(Status.USAGE, "usage", "--domain and --sender go with --all")
    if ids:
        return [await _find(store, _identifier(text)) for text in ids]
    return [status async for status in _every(store, _filter(state, domain, sender))]


async def _each(chosen: list[QueueStatus], act: Callable[[QueueStatus], Awaitable[bool]], word: str) -> None:
    """*act* on each, and say on how many; an item that is gone meanwhile is passed over."""
    done = [str(status.item.id) for status in chosen if await act(status)]
    text = f"{len(done)} item{'' if len(done) == 1 else 's'} {word}"
    the_invocation().out.done(text, items=done, count=len(done), done=word)


@queue.command("list")
@click.option(
    "--state", type=click.Choice([state.value for state in ItemState]), help="Only items in this state; held: dead letters."
)
@_with_filters
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, metavar="N", help="At most so many.")
@on_store()
async def list_items(store: Store, state: str | None, domain: str | None, sender: str | None, limit: int) -> None:
    """Items, by id. A due one is waited for by nobody but a worker, a waiting one has its next attempt later."""
    now = time.time()
    found = [_facts(status, now) async for status in _every(store, _filter(state, domain, sender), limit)]
    out = the_invocation().out
    if not out.as_json:
        found = [facts | {"size": size_text(facts["size"])} for facts in found]
    out.rows(found, ("id", "state", "sender", "recipient", "size", "queued", "attempts", "last_reply"))


@queue.command("show")
@click.argument("id")
@on_store()
async def show(store: Store, id: str) -> None:
    """One item."""
    status = await _find(store, _identifier(id))
    item, inbound = status.item, _inbound(status.item)
    facts = _facts(status, time.time()) | {"next_attempt": _time(status.due) if status.state is ItemState.WAITING else None}
    if inbound is not None:
        record = await store.directory.account(inbound.copy(item.id).account)
        facts |= {
            "user": record.address if record is not None else None,
            "account": inbound.account.hex(),
            "detail": inbound.detail or None,
            "received": _time(inbound.received),
            "may_be_delivered_already": inbound.repeated or item.attempts > 1,
            "body": f"{item.body.hash} in {'the blob store' if inbound.place == 'blobs' else 'the queue'}"
            if item.body is not None
            else None,
        }
    the_invocation().out.one(facts)


@queue.command("retry")
@_with_items
@on_store()
async def retry(store: Store, ids: tuple[str, ...], every: bool, domain: str | None, sender: str | None) -> None:
    """Make waiting items due now. Held ones stay held (release them), those that a worker has stay with it."""
    backend = store.backend.queue

    async def now(status: QueueStatus) -> bool:
        if status.state is not ItemState.WAITING:
            return False
        return await backend.hold(status.item.id) and await backend.release(status.item.id)

    await _each(await _chosen(store, ids, every, domain, sender, "waiting"), now, "due now")


@queue.command("hold")
@_with_items
@on_store()
async def hold(store: Store, ids: tuple[str, ...], every: bool, domain: str | None, sender: str | None) -> None:
    """Keep items from being delivered until they are released; a worker that has one lets it go."""
    await _each(
        await _chosen(store, ids, every, domain, sender), lambda status: store.backend.queue.hold(status.item.id), "held"
    )


@queue.command("release")
@_with_items
@on_store()
async def release(store: Store, ids: tuple[str, ...], every: bool, domain: str | None, sender: str | None) -> None:
    """Let held items go: they are tried now, dead letters too (once more, when they have expired)."""
    await _each(
        await _chosen(store, ids, every, domain, sender, "held"),
        lambda status: store.backend.queue.release(status.item.id),
        "released",
    )


@queue.command("delete")
@_with_items
@asks("Delete mail that nobody has got?")
@on_store()
async def delete(store: Store, ids: tuple[str, ...], every: bool, domain: str | None, sender: str | None) -> None:
    """Delete items with their mail. Nobody is told."""
    backend = store.backend
    bodies = Bodies(backend.blobs, backend.references, store.reactor, overflow=backend.queue_bodies)

    async def gone(status: QueueStatus) -> bool:
        item, inbound = status.item, _inbound(status.item)
        if not await backend.queue.delete(item.id):
            return False
        if item.body is not None and inbound is not None:
            await bodies.forget(Body(inbound.place, item.body), item.id)
        return True

    await _each(await _chosen(store, ids, every, domain, sender), gone, "deleted")
