"""Items of the queue as an operator sees them, and which of them are meant: filters, page by page."""

from __future__ import annotations

import datetime
import fnmatch
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from twisted_mail.admin.opening import Store, check_domain
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.delivery import Bodies
from twisted_mail.delivery import items as inbound_items
from twisted_mail.delivery.bodies import Body
from twisted_mail.delivery.items import Inbound, inbound_of
from twisted_mail.relay import items as outbound_items
from twisted_mail.relay.items import Outbound, outbound_of
from twisted_mail.storage.interfaces import USES, Corrupt, ItemState, QueueFilter, QueueItem, QueueStatus
from twisted_mail.tap.kinds import Duration, Wrong
from twisted_mail.values import DeliveryId

__all__ = [
    "FILTERS",
    "Wanted",
    "address_of",
    "bodies_of",
    "body_of",
    "envelope_of",
    "facts_of",
    "find",
    "identifier",
    "time_text",
    "wanted_of",
]

PAGE: Final = 500


def time_text(seconds: float) -> str:
    """UTC, ISO 8601."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


# --- one item


def envelope_of(item: QueueItem) -> Inbound | Outbound | None:
    """What is written down of *item*; None if this program cannot read it."""
    try:
        return inbound_of(item) if item.use == "inbound" else outbound_of(item)
    except (Corrupt, inbound_items.NewerVersion, outbound_items.NewerVersion):
        return None


def address_of(item: QueueItem, envelope: Inbound | Outbound | None) -> str:
    """Its recipient; only the domain where nothing else can be read."""
    return envelope.address if envelope is not None else item.domain


def facts_of(status: QueueStatus, now: float) -> dict[str, Any]:
    """What a list shows."""
    item, envelope = status.item, envelope_of(status.item)
    facts: dict[str, Any] = {
        "id": str(item.id),
        "use": item.use,
        "state": status.state.value,
        "sender": f"<{item.sender}>",
        "recipient": address_of(item, envelope),
        "size": item.body.size if item.body is not None else 0,
        "queued": time_text(item.created),
        "age_seconds": max(int(now - item.created), 0),
        "attempts": item.attempts,
        "last_reply": item.last_reply or None,
    }
    if isinstance(envelope, Outbound):
        facts["stream"] = envelope.stream
        facts["message_id"] = envelope.message_id or None
    return facts


def body_of(item: QueueItem) -> Body | None:
    """Where its octets are, as far as that can be told."""
    envelope = envelope_of(item)
    return Body(envelope.place, item.body) if item.body is not None and envelope is not None else None


def bodies_of(store: Store) -> Bodies:
    """The bodies of items."""
    backend = store.backend
    return Bodies(backend.blobs, backend.references, store.reactor, overflow=backend.queue_bodies)


def identifier(text: str) -> DeliveryId:
    """Raises: Problem."""
    try:
        return DeliveryId.parse(text)
    except ValueError:
        raise Problem(Status.USAGE, "usage", f"{text!r} is not the id of an item: 32 hexadecimal digits are") from None


async def find(store: Store, id: DeliveryId) -> QueueStatus:
    """Raises: Problem."""
    number = int.from_bytes(id.octets, "big")
    before = DeliveryId((number - 1).to_bytes(16, "big")) if number else None
    found = await store.backend.queue.list(QueueFilter(), before, 1)
    if not found or found[0].item.id != id:
        raise Problem(Status.NOT_FOUND, "not-found", f"no item {id} waits in the queue")
    return found[0]


# --- many


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which items: what the engine can tell, and what is looked at here."""

    filter: QueueFilter
    sender: re.Pattern[str] | None = None
    recipient: re.Pattern[str] | None = None
    stream: str | None = None
    before: float | None = None
    """Queued before, seconds since 1970."""
    after: float | None = None
    reply: str | None = None
    """In the text of the last reply; lower case."""

    def takes(self, status: QueueStatus) -> bool:
        """Whether an item that the engine gave is meant."""
        item = status.item
        if self.before is not None and item.created > self.before:
            return False
        if self.after is not None and item.created < self.after:
            return False
        if self.reply is not None and self.reply not in item.last_reply.lower():
            return False
        if self.sender is not None and not self.sender.fullmatch(item.sender):
            return False
        if self.recipient is None and self.stream is None:
            return True
        envelope = envelope_of(item)
        if self.stream is not None and not (isinstance(envelope, Outbound) and envelope.stream == self.stream):
            return False
        return self.recipient is None or self.recipient.fullmatch(address_of(item, envelope)) is not None

    def narrowed(self, **filter: Any) -> Wanted:
        """The same with other parts of the engine's filter (Any: as `QueueFilter` has them)."""
        old = {name: getattr(self.filter, name) for name in QueueFilter.__slots__}
        return Wanted(
            QueueFilter(**{**old, **filter}),
            self.sender,
            self.recipient,
            self.stream,
            self.before,
            self.after,
            self.reply,
        )

    async def pages(self, store: Store, limit: int | None = None) -> AsyncIterator[list[QueueStatus]]:
        """The items by id, a page at a time: a queue of a million is never held whole."""
        after, left = None, limit
        while left is None or left > 0:
            page = await store.backend.queue.list(self.filter, after, PAGE)
            found = [status for status in page if self.takes(status)][:left]
            if found:
                yield found
            if len(page) < PAGE:
                return
            after = page[-1].item.id
            left = None if left is None else left - len(found)


