"""Every statement and every table is of the subset that ScyllaDB and Cassandra share."""

from __future__ import annotations

import importlib
import pkgutil
import re

import pytest

import twisted_mail.storage.cql as package
from tests.storage.cql.minicql import Table
from twisted_mail.storage.cql.message_cells import CELLS
from twisted_mail.storage.cql.messages import select
from twisted_mail.storage.cql.schema import VERSIONS_TABLE, tables
from twisted_mail.storage.cql.statements import STATEMENTS, Statement

for module in pkgutil.iter_modules(package.__path__):
    importlib.import_module(f"{package.__name__}.{module.name}")

SCHEMA = {**tables(), "schema_version": VERSIONS_TABLE}
SHAPES = {name: Table.parse(text) for name, text in SCHEMA.items()}
ALL = [*STATEMENTS, select(CELLS), select([]), select(["inline"], "LOCAL_ONE")]

FORBIDDEN = re.compile(
    r"ALLOW FILTERING|MATERIALIZED|CREATE (CUSTOM )?INDEX|CREATE FUNCTION|CREATE AGGREGATE|CREATE TRIGGER|CREATE TYPE|"
    r"\bSTATIC\b|\bcounter\b|\bTOKEN\s*\(|GROUP BY|PER PARTITION LIMIT|\bJSON\b|DISTINCT|\bANN\b|\bLIKE\b|\bCONTAINS\b|"
    r"BYPASS CACHE|USING TIMEOUT|\bBEGIN\b|SELECT \*|\bOR\b|!=|\bNOT IN\b|\bcount\(|\bTRUNCATE\b",
    re.IGNORECASE,
)
TYPES = {"uuid", "bigint", "int", "blob", "text", "boolean", "timestamp", "ascii", "list<text>", "frozen<list<text>>"}
"""Of the columns; `counter` and types of one server only are not among them."""
PATTERN = re.compile(
    r"""(?x)
      SELECT\ [\w,\ ()]+\ FROM\ (?P<select>\w+)(\ WHERE\ .+?)?(\ LIMIT\ (\?|\d+))?
    | INSERT\ INTO\ (?P<insert>\w+)\ \([\w,\ ]+\)\ VALUES\ \([?\d,\ ]+\)(\ IF\ NOT\ EXISTS)?(\ USING\ (TTL|TIMESTAMP)\ (\?|\d+))?
    | UPDATE\ (?P<update>\w+)(\ USING\ (TTL|TIMESTAMP)\ (\?|\d+))?\ SET\ .+?\ WHERE\ .+?(\ IF\ .+)?
    | DELETE\ FROM\ (?P<delete>\w+)(\ USING\ TIMESTAMP\ (\?|\d+))?\ WHERE\ .+?(\ IF\ .+)?
    """
)
RELATION = re.compile(r"(\w+|\(\w+(?:, \w+)*\)) (=|>=|<=|>|<|IN) (\?|-?\d+|\(\?(?:, \?)*\))")


def ids(statement: Statement) -> str:
    return statement.text[:60]


@pytest.mark.parametrize("statement", ALL, ids=ids)
def test_a_statement_is_of_the_common_subset(statement: Statement) -> None:
    text = statement.text
    assert FORBIDDEN.search(text) is None, text
    found = PATTERN.fullmatch(text)
    assert found is not None, text
    shape = SHAPES[next(name for name in found.groupdict().values() if name)]
    where = re.search(r" WHERE (.*?)(?: IF .*| LIMIT .*)?$", text)
    if where is None:
        assert found["insert"] or (found["select"] and not shape.name.startswith(("account", "message"))), "a full scan"
        return
    named: list[str] = []
    equal: list[str] = []
    for part in re.split(r" AND (?![^(]*\))", where[1]):
        relation = RELATION.fullmatch(part)
        assert relation is not None, part
        columns = relation[1].strip("()").split(", ")
        named += columns
        if relation[2] == "=":
            equal += columns
        elif relation[2] == "IN":
            assert columns[0] not in shape.partition, "IN on partitions is several queries in disguise"
    assert equal[: len(shape.partition)] == shape.partition, "the whole partition key first"
    rest = list(dict.fromkeys(named[len(shape.partition) :]))
    assert rest == shape.clustering[: len(rest)], "columns of the clustering key in order, and no others"
    if found["update"] or (found["delete"] and " IF " in text):
        assert equal == [*shape.partition, *shape.clustering], "a condition or an update is on one row"


@pytest.mark.parametrize("statement", ALL, ids=ids)
def test_conditions_are_declared_and_on_plain_columns_of_one_row(statement: Statement) -> None:
    condition = re.search(r" IF (.*?)(?: USING .*)?$", statement.text)
    assert (condition is not None) == statement.conditional
    if condition is None:
        return
    assert not statement.idempotent, "a lightweight transaction is never repeated blindly"
    assert "USING TIMESTAMP" not in statement.text, "its time is the agreement's"
    if condition[1] not in ("NOT EXISTS", "EXISTS"):
        for part in condition[1].split(" AND "):
            assert re.fullmatch(r"\w+ = (\?|\d+|null)", part), part


def test_what_is_written_by_agreement_is_written_by_nothing_else() -> None:
    """A plain write to a cell that lightweight transactions write to may be lost, or may win over a newer one."""
    agreed: dict[str, set[str]] = {}
    plain: dict[str, set[str]] = {}
    for statement in STATEMENTS:
        update = re.match(r"UPDATE (\w+)(?: USING \w+ \?)? SET (.*?) WHERE", statement.text)
        if update is None:
            continue
        columns = {part.split(" = ")[0] for part in update[2].split(", ")}
        (agreed if statement.conditional else plain).setdefault(update[1], set()).update(columns)
    shared = {name: columns & plain.get(name, set()) for name, columns in agreed.items()}
    assert not any(shared.values()), shared


@pytest.mark.parametrize("name", sorted(SCHEMA))
def test_a_table_says_how_it_is_kept_and_uses_what_both_servers_know(name: str) -> None:
    text = SCHEMA[name]
    assert FORBIDDEN.search(text) is None, text
    assert text.startswith(f"CREATE TABLE IF NOT EXISTS {name} (")
    for option in ("compaction = {", "compression = {", "gc_grace_seconds = "):
        assert option in text, option
    assert "caching = {'keys': 'ALL', 'rows_per_partition': 'NONE'}" in text, "the row cache makes large cells dear"
    strategy = re.search(r"'class': '(\w+Strategy)'", text)
    assert strategy is not None
    assert strategy[1] in ("LeveledCompactionStrategy", "SizeTieredCompactionStrategy", "TimeWindowCompactionStrategy")
    options = set(re.findall(r"(?:WITH|AND) (\w+)(?= =)", text))
    known = {
        "compaction",
        "compression",
        "caching",
        "gc_grace_seconds",
        "default_time_to_live",
        "bloom_filter_fp_chance",
    }
    assert options <= known, options - known
    columns = re.match(r"CREATE TABLE IF NOT EXISTS \w+ \((.*)PRIMARY KEY", text)
    assert columns is not None
    for column in columns[1].strip().rstrip(",").split(", "):
        assert column.split(" ", 1)[1] in TYPES, column


def test_every_table_is_made_and_used() -> None:
    used = {name for statement in ALL for name in re.findall(r"(?:FROM|INTO|UPDATE) (\w+)", statement.text)}
    assert used == set(tables()), used ^ set(tables())
