"""Two clients on one mailbox, each knowing only what it was told: after any commands their pictures are the server's."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.account.house import now
from tests.imap.session.fakes import Node, Talk
from twisted_mail.account import columns as account_columns

FLAGS = ("\\Seen", "\\Deleted", "\\Flagged", "one", "TWO")
MODES = {"plain": "", "condstore": "CONDSTORE", "qresync": "QRESYNC", "rev2": "IMAP4rev2", "all": "IMAP4rev2 QRESYNC"}
NO_EXPUNGE = ("FETCH", "STORE", "SEARCH")

EXISTS = re.compile(r"\* (\d+) EXISTS")
EXPUNGE = re.compile(r"\* (\d+) EXPUNGE")
VANISHED = re.compile(r"\* VANISHED ([0-9:,]+)")
FETCH = re.compile(r"\* (\d+) FETCH \((.*)\)")
UID = re.compile(r"UID (\d+)")
FLAG_LIST = re.compile(r"FLAGS \(([^)]*)\)")
FLAG_NAMES = re.compile(r"\* FLAGS \((.*)\)")
MODIFIED = re.compile(r"\[MODIFIED ([0-9:,]+)\]")


def numbers(text: str) -> list[int]:
    found: list[int] = []
    for element in text.split(","):
        low, _, high = element.partition(":")
        found.extend(range(int(low), int(high or low) + 1))
    return found


class Message:
    """What a client knows of one message."""

    def __init__(self) -> None:
        self.uid: int | None = None
        self.flags: set[str] | None = None


class Client:
    """A connection, and the picture that its untagged responses make."""

    def __init__(self, node: Node, mode: str) -> None:
        self.talk: Talk = node.talk().login()
        self.mode = mode
        self.count = 0
        self.idle = False
        self.messages: list[Message] = []
        self.known_flags: set[str] = set()
        if MODES[mode]:
            self.say(f"ENABLE {MODES[mode]}")
        self.say("SELECT INBOX")
        self.learn()

    def say(self, text: str) -> str:
        """Carry out a command; returns the tagged answer."""
        self.count += 1
        tag = f"t{self.count}"
        name = text.split()[0]
        lines = self.talk.lines(f"{tag} {text}")
        answer = [line for line in lines if line.startswith(tag)]
        assert len(answer) == 1, lines
        assert not self.talk.failures, self.talk.failures
        self.hear([line for line in lines if line[0] == "*"], expunges=name not in NO_EXPUNGE)
        return answer[0]

    def hear(self, lines: list[str], *, expunges: bool) -> None:
        for line in lines:
            if match := EXISTS.fullmatch(line):
                count = int(match[1])
                assert count >= len(self.messages), "EXISTS never makes it fewer"
                self.messages.extend(Message() for _ in range(count - len(self.messages)))
            elif match := EXPUNGE.fullmatch(line):
                assert expunges, line
                assert "QRESYNC" not in MODES[self.mode], line
                del self.messages[int(match[1]) - 1]
            elif match := VANISHED.fullmatch(line):
                assert expunges, line
                gone = set(numbers(match[1]))
                known = {message.uid for message in self.messages}
                # UIDs the client has not asked for yet are those of messages that came last, in order.
                strangers = [message for message in self.messages if message.uid is None]
                assert len(gone - known) <= len(strangers), "VANISHED only what the client was told of"
                away = strangers[: len(gone - known)]
                self.messages = [m for m in self.messages if m.uid not in gone and m not in away]
            elif match := FETCH.fullmatch(line):
                message = self.messages[int(match[1]) - 1]
                if uid := UID.search(match[2]):
                    assert message.uid in (None, int(uid[1])), "a number is somebody else's"
                    message.uid = int(uid[1])
                if flags := FLAG_LIST.search(match[2]):
                    message.flags = set(flags[1].split()) - {"\\Recent"}
                    assert message.flags <= self.known_flags, "FLAGS comes before a new keyword is used"
            elif match := FLAG_NAMES.fullmatch(line):
                self.known_flags = set(match[1].split())

    def learn(self) -> None:
        """Fetch what came in."""
        while any(message.uid is None or message.flags is None for message in self.messages):
            assert " OK" in self.say("FETCH 1:* (UID FLAGS)")

    def pick(self, data: Any, *, uid: bool) -> tuple[str, list[Message]]:
        """A set of messages, and which they are."""
        places = data.draw(st.sets(st.integers(0, len(self.messages) - 1), min_size=1, max_size=4))
        chosen = [self.messages[place] for place in sorted(places)]
        names = [str(self.messages[place].uid if uid else place + 1) for place in sorted(places)]
        return ",".join(names), chosen


class TwoClients(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.node = Node()
        self.clients: list[Client] = []

    @initialize(
        modes=st.tuples(st.sampled_from(sorted(MODES)), st.sampled_from(sorted(MODES))), messages=st.integers(0, 6)
    )
    def begin(self, modes: tuple[str, str], messages: int) -> None:
        for number in range(messages):
            now(
                self.node.add(b"Subject: %d\r\n\r\n%d\r\n" % (number, number), flags=FLAGS[number % 5 : number % 5 + 1])
            )
        self.clients = [Client(self.node, mode) for mode in modes]

    def client(self, which: int) -> Client:
        client = self.clients[which]
        if client.idle:
            client.idle = False
            client.hear([line for line in client.talk.lines("DONE") if line[0] == "*"], expunges=True)
        client.learn()
        return client

    @rule(which=st.integers(0, 1), data=st.data(), uid=st.booleans(), silent=st.booleans(), unchanged=st.booleans())
    def store(self, which: int, data: Any, uid: bool, silent: bool, unchanged: bool) -> None:
        client = self.client(which)
        if not client.messages:
            return
        names, chosen = client.pick(data, uid=uid)
        mode = data.draw(st.sampled_from(["", "+", "-"]))
        flags = data.draw(st.sets(st.sampled_from(FLAGS), max_size=2))
        modifier = f" (UNCHANGEDSINCE {data.draw(st.integers(1, 30))})" if unchanged else ""
        before = list(client.messages)
        answer = client.say(
            f"{'UID ' if uid else ''}STORE {names}{modifier} {mode}FLAGS{'.SILENT' if silent else ''} ({' '.join(sorted(flags))})"
        )
        assert " OK " in answer, answer
        if silent:
            failed: set[int] = set()
            if match := MODIFIED.search(answer):
                failed = set(numbers(match[1]))
            for message in chosen:
                name = message.uid if uid else before.index(message) + 1
                if name in failed:
                    continue
                have = message.flags or set()
                message.flags = have | flags if mode == "+" else have - flags if mode == "-" else set(flags)
            # what the server told meanwhile is newer than this guess: ask for what is in doubt
            if unchanged:
                client.say("FETCH 1:* (UID FLAGS)")

    @rule(which=st.integers(0, 1), data=st.data(), some=st.booleans())
    def expunge(self, which: int, data: Any, some: bool) -> None:
        client = self.client(which)
        if some and client.messages:
            names, _ = client.pick(data, uid=True)
            assert " OK " in client.say(f"UID EXPUNGE {names}")
        else:
            assert " OK " in client.say("EXPUNGE")

    @rule(
        which=st.integers(0, 1),
        data=st.data(),
        uid=st.booleans(),
        move=st.booleans(),
        into=st.sampled_from(["INBOX", "Sent"]),
    )
    def transfer(self, which: int, data: Any, uid: bool, move: bool, into: str) -> None:
        client = self.client(which)
        if client.messages:
            names, _ = client.pick(data, uid=uid)
            assert " OK " in client.say(f"{'UID ' if uid else ''}{'MOVE' if move else 'COPY'} {names} {into}")

    @rule(flags=st.sets(st.sampled_from(FLAGS), max_size=2))
    def deliver(self, flags: set[str]) -> None:
        now(self.node.add(b"Subject: new\r\n\r\nx\r\n", flags=tuple(sorted(flags))))
        self.hear_idle()

    @rule(which=st.integers(0, 1), data=st.data(), uid=st.booleans())
    def read(self, which: int, data: Any, uid: bool) -> None:
        client = self.client(which)
        if client.messages:
            names, _ = client.pick(data, uid=uid)
            client.say(f"{'UID ' if uid else ''}FETCH {names} (BODY[TEXT]<9.1>)")

    @rule(which=st.integers(0, 1), uid=st.booleans())
    def search(self, which: int, uid: bool) -> None:
        client = self.client(which)
        assert " OK " in client.say(f"{'UID ' if uid else ''}SEARCH OR SEEN SUBJECT new")

    @rule(which=st.integers(0, 1))
    def start_idle(self, which: int) -> None:
        client = self.client(which)
        client.idle = True
        client.talk.feed(b"i IDLE\r\n")
        self.hear_idle()

    @rule(which=st.integers(0, 1))
    def poll(self, which: int) -> None:
        client = self.client(which)
        client.say("NOOP")

    def hear_idle(self) -> None:
        for client in self.clients:
            if client.idle:
                client.hear(
                    [line for line in client.talk.take().decode().splitlines() if line[0] == "*"], expunges=True
                )

    @rule()
    def compare(self) -> None:
        """Both poll: their pictures are the server's. In between, each may be far behind."""
        self.hear_idle()
        for client in self.clients:
            if not client.idle:
                client.say("NOOP")
            account = now(self.node.open())
            columns: Any = account.state.inbox.columns
            live = [(uid, set(columns.flags_of(slot))) for uid, slot in columns.iterate()]
            assert len(client.messages) == len(live)
            for message, (uid, flags) in zip(client.messages, live, strict=True):
                assert message.uid in (None, uid)
                assert message.flags is None or message.flags == flags, (client.mode, uid, message.flags, flags)
            self.node.service.release(account)

    def teardown(self) -> None:
        if self.clients:
            self.compare()


def _run(examples: int) -> None:
    run_state_machine_as_test(
        TwoClients, settings=settings(max_examples=examples, stateful_step_count=20, deadline=None)
    )


def test_two_clients() -> None:
    _run(200)


def test_two_clients_with_a_journal_that_forgets(monkeypatch: Any) -> None:
    monkeypatch.setattr(account_columns, "JOURNAL_LENGTH", 1)
    _run(200)