FILTERS: Final = (
    click.option("--use", type=click.Choice(USES), help="Only mail that came, or that leaves, or that leaves in bulk."),
    click.option("--state", type=click.Choice([state.value for state in ItemState]), help="Only items in this state."),
    click.option("--domain", metavar="DOMAIN", help="Only items for recipients in this domain."),
    click.option("--sender", metavar="ADDRESS", help="Only items from this sender; <> is the null one; * and ? stand for any."),
    click.option("--recipient", metavar="ADDRESS", help="Only items for this recipient; * and ? stand for any."),
    click.option("--stream", metavar="NAME", help="Only outbound items of this stream."),
    click.option("--older", metavar="TIME", help='Only items queued longer ago, e.g. "2d".'),
    click.option("--newer", metavar="TIME", help="Only items queued since then."),
    click.option("--reply", metavar="TEXT", help="Only items whose last reply has this text."),
)
"""Options that choose; `wanted_of` reads them."""


def wanted_of(given: Mapping[str, Any], wall: Callable[[], float] = time.time) -> Wanted:
    """What the options say (Any: what click read). Raises: Problem."""
    now = wall()
    sender = given["sender"].strip("<>") if given["sender"] is not None else None
    pattern = sender is not None and _has_pattern(sender)
    state = given["state"]
    return Wanted(
        QueueFilter(
            use=given["use"],
            state=ItemState(state) if state is not None else None,
            domain=check_domain(given["domain"]) if given["domain"] is not None else None,
            sender=None if pattern else sender,
        ),
        sender=_pattern(sender) if pattern and sender is not None else None,
        recipient=_pattern(given["recipient"].strip("<>")) if given["recipient"] is not None else None,
        stream=given["stream"],
        before=now - _seconds(given["older"]) if given["older"] is not None else None,
        after=now - _seconds(given["newer"]) if given["newer"] is not None else None,
        reply=given["reply"].lower() if given["reply"] is not None else None,
    )


def _has_pattern(text: str) -> bool:
    return "*" in text or "?" in text


def _pattern(text: str) -> re.Pattern[str]:
    # only * and ? mean something: a bracket stands for itself
    return re.compile(fnmatch.translate(text.replace("[", "[[]")), re.IGNORECASE | re.DOTALL)


def _seconds(text: str) -> float:
    try:
        return Duration().read(text, Path())
    except Wrong as error:
        raise Problem(Status.USAGE, "usage", str(error)) from error
