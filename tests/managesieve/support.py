"""Users with scripts over an engine, and sessions that talk without a socket."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.pop3.support import BINDINGS, CHEAP
from twisted_mail.auth.passwords import PasswordVerifier, credentials_for
from twisted_mail.auth.service import AuthenticationService
from twisted_mail.delivery.script_store import ScriptStore
from twisted_mail.managesieve.session import Session
from twisted_mail.managesieve.settings import Settings
from twisted_mail.services import Peer
from twisted_mail.sieve import capabilities, compile_script
from twisted_mail.storage import open_backend
from twisted_mail.storage.interfaces import AccountRecord, Domain, EngineContext
from twisted_mail.values import AccountId

LOCAL = Peer("127.0.0.1", service="managesieve")
USERS = {"tim": "tanstaaftanstaaf", "alexey": "pencil"}
_CREDENTIALS = {user: credentials_for(password, CHEAP) for user, password in USERS.items()}


def identity(user: str) -> AccountId:
    return AccountId(user.encode().ljust(16, b"_")[:16])


def now(work: Any) -> Any:
    """What *work* comes to, which does not wait."""
    found: list[Any] = []
    Deferred.fromCoroutine(work).addBoth(found.append)
    (result,) = found
    if isinstance(result, Failure):
        result.raiseException()
    return result


class House:
    """example.org in memory."""

    def __init__(self, **limits: Any) -> None:
        self.clock = Clock()
        self.backend = open_backend({"metadata": "memory:"}, EngineContext(self.clock, Path("/nonexistent")))
        self.changed: list[AccountId] = []
        self.failures: list[BaseException] = []
        self.scripts = ScriptStore(
            self.backend.directory, compile_script, capabilities(), changed=self.changed.append, **limits
        )
        now(self._populate())

    async def _populate(self) -> None:
        directory = self.backend.directory
        await directory.add_domain(Domain("example.org"))
        for user, credentials in _CREDENTIALS.items():
            await directory.add_account(AccountRecord(identity(user), f"{user}@example.org", credentials))

    def authentication(self, **rules: Any) -> AuthenticationService:
        rules = {"default_domain": "example.org", "failure_seconds": 0.0, "secret": b"s" * 32, **rules}
        verifier = PasswordVerifier(maybeDeferred, self.clock, CHEAP)
        return AuthenticationService(self.backend.directory, self.backend.cache, verifier, self.clock, **rules)


class Conversation:
    """One session."""

    def __init__(
        self,
        house: House,
        settings: Settings | None = None,
        *,
        tls: bool = False,
        peer: Peer = LOCAL,
        scripts: Any = None,
        **rules: Any,
    ) -> None:
        self.out = bytearray()
        self.session = Session(
            scripts or house.scripts,
            house.authentication(**rules),
            peer,
            settings or Settings(),
            self._push,
            tls_available=tls,
            log=house.failures.append,
        )
        self.peer = peer
        self.session.greet()
        self.out += self.session.take_output()

    async def _push(self, data: bytes) -> None:
        self.out += data

    async def feed(self, data: bytes) -> None:
        self.session.receive(data)
        await self.session.advance()
        self.out += self.session.take_output()

    def take(self) -> bytes:
        out = bytes(self.out)
        self.out.clear()
        return out

    async def say(self, *lines: str) -> bytes:
        """Send lines; what was answered since the last time."""
        await self.feed("".join(f"{line}\r\n" for line in lines).encode())
        return self.take()

    async def log_in(self, user: str = "tim") -> None:
        import base64

        initial = base64.b64encode(f"\0{user}\0{USERS[user]}".encode()).decode()
        self.take()
        assert (await self.say(f'AUTHENTICATE "PLAIN" "{initial}"')).startswith(b"OK")

    def handshake(self) -> None:
        """TLS, as far as a session sees it."""
        assert self.session.tls_requested
        self.peer = dataclasses.replace(self.peer, secure=True, channel_bindings=BINDINGS)
        self.session.tls_started(self.peer)
        self.out += self.session.take_output()


def logged_in(house: House | None = None, settings: Settings | None = None, **more: Any) -> Conversation:
    talk = Conversation(house or House(), settings, **more)
    now(talk.log_in())
    return talk
