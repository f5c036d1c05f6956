"""Many SMTP or LMTP connections from one thread: as little CPU of the client's as Python lets one have."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable, Sequence
from typing import Final

__all__ = ["send_all"]

_READ: Final = selectors.EVENT_READ


class _Connection:
    """One connection: greeting, HELO, then messages, each in two round trips."""

    def __init__(self, port: int, hello: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""
        self._replies(1)
        self.socket.sendall(hello)
        self._replies(1)
        self.wanted = 0
        self.body = b""

    def _replies(self, count: int) -> None:
        self.wanted = count
        while self.wanted:
            self.read()

    def read(self) -> bool:
        """Take what has come; whether all replies that were wanted are there. Raises RuntimeError for a refusal."""
        got = self.socket.recv(65536)
        if not got:
            raise RuntimeError("the server closed the connection")
        *lines, self._rest = (self._rest + got).split(b"\r\n")
        for line in lines:
            if line[:1] not in b"23":
                raise RuntimeError(line.decode(errors="replace"))
            self.wanted -= line[3:4] != b"-"
        return self.wanted <= 0

    def begin(self, recipient: bytes, body: bytes) -> None:
        self.body = body
        self.wanted = 3
        self.socket.sendall(b"MAIL FROM:<sender@elsewhere.example>\r\nRCPT TO:<%s>\r\nDATA\r\n" % recipient)

    def go_on(self) -> bool:
        """The replies are there: send the body; True if it was sent already, and the message is accepted."""
        if not self.body:
            return True
        body, self.body = self.body, b""
        self.wanted = 1
        self.socket.sendall(body)
        return False


def send_all(
    port: int, connections: int, recipients: Callable[[int], bytes], bodies: Sequence[bytes], count: int, *, lmtp: bool
) -> None:
    """Send *count* messages over *connections*; each ends in ``.`` CRLF already. Raises RuntimeError for a refusal."""
    chooser = selectors.DefaultSelector()
    all_of_them = [_Connection(port, b"LHLO bench\r\n" if lmtp else b"EHLO bench\r\n") for _ in range(connections)]
    sent = done = 0
    for one in all_of_them:
        chooser.register(one.socket, _READ, one)
        if sent < count:
            one.begin(recipients(sent), bodies[sent % len(bodies)])
            sent += 1
    while done < count:
        for key, _ in chooser.select(60.0):
            one = key.data
            if one.read() and one.go_on():
                done += 1
                if sent < count:
                    one.begin(recipients(sent), bodies[sent % len(bodies)])
                    sent += 1
    for one in all_of_them:
        one.socket.close()
    chooser.close()
