"""Several processes on one database: who writes, and what holds when it is killed."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from tests.storage.engines import EngineCase
from twisted_mail.storage.interfaces import Conflict, NewEntry, Refused, Unavailable
from twisted_mail.storage.sqlite import SQLiteEngine
from twisted_mail.storage.sqlite.wire import HELLO, FrameProtocol
from twisted_mail.storage.testing.base import fails
from twisted_mail.storage.testing.log import new_entries
from twisted_mail.values import AccountId, EntryId, ModSeq

ROOT = Path(__file__).parents[2]


class Second(ProcessProtocol):
    """Another process, and what it has said."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.errors = b""
        self.ended: Deferred[int | None] = Deferred()
        self._rest = ""
        self._awaited: list[tuple[int, Deferred[None]]] = []

    def outReceived(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data.decode()).split("\n")
        self.lines += lines
        for waiting in list(self._awaited):
            if len(self.lines) >= waiting[0]:
                self._awaited.remove(waiting)
                waiting[1].callback(None)

    def errReceived(self, data: bytes) -> None:
        self.errors += data

    def said(self, count: int) -> Deferred[None]:
        """Fires when it has said *count* lines."""
        done: Deferred[None] = Deferred()
        if len(self.lines) >= count:
            done.callback(None)
        else:
            self._awaited.append((count, done))
        return done

    def processEnded(self, reason: Failure) -> None:
        assert isinstance(reason.value, (ProcessDone, ProcessTerminated))
        for _, done in self._awaited:
            done.errback(AssertionError(f"it ended: {self.errors.decode()}"))
        self.ended.callback(reason.value.exitCode)

    def acknowledged(self) -> list[tuple[AccountId, int, EntryId]]:
        words = [line.split() for line in self.lines]
        return [(AccountId.parse(w[0]), int(w[1]), EntryId.parse(w[2])) for w in words if len(w) == 3]


class Older(FrameProtocol):
    """A writer of another version."""

    def frame_received(self, frame: list[Any]) -> None:
        self.send(HELLO, 1, b"")


class Stranger(Protocol):
    """Somebody who connects and speaks something else."""

    def __init__(self, gone: Deferred[None]) -> None:
        self._gone = gone

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone.callback(None)


