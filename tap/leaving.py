"""How the process ends when it cannot start, and what the service manager is told."""

from __future__ import annotations

import atexit
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

__all__ = ["cannot_start", "notify", "on_hangup"]

_log = Logger()


def cannot_start(reactor: Any, text: str, *, log: bool = True) -> None:
    """Say *text* once on stderr, and in the log if *log*; stop the reactor; exit with status 1.

    twistd has no word for this: whatever its service does, it exits with 0. So the status is set after everything
    that twistd does at the end, such as removing its pid file.
    """
    if sys.__stderr__ is not None:
        print(f"cannot start: {text}", file=sys.__stderr__, flush=True)
    if log and not (sys.__stderr__ is not None and sys.__stderr__.isatty()):  # a terminal shows it already
        _log.critical("cannot start: {text}", text=text)
    atexit.register(_exit_with_failure)
    reactor.callWhenRunning(reactor.stop)


def _exit_with_failure() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
    os._exit(1)


def notify(state: str) -> None:
    """Tell systemd about *state* (``READY=1``, ``STOPPING=1``), as sd_notify(3) does; nothing without one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as end:
            end.sendto(state.encode(), address)
    except OSError as error:
        _log.warn("the service manager cannot be told {state}: {error}", state=state, error=error)


def on_hangup(reactor: Any, act: Callable[[], object]) -> None:
    """Call *act* in the reactor's thread whenever SIGHUP comes. Does nothing outside the main thread."""
    import signal

    def received(number: int, frame: object) -> None:
        reactor.callFromThread(act)

    try:
        signal.signal(signal.SIGHUP, received)
    except ValueError:
        _log.debug("not in the main thread: SIGHUP is left alone")
