"""Two data centres that replicate to each other whenever the test says so, cell by cell, the newest cell winning.

Agreement reaches over one centre only, as that of LOCAL_SERIAL does: the compare-and-set looks at the centre's own
head. Each centre's clock stamps what it writes; within one centre the stamps ascend (ballots), between two they are
what the clocks say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.account.network import Network
from tests.account.simulation import Shared, SimulatedLog, _read_fails
from tests.account.test_machine import ACCOUNT, NoBus
from twisted_mail.account.committer import OpenAccount
from twisted_mail.account.entries import MessagesAdded, decode_entry
from twisted_mail.account.service import AccountService, AccountSettings
from twisted_mail.storage.interfaces import Conflict, LogEntry, NewEntry
from twisted_mail.values import AccountId, EntryId, ModSeq

Cell = tuple[int, Any]
"""(stamp, value): of two for one key the higher one stands. Key 0 is the head, the others are the slots."""


def _rank(cell: Cell) -> tuple[int, Any]:
    """Of two cells with one stamp, that with the greater value stands."""
    stamp, value = cell
    return stamp, value.id.octets if isinstance(value, LogEntry) else value


@dataclass
class Centre(Shared):
    """What one data centre has of the account's log."""

    skew: int = 0
    time: Clock = field(default_factory=Clock)
    cells: dict[int, Cell] = field(default_factory=dict)
    outgoing: list[dict[int, Cell]] = field(default_factory=list)
    """Batches that the other centre has not got yet."""
    ballot: int = 0

    @property
    def head(self) -> int:
        head: int = self.cells.get(0, (0, 0))[1]
        return head

    def merge(self, batch: dict[int, Cell]) -> None:
        for key, cell in batch.items():
            if key not in self.cells or _rank(self.cells[key]) < _rank(cell):
                self.cells[key] = cell

    def append(self, expected: int, new: Sequence[NewEntry]) -> None:
        if expected != self.head:
            raise Conflict(f"head is {self.head}")
        self.ballot = max(self.ballot + 1, int(self.time.seconds() * 1000) + self.skew)
        batch: dict[int, Cell] = {0: (self.ballot, expected + len(new))}
        for at, entry in enumerate(new, expected + 1):
            batch[at] = (self.ballot, LogEntry(ModSeq(at), entry.id, entry.data))
        self.merge(batch)
        self.outgoing.append(batch)

    def log(self) -> list[LogEntry]:
        """What stands, up to the head. Fails where there is a gap."""
        return [self.cells[at][1] for at in range(1, self.head + 1)]


class CentreLog(SimulatedLog):
    """Implements `AccountLog` for one node in a centre. Gaps of what has not arrived yet are passed over."""

    shared: Centre

    async def read(self, account: AccountId, after: ModSeq, limit: int | None = None) -> Sequence[LogEntry]:
        def act(outcome: str) -> Sequence[LogEntry]:
            _read_fails(outcome)
            cells = self.shared.cells
            found = [cells[at][1] for at in range(after + 1, self.shared.head + 1) if at in cells]
            return found[:limit]

        result: Sequence[LogEntry] = await self._step("read", act)
        return result

    async def settle(self, account: AccountId, expected: ModSeq, ids: Sequence[EntryId]) -> bool:
        def act(outcome: str) -> bool:
            _read_fails(outcome)
            for item in list(self.shared.late):
                if [entry.id for entry in item[1]] == list(ids):
                    self.shared.late.remove(item)
                    if outcome != "never" and item[0] == self.shared.head:
                        self.shared.append(*item)
            cells = self.shared.cells
            return all(at in cells and cells[at][1].id == id for at, id in enumerate(ids, expected + 1))

        result: bool = await self._step("settle", act)
        return result


class World:
    """dc1 and dc2, and nodes in them."""

    def __init__(self, skew: int = 0, *, rule: bool = True) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.centres = {"dc1": Centre(time=self.clock), "dc2": Centre(time=self.clock, skew=skew)}
        self.network = Network()
        self.rule = rule
        """Whether nodes know where they are; without it each takes the account for its own."""

    def replicate(self, source: str, pick: int = 0) -> bool:
        """One batch of *source*'s arrives in the other centre; False if there is none."""
        outgoing = self.centres[source].outgoing
        if not outgoing:
            return False
        self.centres["dc2" if source == "dc1" else "dc1"].merge(outgoing.pop(pick % len(outgoing)))
        return True

    def replicate_all(self) -> None:
        for source in self.centres:
            while self.replicate(source):
                pass

    def node(self, name: str, centre: str, *, by_hand: bool = False) -> CentreNode:
        return CentreNode(self, name, centre, by_hand=by_hand)

    def deliveries(self, centre: str) -> list[bytes]:
        """The delivery ids in the log of *centre*, in order; a message without one by its id."""
        found = []
        for logged in self.centres[centre].log():
            entry = decode_entry(logged.data)
            for change in entry.changes:
                if isinstance(change, MessagesAdded):
                    found += [entry.delivery or each.message for each in change.messages]
        return found


class Rows:
    """Implements what `AccountService` needs of `Messages` where no message has octets."""

    def get_many(self, account: AccountId, keys: Sequence[Any], columns: Sequence[str]) -> Any:
        async def batches() -> Any:
            yield [(b"",) for _ in keys]

        return batches()


class CentreNode:
    """A node of one centre."""

    def __init__(self, world: World, name: str, centre: str, *, by_hand: bool) -> None:
        self.world, self.name, self.centre = world, name, centre
        self.log = CentreLog(world.centres[centre], by_hand=by_hand)
        unused: Any = None
        rows: Any = Rows()
        members = world.network.end(name)
        self.service = AccountService(
            log=self.log,
            messages=rows,
            blobs=unused,
            leases=unused,
            bus=NoBus(),
            clock=world.clock,
            settings=AccountSettings(checkpoint_entries=100_000, commit_seconds=20),
            wall=lambda: 1_700_000_000 + world.clock.seconds(),
            members=members if world.rule else None,
            node=name,
            datacenter=centre if world.rule else "",
        )
        if world.rule:
            Deferred.fromCoroutine(members.join(name, frozenset(), self.service.serve, centre))
        self.account: OpenAccount | None = None

    def open(self) -> None:
        """Have the account open, when it can be."""
        if self.account is None:
            Deferred.fromCoroutine(self.service.open(ACCOUNT)).addCallbacks(self._opened, lambda failure: None)

    def _opened(self, account: OpenAccount) -> None:
        self.account = account
