"""Who may log in, from where, how often, and who may send as whom."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.cred.checkers import FilePasswordDB, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail
from twisted.logger import ILogObserver, globalLogPublisher
from zope.interface import implementer

from tests.auth.support import ANN, FAR, LOCAL, PASSWORD, SECURE, ScramClient, Town, now
from twisted_mail.auth.service import AuthenticationService, load_secret
from twisted_mail.auth.throttle import plain_address
from twisted_mail.services import AuthenticationFailed, Identity, Peer, UnknownMechanism, Vouching
from twisted_mail.storage.interfaces import Unavailable
from twisted_mail.values import AccountId

IS_ANN = Identity(ANN, "ann@example.org")


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What was logged under ``auth.failed``."""
    from twisted.logger import formatEvent

    found: list[str] = []

    @implementer(ILogObserver)
    def observe(event: Any) -> None:
        if event.get("event") == "auth.failed":
            found.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)


# --- clear text


NETWORKS = tuple(ipaddress.ip_network(text) for text in ("127.0.0.0/8", "::1/128", "10.1.0.0/16", "2001:db8::/32"))


@pytest.mark.parametrize(
    ("address", "secure", "allowed"),
    [
        ("127.0.0.1", False, True),
        ("127.9.9.9", False, True),
        ("::1", False, True),
        ("::ffff:127.0.0.1", False, True),
        ("10.1.2.3", False, True),
        ("::ffff:10.1.2.3", False, True),
        ("2001:db8::7", False, True),
        ("2001:db8::7%eth0", False, True),
        ("10.2.0.1", False, False),
        ("::ffff:10.2.0.1", False, False),
        ("192.0.2.7", False, False),
        ("::2", False, False),
        ("no address", False, False),
        ("192.0.2.7", True, True),
        ("::2", True, True),
        ("", False, True),
    ],
)
def test_where_a_password_may_be_shown(address: str, secure: bool, allowed: bool) -> None:
    town = Town(allow_cleartext=NETWORKS)
    peer = Peer(address, secure=secure, service="imap")
    assert town.service.cleartext_allowed(peer) is allowed
    assert ("PLAIN" in town.service.mechanisms(peer)) is allowed
    assert ("LOGIN" in town.service.mechanisms(peer)) is allowed
    assert "SCRAM-SHA-256" in town.service.mechanisms(peer)
    assert town.login(peer=peer) == (IS_ANN if allowed else "privacy")
    for name in ("PLAIN", "LOGIN"):
        if allowed:
            town.service.begin(name, peer)
        else:
            with pytest.raises(UnknownMechanism):
                town.service.begin(name, peer)


def test_the_best_mechanism_stands_first() -> None:
    town = Town()
    assert list(town.service.mechanisms(SECURE)) == ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN"]
    assert list(town.service.mechanisms(FAR)) == ["SCRAM-SHA-256"]


def test_a_password_where_it_may_not_be_shown_is_not_even_looked_at() -> None:
    town = Town()
    assert town.login(password="wrong", peer=FAR) == "privacy"
    assert town.threads.calls == []


# --- names


@pytest.mark.parametrize("user", ["ann@example.org", "ANN@EXAMPLE.ORG", "ann@example.org.", " ann@example.org "])
def test_names_are_compared_without_case(user: str) -> None:
    assert Town().login(user) == IS_ANN


def test_a_bare_user_needs_a_default_domain() -> None:
    assert Town().login("ann") == "credentials"
    town = Town(default_domain="Example.org")
    assert town.login("Ann") == IS_ANN
    assert ScramClient("ann", PASSWORD).log_in(town.service.begin("SCRAM-SHA-256", LOCAL)) == IS_ANN


@pytest.mark.parametrize(
    "user", ["", " ", "nobody@example.org", "ann@", "@example.org", "a\0b", "\ud800@example.org", "é" * 5000]
)
@pytest.mark.parametrize("password", [PASSWORD, "", "\ud800", "\0"])
def test_who_is_not_there_takes_one_hash_too(user: str, password: str) -> None:
    town = Town()
    assert town.login(user, password) == "credentials"
    assert town.threads.calls == ["_matches"]


def test_disabled_accounts_and_domains_are_refused_only_to_who_knows_the_password() -> None:
    town = Town()
    assert town.login("bob@example.org") == "disabled"
    assert town.login("carol@closed.example") == "disabled"
    assert town.login("bob@example.org", "wrong") == "credentials"


def test_a_store_that_does_not_answer_is_a_temporary_failure(lines: list[str]) -> None:
    town = Town()

    async def down(address: str) -> None:
        raise Unavailable("gone")

    town.directory.account_by_address = down  # type: ignore[method-assign]  # breaks on purpose
    with pytest.raises(AuthenticationFailed) as caught:
        now(town.service.login("ann@example.org", PASSWORD, LOCAL))
    assert (caught.value.reason, caught.value.temporary) == ("unavailable", True)
    assert ScramClient("ann@example.org", PASSWORD).log_in(town.service.begin("SCRAM-SHA-256", LOCAL)) == "unavailable"
    assert "reason=unavailable" in lines[0]


