"""The queue's way over the embedded store for real: SQLite, files, threads, the reactor's own time."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.delivery.queue_house import MESSAGE, Switched
from tests.delivery.support import PEER
from twisted_mail.account.service import AccountService
from twisted_mail.delivery import Bodies, DeliveryCounts, DeliverySettings, InboundQueue, MailIntake, SpoolFolder, Ways
from twisted_mail.delivery.placing import Placer
from twisted_mail.delivery.worker import DeliveryWorker, WorkerSettings
from twisted_mail.queueing.leasing import LeaseSettings
from twisted_mail.services import Envelope
from twisted_mail.storage import open_backend
from twisted_mail.storage.interfaces import AccountRecord, Domain, EngineContext, QueueFilter
from twisted_mail.tap.threads import Threads
from twisted_mail.values import AccountId

LARGE = b"Subject: large\r\n\r\n" + b"0123456789abcdef" * 65_536


class QueueOnSQLiteTests(TestCase):
    timeout = 60

    async def build(self, *, straight: bool) -> None:
        from twisted.internet import reactor as found  # not before trial has installed it

        reactor: Any = found
        self.folder = Path(tempfile.mkdtemp(prefix="queue-"))
        self.addCleanup(shutil.rmtree, self.folder, True)
        self.backend = open_backend({}, EngineContext(reactor, self.folder))
        await self.backend.start()
        self.threads = Threads(reactor, 2, "spool")
        self.log = Switched(self.backend.account_log)
        self.accounts = AccountService(
            log=self.log,
            messages=self.backend.messages,
            blobs=self.backend.blobs,
            references=self.backend.references,
            leases=self.backend.leases,
            bus=self.backend.bus,
            clock=reactor,
        )
        bodies = Bodies(self.backend.blobs, self.backend.references, reactor)
        self.counts = DeliveryCounts()
        queue = InboundQueue(
            self.backend.queue, bodies, SpoolFolder(self.folder / "spool", self.threads.defer), reactor, counts=self.counts
        )
        ways = Ways(
            accounts=self.accounts,
            clock=reactor,
            queue=queue,
            straight=straight,
            straight_seconds=0.2,
            counts=self.counts,
        )
        self.intake = MailIntake(self.backend.directory, ways, DeliverySettings(hostname="mx.example.org"))
        self.worker = DeliveryWorker(
            self.backend.queue,
            bodies,
            self.accounts,
            self.backend.directory,
            reactor,
            settings=WorkerSettings(lease=LeaseSettings(poll_seconds=0.05)),
            counts=self.counts,
        )
        queue.wake(self.worker.wake)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.close()))
        await self.backend.directory.add_domain(Domain("example.org"))
        self.ann = AccountRecord(AccountId.new(), "ann@example.org")
        await self.backend.directory.add_account(self.ann)

    async def close(self) -> None:
        await self.worker.stop(5)
        await self.accounts.stop()
        await self.backend.stop()
        self.threads.stop()

    async def give(self, message: bytes) -> None:
        recipient = await self.intake.recipient("ann@example.org", identity=None)
        incoming = await self.intake.begin(Envelope("a@b.example", (recipient,), PEER, "client.example", "ESMTP"))
        for at in range(0, len(message), 65_536):
            await incoming.write(message[at : at + 65_536])
        [outcome] = await incoming.finish()
        assert outcome.refused is None

    async def emptied(self) -> None:
        from twisted.internet import reactor

        for _ in range(200):
            # what an item held is given up after it is acknowledged
            if not await self.backend.queue.list(QueueFilter()) and not await self.holders():
                return
            await deferLater(reactor, 0.05)
        self.fail("items are left")

    async def mailbox(self) -> list[bytes]:
        account = await self.accounts.open(self.ann.id)
        columns = await account.columns(account.state.inbox)
        found = [b"".join([chunk async for chunk in account.octets(columns.key(slot))]) for slot in columns.live]
        self.accounts.release(account)
        return found

    async def holders(self) -> list[str]:
        return [holder async for _, holder in self.backend.references.iterate() if holder.startswith("q/")]

    async def test_what_is_queued_is_delivered_octet_for_octet(self) -> None:
        await self.build(straight=False)
        await self.give(LARGE)
        await self.give(MESSAGE)
        assert len(await self.holders()) == 2
        assert await self.mailbox() == []
        self.worker.start()
        await self.emptied()
        large, small = sorted(await self.mailbox(), key=len, reverse=True)
        assert large.endswith(LARGE) and small.endswith(MESSAGE)
        assert await self.holders() == []
        assert list((self.folder / "spool").iterdir()) == []

    async def test_a_store_that_hangs_and_comes_back_has_it_once(self) -> None:
        await self.build(straight=True)
        await self.give(MESSAGE)
        self.log.mode, self.log.only = "hang", {"append", "append_with_rows"}
        await self.give(MESSAGE)
        assert (self.counts.straight, self.counts.queued) == (1, 1)
        self.log.mode = "up"
        fresh = AccountService(
            log=self.backend.account_log,
            messages=self.backend.messages,
            blobs=self.backend.blobs,
            references=self.backend.references,
            leases=self.backend.leases,
            bus=self.backend.bus,
            clock=self.accounts.clock,
        )
        stuck, self.accounts = self.accounts, fresh  # what hangs in the first is never answered
        self.worker._accounts, self.worker._placer = fresh, Placer(fresh)
        self.worker.start()
        await self.emptied()
        assert len(await self.mailbox()) == 2
        del stuck
