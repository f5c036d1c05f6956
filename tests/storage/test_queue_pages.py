"""A page of a long queue costs what is on it, whatever is asked for."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import product

import pytest

from twisted_mail.storage.sqlite import queue

INDEXES = """
CREATE TABLE queue (
    id BLOB PRIMARY KEY, use TEXT, envelope BLOB, body_hash TEXT, body_size INTEGER, domain TEXT, sender TEXT,
    attempts INTEGER, last_reply TEXT, created REAL, held INTEGER, due REAL, token TEXT, body_generation INTEGER
) WITHOUT ROWID;
CREATE INDEX queue_due ON queue (use, held, due);
CREATE INDEX queue_domain ON queue (domain, id);
"""


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    db = sqlite3.connect(":memory:")
    db.executescript(INDEXES)
    yield db
    db.close()


@pytest.mark.parametrize(
    ("use", "state", "domain", "sender"),
    list(product((None, "outbound"), (None, "waiting"), (None, "a.example"), (None, "ann@example.org"))),
)
def test_no_page_is_sorted(
    db: sqlite3.Connection, use: str | None, state: str | None, domain: str | None, sender: str | None
) -> None:
    statements: list[str] = []
    db.set_trace_callback(statements.append)
    parameters = {
        "use": use, "state": state, "domain": domain, "sender": sender, "after": b"", "limit": 500, "now": 0.0,
    }  # fmt: skip
    assert queue._list(db, parameters) == []
    db.set_trace_callback(None)
    plan = [row[3] for row in db.execute("EXPLAIN QUERY PLAN " + statements[0])]
    assert not any("TEMP B-TREE" in step for step in plan), plan
    assert any("id>?" in step for step in plan), plan
