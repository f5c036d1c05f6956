"""What stands behind a session in these tests: an intake that keeps mail in a list, and a few users."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from twisted_mail.services import (
    AuthenticationFailed,
    Challenge,
    Envelope,
    Exchange,
    Identity,
    Incoming,
    MailRefused,
    Outcome,
    Peer,
    Recipient,
    Refusal,
    UnknownMechanism,
    Visit,
)
from twisted_mail.smtp.profiles import LMTP, MX, SUBMISSION, Limits, Profile
from twisted_mail.smtp.session import Session
from twisted_mail.values import AccountId, DeliveryId

T = TypeVar("T")
NOW = 1_700_000_000.0
PROFILES = {"smtp": MX, "submission": SUBMISSION, "lmtp": LMTP}


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never suspends."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # StopIteration is not generic
    raise AssertionError("the coroutine suspended")


@dataclass
class FakeIncoming:
    """Keeps the octets; `recipients` named ``full@…`` or ``broken@…`` fail at the end."""

    intake: FakeIntake
    envelope: Envelope
    octets: bytearray = field(default_factory=bytearray)
    aborted: bool = False
    finished: bool = False

    async def write(self, chunk: bytes) -> None:
        if self.intake.slow is not None:
            await self.intake.slow()
        if self.intake.fail_at is not None and len(self.octets) + len(chunk) > self.intake.fail_at:
            raise OSError("disk full")
        self.octets += chunk

    async def finish(self) -> Sequence[Outcome]:
        if self.intake.slow_finish is not None:
            await self.intake.slow_finish()
        if self.intake.refuse_at_finish is not None:
            raise self.intake.refuse_at_finish
        self.finished = True
        outcomes = []
        for recipient in self.envelope.recipients:
            if recipient.address.startswith("full@"):
                outcomes.append(Outcome(recipient, refused=MailRefused(Refusal.MAILBOX_FULL)))
            elif recipient.address.startswith("gone@"):
                outcomes.append(Outcome(recipient, refused=MailRefused(Refusal.RECIPIENT_DISABLED)))
            else:
                outcomes.append(Outcome(recipient, DeliveryId(bytes(16))))
        self.intake.messages.append((self.envelope, bytes(self.octets)))
        return outcomes

    async def abort(self) -> None:
        self.aborted = True


class FakeIntake:
    """Takes mail for everybody at ``example.org``, ``xyz.com`` and the other names of the RFCs' examples."""

    DOMAINS = ("example.org", "bar.com", "xyz.com", "example.com", "пример.example", "foo.edu", "example.net")

    def __init__(self) -> None:
        self.messages: list[tuple[Envelope, bytes]] = []
        self.begun: list[FakeIncoming] = []
        self.slow: Any = None
        self.slow_finish: Any = None
        self.slow_recipient: Any = None
        self.fail_at: int | None = None
        self.refuse_at_finish: MailRefused | None = None
        self.visits: Callable[[Peer], Visit | None] = lambda peer: None

    def visit(self, peer: Peer) -> Visit | None:
        return self.visits(peer)

    async def recipient(
        self,
        address: str,
        *,
        identity: Identity | None,
        original: str = "",
        notify: frozenset[str] = frozenset(),
    ) -> Recipient:
        if self.slow_recipient is not None:
            await self.slow_recipient()
        local, at, domain = address.rpartition("@")
        if at and domain.lower() not in self.DOMAINS:
            raise MailRefused(Refusal.NO_QUEUE if identity else Refusal.RELAY_DENIED)
        if local.lower() in ("green", "nobody", "lovett"):
            raise MailRefused(Refusal.NO_SUCH_RECIPIENT, "No such user here")
        if local == "crash":
            raise RuntimeError("a bug")
        return Recipient(address, (AccountId(bytes(16)),), original=original, notify=notify)

    async def begin(self, envelope: Envelope) -> Incoming:
        if envelope.sender == "loop@example.org":
            raise MailRefused(Refusal.LOOP)
        incoming = FakeIncoming(self, envelope)
        self.begun.append(incoming)
        return incoming