# --- throttles


def test_failures_of_an_address_are_counted_over_logins() -> None:
    town = Town(failures_per_minute=3)
    for name in ("x", "y", "z"):
        assert town.login(f"{name}@example.org", "wrong") == "credentials"
    with pytest.raises(AuthenticationFailed) as caught:
        now(town.service.login("ann@example.org", PASSWORD, LOCAL))
    assert (caught.value.reason, caught.value.temporary) == ("throttled", True)
    assert town.login(peer=Peer("127.0.0.2")) == IS_ANN
    town.clock.advance(60.1)
    assert town.login() == IS_ANN


def test_failures_of_a_login_are_counted_over_addresses() -> None:
    town = Town(failures_per_minute=3)
    for last in (1, 2, 3):
        assert town.login("Ann@example.org", "wrong", Peer(f"127.0.0.{last}")) == "credentials"
    assert town.login("ann@EXAMPLE.org", peer=Peer("127.0.0.9")) == "throttled"
    assert town.login("bob@example.org", peer=Peer("127.0.0.9")) == "disabled"


def test_others_cannot_shut_a_user_out_of_home() -> None:
    town = Town(failures_per_minute=3)
    home = Peer("127.0.0.9")
    assert town.login(peer=home) == IS_ANN
    for last in (1, 2, 3):
        town.login("ann@example.org", "wrong", Peer(f"127.0.0.{last}"))
    assert town.login(peer=Peer("127.0.0.4")) == "throttled"
    assert town.login(peer=home) == IS_ANN


def test_a_throttled_login_is_refused_unseen() -> None:
    town = Town(failures_per_minute=1)
    town.login(password="wrong")
    before = len(town.threads.calls)
    assert town.login() == "throttled"
    assert len(town.threads.calls) == before


def test_scram_is_throttled_like_the_rest() -> None:
    town = Town(failures_per_minute=2)
    for _ in range(2):
        client = ScramClient("ann@example.org", "wrong")
        assert client.log_in(town.service.begin("SCRAM-SHA-256", LOCAL)) == "credentials"
    client = ScramClient("ann@example.org", PASSWORD)
    assert client.log_in(town.service.begin("SCRAM-SHA-256", LOCAL)) == "throttled"
    assert town.exchange("PLAIN", [f"\0ann@example.org\0{PASSWORD}".encode()], LOCAL) == "throttled"


def test_zero_turns_throttling_off() -> None:
    town = Town(failures_per_minute=0)
    for _ in range(50):
        town.login(password="wrong")
    assert town.login() == IS_ANN


def test_success_is_not_counted() -> None:
    town = Town(failures_per_minute=2)
    for _ in range(10):
        assert town.login() == IS_ANN


def test_an_ipv6_host_is_its_64() -> None:
    town = Town(failures_per_minute=2, allow_cleartext=[ipaddress.IPv6Network("::/0")])
    for last in (1, 2):
        town.login(f"x{last}@example.org", "wrong", Peer(f"2001:db8::{last}"))
    assert town.login(peer=Peer("2001:db8::ffff:3")) == "throttled"
    assert town.login(peer=Peer("2001:db8:0:1::3")) == IS_ANN


def test_mapped_addresses_are_the_ipv4_ones() -> None:
    assert str(plain_address("::ffff:192.0.2.1")) == "192.0.2.1"
    town = Town(failures_per_minute=1)
    town.login("x@example.org", "wrong", Peer("::ffff:127.0.0.1"))
    assert town.login(peer=Peer("127.0.0.1")) == "throttled"


def test_a_failure_takes_its_time_and_a_success_does_not() -> None:
    town = Town(failure_seconds=2.0)
    assert town.login() == IS_ANN
    refused: list[Any] = []
    Deferred.fromCoroutine(town.service.login("ann@example.org", "wrong", LOCAL)).addErrback(refused.append)
    town.clock.advance(1.9)
    assert not refused
    town.clock.advance(0.2)
    assert refused[0].check(AuthenticationFailed)


# --- the log


def test_a_failure_is_a_line_for_fail2ban_without_the_password(lines: list[str]) -> None:
    town = Town(failures_per_minute=2)
    town.login("ann@example.org", "hunter2", Peer("127.0.0.7", service="pop3"))
    town.login("x' address=9.9.9.9\nauth.failed: é", "hunter2", Peer("127.0.0.7", service="imap"))
    town.login("ann@example.org", PASSWORD, Peer("127.0.0.7", service="imap"))
    start = "auth.failed: address=127.0.0.7 service="
    assert lines == [
        start + "pop3 reason=credentials login='ann@example.org'",
        start + """imap reason=credentials login="x' address=9.9.9.9\\nauth.failed: \\xe9\"""",
        start + "imap reason=throttled login='ann@example.org'",
    ]
    assert all("hunter2" not in line and PASSWORD not in line and "\n" not in line for line in lines)


