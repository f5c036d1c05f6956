"""The service that `twistd mail` runs: in one process everything, with several workers their master."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from twisted_mail.tap.leaving import cannot_start, notify, on_hangup
from twisted_mail.tap.listeners import AdoptedSocket, ConnectionCounts, Listener, StartError, adopt_all, bind_all
from twisted_mail.tap.settings import Configuration
from twisted_mail.tap.status import Metric, Readiness, status_factory

if TYPE_CHECKING:
    from twisted_mail.tap.options import Options

__all__ = ["Assemble", "MailService", "Suite", "makeService", "prepare_data"]


class Suite(Protocol):
    """What stands behind the listeners, assembled."""

    async def start(self) -> Mapping[str, Factory]:
        """Open everything; the factory of each listener by name. Raises: StartError."""

    def reload(self) -> None:
        """Read certificates again."""

    def readiness(self, state: str) -> Readiness:
        """Whether it can do its work. *state*: ``starting``, ``serving`` or ``draining``."""

    def metrics(self) -> Sequence[Metric]:
        """What it counts."""

    def drain(self) -> None:
        """No connection will come any more: tell the sessions, which end when what is in flight is finished."""

    async def stop(self) -> None:
        """Close everything."""


Assemble = Callable[[], Suite]


def prepare_data(folder: Path) -> None:
    """Make the data folder, readable by its owner only. Raises: StartError if nothing can be written there."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder, prefix=".may-write-"):
            pass
    except OSError as error:
        raise StartError(f"data: {folder} cannot be written: {error.strerror or error}") from None


