"""Rows of messages that have left: swept when the log does not reach back to them any more, and nothing else names them.

Checkpoints note the keys of what left mailboxes (chunks ``graves/<modseq>/<part>``), so that sweeping costs in proportion
to what was deleted. A chunk is ripe once the log is trimmed up to its checkpoint: the mailbox can no more be seen as it
was before. Of its messages those stay that are still in some mailbox (COPY shares the row) or left another one later,
and so have a younger grave. The rest was in no mailbox at any time that can still be seen, so no entry will ever name it
again: its rows can go while the account is being changed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Final

from twisted_mail.account.checkpoint import column_chunks, decode_graves, grave_chunks, segment_ids
from twisted_mail.account.columns import Columns
from twisted_mail.account.entries import MessagesAdded
from twisted_mail.account.state import AccountState, Mailbox
from twisted_mail.storage.interfaces import AccountLog
from twisted_mail.values import AccountId, MessageKey, ModSeq

__all__ = ["BATCH", "Moved", "dead_of", "named_by", "ripe_chunks"]

CHUNKS: Final = 8
"""Chunks of graves that are worked off together: some 130,000 messages."""
BATCH: Final = 500
"""Rows that are removed at once."""
_STEP: Final = 50_000
"""Messages that are looked at without letting others at the processor."""

Pause = Callable[[], Awaitable[object]]


class Moved(Exception):
    """Another checkpoint was made meanwhile: begin anew."""


def ripe_chunks(manifest: Mapping[str, ModSeq], trimmed: int, swept: Iterable[str] = ()) -> list[str]:
    """The chunks of graves up to the checkpoint *trimmed*, oldest first, but those that were *swept*; some at a time."""
    ripe = grave_chunks(manifest)
    done = set(swept)
    return sorted((n for n in ripe if ripe[n] <= trimmed and n not in done), key=lambda n: (ripe[n], n))[:CHUNKS]


async def dead_of(
    chunks: Iterable[str],
    *,
    log: AccountLog,
    account: AccountId,
    state: AccountState,
    base: ModSeq,
    manifest: Mapping[str, ModSeq],
    pause: Pause,
) -> list[MessageKey]:
    """Of the messages in *chunks* those whose rows nothing needs. By the holder of the account's lock.

    *manifest* is the checkpoint's of *base*, and *state* has been brought on from there. Raises Moved, StorageError.
    """
    mine = set(chunks)
    candidates: dict[bytes, MessageKey] = {}
    for name in mine:
        candidates |= {key.id.octets: key for key in decode_graves(await _chunk(log, account, base, name))}
    for name in grave_chunks(manifest):
        if name not in mine:
            for key in decode_graves(await _chunk(log, account, base, name)):
                candidates.pop(key.id.octets, None)
    async for ids in named_by(log, account, state, base, manifest, pause):
        for id in ids:
            candidates.pop(id, None)
        if not candidates:
            break
    return sorted(candidates.values())


async def _chunk(log: AccountLog, account: AccountId, base: ModSeq, name: str) -> bytes:
    checkpoint = await log.load_checkpoint(account, (name,))
    if checkpoint is None or checkpoint.modseq != base or name not in checkpoint.chunks:
        raise Moved
    return checkpoint.chunks[name]


async def named_by(
    log: AccountLog, account: AccountId, state: AccountState, base: ModSeq, manifest: Mapping[str, ModSeq], pause: Pause
) -> AsyncIterator[Iterable[bytes]]:
    """The MessageIds in mailboxes, and of what has left them since *base* (perhaps some more); in batches.

    Columns that are not loaded are read segment by segment, and not kept. Raises Moved, StorageError.
    """
    dropped = [mailbox for modseq, mailbox in state.dropped if modseq > base]
    for mailbox in chain(list(state.mailboxes.values()), dropped):
        if mailbox.columns is not None:
            async for ids in _loaded(mailbox.columns, pause):
                yield ids
            continue
        yield list(_added(mailbox))
        for name in column_chunks(manifest, mailbox.id):
            if name.rpartition("/")[2].isdigit():
                packed = segment_ids(await _chunk(log, account, base, name))
                yield [packed[at : at + 16] for at in range(0, len(packed), 16)]


async def _loaded(columns: Columns, pause: Pause) -> AsyncIterator[Iterable[bytes]]:
    left = bytes(columns.left)
    yield [left[at + 4 : at + 20] for at in range(0, len(left), 20)]
    ids, slots = columns.ids, list(columns.live)
    for start in range(0, len(slots), _STEP):
        if start:
            await pause()
        yield [bytes(ids[slot * 16 : slot * 16 + 16]) for slot in slots[start : start + _STEP]]


def _added(mailbox: Mailbox) -> Iterator[bytes]:
    """What came since the columns were written that are not loaded; perhaps it has left again."""
    for _, _, _, change in mailbox.backlog:
        if isinstance(change, MessagesAdded):
            for message in change.messages:
                yield message.message
