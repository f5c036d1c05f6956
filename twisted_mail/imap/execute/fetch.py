"""FETCH and UID FETCH (RFC 9051 section 6.4.5, RFC 3516, 7162, 8474, 8514, 8970).

Three kinds of items, each as cheap as it can be: from the columns (`fetch_columns`), rendered in the message's row
(`fetch_cells`), and octets of the message (`fetch_octets`). A FETCH reads only what its dearest item needs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pyroaring import BitMap

from twisted_mail.account.entries import pack_uids
from twisted_mail.account.errors import AccountUnavailable, Refused
from twisted_mail.account.intents import ChangeFlags
from twisted_mail.imap import codes, replies
from twisted_mail.imap.commands.fetch import Fetch
from twisted_mail.imap.ended import Ended
from twisted_mail.imap.execute.fetch_cells import Render, cell_item
from twisted_mail.imap.execute.fetch_columns import COLUMN_ITEMS, column_lines
from twisted_mail.imap.execute.fetch_octets import Piece, is_octets, needs_layout, octet_item, sets_seen
from twisted_mail.imap.fetch_items import Attribute, Body, FetchItem, Section, item_name
from twisted_mail.imap.replies import Condition, bad, no, ok
from twisted_mail.imap.selected import Selected, batches
from twisted_mail.imap.sequence import SavedResult
from twisted_mail.imap.sink import FLUSH_BYTES
from twisted_mail.mime import Limits, Part, UnknownEncoding, decode_layout
from twisted_mail.services import Reading

if TYPE_CHECKING:
    from twisted_mail.imap.session import Session

__all__ = ["CAPABILITIES", "EXECUTE"]

CAPABILITIES = ("SAVEDATE", "PREVIEW")
BATCH: Final = 2048
"""Messages answered from the columns at a time."""

LONG_HEADER: Final = Limits().header_bytes
"""A header cell of this size may have been cut: what is asked of that header comes from the octets."""

Cells = tuple[bytes, ...]


@dataclass(slots=True)
class Plan:
    """What is read for each message, and what is made of it."""

    attributes: frozenset[Attribute]
    cells: list[tuple[int, Render]] = field(default_factory=list)
    """(place in `columns`, how)."""
    headers: list[tuple[int, FetchItem]] = field(default_factory=list)
    """(place in `cells`, item) of what is made from the whole header."""
    octets: list[FetchItem] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    """Of the message's row."""
    layout: int | None = None
    """Place of the layout in `columns`."""

    @classmethod
    def of(cls, items: Sequence[FetchItem], *, utf8: bool) -> Plan:
        """Sort *items* into their kinds."""
        plan = cls(frozenset(item for item in items if isinstance(item, Attribute) and item in COLUMN_ITEMS))
        for item in items:
            if item in plan.attributes:
                continue
            cell = cell_item(item, utf8=utf8)
            if cell is not None:
                if cell[0] == "header":
                    plan.headers.append((len(plan.cells), item))
                plan.cells.append((plan._place(cell[0]), cell[1]))
            elif is_octets(item):
                plan.octets.append(item)
                if needs_layout(item):
                    plan.layout = plan._place("layout")
        return plan

    def _place(self, column: str) -> int:
        if column not in self.columns:
            self.columns.append(column)
        return self.columns.index(column)


@dataclass(slots=True)
class Trouble:
    """What could not be answered."""

    missing: int = 0
    unavailable: int = 0
    unknown_encoding: int = 0

    def condition(self, name: str) -> Condition:
        if self.unavailable:
            return no("Some messages cannot be read now, try again later", codes.UNAVAILABLE)
        if self.unknown_encoding:
            return no("The encoding of a part is not known", codes.UNKNOWN_CTE)
        if self.missing:
            return no("Some messages no longer exist", codes.EXPUNGEISSUED)
        return ok(f"{name} completed")


