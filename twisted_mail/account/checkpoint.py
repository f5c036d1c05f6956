"""Checkpoints: the state as chunks, of which only those that changed since the last one are written.

Chunks: ``head``; per mailbox ``box/<id>/<segment>`` (the live messages of 8192 consecutive UIDs), ``box/<id>/flags``
(the names of its flags, in order), ``box/<id>/vanished``; ``delivered/<day>/<modseq>``: the ids of deliveries
between two checkpoints, kept for `DELIVERED_DAYS`, longer than any queue keeps mail; and ``graves/<modseq>/<part>``: the
keys of messages that left a mailbox between two checkpoints, kept until their rows are swept.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Collection, Mapping
from typing import Final, TypeVar

import msgspec
import zstandard
from pyroaring import BitMap

from twisted_mail.account.columns import SEGMENT_UIDS, Columns
from twisted_mail.account.state import AccountState, Mailbox
from twisted_mail.storage.interfaces import Corrupt
from twisted_mail.values import MailboxId, MessageId, MessageKey, ModSeq

__all__ = [
    "DELIVERED_DAYS",
    "HEAD",
    "ChunkError",
    "changed_chunks",
    "column_chunks",
    "decode_columns",
    "decode_delivered",
    "decode_graves",
    "decode_head",
    "delivered_chunks",
    "grave_chunks",
    "segment_ids",
    "stale_mailboxes",
    "to_be_loaded",
    "thinned",
]

T = TypeVar("T")

HEAD: Final = "head"
DELIVERED_DAYS: Final = 10
GRAVES: Final = 16_384
"""Messages in one chunk of graves."""
_VERSION: Final = 1
_ARRAYS: Final = ("uids", "modseqs", "sizes", "received", "zones", "saved", "sent", "buckets")
_SWAP: Final = sys.byteorder == "big"


class ChunkError(Corrupt, ValueError):
    """The octets are not a chunk that this version understands."""


class _Box(msgspec.Struct, frozen=True, array_like=True):
    id: bytes
    name: str
    uid_validity: int
    special_use: tuple[str, ...]
    created: int
    highest_modseq: int
    uid_next: int
    messages: int
    unseen: int
    deleted: int
    size: int


class _Head(msgspec.Struct, frozen=True, array_like=True):
    modseq: int
    boxes: tuple[_Box, ...]
    subscriptions: tuple[str, ...]
    settings: dict[str, str]
    messages: int
    size: int
    uid_validity: int
    bucket: int
    bucket_bytes: int
    history: tuple[tuple[int, int], ...]


class _Segment(msgspec.Struct, frozen=True, array_like=True):
    arrays: tuple[bytes, ...]
    ids: bytes
    flags: dict[str, bytes]


class _Vanished(msgspec.Struct, frozen=True, array_like=True):
    uids: bytes
    modseqs: bytes
    received: bytes
    floor: int


_encoder = msgspec.msgpack.Encoder()


def _pack(value: object) -> bytes:
    return bytes((_VERSION,)) + zstandard.ZstdCompressor(level=3).compress(_encoder.encode(value))


def _unpack(data: bytes, kind: type[T]) -> T:
    if not data or data[0] != _VERSION:
        raise ChunkError(f"checkpoint chunk of unknown version {data[0] if data else 'none'}")
    try:
        return msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(data[1:]), type=kind)
    except (msgspec.MsgspecError, zstandard.ZstdError) as error:
        raise ChunkError(f"malformed checkpoint chunk: {error}") from error


def _to_octets(column: array[int]) -> bytes:
    if _SWAP:
        column = column[:]
        column.byteswap()
    return column.tobytes()


def _from_octets(typecode: str, data: bytes) -> array[int]:
    column: array[int] = array(typecode)
    column.frombytes(data)
    if _SWAP:
        column.byteswap()
    return column


# --- writing ------------------------------------------------------------------------------------------------------


def stale_mailboxes(state: AccountState, base: int) -> list[Mailbox]:
    """The mailboxes whose columns changed after the checkpoint *base*: they must be loaded to write the next one."""
    return [m for m in state.mailboxes.values() if m.highest_modseq > base]


def to_be_loaded(state: AccountState, base: int) -> list[Mailbox]:
    """The mailboxes whose columns are wanted to write the checkpoint after *base*, and are not there."""
    dropped = [mailbox for modseq, mailbox in state.dropped if modseq > base]
    return [mailbox for mailbox in (*stale_mailboxes(state, base), *dropped) if mailbox.columns is None]


def changed_chunks(
    state: AccountState,
    base: int,
    manifest: Mapping[str, ModSeq],
    history: tuple[tuple[int, int], ...],
    today: int,
    swept: Collection[str] = (),
) -> tuple[dict[str, bytes], dict[str, ModSeq]]:
    """What the next checkpoint writes anew, and what it keeps of *manifest*, the one of *base* (0: none).

    *history* holds (modseq, milliseconds) of recent checkpoints, for trimming by age; *swept* names chunks of graves
    that are done with.
    """
    changed = {HEAD: _encode_head(state, history)}
    gone: set[str] = {HEAD}
    for mailbox in stale_mailboxes(state, base):
        columns = mailbox.columns
        if columns is None:
            raise RuntimeError("columns were not loaded before the checkpoint")
        prefix = f"box/{mailbox.id}/"
        changed[prefix + "flags"] = _pack(tuple(columns.flags))
        if columns.vanished_changed > base:
            changed[prefix + "vanished"] = _pack(
                _Vanished(
                    _to_octets(columns.vanished_uids),
                    _to_octets(columns.vanished_modseqs),
                    _to_octets(columns.vanished_received),
                    columns.vanished_floor,
                )
            )
        for segment, modseq in columns.segments.items():
            if modseq > base:
                slots = BitMap(columns.slots_between(segment * SEGMENT_UIDS, segment * SEGMENT_UIDS + SEGMENT_UIDS - 1))
                slots &= columns.live
                if slots:
                    changed[prefix + str(segment)] = _encode_segment(columns, slots)
                else:
                    gone.add(prefix + str(segment))
    fresh: dict[int, list[bytes]] = {}
    for delivery, (modseq, day) in state.delivered.items():
        if modseq > base:
            fresh.setdefault(day, []).append(delivery)
    for day, deliveries in fresh.items():
        changed[f"delivered/{day}/{state.modseq}"] = _pack(b"".join(deliveries))
    changed |= _graves(state, base)
    boxes = {str(id) for id in state.mailboxes}
    kept: dict[str, ModSeq] = {}
    for name, written in manifest.items():
        if name in changed or name in gone or name in swept:
            continue
        kind, _, rest = name.partition("/")
        owner, _, _ = rest.partition("/")
        if kind == "box" and owner not in boxes:
            continue
        if kind == "delivered" and int(owner) < today - DELIVERED_DAYS:
            continue
        kept[name] = written
    return changed, kept


def _graves(state: AccountState, base: int) -> dict[str, bytes]:
    """What left a mailbox after *base*: expunged, or with its mailbox."""
    left = [mailbox.columns.left_since(base) for mailbox in stale_mailboxes(state, base) if mailbox.columns is not None]
    for modseq, mailbox in state.dropped:
        if modseq > base:
            if mailbox.columns is None:
                raise RuntimeError("columns were not loaded before the checkpoint")
            left += [mailbox.columns.left_since(base), mailbox.columns.packed_keys(mailbox.columns.live)]
    keys = b"".join(left)
    parts = range(0, len(keys), GRAVES * 20)
    return {f"graves/{state.modseq}/{at // (GRAVES * 20)}": _pack(keys[at : at + GRAVES * 20]) for at in parts}


def thinned(history: tuple[tuple[int, int], ...], horizon: int) -> tuple[tuple[int, int], ...]:
    """Of (modseq, milliseconds): one an hour within the retention window, and the newest that lies before *horizon*."""
    before = [item for item in history if item[1] <= horizon][-1:]
    within: list[tuple[int, int]] = []
    for item in history:
        if item[1] > horizon:
            if len(within) > 1 and item[1] - within[-2][1] < 3_600_000:
                within[-1] = item
            else:
                within.append(item)
    return (*before, *within)


def _encode_head(state: AccountState, history: tuple[tuple[int, int], ...]) -> bytes:
    boxes = tuple(
        _Box(
            m.id.octets,
            m.name,
            m.uid_validity,
            m.special_use,
            m.created,
            m.highest_modseq,
            m.uid_next,
            m.messages,
            m.unseen,
            m.deleted,
            m.size,
        )
        for m in state.mailboxes.values()
    )
    return _pack(
        _Head(
            int(state.modseq),
            boxes,
            tuple(sorted(state.subscriptions)),
            state.settings,
            state.messages,
            state.size,
            state.uid_validity,
            state.bucket,
            state.bucket_bytes,
            history,
        )
    )


def _encode_segment(columns: Columns, slots: BitMap) -> bytes:
    first, last = slots[0], slots[len(slots) - 1]
    if len(slots) == last - first + 1:
        arrays = tuple(_to_octets(getattr(columns, name)[first : last + 1]) for name in _ARRAYS)
        ids = bytes(columns.ids[first * 16 : last * 16 + 16])
    else:
        picked = list(slots)
        arrays = tuple(
            _to_octets(array(column.typecode, [column[slot] for slot in picked]))
            for column in (getattr(columns, name) for name in _ARRAYS)
        )
        ids = b"".join(columns.message_id(slot) for slot in picked)
    flags: dict[str, bytes] = {}
    for name, flagged in columns.flags.items():
        places = BitMap([slots.rank(slot) - 1 for slot in flagged & slots])
        if places:
            places.run_optimize()
            flags[name] = places.serialize()
    return _pack(_Segment(arrays, ids, flags))


# --- reading ------------------------------------------------------------------------------------------------------


def decode_head(data: bytes) -> tuple[AccountState, tuple[tuple[int, int], ...]]:
    """The state without columns, and the history of checkpoints. Raises ChunkError."""
    head = _unpack(data, _Head)
    state = AccountState()
    state.modseq = ModSeq(head.modseq)
    for box in head.boxes:
        id = MailboxId(box.id)
        mailbox = Mailbox(id, box.name, box.uid_validity, box.special_use, box.created, None)
        mailbox.highest_modseq = box.highest_modseq
        mailbox.uid_next = box.uid_next
        mailbox.messages = box.messages
        mailbox.unseen = box.unseen
        mailbox.deleted = box.deleted
        mailbox.size = box.size
        state.mailboxes[id] = state.by_name[box.name] = mailbox
    state.subscriptions = set(head.subscriptions)
    state.settings = dict(head.settings)
    state.messages = head.messages
    state.size = head.size
    state.uid_validity = head.uid_validity
    state.bucket = head.bucket
    state.bucket_bytes = head.bucket_bytes
    return state, head.history


def column_chunks(manifest: Mapping[str, ModSeq], mailbox: MailboxId) -> list[str]:
    """The names of the chunks that hold a mailbox's columns."""
    prefix = f"box/{mailbox}/"
    return [name for name in manifest if name.startswith(prefix)]


