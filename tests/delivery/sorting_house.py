"""Nodes whose users have Sieve scripts, and a world outside that remembers what was sent to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from tests.delivery.queue_house import Death, Node, QueueHouse, Switched
from tests.delivery.support import PEER, run
from twisted_mail.account.intents import SetSetting
from twisted_mail.delivery import DeliverySettings, MailIntake
from twisted_mail.delivery.effects import Effects, EffectSettings
from twisted_mail.delivery.internal import InternalMail
from twisted_mail.delivery.items import Copy
from twisted_mail.delivery.judgement import Judgement
from twisted_mail.delivery.placing import Placer
from twisted_mail.delivery.scripts import ActiveScripts
from twisted_mail.delivery.sorting import Sorter, SortSettings
from twisted_mail.delivery.stories import Chapter
from twisted_mail.delivery.worker import DeliveryWorker
from twisted_mail.services import Envelope, MailRefused, Recipient
from twisted_mail.sieve import RunLimits, compile_script
from twisted_mail.tap.rejecting import Rejections
from twisted_mail.values import AccountId, DeliveryId

ANN, BOB = "ann@example.org", "bob@example.org"
EVE = "eve@elsewhere.example"


@dataclass
class World:
    """The outbound queue: what was put into it, by id, however often. Implements `OutboundQueue` and `OutboundDoor`."""

    sent: dict[DeliveryId, tuple[str, str, bytes]] = field(default_factory=dict)
    """(sender, recipient, octets). It is sent at once, so who puts the same again sends it twice."""
    twice: int = 0
    fail: Exception | None = None

    def begin(self, envelope: Envelope) -> Leaving:
        return Leaving(self, envelope.sender)

    async def submit(
        self, cause: DeliveryId, action: str, recipient: str, octets: bytes, *, stream: str = "", sender: str = ""
    ) -> None:
        if self.fail is not None:
            raise self.fail
        self.put(cause.caused(action), sender, recipient, octets)

    def put(self, id: DeliveryId, sender: str, recipient: str, octets: bytes) -> None:
        self.twice += id in self.sent
        self.sent[id] = (sender, recipient, octets)

    def to(self, recipient: str) -> list[EmailMessage]:
        """The messages that were sent to *recipient*."""
        return [parsed(octets) for _, to, octets in self.sent.values() if to == recipient]


@dataclass
class Leaving:
    world: World
    sender: str
    octets: bytes = b""

    async def write(self, chunk: bytes) -> None:
        self.octets += chunk

    async def finish(self, targets: Sequence[tuple[DeliveryId, str, Recipient]]) -> None:
        if self.world.fail is not None:
            raise self.world.fail
        for id, address, _ in targets:
            self.world.put(id, self.sender, address, self.octets)

    async def abort(self) -> None:
        pass


def parsed(octets: bytes) -> EmailMessage:
    return message_from_bytes(octets, policy=policy.default)


class Notes(Switched):
    """What was done; its steps have names of their own."""

    async def _call(self, name: str, act: Callable[[], Any]) -> Any:
        return await super()._call({"put": "note", "get": "noted"}.get(name, name), act)


class SortingNode(Node):
    """A node that sorts."""

    def __init__(
        self, house: SortingHouse, *, straight: bool = True, death: Death | None = None, steps: int = 100_000
    ) -> None:
        super().__init__(house, straight=straight, death=death)
        self.records = Notes(house.engine.records, death)
        self.scripts = ActiveScripts(self.directory, house.clock, compile_script)
        self.chapters: list[Chapter] = []
        sorter = Sorter(self.scripts, SortSettings(hostname="mx.example.org", limits=RunLimits(steps=steps)))

        async def send(cause: DeliveryId, action: str, recipient: str, octets: bytes, *, stream: str = "") -> None:
            await self.internal.submit(cause, action, recipient, octets, stream=stream)

        effects = Effects(
            self.accounts,
            lambda address: self.intake.resolve(address),
            send,
            EffectSettings(hostname="mx.example.org"),
            inbound=self.inbound,
            outbound=house.world,
            bounce=Rejections(send, "mx.example.org", wall=house.wall),
            records=self.records,
            wall=house.wall,
        )
        self.placer = Placer(
            self.accounts, sorter=sorter, effects=effects, wall=house.wall, tell=self.chapters.append
        )
        self.ways = replace(self.ways, placer=self.placer)
        self.intake = MailIntake(
            self.directory,
            self.ways,
            DeliverySettings(hostname="mx.example.org", remember_seconds=1.0, detail_mailboxes=True),
            outbound=house.world,
            wall=house.wall,
        )
        self.internal: InternalMail = InternalMail(self.intake, self.inbound, house.world, house.wall)
        self.worker = DeliveryWorker(
            self.queue,
            self.bodies,
            self.accounts,
            self.directory,
            house.clock,
            placer=self.placer,
            settings=house.settings,
            counts=self.counts,
            wall=house.wall,
            random=lambda: 0.5,
        )
        self.inbound.wake(self.worker.wake)

    @property
    def story(self) -> list[str]:
        """What became of the last message, line by line."""
        return [*self.chapters[-1].lines, *self.chapters[-1].result.split("; ")]


class SortingHouse(QueueHouse):
    """Ann and Bob, and whoever else."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.world = World()

    def script(self, address: str, text: str, name: str = "main", *, active: bool = True) -> None:
        """Store a script; nodes that looked before do not know of it for a minute."""
        run(self.engine.directory.put_script(self.people[address], name, text))
        if active:
            run(self.engine.directory.activate_script(self.people[address], name))

    def set(self, node: Node, address: str, name: str, value: str) -> None:
        async def change() -> None:
            account = await node.accounts.open(self.people[address])
            await account.commit(SetSetting(name=name, value=value))
            node.accounts.release(account)

        run(change())

    def boxes(self, node: Node, address: str) -> dict[str, int]:
        """How many messages lie in each mailbox that has any, as *node* sees it."""

        async def look() -> dict[str, int]:
            account = await node.accounts.open(self.people[address])
            await account.refresh()
            found = {box.name: box.messages for box in account.state.in_order() if box.messages}
            node.accounts.release(account)
            return found

        return run(look())

    def messages(self, node: Node, address: str, mailbox: str = "INBOX") -> list[tuple[bytes, list[str]]]:
        """(octets, flags) of what lies in *mailbox*."""

        async def look() -> list[tuple[bytes, list[str]]]:
            account = await node.accounts.open(self.people[address])
            await account.refresh()
            columns = await account.columns(account.state.mailbox(mailbox))
            found = [
                (b"".join([chunk async for chunk in account.octets(columns.key(slot))]), columns.flags_of(slot))
                for slot in columns.live
            ]
            node.accounts.release(account)
            return found

        return run(look())

    def judged(self, node: Node, address: str, message: bytes, judgement: Judgement, sender: str = EVE) -> Any:
        """Deliver *message* with what was found out about it."""

        async def deliver() -> Any:
            recipient = await node.intake.recipient(address, identity=None)
            envelope = Envelope(sender, (recipient,), PEER, "client.example", "ESMTP")
            incoming = node.intake.accepted(envelope, id="x", judgement=judgement)
            await incoming.write(message)
            return (await incoming.finish())[0]

        return run(deliver())


def mail(
    *fields: str, sender: str = EVE, to: str = ANN, subject: str = "Hello", body: str = "text\r\n", id: str = "<1@x>"
) -> bytes:
    """A message."""
    header = [f"From: {sender}", f"To: {to}", f"Subject: {subject}", f"Message-ID: {id}", *fields]
    return "\r\n".join(header).encode() + b"\r\n\r\n" + body.encode()


def a_copy(account: AccountId, address: str = ANN, judgement: Judgement | None = None) -> Copy:
    return Copy(delivery=DeliveryId.new(), account=account, address=address, user=address, judgement=judgement)


def refused(outcome: Any) -> MailRefused | None:
    found: MailRefused | None = outcome.refused
    return found
