"""The sweeper over the embedded store, beside deliveries of the very content that it takes away."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from twisted_mail.account.audit import Audit
from twisted_mail.account.intents import AddMessages, new_message
from twisted_mail.account.service import AccountService
from twisted_mail.account.sweeping import Sweeper, SweepSettings, Swept
from twisted_mail.storage import Backend, open_backend
from twisted_mail.storage.interfaces import EngineContext
from twisted_mail.storage.testing.base import Suite
from twisted_mail.values import AccountId, BlobRef

BODY = b"Content-Type: application/x\r\n\r\n" + b"0123456789" * 9000


class SweepingOnSQLiteTests(Suite, TestCase):
    async def build(self) -> tuple[Backend, AccountService]:
        from twisted.internet import reactor

        made = tempfile.TemporaryDirectory(prefix="sweeping-")
        self.addCleanup(made.cleanup)
        backend = open_backend({}, EngineContext(reactor, Path(made.name)))
        await backend.start()
        service = AccountService(
            log=backend.account_log,
            messages=backend.messages,
            blobs=backend.blobs,
            leases=backend.leases,
            bus=backend.bus,
            references=backend.references,
            clock=reactor,
        )

        async def stop() -> None:
            await service.stop()
            await backend.stop()

        self.addCleanup(lambda: Deferred.fromCoroutine(stop()))
        return backend, service

    async def deliver(self, service: AccountService, id: AccountId, body: bytes = BODY) -> None:
        account = await service.open(id)
        writer = service.writer(id)
        await writer.write(body)
        stored = await account.store(await writer.finish())
        await account.commit(AddMessages(mailbox=account.state.inbox.id, messages=(new_message(stored, 1),)))
        service.release(account)

    async def erase(self, backend: Backend, service: AccountService, id: AccountId) -> None:
        service.forget(id)
        async for _ in service.store.erase(id):
            pass
        await backend.account_log.erase(id)

    def sweeper(self, backend: Backend) -> Sweeper:
        from twisted.internet import reactor

        # no waiting: what one thread has written the other sees, so the two looks alone must do
        settings = SweepSettings(wait_seconds=0, margin_seconds=0)
        return Sweeper(
            backend.references, backend.blobs, backend.leases, clock=reactor, wall=time.time, settings=settings
        )

    async def objects(self, backend: Backend) -> list[BlobRef]:
        return [ref async for ref in backend.blobs.iterate()]

    async def read(self, service: AccountService, id: AccountId) -> list[bytes]:
        account = await service.open(id)
        columns = await account.columns(account.state.inbox)
        keys = [columns.key(slot) for slot in columns.live]
        found = [b"".join([chunk async for chunk in account.octets(key)]) for key in keys]
        service.release(account)
        return found

    async def test_shared_content_goes_with_the_last_account_that_has_it(self) -> None:
        backend, service = await self.build()
        one, two = AccountId.new(), AccountId.new()
        for id in (one, two):
            await self.deliver(service, id)
        self.assertEqual(len(await self.objects(backend)), 1)
        await self.erase(backend, service, one)
        self.assertEqual(await self.sweeper(backend).run_once(), Swept(listed=1, kept=1))
        self.assertEqual(await self.read(service, two), [BODY])
        await self.erase(backend, service, two)
        self.assertEqual(await self.sweeper(backend).run_once(), Swept(listed=1, condemned=1))
        size = (await self.objects(backend))[0].size
        self.assertEqual(await self.sweeper(backend).run_once(), Swept(listed=1, deleted=1, deleted_bytes=size))
        self.assertEqual(await self.objects(backend), [])

    async def test_sweepers_beside_deliveries_of_the_same_content(self) -> None:
        backend, service = await self.build()
        accounts = [AccountId.new() for _ in range(8)]
        going = True

        async def sweep() -> int:
            deleted = 0
            while going:
                swept = await self.sweeper(backend).run_once()
                deleted += swept.deleted if swept is not None else 0
            return deleted

        async def come_and_go(id: AccountId, times: int) -> None:
            for number in range(times):
                await self.deliver(service, id)
                self.assertEqual(await self.read(service, id), [BODY])
                if number < times - 1:
                    await self.erase(backend, service, id)

        sweeping = Deferred.fromCoroutine(sweep())
        # one after the other, so that there are moments at which nobody holds the content
        for id in accounts[:4]:
            await come_and_go(id, 6)
            await self.erase(backend, service, id)
        await gatherResults([Deferred.fromCoroutine(come_and_go(id, 4)) for id in accounts[4:]])
        going = False
        deleted: Any = await sweeping
        self.assertGreater(deleted, 0)
        for id in accounts[4:]:
            self.assertEqual(await self.read(service, id), [BODY])
        self.assertEqual((await self.audited(backend, accounts)).damage, 0)

    async def audited(self, backend: Backend, accounts: list[AccountId]) -> Any:
        async def ids() -> Any:
            for id in accounts:
                yield id

        async def known(id: AccountId) -> bool:
            return id in accounts

        async def pause() -> None:
            pass

        audit = Audit(
            log=backend.account_log,
            messages=backend.messages,
            blobs=backend.blobs,
            references=backend.references,
            wall=time.time,
            pause=pause,
        )
        return await audit.run(ids(), known)
