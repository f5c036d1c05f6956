"""Accounts with mail over an engine, users who may log in, and sessions that talk without a socket."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from twisted_mail.account.intents import AddMessages, new_message
from twisted_mail.account.service import AccountService, AccountSettings
from twisted_mail.auth.passwords import PasswordParameters, PasswordVerifier, credentials_for
from twisted_mail.auth.service import AuthenticationService
from twisted_mail.pop3.login import LastLogins
from twisted_mail.pop3.session import Session
from twisted_mail.pop3.settings import Settings
from twisted_mail.services import Account, Peer
from twisted_mail.storage import Backend, open_backend
from twisted_mail.storage.interfaces import AccountRecord, Domain, EngineContext
from twisted_mail.values import AccountId

CHEAP = PasswordParameters(memory_kib=64, passes=1, scram_iterations=4096)
USERS = {"mrose": "secret", "test": "test", "wer": "ein Passwort", "jørgen": "pässwörd"}
_CREDENTIALS = {user: credentials_for(password, CHEAP) for user, password in USERS.items()}
LOCAL = Peer("127.0.0.1", service="pop3")
BINDINGS = {"tls-exporter": b"e" * 32}


def identity(user: str) -> AccountId:
    return AccountId(user.encode().ljust(16, b"_")[:16])


def message_of(size: int, name: str = "x") -> bytes:
    """A message of exactly *size* octets."""
    head = f"Subject: {name}\r\n\r\n".encode()
    line = b"0123456789" * 7 + b"\r\n"
    body = line * (max(size - len(head) - 2, 0) // len(line))
    return head + body + b"y" * (size - len(head) - len(body) - 2) + b"\r\n"


class House:
    """example.org on an engine. The clock is fake with the memory engine, the reactor's with the others."""

    def __init__(self, backend: Backend, clock: Any, folder: Path) -> None:
        self.backend = backend
        self.clock = clock
        self.folder = folder
        self.accounts = self.node()
        self.failures: list[BaseException] = []

    def node(self) -> AccountService:
        backend = self.backend
        return AccountService(
            log=backend.account_log,
            messages=backend.messages,
            blobs=backend.blobs,
            leases=backend.leases,
            bus=backend.bus,
            clock=self.clock,
            settings=AccountSettings(),
        )

    async def populate(self) -> None:
        directory = self.backend.directory
        await directory.add_domain(Domain("example.org"))
        for user, credentials in _CREDENTIALS.items():
            await directory.add_account(AccountRecord(identity(user), f"{user}@example.org", credentials))

    def authentication(self, **settings: Any) -> AuthenticationService:
        settings = {"default_domain": "example.org", "failure_seconds": 0.0, "secret": b"s" * 32, **settings}
        verifier = PasswordVerifier(maybeDeferred, self.clock, CHEAP)
        return AuthenticationService(self.backend.directory, self.backend.cache, verifier, self.clock, **settings)

    async def deliver(self, user: str, *messages: bytes) -> None:
        account = await self.accounts.open(identity(user))
        stored = []
        for octets in messages:
            writer = self.accounts.writer()
            for at in range(0, len(octets), 50_000):
                await writer.write(octets[at : at + 50_000])
            stored.append(new_message(await account.store(await writer.finish()), 1))
        await account.commit(AddMessages(mailbox=account.state.inbox.id, messages=tuple(stored)))
        self.accounts.release(account)

    async def inbox(self, user: str) -> list[bytes]:
        """The octets of every message that is there, as another node sees them."""
        service = self.node()
        account = await service.open(identity(user))
        columns = await account.columns(account.state.inbox)
        found = [await read(account, columns.key(slot)) for _, slot in columns.iterate()]
        service.release(account)
        await service.stop()
        return found

    async def stop(self) -> None:
        await self.accounts.stop()
        await self.backend.stop()


async def read(account: Account, key: Any) -> bytes:
    return b"".join([chunk async for chunk in account.octets(key)])


class HouseCase(TestCase):
    """Builds houses and puts them away."""

    timeout = 60

    async def memory(self) -> House:
        clock = Clock()
        backend = open_backend({"metadata": "memory:"}, EngineContext(clock, Path("/nonexistent")))
        return await self._house(backend, clock, Path("/nonexistent"))

    async def sqlite(self, folder: Path | None = None) -> House:
        from twisted.internet import reactor

        fresh = folder is None
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="pop3-"))
            self.addCleanup(shutil.rmtree, folder, True)
        backend = open_backend({}, EngineContext(reactor, folder))
        return await self._house(backend, reactor, folder, fresh)

    async def _house(self, backend: Backend, clock: Any, folder: Path, fresh: bool = True) -> House:
        await backend.start()
        house = House(backend, clock, folder)
        self.addCleanup(lambda: Deferred.fromCoroutine(house.stop()))
        if fresh:
            await house.populate()
        return house


class Conversation:
    """One session."""

    def __init__(
        self,
        house: House,
        settings: Settings | None = None,
        *,
        tls: bool = False,
        peer: Peer = LOCAL,
        last_logins: LastLogins | None = None,
        **rules: Any,
    ) -> None:
        self.house = house
        self.pushed: list[bytes] = []
        self.out = bytearray()
        settings = settings or Settings()
        self.session = Session(
            house.accounts,
            house.authentication(**rules),
            peer,
            settings,
            "dbc.mtview.ca.us",
            self._push,
            last_logins=last_logins or LastLogins(settings.login_delay_seconds, house.clock.seconds),
            tls_available=tls,
            log=house.failures.append,
        )
        self.peer = peer
        self.session.greet()
        self.out += self.session.take_output()
        self.ended = False

    async def _push(self, data: bytes) -> None:
        self.pushed.append(data)
        self.out += data

    async def feed(self, data: bytes) -> None:
        session = self.session
        session.receive(data)
        await session.advance()
        self.out += session.take_output()
        if session.closing and not self.ended:
            self.ended = True
            await session.abandon()

    async def say(self, line: str | bytes) -> bytes:
        """Send a line; what was answered since the last time."""
        await self.feed((line.encode() if isinstance(line, str) else line) + b"\r\n")
        return self.take()

    def take(self) -> bytes:
        out = bytes(self.out)
        self.out.clear()
        return out

    async def lines(self, line: str) -> list[str]:
        """A multi-line answer without its status line and end."""
        first, *rest = (await self.say(line)).decode().split("\r\n")
        assert first.startswith("+OK") and rest[-2:] == [".", ""], (first, rest)
        return rest[:-2]

    async def log_in(self, user: str = "mrose") -> bytes:
        await self.say(f"USER {user}")
        return await self.say(f"PASS {USERS[user]}")

    def handshake(self) -> None:
        """TLS, as far as a session sees it."""
        assert self.session.tls_requested
        self.peer = dataclasses.replace(self.peer, secure=True, channel_bindings=BINDINGS)
        self.session.tls_started(self.peer)

    async def hang_up(self) -> None:
        self.session.leave()
        await self.session.abandon()


async def logged_in(house: House, messages: Sequence[bytes], settings: Settings | None = None) -> Conversation:
    """mrose with *messages*."""
    await house.deliver("mrose", *messages)
    talk = Conversation(house, settings)
    assert (await talk.log_in()).startswith(b"+OK")
    return talk