# --- a server in front


def test_a_login_that_a_server_in_front_has_checked_needs_no_proof_but_an_account() -> None:
    town = Town()
    assert isinstance(town.service, Vouching)
    assert now(town.service.vouched("ANN@example.org", SECURE)) == IS_ANN
    for login in ("bob@example.org", "carol@closed.example", "nobody@example.org", "ann", ""):
        with pytest.raises(AuthenticationFailed):
            now(town.service.vouched(login, SECURE))


# --- other checkers


class Broken:
    credentialInterfaces = (IUsernamePassword,)

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes]:
        return fail(Unavailable("LDAP is down"))


def test_another_checker_is_asked_after_the_directory_and_scram_is_gone(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("ann@example.org:from-file\nstranger@example.org:x\nbob@example.org:y\n")
    town = Town(checkers=[FilePasswordDB(str(users))])
    assert list(town.service.mechanisms(SECURE)) == ["PLAIN", "LOGIN"]
    assert town.login(password="from-file") == IS_ANN
    assert town.login() == IS_ANN
    assert town.login(password="neither") == "credentials"
    assert town.login("stranger@example.org", "x") == "disabled"
    assert town.login("bob@example.org", "y") == "disabled"


def test_a_checker_with_short_names_gives_accounts_of_the_default_domain() -> None:
    checker = InMemoryUsernamePasswordDatabaseDontUse(ann=b"short")
    assert Town(checkers=[checker], default_domain="example.org").login("ann", "short") == IS_ANN


def test_a_checker_that_does_not_answer_makes_failures_temporary() -> None:
    town = Town(checkers=[Broken()])
    assert town.login() == IS_ANN
    assert town.login(password="wrong") == "unavailable"


def test_a_checker_of_something_else_is_refused_at_the_start() -> None:
    class Other:
        credentialInterfaces = (IUsernameHashedPassword,)

    with pytest.raises(ValueError, match="Other"):
        Town(checkers=[Other()])


def test_the_portal_is_an_ordinary_one() -> None:
    from twisted.cred.credentials import UsernamePassword

    from twisted_mail.auth.realm import IIdentity

    town = Town()

    async def log_in(password: bytes) -> Any:
        return await town.service.portal.login(UsernamePassword(b"ann@example.org", password), None, IIdentity)

    assert now(log_in(PASSWORD.encode()))[1] == IS_ANN
    with pytest.raises(UnauthorizedLogin):
        now(log_in(b"wrong"))


# --- sending


@pytest.mark.parametrize(
    ("address", "may"),
    [
        ("", True),
        ("ann@example.org", True),
        ("Ann@EXAMPLE.org", True),
        ("ann+lists@example.org", True),
        ("sales@example.org", True),
        ("sales+eu@example.org", True),
        ("all@example.org", True),
        ("far@example.org", False),  # an alias of an alias
        ("bob@example.org", False),
        ("bob+ann@example.org", False),
        ("anything@example.org", False),
        ("ann@example.com", False),
        ("+ann@example.org", False),
        ("ann", False),
        ("@example.org", False),
        ("a\r\nb@example.org", False),
        ("free@closed.example", True),  # the catch-all is hers
        ("carol@closed.example", False),  # but what somebody has is not
        ("bobs@closed.example", False),
    ],
)
def test_who_may_send_as_whom(address: str, may: bool) -> None:
    town = Town()
    town.alias("sales@example.org", "ann@example.org")
    town.alias("all@example.org", "bob@example.org", "ann@example.org")
    town.alias("far@example.org", "sales@example.org")
    town.alias("@closed.example", "ann@example.org")
    town.alias("bobs@closed.example", "bob@example.org")
    assert now(town.service.may_send_as(IS_ANN, address)) is may


def test_without_sub_addresses_a_plus_is_a_character() -> None:
    town = Town(subaddress="")
    assert not now(town.service.may_send_as(IS_ANN, "ann+lists@example.org"))


# --- the secret


def test_the_secret_is_made_once_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "new" / "secret"
    secret = load_secret(path)
    assert len(secret) == 32 and load_secret(path) == secret
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["secret"]


def test_an_identity_is_of_the_account_that_the_directory_has() -> None:
    town = Town()
    assert isinstance(town.service, AuthenticationService)
    identity = town.login()
    assert isinstance(identity, Identity) and identity.account == AccountId(b"a" * 16)
