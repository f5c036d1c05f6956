"""The directory in CQL: its contract on a real cluster, races of two nodes, and what a process that died leaves behind."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from tests.storage.cql.cluster import ClusterCase
from tests.storage.cql.faulty import Faulty
from twisted_mail.storage import testing
from twisted_mail.storage.cql.directory import CLAIM_GRACE_SECONDS, CLAIM_SECONDS, CQLDirectory
from twisted_mail.storage.interfaces import (
    AccountRecord,
    Alias,
    AlreadyExists,
    Conflict,
    Directory,
    Domain,
    NotFound,
    Refused,
)
from twisted_mail.storage.testing.base import fails, together
from twisted_mail.values import AccountId

TABLES = ("mail_domain", "address", "address_by_domain")


def record(address: str = "ann@example.org") -> AccountRecord:
    return AccountRecord(AccountId.new(), address)


class CQLDirectoryTests(testing.DirectoryContract, ClusterCase):
    async def build(self) -> Directory:
        session = await self.session()
        await self.empty(session, *TABLES)
        return CQLDirectory(session, self.reactor)

    async def _two(self) -> tuple[CQLDirectory, CQLDirectory]:
        """The directories of two nodes on one store, with a domain."""
        one, two = await self.session(), await self.another_session()
        await self.empty(one, *TABLES)
        first, second = CQLDirectory(one, self.reactor), CQLDirectory(two, self.reactor)
        await first.add_domain(Domain("example.org"))
        return first, second

    async def _faulty(self) -> tuple[Faulty, CQLDirectory]:
        session = Faulty(await self.session())
        await self.empty(session, *TABLES)  # type: ignore[arg-type]  # it passes `run` on
        directory = CQLDirectory(session, self.reactor)
        await directory.add_domain(Domain("example.org"))
        return session, directory

    async def test_two_nodes_that_want_one_address_give_it_to_one_account(self) -> None:
        nodes = await self._two()
        records = [record() for _ in range(8)]
        outcomes = await together(*(nodes[at % 2].add_account(one) for at, one in enumerate(records)))
        self.assertEqual(sum(outcome is None for outcome in outcomes), 1, outcomes)
        self.assertEqual(sum(isinstance(outcome, AlreadyExists) for outcome in outcomes), 7, outcomes)
        winner = records[outcomes.index(None)]
        for node in nodes:
            self.assertEqual(await node.account_by_address("ann@example.org"), winner)
            self.assertEqual(list(await node.accounts()), [winner])

    async def test_nodes_that_change_one_account_at_once_leave_one_address_claimed(self) -> None:
        nodes = await self._two()
        ann = record()
        await nodes[0].add_account(ann)
        names = [f"ann{at}@example.org" for at in range(4)]
        changed = [replace(ann, address=name) for name in names]
        await together(*(nodes[at % 2].set_account(one) for at, one in enumerate(changed)))
        stands = await nodes[0].account(ann.id)
        assert stands is not None
        for name in (*names, "ann@example.org"):
            found = await nodes[1].account_by_address(name)
            self.assertEqual(found, stands if name == stands.address else None)
            if name != stands.address:
                await nodes[1].add_account(record(name))

    async def test_a_domain_is_removed_or_has_an_account_never_both(self) -> None:
        one, two = await self._two()
        for _ in range(5):
            ann = record()
            added, removed = await together(one.add_account(ann), two.remove_domain("example.org"))
            there = await one.domain("example.org")
            if removed is None:
                self.assertTrue(isinstance(added, NotFound), added)
                self.assertIsNone(there)
                self.assertIsNone(await two.account_by_address("ann@example.org"))
                await one.add_domain(Domain("example.org"))
            else:
                self.assertTrue(isinstance(removed, Conflict), removed)
                self.assertEqual(there, Domain("example.org"))
                if added is None:
                    await one.remove_account(ann.id)

    async def test_what_became_of_a_claim_is_found_out(self) -> None:
        session, directory = await self._faulty()
        for number, fault in enumerate(("hidden", "denied", "lost")):
            for start in ("INSERT INTO address (", "INSERT INTO account"):
                ann = record(f"a{number}{len(start)}@example.org")
                session.faults = {start: [fault]}
                await directory.add_account(ann)
                self.assertEqual(await directory.account_by_address(ann.address), ann)
                self.assertEqual(session.faults[start], [])

    async def test_a_change_whose_outcome_was_hidden_is_not_made_twice(self) -> None:
        session, directory = await self._faulty()
        ann = record()
        await directory.add_account(ann)
        for number, fault in enumerate(("hidden", "denied", "lost")):
            session.faults = {"UPDATE account": [fault]}
            ann = replace(ann, address=f"ann{number}@example.org")
            await directory.set_account(ann)
            self.assertEqual(list(await directory.accounts()), [ann])
        session.faults = {"DELETE FROM account": ["hidden"], "DELETE FROM address": ["hidden"]}
        await directory.remove_account(ann.id)
        self.assertIsNone(await directory.account_by_address(ann.address))
        await directory.add_account(ann)
        session.faults = {"UPDATE address": ["hidden"]}
        await directory.add_alias(Alias("b@example.org", ("ann@example.org",)))
        await directory.set_alias(Alias("b@example.org", ("x@example.org",)))
        self.assertEqual([a.targets for a in await directory.aliases()], [("x@example.org",)])

    async def test_a_claim_that_a_dead_process_left_is_worth_nothing_and_is_taken_over_after_an_hour(self) -> None:
        session, directory = await self._faulty()
        ann, bob = record(), record()

        async def dies(text: str) -> None:
            if text.startswith("INSERT INTO account"):
                raise SystemError("killed")

        session.before = dies
        await fails(SystemError, directory.add_account(ann))
        session.before = None
        self.assertIsNone(await directory.account_by_address("ann@example.org"))
        self.assertEqual(list(await directory.accounts()), [])
        await fails(Conflict, directory.remove_domain("example.org"))
        await fails(AlreadyExists, directory.add_account(bob))
        later = CQLDirectory(session, self.reactor, lambda: time.time() + CLAIM_GRACE_SECONDS + 1)
        await later.add_account(bob)
        self.assertEqual(await directory.account_by_address("ann@example.org"), bob)
        self.assertEqual(list(await directory.accounts()), [bob])
        await fails(AlreadyExists, later.add_account(ann))
        self.assertIsNone(await directory.account(ann.id))

    async def test_who_is_too_slow_after_a_claim_gives_up(self) -> None:
        session = Faulty(await self.session())
        clock: Any = _Ahead(self.reactor)
        await self.empty(session, *TABLES)  # type: ignore[arg-type]  # it passes `run` on
        directory = CQLDirectory(session, clock)
        await directory.add_domain(Domain("example.org"))

        async def stops(text: str) -> None:
            if text.startswith("INSERT INTO address ("):
                clock.offset = CLAIM_SECONDS + 1

        session.before = stops
        ann = record()
        await fails(Refused, directory.add_account(ann))
        self.assertIsNone(await directory.account(ann.id))

    async def test_an_account_that_has_no_home_gets_one_once(self) -> None:
        one, two = await self._two()
        ann = record()
        await one.add_account(ann)
        homes = await together(*(node.claim_home(ann.id, f"dc{at}") for at, node in enumerate((one, two) * 2)))
        self.assertEqual(len(set(homes)), 1, homes)
        self.assertEqual(await two.claim_home(ann.id, "dc9"), homes[0])
        stands = await one.account(ann.id)
        assert stands is not None
        self.assertEqual(stands.home, homes[0])
        await fails(NotFound, one.claim_home(AccountId.new(), "dc1"))


class _Ahead:
    """The reactor's clock, put forward."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.offset = 0.0

    def seconds(self) -> float:
        return float(self._reactor.seconds()) + self.offset

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)
