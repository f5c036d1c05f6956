"""A session with its surroundings: accounts over an engine, logins from a table, and a connection that is a buffer."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.account.house import START, House, now
from twisted_mail.account.intents import AddMessages, new_message
from twisted_mail.account.service import AccountService
from twisted_mail.imap.recent import Recents
from twisted_mail.imap.session import Session
from twisted_mail.imap.settings import Settings
from twisted_mail.services import (
    Account,
    AuthenticationFailed,
    Challenge,
    Exchange,
    Identity,
    Peer,
    UnknownMechanism,
)
from twisted_mail.values import AccountId

__all__ = ["PASSWORD", "Logins", "Node", "Talk", "add"]

PASSWORD = "secret"


class _Plain:
    """SASL PLAIN (RFC 4616), with a challenge where there is no initial response."""

    def __init__(self, logins: Logins) -> None:
        self._logins = logins

    async def step(self, response: bytes | None) -> Challenge | Identity:
        if response is None:
            return Challenge(b"")
        parts = response.split(b"\0")
        if len(parts) != 3:
            raise AuthenticationFailed("malformed", "Malformed response")
        return self._logins.check(parts[1].decode(), parts[2].decode())


class Logins:
    """`services.Authentication` from a table; each name that is asked for first gets an account."""

    def __init__(self, *, cleartext: bool = True) -> None:
        self.cleartext = cleartext
        self.accounts: dict[str, AccountId] = {}
        self.quota_bytes: int | None = None

    def account(self, name: str) -> AccountId:
        return self.accounts.setdefault(name, AccountId.new())

    def mechanisms(self, peer: Peer) -> list[str]:
        return ["PLAIN"] if self.cleartext_allowed(peer) else []

    def cleartext_allowed(self, peer: Peer) -> bool:
        return self.cleartext or peer.secure

    def begin(self, mechanism: str, peer: Peer) -> Exchange:
        if mechanism not in self.mechanisms(peer):
            raise UnknownMechanism(mechanism)
        return _Plain(self)

    def check(self, user: str, password: str) -> Identity:
        if password == "throttled":
            raise AuthenticationFailed("throttled", "Too many failures, try again later", temporary=True)
        if password != PASSWORD:
            raise AuthenticationFailed("credentials", "Wrong name or password")
        return Identity(self.account(user), f"{user}@example.org", self.quota_bytes)

    async def login(self, user: str, password: str, peer: Peer) -> Identity:
        return self.check(user, password)

    async def may_send_as(self, identity: Identity, address: str) -> bool:
        return True


class Node:
    """One process: the account service, the logins, and what sessions share."""

    def __init__(
        self,
        service: AccountService | None = None,
        settings: Settings | None = None,
        *,
        house: House | None = None,
        cleartext: bool = True,
    ) -> None:
        self.house = house or House()
        self.service = service or self.house.service
        self.service.wall = self.wall
        self.settings = settings or Settings()
        self.logins = Logins(cleartext=cleartext)
        self.recents = Recents(self.wall())

    def wall(self) -> float:
        return START + self.house.clock.seconds()

    def talk(self, **more: Any) -> Talk:
        return Talk(self, **more)

    async def open(self, name: str = "ann") -> Account:
        """The account of *name*, as another user of the service has it."""
        return await self.service.open(self.logins.account(name))

    async def add(
        self,
        octets: bytes,
        *,
        mailbox: str = "INBOX",
        flags: tuple[str, ...] = (),
        received: int | None = None,
        zone: int = 0,
        name: str = "ann",
    ) -> None:
        """Deliver a message."""
        account = await self.open(name)
        writer = self.service.writer()
        await writer.write(octets)
        stored = await account.store(await writer.finish())
        when = int(self.wall()) if received is None else received
        target = account.state.mailbox(mailbox).id
        await account.commit(AddMessages(mailbox=target, messages=(new_message(stored, when, zone, flags),)))
        self.service.release(account)


class Talk:
    """A connection, and the `Sink` of its session."""

    def __init__(self, node: Node, *, tls: bool = False, secure: bool = False) -> None:
        self.node = node
        self.output = bytearray()
        self.failures: list[BaseException] = []
        self.compressed = False
        self.paused = False
        self.handshake: Deferred[Peer] | None = None
        self._input: Deferred[None] | None = None
        self._drain: Deferred[None] | None = None
        self.session = Session(
            node.service,
            node.logins,
            Peer("192.0.2.7", 4711, secure=secure, service="imap"),
            self,
            node.settings,
            node.recents,
            clock=node.wall,
            hostname="mail.example.org",
            tls_available=tls,
            log=self.failures.append,
        )
        self.ended = False
        self.error: Any = None
        self._running = Deferred.fromCoroutine(self.session.run())
        self._running.addCallbacks(self._over, self._failed)

    def _over(self, result: None) -> None:
        self.ended = True

    def _failed(self, failure: Any) -> None:
        self.ended, self.error = True, failure.value

    # --- Sink

    def write(self, octets: bytes) -> None:
        self.output += octets

    async def drained(self) -> None:
        if self.paused:
            self._drain = Deferred()
            await self._drain

    async def wait(self) -> None:
        self._input = Deferred()
        await self._input

    def wake(self) -> None:
        waiting, self._input = self._input, None
        if waiting is not None:
            waiting.callback(None)

    async def start_tls(self) -> Peer:
        self.handshake = Deferred()
        return await self.handshake

    def start_compression(self, received: bytes) -> None:
        self.compressed = True
        self.session.receive(received)

    # --- the client's side

    def feed(self, octets: bytes) -> None:
        self.session.receive(octets)
        self.wake()

    def take(self) -> bytes:
        taken = bytes(self.output)
        self.output.clear()
        return taken

    def say(self, text: str | bytes) -> bytes:
        """Send *text* as one line; returns what came in answer."""
        octets = text.encode() if isinstance(text, str) else text
        self.feed(octets + b"\r\n")
        return self.take()

    def lines(self, text: str | bytes) -> list[str]:
        return self.say(text).decode().splitlines()

    def login(self, name: str = "ann") -> Talk:
        answer = self.say(f"login LOGIN {name} {PASSWORD}")
        assert b"login OK" in answer, answer
        return self

    def select(self, name: str = "INBOX", verb: str = "SELECT") -> Talk:
        answer = self.say(f"select {verb} {name}")
        assert b"select OK" in answer, answer
        return self

    @property
    def at_rest(self) -> bool:
        """It waits for the client, for TLS, for the peer to read, or is over."""
        waits = (self._input, self._drain, self.handshake)
        return self.ended or any(each is not None and not each.called for each in waits)

    def lose(self) -> None:
        """The connection is gone."""
        self.session.lost = True
        self._running.cancel()


def add(node: Node, octets: bytes, **more: Any) -> None:
    """`Node.add` over an engine that never waits."""
    now(node.add(octets, **more))
