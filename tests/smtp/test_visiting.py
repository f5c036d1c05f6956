"""A connection is asked about at each step, and what comes of it is said."""

from __future__ import annotations

import pytest

from tests.smtp.fakes import Conversation, FakeIntake, run
from twisted_mail.services import Identity, MailRefused, Peer, Recipient, Refusal

HELLO = b"EHLO client.example\r\n"
MESSAGE = HELLO + b"MAIL FROM:<a@b.example>\r\nRCPT TO:<ann@example.org>\r\nDATA\r\n"


class Visited:
    """Writes down what it is asked, and refuses where it is told to."""

    def __init__(self, **refusals: MailRefused | Exception) -> None:
        self.steps: list[str] = []
        self.refusals = refusals

    def _step(self, name: str, text: str = "") -> None:
        self.steps.append(f"{name} {text}".strip())
        if name in self.refusals:
            raise self.refusals[name]

    async def connected(self) -> None:
        self._step("connected")

    def early(self) -> None:
        self._step("early")

    async def greeted(self, helo: str, peer: Peer, *, extended: bool) -> None:
        self._step("greeted", helo)

    async def sender(
        self, address: str, *, identity: Identity | None, size: int | None, body: str, smtputf8: bool
    ) -> None:
        self._step("sender", address)

    async def recipient(self, recipient: Recipient) -> None:
        self._step("recipient", recipient.address)

    async def unknown(self, address: str) -> None:
        self._step("unknown", address)

    async def strange(self, line: str) -> None:
        self._step("strange", line)

    async def ended(self) -> None:
        self._step("ended")

    async def closed(self) -> None:
        self._step("closed")


@pytest.fixture
def conversing(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]  # a factory of pairs
    def begin(**refusals: MailRefused | Exception) -> tuple[Conversation, Visited]:
        visited = Visited(**refusals)
        monkeypatch.setattr(FakeIntake, "visit", lambda self, peer: visited)
        return Conversation(), visited

    return begin


def test_each_step_of_a_message_is_shown_in_order(conversing) -> None:  # type: ignore[no-untyped-def]
    conversation, visited = conversing()
    assert conversation.session.take_output() == b"", "the greeting waits"
    assert conversation.say(b"").startswith(b"220 ")
    assert conversation.say(MESSAGE + b"text\r\n.\r\n").count(b"250") >= 4
    envelope, _ = conversation.intake.messages[0]
    assert envelope.visit is visited
    conversation.session.leave()
    run(conversation.session.abandon())
    run(conversation.session.abandon())
    steps = [step for step in visited.steps if step != "ended"]
    assert steps == ["connected", "greeted client.example", "sender a@b.example", "recipient ann@example.org", "closed"]
    assert visited.steps[-2:] == ["ended", "closed"]


def test_who_speaks_before_the_greeting_is_noticed(conversing) -> None:  # type: ignore[no-untyped-def]
    conversation, visited = conversing()
    conversation.say(HELLO)
    assert visited.steps[:2] == ["early", "connected"]


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (MailRefused(Refusal.POLICY, "Not you"), b"554 5.7.1 Not you\r\n"),
        (MailRefused(Refusal.POLICY, "Later", temporary=True), b"421 4.7.1 Later\r\n"),
        (MailRefused(Refusal.POLICY, "No mail here", code=521, enhanced="5.3.2"), b"521 5.3.2 No mail here\r\n"),
    ],
)
def test_a_connection_that_is_refused_ends_without_a_greeting(conversing, refusal, said) -> None:  # type: ignore[no-untyped-def]
    conversation, _ = conversing(connected=refusal)
    assert conversation.say(b"") == said
    assert conversation.session.closing


@pytest.mark.parametrize(
    ("step", "said"),
    [("greeted", b"550 5.7.1 No\r\n503"), ("sender", b"550 5.7.1 No\r\n503"), ("recipient", b"550 5.7.1 No\r\n503 5.5.1 No valid")],
)
def test_a_step_that_is_refused_has_not_happened(conversing, step, said) -> None:  # type: ignore[no-untyped-def]
    conversation, _ = conversing(**{step: MailRefused(Refusal.POLICY, "No")})
    assert said in conversation.say(MESSAGE)
    assert conversation.intake.begun == []


def test_421_ends_the_connection_at_any_step(conversing) -> None:  # type: ignore[no-untyped-def]
    over = MailRefused(Refusal.POLICY, "Too many", code=421, enhanced="4.7.0")
    conversation, _ = conversing(recipient=over)
    assert conversation.say(MESSAGE).endswith(b"250 2.1.0 Sender ok\r\n421 4.7.0 Too many\r\n")
    assert conversation.session.closing


def test_recipients_who_are_not_here_are_counted_by_whoever_looks(conversing) -> None:  # type: ignore[no-untyped-def]
    conversation, visited = conversing()
    conversation.say(HELLO + b"MAIL FROM:<a@b.example>\r\nRCPT TO:<nobody@example.org>\r\n")
    assert "unknown nobody@example.org" in visited.steps


def test_a_command_that_is_none_is_shown_and_refused_in_the_visits_words(conversing) -> None:  # type: ignore[no-untyped-def]
    conversation, visited = conversing()
    assert conversation.say(HELLO + b"GET / HTTP/1.1\r\nEHLO\r\n").count(b"\r\n500 5.5.1 ") == 1
    assert [step for step in visited.steps if step.startswith("strange")] == ["strange GET / HTTP/1.1"]
    conversation, _ = conversing(strange=MailRefused(Refusal.POLICY, "What?", code=550, enhanced="5.7.1"))
    assert conversation.say(HELLO + b"SEND\r\n").endswith(b"\r\n550 5.7.1 What?\r\n")
    conversation, _ = conversing(strange=MailRefused(Refusal.POLICY, "Go", code=421, enhanced="4.7.0", temporary=True))
    assert conversation.say(HELLO + b"XYZZY\r\n").endswith(b"\r\n421 4.7.0 Go\r\n")
    assert conversation.session.closing


def test_a_visit_that_is_broken_costs_nobody_their_mail(conversing) -> None:  # type: ignore[no-untyped-def]
    broken = KeyError("a bug")
    conversation, _ = conversing(connected=broken, greeted=broken, sender=broken, recipient=broken, ended=broken)
    assert conversation.say(MESSAGE + b"text\r\n.\r\n").endswith(b"250 2.0.0 Accepted as " + b"0" * 32 + b"\r\n")
    assert set(map(type, conversation.failures)) == {KeyError}
