"""The database file: how it is opened, its tables by version, and SQLite's errors in our words."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from twisted_mail.storage.interfaces import Corrupt, Refused, StorageError, Unavailable

__all__ = ["MIGRATIONS", "VERSION", "migrate", "open_reader", "open_writer", "translate"]

# Clustered tables (WITHOUT ROWID) keep what belongs to one account together, so a mailbox is one range. A row's first
# 2,030 octets lie in the tree at this page size, what is longer in overflow pages that are read only when a column in
# them is asked for: columns are ordered by how many rows at a time they are wanted for. Measured with mail of 11.9 KB
# a row (packed): 16.2 KB of file at pages of 4 KiB, 16.5 at 8, 20.0 at 16; a scan of a narrow column over 50,000 rows
# takes 1.4-2.1 us a row at 8 KiB, 2.5 at 4; of a packed one 10-12 us, nearly all of it unpacking.
PAGE_SIZE: Final = 8192
CHECKPOINT_PAGES: Final = 2000
"""Pages of write-ahead log (16 MiB) after which the writer copies them into the file."""
MMAP_BYTES: Final = 1 << 30
"""For readers, whose scans it makes a quarter faster. Not for the writer: a disk that fails under a mapping kills."""
BUSY_MILLISECONDS: Final = 5000

MIGRATIONS: Final[Mapping[int, str]] = {
    1: """
    CREATE TABLE account_head (
        account BLOB PRIMARY KEY, head INTEGER NOT NULL, trimmed INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE TABLE account_log (
        account BLOB NOT NULL, modseq INTEGER NOT NULL, id BLOB NOT NULL, data BLOB NOT NULL,
        PRIMARY KEY (account, modseq)
    ) WITHOUT ROWID;
    CREATE TABLE checkpoint_manifest (
        account BLOB NOT NULL, modseq INTEGER NOT NULL, chunks BLOB NOT NULL,
        PRIMARY KEY (account, modseq)
    ) WITHOUT ROWID;
    CREATE TABLE checkpoint_chunk (
        account BLOB NOT NULL, name TEXT NOT NULL, modseq INTEGER NOT NULL, data BLOB NOT NULL,
        PRIMARY KEY (account, name, modseq)
    ) WITHOUT ROWID;

    -- what is asked for of thousands of messages at once
    CREATE TABLE message_brief (
        account BLOB NOT NULL, bucket INTEGER NOT NULL, id BLOB NOT NULL,
        common_header BLOB NOT NULL, envelope BLOB NOT NULL, structure BLOB NOT NULL, preview BLOB NOT NULL,
        body BLOB NOT NULL, facts BLOB NOT NULL,
        PRIMARY KEY (account, bucket, id)
    ) WITHOUT ROWID;
    -- what SEARCH scans, then what one message is read from; packed by cells.pack
    CREATE TABLE message_full (
        account BLOB NOT NULL, bucket INTEGER NOT NULL, id BLOB NOT NULL,
        search_header BLOB NOT NULL, search_text BLOB NOT NULL, manifest BLOB NOT NULL, layout BLOB NOT NULL,
        header BLOB NOT NULL, inline BLOB NOT NULL,
        PRIMARY KEY (account, bucket, id)
    ) WITHOUT ROWID;

    CREATE TABLE list_row (
        account BLOB NOT NULL, list TEXT NOT NULL, bucket INTEGER NOT NULL, folder BLOB NOT NULL,
        received INTEGER NOT NULL, uid INTEGER NOT NULL,
        modseq INTEGER NOT NULL, deleted INTEGER NOT NULL,  -- a deleted row stays until its bucket is dropped
        message_bucket INTEGER, message BLOB, sender TEXT, subject TEXT, preview TEXT, flags BLOB, size INTEGER,
        PRIMARY KEY (account, list, bucket, folder, received DESC, uid DESC)
    ) WITHOUT ROWID;
    CREATE TABLE list_reached (
        account BLOB NOT NULL, bucket INTEGER NOT NULL, modseq INTEGER NOT NULL,
        PRIMARY KEY (account, bucket)
    ) WITHOUT ROWID;

    CREATE TABLE domain (name TEXT PRIMARY KEY, enabled INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE account (
        id BLOB PRIMARY KEY, address TEXT NOT NULL UNIQUE, domain TEXT NOT NULL, credentials TEXT NOT NULL,
        enabled INTEGER NOT NULL, quota_bytes INTEGER, display_name TEXT NOT NULL, home TEXT NOT NULL,
        created INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX account_by_domain ON account (domain, address);
    CREATE TABLE alias (
        address TEXT PRIMARY KEY, domain TEXT NOT NULL, targets TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX alias_by_domain ON alias (domain, address);
    CREATE TABLE script (
        account BLOB NOT NULL, name TEXT NOT NULL, text TEXT NOT NULL, active INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (account, name)
    ) WITHOUT ROWID;

    CREATE TABLE queue (
        id BLOB PRIMARY KEY, use TEXT NOT NULL, envelope BLOB NOT NULL, body_hash TEXT, body_size INTEGER,
        domain TEXT NOT NULL, sender TEXT NOT NULL, attempts INTEGER NOT NULL, last_reply TEXT NOT NULL,
        created REAL NOT NULL,
        held INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL,  -- due: the end of the lease while there is a token
        token TEXT
    ) WITHOUT ROWID;
    CREATE INDEX queue_due ON queue (use, held, due);
    CREATE UNIQUE INDEX queue_token ON queue (token) WHERE token IS NOT NULL;

    CREATE TABLE lease (name TEXT PRIMARY KEY, number INTEGER NOT NULL, expires REAL NOT NULL) WITHOUT ROWID;
    CREATE TABLE allowance (
        name TEXT NOT NULL, day INTEGER NOT NULL, taken INTEGER NOT NULL,
        PRIMARY KEY (name, day)
    ) WITHOUT ROWID;

    -- written after a commit whose outcome is not known, to overwrite what it may have left in the write-ahead log
    CREATE TABLE fence (id INTEGER PRIMARY KEY CHECK (id = 1), number INTEGER NOT NULL);
    INSERT INTO fence VALUES (1, 0);
    """,
    2: """
    CREATE TABLE blob_reference (
        hash TEXT NOT NULL, generation INTEGER NOT NULL, holder TEXT NOT NULL,
        PRIMARY KEY (hash, generation, holder)
    ) WITHOUT ROWID;
    CREATE TABLE blob_condemned (hash TEXT PRIMARY KEY, through INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE blob_lost (
        listed REAL NOT NULL, hash TEXT NOT NULL, generation INTEGER NOT NULL, size INTEGER NOT NULL,
        PRIMARY KEY (listed, hash, generation)
    ) WITHOUT ROWID;
    CREATE INDEX blob_lost_by_name ON blob_lost (hash, generation, listed);
    ALTER TABLE queue ADD COLUMN body_generation INTEGER NOT NULL DEFAULT 0;
    """,
    3: """
    CREATE TABLE record (
        space TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, expires REAL,
        PRIMARY KEY (space, key)
    ) WITHOUT ROWID;
    CREATE INDEX record_expires ON record (expires) WHERE expires IS NOT NULL;
    CREATE INDEX queue_domain ON queue (domain, id);
    CREATE INDEX queue_sender ON queue (sender, id);
    CREATE TABLE queue_body (
        hash TEXT NOT NULL, generation INTEGER NOT NULL, data BLOB NOT NULL,
        PRIMARY KEY (hash, generation)
    );
    """,
    # A queue of a million costs what one of a thousand does: rows are appended and hold their envelope (a tree of such
    # rows by id was six levels deep), and what a put adds to the indexes lies beside what the put before it added. An
    # item for a domain or of a sender is found by a walk along queue_id, which has both (0.12 s of CPU for a million);
    # indexes by them cost each put and each ack a page of their own.
    4: """
    CREATE TABLE queue_item (
        number INTEGER PRIMARY KEY,
        id BLOB NOT NULL, use TEXT NOT NULL, domain TEXT NOT NULL, sender TEXT NOT NULL,
        held INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL,  -- due: the end of the lease while there is a token
        token TEXT, attempts INTEGER NOT NULL, created REAL NOT NULL, last_reply TEXT NOT NULL,
        body_hash TEXT, body_size INTEGER, body_generation INTEGER NOT NULL DEFAULT 0, envelope BLOB NOT NULL
    );
    INSERT INTO queue_item (id, use, domain, sender, held, due, token, attempts, created, last_reply, body_hash,
        body_size, body_generation, envelope)
    SELECT id, use, domain, sender, held, due, token, attempts, created, last_reply, body_hash, body_size,
        body_generation, envelope FROM queue ORDER BY id;
    DROP TABLE queue;
    ALTER TABLE queue_item RENAME TO queue;
    CREATE INDEX queue_id ON queue (id, use, domain, sender);
    CREATE INDEX queue_due ON queue (use, due) WHERE held = 0;
    CREATE INDEX queue_held ON queue (id) WHERE held = 1;
    CREATE UNIQUE INDEX queue_token ON queue (token) WHERE token IS NOT NULL;
    """,
}
VERSION: Final = max(MIGRATIONS)


def translate(error: sqlite3.Error, *, committing: bool = False) -> StorageError:
    """*error* as one of `interfaces`' errors. *committing*: COMMIT failed, so the outcome may be open."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    match code:
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return Corrupt(f"the database file is damaged: {error}")
        case sqlite3.SQLITE_FULL:
            return Refused("the disk, or the room that the database may take, is full")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return Refused(f"the database file or its folder cannot be written: {error}")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Refused(f"the database is locked: {error}")
        case sqlite3.SQLITE_IOERR:
            return (Unavailable if committing else Refused)(f"the disk reports an error: {error}")
    return Unavailable(str(error)) if committing else StorageError(f"{type(error).__name__}: {error}")


def _connect(path: Path, cache_kib: int, mmap_bytes: int) -> sqlite3.Connection:
    db = sqlite3.connect(
        path, timeout=BUSY_MILLISECONDS / 1000, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    db.execute(f"PRAGMA mmap_size = {mmap_bytes}")
    db.execute(f"PRAGMA cache_size = -{cache_kib}")
    db.execute("PRAGMA temp_store = MEMORY")
    return db


def open_writer(path: Path, max_bytes: int | None = None) -> sqlite3.Connection:
    """Open *path* for the one process that writes, and bring its tables up to date.

    *max_bytes*: how large the file may become. Raises: StorageError.
    """
    db: sqlite3.Connection | None = None
    try:
        db = _connect(path, 65_536, 0)
        db.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise StorageError(f"{path}: the file system does not allow a write-ahead log")
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        db.execute(f"PRAGMA journal_size_limit = {4 * CHECKPOINT_PAGES * PAGE_SIZE}")
        if max_bytes is not None:
            db.execute(f"PRAGMA max_page_count = {max(1, max_bytes // PAGE_SIZE)}")
        migrate(db, str(path))
        return db
    except sqlite3.Error as error:
        if db is not None:
            db.close()
        translated = translate(error)
        raise type(translated)(f"{path}: {translated}") from error
    except BaseException:
        if db is not None:
            db.close()
        raise


def open_reader(path: Path) -> sqlite3.Connection:
    """Open *path* for reading only. Raises: sqlite3.Error."""
    if not path.exists():
        raise sqlite3.OperationalError(f"{path} does not exist")
    db = _connect(path, 16_384, MMAP_BYTES)
    db.execute("PRAGMA query_only = 1")
    return db


def migrate(db: sqlite3.Connection, name: str, migrations: Mapping[int, str] = MIGRATIONS) -> None:
    """Carry out the migrations that *db* lacks, each in a transaction. Raises: StorageError for a newer schema."""
    newest = max(migrations)
    present = db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'schema_version'").fetchone()[0]
    version = (db.execute("SELECT max(version) FROM schema_version").fetchone()[0] or 0) if present else 0
    if version > newest:
        raise StorageError(
            f"{name}: written by a newer version of the suite (schema {version}, this one knows {newest}); "
            "install that version, or restore a backup from before the upgrade"
        )
    for number in range(version + 1, newest + 1):
        script = (
            "BEGIN IMMEDIATE;\n"
            "CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY, done TEXT NOT NULL);\n"
            f"{migrations[number]}\n"
            f"INSERT INTO schema_version VALUES ({number}, datetime('now'));\n"
            "COMMIT;"
        )
        try:
            db.executescript(script)
        except sqlite3.Error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