async def fetch(session: Session, tag: bytes, command: Fetch) -> Condition:
    """RFC 9051 section 6.4.5; CHANGEDSINCE and VANISHED RFC 7162 sections 3.1.4.1 and 3.2.6."""
    view, enabled = session.selected, session.enabled
    slots = view.resolve(command.numbers, uid=command.uid)
    if command.vanished and not enabled.qresync:
        return bad("QRESYNC is not enabled")
    items = list(command.items)
    if command.uid and Attribute.UID not in items:
        items.insert(0, Attribute.UID)
    if command.changed_since is not None:
        if Attribute.MODSEQ not in items:
            items.append(Attribute.MODSEQ)
        slots &= view.columns.changed_since(command.changed_since)
    if Attribute.MODSEQ in items:
        session.enable_condstore()
    if command.vanished and command.changed_since is not None and not isinstance(command.numbers, SavedResult):
        last = view.mailbox.uid_next - 1
        vanished = view.vanished(command.changed_since, command.numbers.within(last))
        if vanished:
            session.write(replies.vanished(vanished, earlier=True))
    plan = Plan.of(items, utf8=enabled.utf8_names)
    newly = await _set_seen(session, view, slots) if any(map(sets_seen, items)) else BitMap()
    if Attribute.FLAGS in plan.attributes or newly:
        view.tell_flag_names(session.write)
    trouble = Trouble()
    if not plan.columns and not plan.octets:
        await _from_columns(session, view, slots, plan)
    else:
        await _from_rows(session, view, slots, newly, plan, trouble)
    return trouble.condition("UID FETCH" if command.uid else "FETCH")


async def _set_seen(session: Session, view: Selected, slots: BitMap) -> BitMap:
    r"""Set ``\Seen`` on those of *slots* that lack it, in one change; returns them. Reading goes on if that fails."""
    columns = view.columns
    unseen = (slots & columns.live) - columns.with_flag("\\Seen")
    if view.readonly or not unseen:
        return BitMap()
    try:
        changed = await session.account.commit(
            ChangeFlags(mailbox=view.mailbox.id, uids=pack_uids(columns.uids_of(unseen)), mode="add", flags=("\\Seen",))
        )
    except (AccountUnavailable, Refused):
        return BitMap()
    newly = columns.slots_of(changed.changed, view.present)
    if changed.modseq:
        view.own_change(changed.modseq, newly)
    return newly


async def _from_columns(session: Session, view: Selected, slots: BitMap, plan: Plan) -> None:
    for batch in batches(slots, BATCH):
        session.write("".join(column_lines(view, batch, plan.attributes, ")\r\n")).encode("ascii"))
        await session.sink.drained()


def _heads(session: Session, view: Selected, batch: BitMap, newly: BitMap, plan: Plan) -> list[str]:
    r"""The beginning of each response; where ``\Seen`` has just been set, the flags are part of it."""
    changed = batch & newly
    if not changed:
        return column_lines(view, batch, plan.attributes, "")
    more = {Attribute.FLAGS, Attribute.MODSEQ} if session.enabled.condstore else {Attribute.FLAGS}
    with_flags = iter(column_lines(view, changed, plan.attributes | more, ""))
    others = batch - changed
    without = iter(column_lines(view, others, plan.attributes, "") if others else ())
    return [next(with_flags) if slot in changed else next(without) for slot in batch]


async def _rows(session: Session, view: Selected, batch: BitMap, columns: Sequence[str]) -> AsyncIterator[Cells | None]:
    if not columns:
        for _ in batch:
            yield ()
        return
    key = view.columns.key
    async for rows in session.account.rows([key(slot) for slot in batch], columns):
        for row in rows:
            yield row


