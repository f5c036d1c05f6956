"""The master of several workers: it holds the sockets and no mail.

It binds every listener, starts the workers with these sockets, starts again (after a growing while) what dies, passes
SIGHUP on, and on SIGTERM has them all drain. The first worker is started alone, since it makes what the others find:
the store's schema, a self-signed certificate. If it cannot start, nobody can, and the master leaves too.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_mail.tap.leaving import cannot_start, notify, on_hangup
from twisted_mail.tap.listeners import AdoptedSocket, ConnectionCounts, Listener, StartError, bind_all
from twisted_mail.tap.proxied import PREFIX
from twisted_mail.tap.settings import Configuration

__all__ = ["Backoff", "Master", "WorkerCommand", "worker_command"]

_FIRST_DESCRIPTOR: Final = 3
"""0 to 2 are: end of input when the master is gone, "ready", the log."""


@dataclass(slots=True)
class Backoff:
    """Seconds to wait before a worker is started again: doubling, forgotten after it has lived for a while."""

    first: float = 1.0
    most: float = 60.0
    healthy: float = 60.0
    _next: float = 0.0

    def after(self, lived: float) -> float:
        """The delay now that a worker has ended after *lived* seconds."""
        if lived >= self.healthy or not self._next:
            self._next = self.first
        delay = self._next
        self._next = min(self._next * 2, self.most)
        return delay


WorkerCommand = Callable[[int, Sequence[AdoptedSocket]], Sequence[str]]
"""Argument list of worker number n (from 1), given its sockets."""


class _Worker(ProcessProtocol):
    """One worker process."""

    def __init__(self, master: Master, number: int) -> None:
        self._master = master
        self.number = number
        self.ready = False
        self.started = master.clock.seconds()
        self.ended: Deferred[None] = Deferred()
        self.last_words = ""
        """Why it could not start, if it has said so."""
        self._said = b""
        self._log = b""

    def outReceived(self, data: bytes) -> None:
        self._said = (self._said + data)[-100:]
        if not self.ready and b"ready\n" in self._said:
            self.ready = True
            self._master.worker_is_ready(self)

    def errReceived(self, data: bytes) -> None:
        *lines, self._log = (self._log + data).split(b"\n")
        for line in lines:
            self._tell(line)
        if len(self._log) > 64 * 1024:
            self._tell(self._log)
            self._log = b""

    def _tell(self, line: bytes) -> None:
        if line.strip():
            text = line.decode("utf-8", "replace")
            if text.startswith("cannot start: "):
                self.last_words = text.removeprefix("cannot start: ")
            self._master.log.info("worker {number}: {text}", number=self.number, text=text)

    def processEnded(self, reason: Failure) -> None:
        self._tell(self._log)
        self.ended.callback(None)
        self._master.worker_has_ended(self, reason)

    def signal(self, number: int) -> None:
        """Send a signal, if it is still there."""
        try:
            if self.transport is not None:
                self.transport.signalProcess(number)
        except ProcessExitedAlready:
            pass


class Master(Service):
    """Keeps `process.workers` workers running."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        configuration: Configuration,
        command: WorkerCommand,
        check: Callable[[], None] = lambda: None,
        *,
        backoff: Callable[[], Backoff] = Backoff,
    ) -> None:
        """*command* says how a worker is started; *check* raises StartError for what can be seen beforehand."""
        self.reactor = self.clock = reactor
        self._configuration = configuration
        self._command = command
        self._check = check
        self._listeners: list[Listener] = []
        self._workers: dict[int, _Worker] = {}
        self._backoffs = {number: backoff() for number in range(1, configuration.process.workers + 1)}
        self._restarts: dict[int, Any] = {}
        self._started = False
        """The first worker has been ready once."""
        self._stopping = False
        self._bound = False

    @property
    def process_ids(self) -> dict[int, int]:
        """Worker number to process id, of those that are there."""
        return {n: worker.transport.pid for n, worker in self._workers.items() if worker.transport is not None}

    @property
    def listeners(self) -> Sequence[Listener]:
        """The sockets that the workers share."""
        return tuple(self._listeners)

    # --- service

    def privilegedStartService(self) -> None:
        """Bind the ports, while the process may."""
        super().privilegedStartService()
        self._bound = True
        try:
            nobody = ConnectionCounts(total=0, per_address=0)
            self._listeners = bind_all(self.reactor, self._configuration, nobody)
        except StartError as error:
            self._stopping = True
            cannot_start(self.reactor, str(error))

    def startService(self) -> None:
        """Start the first worker; the others follow when it is ready."""
        if not self._bound:
            self.privilegedStartService()
        super().startService()
        if self._stopping:
            return
        try:
            self._check()
        except StartError as error:
            self._stopping = True
            cannot_start(self.reactor, str(error))
            return
        on_hangup(self.reactor, self.hang_up)
        self._start_worker(1)

    async def _drained(self, workers: Sequence[_Worker]) -> None:
        for worker in workers:
            worker.signal(signal.SIGTERM)
        # A worker keeps the time itself; this is for one that hangs.
        hanging = self.clock.callLater(self._configuration.process.drain + 10, self._kill, workers)
        await DeferredList([worker.ended for worker in workers])
        if hanging.active():
            hanging.cancel()
        for listener in self._listeners:
            await listener.close()

    def _kill(self, workers: Sequence[_Worker]) -> None:
        for worker in workers:
            if worker.number in self._workers:
                self.log.error("worker {number} does not leave: killed", number=worker.number)
                worker.signal(signal.SIGKILL)

    def stopService(self) -> Deferred[None]:
        """Have every worker drain; fires when all are gone."""
        super().stopService()
        self._stopping = True
        notify("STOPPING=1")
        for restart in self._restarts.values():
            restart.cancel()
        self._restarts.clear()
        return Deferred.fromCoroutine(self._drained(list(self._workers.values())))

    def hang_up(self) -> None:
        """SIGHUP: every worker reads its certificates again."""
        for worker in self._workers.values():
            worker.signal(signal.SIGHUP)

    # --- workers

    def _start_worker(self, number: int) -> None:
        self._restarts.pop(number, None)
        sockets, descriptors = [], {0: "w", 1: "r", 2: "r"}
        for place, listener in enumerate(self._listeners):
            given = _FIRST_DESCRIPTOR + place
            proxied = listener.endpoint.startswith(PREFIX)
            sockets.append(AdoptedSocket(listener.name, given, int(listener.port.addressFamily), proxied))
            descriptors[given] = listener.port.fileno()  # type: ignore[assignment]  # "r", "w", or a descriptor
        command = [str(word) for word in self._command(number, sockets)]
        worker = self._workers[number] = _Worker(self, number)
        try:
            self.reactor.spawnProcess(worker, command[0], command, env=dict(os.environ), childFDs=descriptors)
        except OSError:  # no process or no descriptor is left: later perhaps
            worker.ended.callback(None)
            self.worker_has_ended(worker, Failure())

    def worker_is_ready(self, worker: _Worker) -> None:
        """It serves."""
        self.log.info("worker {number} serves", number=worker.number)
        if not self._started:
            self._started = True
            for number in self._backoffs:
                if number not in self._workers:
                    self._start_worker(number)
            notify("READY=1")

    def worker_has_ended(self, worker: _Worker, reason: Failure) -> None:
        """Start it again, later; or leave, if nothing has ever worked."""
        self._workers.pop(worker.number, None)
        if self._stopping:
            return
        if not self._started:
            self._stopping = True
            cannot_start(self.reactor, worker.last_words or f"the first worker has ended: {reason.getErrorMessage()}")
            return
        delay = self._backoffs[worker.number].after(self.clock.seconds() - worker.started)
        self.log.error(
            "worker {number} has ended ({reason}); started again in {delay:g} s",
            number=worker.number,
            reason=reason.getErrorMessage(),
            delay=delay,
        )
        self._restarts[worker.number] = self.clock.callLater(delay, self._start_worker, worker.number)


def worker_command(reactor_name: str, config: str | None, auth: Sequence[str]) -> WorkerCommand:
    """How `twistd mail` starts its workers: this Python, the same reactor, the same configuration file."""

    def command(number: int, sockets: Sequence[AdoptedSocket]) -> Sequence[str]:
        # The reactor has to be installed before twisted_mail.tap is imported, hence no -m.
        start = (
            "from twisted.application.reactors import installReactor; "
            f"installReactor({reactor_name!r}); "
            "from twisted_mail.tap.worker import main; main()"
        )
        words = [sys.executable, "-c", start, "--number", str(number)]
        for each in sockets:
            words += ["--socket", str(each)]
        for each_auth in auth:
            words += ["--auth", each_auth]
        if config is not None:
            words += ["--config", config]
        return words

    return command
