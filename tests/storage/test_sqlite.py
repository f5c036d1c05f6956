"""What is SQLite's own: group commit, versions of the schema, and what happens when the disk does not do its part."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.storage.engines import EngineCase
from twisted_mail.storage.interfaces import (
    AlreadyExists,
    Conflict,
    Corrupt,
    Domain,
    MessageRow,
    Refused,
    StorageError,
    Unavailable,
)
from twisted_mail.storage.sqlite import SQLiteEngine, engine, schema
from twisted_mail.storage.sqlite.operations import OPERATIONS, error_from_wire, error_to_wire, operation
from twisted_mail.storage.sqlite.writer import LocalWriter
from twisted_mail.storage.testing.base import fails, together
from twisted_mail.storage.testing.log import new_entries
from twisted_mail.storage.testing.messages import message_row
from twisted_mail.values import AccountId, MessageId, MessageKey, ModSeq


class Connection:
    """A connection whose COMMIT fails on demand, before or after it was carried out."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        self.fail: str | None = None
        self.statements: list[str] = []

    def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
        self.statements.append(statement)
        if statement == "COMMIT" and self.fail is not None:
            fail, self.fail = self.fail, None
            if fail == "after":
                self.db.execute(statement)
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error
        return self.db.execute(statement, *parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.db, name)


class SQLiteCase(EngineCase):
    async def with_connection(self) -> tuple[SQLiteEngine, Connection]:
        made: list[Connection] = []

        def opened(path: Path, max_bytes: int | None = None) -> Any:
            made.append(Connection(schema.open_writer(path, max_bytes)))
            return made[0]

        with patch("twisted_mail.storage.sqlite.writer.open_writer", opened):
            built = await self.sqlite()
        return built, made[0]

    def writer(self, built: SQLiteEngine) -> LocalWriter:
        assert built.writers.local is not None
        return built.writers.local


class GroupCommitTests(SQLiteCase):
    async def test_what_waits_for_any_account_is_committed_at_once(self) -> None:
        built = await self.sqlite()
        writer = self.writer(built)
        accounts = [AccountId.new() for _ in range(100)]
        await together(*(built.account_log.append(account, ModSeq(0), new_entries(2)) for account in accounts))
        self.assertEqual(writer.operations, 100)
        # one or a few: the first write may go alone while the others come in
        self.assertGreater(4, writer.commits)
        for account in accounts:
            self.assertEqual(await built.account_log.head(account), 2)

    async def test_one_operation_that_is_refused_does_not_disturb_its_company(self) -> None:
        built = await self.sqlite()
        account = AccountId.new()
        await built.account_log.append(account, ModSeq(0), new_entries(1))
        await built.directory.add_domain(Domain("example.org"))
        other = AccountId.new()
        outcomes = await together(
            built.account_log.append(account, ModSeq(1), new_entries(3)),
            built.account_log.append(account, ModSeq(0), new_entries(3)),
            built.account_log.append(other, ModSeq(0), new_entries(1)),
            built.account_log.append(account, ModSeq(4), new_entries(1)),
        )
        self.assertEqual([outcomes[0], outcomes[2], outcomes[3]], [4, 1, 5])
        self.assertTrue(isinstance(outcomes[1], Conflict))
        self.assertTrue(
            isinstance((await together(built.directory.add_domain(Domain("example.org"))))[0], AlreadyExists)
        )

    async def test_an_operation_that_fails_halfway_leaves_nothing(self) -> None:
        def half(tx: Any, account: bytes) -> None:
            tx.db.execute("INSERT INTO account_head (account, head) VALUES (?, 7)", (account,))
            raise Conflict("halfway")

        built, account = await self.sqlite(), AccountId.new()
        with patch.dict(OPERATIONS, {"test.half": half}):
            await fails(Conflict, built.writers.write("test.half", account.octets))
        self.assertEqual(await built.account_log.head(account), 0)

    async def test_every_commit_is_forced_to_disk(self) -> None:
        built, connection = await self.with_connection()
        await built.account_log.append(AccountId.new(), ModSeq(0), new_entries(1))
        self.assertEqual(connection.db.execute("PRAGMA synchronous").fetchone()[0], 2)
        self.assertEqual(connection.db.execute("PRAGMA journal_mode").fetchone()[0], "wal")

    async def test_a_commit_that_fails_leaves_the_outcome_open_and_settling_tells_it(self) -> None:
        for fail, stands in (("before", False), ("after", True)):
            built, connection = await self.with_connection()
            account, entries = AccountId.new(), new_entries(2)
            connection.fail = fail
            error = await fails(Unavailable, built.account_log.append(account, ModSeq(0), entries))
            self.assertFalse(isinstance(error, Refused))
            connection.statements.clear()
            self.assertEqual(
                await built.account_log.settle(account, ModSeq(0), [entry.id for entry in entries]), stands
            )
            # the write-ahead log went on before the answer
            self.assertTrue(any(statement.startswith("UPDATE fence") for statement in connection.statements))
            self.assertEqual(await built.account_log.head(account), 2 if stands else 0)

    async def test_operations_have_one_name_each_and_errors_pass_the_socket(self) -> None:
        with self.assertRaises(ValueError):  # type: ignore[no-untyped-call]  # trial's
            operation("log.append")(lambda tx: None)
        for error in (Conflict("a"), Refused("b"), Corrupt("c"), StorageError("d")):
            again = error_from_wire(*error_to_wire(error))
            self.assertEqual((type(again), str(again)), (type(error), str(error)))
        self.assertEqual(type(error_from_wire("Engine", "x")), StorageError)