async def _from_rows(
    session: Session, view: Selected, slots: BitMap, newly: BitMap, plan: Plan, trouble: Trouble
) -> None:
    pending: list[bytes] = []
    size = 0
    for batch in batches(slots, BATCH):
        heads = _heads(session, view, batch, newly, plan)
        at = iter(zip(batch, heads, strict=True))
        source = session.account.reading([view.columns.key(slot) for slot in batch] if plan.octets else ())
        async for row in _rows(session, view, batch, plan.columns):
            slot, head = next(at)
            if row is None:
                trouble.missing += 1
                continue
            parts = [render(row[place]) for place, render in plan.cells]
            if plan.headers and len(row[plan.cells[plan.headers[0][0]][0]]) >= LONG_HEADER:
                await _long_headers(session, view, slot, parts, plan)
            if plan.octets:
                await _send(session, view, source, slot, head.encode("ascii"), parts, row, plan, trouble)
                continue
            line = b"%b%b%b)\r\n" % (head.encode("ascii"), b" " if head[-1] != "(" else b"", b" ".join(parts))
            pending.append(line)
            size += len(line)
            if size >= FLUSH_BYTES:
                session.write(b"".join(pending))
                pending.clear()
                size = 0
                await session.sink.drained()
    session.write(b"".join(pending))


async def _long_headers(session: Session, view: Selected, slot: int, parts: list[bytes], plan: Plan) -> None:
    """Make anew those of *parts* that are of a header which was too long to be kept whole in its cell."""
    account, key, size = session.account, view.columns.key(slot), view.columns.sizes[slot]
    async for rows in account.rows([key], ("layout",)):
        for row in rows:
            if row is None:
                return
            root = decode_layout(row[0])
            for place, item in plan.headers:
                section = Body(Section(what="HEADER")) if item is Attribute.RFC822_HEADER else item
                piece = await octet_item(account, key, size, root, section)
                octets = b"".join([chunk async for chunk in piece.chunks]) if piece.chunks is not None else b""
                parts[place] = item_name(item) + piece.text.removeprefix(item_name(section)) + octets


async def _send(
    session: Session,
    view: Selected,
    source: Reading,
    slot: int,
    head: bytes,
    parts: list[bytes],
    row: Cells,
    plan: Plan,
    trouble: Trouble,
) -> None:
    """One response with octets of the message. What fails before the first of them was announced costs this response;
    after that, the connection."""
    key, size = view.columns.key(slot), view.columns.sizes[slot]
    try:
        root: Part | None = None if plan.layout is None else decode_layout(row[plan.layout])
        pieces = [
            await octet_item(source, key, size, root if needs_layout(item) else None, item) for item in plan.octets
        ]
        before = head + (b" " if head[-1:] != b"(" else b"") + b" ".join([*parts, b""])
        first = await _first(pieces[0])
    except UnknownEncoding:
        trouble.unknown_encoding += 1
        return
    except Exception as error:
        if session.lost:
            raise
        if getattr(error, "temporary", False):
            trouble.unavailable += 1
        else:
            trouble.missing += 1
            session.log(error)
        return
    session.write(before)
    for number, piece in enumerate(pieces):
        session.write(piece.text if number == 0 else b" " + piece.text)
        await _stream(session, piece, first if number == 0 else b"")
    session.write(b")\r\n")
    await session.sink.drained()


async def _first(piece: Piece) -> bytes:
    if piece.chunks is not None:
        async for chunk in piece.chunks:
            return chunk
    return b""


async def _stream(session: Session, piece: Piece, first: bytes) -> None:
    """The octets of a literal that was announced: if they cannot be sent to the end, only the end of the connection can
    say so."""
    if piece.chunks is None:
        return
    sent = len(first)
    session.write(first)
    try:
        async for chunk in piece.chunks:
            sent += len(chunk)
            if sent > piece.size:
                break
            session.write(chunk)
            await session.sink.drained()
    except Exception as error:
        if session.lost:
            raise
        session.log(error)
        raise Ended(None) from error
    if sent != piece.size:
        session.log(ValueError(f"a message has {sent} octets where {piece.size} were announced"))
        raise Ended(None)


EXECUTE = {Fetch: fetch}
