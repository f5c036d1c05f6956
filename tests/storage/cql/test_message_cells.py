"""How the columns of a message lie in the cells of its row."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_mail.storage.cql.message_cells import CELLS, cells_of, reader
from twisted_mail.storage.interfaces import COLUMNS, Corrupt

columns_of_a_message = st.dictionaries(st.sampled_from(COLUMNS), st.binary(max_size=40))


def read(cells: dict[str, bytes], columns: tuple[str, ...]) -> tuple[bytes, ...]:
    reading = reader(columns)
    return reading({name: cells.get(name) for name in reading.cells})


@given(columns=columns_of_a_message, wanted=st.lists(st.sampled_from(COLUMNS), max_size=5))
def test_what_was_put_in_comes_out(columns: dict[str, bytes], wanted: list[str]) -> None:
    cells = cells_of(columns)
    assert set(cells) <= set(CELLS)
    assert read(cells, tuple(wanted)) == tuple(columns.get(name, b"") for name in wanted)


def test_of_what_is_empty_there_is_no_cell() -> None:
    assert cells_of({}) == {}
    assert cells_of({"preview": b"", "inline": b"", "common_header": b""}) == {}


def test_a_message_of_four_kilobytes_is_four_cells_of_less_than_its_length() -> None:
    chance = random.Random(1)
    text = b" ".join(chance.choice((b"holiday", b"Budget", b"report", b"meeting")) for _ in range(500))
    header = b"Subject: %b\r\n\r\n" % text[:300]
    columns = dict.fromkeys(COLUMNS, b"x" * 50) | {
        "inline": text, "search_text": text.lower(), "header": header, "search_header": header.lower()
    }  # fmt: skip
    cells = cells_of(columns)
    assert sorted(cells) == ["brief", "common_header", "heads", "texts"]
    assert sum(map(len, cells.values())) < len(text)
    assert read(cells, COLUMNS) == tuple(columns[name] for name in COLUMNS)


def test_long_texts_lie_apart_so_that_one_is_read_without_the_other() -> None:
    columns = {"inline": b"i" * 20_000, "search_text": b"s" * 10}
    cells = cells_of(columns)
    assert sorted(cells) == ["inline", "search_text"]
    assert read(cells, ("inline",)) == (columns["inline"],)
    assert read({"search_text": cells["search_text"]}, ("search_text", "inline")) == (columns["search_text"], b"")


def test_only_the_cells_of_the_columns_are_asked_for() -> None:
    assert list(reader(("common_header",)).cells) == ["common_header"]
    assert list(reader(("envelope", "preview")).cells) == ["brief"]
    assert sorted(reader(("header", "inline", "manifest")).cells) == ["heads", "inline", "texts"]
    assert list(reader(()).cells) == []


def test_a_column_that_an_older_cell_lacks_is_empty() -> None:
    older = b"\x00" + bytes((1,)) + (3).to_bytes(4, "big") + b"env"
    assert read({"brief": older}, ("envelope", "facts")) == (b"env", b"")


@pytest.mark.parametrize(
    "cell", [b"\x00", b"\x00\x05", b"\x00\x01\x00\x00\x00\x02a", b"\x00\x01\x00\x00\x00\x00a", b"\x07"]
)
def test_a_damaged_cell_is_said_to_be_damaged(cell: bytes) -> None:
    with pytest.raises(Corrupt):
        read({"brief": cell}, ("envelope",))
