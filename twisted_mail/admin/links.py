"""``mailctl account link``: a URL, good for a while, by which anybody fetches one attachment from the object store itself."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, cast

import click

from twisted_mail.account.errors import NoSuchMailbox
from twisted_mail.account.manifests import Run, runs_of
from twisted_mail.admin.invocation import Command, on_store, the_invocation
from twisted_mail.admin.opening import Store
from twisted_mail.admin.output import size_text
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.mime import Part, decode_layout
from twisted_mail.services import Account
from twisted_mail.storage.interfaces import Corrupt
from twisted_mail.values import BlobRef, MessageKey

__all__ = ["link", "numbered", "object_of"]

LONGEST_MINUTES: Final = 7 * 24 * 60
AS_IT_IS: Final = frozenset(("7bit", "8bit", "binary"))
"""Encodings that encode nothing."""

Download = Callable[[BlobRef, float, str], Coroutine[Any, Any, str | None]]


def numbered(root: Part, path: tuple[int, ...] = ()) -> Iterator[tuple[str, Part]]:
    """The leaves of a message with their numbers, as IMAP counts them (RFC 9051 section 6.4.5.1)."""
    if not root.parts:
        yield ".".join(map(str, (*path, 1))), root
        return
    for number, part in enumerate(root.parts, 1):
        here = (*path, number)
        if part.parts:
            yield from numbered(part, here)
            continue
        yield ".".join(map(str, here)), part
        if part.message is not None:
            yield from numbered(part.message, here)


def object_of(part: Part, runs: tuple[Run, ...]) -> tuple[BlobRef, int] | None:
    """The object whose octets are the content of *part*, and how far in the message it reaches; None if none is.

    What lies between there and the part's end (a blank line, as a rule) must not be content: ask for it.
    """
    at = 0
    for run in runs:
        if at == part.body and (ref := run.ref) is not None:
            whole = run.start == 0 and at + run.length <= part.end
            if run.place == "base64" and part.encoding == "base64" and whole and run.decoded == ref.size:
                return ref, at + run.length
            exact = whole and run.length == ref.size and at + run.length == part.end
            return (ref, part.end) if run.place == "blob" and part.encoding in AS_IT_IS and exact else None
        at += run.length
    return None


async def _row(account: Account, name: str, uid: int) -> tuple[MessageKey, Part, tuple[Run, ...]]:
    try:
        mailbox = account.state.mailbox(name)
    except NoSuchMailbox:
        raise Problem(Status.NOT_FOUND, "not-found", f"there is no mailbox {name}") from None
    columns = await account.columns(mailbox)
    slot = columns.slot_of(uid)
    if slot is None:
        raise Problem(Status.NOT_FOUND, "not-found", f"{mailbox.name} has no message with the UID {uid}")
    key = columns.key(slot)
    async for batch in account.rows([key], ("layout", "manifest")):
        for cells in batch:
            if cells is not None:
                try:
                    return key, decode_layout(cells[0]), runs_of(cells[1])
                except ValueError as error:
                    raise Corrupt(f"the message's row: {error}") from error
    raise Problem(Status.NOT_FOUND, "not-found", "the message's row is gone")


async def _chosen(account: Account, mailbox: str, uid: int, number: str) -> tuple[str, Part, BlobRef]:
    """Raises Problem."""
    key, root, runs = await _row(account, mailbox, uid)
    leaves = dict(numbered(root))
    if number and number not in leaves:
        raise Problem(Status.NOT_FOUND, "not-found", f"the message has no part {number}; it has {', '.join(leaves)}")
    found: dict[str, tuple[Part, BlobRef]] = {}
    for each, part in leaves.items():
        if number in ("", each) and (object := object_of(part, runs)) is not None:
            ref, reached = object
            rest = b"".join([chunk async for chunk in account.octets(key, reached, part.end)])
            if not rest.strip():
                found[each] = part, ref
    if not found:
        what = f"part {number}" if number else "no part of this message"
        lies = "does not lie" if number else "lies"
        text = f"{what} {lies} in an object of its own (small ones lie in the message's row): it has no link"
        raise Problem(Status.FAILED, "inline", text)
    if len(found) > 1:
        names = ", ".join(f"{each} ({part.filename or part.content_type})" for each, (part, _) in found.items())
        raise Problem(Status.USAGE, "usage", f"several parts have an object: name one of {names}", parts=list(found))
    ((each, (part, ref)),) = found.items()
    return each, part, ref


@click.command("link", cls=Command)
@click.argument("address", metavar="USER")
@click.argument("mailbox", metavar="MAILBOX")
@click.argument("uid", metavar="UID", type=click.IntRange(1))
@click.argument("part", metavar="[PART]", default="")
@click.option(
    "--minutes", type=click.IntRange(1, LONGEST_MINUTES), default=60, show_default=True, help="How long it is good for."
)
@on_store()
async def link(store: Store, address: str, mailbox: str, uid: int, part: str, minutes: int) -> None:
    """Print a URL by which anybody who has it can fetch an attachment from the object store, for a while.

    PART is its number as IMAP counts, e.g. 2 or 3.1; it may be left out where only one part has an object of its own.
    Only for attachments that are in an object store (s3:) and not encrypted there. The URL cannot be called back.
    """
    download = cast("Download | None", getattr(store.backend.blobs, "download_url", None))
    if download is None:
        raise Problem(Status.FAILED, "no-links", "links need an object store: storage.blobs names none")
    record = await store.user(address)
    async with store.account(record) as account:
        number, chosen, ref = await _chosen(account, mailbox, uid, part)
    name = chosen.filename or ""
    expires = time.time() + minutes * 60
    url = await download(ref, minutes * 60.0, name)
    if url is None:
        raise Problem(Status.FAILED, "encrypted", f"part {number} is encrypted in the object store: it has no link")
    out = the_invocation().out
    until = datetime.datetime.fromtimestamp(expires, datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    facts = {"url": url, "part": number, "name": name or None, "type": chosen.content_type, "size": ref.size}
    out.note(f"part {number}, {name or chosen.content_type}, {size_text(ref.size)}; good until {until}")
    out.done(url, **facts, expires=until)
