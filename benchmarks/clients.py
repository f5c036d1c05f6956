"""Lean blocking clients: they cost the same whichever server answers, and as little as Python lets them."""

from __future__ import annotations

import socket
from typing import Self

__all__ = ["IMAP", "POP3", "SMTP"]


class _Client:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 120)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()

    def line(self) -> bytes:
        while b"\n" not in self._rest:
            got = self.socket.recv(65536)
            if not got:
                raise ConnectionError("the server closed the connection")
            self._rest += got
        line, _, self._rest = self._rest.partition(b"\n")
        return line


class SMTP(_Client):
    """SMTP, or LMTP."""

    def __init__(self, port: int, *, lmtp: bool = False) -> None:
        super().__init__(port)
        self.lmtp = lmtp
        self.reply()
        self.command(b"LHLO bench" if lmtp else b"EHLO bench")

    def reply(self) -> bytes:
        while True:
            line = self.line()
            if line[3:4] != b"-":
                if line[:1] not in (b"2", b"3"):
                    raise RuntimeError(line.decode(errors="replace"))
                return line

    def command(self, line: bytes) -> bytes:
        self.socket.sendall(line + b"\r\n")
        return self.reply()

    def send(self, recipient: str, message: bytes) -> None:
        """One message, with the envelope pipelined (RFC 2920)."""
        self.socket.sendall(b"MAIL FROM:<sender@elsewhere.example>\r\nRCPT TO:<%s>\r\nDATA\r\n" % recipient.encode())
        self.reply(), self.reply(), self.reply()
        self.socket.sendall(message + b".\r\n")
        self.reply()


class IMAP(_Client):
    """IMAP4, answers counted in octets rather than understood."""

    def __init__(self, port: int, user: str = "", password: str = "") -> None:
        super().__init__(port)
        self._tag = 0
        self.line()
        if user:
            self.command(f'LOGIN "{user}" "{password}"'.encode())

    def command(self, text: bytes, literal: bytes | None = None) -> bytes:
        """Send, and read up to the tagged answer, which must be OK; returns everything before it."""
        self._tag += 1
        tag = b"Zq%dq" % self._tag
        if literal is not None:
            text += b" {%d+}\r\n" % len(literal) + literal
        self.socket.sendall(tag + b" " + text + b"\r\n")
        return self.until(tag)

    def until(self, tag: bytes) -> bytes:
        pieces, tail = [self._rest], b"\r\n" + self._rest
        mark = b"\r\n" + tag + b" "
        while True:
            at = tail.find(mark)
            if at >= 0 and tail.find(b"\r\n", at + len(mark)) >= 0:
                break
            got = self.socket.recv(262144)
            if not got:
                raise ConnectionError("the server closed the connection")
            pieces.append(got)
            tail = tail[-512:] + got
        self._rest = b""
        answer = b"".join(pieces)
        start = answer.rfind(tag + b" ")
        if not answer[start + len(tag) + 1 :].startswith(b"OK"):
            raise RuntimeError(answer[start:].decode(errors="replace"))
        return answer[:start]


class POP3(_Client):
    """POP3."""

    def __init__(self, port: int, user: str, password: str) -> None:
        super().__init__(port)
        self.line()
        self.command(b"USER " + user.encode())
        self.command(b"PASS " + password.encode())

    def command(self, line: bytes) -> bytes:
        self.socket.sendall(line + b"\r\n")
        answer = self.line()
        if not answer.startswith(b"+OK"):
            raise RuntimeError(answer.decode(errors="replace"))
        return answer

    def drain(self, count: int) -> int:
        """RETR of all messages, pipelined by 32 (RFC 2449 section 6.6); returns the octets."""
        total = 0
        for start in range(1, count + 1, 32):
            numbers = range(start, min(start + 32, count + 1))
            self.socket.sendall(b"".join(b"RETR %d\r\n" % number for number in numbers))
            for _ in numbers:
                if not self.line().startswith(b"+OK"):
                    raise RuntimeError("RETR was refused")
                while b"\r\n.\r\n" not in self._rest:
                    got = self.socket.recv(262144)
                    if not got:
                        raise ConnectionError("the server closed the connection")
                    self._rest += got
                message, _, self._rest = self._rest.partition(b"\r\n.\r\n")
                total += len(message)
        return total
