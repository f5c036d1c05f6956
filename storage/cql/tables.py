"""The tables of the lists, the directory, leases, allowances and references, and why each is kept as it is.

What they have in common: the row cache stays off (it is what makes large cells dear; the key cache is the servers'
default), compression is LZ4 where rows are text that repeats and in small chunks where single rows are looked up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["ALLOWANCE_SECONDS", "CONDEMNED_SECONDS", "LIST_GC_GRACE_SECONDS", "TABLES"]

DAY: Final = 86_400
LIST_GC_GRACE_SECONDS: Final = 10 * DAY
ALLOWANCE_SECONDS: Final = 90 * DAY
"""Counts are of use on their day; a plan for warming up looks back six weeks."""
CONDEMNED_SECONDS: Final = 120 * DAY
"""Longer than anything that could still name a condemned generation: queues, retention windows, backups under way."""

_SMALL_ROWS: Final = "compression = {'class': 'LZ4Compressor', 'chunk_length_in_kb': 4}"
_CACHING: Final = "caching = {'keys': 'ALL', 'rows_per_partition': 'NONE'}"
_LEVELED: Final = "compaction = {'class': 'LeveledCompactionStrategy'}"


def _list(name: str) -> str:
    # Leveled: a page is one slice of a partition that is written to for years; with size tiers it would lie in many
    # files.  Chunks of 16 KiB: a page is some 100 neighbouring rows.  gc_grace of ten days: a delete must reach all
    # replicas by repair before it is forgotten, else the line comes back; a bucket's number is never used again, so
    # a dropped partition needs no more than that either.
    return f"""
        CREATE TABLE IF NOT EXISTS {name} (
            user_id uuid, bucket int, folder uuid, received timestamp, uid bigint,
            message_bucket int, message_id uuid, sender text, subject text, preview text, flags blob, size bigint,
            PRIMARY KEY ((user_id, bucket), folder, received, uid))
        WITH CLUSTERING ORDER BY (folder ASC, received DESC, uid DESC)
        AND {_LEVELED}
        AND compression = {{'class': 'LZ4Compressor', 'chunk_length_in_kb': 16}}
        AND {_CACHING}
        AND gc_grace_seconds = {LIST_GC_GRACE_SECONDS}"""


TABLES: Final[Mapping[str, str]] = {
    "read_emails": _list("read_emails"),
    "unread_emails": _list("unread_emails"),
    # How far a bucket has come.  One cell that is overwritten: leveled, so that old versions go soon.
    "list_reached": f"""
        CREATE TABLE IF NOT EXISTS list_reached (
            user_id uuid, bucket int, reached bigint,
            PRIMARY KEY ((user_id), bucket))
        WITH {_LEVELED} AND {_SMALL_ROWS} AND {_CACHING} AND gc_grace_seconds = {LIST_GC_GRACE_SECONDS}""",
    # --- the directory: few writes, all conditional but for listings and scripts; single rows are read at every login
    # and for every recipient, hence leveled and small chunks.  gc_grace as the servers have it: a removed address
    # must not come back from a replica that slept.
    "mail_domain": f"""
        CREATE TABLE IF NOT EXISTS mail_domain (
            shard int, name text, enabled boolean, removing bigint,
            PRIMARY KEY ((shard), name))
        WITH {_LEVELED} AND {_SMALL_ROWS} AND {_CACHING} AND gc_grace_seconds = {10 * DAY}""",
    # The claim of an address, and the whole record of an alias.  One partition each: no bound on a domain's size.
    "address": f"""
        CREATE TABLE IF NOT EXISTS address (
            address text, ticket uuid, claimed bigint, account uuid, targets text,
            PRIMARY KEY ((address)))
        WITH {_LEVELED} AND {_SMALL_ROWS} AND {_CACHING} AND gc_grace_seconds = {10 * DAY}""",
    # Which claims there may be in a domain; each claim has a row of its own, written once and deleted once, with
    # timestamps 1 and 2, so that no clock plays a part.  A row that stays by mistake is seen through when it is read.
    "address_by_domain": f"""
        CREATE TABLE IF NOT EXISTS address_by_domain (
            domain text, shard int, address text, ticket uuid, account uuid,
            PRIMARY KEY ((domain, shard), address, ticket))
        WITH {_LEVELED} AND {_SMALL_ROWS} AND {_CACHING} AND gc_grace_seconds = {10 * DAY}""",
    "account": f"""
        CREATE TABLE IF NOT EXISTS account (
            id uuid, version uuid, address text, credentials text, enabled boolean, quota_bytes bigint,
            display_name text, home text, created bigint, active_script text,
            PRIMARY KEY ((id)))
        WITH {_LEVELED} AND {_SMALL_ROWS} AND {_CACHING} AND gc_grace_seconds = {10 * DAY}""",
    # Sieve scripts: plain writes, the last one stands.  Text that repeats itself, read whole: larger chunks.
    "script": f"""
        CREATE TABLE IF NOT EXISTS script (
            account uuid, name text, body text,
            PRIMARY KEY ((account), name))
        WITH {_LEVELED} AND compression = {{'class': 'LZ4Compressor', 'chunk_length_in_kb': 16}}
        AND {_CACHING} AND gc_grace_seconds = {10 * DAY}""",
    # --- agreement on small things
    # The number stays for ever, the holder has a TTL.  One day of gc_grace is enough: a holder that a sleeping
    # replica brings back has run out itself long ago.
    "lease": f"""
        CREATE TABLE IF NOT EXISTS lease (
            name text, number bigint, ticket uuid, holder bigint,
            PRIMARY KEY ((name)))
        WITH {_LEVELED} AND {_SMALL_ROWS} AND {_CACHING} AND gc_grace_seconds = {DAY}""",
    # Counts of a day are never deleted, they run out together: windows of a week go as whole files.  Nothing is
    # deleted, so nothing can come back: one day of gc_grace.
    "allowance": f"""
        CREATE TABLE IF NOT EXISTS allowance (
            name text, day int, taken bigint, ticket uuid,
            PRIMARY KEY ((name, day)))
        WITH compaction = {{'class': 'TimeWindowCompactionStrategy', 'compaction_window_unit': 'DAYS',
            'compaction_window_size': 7}}
        AND {_SMALL_ROWS} AND {_CACHING} AND default_time_to_live = {ALLOWANCE_SECONDS} AND gc_grace_seconds = {DAY}""",
    # Small values, a partition for each space, most with a TTL of their own.  Rows are overwritten and run out: leveled.
    # One that was deleted must not come back (an address that may be written to again): gc_grace of ten days.
    "record": f"""
        CREATE TABLE IF NOT EXISTS record (
            space text, key text, value blob,
            PRIMARY KEY ((space), key))
        WITH {_LEVELED} AND {_SMALL_ROWS} AND {_CACHING} AND gc_grace_seconds = {10 * DAY}""",
    # --- blobs.  In all three a deleted row that comes back errs on the safe side (something is kept, or looked at
    # again), so that one day of gc_grace is enough, and scans meet few tombstones.
    # A reference: 16 partitions for each content, since one attachment may have millions of holders.
    "blob_reference": f"""
        CREATE TABLE IF NOT EXISTS blob_reference (
            hash blob, shard int, generation int, holder ascii, ticket uuid,
            PRIMARY KEY ((hash, shard), generation, holder, ticket))
        WITH {_LEVELED} AND {_SMALL_ROWS} AND {_CACHING} AND gc_grace_seconds = {DAY}""",
    # Written once, never deleted, runs out: files of a month go whole.
    "blob_condemned": f"""
        CREATE TABLE IF NOT EXISTS blob_condemned (
            hash blob, generation int,
            PRIMARY KEY ((hash), generation))
        WITH CLUSTERING ORDER BY (generation DESC)
        AND compaction = {{'class': 'TimeWindowCompactionStrategy', 'compaction_window_unit': 'DAYS',
            'compaction_window_size': 10}}
        AND {_SMALL_ROWS} AND {_CACHING} AND default_time_to_live = {CONDEMNED_SECONDS} AND gc_grace_seconds = {DAY}""",
    # What has lost a reference, by the time that it was listed, in 16 partitions for each ten minutes.
    "blob_lost": f"""
        CREATE TABLE IF NOT EXISTS blob_lost (
            slice int, shard int, at bigint, hash blob, generation int, ticket uuid, size bigint,
            PRIMARY KEY ((slice, shard), at, hash, generation, ticket))
        WITH {_LEVELED} AND {_SMALL_ROWS} AND {_CACHING} AND gc_grace_seconds = {DAY}""",
    # Where in `blob_lost` a blob stands, so that it can be taken off without a search.
    "blob_lost_at": f"""
        CREATE TABLE IF NOT EXISTS blob_lost_at (
            hash blob, generation int, at bigint, ticket uuid,
            PRIMARY KEY ((hash), generation, at, ticket))
        WITH {_LEVELED} AND {_SMALL_ROWS} AND {_CACHING} AND gc_grace_seconds = {DAY}""",
    # Which slices there are: one partition, 144 rows a day, so that a sweeper need not try every slice since 1970.
    "blob_lost_slice": f"""
        CREATE TABLE IF NOT EXISTS blob_lost_slice (
            part int, slice int,
            PRIMARY KEY ((part), slice))
        WITH {_LEVELED} AND {_SMALL_ROWS} AND {_CACHING} AND gc_grace_seconds = {DAY}""",
}
"""Table -> the statement that makes it where it is missing, in the session's keyspace."""
