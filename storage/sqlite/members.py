"""Members of one machine: processes that share a data folder, reached over a UNIX socket each.

Frames are those of `wire`, at most `MAX_FRAME` octets: ``[1, number, account, request]``, answered in any order by
``[2, number, answer]`` or ``[3, number, text]``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, ClassVar, Final

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_mail.storage.interfaces import Member, Refused, StorageError, Unavailable
from twisted_mail.storage.memory.small import preferred
from twisted_mail.storage.sqlite.roster import Present, Roster
from twisted_mail.storage.sqlite.wire import ANSWER, FAILURE, REQUEST, FrameProtocol, reachable
from twisted_mail.values import AccountId

__all__ = ["MAX_FRAME", "MAX_OCTETS", "MAX_UNANSWERED", "REMEMBERED_SECONDS", "SharedMembers"]

MAX_FRAME: Final = 1024 * 1024
MAX_OCTETS: Final = MAX_FRAME - 1024
"""Of a request and of an answer, so that a frame has room for the rest."""
MAX_UNANSWERED: Final = 256
"""Requests from one process to another at the same time; those that nobody waits for any more count as well."""
REMEMBERED_SECONDS: Final = 1.0
"""How old the list may be by which `owner` and `forward` choose."""
PARTING_SECONDS: Final = 1.0
"""How long a node that leaves waits until its last answers have been taken."""

Serve = Callable[[AccountId, bytes], Any]
"""Answers with an awaitable of octets."""


class SharedMembers:
    """Implements `Members`."""

    def __init__(self, roster: Roster, reactor: Any, *, patience: float = 5.0) -> None:
        self._roster = roster
        self._reactor = reactor
        self._patience = patience
        """Seconds until a request that was not answered is given up."""
        self._serving: _Serving | None = None
        self._links: dict[str, _Link] = {}
        """By the token of the member at the other end."""
        self._list: list[Present] = []
        self._list_ends: float | None = None
        self._stopped = True

    def start(self) -> None:
        self._stopped = False

    async def stop(self) -> None:
        """Leave; requests that are not answered yet fail."""
        self._stopped = True
        await self.leave()
        links = list(self._links.values())
        for link in links:
            link.close()
        await DeferredList([link.gone for link in links])

    async def join(self, node: str, roles: frozenset[str], serve: Serve, datacenter: str = "") -> None:
        """Become *node*. Raises: StorageError when the folder or the socket cannot be made."""
        if self._stopped:
            raise Refused("the store is closed")
        await self.leave()
        try:
            token = self._roster.prepare()
        except OSError as error:
            raise StorageError(f"no member can be added: {error}") from error
        serving = _Serving(token, serve, self._reactor)
        try:
            # the card is shown last: who finds it can connect
            serving.listen(self._roster)
            self._roster.show(token, Member(node, roles, datacenter))
        except Exception as error:  # Twisted has its own for a socket that cannot be listened on
            await serving.stop()
            self._roster.remove(token)
            raise StorageError(f"no member can be added: {error}") from error
        self._serving = serving
        self._forget()

    async def leave(self) -> None:
        serving, self._serving = self._serving, None
        if serving is not None:
            self._roster.hide(serving.token)
            self._forget()
            try:
                await serving.stop()
            finally:
                self._roster.remove(serving.token)

    async def alive(self) -> Sequence[Member]:
        """By node name, as it is now. Raises: Unavailable."""
        self._forget()
        return [present.member for present in self._present()]

    async def owner(self, account: AccountId, datacenter: str | None = None) -> str | None:
        """The node that is preferred among those that were alive a second ago. Raises: Unavailable."""
        return preferred(account, (present.member.node for present in self._present(datacenter)))

    async def forward(self, account: AccountId, request: bytes, datacenter: str | None = None) -> bytes:
        """Have the owner serve *request*: this process by a plain call, another one over its socket.

        Raises: Refused (it was not sent), Unavailable (whether it was carried out is not known).
        """
        if self._stopped:
            raise Refused("the store is closed")
        if len(request) > MAX_OCTETS:
            raise Refused(f"{len(request)} octets are too many for one request")
        present = {each.member.node: each for each in self._present(datacenter)}
        node = preferred(account, present)
        if node is None:
            raise Refused("no node is alive")
        token = present[node].token
        if self._serving is not None and token == self._serving.token:
            answer = self._serving.answer(account, request)
        else:
            answer = self._link(token).ask(account, request)
        answer.addTimeout(self._patience, self._reactor)
        try:
            return await answer
        except TimedOut as error:
            raise Unavailable(f"{node} has not answered within {self._patience:g} seconds") from error
        except _LinkLost as error:
            raise Unavailable(f"{node} has gone: {error}") from error

    # --- who is there

    def _present(self, datacenter: str | None = None) -> list[Present]:
        now = self._reactor.seconds()
        if self._list_ends is None or now >= self._list_ends:
            self._list = self._roster.present()
            self._list_ends = now + REMEMBERED_SECONDS
        return [each for each in self._list if datacenter is None or each.member.datacenter == datacenter]

    def _forget(self) -> None:
        self._list_ends = None

    def _link(self, token: str) -> _Link:
        link = self._links.get(token)
        if link is None:
            link = self._links[token] = _Link(token, self._link_lost)
            link.connect(self._roster, self._reactor, self._patience)
        return link

    def _link_lost(self, link: _Link) -> None:
        del self._links[link.token]
        self._forget()


class _LinkLost(Exception):
    """The other process has gone, or could not be reached."""


# --- the end that asks


class _Link(FrameProtocol):
    """The way to another member. May be asked at once: what comes before it is connected waits."""

    max_frame: ClassVar[int] = MAX_FRAME
    _log = Logger()

    def __init__(self, token: str, lost: Callable[[_Link], None]) -> None:
        super().__init__()
        self.token = token
        self.gone: Deferred[None] = Deferred()
        """Fires at the end of the connection, or when there will be none."""
        self._lost = lost
        self._waiting: dict[int, Deferred[bytes]] = {}
        self._number = 0
        self._unsent: list[tuple[object, ...]] | None = []
        """None once connected."""
        self._connecting: Deferred[Any] | None = None
        self._ended: str | None = None
        """Why."""

    def connect(self, roster: Roster, reactor: Any, seconds: float) -> None:
        # whatever comes of it, the connection's end is told by `_end`
        self._connecting = Deferred.fromCoroutine(self._connect(roster, reactor, seconds))

    async def _connect(self, roster: Roster, reactor: Any, seconds: float) -> None:
        try:
            with reachable(roster.socket(self.token)) as address:
                await connectProtocol(UNIXClientEndpoint(reactor, address, timeout=seconds), self)
        except Exception as error:  # endpoints have many, and whichever it is, those who wait must hear of it
            self._end(str(error) or type(error).__name__)

    def connectionMade(self) -> None:
        unsent, self._unsent = self._unsent or [], None
        for frame in unsent:
            self.send(*frame)

    def ask(self, account: AccountId, request: bytes) -> Deferred[bytes]:
        """Fails with StorageError, or with `_LinkLost`."""
        done: Deferred[bytes] = Deferred(lambda deferred: None)
        if self._ended is not None:
            done.errback(_LinkLost(self._ended))
            return done
        if len(self._waiting) >= MAX_UNANSWERED:
            done.errback(Refused("too many requests are waiting"))
            return done
        self._number += 1
        self._waiting[self._number] = done
        frame = (REQUEST, self._number, account.octets, request)
        if self._unsent is None:
            self.send(*frame)
        else:
            self._unsent.append(frame)
        return done

    def frame_received(self, frame: list[Any]) -> None:
        kind, number, content = frame
        done = self._waiting.pop(number, None)
        if done is not None and done.called:
            return  # nobody waits any more
        if kind == ANSWER and done is not None and isinstance(content, bytes):
            done.callback(content)
        elif kind == FAILURE and done is not None:
            done.errback(Unavailable(content))
        else:
            raise ValueError(f"a frame of kind {kind} answers {number}")

    def lost_sync(self, why: str) -> None:
        self._log.error("a member is not understood: {why}", why=why)
        super().lost_sync(why)

    def close(self) -> None:
        if self._unsent is None:
            self.transport.abortConnection()  # type: ignore[union-attr]  # of UNIX sockets
        elif self._connecting is not None:
            self._connecting.cancel()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end("the connection has ended")

    def _end(self, why: str) -> None:
        if self._ended is not None:
            return
        self._ended = why
        self._lost(self)
        waiting, self._waiting = self._waiting, {}
        for done in waiting.values():
            if not done.called:
                done.errback(_LinkLost(why))
        if not self.gone.called:  # who waited for it may have given up
            self.gone.callback(None)


# --- the end that answers


class _Serving(Factory):
    """This process as a member."""

    noisy = False
    _log = Logger()

    def __init__(self, token: str, serve: Serve, reactor: Any) -> None:
        self.token = token
        self.connections: set[_Asker] = set()
        self._serve = serve
        self._reactor = reactor
        self._port: Any = None
        self._address = ExitStack()
        self._leaving = False

    def listen(self, roster: Roster) -> None:
        # the name stays good while it is listened on: Twisted removes the socket by it
        address = self._address.enter_context(reachable(roster.socket(self.token)))
        # nobody else gets as far as the socket before it has its mode: the folder is its owner's alone
        self._port = self._reactor.listenUNIX(address, self, mode=0o600)

    async def stop(self) -> None:
        """Take no more requests; the answers that are already given still go out."""
        self._leaving = True
        with self._address:
            if self._port is not None:
                await self._port.stopListening()
        askers = list(self.connections)
        for asker in askers:
            asker.transport.loseConnection()  # type: ignore[union-attr]  # connected
        # one that does not read must not hold this process
        parting = self._reactor.callLater(PARTING_SECONDS, self._abort)
        await DeferredList([asker.gone for asker in askers])
        if parting.active():
            parting.cancel()

    def _abort(self) -> None:
        for asker in list(self.connections):
            asker.transport.abortConnection()  # type: ignore[union-attr]  # of UNIX sockets

    def buildProtocol(self, addr: object) -> _Asker:
        return _Asker(self)

    def answer(self, account: AccountId, request: bytes) -> Deferred[bytes]:
        """What the node answers. Fails with Unavailable. The work goes on if who waits for it gives up."""
        done: Deferred[bytes] = Deferred(lambda deferred: None)

        def end(outcome: bytes | Failure) -> None:
            if not done.called:
                done.callback(outcome)  # a Failure takes the way of errors

        Deferred.fromCoroutine(self._answer(account, request)).addBoth(end)
        return done

    async def _answer(self, account: AccountId, request: bytes) -> bytes:
        if self._leaving:
            raise Unavailable("the node is leaving")
        try:
            answer = await self._serve(account, request)
        except Unavailable as error:
            raise Unavailable(str(error)) from error
        except Exception as error:
            self._log.failure("a request that was forwarded failed")
            raise Unavailable(f"{type(error).__name__}: {error}") from error
        if not isinstance(answer, bytes) or len(answer) > MAX_OCTETS:
            raise Unavailable("the answer has no octets or too many")
        return answer


class _Asker(FrameProtocol):
    """Another process that asks this one."""

    max_frame: ClassVar[int] = MAX_FRAME
    _log = Logger()

    def __init__(self, serving: _Serving) -> None:
        super().__init__()
        self.gone: Deferred[None] = Deferred()
        self._serving = serving
        self._running = 0
        self._connected = False

    def connectionMade(self) -> None:
        self._connected = True
        self._serving.connections.add(self)

    def frame_received(self, frame: list[Any]) -> None:
        kind, number, account, request = frame
        if kind != REQUEST or not isinstance(number, int) or not isinstance(request, bytes):
            raise ValueError(f"a frame of kind {kind}")
        if self._running >= MAX_UNANSWERED:
            self.send(FAILURE, number, "too many requests are waiting")
            return
        self._running += 1

        def end(outcome: bytes | Failure) -> None:
            self._running -= 1
            if not self._connected:
                return
            if isinstance(outcome, Failure):
                self.send(FAILURE, number, outcome.getErrorMessage()[:500])
            else:
                self.send(ANSWER, number, outcome)

        self._serving.answer(AccountId(account), request).addBoth(end)

    def lost_sync(self, why: str) -> None:
        self._log.warn("a process that forwards requests is sent away: {why}", why=why)
        super().lost_sync(why)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._connected = False
        self._serving.connections.discard(self)
        if not self.gone.called:  # who waited for it may have given up
            self.gone.callback(None)
