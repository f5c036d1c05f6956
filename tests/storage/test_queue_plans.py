"""What the embedded queue asks of its database goes by an index: the cost does not grow with the queue."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import product

import pytest

from twisted_mail.storage.sqlite import queue
from twisted_mail.storage.sqlite.operations import Transaction
from twisted_mail.storage.sqlite.schema import MIGRATIONS
from twisted_mail.values import DeliveryId

ITEM = (b"1" * 16, "outbound", b"envelope", None, None, "b.example", "ann@example.org", 0, "", 1.0, 0)


def database(versions: range = range(1, max(MIGRATIONS) + 1)) -> sqlite3.Connection:
    db = sqlite3.connect(":memory:", isolation_level=None)
    for version in versions:
        db.executescript(MIGRATIONS[version])
    return db


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    with closing(database()) as db:
        yield db


def plans(db: sqlite3.Connection, statements: list[str]) -> list[str]:
    return [row[3] for each in statements for row in db.execute(f"EXPLAIN QUERY PLAN {each}")]


def test_each_operation_is_one_search_by_an_index_and_nothing_is_sorted(db: sqlite3.Connection) -> None:
    tx = Transaction(db, lambda: 100.0)
    for name, operation, index in (
        ("put", lambda: queue.put(tx, ITEM, 0.0), "COVERING INDEX queue_id (id=?)"),
        ("lease", lambda: queue.lease(tx, "outbound", 64, 60.0), "INDEX queue_due (use=? AND due<?)"),
        ("extend", lambda: queue.extend(tx, "x", 60.0), "INDEX queue_token (token=?)"),
        ("retry", lambda: queue.retry(tx, "x", 60.0, "450 later", None, True), "INDEX queue_token (token=?)"),
        ("ack", lambda: queue.ack(tx, "x"), "INDEX queue_token (token=?)"),
        ("hold", lambda: queue.hold(tx, b"x"), "INDEX queue_id (id=?)"),
        ("release", lambda: queue.release(tx, b"x"), "(id=?)"),
        ("delete", lambda: queue.delete(tx, b"x"), "INDEX queue_id (id=?)"),
    ):
        statements: list[str] = []
        db.set_trace_callback(statements.append)
        operation()
        db.set_trace_callback(None)
        steps = plans(db, [each for each in statements if each.startswith(("SELECT", "INSERT", "UPDATE", "DELETE"))])
        searches = [step for step in steps if step.startswith("SEARCH queue USING ") and "PRIMARY KEY" not in step]
        assert len(searches) == 1 and searches[0].endswith(index), (name, steps)
        assert not any("SCAN queue" in step or "TEMP B-TREE" in step for step in steps), (name, steps)


def test_no_index_has_its_order_from_who_sends_or_receives(db: sqlite3.Connection) -> None:
    first = [db.execute(f"PRAGMA index_info({row[1]})").fetchone()[2] for row in db.execute("PRAGMA index_list(queue)")]
    assert sorted(first) == ["id", "id", "token", "use"], "each put and each ack would change a page that no other does"


def test_what_a_delivery_causes_lies_beside_it() -> None:
    first, *others, last = (DeliveryId.new() for _ in range(3))
    for one in others:
        caused = [one.caused("bounce"), one.caused("forward"), one.caused("bounce").caused("bounce")]
        assert len({one, *caused}) == 4 and caused[0] == one.caused("bounce")
        assert all(first.octets[:6] <= each.octets[:6] <= last.octets[:6] for each in caused)


@pytest.mark.parametrize(
    ("use", "state", "domain", "sender"),
    list(
        product((None, "outbound"), (None, "waiting", "held"), (None, "a.example"), (None, "ann@example.org")),
    ),
)
def test_a_page_of_a_list_begins_where_the_last_one_ended_and_is_not_sorted(
    db: sqlite3.Connection, use: str | None, state: str | None, domain: str | None, sender: str | None
) -> None:
    statements: list[str] = []
    parameters = {
        "use": use, "state": state, "domain": domain, "sender": sender, "after": b"", "limit": 500, "now": 0.0,
    }  # fmt: skip
    db.set_trace_callback(statements.append)
    assert queue._list(db, parameters) == []
    db.set_trace_callback(None)
    [step] = plans(db, statements)
    assert step.startswith("SEARCH queue USING") and "id>?" in step, step
    assert state != "held" or domain is not None or sender is not None or "queue_held" in step, step


def test_a_queue_of_before_is_brought_over_whole() -> None:
    with closing(database(range(1, 4))) as db:
        for id, due, held, token in ((b"2" * 16, 50.0, 0, None), (b"1" * 16, 70.0, 0, "t"), (b"3" * 16, 1.0, 1, None)):
            db.execute(
                f"INSERT INTO queue ({queue._ITEM}, due, held, token) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                (id, *ITEM[1:], due, held, token),
            )
        before = db.execute(f"SELECT {queue._ITEM}, due, held, token FROM queue ORDER BY id").fetchall()
        db.executescript(MIGRATIONS[4])
        assert db.execute(f"SELECT {queue._ITEM}, due, held, token FROM queue ORDER BY number").fetchall() == before
        tx = Transaction(db, lambda: 60.0)
        assert [row[0] for row in queue.lease(tx, "outbound", 9, 60.0)] == [b"2" * 16]
        assert queue.ack(tx, "t")
        assert not queue.put(tx, (b"3" * 16, *ITEM[1:]), 0.0)
