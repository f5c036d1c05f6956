"""Any interleaving of writers on two nodes, crashes between any two steps, and unknown outcomes."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from pyroaring import BitMap
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.account.model import Model, Shape, assert_same
from tests.account.simulation import Shared, SimulatedLog
from twisted_mail.account.apply import apply
from twisted_mail.account.committer import OpenAccount
from twisted_mail.account.entries import (
    FlagChanged,
    MailboxCreated,
    MessagesAdded,
    decode_entry,
    pack_uids,
)
from twisted_mail.account.errors import AccountUnavailable, OutcomeUnknown, Refused
from twisted_mail.account.intents import AddMessages, ChangeFlags, CopyMessages, Expunge, Intent, NewMessage
from twisted_mail.account.service import AccountService, AccountSettings
from twisted_mail.account.state import AccountState
from twisted_mail.account.tree import CreateMailbox, DeleteMailbox, RenameMailbox
from twisted_mail.storage.interfaces import LogEntry
from twisted_mail.values import AccountId, MailboxId, ModSeq

ACCOUNT = AccountId(b"a" * 16)
FAILURES = ["refused", "lost", "hidden", "late", "mistaken", "never"]
OUTCOMES = st.sampled_from(["ok"] * 6 + FAILURES)
THEN = st.sampled_from(["go", "go", "ok", "queue", *FAILURES[:5]])
"""What follows an intent: everything goes through; or its first append ends so; or it stays under way."""


class NoBus:
    """Notices get lost; heads are polled."""

    def publish(self, account: AccountId, modseq: ModSeq) -> None: ...

    def subscribe(self, account: AccountId, moved: Any) -> Any:
        return lambda: None


class Node:
    """One process: its service, its account, and what it was asked to do."""

    def __init__(self, shared: Shared, clock: Clock, *, by_hand: bool = True, every: int = 5) -> None:
        self.log = SimulatedLog(shared, by_hand=by_hand)
        unused: Any = None
        self.service = AccountService(
            log=self.log,
            messages=unused,
            blobs=unused,
            leases=unused,
            bus=NoBus(),
            clock=clock,
            settings=AccountSettings(checkpoint_entries=every, retention_seconds=1e9, commit_seconds=20),
            wall=lambda: 1_700_000_000 + clock.seconds(),
        )
        self.account = OpenAccount(self.service, ACCOUNT)
        self.loaded = False
        self._load()

    def _load(self) -> None:
        Deferred.fromCoroutine(self.account.load()).addCallbacks(
            self._loaded, lambda failure: self.service.clock.callLater(1, self._load)
        )

    def _loaded(self, result: None) -> None:
        self.loaded = True


class Asked:
    """An intent, the mark by which it is found in the log, and how it ended."""

    def __init__(self, node: Node, mark: object, done: Deferred[Any]) -> None:
        self.node = node
        self.mark = mark
        self.ended: str | None = None
        done.addCallbacks(self._ok, self._failed)

    def _ok(self, result: Any) -> None:
        self.ended = "ok"

    def _failed(self, failure: Any) -> None:
        error = failure.value
        if isinstance(error, OutcomeUnknown):
            self.ended = "unknown"
        elif isinstance(error, Refused | AccountUnavailable):
            self.ended = "refused"
        else:
            self.ended = f"defect: {failure.getTraceback()}"


class AccountMachine(RuleBasedStateMachine):
    """Two nodes write one account; the log is the truth, the model judges the states."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = Shared(appended=self.appended)
        self.clock = Clock()
        self.model = Model()
        self.shapes: list[Shape] = [self.model.shape()]
        self.marks: list[object] = []
        self.asked: list[Asked] = []
        self.counter = 0
        self.nodes: list[Node] = []
        self.dead: list[Node] = []

    def appended(self, logged: LogEntry) -> None:
        entry = decode_entry(logged.data)
        self.model.apply(entry)
        self.shapes.append(self.model.shape())
        for change in entry.changes:
            if isinstance(change, MessagesAdded) and entry.cause == "add":
                self.marks += [message.message for message in change.messages]
            elif isinstance(change, FlagChanged):
                self.marks.append(change.flag)
            elif isinstance(change, MailboxCreated):
                self.marks.append(change.mailbox)

    @initialize()
    def start(self) -> None:
        setup = Node(self.shared, self.clock, by_hand=False)
        for name in ("INBOX", "Work"):
            Deferred.fromCoroutine(setup.account.commit(CreateMailbox.of(name, 1)))
        for number, mailbox in enumerate(setup.account.state.mailboxes):
            messages = tuple(
                NewMessage(bytes((200 + number,)) * 15 + bytes((uid,)), 0, uid, 19_000, uid, 0, flags)
                for uid, flags in enumerate([(), ("\\Seen",), ("\\Deleted",), ("\\Seen", "\\Deleted"), ("\\Flagged",)])
            )
            Deferred.fromCoroutine(setup.account.commit(AddMessages(mailbox=mailbox, messages=messages)))
        self.nodes = [Node(self.shared, self.clock), Node(self.shared, self.clock)]
        self.run(0)
        self.run(1)

    def _next(self) -> int:
        self.counter += 1
        return self.counter

    def _ask(self, which: int, intent: Intent[Any], then: str, mark: object = None) -> None:
        node = self.nodes[which]
        if not node.loaded:
            return
        self.asked.append(Asked(node, mark, Deferred.fromCoroutine(node.account.commit(intent))))
        for _ in range(0 if then == "queue" else 30):
            if not node.log.steps:
                break
            step = node.log.steps[0]
            if then != "go" and step.name == "append":
                step.go(then)
                break
            step.go()

    def _boxes(self, which: int) -> list[MailboxId]:
        return list(self.nodes[which].account.state.mailboxes)

    def _box(self, which: int, pick: int) -> MailboxId:
        boxes = self._boxes(which)
        return boxes[pick % len(boxes)] if boxes else MailboxId(b"?" * 16)

    @rule(which=st.integers(0, 1), pick=st.integers(0, 3), seen=st.booleans(), then=THEN)
    def add(self, which: int, pick: int, seen: bool, then: str) -> None:
        number = self._next()
        message = NewMessage(
            number.to_bytes(16, "big"), 0, 10 + number, 19_000, 1000 + number, 60, ("\\seen",) if seen else ()
        )
        self._ask(which, AddMessages(mailbox=self._box(which, pick), messages=(message,)), then, message.message)

    @rule(which=st.integers(0, 1), pick=st.integers(0, 3), uids=st.sets(st.integers(1, 6), min_size=1), then=THEN)
    def mark(self, which: int, pick: int, uids: set[int], then: str) -> None:
        flag = f"k{self._next()}"
        intent = ChangeFlags(mailbox=self._box(which, pick), uids=pack_uids(BitMap(uids)), mode="add", flags=(flag,))
        self._ask(which, intent, then)

    @rule(
        which=st.integers(0, 1),
        pick=st.integers(0, 3),
        uids=st.sets(st.integers(1, 6)),
        mode=st.sampled_from(["add", "remove", "replace"]),
        flags=st.sets(st.sampled_from(["\\Seen", "\\Deleted", "\\Flagged"])),
        then=THEN,
    )
    def store(self, which: int, pick: int, uids: set[int], mode: Any, flags: set[str], then: str) -> None:
        self._ask(
            which,
            ChangeFlags(
                mailbox=self._box(which, pick), uids=pack_uids(BitMap(uids)), mode=mode, flags=tuple(sorted(flags))
            ),
            then,
        )

    @rule(which=st.integers(0, 1), pick=st.integers(0, 3), only_deleted=st.booleans(), uid=st.integers(1, 6), then=THEN)
    def expunge(self, which: int, pick: int, only_deleted: bool, uid: int, then: str) -> None:
        uids = None if only_deleted else pack_uids(BitMap([uid]))
        self._ask(which, Expunge(mailbox=self._box(which, pick), uids=uids, only_deleted=only_deleted), then)

    @rule(
        which=st.integers(0, 1),
        pick=st.integers(0, 3),
        to=st.integers(0, 3),
        uid=st.integers(1, 6),
        move=st.booleans(),
        then=THEN,
    )
    def copy(self, which: int, pick: int, to: int, uid: int, move: bool, then: str) -> None:
        self._ask(
            which,
            CopyMessages(
                mailbox=self._box(which, pick),
                uids=pack_uids(BitMap([uid, uid + 1])),
                target=self._box(which, to),
                move=move,
            ),
            then,
        )

    @rule(which=st.integers(0, 1), then=THEN)
    def create(self, which: int, then: str) -> None:
        intent = CreateMailbox.of(f"box{self._next()}", 1)
        self._ask(which, intent, then, intent.ids[-1].octets)

    @rule(which=st.integers(0, 1), pick=st.integers(0, 5), then=THEN)
    def delete_or_rename(self, which: int, pick: int, then: str) -> None:
        state = self.nodes[which].account.state
        names = sorted(state.by_name)
        if not names or "INBOX" not in state.by_name:
            return
        name = names[pick % len(names)]
        if pick % 2:
            self._ask(which, DeleteMailbox(name=name), then)
        else:
            self._ask(which, RenameMailbox.of(state, name, f"Old/{self._next()}", 1), then)

    @rule(which=st.integers(0, 1), pick=st.integers(0, 10), outcome=OUTCOMES)
    def step(self, which: int, pick: int, outcome: str) -> None:
        steps = self.nodes[which].log.steps
        if steps:
            steps[pick % len(steps)].go(outcome)

    @rule(which=st.integers(0, 1))
    def run(self, which: int) -> None:
        for _ in range(20):
            if not self.nodes[which].log.steps:
                break
            self.nodes[which].log.steps[0].go()

    @rule(which=st.integers(0, 1))
    def refresh(self, which: int) -> None:
        if self.nodes[which].loaded:
            self.nodes[which].account.refresh_soon()

    @rule(which=st.integers(0, 1), pick=st.integers(0, 3))
    def look_into(self, which: int, pick: int) -> None:
        node = self.nodes[which]
        boxes = list(node.account.state.mailboxes.values())
        if node.loaded and boxes:
            Deferred.fromCoroutine(node.account.columns(boxes[pick % len(boxes)])).addErrback(
                lambda failure: failure.trap(AccountUnavailable)
            )

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(which=st.integers(0, 1), applied=st.booleans())
    def crash(self, which: int, applied: bool) -> None:
        """What was under way happens or not; nobody hears of it."""
        node = self.nodes[which]
        node.log.dead = True
        self.dead.append(node)  # kept, so that no coroutine of it is collected (and so ended) at a random time
        for step in list(node.log.steps):
            step.go("ok" if applied else "lost")
        self.nodes[which] = Node(self.shared, self.clock)

    @rule()
    def late_ones_arrive(self) -> None:
        for item in list(self.shared.late):
            if item[0] == self.shared.head:
                self.shared.late.remove(item)
                self.shared.append(*item)

    @invariant()
    def states_are_prefixes_of_the_log(self) -> None:
        for node in self.nodes:
            if node.loaded:
                state = node.account.state
                assert state.modseq <= self.shared.head, "nothing is visible before its number"
                assert_same(state, self.shapes[state.modseq])

    @invariant()
    def ends_are_truthful(self) -> None:
        for asked in self.asked:
            assert asked.ended is None or not asked.ended.startswith("defect"), asked.ended
            if asked.ended == "ok" and isinstance(asked.mark, bytes):
                assert self.marks.count(asked.mark) == 1, "acknowledged is there, once"

    def teardown(self) -> None:
        if not self.nodes:
            return
        for _ in range(60):
            for node in self.nodes:
                for step in list(node.log.steps):
                    step.go()
            self.clock.advance(3)
        self.ends_are_truthful()
        for asked in self.asked:
            assert asked.ended is not None or asked.node.log.dead, "everybody gets an answer"
            if isinstance(asked.mark, bytes):
                count = self.marks.count(asked.mark)
                if asked.ended == "refused":
                    assert count == 0, "refused is never there"
                else:
                    assert count <= 1
        for node in self.nodes:
            assert node.loaded
            node.log.by_hand = False
            Deferred.fromCoroutine(node.account.refresh())
            for mailbox in list(node.account.state.mailboxes.values()):
                Deferred.fromCoroutine(node.account.columns(mailbox))
            assert node.account.state.modseq == self.shared.head
            assert_same(node.account.state, self.shapes[-1])
        replayed = AccountState()
        for logged in self.shared.entries:
            apply(replayed, logged.modseq, decode_entry(logged.data))
        assert_same(replayed, self.shapes[-1])
        fresh = Node(self.shared, self.clock, by_hand=False)
        assert fresh.loaded
        for mailbox in list(fresh.account.state.mailboxes.values()):
            Deferred.fromCoroutine(fresh.account.columns(mailbox))
            assert mailbox.columns is not None
        assert_same(fresh.account.state, self.shapes[-1])


TestAccountMachine = AccountMachine.TestCase
TestAccountMachine.settings = settings(
    max_examples=80, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)
