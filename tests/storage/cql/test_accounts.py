"""Accounts over a real cluster: nodes that append at once, checkpoints, trimming, and a state read anew elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from pyroaring import BitMap
from twisted.internet.defer import Deferred, gatherResults

from tests.storage.cql.cluster import ClusterCase
from twisted_mail.account.entries import pack_uids
from twisted_mail.account.intents import AddMessages, ChangeFlags, Expunge, new_message
from twisted_mail.account.service import AccountService, AccountSettings
from twisted_mail.storage.cql.leases import CQLLeases
from twisted_mail.storage.cql.log import CQLAccountLog
from twisted_mail.storage.cql.messages import CQLMessages
from twisted_mail.storage.cql.references import CQLReferences
from twisted_mail.storage.memory import MemoryBlobs, MemoryBus
from twisted_mail.values import AccountId

pytestmark = pytest.mark.cluster


def octets(number: int) -> bytes:
    return b"Subject: %d\r\n\r\n" % number + b"x" * 500 + b"\r\n"


class AccountOnCQLTests(ClusterCase):
    async def nodes(self, count: int, **settings: Any) -> list[AccountService]:
        """As many nodes over one cluster; they share what is not in it."""
        session, blobs, bus = await self.session(), MemoryBlobs(), MemoryBus(self.reactor)
        services = [
            AccountService(
                log=CQLAccountLog(session),
                messages=CQLMessages(session),
                blobs=blobs,
                leases=CQLLeases(session, self.reactor),
                bus=bus,
                references=CQLReferences(session),
                clock=self.reactor,
                settings=AccountSettings(**settings),
            )
            for _ in range(count)
        ]
        for service in services:
            self.addCleanup(self.stop, service)
        return services

    def stop(self, service: AccountService) -> Deferred[None]:
        return Deferred.fromCoroutine(service.stop())

    async def deliver(self, service: AccountService, account: Any, number: int) -> None:
        writer = service.writer(account.id)
        await writer.write(octets(number))
        stored = await account.store(await writer.finish())
        await account.commit(AddMessages(mailbox=account.state.inbox.id, messages=(new_message(stored, 1),)))

    async def read_all(self, account: Any) -> list[bytes]:
        columns = await account.columns(account.state.inbox)
        return [b"".join([chunk async for chunk in account.octets(columns.key(slot))]) for _, slot in columns.iterate()]

    async def uids(self, account: Any) -> Sequence[tuple[int, int]]:
        columns = await account.columns(account.state.inbox)
        return [(columns.uids[slot], columns.modseqs[slot]) for _, slot in columns.iterate()]

    async def test_two_nodes_append_at_once_and_agree_with_a_third_that_comes_later(self) -> None:
        services = await self.nodes(3, checkpoint_entries=15)
        id = AccountId.new()
        accounts: list[Any] = [await services[at].open(id) for at in range(2)]
        await gatherResults(
            [
                Deferred.fromCoroutine(self.deliver(services[at], accounts[at], number))
                for at in range(2)
                for number in range(20)
            ]
        )
        inbox = accounts[0].state.inbox.id
        await accounts[0].refresh()
        await accounts[0].commit(
            ChangeFlags(mailbox=inbox, uids=pack_uids(BitMap(range(1, 6))), mode="add", flags=("\\Deleted",))
        )
        await accounts[1].refresh()
        await accounts[1].commit(Expunge(mailbox=inbox, uids=pack_uids(BitMap(range(1, 4)))))
        for account in accounts:
            await account.checkpoint()
            await account.refresh()
        third: Any = await services[2].open(id)
        expected = await self.uids(accounts[0])
        self.assertEqual(len(expected), 37)
        for account in (accounts[1], third):
            self.assertEqual(await self.uids(account), expected)
            self.assertEqual(account.state.modseq, accounts[0].state.modseq)
        self.assertEqual(sorted(set(await self.read_all(third))), sorted({octets(n) for n in range(20)}))
        log = services[2].log
        checkpoint = await log.load_checkpoint(id, None)
        assert checkpoint is not None and checkpoint.modseq > 15
