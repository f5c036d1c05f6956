"""What one delivery asks of the stores, counted: cold, warm, in company, small and large."""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater

from tests.account.house import House
from tests.account.test_intents import add, message
from twisted_mail.account.intents import AddMessages, new_message
from twisted_mail.account.service import AccountService, AccountSettings
from twisted_mail.services import Account
from twisted_mail.values import DeliveryId

READS = {"head", "read", "load_checkpoint", "settle", "get_many", "condemned", "holders", "open"}
SMALL = b"Subject: small\r\n\r\n" + b"text\r\n" * 100
LARGE = b"Subject: large\r\n\r\n" + b"text\r\n" * 50_000


class Tally:
    """Calls and octets read, by store and operation."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.octets_read = 0

    def clear(self) -> None:
        self.calls.clear()
        self.octets_read = 0

    @property
    def reads(self) -> int:
        return sum(count for name, count in self.calls.items() if name.partition(".")[2] in READS)

    def writes(self) -> dict[str, int]:
        return {name: count for name, count in self.calls.items() if name.partition(".")[2] not in READS}


class Counted:
    """A store whose calls are counted, and take *latency* seconds each."""

    def __init__(self, name: str, store: Any, tally: Tally, clock: Clock, latency: float = 0.0) -> None:
        self._name, self._store, self._tally, self._clock, self._latency = name, store, tally, clock, latency

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if not callable(method):
            return method

        def call(*arguments: Any, **named: Any) -> Any:
            self._tally.calls[f"{self._name}.{name}"] += 1
            if name == "writer":
                return Counted("blob", method(*arguments, **named), self._tally, self._clock)
            if name in ("get_many", "open", "iterate", "publish", "subscribe"):
                return method(*arguments, **named)
            return self._call(name, method, arguments, named)

        return call

    async def _call(self, name: str, method: Any, arguments: Any, named: Any) -> Any:
        if self._latency:
            await deferLater(self._clock, self._latency, lambda: None)
        result = await method(*arguments, **named)
        if name == "read":
            self._tally.octets_read += sum(len(entry.data) for entry in result)
        elif name == "load_checkpoint" and result is not None:
            self._tally.octets_read += sum(map(len, result.chunks.values()))
        return result


class Shop:
    """A house whose every store is counted."""

    def __init__(self, latency: float = 0.0, every: int = 64) -> None:
        self.tally = Tally()
        self.house = House(AccountSettings(checkpoint_entries=every))
        self.clock = self.house.clock
        engine = self.house.engine
        self.stores = {
            name: Counted(name, store, self.tally, self.clock, latency)
            for name, store in {
                "log": engine.account_log,
                "messages": engine.messages,
                "blobs": engine.blobs,
                "references": engine.references,
            }.items()
        }

    def node(self) -> AccountService:
        return self.house.node(**self.stores)


async def deliver(service: AccountService, account: Account, octets: bytes) -> int:
    """As the delivery room does it; returns the UID."""
    opened = await service.open(account.id)
    try:
        writer = service.writer(account.id)
        await writer.write(octets)
        stored = await opened.store(await writer.finish())
        intent = AddMessages(
            mailbox=opened.state.inbox.id, messages=(new_message(stored, 1),), delivery=DeliveryId.new().octets
        )
        return (await opened.commit(intent)).uids[0]
    finally:
        service.release(opened)


def settled(shop: Shop, coroutine: Any) -> Any:
    done: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(done.append)
    while not done:
        shop.clock.advance(0.001)
    return done[0]


def filled(shop: Shop, messages: int = 3_000) -> Account:
    """An account with mail, a checkpoint, and a tail."""
    account = shop.house.open()
    for start in range(0, messages, 20):
        add(account, *(message() for _ in range(min(20, messages - start))))
    return account


def test_a_warm_delivery_reads_nothing_and_writes_a_row_and_an_entry() -> None:
    shop = Shop()
    account, service = filled(shop), shop.node()
    settled(shop, deliver(service, account, SMALL))
    shop.tally.clear()
    settled(shop, deliver(service, account, SMALL))
    assert shop.tally.reads == 0
    assert shop.tally.writes() == {"messages.put": 1, "log.append": 1}


def test_a_cold_delivery_takes_two_reads_of_together_at_most_64_kib() -> None:
    shop = Shop()
    account, service = filled(shop), shop.node()
    assert settled(shop, deliver(service, account, SMALL)) == 3_001
    assert shop.tally.reads == 2
    assert 0 < shop.tally.octets_read <= 64 * 1024
    assert shop.tally.writes() == {"messages.put": 1, "log.append": 1}


def test_a_large_message_is_one_object() -> None:
    shop = Shop()
    account, service = filled(shop), shop.node()
    settled(shop, deliver(service, account, SMALL))
    shop.tally.clear()
    settled(shop, deliver(service, account, LARGE))
    writes = shop.tally.writes()
    assert (writes["blobs.writer"], writes["blob.finish"]) == (1, 1)
    assert (writes["messages.put"], writes["log.append"]) == (1, 1)


def test_deliveries_in_company_share_the_append(senders: int = 64) -> None:
    shop = Shop(latency=0.005, every=130)
    account, service = filled(shop), shop.node()
    settled(shop, deliver(service, account, SMALL))
    shop.tally.clear()
    started = shop.clock.seconds()
    uids: list[int] = []
    for _ in range(senders):
        Deferred.fromCoroutine(deliver(service, account, SMALL)).addCallback(uids.append)
    while len(uids) < senders:
        shop.clock.advance(0.001)
    assert sorted(uids) == list(range(3_002, 3_002 + senders))
    assert shop.tally.reads == 0
    assert shop.tally.calls["log.append"] <= 2
    assert shop.clock.seconds() - started <= 0.05, "three waits: the row, an append of others, its own"


def test_a_checkpoint_is_paid_by_many_deliveries() -> None:
    shop = Shop()
    account, service = filled(shop), shop.node()
    for _ in range(128):
        settled(shop, deliver(service, account, SMALL))
    assert shop.tally.calls["log.save_checkpoint"] <= 3
    assert shop.tally.reads <= 2 + 2 * 3
