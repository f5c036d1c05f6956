"""``mailctl queue trace``: the way of a message, told from the journal."""

from __future__ import annotations

from typing import Any

from twisted_mail.admin.opening import Store
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.admin.queue_items import envelope_of, find, time_text
from twisted_mail.relay.items import Outbound
from twisted_mail.relay.journal import Journal, Step
from twisted_mail.values import DeliveryId

__all__ = ["facts_of_step", "sentence", "way_of"]


async def way_of(store: Store, text: str) -> tuple[str, list[Step]]:
    """(Message-ID, steps, oldest first) of what *text* names: a Message-ID, or the id of an item that still waits.

    Raises: Problem.
    """
    journal = Journal(store.backend.records)
    try:
        id = DeliveryId.parse(text)
    except ValueError:
        name = text.strip().strip("<>")
        found = list(await journal.steps(name))
    else:
        outbound = envelope_of((await find(store, id)).item)
        if not isinstance(outbound, Outbound) or not outbound.message_id:
            raise Problem(Status.NOT_FOUND, "not-found", f"item {id} has no Message-ID by which its way is kept")
        name = outbound.message_id
        found = [step for step in await journal.steps(name) if step.id == str(id)]
    if not found:
        raise Problem(
            Status.NOT_FOUND, "not-found", f"nothing is known of {name!r} (the way of a message is kept for two weeks)"
        )
    return name, found


def facts_of_step(step: Step) -> dict[str, Any]:
    """For JSON: all of it."""
    return {
        "at": time_text(step.at),
        "what": step.what,
        "id": step.id,
        "recipient": step.address,
        "sender": f"<{step.sender}>",
        "stream": step.stream or None,
        "login": step.login or None,
        "client": step.client or None,
        "attempt": step.attempt or None,
        "stage": step.stage or None,
        "reply": step.reply or None,
        "host": step.host or None,
        "source": step.source or None,
        "tls": step.tls or None,
        "told": step.told or None,
        "node": step.node or None,
        "next_attempt": time_text(step.next) if step.next else None,
    }


def sentence(step: Step) -> str:
    """One line of the story."""
    text = f"{time_text(step.at)}  {step.address}: {step.what}"
    if step.what == "queued":
        text += f" from <{step.sender}>" + (f", stream {step.stream}" if step.stream else "")
        text += (f", submitted by {step.login}" if step.login else "") + (f", came from {step.client}" if step.client else "")
    if step.attempt:
        text += f" (attempt {step.attempt})"
    if step.host:
        text += f" by {step.host}" + (f" from {step.source}" if step.source else "")
        text += f" over {step.tls}" if step.tls else " in the clear"
    if step.reply:
        text += f": {step.reply}"
    if step.next:
        text += f"; next attempt {time_text(step.next)}"
    if step.told:
        text += f" (its sender: {step.told})"
    return text
