"""Directory, leases, allowances, references and lists on a keyspace in memory: either server's answers, and faults by script."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from tests.account.house import now
from tests.storage.cql.expiring import Expiring
from tests.storage.cql.fakes import FakeSession
from twisted_mail.storage import testing
from twisted_mail.storage.cql.directory import CQLDirectory
from twisted_mail.storage.cql.leases import CQLAllowances, CQLLeases
from twisted_mail.storage.cql.lists import CQLLists
from twisted_mail.storage.cql.references import CQLReferences
from twisted_mail.storage.cql.statements import Row, Statement
from twisted_mail.storage.interfaces import (
    AccountRecord,
    Alias,
    Allowances,
    AlreadyExists,
    Directory,
    Domain,
    Leases,
    Lists,
    NotFound,
    References,
    Refused,
    Unavailable,
)
from twisted_mail.values import AccountId


class Hasty:
    """A clock whose pauses take no time."""

    def __init__(self) -> None:
        self.time = 0.0

    def seconds(self) -> float:
        return self.time

    def callLater(self, delay: float, call: Callable[..., Any], *arguments: Any) -> None:
        self.time += delay
        call(*arguments)


CLOCK: Any = Hasty()  # as much of IReactorTime as is asked for


class ScyllaFormDirectoryTests(testing.DirectoryContract, TestCase):
    async def build(self) -> Directory:
        return CQLDirectory(FakeSession("scylla"), CLOCK)


class CassandraFormDirectoryTests(testing.DirectoryContract, TestCase):
    async def build(self) -> Directory:
        return CQLDirectory(FakeSession("cassandra"), CLOCK)


class ScyllaFormLeasesTests(testing.LeasesContract, TestCase):
    async def build(self) -> Leases:
        self.session = Expiring(FakeSession("scylla"))
        return CQLLeases(self.session, CLOCK)

    async def advance(self, seconds: float) -> None:
        await self.session.advance(seconds)


class ScyllaFormAllowancesTests(testing.AllowancesContract, TestCase):
    async def build(self) -> Allowances:
        return CQLAllowances(FakeSession("scylla"), CLOCK)


class FakeReferencesTests(testing.ReferencesContract, TestCase):
    async def build(self) -> References:
        self.time = 1_700_000_000.0
        return CQLReferences(FakeSession(), lambda: self.time)

    async def now(self) -> float:
        return self.time

    async def advance(self, seconds: float) -> None:
        self.time += seconds


class Dated(FakeSession):
    """Gives timestamps as the driver does."""

    async def execute(self, statement: Statement, parameters: Sequence[Any] = ()) -> Sequence[Row]:
        rows = await super().execute(statement, parameters)
        for row in rows:
            if "received" in row:
                row["received"] = datetime(1970, 1, 1) + timedelta(milliseconds=row["received"])
        return rows


class FakeListsTests(testing.ListsContract, TestCase):
    async def build(self) -> Lists:
        return CQLLists(Dated())


# --- faults of conditional statements, by script

FAULTS = st.lists(st.sampled_from(["", "", "", "refused", "lost", "hidden", "denied"]), max_size=40)
ADDRESSES = [f"{name}@example.org" for name in "abc"]
ACCOUNTS = [AccountId(bytes([number]) * 16) for number in range(1, 4)]
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["add", "set", "remove", "alias", "realias", "unalias"]),
        st.sampled_from(ACCOUNTS),
        st.sampled_from(ADDRESSES),
    ),
    max_size=14,
)


def outcome(operation: Coroutine[Any, Any, None]) -> str:
    """What the caller was told."""
    try:
        now(operation)
    except (AlreadyExists, NotFound):
        return "no"
    except Refused:
        return "refused"
    except Unavailable:
        return "unknown"
    return "done"


@given(OPERATIONS, FAULTS)
@settings(max_examples=80, deadline=None)
def test_what_was_said_of_a_change_is_true_whatever_goes_wrong(
    operations: list[tuple[str, AccountId, str]], faults: list[str]
) -> None:
    session = FakeSession("scylla")
    # an hour later, so that nothing that was left behind is in the way
    wall = [0.0]
    directory = CQLDirectory(session, CLOCK, lambda: wall[0])
    now(directory.add_domain(Domain("example.org")))
    session.script = iter(faults)
    accounts: dict[AccountId, str] = {}
    aliases: dict[str, str] = {}
    for number, (name, account, address) in enumerate(operations):
        wall[0] += 4000
        record = replace(AccountRecord(account, address), display_name=str(number))
        alias = Alias(address, (f"{number}@x",))
        taken = {*accounts.values(), *aliases}
        after_accounts, after_aliases = dict(accounts), dict(aliases)
        if name == "add":
            told, allowed = outcome(directory.add_account(record)), account not in accounts and address not in taken
            after_accounts[account] = address
        elif name == "set":
            told = outcome(directory.set_account(record))
            allowed = account in accounts and (accounts[account] == address or address not in taken)
            after_accounts[account] = address
        elif name == "remove":
            told, allowed = outcome(directory.remove_account(account)), account in accounts
            after_accounts.pop(account, None)
        elif name == "alias":
            told, allowed = outcome(directory.add_alias(alias)), address not in taken
            after_aliases[address] = alias.targets[0]
        elif name == "realias":
            told, allowed = outcome(directory.set_alias(alias)), address in aliases
            after_aliases[address] = alias.targets[0]
        else:
            told, allowed = outcome(directory.remove_alias(address)), address in aliases
            after_aliases.pop(address, None)
        session.script, left = iter(()), session.script
        found = {record.id: record.address for record in now(directory.accounts())}
        found_aliases = {alias.address: alias.targets[0] for alias in now(directory.aliases())}
        if told == "done":
            assert allowed
            assert (found, found_aliases) == (after_accounts, after_aliases)
        elif told == "no":
            assert not allowed
        if told in ("no", "refused") and name not in ("set", "remove"):
            # (those two may be refused at the claim of the old address, when the account has changed already)
            assert (found, found_aliases) == (accounts, aliases)
        accounts, aliases = found, found_aliases
        for address in ADDRESSES:
            holders = [id for id, its in accounts.items() if its == address]
            assert len(holders) + (address in aliases) <= 1
            by_address = now(directory.account_by_address(address))
            assert (by_address.id if by_address is not None else None) == (holders[0] if holders else None)
        session.script = left


@given(FAULTS, st.lists(st.integers(1, 9), max_size=12))
@settings(max_examples=100, deadline=None)
def test_no_more_is_given_than_the_limit_whatever_goes_wrong(faults: list[str], takes: list[int]) -> None:
    session = FakeSession("scylla", faults)
    allowances, given_out = CQLAllowances(session, CLOCK), 0
    for n in takes:
        try:
            given_out += now(allowances.take("ip", 1, n, 30))
        except Unavailable:
            pass
    assert given_out <= now(allowances.taken("ip", 1)) <= 30


@given(FAULTS, st.lists(st.sampled_from(["acquire", "renew", "release", "end"]), max_size=12))
@settings(max_examples=100, deadline=None)
def test_numbers_ascend_and_one_holds_whatever_goes_wrong(faults: list[str], steps: list[str]) -> None:
    session = FakeSession("scylla", faults)
    leases, highest, held = CQLLeases(session, CLOCK), 0, 0
    for step in steps:
        try:
            if step == "acquire":
                number = now(leases.acquire("n", 30))
                if number is not None:
                    assert number > highest
                    assert not held
                    highest = held = number
            elif step == "renew" and held:
                now(leases.renew("n", held, 30))
            elif step == "release" and held:
                released, held = held, 0
                now(leases.release("n", released))
            elif step == "end":
                held = 0
                session.store.carry_out("UPDATE lease SET holder = null WHERE name = ?", ("n",))
        except Unavailable:
            pass


def test_without_a_quorum_users_are_found_and_nobody_is_denied() -> None:
    session = FakeSession("scylla")
    directory = CQLDirectory(session, CLOCK)
    record, alias = AccountRecord(AccountId.new(), "ann@example.org"), Alias("info@example.org", ("ann@example.org",))
    now(directory.add_domain(Domain("example.org")))
    now(directory.add_account(record))
    now(directory.add_alias(alias))
    session.quorum = False
    assert now(directory.account_by_address(record.address)) == now(directory.account(record.id)) == record
    assert (now(directory.alias(alias.address)), now(directory.domain("example.org"))) == (alias, Domain("example.org"))
    # what the replica lacks may be there all the same
    for lacks in ("FROM address ", "FROM account "):
        session.missing = lambda text, lacks=lacks: lacks in f"{text} "  # type: ignore[misc]
        with pytest.raises(Unavailable):
            now(directory.account_by_address(record.address))
    session.missing = lambda text: False
    with pytest.raises(Unavailable):
        now(directory.account_by_address("nobody@example.org"))
    strict = CQLDirectory(session, CLOCK, stale_reads=False)
    with pytest.raises(Unavailable):
        now(strict.account_by_address(record.address))


def test_an_alias_whose_removal_was_lost_is_removed_again() -> None:
    session = FakeSession("scylla")
    directory, alias = CQLDirectory(session, CLOCK), Alias("info@example.org", ("ann@example.org",))
    now(directory.add_domain(Domain("example.org")))
    now(directory.add_alias(alias))
    session.script = iter(["lost"])
    now(directory.remove_alias(alias.address))
    assert now(directory.alias(alias.address)) is None
    now(directory.add_alias(alias))
    session.script = iter(["lost"] * 100)
    assert outcome(directory.remove_alias(alias.address)) == "unknown"
    session.script = iter(())
    assert now(directory.aliases()) == [alias], "still listed"
