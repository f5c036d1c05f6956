"""What a login reads from the directory: the user's record once, the domain's once."""

from __future__ import annotations

import pytest
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse

from tests.auth.support import ANN, CREDENTIALS, LOCAL, PASSWORD, ScramClient, Town, now
from tests.storage.cql.fakes import FakeSession
from tests.storage.cql.test_small_on_fakes import CLOCK
from twisted_mail.auth.service import AuthenticationService
from twisted_mail.services import Identity
from twisted_mail.storage.cql.directory import CQLDirectory
from twisted_mail.storage.interfaces import AccountRecord, Directory, Domain

IS_ANN = Identity(ANN, "ann@example.org")


class Read:
    """Passes calls on, and notes them."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> object:
        self.calls.append(name)
        return getattr(self.directory, name)


def town_with(directory: Directory, **settings: object) -> Town:
    town = Town()
    town.service = AuthenticationService(
        directory,
        town.engine.cache,
        town.verifier,
        town.clock,
        secret=b"s" * 32,
        failure_seconds=0,
        **settings,  # type: ignore[arg-type]  # keywords of many types
    )
    return town


def log_in(town: Town, mechanism: str) -> Identity | str:
    if mechanism == "PASSWORD":
        return town.login()
    return ScramClient("ann@example.org", PASSWORD).log_in(town.service.begin(mechanism, LOCAL))


@pytest.mark.parametrize("mechanism", ["PASSWORD", "SCRAM-SHA-256"])
def test_a_login_looks_up_the_user_once_and_the_domain_once(mechanism: str) -> None:
    read = Read(Town().directory)
    town = town_with(read)  # type: ignore[arg-type]  # whatever is asked of it is passed on
    assert log_in(town, mechanism) == IS_ANN
    assert read.calls == ["account_by_address", "domain"]


@pytest.mark.parametrize("mechanism", ["PASSWORD", "SCRAM-SHA-256"])
def test_a_login_costs_three_reads_of_a_wide_column_store(mechanism: str) -> None:
    session = FakeSession()
    directory = CQLDirectory(session, CLOCK)
    now(directory.add_domain(Domain("example.org")))
    now(directory.add_account(AccountRecord(ANN, "ann@example.org", CREDENTIALS)))
    town = town_with(directory)
    session.counts.clear()
    assert log_in(town, mechanism) == IS_ANN
    assert sum(session.counts.values()) == 3, session.counts  # whose the address is, the user, the domain


def test_an_exchange_does_not_mix_up_the_users_whose_keys_it_gave_out() -> None:
    town = Town()
    assert ScramClient("bob@example.org", PASSWORD).log_in(town.service.begin("SCRAM-SHA-256", LOCAL)) == "disabled"
    assert ScramClient("x@example.org", PASSWORD).log_in(town.service.begin("SCRAM-SHA-256", LOCAL)) == "credentials"
    assert ScramClient("ann@example.org", PASSWORD).log_in(town.service.begin("SCRAM-SHA-256", LOCAL)) == IS_ANN


def test_what_another_checker_says_is_still_looked_up() -> None:
    read = Read(Town().directory)
    checker = InMemoryUsernamePasswordDatabaseDontUse(**{"ann@example.org": b"other"})
    town = town_with(read, checkers=[checker])  # type: ignore[arg-type]  # as above
    assert town.login(password="other") == IS_ANN
    assert read.calls == ["account_by_address", "account_by_address", "domain"]
