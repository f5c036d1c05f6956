"""mailctl account take-over: what it refuses where no data centre is lost. (On two data centres: tests/account.)"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.admin.calling import Mailctl
from tests.admin.test_account_move import in_datacenter
from twisted_mail.admin import takeover
from twisted_mail.storage.cql import takeover as of_cql
from twisted_mail.storage.interfaces import Member

FROM = ("account", "take-over", "--from", "dc1", "--json")


def code(ctl: Mailctl, *words: str) -> tuple[int, str]:
    result = ctl.run(*FROM, *words)
    return result.status, result.error()["code"]


def test_what_is_no_lost_data_centre_is_not_taken_over(ann: Mailctl, monkeypatch: pytest.MonkeyPatch) -> None:
    assert code(ann) == (1, "one-datacenter")
    in_datacenter("dc1", monkeypatch)
    assert code(ann) == (2, "usage")
    in_datacenter("dc2", monkeypatch)
    assert code(ann, "--i-know-the-home-is-gone") == (1, "one-datacenter"), "SQLite has one"


class Store:
    """As much of a store as is looked at before anything is done."""

    def __init__(self, members: list[Member], hosts: list[tuple[str, int]], copies: dict[str, int]) -> None:
        async def alive() -> list[Member]:
            return members

        async def replication() -> dict[str, int]:
            return copies

        session = SimpleNamespace(options=SimpleNamespace(keyspace="mail"))
        self.centre = SimpleNamespace(nodes=lambda name: hosts, replication=replication)
        engines = (SimpleNamespace(session=session),)
        live = SimpleNamespace(alive=alive)
        self.backend = SimpleNamespace(members=live, engines=engines, messages=None)
        self.reactor: Any = None
        self.accounts = SimpleNamespace(settings=SimpleNamespace(default_mailboxes=()))


@pytest.mark.parametrize(
    ("members", "listens", "copies", "why"),
    [
        ([Member("imap1", frozenset(), "dc1")], False, {"dc2": 3}, "home-alive"),
        ([Member("imap2", frozenset(), "dc2")], True, {"dc2": 3}, "home-alive"),
        ([Member("imap2", frozenset(), "dc2")], False, {"dc1": 3, "dc2": 3}, "still-replicated"),
        ([Member("imap2", frozenset(), "dc2")], False, {"dc2": 3}, ""),
    ],
)
def test_as_long_as_anything_speaks_for_it_nothing_is_done(
    members: list[Member], listens: bool, copies: dict[str, int], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from twisted_mail.admin.problems import Problem
    from twisted_mail.admin.running import run

    store = Store(members, [("192.0.2.1", 9042)], copies)
    monkeypatch.setattr(of_cql, "LostCentre", lambda session: store.centre)

    async def answers(reactor: Any, address: str, port: int) -> bool:
        return listens

    monkeypatch.setattr(takeover, "_answers", answers)

    async def main(reactor: Any) -> str:
        try:
            await takeover.ready(store, "dc1", "dc2")  # type: ignore[arg-type]  # a store by its looks
        except Problem as problem:
            if problem.code == "still-replicated":
                assert "{'class': 'NetworkTopologyStrategy', 'dc2': 3}" in problem.facts["statement"]
            return problem.code
        return ""

    assert run(main) == why


def test_a_node_is_taken_for_alive_when_it_takes_connections() -> None:
    from twisted.internet.protocol import Factory, Protocol

    from twisted_mail.admin.running import run

    async def main(reactor: Any) -> tuple[bool, bool]:
        port = reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
        number = port.getHost().port
        listening = await takeover._answers(reactor, "127.0.0.1", number)
        await port.stopListening()
        return listening, await takeover._answers(reactor, "127.0.0.1", number)

    assert run(main) == (True, False)
