"""How the columns of a message lie in the cells of its row: some together, as they are asked for.

A cell costs each replica about the same whether it has thirty octets in it or a thousand, so twelve columns are four cells,
and what says the same twice (a header as it came and folded for searches, a text likewise) is compressed together. A cell of
several columns begins with how many there are and how long each is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from struct import Struct, error
from typing import Any, Final

from twisted_mail.storage.cells import pack, unpack
from twisted_mail.storage.interfaces import COLUMNS, Corrupt

__all__ = ["CELLS", "LARGE", "Reader", "cells_of", "reader"]

TOGETHER_BYTES: Final = 16 * 1024
"""Longer texts have cells of their own: who wants one should not have to read the other."""

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    # what lists of messages and ENVELOPE are made of
    "brief": ("envelope", "structure", "body", "preview", "facts"),
    "heads": ("header", "search_header", "layout", "manifest"),
    "texts": ("inline", "search_text"),
}
"""Cells of several columns. Columns may be added at an end: what a cell lacks is empty."""
ALONE: Final = ("common_header", "inline", "search_text")
"""Cells of one column; for texts where they are too long to lie together."""
CELLS: Final = (*ALONE, *GROUPS)
assert {*ALONE, *(column for columns in GROUPS.values() for column in columns)} == set(COLUMNS)

LARGE: Final = frozenset({"inline", "search_text", *GROUPS["heads"]})
"""Columns of cells that may be large."""
_GROUP_OF: Final = {column: group for group, columns in GROUPS.items() for column in columns}
_LENGTHS: Final = [Struct(f">{count}I") for count in range(256)]


def cells_of(columns: Mapping[str, bytes]) -> dict[str, bytes]:
    """The cells of a row that has *columns*, packed; without those that are empty."""
    get = columns.get
    cells = {"common_header": pack(get("common_header", b""))}
    for group, names in GROUPS.items():
        values = [get(name, b"") for name in names]
        if group == "texts" and sum(map(len, values)) > TOGETHER_BYTES:
            cells |= zip(names, map(pack, values), strict=True)
        elif any(values):
            lengths = _LENGTHS[len(values)].pack(*map(len, values))
            cells[group] = pack(b"".join((bytes((len(values),)), lengths, *values)))
    return {name: cell for name, cell in cells.items() if cell}


def _split(cell: bytes) -> list[bytes]:
    """The columns of the cell of a group. Raises: Corrupt."""
    try:
        lengths = _LENGTHS[cell[0]]
        start = 1 + lengths.size
        values = []
        for length in lengths.unpack_from(cell, 1):
            values.append(cell[start : start + length])
            start += length
    except (error, IndexError):
        start = -1
    if start != len(cell):
        raise Corrupt("the cell of a message row is not as long as it says")
    return values


class Reader:
    """How *columns* are got from a row's cells."""

    def __init__(self, columns: Sequence[str]) -> None:
        groups = dict.fromkeys(_GROUP_OF[column] for column in columns if column in _GROUP_OF)
        self._groups = [
            (
                group,
                [(at, GROUPS[group].index(name)) for at, name in enumerate(columns) if _GROUP_OF.get(name) == group],
            )
            for group in groups
        ]
        self._alone = [(at, name) for at, name in enumerate(columns) if name in ALONE]
        self._count = len(columns)
        self.cells: Sequence[str] = [*dict.fromkeys(name for _, name in self._alone), *groups]
        """Those that must be asked for."""

    def __call__(self, row: Mapping[str, Any]) -> tuple[bytes, ...]:
        """The columns of *row*, whose cells are whole. Raises: Corrupt."""
        if not self._groups and self._count == 1:
            return (unpack(row[self._alone[0][1]]),)
        values = [b""] * self._count
        for at, name in self._alone:
            if cell := row[name]:
                values[at] = unpack(cell)
        for name, places in self._groups:
            if cell := row[name]:
                found = _split(unpack(cell))
                for at, place in places:
                    if place < len(found):
                        values[at] = found[place]
        return tuple(values)


reader: Callable[[tuple[str, ...]], Reader] = lru_cache(256)(Reader)
"""The same for the same columns."""
