"""Accounts over the embedded store: rows and entries in one transaction, two nodes, and what is there after a restart."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from twisted_mail.account import committer, rows
from twisted_mail.account.errors import AccountUnavailable, OverQuota
from twisted_mail.account.intents import Added, AddMessages, new_message
from twisted_mail.account.service import AccountService, AccountSettings
from twisted_mail.services import Account, StoredMessage
from twisted_mail.storage import Backend, open_backend
from twisted_mail.storage.interfaces import EngineContext, Refused
from twisted_mail.values import AccountId


def octets(number: int, size: int = 2000) -> bytes:
    return b"Subject: %d\r\n\r\n" % number + b"x" * size + b"\r\n"


class AccountOnSQLiteTests(TestCase):
    def folder(self) -> Path:
        made = tempfile.TemporaryDirectory(prefix="account-")
        self.addCleanup(made.cleanup)
        return Path(made.name)

    async def build(self, folder: Path, **settings: Any) -> tuple[Backend, AccountService]:
        from twisted.internet import reactor

        backend = open_backend({}, EngineContext(reactor, folder))
        await backend.start()
        service = AccountService(
            log=backend.account_log,
            messages=backend.messages,
            blobs=backend.blobs,
            leases=backend.leases,
            bus=backend.bus,
            clock=reactor,
            settings=AccountSettings(**settings),
        )

        async def stop() -> None:
            await service.stop()
            await backend.stop()

        self.addCleanup(lambda: Deferred.fromCoroutine(stop()))
        return backend, service

    async def deliver(self, service: AccountService, account: Account, number: int, **options: Any) -> Added:
        writer = service.writer()
        await writer.write(octets(number))
        stored = await account.store(await writer.finish())
        return await account.commit(
            AddMessages(mailbox=account.state.inbox.id, messages=(new_message(stored, 1),), **options)
        )

    async def read_all(self, account: Account) -> list[bytes]:
        columns = await account.columns(account.state.inbox)
        found = []
        for _, slot in columns.iterate():
            found.append(b"".join([chunk async for chunk in account.octets(columns.key(slot))]))
        return found

    async def keys(self, backend: Backend, account: Account) -> int:
        return sum([len(batch) async for batch in backend.messages.iterate(account.id)])

    async def test_a_row_is_written_with_its_entry_and_not_where_that_is_refused(self) -> None:
        backend, service = await self.build(self.folder())
        account = await service.open(AccountId.new())
        await self.deliver(service, account, 1)
        try:
            await self.deliver(service, account, 2, quota_bytes=100)
        except OverQuota:
            pass
        else:
            self.fail("over quota")
        assert await self.read_all(account) == [octets(1)]
        assert await self.keys(backend, account) == 1

    async def test_two_nodes_deliver_at_once_and_every_row_is_there(self) -> None:
        _, service = await self.build(self.folder(), checkpoint_entries=10)
        other = AccountService(
            log=service.log,
            messages=service.store._messages,
            blobs=service.store._blobs,
            leases=service._leases,
            bus=service.bus,
            clock=service.clock,
            settings=service.settings,
        )
        id = AccountId.new()
        accounts = [await service.open(id), await other.open(id)]
        await gatherResults(
            [
                Deferred.fromCoroutine(self.deliver(node, account, number))
                for node, account in zip((service, other), accounts, strict=True)
                for number in range(30)
            ]
        )
        for account in accounts:
            await account.refresh()
            assert sorted(await self.read_all(account)) == sorted([octets(n) for n in range(30)] * 2)
        await other.stop()

    async def test_stored_messages_whose_entry_takes_long_are_written_all_the_same(self) -> None:
        backend, service = await self.build(self.folder())
        account = await service.open(AccountId.new())
        stored = []
        for number in range(rows.MAX_UNWRITTEN + 10):
            writer = service.writer()
            await writer.write(octets(number))
            stored.append(await account.store(await writer.finish()))
        assert await self.keys(backend, account) == 10
        messages = tuple(new_message(each, 1) for each in stored)
        await account.commit(AddMessages(mailbox=account.state.inbox.id, messages=messages))
        assert await self.read_all(account) == [octets(n) for n in range(len(stored))]

    async def stored(self, service: AccountService, account: Account, size: int) -> StoredMessage:
        writer = service.writer()
        await writer.write(octets(0, size))
        return await account.store(await writer.finish())

    async def test_what_waits_in_memory_for_its_entry_is_bounded_in_octets_and_goes_with_the_last_user(self) -> None:
        _, service = await self.build(self.folder())
        account: Any = await service.open(AccountId.new())
        stored = [await self.stored(service, account, 300_000) for _ in range(20)]

        def waiting() -> int:
            return sum(len(cell) for row in account._unwritten.values() for cell in row.cells.values())

        assert 0 < waiting() <= rows.MAX_UNWRITTEN_BYTES
        before = set(account._unwritten)
        await self.stored(service, account, rows.MAX_UNWRITTEN_BYTES + 1)
        assert set(account._unwritten) == before, "it is written at once, and drives out no other"
        messages = tuple(new_message(each, 1) for each in stored)
        await account.commit(AddMessages(mailbox=account.state.inbox.id, messages=messages))
        assert await self.read_all(account) == [octets(0, 300_000)] * 20
        await self.stored(service, account, 10)
        service.release(account)
        assert not waiting()

    async def test_what_cannot_be_stored_does_not_stay_in_memory(self) -> None:
        _, service = await self.build(self.folder())
        account: Any = await service.open(AccountId.new())
        for _ in range(rows.MAX_UNWRITTEN):
            await self.stored(service, account, 10)

        async def full(*arguments: Any) -> None:
            raise Refused("the disk is full")

        service.store.put = full  # type: ignore[method-assign, assignment]
        for _ in range(3):
            try:
                await self.stored(service, account, 10)
            except AccountUnavailable:
                pass
            else:
                self.fail("stored")
        assert len(account._unwritten) == rows.MAX_UNWRITTEN

    async def test_an_append_has_no_more_octets_than_can_be_handed_on(self) -> None:
        _, service = await self.build(self.folder())
        account = await service.open(AccountId.new())
        assert service.appends_rows is not None
        append, sizes = service.appends_rows.append_with_rows, []

        async def recorded(id: Any, expected: Any, entries: Any, written: Any) -> Any:
            sizes.append(sum(map(rows.octets_of, written)))
            return await append(id, expected, entries, written)

        service.appends_rows.append_with_rows = recorded  # type: ignore[method-assign, assignment]
        self.patch(committer, "MAX_GROUP_BYTES", 20_000)  # type: ignore[no-untyped-call]  # trial's
        deliveries = [Deferred.fromCoroutine(self.deliver(service, account, number)) for number in range(30)]
        await gatherResults(deliveries)
        assert sum(sizes) > 60_000 and max(sizes) < 30_000
        assert len(await self.read_all(account)) == 30

    async def test_everything_is_there_after_a_restart(self) -> None:
        folder = self.folder()
        id = AccountId.new()
        backend, service = await self.build(folder, checkpoint_entries=7)
        account = await service.open(id)
        for number in range(20):
            await self.deliver(service, account, number)
        await service.stop()
        await backend.stop()
        _, again = await self.build(folder)
        account = await again.open(id)
        assert await self.read_all(account) == [octets(n) for n in range(20)]
