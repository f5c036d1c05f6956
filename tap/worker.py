"""A worker process: one full node on sockets that its master has bound.

Standard input ends when the master is gone; "ready" goes to standard output once it serves; its log goes, without
times, to standard error, where the master reads it. Started by `master.worker_command`, not by hand.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.cred.strcred import makeChecker
from twisted.internet import fdesc
from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ReactorNotRunning
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import FileLogObserver, LogEvent, eventAsText, globalLogBeginner
from twisted.python.failure import Failure

from twisted_mail.tap.configuration import ConfigurationError, load
from twisted_mail.tap.leaving import cannot_start
from twisted_mail.tap.listeners import AdoptedSocket
from twisted_mail.tap.service import Assemble, MailService

__all__ = ["MasterWatch", "arguments", "main", "run"]


class MasterWatch(FileDescriptor):
    """Reads a pipe that nothing is ever written to, and calls *gone* when its other end is closed."""

    def __init__(self, reactor: Any, descriptor: int, gone: Any) -> None:
        super().__init__(reactor)
        fdesc.setNonBlocking(descriptor)
        self._descriptor = descriptor
        self._gone = gone
        self.connected = 1
        self.startReading()

    def fileno(self) -> int:
        return self._descriptor

    def doRead(self) -> Any:
        done = fdesc.readFromFD(self._descriptor, lambda data: None)
        if done in (CONNECTION_DONE, CONNECTION_LOST):
            return done
        return None

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        self._gone()


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """What the master says on the command line."""
    parser = argparse.ArgumentParser("worker", allow_abbrev=False)
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--socket", type=AdoptedSocket.parse, action="append", default=[])
    parser.add_argument("--auth", action="append", default=[])
    return parser.parse_args(words)


def _line(event: LogEvent) -> str | None:
    text = eventAsText(event, includeTimestamp=False)
    return text.rstrip("\n") + "\n" if text else None


def run(reactor: Any, service: MailService) -> None:
    """Run *service* until it is told to leave by SIGTERM or by the end of the master."""

    def stop() -> None:
        try:
            reactor.stop()
        except ReactorNotRunning:
            pass

    MasterWatch(reactor, 0, stop)
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()


def ready() -> None:
    """Tell the master that this worker serves."""
    os.write(1, b"ready\n")


def fail(reactor: Any, text: str) -> None:
    """Tell the master (which logs it) why this worker cannot start, and leave with status 1."""
    cannot_start(reactor, text, log=False)


def begin_logging() -> None:
    """Everything that is logged goes to standard error."""
    globalLogBeginner.beginLoggingTo([FileLogObserver(sys.stderr, _line)], redirectStandardIO=False)


def main(words: Sequence[str] | None = None) -> None:
    """Entry of a worker process."""
    from twisted.internet import reactor

    from twisted_mail.tap.wiring import Node, assemble

    given = arguments(sys.argv[1:] if words is None else words)
    begin_logging()
    try:
        configuration = load(given.config, os.environ)
    except ConfigurationError as error:
        print(f"cannot start: {error}", file=sys.stderr)
        sys.exit(1)
    node = Node(number=given.number, of=configuration.process.workers)
    checkers = [makeChecker(each) for each in given.auth]
    build: Assemble = lambda: assemble(reactor, configuration, node, checkers)  # noqa: E731
    run(reactor, MailService(reactor, configuration, build, sockets=given.socket, ready=ready, fail=fail))
