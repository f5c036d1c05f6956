"""As much of CQL as the engine speaks, in memory: cells with timestamps, tombstones, conditions, and nothing else.

A statement that is not of this kind is an error, so whatever runs here is of the subset that both servers share. The
answers of lightweight transactions have either server's form: Cassandra gives one row, with the old values only where it
was not applied; ScyllaDB gives the old row of each conditional statement, whether applied or not, with nulls where there
was none.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cassandra.query import UNSET_VALUE

__all__ = ["MiniCQL", "Table"]

Key = tuple[Any, ...]
Values = dict[str, Any]


@dataclass
class Table:
    """A table's shape and what is in it: partition to rows to cells, each cell with its timestamp."""

    name: str
    columns: list[str]
    partition: list[str]
    clustering: list[str]
    descending: list[bool]
    rows: dict[Key, dict[Key, dict[str, tuple[int, Any]]]] = field(default_factory=dict)
    graves: dict[Key, list[tuple[Callable[[Key], bool], int]]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Table:
        text = " ".join(text.split())
        head = re.match(
            r"CREATE TABLE IF NOT EXISTS (\w+) \((.*)PRIMARY KEY \(\(([\w, ]+)\)(?:, ([\w, ]+))?\)\s*\)", text
        )
        assert head is not None, text
        columns = [part.split()[0] for part in head[2].rstrip(", ").split(",") if part.strip()]
        clustering = head[4].split(", ") if head[4] else []
        order = re.search(r"CLUSTERING ORDER BY \(([^)]*)\)", text)
        downward = {part.split()[0] for part in (order[1].split(", ") if order else []) if part.endswith("DESC")}
        return cls(head[1], columns, head[3].split(", "), clustering, [name in downward for name in clustering])

    def live(self, partition: Key, row: Key) -> dict[str, tuple[int, Any]] | None:
        """The cells that no grave covers; None where there is no row."""
        cells = self.rows.get(partition, {}).get(row)
        if cells is None:
            return None
        buried = max((at for covers, at in self.graves.get(partition, ()) if covers(row)), default=-1)
        left = {name: cell for name, cell in cells.items() if cell[0] > buried and cell[1] is not None}
        return left or None

    def write(self, partition: Key, row: Key, values: Values, at: int) -> None:
        cells = self.rows.setdefault(partition, {}).setdefault(row, {})
        for name, value in values.items():
            old = cells.get(name)
            # at one time a deletion wins, and of two values the greater
            if (
                old is None
                or old[0] < at
                or (old[0] == at and old[1] is not None and (value is None or value > old[1]))
            ):
                cells[name] = (at, value)

    def order(self, row: Key) -> Key:
        return tuple(_Down(value) if down else value for value, down in zip(row, self.descending, strict=True))

    def found(self, test: Callable[[Key, Key], bool]) -> list[tuple[Key, Key, dict[str, tuple[int, Any]]]]:
        """Partition, row and cells of those that are there, in the order of a read."""
        hits = []
        for partition, rows in self.rows.items():
            for row in sorted(rows, key=self.order):
                if test(partition, row) and (cells := self.live(partition, row)) is not None:
                    hits.append((partition, row, cells))
        return hits


class _Down:
    """Sorts the other way round."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __lt__(self, other: _Down) -> bool:
        return bool(other.value < self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Down) and bool(self.value == other.value)


COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": lambda left, right: bool(left == right),
    ">": lambda left, right: bool(left > right),
    ">=": lambda left, right: bool(left >= right),
    "<": lambda left, right: bool(left < right),
    "<=": lambda left, right: bool(left <= right),
    "IN": lambda left, right: left in right,
}
TERM = r"(?:\?|-?\d+|null|'[^']*')"
CONDITION = re.compile(rf"(\w+|\([\w, ]+\)) (=|>=|<=|>|<|IN) ({TERM}|\(\?(?:, \?)*\))")


class MiniCQL:
    """A keyspace."""

    def __init__(self, tables: Mapping[str, str], form: str = "scylla") -> None:
        self.tables = {name: Table.parse(text) for name, text in tables.items()}
        self.form = form
        self.clock = itertools.count(10**15)

    # --- statements

    def carry_out(self, text: str, parameters: Sequence[Any]) -> list[Values]:
        """The rows of the answer."""
        return self.batch([(text, parameters)])

    def batch(self, parts: Sequence[tuple[str, Sequence[Any]]]) -> list[Values]:
        """Carry them out as one; at most one may have a condition, and all are on one partition."""
        at = next(self.clock)
        read = [_Reader(text, parameters) for text, parameters in parts]
        steps = [self._parse(reader) for reader in read]
        if len(steps) == 1 and steps[0].select is not None:
            return steps[0].select()
        conditional = [step for step in steps if step.holds is not None]
        assert len(conditional) <= 1, "only one statement of a batch may have a condition"
        assert len({(step.table.name, step.partition) for step in steps}) == 1, "a batch is on one partition"
        old = [step.old() for step in conditional]
        applied = all(step.holds is not None and step.holds() for step in conditional)
        if applied:
            for step in steps:
                assert step.change is not None
                step.change(step.at if step.at is not None else at)
        if not conditional:
            return []
        if self.form == "scylla":
            return [{"[applied]": applied, **row} for row in old]
        return [{"[applied]": applied, **({} if applied or all(v is None for v in old[0].values()) else old[0])}]

    def _parse(self, reader: _Reader) -> _Step:
        word = reader.text.split(" ", 1)[0]
        step = {"SELECT": self._select, "INSERT": self._insert, "UPDATE": self._update, "DELETE": self._delete}[word](
            reader
        )
        reader.finish()
        return step

    def _select(self, reader: _Reader) -> _Step:
        names = reader.take(r"SELECT (.*?) FROM ")[0].split(", ")
        table = self.tables[reader.take(r"(\w+)(?: WHERE )?")[0]]
        test = self._where(reader, table)
        limit = reader.value(reader.take(r" LIMIT (\?|\d+)")[0]) if reader.text.startswith(" LIMIT") else None

        def select() -> list[Values]:
            rows = []
            for partition, row, cells in table.found(test):
                whole = dict(zip([*table.partition, *table.clustering], [*partition, *row], strict=True))
                values = {}
                for name in names:
                    written = re.fullmatch(r"WRITETIME\((\w+)\) AS (\w+)", name)
                    if written:
                        values[written[2]] = cells[written[1]][0] if written[1] in cells else None
                    else:
                        assert name in table.columns, name
                        values[name] = whole[name] if name in whole else cells.get(name, (0, None))[1]
                rows.append(values)
            return rows[:limit]

        return _Step(table, (), select=select)

    def _where(self, reader: _Reader, table: Table) -> Callable[[Key, Key], bool]:
        tests: list[tuple[list[str], str, Any]] = []
        while (found := CONDITION.match(reader.text)) is not None:
            reader.text = reader.text[found.end() :].removeprefix(" AND ")
            names = found[1].strip("()").split(", ")
            value: Any
            if found[3].startswith("("):
                value = tuple(reader.value(term) for term in found[3].strip("()").split(", "))
            else:
                value = reader.value(found[3])
                value = [(one,) for one in value] if found[2] == "IN" else (value,)
            tests.append((names, found[2], value))
        named = [name for names, _, _ in tests for name in names]
        if tests:
            exact = [name for names, operator, _ in tests if operator == "=" for name in names]
            assert exact[: len(table.partition)] == table.partition, "a query names its partition whole"
            rest = named[len(table.partition) :]
            assert rest == table.clustering[: len(rest)] or len(set(rest)) < len(rest), "columns of the key in order"
        order = [*table.partition, *table.clustering]

        def test(partition: Key, row: Key) -> bool:
            whole = dict(zip(order, [*partition, *row], strict=True))
            return all(COMPARE[operator](tuple(whole[n] for n in names), value) for names, operator, value in tests)

        reader.equal = {names[0]: value[0] for names, operator, value in tests if operator == "=" and len(names) == 1}
        return test

    def _insert(self, reader: _Reader) -> _Step:
        name, listed = reader.take(r"INSERT INTO (\w+) \(([\w, ]+)\) VALUES ")
        table, columns = self.tables[name], listed.split(", ")
        terms = reader.take(r"\(([^)]*)\)")[0].split(", ")
        values = dict(zip(columns, [reader.value(term) for term in terms], strict=True))
        if_not_exists = reader.skip(" IF NOT EXISTS")
        ttl, at = self._using(reader)
        del ttl  # nothing here grows old
        partition, row = _key(table, values)
        cells = {n: v for n, v in values.items() if n not in (*table.partition, *table.clustering)}
        cells = {"": True, **{name: value for name, value in cells.items() if value is not UNSET_VALUE}}
        holds = (lambda: table.live(partition, row) is None) if if_not_exists else None
        return _Step(
            table,
            partition,
            lambda at: table.write(partition, row, cells, at),
            holds,
            self._old(table, partition, row),
            at,
        )

    def _update(self, reader: _Reader) -> _Step:
        table = self.tables[reader.take(r"UPDATE (\w+)")[0]]
        _, at = self._using(reader)
        assert reader.skip(" SET ")
        changes = {}
        for assignment in reader.take(r"(.*?) WHERE ")[0].split(", "):
            column, term = assignment.split(" = ")
            assert column in table.columns, column
            changes[column] = reader.value(term)
        self._where(reader, table)
        partition, row = _key(table, reader.equal)
        holds = self._condition(reader, table, partition, row)
        changes = {name: value for name, value in changes.items() if value is not UNSET_VALUE}
        return _Step(
            table,
            partition,
            lambda at: table.write(partition, row, changes, at),
            holds,
            self._old(table, partition, row),
            at,
        )

    def _delete(self, reader: _Reader) -> _Step:
        table = self.tables[reader.take(r"DELETE FROM (\w+)")[0]]
        _, at = self._using(reader)
        assert reader.skip(" WHERE ")
        test = self._where(reader, table)
        partition = tuple(reader.equal[name] for name in table.partition)
        row = tuple(reader.equal.get(name) for name in table.clustering)
        holds = self._condition(reader, table, partition, row)

        def bury(at: int) -> None:
            table.graves.setdefault(partition, []).append((lambda row: test(partition, row), at))

        return _Step(table, partition, bury, holds, self._old(table, partition, row), at)

    def _using(self, reader: _Reader) -> tuple[Any, int | None]:
        if reader.skip(" USING TTL "):
            return reader.value(reader.take(rf"({TERM})")[0]), None
        if reader.skip(" USING TIMESTAMP "):
            return None, reader.value(reader.take(rf"({TERM})")[0])
        return None, None

    def _condition(self, reader: _Reader, table: Table, partition: Key, row: Key) -> Callable[[], bool] | None:
        if reader.skip(" IF EXISTS"):
            return lambda: table.live(partition, row) is not None
        if not reader.skip(" IF "):
            return None
        wanted = {}
        for part in reader.take(r"(.*)$")[0].split(" AND "):
            column, term = part.split(" = ")
            wanted[column] = reader.value(term)

        def holds() -> bool:
            cells = table.live(partition, row) or {}
            return all(cells.get(name, (0, None))[1] == value for name, value in wanted.items())

        return holds

    def _old(self, table: Table, partition: Key, row: Key) -> Callable[[], Values]:
        def old() -> Values:
            cells = table.live(partition, row)
            names = [name for name in table.columns if name not in (*table.partition, *table.clustering)]
            if cells is None:
                return dict.fromkeys(table.columns)
            key = dict(zip([*table.partition, *table.clustering], [*partition, *row], strict=True))
            return {**key, **{name: cells.get(name, (0, None))[1] for name in names}}

        return old


@dataclass
class _Step:
    """A statement that was understood."""

    table: Table
    partition: Key
    change: Callable[[int], None] | None = None
    holds: Callable[[], bool] | None = None
    old: Callable[[], Values] = dict
    at: int | None = None
    select: Callable[[], list[Values]] | None = None


class _Reader:
    """A text of which the beginning is taken off, and the parameters of its question marks."""

    def __init__(self, text: str, parameters: Sequence[Any]) -> None:
        self.text = text
        self._parameters = list(parameters)
        self.equal: Values = {}

    def take(self, pattern: str) -> tuple[str, ...]:
        found = re.match(pattern, self.text)
        assert found is not None, f"not of the subset: {self.text}"
        self.text = self.text[found.end() :]
        return found.groups()

    def skip(self, word: str) -> bool:
        there = self.text.startswith(word)
        if there:
            self.text = self.text[len(word) :]
        return there

    def value(self, term: str) -> Any:
        if term == "?":
            return self._parameters.pop(0)
        if term == "null":
            return None
        return term.strip("'") if term.startswith("'") else int(term)

    def finish(self) -> None:
        assert not self.text, f"not of the subset: {self.text}"
        assert not self._parameters, "more parameters than question marks"


def _key(table: Table, values: Mapping[str, Any]) -> tuple[Key, Key]:
    return tuple(values[name] for name in table.partition), tuple(values[name] for name in table.clustering)
