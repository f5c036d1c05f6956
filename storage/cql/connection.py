"""The driver's connections on the process's own event loop, where that is asyncio's.

The driver's own way is a thread of its own with libev in it. A request then passes from the reactor's thread to that
one and its answer back, each way with a lock, a wake-up of the other thread and a change of who may run Python: more CPU
than the request itself. On the loop that runs everything else a request is one `send`, and an answer is given to whoever waits
for it from where it was read. What blocks (connecting, preparing, following the cluster) stays in threads of the driver.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from threading import get_ident
from typing import Any, ClassVar, Final

from cassandra.connection import Connection, ConnectionShutdown

__all__ = ["LoopConnection", "loop_of", "on_loop"]

READ_BYTES: Final = 65_536
_NOT_NOW: Final = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def loop_of(reactor: object) -> asyncio.AbstractEventLoop | None:
    """The loop under *reactor*, if it is Twisted's reactor over asyncio."""
    loop = getattr(reactor, "_asyncioEventloop", None)  # it has no public name
    return loop if isinstance(loop, asyncio.AbstractEventLoop) else None


def on_loop(loop: asyncio.AbstractEventLoop) -> type[LoopConnection]:
    """The class of connections on *loop*; called in the loop's thread."""
    return type("LoopConnection", (LoopConnection,), {"loop": loop, "thread": get_ident()})


class _Timer:
    """What the driver asks to be called later; may be cancelled in any thread."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self._callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self._callback = None

    def end(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class LoopConnection(Connection):  # type: ignore[misc]  # the driver has no types
    """A connection that *loop* reads and writes. The driver calls it from any thread."""

    loop: ClassVar[asyncio.AbstractEventLoop]
    thread: ClassVar[int]
    """The loop's."""
    is_closed: bool

    @classmethod
    def create_timer(cls, timeout: float, callback: Callable[[], object]) -> _Timer:
        timer = _Timer(callback)
        cls._call(cls.loop.call_later, timeout, timer.end)
        return timer

    @classmethod
    def _call(cls, call: Callable[..., object], *arguments: Any) -> bool:
        """Have it called in the loop's thread; at once from there. False: the loop has been closed."""
        if get_ident() == cls.thread:
            call(*arguments)
            return True
        try:
            cls.loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            return False
        return True

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._outgoing: deque[memoryview] = deque()
        """What the socket has not taken yet."""
        self._connect_socket()
        self._socket.setblocking(False)
        self._call(self._begin)
        self._send_options_message()

    def _begin(self) -> None:
        if not self.is_closed:
            self.loop.add_reader(self._socket.fileno(), self._read)

    # --- writing

    def push(self, data: bytes) -> None:
        """Send *data*, in the order of the calls from one thread."""
        self._call(self._push, data)

    def _push(self, data: bytes) -> None:
        if self.is_closed:
            return
        if self._outgoing:
            self._outgoing.append(memoryview(data))
            return
        sent = self._send(data)
        if sent < len(data) and not self.is_closed:
            self._outgoing.append(memoryview(data)[sent:])
            self.loop.add_writer(self._socket.fileno(), self._write)

    def _send(self, data: bytes | memoryview) -> int:
        try:
            sent: int = self._socket.send(data)
        except _NOT_NOW:
            return 0
        except OSError as error:
            # whoever sends is told by its callback, which must not come before it has sent
            self.loop.call_soon(self.defunct, error)
            return len(data)
        return sent

    def _write(self) -> None:
        outgoing = self._outgoing
        while outgoing and not self.is_closed:
            data = outgoing.popleft()
            sent = self._send(data)
            if sent < len(data):
                outgoing.appendleft(data[sent:])
                return
        if not self.is_closed:
            self.loop.remove_writer(self._socket.fileno())

    # --- reading

    def _read(self) -> None:
        if self.is_closed:
            return
        whole = self.ssl_context is not None  # what TLS has taken from the socket already wakes nobody
        ended = False
        try:
            while True:
                data = self._socket.recv(READ_BYTES)
                self._iobuf.write(data)
                ended = not data
                if ended or (len(data) < READ_BYTES and not whole):
                    break
        except _NOT_NOW:
            pass
        except OSError as error:
            self.defunct(error)
            return
        if self._iobuf.tell():
            self.process_io_buffer()
        if ended:
            self.close()

    # --- the end

    def close(self) -> None:
        with self.lock:
            if self.is_closed:
                return
            self.is_closed = True
        if self._socket is not None and not self._call(self._end):
            self._socket.close()
        if not self.is_defunct:  # else `defunct` does the rest
            why = f": {self.last_error}" if self.last_error else ""
            self.error_all_requests(ConnectionShutdown(f"Connection to {self.endpoint} was closed{why}"))
            self.connected_event.set()

    def _end(self) -> None:
        if self._socket.fileno() >= 0:
            self.loop.remove_reader(self._socket.fileno())
            self.loop.remove_writer(self._socket.fileno())
        self._socket.close()
        self._outgoing.clear()
