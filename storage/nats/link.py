"""The connection to the servers, and the way between Twisted's coroutines and asyncio's.

The driver's coroutines are asyncio's; what the suite awaits is driven by `Deferred.fromCoroutine`. Everything behind
`Link.run` is asyncio's, everything in front of it is Twisted's, and both live in the one thread of the reactor.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from os import urandom
from random import random
from typing import Any, Final, TypeVar

from nats.aio.client import Client, Server
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NATSError
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NATSTimeout
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_mail.storage.interfaces import Refused, StorageError, Unavailable
from twisted_mail.storage.nats.settings import Settings

__all__ = ["Link", "NobodyAnswers", "ended"]

T = TypeVar("T")
Received = Callable[[Msg], Awaitable[None]]

RECONNECT_SECONDS: Final = 0.25
"""Between two tries to reach the same server."""
END_SECONDS: Final = 2.0
PROBE_SECONDS: Final = 1.0
SILENT_TRIES: Final = 2
"""After so many requests in a row without an answer the server itself is asked whether it is there."""


async def ended(task: asyncio.Task[Any] | None) -> None:
    """Cancel *task* until it has ended: the driver swallows a cancellation here and there."""
    while task is not None and not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.1)


class NobodyAnswers(Exception):
    """Nobody listens on a subject: nothing was received, so nothing was done."""


class _Subscribed:
    """One subscription for the life of the link, whatever becomes of the driver's connection."""

    def __init__(self, subject: str, received: Received) -> None:
        self.subject = subject
        self.received = received
        self.subscription: Subscription | None = None


