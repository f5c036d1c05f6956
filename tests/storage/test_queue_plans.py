"""What the embedded queue asks of its database goes by an index: the cost does not grow with the queue."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from twisted_mail.storage.sqlite.schema import MIGRATIONS


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        ("SELECT id, envelope FROM queue WHERE use = 'outbound' AND held = 0 AND due <= 5 ORDER BY due, id LIMIT 64", "queue_due"),
        ("UPDATE queue SET due = 5, token = NULL WHERE token = 'x'", "queue_token"),
        ("DELETE FROM queue WHERE token = 'x'", "queue_token"),
    ],
)
def test_the_queue_is_searched_by_an_index_and_never_sorted(statement: str, index: str) -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        for version in sorted(MIGRATIONS):
            db.executescript(MIGRATIONS[version])
        plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}")]
    assert len(plan) == 1 and plan[0].startswith("SEARCH queue USING") and index in plan[0], plan
