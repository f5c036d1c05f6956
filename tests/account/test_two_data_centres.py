"""Two Cassandra nodes in two data centres: what both lose when both append, and that with homes nothing is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.account.network import Network
from tests.account.test_intents import message
from tests.account.test_machine import NoBus
from tests.services import running
from twisted_mail.account.committer import OpenAccount
from twisted_mail.account.entries import decode_entry
from twisted_mail.account.errors import AccountUnavailable, OutcomeUnknown
from twisted_mail.account.intents import AddMessages
from twisted_mail.account.moving import Moved, move_home
from twisted_mail.account.service import AccountService, AccountSettings
from twisted_mail.storage.cql import CQLEngine, engine
from twisted_mail.storage.interfaces import AccountRecord, Domain, EngineContext
from twisted_mail.values import AccountId, DeliveryId, ModSeq

pytestmark = pytest.mark.cluster
KEYSPACE = f"test_{uuid4().hex[:12]}"
"""For both tests: to make its tables takes longer than either."""
SECONDS = 3.0
"""How long both data centres deliver to one account."""


class TwoDataCentres(TestCase):
    """One account, delivered to from both sides."""

    timeout = 180

    async def world(self, *, rule: bool) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        cluster = running.two_data_centres()
        self.network = Network()
        self.engines: dict[str, CQLEngine] = {}
        self.services: dict[str, AccountService] = {}
        self.account_id = AccountId.new()
        self.acknowledged: list[bytes] = []
        self.unknown: list[bytes] = []
        for at, datacenter in enumerate(("dc1", "dc2")):
            options = {"datacenter": datacenter, "replication": "dc1:1,dc2:1"}
            url = cluster.url(KEYSPACE, **options).replace(
                ",".join(node.address for node in cluster.nodes), cluster.nodes[at].address
            )
            stores: Any = engine(url, EngineContext(reactor, Path("/nonexistent")))
            await stores.start()
            self.addCleanup(self.end, stores)
            members = self.network.end(datacenter)
            service = AccountService(
                log=stores.account_log,
                messages=stores.messages,
                blobs=None,  # type: ignore[arg-type]  # no message has octets
                leases=stores.leases,
                bus=NoBus(),
                clock=reactor,
                settings=AccountSettings(checkpoint_entries=100_000),
                members=members if rule else None,
                node=datacenter,
                datacenter=datacenter if rule else "",
                directory=stores.directory,
            )
            if rule:
                await members.join(datacenter, frozenset(), service.serve, datacenter)
            self.addCleanup(self.end, service)
            self.engines[datacenter], self.services[datacenter] = stores, service

    def end(self, what: AccountService | CQLEngine) -> Deferred[None]:
        return Deferred.fromCoroutine(what.stop())

    async def opened(self, datacenter: str) -> OpenAccount:
        """Once it has arrived there."""
        while True:
            try:
                return await self.services[datacenter].open(self.account_id)
            except AccountUnavailable:
                await deferLater(self.reactor, 0.05, lambda: None)

    async def deliver_from(self, datacenter: str, senders: int = 4) -> None:
        account = await self.opened(datacenter)
        ends = self.reactor.seconds() + SECONDS

        async def sender() -> None:
            while self.reactor.seconds() < ends:
                await self.deliver(account)

        for each in [Deferred.fromCoroutine(sender()) for _ in range(senders)]:
            await each

    async def deliver(self, account: OpenAccount) -> None:
        id = DeliveryId.new().octets
        add = AddMessages(mailbox=account.state.inbox.id, messages=(message(),), delivery=id)
        try:
            await account.commit(add)
        except OutcomeUnknown:
            self.unknown.append(id)
        except AccountUnavailable:
            await deferLater(self.reactor, 0.05, lambda: None)
        else:
            self.acknowledged.append(id)

    async def both_deliver(self) -> None:
        for each in [Deferred.fromCoroutine(self.deliver_from(datacenter)) for datacenter in self.services]:
            await each

    async def deliver_at_once(self) -> None:
        """Both sides see the same log, and then each delivers one message, at the same moment."""
        accounts = [await self.opened(datacenter) for datacenter in self.services]
        ends = self.reactor.seconds() + SECONDS
        while self.reactor.seconds() < ends:
            reached = {await account.refresh() for account in accounts}
            if len(reached) > 1:
                continue
            for each in [Deferred.fromCoroutine(self.deliver(account)) for account in accounts]:
                await each

    async def standing(self, datacenter: str) -> list[bytes]:
        """The deliveries in the log as that data centre has it, when replication has come to rest."""
        previous: list[bytes] = []
        while True:
            entries = await self.engines[datacenter].account_log.read(self.account_id, ModSeq(0))
            found = [decode_entry(entry.data).delivery for entry in entries]
            if found == previous:
                return [each for each in found if each]
            previous = found
            await deferLater(self.reactor, 0.3, lambda: None)

    async def test_without_the_rule_acknowledged_appends_are_lost(self) -> None:
        await self.world(rule=False)
        await self.opened("dc1")
        await deferLater(self.reactor, 0.5, lambda: None)
        await self.deliver_at_once()
        lost = set(self.acknowledged) - set(await self.standing("dc1"))
        print(f"without the rule {len(lost)} of {len(self.acknowledged)} acknowledged appends were lost")
        assert len(lost) > len(self.acknowledged) // 50

    async def test_with_the_rule_nothing_is_lost_while_the_account_moves_there_and_back(self) -> None:
        await self.world(rule=True)
        directory = self.engines["dc1"].directory
        await directory.add_domain(Domain("example.org"))
        await directory.add_account(AccountRecord(self.account_id, "ann@example.org", home="dc1"))
        await self.opened("dc1")
        delivering = Deferred.fromCoroutine(self.both_deliver())
        await deferLater(self.reactor, SECONDS / 4, lambda: None)
        for before, to in (("dc1", "dc2"), ("dc2", "dc1")):
            moved = await move_home(self.services["dc1"], directory, self.account_id, to)
            assert moved == Moved(before, to, True)
            await deferLater(self.reactor, SECONDS / 6, lambda: None)
        await delivering
        there = await self.standing("dc1")
        assert there == await self.standing("dc2")
        assert len(set(there)) == len(there), "no delivery is there twice"
        lost = set(self.acknowledged) - set(there)
        print(f"with the rule {len(lost)} of {len(self.acknowledged)} were lost; {len(self.unknown)} unknown")
        assert not lost
        assert not set(there) - set(self.acknowledged) - set(self.unknown)
        assert len(there) > 3, "it was used at all"
        record = await directory.account(self.account_id)
        assert record is not None
        assert record.home == "dc1"