class _Plain:
    def __init__(self, users: FakeAuthentication) -> None:
        self._users = users

    async def step(self, response: bytes | None) -> Challenge | Identity:
        if response is None:
            return Challenge(b"")
        parts = response.split(b"\0")
        if len(parts) != 3:
            raise AuthenticationFailed("malformed", "not PLAIN")
        return await self._users.login(parts[1].decode(), parts[2].decode(), Peer(""))


class _TwoSteps:
    """Asks for a name, then for a password, then has something to say with success, as SCRAM does."""

    def __init__(self, users: FakeAuthentication) -> None:
        self._users = users
        self._got: list[str] = []

    async def step(self, response: bytes | None) -> Challenge | Identity:
        if response:
            self._got.append(response.decode())
        if len(self._got) == 2 and response == b"":
            return await self._users.login(self._got[0], self._got[1], Peer(""))
        return Challenge((b"Name:", b"Password:", b"v=ok")[len(self._got)])


class FakeAuthentication:
    """Users ``ann`` and ``test`` with the password ``secret``, who own the addresses in `owned`."""

    owned = {"ann@example.org", "", "test@example.org", "e=mc2@example.com"}

    def mechanisms(self, peer: Peer) -> Sequence[str]:
        return ("PLAIN", "TWOSTEP") if self.cleartext_allowed(peer) else ()

    def cleartext_allowed(self, peer: Peer) -> bool:
        return peer.secure or peer.address != "203.0.113.9"

    def begin(self, mechanism: str, peer: Peer) -> Exchange:
        if mechanism not in self.mechanisms(peer):
            raise UnknownMechanism(mechanism)
        return _Plain(self) if mechanism == "PLAIN" else _TwoSteps(self)

    async def login(self, user: str, password: str, peer: Peer) -> Identity:
        if user == "later":
            raise AuthenticationFailed("unavailable", "try again", temporary=True)
        if user.partition("@")[0] not in ("ann", "test") or password not in ("secret", "1234"):
            raise AuthenticationFailed()
        return Identity(AccountId(bytes(16)), f"{user.partition('@')[0]}@example.org")

    async def may_send_as(self, identity: Identity, address: str) -> bool:
        return address in self.owned


class FakeSubmitters:
    """Peers of 10.1.0.0/16 submit as ann, until her account is `gone`."""

    def __init__(self) -> None:
        self.gone = False

    def login_of(self, peer: Peer) -> str | None:
        return "ann@example.org" if peer.address.startswith("10.1.") else None

    async def identity(self, peer: Peer) -> Identity | None:
        login = self.login_of(peer)
        return None if login is None or self.gone else Identity(AccountId(bytes(16)), login)

    async def may_send_as(self, identity: Identity, address: str) -> bool:
        return address in FakeAuthentication.owned


class Conversation:
    """A session with its fakes; what it says is collected."""

    def __init__(
        self,
        profile: Profile = MX,
        *,
        limits: Limits | None = None,
        tls: bool = False,
        peer: Peer | None = None,
        trusted: bool = False,
        authentication: FakeAuthentication | None = None,
        submitters: FakeSubmitters | None = None,
        visits: Callable[[Peer], Visit | None] = lambda peer: None,
    ) -> None:
        self.intake = FakeIntake()
        self.intake.visits = visits
        self.failures: list[BaseException] = []
        self.peer = peer or Peer("192.0.2.7", 4711)
        self.session = Session(
            profile,
            limits or Limits(),
            self.intake,
            authentication or FakeAuthentication(),
            self.peer,
            "mx.example.org",
            tls_available=tls,
            trusted=trusted,
            submitters=submitters,
            now=lambda: NOW,
            log=self.failures.append,
        )
        self.session.greet()

    def say(self, data: bytes) -> bytes:
        """Send octets; what comes back."""
        self.session.receive(data)
        run(self.session.advance())
        return self.session.take_output()

    def handshake(self) -> None:
        assert self.session.tls_requested
        self.session.tls_started(Peer(self.peer.address, secure=True, tls_description="TLS1.3 with cipher X"))


def after_rcpt(conversation: Conversation, mail: bytes = b"MAIL FROM:<a@b.example>") -> None:
    """Bring *conversation* to where DATA may come."""
    out = conversation.say(b"EHLO client.example\r\n" + mail + b"\r\nRCPT TO:<ann@example.org>\r\n")
    assert b"250 2.1.5" in out, out


Work = Awaitable[None]
