"""The tables of accounts' logs, checkpoints and messages, and why each is kept as it is.

The row cache stays off everywhere: it is what makes large cells dear. What is stored is compressed already where that
pays (`cells.pack`), LZ4 is there for keys and small cells, and for its checksums.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["TABLES"]

TABLES: Final[Mapping[str, str]] = {
    # The truth.  Row 0 of a partition is its head row; it sorts first, is always live, and is written by lightweight
    # transactions only.  Every other row has entries, written in one conditional batch with the head row: one, or with
    # `first` those from that number to the row's own (`rows`); entry_id is the first one's.
    #   head      the number of the newest entry
    #   fence     changes when an append whose outcome was unknown is declared dead; each append is on condition of it
    #   trimmed   entries up to this one are gone
    #   checkpoint, manifest, older, older_manifest: the newest checkpoint and the one before it
    # Leveled compaction: an account's entries are read together and its head row all the time, from few files.
    # gc_grace: the only deletion is of a prefix that nobody reads again; an entry that came back would not be seen.
    # Small compression chunks: what is read is a head row and a short tail.
    "account_log": """
        CREATE TABLE IF NOT EXISTS account_log (
            user_id uuid,
            modseq bigint,
            head bigint,
            fence uuid,
            trimmed bigint,
            checkpoint bigint,
            manifest blob,
            older bigint,
            older_manifest blob,
            first bigint,
            entry_id uuid,
            entry blob,
            PRIMARY KEY ((user_id), modseq)
        ) WITH compaction = {'class': 'LeveledCompactionStrategy'}
            AND compression = {'class': 'LZ4Compressor', 'chunk_length_in_kb': 4}
            AND caching = {'keys': 'ALL', 'rows_per_partition': 'NONE'}
            AND gc_grace_seconds = 864000""",
    # Chunks of checkpoints, in parts below 512 KiB.  A row is written once and deleted once: the writer's id is in the
    # key, so two nodes that make the checkpoint of one number do not touch each other's rows.
    # Leveled compaction: chunks are replaced all the time, and that leaves the least of the old ones lying about.
    # gc_grace: a chunk that came back would be garbage that the next sweep removes, so six hours do, and whoever lists
    # a partition meets few tombstones.
    "account_checkpoint": """
        CREATE TABLE IF NOT EXISTS account_checkpoint (
            user_id uuid,
            chunk text,
            modseq bigint,
            writer uuid,
            part int,
            data blob,
            PRIMARY KEY ((user_id), chunk, modseq, writer, part)
        ) WITH compaction = {'class': 'LeveledCompactionStrategy'}
            AND compression = {'class': 'LZ4Compressor', 'chunk_length_in_kb': 64}
            AND caching = {'keys': 'ALL', 'rows_per_partition': 'NONE'}
            AND gc_grace_seconds = 21600""",
    # Immutable rows; columns that are asked for together lie in one cell (`message_cells`), since a cell costs each
    # replica, and us, about the same whatever its length.
    # Message ids ascend in time, so what arrived together lies together; as blob, since the type uuid sorts by the bits
    # of a version first, and the two servers differ in what follows.  `parts`: some cell lies in message_part.
    # Size-tiered compaction: rows are written once and seldom deleted, and rewriting bodies level by level is dear.
    # gc_grace: a row that came back is garbage to the next sweep; three days leave time to bring a node back.
    "message": """
        CREATE TABLE IF NOT EXISTS message (
            user_id uuid,
            bucket int,
            message_id blob,
            common_header blob,
            brief blob,
            heads blob,
            texts blob,
            inline blob,
            search_text blob,
            parts boolean,
            PRIMARY KEY ((user_id, bucket), message_id)
        ) WITH compaction = {'class': 'SizeTieredCompactionStrategy'}
            AND compression = {'class': 'LZ4Compressor', 'chunk_length_in_kb': 16}
            AND caching = {'keys': 'ALL', 'rows_per_partition': 'NONE'}
            AND gc_grace_seconds = 259200""",
    # The cells that are too large for a row, in parts; a partition for each message.
    "message_part": """
        CREATE TABLE IF NOT EXISTS message_part (
            user_id uuid,
            bucket int,
            message_id blob,
            name text,
            part int,
            data blob,
            PRIMARY KEY ((user_id, bucket, message_id), name, part)
        ) WITH compaction = {'class': 'SizeTieredCompactionStrategy'}
            AND compression = {'class': 'LZ4Compressor', 'chunk_length_in_kb': 64}
            AND caching = {'keys': 'ALL', 'rows_per_partition': 'NONE'}
            AND gc_grace_seconds = 259200""",
    # Which buckets an account has: a handful of tiny rows, read by checks and sweeps only.
    "message_bucket": """
        CREATE TABLE IF NOT EXISTS message_bucket (
            user_id uuid,
            bucket int,
            PRIMARY KEY ((user_id), bucket)
        ) WITH compaction = {'class': 'LeveledCompactionStrategy'}
            AND compression = {'class': 'LZ4Compressor', 'chunk_length_in_kb': 4}
            AND caching = {'keys': 'ALL', 'rows_per_partition': 'NONE'}
            AND gc_grace_seconds = 259200""",
}