class MailService(Service):
    """One process that serves: binds or adopts its sockets, opens the suite, then the doors; drains at the end."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        configuration: Configuration,
        assemble: Assemble,
        *,
        sockets: list[AdoptedSocket] | None = None,
        ready: Callable[[], None] = lambda: None,
        fail: Callable[[Any, str], None] = cannot_start,
    ) -> None:
        """*sockets*: those of the master, else they are bound here. *ready* is called when the doors are open."""
        self.reactor = reactor
        self._configuration = configuration
        self._assemble = assemble
        self._sockets = sockets
        self._ready = ready
        self._fail = fail
        limits = configuration.limits
        self._counts = ConnectionCounts(total=limits.connections, per_address=limits.connections_per_address)
        self._listeners: list[Listener] = []
        self._suite: Suite | None = None
        self._state = "starting"
        self._starting: Deferred[None] | None = None
        self._bound = False
        self._failed = False

    @property
    def listeners(self) -> Sequence[Listener]:
        """The bound listeners, in the configuration's order."""
        return tuple(self._listeners)

    @property
    def _mail(self) -> Sequence[Listener]:
        """The listeners where mail is spoken."""
        return [listener for listener in self._listeners if listener.name != "metrics"]

    @property
    def _probed(self) -> Sequence[Listener]:
        """Those for probes, which answer until the end."""
        return [listener for listener in self._listeners if listener.name == "metrics"]

    def _metrics(self, suite: Suite) -> Sequence[Metric]:
        here: dict[str, int] = {}
        for listener in self._mail:
            here[listener.name] = here.get(listener.name, 0) + listener.gate.connections
        values = [({"listener": name}, float(count)) for name, count in here.items()]
        return [Metric("connections", "gauge", "Connections that are open.", values), *suite.metrics()]

    # --- start

    def privilegedStartService(self) -> None:
        """Bind the ports, while the process may (twistd's --uid comes after this)."""
        super().privilegedStartService()
        self._bound = True
        try:
            if self._sockets is None:
                self._listeners = bind_all(self.reactor, self._configuration, self._counts)
            else:
                self._listeners = adopt_all(self.reactor, self._sockets, self._counts, self._configuration)
        except StartError as error:
            self._give_up(error)

    def startService(self) -> None:
        """Open everything, in the background; a failure ends the process with one message."""
        if not self._bound:
            self.privilegedStartService()
        super().startService()
        if not self._failed:
            on_hangup(self.reactor, self.reload)
            self._starting = Deferred.fromCoroutine(self._open())
            self._starting.addErrback(lambda failure: self.log.failure("starting", failure))

    async def _open(self) -> None:
        try:
            prepare_data(self._configuration.data)
            suite = self._assemble()
            self._suite = suite
            status = status_factory(lambda: suite.readiness(self._state), lambda: self._metrics(suite))
            for listener in self._probed:
                listener.open(status)  # probes are answered while the stores are opened
            factories = await suite.start()
        except StartError as error:
            self._give_up(error)
            return
        except CancelledError:
            return  # it is to end before it has begun
        except Exception as error:
            self.log.failure("the server cannot be put together")
            self._give_up(StartError(f"{type(error).__name__}: {error}; the log has the details"))
            return
        for listener in self._listeners:
            if listener.name != "metrics":
                listener.open(factories[listener.name])
            self.log.info("{name} on {host}", name=listener.name, host=listener.port.getHost())
        self._state = "serving"
        notify("READY=1")
        self._ready()

    def _give_up(self, error: StartError) -> None:
        self._failed = True
        self._fail(self.reactor, str(error))

    def reload(self) -> None:
        """SIGHUP: the suite reads its certificates again; what is wrong with them is logged, and the old ones stay."""
        if self._suite is not None and self.running:
            self.log.info("certificates are read again")
            try:
                self._suite.reload()
            except Exception as error:
                self.log.error("the certificates stay as they are: {error}", error=error)

    # --- end

    def stopService(self) -> Deferred[None]:
        """Drain: accept nothing more, tell the sessions, give them `process.drain` seconds, end the rest, close all."""
        super().stopService()
        notify("STOPPING=1")
        return Deferred.fromCoroutine(self._drain())

    async def _drain(self) -> None:
        self._state = "draining"  # probes hear it before a port closes
        starting, self._starting = self._starting, None
        if starting is not None and not starting.called:
            starting.cancel()
            await starting
        for listener in self._mail:
            await listener.close()
        try:
            await self._drain_suite()
        finally:
            for listener in self._probed:
                await listener.close()
                listener.gate.abort()

    async def _drain_suite(self) -> None:
        suite, self._suite = self._suite, None
        if suite is None:
            return
        try:
            suite.drain()
        except Exception:
            self.log.failure("telling the sessions")
        gates = [listener.gate for listener in self._mail]
        await self._at_most(self._configuration.process.drain, gatherResults([gate.empty() for gate in gates]))
        left = sum(gate.abort() for gate in gates)
        if left:
            self.log.warn("{left} connections did not end in time", left=left)
            await self._at_most(1.0, gatherResults([gate.empty() for gate in gates]))
        await suite.stop()

    async def _at_most(self, seconds: float, wait: Deferred[Any]) -> None:
        """Wait for *wait*, but not longer than *seconds*."""
        either: Deferred[None] = Deferred()

        def over(result: object = None) -> None:
            if not either.called:
                either.callback(None)

        wait.addBoth(over)
        call = self.reactor.callLater(seconds, over)
        await either
        try:
            call.cancel()
        except (AlreadyCalled, AlreadyCancelled):
            pass


def makeService(options: Options) -> Service:
    """What twistd runs with parsed *options*."""
    from twisted.internet import reactor

    from twisted_mail.tap.master import Master, worker_command
    from twisted_mail.tap.wiring import Node, assemble, check

    configuration = options.configuration
    if configuration.process.workers > 1:
        config = options["config"]
        command = worker_command(
            _reactor_name(options), os.path.abspath(config) if config is not None else None, options.auth
        )
        return Master(reactor, configuration, command, lambda: check(configuration))
    node = Node(number=1, of=1)
    return MailService(reactor, configuration, lambda: assemble(reactor, configuration, node, options.checkers()))


def _reactor_name(options: Options) -> str:
    """The reactor that --reactor chose (twistd's option, which stands before the service's name)."""
    parent: Mapping[str, Any] = getattr(options, "parent", None) or {}
    chosen = parent.get("reactor")
    return chosen if isinstance(chosen, str) else "asyncio"