class ProcessCase(EngineCase):
    def second(self, folder: Path, count: int, accounts: list[AccountId]) -> Second:
        """Start the second process; it is killed at the end of the test."""
        return self.spawn("tests.storage.second_process", folder, count, *accounts)

    def spawn(self, module: str, *arguments: object) -> Second:
        """Run *module* in a process that is killed at the end of the test."""
        protocol = Second()
        command = [sys.executable, "-m", module, *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process: Any = self.reactor.spawnProcess(protocol, sys.executable, command, env=environment, path=str(ROOT))

        def end() -> Deferred[Any] | None:
            if protocol.ended.called:
                return None
            process.signalProcess("KILL")
            return protocol.ended

        self.addCleanup(end)
        return protocol

    async def verify(self, engine: SQLiteEngine, second: Second) -> None:
        """Everything that was acknowledged is there, at its place."""
        for account in {account for account, _, _ in second.acknowledged()}:
            stands = {entry.modseq: entry.id for entry in await engine.account_log.read(account, ModSeq(0))}
            self.assertEqual(sorted(stands), list(range(1, len(stands) + 1)))
            for of, number, id in second.acknowledged():
                if of == account:
                    self.assertEqual(stands.get(ModSeq(number)), id)


class TwoProcessTests(ProcessCase):
    async def test_a_second_process_appends_through_the_first_and_shares_its_commits(self) -> None:
        folder, accounts = self.folder(), [AccountId.new() for _ in range(20)]
        engine = await self.sqlite(folder)
        assert engine.writers.local is not None
        second = self.second(folder, 10, accounts)
        self.assertEqual(await second.ended, 0)
        self.assertEqual((second.lines[0], second.lines[-1]), ("up link", "done"))
        self.assertEqual(len(second.acknowledged()), 200)
        await self.verify(engine, second)
        self.assertGreater(100, engine.writers.local.commits)

    async def test_processes_that_contend_for_one_account_lose_nothing(self) -> None:
        folder, account = self.folder(), AccountId.new()
        engine = await self.sqlite(folder)
        seconds = [self.second(folder, 40, [account]) for _ in range(2)]
        own = 0
        await gatherResults([second.said(2) for second in seconds])
        while own < 40:
            head = await engine.account_log.head(account)
            try:
                await engine.account_log.append(account, head, new_entries(1))
                own += 1
            except Conflict:
                pass
        self.assertEqual(await gatherResults([second.ended for second in seconds]), [0, 0])
        self.assertEqual(await engine.account_log.head(account), 120)
        for second in seconds:
            self.assertEqual(len(second.acknowledged()), 40)
            await self.verify(engine, second)

    async def test_when_the_writer_is_killed_what_was_acknowledged_stands_and_another_writes(self) -> None:
        folder, accounts = self.folder(), [AccountId.new() for _ in range(4)]
        writer = self.second(folder, 0, accounts)
        await writer.said(1)
        self.assertEqual(writer.lines[0], "up writer")
        engine = await self.sqlite(folder)
        link = self.second(folder, 0, [accounts[0], AccountId.new()])
        await gatherResults([writer.said(100), link.said(50)])
        self.assertEqual(link.lines[0], "up link")
        self.assertIsNone(engine.writers.local)
        # appends of this process are in flight when the writer dies
        own = [(AccountId.new(), new_entries(3)) for _ in range(50)]
        running = [Deferred.fromCoroutine(outcome(engine, account, entries)) for account, entries in own]
        assert writer.transport is not None
        writer.transport.signalProcess("KILL")
        outcomes = await gatherResults(running)
        for (account, entries), known in zip(own, outcomes, strict=True):
            stands = await engine.account_log.settle(account, ModSeq(0), [entry.id for entry in entries])
            self.assertEqual(await engine.account_log.head(account), 3 if stands else 0)
            if known is not None:
                self.assertEqual(stands, known)
        await link.said(len(link.lines) + 50)  # it goes on, whoever writes now
        assert link.transport is not None
        link.transport.signalProcess("KILL")
        await link.ended
        await self.verify(engine, writer)
        await self.verify(engine, link)

    async def test_a_process_that_stops_leaves_the_place_to_another(self) -> None:
        folder, account = self.folder(), AccountId.new()
        first = await self.sqlite(folder)
        engine = await self.sqlite(folder)
        await engine.account_log.append(account, ModSeq(0), new_entries(1))
        await first.stop()
        while engine.writers.local is None:
            await deferLater(self.reactor, 0.01, lambda: None)
        self.assertEqual(await engine.account_log.append(account, ModSeq(1), new_entries(1)), 2)
        await fails(Refused, first.account_log.append(account, ModSeq(2), new_entries(1)))
        await fails(Unavailable, first.account_log.head(account))

    async def test_a_writer_that_does_not_answer_is_waited_for_and_then_the_write_refused(self) -> None:
        folder = self.folder()
        engine = await self.sqlite(folder, patience=0.2)
        other = await self.sqlite(folder, patience=0.2)
        # the lock stays, the socket goes: a process that is ending, or whose folder was tampered with
        lock = os.dup(engine.writers._lock)  # type: ignore[arg-type]
        self.addCleanup(os.close, lock)
        await engine.stop()
        while other.writers._link is not None:
            await deferLater(self.reactor, 0.01, lambda: None)
        account = AccountId.new()
        await fails(Refused, other.account_log.append(account, ModSeq(0), new_entries(1)))
        self.assertEqual(await other.account_log.head(account), 0)
        late = SQLiteEngine(folder / "mail.sqlite", self.context(folder), patience=0.1)
        await fails(Unavailable, late.start())

    async def test_a_write_of_a_connection_that_was_given_up_is_not_carried_out_after_it_was_settled(self) -> None:
        folder, account = self.folder(), AccountId.new()
        engine = await self.sqlite(folder)
        other = await self.sqlite(folder)
        entries = new_entries(1)
        old = other.writers._link
        assert old is not None
        # the request is written to the socket, and before the writer has read it the link is given up
        pending = Deferred.fromCoroutine(outcome(other, account, entries))
        other.writers._link = None
        stands = await other.account_log.settle(account, ModSeq(0), [entries[0].id])
        self.assertEqual(await engine.account_log.head(account), 1 if stands else 0)
        await pending
        self.assertEqual(await engine.account_log.head(account), 1 if stands else 0)

    async def test_processes_of_two_versions_do_not_share_a_database(self) -> None:
        folder, account = self.folder(), AccountId.new()
        engine = await self.sqlite(folder)
        newer = SQLiteEngine(folder / "mail.sqlite", self.context(folder), patience=0.1)
        hub = engine.writers._hub
        assert hub is not None
        with patch.object(hub, "buildProtocol", lambda address: Older()):
            error = await fails(Unavailable, newer.start())
        self.assertTrue("another version" in str(error), str(error))
        self.assertEqual(await engine.account_log.append(account, ModSeq(0), new_entries(1)), 1)

    async def test_what_is_no_frame_ends_that_connection_only(self) -> None:
        folder, account = self.folder(), AccountId.new()
        engine = await self.sqlite(folder)
        other = await self.sqlite(folder)
        for noise in (b"GET / HTTP/1.1\r\n\r\n", b"\x00\x00\x00\x02ab", b"\x00\x00\x00\x03\x92\x07\xc0", b"\xff" * 9):
            gone: Deferred[None] = Deferred()
            stranger = Stranger(gone)
            endpoint = UNIXClientEndpoint(self.reactor, str(folder / "writer.sock"))
            await connectProtocol(endpoint, stranger)
            assert stranger.transport is not None
            stranger.transport.write(noise)
            await gone
        self.assertEqual(await other.account_log.append(account, ModSeq(0), new_entries(1)), 1)
        self.assertEqual(await engine.account_log.append(account, ModSeq(1), new_entries(1)), 2)

    async def test_the_socket_and_its_name_may_be_long(self) -> None:
        folder = self.folder() / ("long" * 30)
        account = AccountId.new()
        engine = await self.sqlite(folder)
        other = await self.sqlite(folder)
        self.assertIsNone(other.writers.local)
        self.assertEqual(await other.account_log.append(account, ModSeq(0), new_entries(1)), 1)
        mode = (folder / "writer.sock").stat().st_mode & 0o777
        self.assertEqual(mode, 0o660)
        await other.stop()
        await engine.stop()
        self.assertFalse((folder / "writer.sock").exists())

    async def test_a_writer_that_was_killed_leaves_a_database_that_opens_whole(self) -> None:
        folder, accounts = self.folder(), [AccountId.new() for _ in range(3)]
        writer = self.second(folder, 0, accounts)
        await writer.said(60)
        assert writer.transport is not None
        writer.transport.signalProcess("KILL")
        await writer.ended
        engine = await self.sqlite(folder)
        self.assertTrue(engine.writers.local)
        await self.verify(engine, writer)
        await engine.stop()
        db = sqlite3.connect(folder / "mail.sqlite")
        self.assertEqual(db.execute("PRAGMA integrity_check").fetchone()[0], "ok")
        db.close()


async def outcome(engine: SQLiteEngine, account: AccountId, entries: list[NewEntry]) -> bool | None:
    """Whether the append happened, as far as its caller was told; None: not known."""
    try:
        await engine.account_log.append(account, ModSeq(0), entries)
        return True
    except Refused:
        return False
    except Unavailable:
        return None
