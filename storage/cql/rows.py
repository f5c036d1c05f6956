"""How entries lie in rows of `account_log`: those of one append together, as far as a row may be long.

A row costs the cluster, at each replica and in each round of the agreement, about the same whether it has one entry in it or
sixty; and what is appended together is read, trimmed and settled together. A row goes by the number of its last entry: what
is above a number is in rows above it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Any, Final
from uuid import UUID

from twisted_mail.storage.cql.statements import Row, Statement, statement
from twisted_mail.storage.interfaces import LogEntry, NewEntry
from twisted_mail.values import EntryId, ModSeq

__all__ = ["in_rows", "of_row"]

ROW_BYTES: Final = 16 * 1024
"""Octets of entries in one row, if it is not one entry's: a page of rows stays below a few megabytes."""
_PART: Final = Struct(">16sI")
"""The id of an entry and how long it is; its octets follow."""

_ENTRY = statement("INSERT INTO account_log (user_id, modseq, entry_id, entry) VALUES (?, ?, ?, ?)", idempotent=True)
_ENTRIES = statement(
    "INSERT INTO account_log (user_id, modseq, first, entry_id, entry) VALUES (?, ?, ?, ?, ?)", idempotent=True
)


def in_rows(user: UUID, expected: int, entries: Sequence[NewEntry]) -> list[tuple[Statement, Sequence[Any]]]:
    """The statements that write *entries* as ``expected + 1``, …"""
    written: list[tuple[Statement, Sequence[Any]]] = []
    start = octets = 0
    for at, entry in enumerate(entries):
        size = _PART.size + len(entry.data)
        if at > start and octets + size > ROW_BYTES:
            written.append(_row(user, expected + start + 1, entries[start:at]))
            start, octets = at, 0
        octets += size
    if entries:
        written.append(_row(user, expected + start + 1, entries[start:]))
    return written


def _row(user: UUID, first: int, entries: Sequence[NewEntry]) -> tuple[Statement, Sequence[Any]]:
    id = UUID(bytes=entries[0].id.octets)
    if len(entries) == 1:
        return _ENTRY, (user, first, id, entries[0].data)
    packed = b"".join([_PART.pack(entry.id.octets, len(entry.data)) + entry.data for entry in entries])
    return _ENTRIES, (user, first + len(entries) - 1, first, id, packed)


def of_row(row: Row) -> Iterator[LogEntry]:
    """The entries of a row, ascending; none in the head row, or where the id has not come yet."""
    id, first, data = row["entry_id"], row["first"], row["entry"] or b""
    if id is None:
        return
    if first is None:
        yield LogEntry(ModSeq(row["modseq"]), EntryId(id.bytes), data)
        return
    at = 0
    for number in range(first, row["modseq"] + 1):
        octets, length = _PART.unpack_from(data, at)
        at += _PART.size + length
        yield LogEntry(ModSeq(number), EntryId(octets), data[at - length : at])