def decode_columns(mailbox: MailboxId, chunks: Mapping[str, bytes], modseq: int) -> Columns:
    """The columns as of the checkpoint *modseq*, from the chunks that `column_chunks` named. Raises ChunkError."""
    columns = Columns()
    columns.journal_floor = modseq
    prefix = f"box/{mailbox}/"
    if prefix + "flags" in chunks:
        for name in _unpack(chunks[prefix + "flags"], tuple[str, ...]):
            columns.flags[name] = BitMap()
    if prefix + "vanished" in chunks:
        vanished = _unpack(chunks[prefix + "vanished"], _Vanished)
        columns.vanished_uids = _from_octets("I", vanished.uids)
        columns.vanished_modseqs = _from_octets("Q", vanished.modseqs)
        columns.vanished_received = _from_octets("q", vanished.received)
        columns.vanished_floor = vanished.floor
    numbered = sorted(
        int(name[len(prefix) :]) for name in chunks if name.startswith(prefix) and name[len(prefix) :].isdigit()
    )
    for number in numbered:
        segment = _unpack(chunks[prefix + str(number)], _Segment)
        start = len(columns.uids)
        for name, data in zip(_ARRAYS, segment.arrays, strict=True):
            column: array[int] = getattr(columns, name)
            column.extend(_from_octets(column.typecode, data))
        columns.ids += segment.ids
        for flag, places in segment.flags.items():
            bitmap = BitMap.deserialize(places)
            columns.flags[flag] = columns.flags.get(flag, BitMap()) | (bitmap.shift(start) if start else bitmap)
        columns.segments[number] = modseq
    columns.live = BitMap(range(len(columns.uids)))
    return columns


def delivered_chunks(manifest: Mapping[str, ModSeq]) -> list[str]:
    """The names of the chunks that hold ids of deliveries."""
    return [name for name in manifest if name.startswith("delivered/")]


def decode_delivered(data: bytes) -> set[bytes]:
    """The ids in one such chunk. Raises ChunkError."""
    ids = _unpack(data, bytes)
    return {ids[at : at + 16] for at in range(0, len(ids), 16)}


def grave_chunks(manifest: Mapping[str, ModSeq]) -> dict[str, int]:
    """The names of the chunks that hold keys of messages that left, with the checkpoint up to which they had left."""
    return {name: int(name.split("/")[1]) for name in manifest if name.startswith("graves/")}


def decode_graves(data: bytes) -> list[MessageKey]:
    """The keys in one such chunk. Raises ChunkError."""
    keys = _unpack(data, bytes)
    return [
        MessageKey(int.from_bytes(keys[at : at + 4], "big"), MessageId(keys[at + 4 : at + 20]))
        for at in range(0, len(keys), 20)
    ]


def segment_ids(data: bytes) -> bytes:
    """The MessageIds, 16 octets each, in one segment of a mailbox's columns. Raises ChunkError."""
    return _unpack(data, _Segment).ids
