"""A delivery room over stores in memory, and a look into its mailboxes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from twisted_mail.account.errors import AccountUnavailable
from twisted_mail.account.service import AccountService
from twisted_mail.account.tree import CreateMailbox
from twisted_mail.delivery import DeliverySettings, MailIntake, Ways
from twisted_mail.services import Envelope, Identity, Outcome, Peer, Recipient
from twisted_mail.storage.interfaces import AccountRecord, Alias, Domain, EngineContext
from twisted_mail.storage.memory import MemoryEngine
from twisted_mail.values import AccountId, DeliveryId, canonical_address

T = TypeVar("T")
NOW = 1_700_000_000.0
PEER = Peer("192.0.2.7", 4711, service="smtp")


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine whose Deferreds have all fired when it comes to them."""
    results: list[Any] = []
    Deferred.fromCoroutine(work).addBoth(results.append)
    assert results, "it is still waiting"
    if isinstance(results[0], Failure):
        results[0].raiseException()
    value: T = results[0]
    return value


async def _join(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


@dataclass
class FakeOutbound:
    """A queue for other domains, and its messages."""

    queued: list[tuple[list[tuple[str, str]], bytes]] = field(default_factory=list)
    aborted: int = 0
    fail: Exception | None = None

    def begin(self, envelope: Envelope) -> FakeOutboundMessage:
        return FakeOutboundMessage(self)


@dataclass
class FakeOutboundMessage:
    queue: FakeOutbound
    octets: bytes = b""
    ids: list[DeliveryId] = field(default_factory=list)

    async def write(self, chunk: bytes) -> None:
        self.octets += chunk

    async def finish(self, targets: Any) -> None:
        if self.queue.fail is not None:
            raise self.queue.fail
        self.queue.queued.append(([(address, recipient.address) for _, address, recipient in targets], self.octets))

    async def abort(self) -> None:
        self.queue.aborted += 1


class House:
    """Domains ``example.org`` and ``bücher.example``, and whoever a test adds."""

    def __init__(self, *, outbound: FakeOutbound | None = None, ways: dict[str, Any] | None = None, **settings: Any) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.engine = MemoryEngine(EngineContext(self.clock, Path("/nowhere")))
        self.directory = self.engine.directory
        self.accounts = AccountService(
            log=self.engine.account_log,
            messages=self.engine.messages,
            blobs=self.engine.blobs,
            leases=self.engine.leases,
            bus=self.engine.bus,
            clock=self.clock,
            wall=lambda: NOW,
        )
        self.ways = Ways(accounts=self.accounts, clock=self.clock, **(ways or {}))
        self.intake = MailIntake(
            self.directory,
            self.ways,
            DeliverySettings(**{"hostname": "mx.example.org", **settings}),
            outbound=outbound,
            wall=lambda: NOW,
        )
        self.people: dict[str, AccountId] = {}
        for name in ("example.org", "xn--bcher-kva.example"):
            run(self.directory.add_domain(Domain(name)))

    def user(self, address: str, **more: Any) -> AccountId:
        record = AccountRecord(AccountId.new(), canonical_address(address), **more)
        run(self.directory.add_account(record))
        self.people[address] = record.id
        return record.id

    def breaks(self, address: str) -> None:
        """The account of *address* cannot be opened any more."""
        broken, opens = self.people[address], self.accounts.open

        async def open(account: AccountId) -> Any:
            if account == broken:
                raise AccountUnavailable("no answer")
            return await opens(account)

        self.accounts.open = open  # type: ignore[method-assign]

    def alias(self, address: str, *targets: str) -> None:
        run(self.directory.add_alias(Alias(address, targets)))

    def recipient(self, address: str, identity: Identity | None = None) -> Recipient:
        return run(self.intake.recipient(address, identity=identity))

    def names(self, address: str) -> list[str]:
        """The users that *address* leads to, by the names they were added under."""
        found = self.recipient(address).accounts
        return sorted(name for name, id in self.people.items() if id in found)

    def envelope(self, *recipients: str, sender: str = "a@b.example", identity: Identity | None = None) -> Envelope:
        return Envelope(
            sender, tuple(self.recipient(each, identity) for each in recipients), PEER, "client.example", "ESMTP"
        )

    def deliver(self, *recipients: str, message: bytes = b"Subject: x\r\n\r\ntext\r\n", **more: Any) -> list[Outcome]:
        incoming = run(self.intake.begin(self.envelope(*recipients, **more)))
        run(incoming.write(message))
        return list(run(incoming.finish()))

    def mailbox(self, address: str, name: str = "INBOX") -> list[bytes]:
        """The messages in a mailbox."""
        account = run(self.accounts.open(self.people[address]))
        columns = run(account.columns(account.state.mailbox(name)))
        messages = [run(_join(account.octets(columns.key(slot)))) for slot in columns.live]
        self.accounts.release(account)
        return messages

    def create(self, address: str, name: str) -> None:
        account = run(self.accounts.open(self.people[address]))
        run(account.commit(CreateMailbox.of(name, int(NOW))))
        self.accounts.release(account)
