"""``mailctl trace``: the life of a message, or what an address had to do with, told as it happened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from twisted_mail.admin.invocation import Command, on_store, the_invocation
from twisted_mail.admin.opening import Store
from twisted_mail.admin.output import plain
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.admin.queue_items import time_text
from twisted_mail.admin.queue_trace import facts_of_step, sentence
from twisted_mail.delivery.stories import Chapter, Mention, Stories
from twisted_mail.relay.journal import Journal, Step

__all__ = ["trace"]

Told = tuple[float, Chapter | Step]


def _facts(chapter: Chapter) -> dict[str, Any]:
    return {
        "at": time_text(chapter.at),
        "what": chapter.what,
        "id": chapter.id or None,
        "message_id": chapter.message_id or None,
        "client": chapter.client or None,
        "helo": chapter.helo or None,
        "sender": f"<{chapter.sender}>",
        "recipients": list(chapter.recipients),
        "result": chapter.result or None,
        "score": chapter.score,
        "lines": list(chapter.lines),
        "node": chapter.node or None,
    }


def _paragraph(chapter: Chapter) -> list[str]:
    """One chapter for people: who, what, and below it what each filter or script said."""
    to = ", ".join(chapter.recipients[:5]) + (", …" if len(chapter.recipients) > 5 else "")
    text = f"{time_text(chapter.at)}  {chapter.what}"
    if chapter.client:
        text += f" from [{chapter.client}]" + (f" ({chapter.helo})" if chapter.helo else "")
    text += f": <{chapter.sender}> to {to or 'nobody yet'}"
    if chapter.result:
        text += f"; {chapter.result}"
    if chapter.score:
        text += f" ({chapter.score:.1f} points)"
    return [text, *(f"    {line}" for line in chapter.lines)]


async def _story(stories: Stories, journal: Journal, message_id: str) -> list[Told]:
    told: list[Told] = [(chapter.at, chapter) for chapter in await stories.story(message_id)]
    told += [(step.at, step) for step in await journal.steps(message_id)]
    return sorted(told, key=lambda each: each[0])


async def _of_address(stories: Stories, journal: Journal, address: str, most: int) -> list[Told]:
    mentions: Sequence[Mention] = await stories.mentions(address)
    told: list[Told] = []
    read: set[str] = set()
    for mention in mentions[-most:]:
        if mention.chapter is not None:
            told.append((mention.at, mention.chapter))
        elif mention.message_id not in read:
            read.add(mention.message_id)
            told += await _story(stories, journal, mention.message_id)
    return sorted(told, key=lambda each: each[0])


@click.command("trace", cls=Command)
@click.argument("what", metavar="MESSAGE-ID|ADDRESS")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Of an address: its last messages.")
@on_store()
async def trace(store: Store, what: str, limit: int) -> None:
    """What became of a message: received, what each filter said, delivered where, sent on, bounced.

    By its Message-ID, or by an address: of whoever it was for, of a user who has sent it, or of a stranger who was refused,
    perhaps before a message came. Kept for two weeks.
    """
    stories, journal, out = Stories(store.backend.records), Journal(store.backend.records), the_invocation().out
    name = what.strip().strip("<>")
    told = await _story(stories, journal, name)
    if not told and "@" in name:
        told = await _of_address(stories, journal, name, limit)
    if not told:
        raise Problem(Status.NOT_FOUND, "not-found", f"nothing is known of {name!r} (what happened is kept for two weeks)")
    if out.as_json:
        out.one({
            "of": name,
            "story": [_facts(each) if isinstance(each, Chapter) else facts_of_step(each) for _, each in told],
        })  # fmt: skip
        return
    last = ""
    for _, each in told:
        if isinstance(each, Chapter):
            if each.message_id and each.message_id not in (last, name):
                out.text(f"<{each.message_id}>")
                last = each.message_id
            for line in _paragraph(each):
                out.text(plain(line))
        else:
            out.text(plain(sentence(each)))
