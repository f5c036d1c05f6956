"""Which networks submit without a login, and as whom."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from twisted_mail.auth.submitters import Submitters, too_wide
from twisted_mail.services import Identity, Peer
from twisted_mail.values import AccountId


class People:
    """Accounts, all there but ``gone``."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gone = {"gone@example.org"}

    async def identity_of(self, login: str) -> Identity | None:
        self.asked.append(login)
        return None if login in self.gone else Identity(AccountId(bytes(16)), login)

    async def may_send_as(self, identity: Identity, address: str) -> bool:
        return address == identity.login


def run(work: Any) -> Any:
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")


def build(networks: dict[str, str], **options: Any) -> tuple[Submitters, People, list[float]]:
    people, now = People(), [0.0]
    tables = {ipaddress.ip_network(network): login for network, login in networks.items()}
    return Submitters(tables, people, lambda: now[0], **options), people, now


NETWORKS = {"10.0.0.0/8": "office@example.org", "10.1.0.0/16": "printer@example.org", "fd00::/8": "six@example.org"}


@pytest.mark.parametrize(
    ("address", "login"),
    [
        ("10.2.3.4", "office@example.org"),
        ("10.1.3.4", "printer@example.org"),
        ("::ffff:10.1.3.4", "printer@example.org"),
        ("fd00::1", "six@example.org"),
        ("fd00::1%eth0", "six@example.org"),
        ("192.0.2.1", None),
        ("2001:db8::1", None),
        ("", None),
        ("nonsense", None),
    ],
)
def test_the_narrowest_network_that_holds_the_address_counts(address: str, login: str | None) -> None:
    submitters, _, _ = build(NETWORKS)
    assert submitters.login_of(Peer(address)) == login


def test_who_speaks_for_others_is_never_meant_itself() -> None:
    """A proxy that does not know its client has only its own address."""
    submitters, _, _ = build(NETWORKS, fronts=lambda address: address == "10.1.0.5")
    assert submitters.login_of(Peer("10.1.0.5")) is None
    assert run(submitters.identity(Peer("10.1.0.5"))) is None
    assert submitters.login_of(Peer("10.1.0.6")) == "printer@example.org"


def test_an_account_is_asked_for_once_a_moment() -> None:
    submitters, people, now = build(NETWORKS)
    for _ in range(3):
        assert run(submitters.identity(Peer("10.1.0.6"))).login == "printer@example.org"
    assert len(people.asked) == 1
    people.gone.add("printer@example.org")
    now[0] = 1.0
    assert run(submitters.identity(Peer("10.1.0.6"))) is None, "and a moment later it may be disabled"


def test_a_missing_account_is_nobody() -> None:
    submitters, _, _ = build({"10.0.0.0/8": "gone@example.org"})
    assert run(submitters.identity(Peer("10.1.0.6"))) is None


@pytest.mark.parametrize(
    ("network", "wide"),
    [
        ("0.0.0.0/0", True), ("0.0.0.0/1", True), ("10.0.0.0/8", False), ("192.0.2.0/24", False), ("127.0.0.1/32", False),
        ("::/0", True), ("2000::/3", True), ("2001:db8::/32", False), ("fc00::/7", False), ("fe80::/10", False),
    ],
)  # fmt: skip
def test_networks_that_are_too_wide(network: str, wide: bool) -> None:
    assert too_wide(ipaddress.ip_network(network)) is wide