class Link:
    """A connection that is made anew for ever. `start` fails when nothing answers; later losses are waited out."""

    _log = Logger()

    def __init__(self, settings: Settings, reactor: Any, wall: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.wall = wall
        self.machine: Callable[[], float] = time.time
        """What the servers' clock is compared with; *wall* may have been put forward beside it."""
        self.clock_ahead = 0.0
        """By how many seconds the servers' clock is ahead of this machine's: mail nodes may disagree about the time."""
        self._reactor = reactor
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Client | None = None
        self._ready: Client | None = None
        """The client that has all the subscriptions; its own reconnections keep them."""
        self._keeper: asyncio.Task[None] | None = None
        self._up = asyncio.Event()
        self._closed = asyncio.Event()
        self._in_flight = asyncio.Semaphore(settings.requests)
        self._subscribed: dict[_Subscribed, None] = {}
        self._last_error = ""
        self._silent = 0
        self._silent_server = ""
        self._probing: asyncio.Task[None] | None = None
        self._trouble: str | None = None

    # --- between the two kinds of coroutine

    def run(self, work: Coroutine[Any, Any, T]) -> Deferred[T]:
        """Have asyncio carry out *work*. Cancelling the Deferred cancels it; its errors are those of `interfaces`."""
        if self._loop is None:
            work.close()
            raise Refused("the store is not open")
        return Deferred.fromFuture(asyncio.ensure_future(self._translated(work), loop=self._loop))

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Have asyncio carry out *work* that nobody waits for. The caller keeps the task."""
        assert self._loop is not None
        return self._loop.create_task(work)

    async def _translated(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await work
        except StorageError:
            raise
        except (TimeoutError, NATSError, NobodyAnswers, OSError) as error:
            raise Unavailable(f"NATS: {error or type(error).__name__}") from error

    def now(self) -> float:
        """Seconds since 1970 by the servers' clock, as well as it is known."""
        return self.wall() + self.clock_ahead

    def loop_time(self) -> float:
        """Asyncio's clock."""
        assert self._loop is not None
        return self._loop.time()

    def saw_clock(self, server: float) -> None:
        """A server has just said what time it is."""
        self.clock_ahead = server - self.machine()

    # --- the connection

    async def start(self) -> None:
        """Connect. Raises: StorageError with a text for operators."""
        loop = getattr(self._reactor, "_asyncioEventloop", None)
        if not isinstance(loop, asyncio.AbstractEventLoop):
            raise StorageError("NATS needs Twisted's asyncio reactor (--reactor=asyncio)")
        self._loop = loop
        try:
            tls = self.settings.ssl()
        except OSError as error:
            raise StorageError(f"the certificates for NATS cannot be read: {error.strerror}") from error
        await self.run(self._start(tls))

    async def _start(self, tls: Any) -> None:
        self._keeper = asyncio.get_running_loop().create_task(self._keep_connected(tls))
        try:
            await asyncio.wait_for(self._up.wait(), self.settings.start)
        except TimeoutError:
            await self._stop()
            where = ", ".join(self.settings.servers)
            why = self._last_error or "no answer"
            raise StorageError(f"no NATS server can be used at {where} ({why})") from None

    async def stop(self) -> None:
        if self._loop is not None:
            await self.run(self._stop())
            self._loop = None

    async def _stop(self) -> None:
        keeper, self._keeper = self._keeper, None
        await ended(keeper)
        client, self._client = self._client, None
        if client is not None:
            with suppress(NATSError, OSError, asyncio.TimeoutError):
                await asyncio.wait_for(client.close(), 2.0)
        self._up.clear()

    async def _keep_connected(self, tls: Any) -> None:
        """The driver comes back by itself unless a server sends it away; then it is replaced."""
        while True:
            client = Client()
            self._client, self._closed = client, asyncio.Event()
            try:
                await self._connect(client, tls)
                self._ready = client
                for each in list(self._subscribed):
                    each.subscription = await client.subscribe(each.subject, cb=each.received)
                self._came_up()
                await self._closed.wait()
            except (TimeoutError, NATSError, OSError) as error:
                self._last_error = str(error) or type(error).__name__
                with suppress(NATSError, OSError, asyncio.TimeoutError):
                    await client.close()
            self._ready = None
            self._went_down()
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _connect(self, client: Client, tls: Any) -> None:
        settings = self.settings
        closed = self._closed

        async def came_back() -> None:
            self._came_up()

        async def lost() -> None:
            self._went_down()

        async def ended() -> None:
            closed.set()

        async def failed(error: Exception) -> None:
            text = str(error) or type(error).__name__
            self._log.debug("NATS: {error}", error=text)
            # who is sent away is then also cut off, which says less
            if not (isinstance(error, OSError) and "Authorization" in self._last_error):
                self._last_error = text

        scheme = "tls" if tls is not None else "nats"
        options: dict[str, Any] = {"tls": tls} if tls is not None else {}
        await client.connect(
            [f"{scheme}://{server}" for server in settings.servers],
            name=settings.prefix,
            error_cb=failed,
            disconnected_cb=lost,
            reconnected_cb=came_back,
            closed_cb=ended,
            connect_timeout=2,
            reconnect_time_wait=RECONNECT_SECONDS,  # type: ignore[arg-type]  # any number does
            reconnect_to_server_handler=self._choose,
            max_reconnect_attempts=-1,
            ping_interval=10,
            max_outstanding_pings=2,
            # what is published while there is no connection is refused here, not kept
            pending_size=0,
            user=settings.user,
            password=settings.password,
            token=settings.token,
            **options,
        )

    def _choose(self, servers: list[Server], info: dict[str, Any]) -> tuple[Server, float]:
        """The server to try next, and the seconds to wait before: not the one that has just gone silent."""
        others = [server for server in servers if server.uri.netloc != self._silent_server] or servers
        server = min(others, key=lambda server: (server.reconnects, random()))
        return server, RECONNECT_SECONDS if server.reconnects else 0.0

    def _came_up(self) -> None:
        self._last_error = self._silent_server = ""
        self._silent = 0
        self._trouble = None  # what it was before
        self._up.set()

    def _went_down(self) -> None:
        self._up.clear()

    @property
    def up(self) -> bool:
        """Whether there is a connection."""
        return self._up.is_set() and self._client is not None and self._client.is_connected

    @property
    def max_payload(self) -> int:
        """Octets of one message."""
        return 1024 * 1024 if self._client is None else self._client.max_payload

    @property
    def servers_known(self) -> int:
        """How many servers the URL and the cluster name."""
        if self._client is None:
            return len(self.settings.servers)
        names = {server.netloc.rpartition("@")[2] for server in self._client.discovered_servers}
        return max(len(self.settings.servers), len(names | set(self.settings.servers)) if names else 0)

    def health(self) -> str | None:
        """What is the matter, if anything."""
        if not self.up:
            return f"no connection to {', '.join(self.settings.servers)} ({self._last_error or 'no answer'})"
        return self._trouble

    def went(self, trouble: str | None) -> None:
        """How the last request to the streams went."""
        self._trouble = trouble

    # --- messages

    async def until_up(self, seconds: float) -> bool:
        """Wait for a connection, at most *seconds*; whether there is one."""
        if self.up:
            return True
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._up.wait(), max(0.0, seconds))
        return self.up

    async def publish(self, subject: str, payload: bytes, reply: str = "") -> bool:
        """Send without waiting for anything; False when it cannot even be tried."""
        if not self.up or self._client is None:
            return False
        try:
            # the driver may wait for its own task that sends, and that may have ended
            async with asyncio.timeout(self.settings.attempt):
                await self._client.publish(subject, payload, reply=reply)
        except (NATSError, OSError, TimeoutError):
            return False
        return True

    async def request(self, subject: str, payload: bytes, seconds: float, headers: dict[str, str] | None = None) -> Msg:
        """Ask the servers once; so many at a time. Raises: NobodyAnswers, TimeoutError, NATSError."""
        async with self._in_flight:
            try:
                answer = await self.ask(subject, payload, seconds, headers)
            except TimeoutError:
                self.was_silent()
                raise
            self._silent = 0
            return answer

    def was_silent(self) -> None:
        """A request got no answer from the servers."""
        self._silent += 1
        if self._silent >= SILENT_TRIES and self._probing is None and self._client is not None:
            self._probing = self.spawn(self._probe(self._client))

    async def ask(self, subject: str, payload: bytes, seconds: float, headers: dict[str, str] | None = None) -> Msg:
        """Ask anybody once. Raises: NobodyAnswers, TimeoutError, NATSError."""
        client = self._client
        if client is None or not self.up:
            raise NobodyAnswers("there is no connection")
        try:
            return await client.request(subject, payload, timeout=seconds, headers=headers)
        except NoRespondersError as error:
            raise NobodyAnswers("nobody answers") from error
        except (NATSTimeout, TimeoutError):
            raise TimeoutError(f"no answer within {seconds:g} s") from None

    async def _probe(self, client: Client) -> None:
        """A server that has stopped keeps its connections: whoever waits for the driver's own pings waits for long."""
        inbox, heard = f"_INBOX.{urandom(12).hex()}", asyncio.Event()

        async def received(message: Msg) -> None:
            heard.set()

        try:
            # a message to ourselves: the driver's own way to ask ends its reading when the answer is late
            echo = await client.subscribe(inbox, cb=received, max_msgs=1)
            try:
                await client.publish(inbox, b"")
                await asyncio.wait_for(heard.wait(), PROBE_SECONDS)
            finally:
                with suppress(NATSError, OSError):
                    await echo.unsubscribe()
            self._silent = 0
        except (NATSError, OSError, TimeoutError):
            if client is self._client and client.is_connected:
                self._log.warn("a NATS server has gone silent; trying another")
                self._silent_server = "" if client.connected_url is None else client.connected_url.netloc
                self._went_down()
                await client.force_reconnect()
        finally:
            self._probing = None

    async def subscribe(
        self, subject: str, received: Received, *, gently: bool = False
    ) -> Callable[[], Awaitable[None]]:
        """Have *received* called, one message after the other, from now on; returns the end of it.

        *gently*: its end comes when what was sent before has been received too.
        """
        entry = _Subscribed(subject, received)
        self._subscribed[entry] = None
        client = self._ready
        if client is not None and not client.is_closed:
            with suppress(NATSError, OSError):
                entry.subscription = await client.subscribe(subject, cb=received)

        async def end() -> None:
            self._subscribed.pop(entry, None)
            subscription, entry.subscription = entry.subscription, None
            if subscription is not None:
                with suppress(NATSError, OSError, TimeoutError):
                    # the driver does not say what its drain returns
                    ending: Any = subscription.drain() if gently else subscription.unsubscribe()  # type: ignore[no-untyped-call]
                    await asyncio.wait_for(ending, END_SECONDS)

        return end