class TroubleTests(SQLiteCase):
    async def test_a_full_disk_refuses_writes_and_reading_goes_on(self) -> None:
        built = await self.sqlite(max_bytes=600_000)
        account, kept = AccountId.new(), message_row()
        await built.messages.put(account, [kept])
        big = [MessageRow(MessageKey(0, MessageId.new()), {"inline": os.urandom(51_200)}) for _ in range(40)]
        error = await fails(Refused, built.messages.put(account, big))
        self.assertTrue("full" in str(error))
        self.assertEqual([len(batch) async for batch in built.messages.iterate(account)], [1])
        await built.messages.delete_many(account, [kept.key])
        await built.account_log.append(account, ModSeq(0), new_entries(1))

    async def test_what_is_no_database_is_said_to_be_damaged(self) -> None:
        folder = self.folder()
        (folder / "mail.sqlite").write_bytes(b"this is not a database" * 1000)
        error = await fails(Corrupt, self.sqlite(folder))
        self.assertTrue("mail.sqlite" in str(error))
        self.assertEqual((folder / "mail.sqlite").read_bytes()[:22], b"this is not a database")

    async def test_a_damaged_page_is_an_error_and_no_answer(self) -> None:
        folder, account = self.folder(), AccountId.new()
        built = await self.sqlite(folder)
        await built.messages.put(account, [message_row(number=number) for number in range(500)])
        await built.stop()
        database = folder / "mail.sqlite"
        damaged = bytearray(database.read_bytes())
        for page in range(30, len(damaged) // schema.PAGE_SIZE):
            damaged[page * schema.PAGE_SIZE : page * schema.PAGE_SIZE + 200] = b"\xff" * 200
        database.write_bytes(damaged)
        built = await self.sqlite(folder)

        async def read() -> int:
            return sum([len(batch) async for batch in built.messages.iterate(account)])

        await fails(StorageError, read())

    async def test_a_folder_that_cannot_be_made_is_named(self) -> None:
        folder = self.folder()
        (folder / "file").write_text("")
        error = await fails(StorageError, self.sqlite(folder / "file" / "data"))
        self.assertTrue(str(folder / "file" / "data") in str(error))

    async def test_a_read_only_file_is_refused_in_words(self) -> None:
        error = sqlite3.OperationalError("attempt to write a readonly database")
        error.sqlite_errorcode = sqlite3.SQLITE_READONLY
        self.assertEqual(type(schema.translate(error)), Refused)
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY_SNAPSHOT
        self.assertEqual(type(schema.translate(error)), Refused)
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
        self.assertEqual(type(schema.translate(error, committing=True)), Unavailable)


class SchemaTests(SQLiteCase):
    async def test_a_newer_schema_is_refused_and_not_touched(self) -> None:
        folder = self.folder()
        await (await self.sqlite(folder)).stop()
        db = sqlite3.connect(folder / "mail.sqlite")
        db.execute("INSERT INTO schema_version VALUES (99, 'tomorrow')")
        db.commit()
        db.close()
        error = await fails(StorageError, self.sqlite(folder))
        self.assertTrue("99" in str(error) and "newer" in str(error))

    async def test_a_database_is_brought_up_to_date_once_and_keeps_what_it_has(self) -> None:
        folder, account = self.folder(), AccountId.new()
        built = await self.sqlite(folder)
        await built.account_log.append(account, ModSeq(0), new_entries(1))
        await built.stop()
        newer = {**schema.MIGRATIONS, schema.VERSION + 1: "ALTER TABLE account_head ADD COLUMN extra INTEGER;"}
        for _ in range(2):
            db = sqlite3.connect(folder / "mail.sqlite", isolation_level=None)
            schema.migrate(db, "mail.sqlite", newer)
            versions = [row[0] for row in db.execute("SELECT version FROM schema_version ORDER BY version")]
            self.assertEqual(versions, [*range(1, schema.VERSION + 2)])
            self.assertEqual(db.execute("SELECT head, extra FROM account_head").fetchall(), [(1, None)])
            db.close()

    async def test_a_migration_that_fails_leaves_the_old_version(self) -> None:
        db = sqlite3.connect(":memory:", isolation_level=None)
        schema.migrate(db, "x", {1: "CREATE TABLE a (b);"})
        with self.assertRaises(sqlite3.Error):  # type: ignore[no-untyped-call]  # trial's
            schema.migrate(db, "x", {1: "", 2: "CREATE TABLE c (d); CREATE TABLE a (b);"})
        self.assertEqual(db.execute("SELECT max(version) FROM schema_version").fetchone(), (1,))
        self.assertEqual(db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'c'").fetchone(), (0,))
        db.close()

    async def test_urls(self) -> None:
        folder = self.folder()
        for url, path in (
            ("sqlite:", folder / "mail.sqlite"),
            ("sqlite", folder / "mail.sqlite"),
            ("sqlite:other.db?readers=2", folder / "other.db"),
            ("sqlite:///tmp/x.db", Path("/tmp/x.db")),
        ):
            built = engine(url, self.context(folder))
            assert isinstance(built, SQLiteEngine)
            self.assertEqual(built._database, path)
        for url in ("sqlite://host/x", "sqlite:?colour=red", "sqlite:?readers=none", "sqlite:?readers=0"):
            with self.assertRaises(ValueError):  # type: ignore[no-untyped-call]  # trial's
                engine(url, self.context(folder))

    async def test_two_databases_in_one_folder_have_a_writer_each(self) -> None:
        folder = self.folder()
        one = await self.sqlite(folder)
        two = SQLiteEngine(folder / "other.sqlite", self.context(folder))
        await two.start()
        self.addCleanup(self.stop, two)
        self.assertTrue(one.writers.local and two.writers.local)
