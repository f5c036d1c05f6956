"""Leases and allowances in CQL: their contracts on a real cluster, two nodes that race, and outcomes that are not known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from twisted.internet.task import deferLater

from tests.storage.cql.cluster import ClusterCase
from tests.storage.cql.expiring import Expiring
from tests.storage.cql.faulty import Faulty
from twisted_mail.storage import testing
from twisted_mail.storage.cql import leases as leases_module
from twisted_mail.storage.cql.leases import CQLAllowances, CQLLeases
from twisted_mail.storage.cql.statements import Statement
from twisted_mail.storage.interfaces import Allowances, Leases
from twisted_mail.storage.testing.base import together


class CQLLeasesTests(testing.LeasesContract, ClusterCase):
    async def build(self) -> Leases:
        session = await self.session()
        await self.empty(session, "lease")
        self.store = Expiring(session)
        return CQLLeases(self.store, self.reactor)

    async def advance(self, seconds: float) -> None:
        await self.store.advance(seconds)

    async def test_the_database_itself_ends_a_lease_and_keeps_its_number(self) -> None:
        self.patch(leases_module, "MARGIN_SECONDS", 0)  # type: ignore[no-untyped-call]  # trial's own
        leases, name = CQLLeases(await self.session(), self.reactor), f"own/{uuid4()}"
        first = await leases.acquire(name, 1)
        assert first is not None
        await deferLater(self.reactor, 1.1, lambda: None)
        self.assertFalse(await leases.renew(name, first, 30))
        self.assertEqual(await leases.acquire(name, 30), first + 1)
        self.assertFalse(await leases.renew(name, first, 30))
        self.assertTrue(await leases.renew(name, first + 1, 30))

    async def test_of_two_nodes_one_holds_a_name(self) -> None:
        nodes = [CQLLeases(s, self.reactor) for s in (await self.session(), await self.another_session())]
        name, last = f"race/{uuid4()}", 0
        for _ in range(3):
            numbers = await together(*(nodes[at % 2].acquire(name, 60) for at in range(8)))
            held = [number for number in numbers if isinstance(number, int)]
            self.assertEqual(len(held), 1, numbers)
            self.assertGreater(held[0], last)
            last = held[0]
            await nodes[0].release(name, last)

    async def test_what_became_of_an_acquisition_is_found_out(self) -> None:
        session = Faulty(await self.session())
        leases, last = CQLLeases(session, self.reactor), 0
        name = f"faulty/{uuid4()}"
        for start, fault in (
            ("INSERT INTO lease", "hidden"), ("UPDATE lease USING", "hidden"), ("UPDATE lease USING", "denied"),
            ("UPDATE lease USING", "lost"),
        ):  # fmt: skip
            session.faults = {start: [fault]}
            number = await leases.acquire(name, 60)
            assert number is not None
            self.assertEqual((session.faults[start], number), ([], last + 1))
            self.assertIsNone(await leases.acquire(name, 60))
            session.faults = {"UPDATE lease USING": ["hidden", "lost"]}
            self.assertTrue(await leases.renew(name, number, 60))
            await leases.release(name, number)
            last = number


class CQLAllowancesTests(testing.AllowancesContract, ClusterCase):
    async def build(self) -> Allowances:
        session = await self.session()
        await self.empty(session, "allowance")
        return CQLAllowances(session, self.reactor)

    async def test_two_nodes_never_get_more_than_the_limit(self) -> None:
        nodes = [CQLAllowances(s, self.reactor) for s in (await self.session(), await self.another_session())]
        name = f"ip/{uuid4()}"
        got = await together(*(nodes[at % 2].take(name, 1, 9, 60) for at in range(10)))
        self.assertEqual(sum(n for n in got if isinstance(n, int)), 60, got)
        self.assertEqual(await nodes[0].taken(name, 1), 60)

    async def test_what_may_have_been_taken_is_never_given_twice(self) -> None:
        session = Faulty(await self.session())
        allowances, name = CQLAllowances(session, self.reactor), f"ip/{uuid4()}"
        given = 0
        for start, fault in (
            ("INSERT INTO allowance", "hidden"), ("UPDATE allowance", "denied"), ("UPDATE allowance", "hidden"),
            ("UPDATE allowance", "lost"),
        ):  # fmt: skip
            session.faults = {start: [fault]}
            given += await allowances.take(name, 1, 10, 100)
            self.assertEqual(session.faults[start], [])
        self.assertEqual((given, await allowances.taken(name, 1)), (40, 40))

    async def test_what_was_taken_unheard_before_another_took_is_forfeited(self) -> None:
        real = await self.session()
        session, name = Faulty(real), f"ip/{uuid4()}"
        other, allowances = CQLAllowances(real, self.reactor), CQLAllowances(session, self.reactor)
        await other.take(name, 1, 1, 100)

        class Overtaken(Faulty):
            """Another takes between what was done and its answer, which says "not applied"."""

            async def apply(self, statement: Statement, parameters: Sequence[Any] = ()) -> bool:
                applied = await real.apply(statement, parameters)
                if not self.faults.pop("once", None):
                    return applied
                await other.take(name, 1, 5, 100)
                return False

        overtaken = Overtaken(real)
        overtaken.faults = {"once": ["denied"]}
        allowances = CQLAllowances(overtaken, self.reactor)
        self.assertEqual(await allowances.take(name, 1, 10, 100), 10)
        self.assertEqual(await other.taken(name, 1), 1 + 10 + 5 + 10)
