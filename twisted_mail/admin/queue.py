"""``mailctl queue``: mail that waits, mail that leaves, and dead letters."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

import click

from twisted_mail.admin.invocation import Group, asks, on_store, the_invocation
from twisted_mail.admin.opening import Store, check_domain
from twisted_mail.admin.output import size_text
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.admin.queue_giving_up import GivingUp
from twisted_mail.admin.queue_items import (
    FILTERS,
    Wanted,
    address_of,
    bodies_of,
    body_of,
    envelope_of,
    facts_of,
    find,
    identifier,
    time_text,
    wanted_of,
)
from twisted_mail.admin.queue_trace import facts_of_step, sentence, way_of
from twisted_mail.delivery.items import Inbound
from twisted_mail.queueing.limits import some_at_a_time
from twisted_mail.relay.items import Outbound
from twisted_mail.storage.interfaces import ItemState, QueueFilter, QueueStatus, Use

__all__ = ["queue"]

MOST_NAMED: Final = 1000
"""Items whose ids are in what is printed; the rest is counted."""
LEAVING: Final[tuple[Use, ...]] = ("outbound", "bulk")
Act = Callable[[QueueStatus], Awaitable[bool]]


@click.group(cls=Group)
def queue() -> None:
    """Mail that was accepted and is not delivered yet, here or to others. What cannot be delivered is held: a dead letter.

    A verb takes items by their ids, or --all, or those that match: --domain example.net --older 2d --reply "mailbox full".
    """


def _with_filters(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(FILTERS):
        command = option(command)
    return command


def _with_items(command: Callable[..., Any]) -> Callable[..., Any]:
    """Items by their ids, or all, or all that match."""
    command = _with_filters(command)
    command = click.option("--all", "every", is_flag=True, help="All items, or of those that match all.")(command)
    return click.argument("ids", nargs=-1, metavar="[ID]...")(command)


async def _chosen(
    store: Store,
    ids: tuple[str, ...],
    every: bool,
    given: dict[str, Any],
    *,
    state: ItemState | None = None,
    uses: Sequence[Use | None] = (),
) -> AsyncIterator[list[QueueStatus]]:
    """Page by page. *state*, *uses*: the only ones that the verb is for. Raises: Problem."""
    filtered = any(value is not None for value in given.values())
    if bool(ids) == (every or filtered):
        raise Problem(Status.USAGE, "usage", "name items by their ids, or by --all or what they have in common, and not by both")
    if ids:
        yield [await find(store, identifier(text)) for text in ids]
        return
    wanted = wanted_of(given)
    if state is not None:
        if wanted.filter.state not in (None, state):
            return
        wanted = wanted.narrowed(state=state)
    for use in uses or (wanted.filter.use,):
        async for page in wanted.narrowed(use=use).pages(store):
            yield page


async def _each(
    pages: AsyncIterator[list[QueueStatus]], act: Act, word: str, more: Callable[[], dict[str, Any]] = dict
) -> None:
    """*act* on each, some at a time, and say on how many; an item that is gone meanwhile is passed over. *more*: facts for
    programs (whatever JSON holds, hence Any), asked for at the end."""
    named: list[str] = []
    count = 0

    async def one(status: QueueStatus) -> None:
        nonlocal count
        if await act(status):
            count += 1
            if len(named) < MOST_NAMED:
                named.append(str(status.item.id))

    async for page in pages:
        await some_at_a_time([one(status) for status in page])
    text = f"{count} item{'' if count == 1 else 's'} {word}"
    the_invocation().out.done(text, items=named, count=count, done=word, **more())


@queue.command("list")
@_with_filters
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, metavar="N", help="At most so many.")
@on_store()
async def list_items(store: Store, /, limit: int, **given: Any) -> None:
    """Items, by id. A due one is waited for by nobody but a worker, a waiting one has its next attempt later."""
    now = time.time()
    found = [facts_of(status, now) async for page in wanted_of(given).pages(store, limit) for status in page]
    out = the_invocation().out
    if not out.as_json:
        found = [facts | {"size": size_text(facts["size"])} for facts in found]
    out.rows(found, ("id", "use", "state", "sender", "recipient", "size", "queued", "attempts", "last_reply"))


_BY: Final[dict[str, Callable[[QueueStatus], str]]] = {
    "domain": lambda status: status.item.domain,
    "sender": lambda status: f"<{status.item.sender}>",
    "recipient": lambda status: address_of(status.item, envelope_of(status.item)),
    "state": lambda status: status.state.value,
    "use": lambda status: status.item.use,
    "stream": lambda status: found.stream if isinstance(found := envelope_of(status.item), Outbound) else "-",
    "reply": lambda status: status.item.last_reply[:60] or "-",
}


@queue.command("count")
@click.option("--by", type=click.Choice(list(_BY)), default="state", show_default=True, help="What is counted apart.")
@click.option("--top", type=click.IntRange(1), default=20, show_default=True, metavar="N", help="At most so many lines.")
@_with_filters
@on_store()
async def count_items(store: Store, /, by: str, top: int, **given: Any) -> None:
    """How many items there are, and how old the oldest is, by what they have in common; the most first."""
    counts: Counter[str] = Counter()
    oldest: dict[str, float] = {}
    async for page in wanted_of(given).pages(store):
        for status in page:
            name = _BY[by](status)
            counts[name] += 1
            oldest[name] = min(oldest.get(name, status.item.created), status.item.created)
    rows = [{by: name, "count": count, "oldest": time_text(oldest[name])} for name, count in counts.most_common(top)]
    the_invocation().out.rows(rows, (by, "count", "oldest"))


@queue.command("show")
@click.argument("id")
@on_store()
async def show(store: Store, id: str) -> None:
    """One item."""
    status = await find(store, identifier(id))
    item, envelope = status.item, envelope_of(status.item)
    facts = facts_of(status, time.time()) | {"next_attempt": time_text(status.due) if status.state is ItemState.WAITING else None}
    match envelope:
        case Inbound():
            facts |= await _inbound_facts(store, status, envelope)
        case Outbound():
            facts |= _outbound_facts(envelope)
    if envelope is not None:
        where = "the blob store" if envelope.place == "blobs" else "the queue"
        facts["body"] = f"{item.body.hash} in {where}" if item.body is not None else None
    the_invocation().out.one(facts)


async def _inbound_facts(store: Store, status: QueueStatus, inbound: Inbound) -> dict[str, Any]:
    record = await store.directory.account(inbound.copy(status.item.id).account)
    return {
        "user": record.address if record is not None else None,
        "account": inbound.account.hex(),
        "detail": inbound.detail or None,
        "received": time_text(inbound.received),
        "may_be_delivered_already": inbound.repeated or status.item.attempts > 1,
    }


def _outbound_facts(outbound: Outbound) -> dict[str, Any]:
    return {
        "login": outbound.login or None,
        "author": f"<{outbound.author}>" if outbound.author else None,
        "cause": outbound.cause or None,
        "notify": list(outbound.notify),
        "original_recipient": outbound.original or None,
        "envelope_id": outbound.envelope_id or None,
        "return": outbound.dsn_return or None,
        "priority": outbound.priority,
        "requiretls": outbound.requiretls,
        "smtputf8": outbound.smtputf8,
        "held_until": time_text(outbound.due) if outbound.due else None,
        "deliver_by": time_text(outbound.deliver_by) if outbound.deliver_by is not None else None,
        "sender_was_warned": outbound.warned,
        "replies": [f"{time_text(at)} {reply}" for at, reply in outbound.trail],
    }


@queue.command("trace")
@click.argument("message", metavar="MESSAGE-ID|ID")
@on_store()
async def trace(store: Store, message: str) -> None:
    """The whole way of a message that leaves, with every reply: by its Message-ID, or of one item that still waits."""
    _, steps = await way_of(store, message)
    out = the_invocation().out
    if out.as_json:
        out.rows([facts_of_step(step) for step in steps])
        return
    for step in steps:
        out.text(sentence(step))


@queue.command("retry")
@_with_items
@on_store()
async def retry(store: Store, /, ids: tuple[str, ...], every: bool, **given: Any) -> None:
    """Make waiting items due now. Held ones stay held (release them), those that a worker has stay with it."""
    await _each(_chosen(store, ids, every, given, state=ItemState.WAITING), _at_once(store), "due now")


def _at_once(store: Store) -> Act:
    async def now(status: QueueStatus) -> bool:
        if status.state is not ItemState.WAITING:
            return False
        backend = store.backend.queue
        return await backend.hold(status.item.id) and await backend.release(status.item.id)

    return now


@queue.command("flush")
@click.argument("domains", nargs=-1, required=True, metavar="DOMAIN...")
@on_store()
async def flush(store: Store, domains: tuple[str, ...]) -> None:
    """Try now all that waits for a destination: its servers are up again."""
    names = [check_domain(text) for text in domains]

    async def pages() -> AsyncIterator[list[QueueStatus]]:
        for name in names:
            for use in LEAVING:
                wanted = Wanted(QueueFilter(use=use, state=ItemState.WAITING, domain=name))
                async for page in wanted.pages(store):
                    yield page

    await _each(pages(), _at_once(store), "due now", lambda: {"domains": names})


@queue.command("hold")
@_with_items
@on_store()
async def hold(store: Store, /, ids: tuple[str, ...], every: bool, **given: Any) -> None:
    """Keep items from being delivered until they are released; a worker that has one lets it go."""
    await _each(_chosen(store, ids, every, given), lambda status: store.backend.queue.hold(status.item.id), "held")


@queue.command("release")
@_with_items
@on_store()
async def release(store: Store, /, ids: tuple[str, ...], every: bool, **given: Any) -> None:
    """Let held items go: they are tried now, dead letters too (once more, when they have expired)."""
    await _each(
        _chosen(store, ids, every, given, state=ItemState.HELD),
        lambda status: store.backend.queue.release(status.item.id),
        "released",
    )


@queue.command("bounce")
@_with_items
@click.option("--reason", default="", metavar="TEXT", help="What the sender is told; otherwise what was heard last.")
@asks("Give up mail that nobody has got?")
@on_store()
async def bounce(store: Store, /, ids: tuple[str, ...], every: bool, reason: str, **given: Any) -> None:
    """Give up mail that leaves, and tell its senders (those who are ever told: who has logged in)."""
    uses: Sequence[Use | None] = LEAVING if given["use"] is None else (given["use"],)
    giving_up = GivingUp(store, reason)

    def told() -> dict[str, Any]:
        return {"told": {told.value: count for told, count in giving_up.told.items()}}

    await _each(_chosen(store, ids, every, given, uses=uses), giving_up.give_up, "given up", told)
    for why, count in giving_up.told.items():
        the_invocation().out.note(f"senders of {count}: {why.value}")


@queue.command("delete")
@_with_items
@asks("Delete mail that nobody has got?")
@on_store()
async def delete(store: Store, /, ids: tuple[str, ...], every: bool, **given: Any) -> None:
    """Delete items with their mail. Nobody is told."""
    bodies = bodies_of(store)

    async def gone(status: QueueStatus) -> bool:
        body = body_of(status.item)
        if not await store.backend.queue.delete(status.item.id):
            return False
        if body is not None:
            await bodies.forget(body, status.item.id)
        return True

    await _each(_chosen(store, ids, every, given), gone, "deleted")
