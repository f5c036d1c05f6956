"""The read and unread lists: lines for showing a mailbox, derived from the account, in buckets of bounded size.

The lists know the modseq they have reached. Whoever finds them behind brings them up to date from what changed after
that number (the columns know) and what vanished after it; writing the same again changes nothing, and an older writer
loses to a newer one. What is written is today's state under today's number, never an old entry, and a run that has
taken too long begins anew: so no write comes so late that the deletes above it could have been forgotten.

A store that keeps tombstones must not be read through many of them. So a bucket never takes more than `RENEW_AT` deletions:
beyond, its period is written anew under new numbers, from the columns, without a single delete, and the old partition
is dropped whole. That is also how a period is split: into buckets of at most `PERIOD_ROWS` lines, and where it is the
newest one into a large part that seldom changes and a small one that is cheap to renew. `buckets` says how two nodes that
do this at once, or one that dies in the middle, leave nothing wrong behind.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from pyroaring import BitMap

from twisted_mail.account.buckets import (
    Buckets,
    Period,
    Place,
    ReserveBuckets,
    SwitchBuckets,
    TidyBuckets,
    buckets_of,
)
from twisted_mail.account.columns import Columns
from twisted_mail.account.messages import decode_facts
from twisted_mail.account.state import Mailbox
from twisted_mail.services import Account
from twisted_mail.storage.interfaces import ListDelete, ListName, ListPut, ListRow, Lists, Unavailable
from twisted_mail.values import AccountId, MailboxId, ModSeq

__all__ = ["MessageLists", "read_page"]

RENEW_AT: Final = 1000
"""Lines of one bucket that may have been deleted; counted on the safe side: every message of the period that changed,
came or vanished since the bucket was made."""
RENEW_ENTRIES: Final = 50_000
"""Entries of the account after which a bucket that is written to is renewed in any case: lines of deleted mailboxes stay
in it until then, and are not counted."""
PERIOD_ROWS: Final = 50_000
SPLIT_NEWEST: Final = 10_000
"""When the newest period has more lines than this as it is renewed, only `KEPT_NEWEST` stay in its bucket."""
KEPT_NEWEST: Final = 2000
MERGE_ROWS: Final = 2000
"""A period with fewer lines than this is renewed together with the one before it, if both fit into one."""
GARBAGE_SECONDS: Final = 3600
"""So long a replaced bucket stays for nodes that have not heard of it; clocks of nodes may be minutes apart."""
MAKING_SECONDS: Final = 4 * 3600
"""So long a bucket may be in the making until it counts as left behind."""
RUN_SECONDS: Final = 3600.0
"""A run that has taken so long begins anew; far below half of any gc_grace."""
ATTEMPTS: Final = 8
COUNTED: Final = 10_000
"""Buckets whose deletions are remembered, so that the columns need not be gone through each time."""
_BATCH: Final = 500
_NAMES: Final[tuple[ListName, ListName]] = ("read", "unread")


@dataclass(frozen=True, slots=True)
class _Line:
    """A message that is to be in a list."""

    place: Place
    mailbox: Mailbox
    columns: Columns
    slot: int
    fresh: bool = False
    """Nothing has changed it since it came, so it was never in the other list."""


@dataclass(slots=True)
class _Work:
    """What happened in one period since its bucket was written to."""

    lines: list[_Line] = field(default_factory=list)
    vanished: list[tuple[MailboxId, Place]] = field(default_factory=list)
    count: int = 0

    def add(self, event: _Line | tuple[MailboxId, Place]) -> None:
        """Of more than `RENEW_AT` only the number is kept: then the period will be written anew."""
        self.count += 1
        if self.count > RENEW_AT:
            return
        if isinstance(event, _Line):
            self.lines.append(event)
        else:
            self.vanished.append(event)


async def read_page(
    lists: Lists,
    account: AccountId,
    buckets: Buckets,
    name: ListName,
    mailbox: MailboxId,
    before: Place | None,
    limit: int,
) -> Sequence[ListRow]:
    """At most *limit* lines below *before*, newest first, from as many buckets as it takes."""
    rows: list[ListRow] = []
    for period in reversed(buckets.periods):
        if len(rows) >= limit:
            break
        if before is None or period.start < before:
            rows += await lists.page(account, name, period.bucket, mailbox, before, limit - len(rows))
    return rows


class MessageLists:
    """Pages of accounts' read and unread lists."""

    def __init__(
        self,
        lists: Lists,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lists = lists
        self._wall = wall
        self._monotonic = monotonic
        self._counts: OrderedDict[tuple[AccountId, int], tuple[int, int]] = OrderedDict()
        """(account, bucket) -> up to which modseq deletions were counted, and how many there are at most."""

    async def page(
        self, account: Account, name: ListName, mailbox: MailboxId, before: Place | None, limit: int
    ) -> Sequence[ListRow]:
        """At most *limit* lines of *mailbox*, newest first, below *before* (received in milliseconds, UID)."""
        buckets, current = await self._current(account)
        found = account.state.mailboxes.get(mailbox)
        if current and found is not None and before is None:
            # a mailbox with few messages need not be looked for in every period
            limit = min(limit, found.unseen if name == "unread" else found.messages - found.unseen)
        return await read_page(self._lists, account.id, buckets, name, mailbox, before, limit)

    async def bring_up_to_date(self, account: Account) -> Buckets:
        """The live buckets, with everything in them that the account's state has. Raises: Unavailable."""
        return (await self._current(account))[0]

    async def _current(self, account: Account) -> tuple[Buckets, bool]:
        """The same, and whether they have exactly what the state has at this moment."""
        await self._tidy(account)
        for _ in range(ATTEMPTS):
            begun, buckets, target = self._monotonic(), buckets_of(account.state), account.state.modseq
            reached = await self._lists.reached(account.id, buckets.marker)
            if reached >= target or await self._follow(account, buckets, reached, target, begun):
                return buckets, reached <= target == account.state.modseq
        raise Unavailable("the lists of the account change faster than they can be followed")

    async def rebuild(self, account: Account) -> Buckets:
        """Write all lines anew into new buckets, and make these the live ones. Raises: Unavailable."""
        await self._tidy(account)
        for _ in range(ATTEMPTS):
            buckets = buckets_of(account.state)
            if await self._renew(account, buckets, range(len(buckets.periods)), 0, self._monotonic()):
                return buckets_of(account.state)
        raise Unavailable("the account changes faster than its lists can be written")

    # --- following

    async def _follow(self, account: Account, buckets: Buckets, reached: int, target: ModSeq, begun: float) -> bool:
        """Write what happened after *reached*. False: that did not do, look again."""
        work = await self._differences(account, buckets, reached)
        if work is None:
            await self._renew(account, buckets, range(len(buckets.periods)), reached, begun)
            return False
        worn = [
            index
            for index in sorted(work)
            if target - buckets.periods[index].made > RENEW_ENTRIES
            or await self._deletions(account, buckets, index, work[index], reached, target) > RENEW_AT
        ]
        if worn:
            await self._renew(account, buckets, worn, reached, begun)
            return False
        for index, some in work.items():
            bucket = buckets.periods[index].bucket
            for start in range(0, len(some.vanished), _BATCH):
                deletes = [
                    ListDelete(name, bucket, mailbox, *place)
                    for mailbox, place in some.vanished[start : start + _BATCH]
                    for name in _NAMES
                ]
                await self._lists.apply(account.id, deletes, target)
            if not await self._write(account, bucket, some.lines, target, begun, deletes=True):
                return False
        await self._lists.mark_reached(account.id, buckets.marker, target)
        return True

    async def _differences(self, account: Account, buckets: Buckets, reached: int) -> dict[int, _Work] | None:
        """By period, what its bucket lacks; None if it has been forgotten what vanished."""
        work: dict[int, _Work] = {}
        for mailbox in list(account.state.mailboxes.values()):
            if mailbox.highest_modseq <= reached:
                continue
            columns = await account.columns(mailbox)
            vanished = _vanished(columns, reached)
            if vanished is None:
                return None
            for place, modseq in vanished:
                index = buckets.at(place)
                if modseq > buckets.periods[index].made:
                    work.setdefault(index, _Work()).add((mailbox.id, place))
            fresh = _fresh(columns, reached)
            for slot in columns.changed_since(reached):
                place = _place(columns, slot)
                index = buckets.at(place)
                if columns.modseqs[slot] > buckets.periods[index].made:
                    work.setdefault(index, _Work()).add(_Line(place, mailbox, columns, slot, slot in fresh))
        return work

    async def _deletions(
        self, account: Account, buckets: Buckets, index: int, work: _Work, reached: int, target: int
    ) -> int:
        """How many lines of the period's bucket are deleted at most, once *work* is done.

        Counted on from what this node has counted before; where that is not known, or comes to too many (one message
        that changes again and again is counted each time), by the columns.
        """
        period = buckets.periods[index]
        key = (account.id, period.bucket)
        upto, count = self._counts.get(key, (-1, 0))
        if work.count > RENEW_AT:
            return work.count
        if upto == reached and count + work.count <= RENEW_AT:
            count += work.count
        else:
            count = await self._count(account, period, buckets.end(index))
        self._counts[key] = (target, count)
        self._counts.move_to_end(key)
        if len(self._counts) > COUNTED:
            self._counts.popitem(last=False)
        return count

    async def _count(self, account: Account, period: Period, end: Place | None) -> int:
        """How many messages of *period* have changed, come or vanished since its bucket was made."""
        count = 0
        for mailbox in list(account.state.mailboxes.values()):
            if mailbox.highest_modseq <= period.made:
                continue
            columns = await account.columns(mailbox)
            vanished = _vanished(columns, period.made)
            if vanished is None:
                return RENEW_AT + 1
            count += sum(_within(place, period.start, end) for place, _ in vanished)
            changed = columns.changed_since(period.made)
            count += sum(_within(_place(columns, slot), period.start, end) for slot in changed)
            if count > RENEW_AT:
                break
        return count

    # --- writing anew

    async def _renew(
        self, account: Account, buckets: Buckets, chosen: Collection[int], reached: int, begun: float
    ) -> bool:
        """Write the periods *chosen* anew, and make the new buckets live. False: nothing has changed."""
        target = account.state.modseq
        held: list[tuple[Mailbox, Columns]] = []
        try:
            for mailbox in list(account.state.mailboxes.values()):
                columns = await account.columns(mailbox)
                columns.views += 1  # slots keep their numbers
                held.append((mailbox, columns))
            planned = _planned(buckets, chosen, held)
            wanted = [piece for piece in planned if isinstance(piece, _Piece)]
            numbers = await account.commit(ReserveBuckets(count=len(wanted), now=int(self._wall())))
            periods: list[Period] = []
            left = iter(numbers)
            for piece in planned:
                if isinstance(piece, Period):
                    periods.append(piece)
                    continue
                number = next(left)
                lines = _lines(held, piece.start, piece.end)
                if not await self._write(account, number, lines, target, begun, deletes=False):
                    break
                periods.append(Period(piece.start, number, int(target)))
            else:
                marker = numbers[0]
                await self._lists.mark_reached(
                    account.id, marker, ModSeq(min(max(reached, period.made) for period in periods))
                )
                switch = SwitchBuckets(
                    seen=buckets.marker,
                    periods=tuple((*period.start, period.bucket, period.made) for period in periods),
                    marker=marker,
                    now=int(self._wall()),
                )
                if await account.commit(switch):
                    return True
            await account.commit(TidyBuckets(retired=numbers, dropped=(), now=int(self._wall())))
            return False
        finally:
            for _, columns in held:
                columns.views -= 1

    async def _tidy(self, account: Account) -> None:
        """Drop buckets that nobody can want any more."""
        now, buckets = int(self._wall()), buckets_of(account.state)
        retired = tuple(number for number, since in buckets.making if since + MAKING_SECONDS < now)
        dropped = tuple(number for number, since in buckets.garbage if since + GARBAGE_SECONDS < now)
        if retired or dropped:
            for number in dropped:
                await self._lists.drop(account.id, number)
            await account.commit(TidyBuckets(retired=retired, dropped=dropped, now=now))

    # --- writing

    async def _write(
        self, account: Account, bucket: int, lines: Sequence[_Line], target: ModSeq, begun: float, *, deletes: bool
    ) -> bool:
        """Put *lines* where they belong, and take them out of where they do not, if they may be there.

        False: it has taken too long, or columns were compacted meanwhile, so that not everything was written.
        """
        generations = {id(line.columns): line.columns.generation for line in lines}
        for start in range(0, len(lines), _BATCH):
            part = lines[start : start + _BATCH]
            if self._monotonic() - begun > RUN_SECONDS:
                return False
            if any(line.columns.generation != generations[id(line.columns)] for line in part):
                return False
            # all of it before the first wait: then the columns may go on
            said = [
                (line.columns.key(line.slot), line.columns.flags_of(line.slot), line.columns.sizes[line.slot])
                for line in part
            ]
            cells: list[tuple[bytes, ...] | None] = []
            async for rows in account.rows([key for key, _, _ in said], ("facts", "preview")):
                cells += rows
            changes: list[ListPut | ListDelete] = []
            for line, (key, flags, size), row in zip(part, said, cells, strict=True):
                facts, preview = decode_facts(row[0] if row else b""), row[1].decode() if row else ""
                seen, (received, uid) = "\\Seen" in flags, line.place
                shown = ListRow(
                    line.mailbox.id, received, uid, key, facts.sender, facts.subject, preview, tuple(flags), size
                )
                changes.append(ListPut("read" if seen else "unread", bucket, shown))
                if deletes and not line.fresh:
                    changes.append(ListDelete("unread" if seen else "read", bucket, line.mailbox.id, received, uid))
            await self._lists.apply(account.id, changes, target)
        return True


# --- periods and places


@dataclass(frozen=True, slots=True)
class _Piece:
    """A period that is to have a new bucket."""

    start: Place
    end: Place | None


def _planned(
    buckets: Buckets, chosen: Collection[int], held: Sequence[tuple[Mailbox, Columns]]
) -> list[Period | _Piece]:
    """All periods, ascending; those *chosen* as pieces of a size that a bucket should have."""
    planned: list[Period | _Piece] = []
    done = 0
    for first, last in _runs(chosen):
        planned += buckets.periods[done:first]
        start, end = buckets.periods[first].start, buckets.end(last)
        keys = _keys(held, start, end)
        # a few lines go together with the period before, or periods that were emptied would stay for ever
        while len(keys) < MERGE_ROWS and planned and isinstance(planned[-1], Period):
            before = _keys(held, planned[-1].start, start)
            if len(before) + len(keys) > SPLIT_NEWEST:
                break
            start, keys = planned.pop().start, before + keys
        cuts = _cuts(keys, newest=end is None)
        bounds = [start, *cuts, end]
        planned += [_Piece(low, high) for low, high in zip(bounds, bounds[1:]) if low is not None]
        done = last + 1
    return planned + list(buckets.periods[done:])


def _runs(chosen: Iterable[int]) -> list[tuple[int, int]]:
    """Neighbours together: (first, last), ascending."""
    runs: list[tuple[int, int]] = []
    for index in sorted(chosen):
        if runs and runs[-1][1] == index - 1:
            runs[-1] = (runs[-1][0], index)
        else:
            runs.append((index, index))
    return runs


def _cuts(keys: Sequence[int], *, newest: bool) -> list[Place]:
    """Where to cut between *keys* (ascending, of `_keys`): no part has more than `PERIOD_ROWS`."""
    cuts: list[int] = []
    large = len(keys)
    if newest and large > SPLIT_NEWEST:
        large -= KEPT_NEWEST
    parts = -(-large // PERIOD_ROWS)
    cuts += [large * part // parts for part in range(1, parts)]
    if large < len(keys):
        cuts.append(large)
    # several mailboxes may have a message of one UID and time: they are not parted
    places = dict.fromkeys(_place_of(keys[cut]) for cut in cuts)
    return [place for place in places if place > _place_of(keys[0])]


def _place(columns: Columns, slot: int) -> Place:
    return columns.received[slot] * 1000, columns.uids[slot]


def _place_of(key: int) -> Place:
    return key >> 32, key & 0xFFFF_FFFF


def _within(place: Place, start: Place, end: Place | None) -> bool:
    return start <= place and (end is None or place < end)


def _slots(columns: Columns, start: Place, end: Place | None) -> list[int]:
    """The live slots whose places are within; by whole seconds first, which is quick."""
    received = columns.received
    low, high = start[0] // 1000, 2**63 if end is None else end[0] // 1000
    return [
        slot for slot in columns.live if low <= received[slot] <= high and _within(_place(columns, slot), start, end)
    ]


def _keys(held: Sequence[tuple[Mailbox, Columns]], start: Place, end: Place | None) -> list[int]:
    """The places of all messages within, ascending, each as one number: there may be a million."""
    return sorted(
        columns.received[slot] * 1000 << 32 | columns.uids[slot]
        for _, columns in held
        for slot in _slots(columns, start, end)
    )


def _lines(held: Sequence[tuple[Mailbox, Columns]], start: Place, end: Place | None) -> list[_Line]:
    return [
        _Line(_place(columns, slot), mailbox, columns, slot)
        for mailbox, columns in held
        for slot in _slots(columns, start, end)
    ]


def _fresh(columns: Columns, modseq: int) -> BitMap:
    """The slots that came after *modseq* and have not changed since; fewer where the journal does not reach back."""
    added, changed = BitMap(), BitMap()
    for moved in columns.moves_since(modseq) or ():
        if moved.kind == "added":
            added |= moved.slots
        else:
            changed |= moved.slots
    return added - changed


def _vanished(columns: Columns, modseq: int) -> list[tuple[Place, int]] | None:
    """(place, when) of what vanished after *modseq*; None if that has been forgotten."""
    if columns.vanished_since(modseq) is None:
        return None
    return [
        ((received * 1000, uid), when)
        for uid, when, received in zip(
            columns.vanished_uids, columns.vanished_modseqs, columns.vanished_received, strict=True
        )
        if when > modseq
    ]
