"""Reads of one account as the cluster traces them: how many tombstones each meets."""

from __future__ import annotations

import re
from typing import Any, Final, Self
from uuid import UUID

from cassandra import ConsistencyLevel
from cassandra.query import SimpleStatement

from twisted_mail.storage.cql.driver import build_cluster
from twisted_mail.storage.cql.options import parse_url

__all__ = ["Tracer"]

_MET: Final = re.compile(r"Read \d+ live rows and (\d+) tombstone cells")


class Tracer:
    """A connection of its own, straight to the cluster."""

    def __init__(self, url: str) -> None:
        self._options = parse_url(url)
        self._cluster: Any = build_cluster(self._options)
        self._session: Any = None  # the driver has no types

    def __enter__(self) -> Self:
        self._session = self._cluster.connect(self._options.keyspace)
        return self

    def __exit__(self, *exception: object) -> None:
        self._cluster.shutdown()

    def _met(self, text: str, *parameters: object) -> tuple[int, list[dict[str, Any]]]:
        query = SimpleStatement(text, consistency_level=ConsistencyLevel.LOCAL_QUORUM, fetch_size=5000)
        result = self._session.execute(query, parameters, trace=True)
        rows = list(result)
        found = 0
        for trace in result.get_all_query_traces(max_wait_sec_per=10):
            for event in trace.events:
                match = _MET.search(event.description)
                if match is not None:
                    found = max(found, int(match[1]))
        return found, rows

    def tombstones(self, account: str) -> dict[str, int]:
        """What each kind of read of *account* (its id in hexadecimal) meets at most, on any replica."""
        id = UUID(bytes=bytes.fromhex(account))
        head, rows = self._met("SELECT head, checkpoint, trimmed FROM account_log WHERE user_id = %s AND modseq = 0", id)
        after = rows[0]["checkpoint"] if rows else 0
        tail, _ = self._met("SELECT modseq, entry_id FROM account_log WHERE user_id = %s AND modseq > %s", id, after)
        chunks, _ = self._met("SELECT chunk, modseq FROM account_checkpoint WHERE user_id = %s", id)
        buckets = {row["bucket"] for row in self._met("SELECT bucket FROM message_bucket WHERE user_id = %s", id)[1]}
        rows_met = [
            self._met("SELECT message_id FROM message WHERE user_id = %s AND bucket = %s LIMIT 1000", id, bucket)[0]
            for bucket in sorted(buckets)
        ]
        return {
            "the head row": head,
            "the log behind the checkpoint": tail,
            "all chunks of checkpoints (a sweep)": chunks,
            "the first thousand rows of a bucket (a sweep)": max(rows_met, default=0),
        }
