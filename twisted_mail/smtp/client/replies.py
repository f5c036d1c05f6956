"""Replies off the wire (RFC 5321 section 4.2), with their enhanced status codes (RFC 2034, RFC 3463); within bounds."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

__all__ = ["LINE_BYTES", "REPLY_BYTES", "TEXT_CHARACTERS", "Heard", "Replies", "Reply", "ReplyFault", "Stage"]

LINE_BYTES: Final = 4096
"""A line longer than this is no reply. Section 4.5.3.1.5 allows 512; servers write more."""
REPLY_BYTES: Final = 65_536
"""All lines of one reply together. What EHLO lists and what a wordy policy says fit many times over."""
TEXT_CHARACTERS: Final = 1000
"""So much of a reply's text is kept: it goes into queue items, logs and bounces."""

COMMON_BYTES: Final = 64
"""Short replies are mostly the same few (``250 2.1.5 Ok``), and read once only."""

_enhanced = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?: |$)")
_unprintable = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffd\ud800-\udfff]+")


class Stage(enum.Enum):
    """How far a conversation had come when something was heard, or nothing any more."""

    ROUTE = "route"
    """Nobody knows yet where to go; this and the next are said by who opens connections."""
    CONNECT = "connect"
    GREETING = "greeting"
    HELLO = "hello"
    TLS = "tls"
    LOGIN = "login"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"
    """The message is on its way; its end was not sent."""
    END = "end"
    """The end of the message was sent: if nothing is heard, it may have been taken all the same (RFC 1047)."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One whole reply."""

    code: int
    """200 to 599."""
    enhanced: str
    """``class.subject.detail``, or empty; only if its class is that of the code (RFC 2034 section 4)."""
    text: str
    """Its lines with a space between, printable, without codes."""
    lines: tuple[str, ...] = ()
    """What stands behind the code on each line, if there are several."""
    remote: bool = True
    """The server said it; else these are our own words about it."""

    @property
    def line(self) -> str:
        """On one line, code first."""
        return " ".join(filter(None, (str(self.code), self.enhanced, self.text)))


@dataclass(frozen=True, slots=True)
class Heard:
    """A reply, and where in the conversation it came."""

    reply: Reply
    stage: Stage
    about_connection: bool = False
    """It is about the server or the connection, not about the message or the recipient."""


class ReplyFault(enum.Enum):
    """Why what came is no reply. There is no telling what follows: the connection is of no use any more."""

    CODE = "it does not begin with a reply code"
    LONG_LINE = "a line of it has no end"
    LONG_REPLY = "it has no end"


class Replies:
    """Octets in, replies out. A line may end with LF alone, which harms nobody here and is what some servers send."""

    __slots__ = ("_buffer", "_bytes", "_lines", "_looked")

    def __init__(self) -> None:
        self._buffer = b""
        self._looked = 0
        """So much of the buffer has no line end in it."""
        self._lines: list[bytes] = []
        """Of the reply that has begun."""
        self._bytes = 0

    @property
    def empty(self) -> bool:
        """Nothing is here that was not used."""
        return not self._buffer and not self._lines

    def clear(self) -> None:
        """Throw away what has come (RFC 3207 section 4.2)."""
        self._buffer, self._lines, self._bytes, self._looked = b"", [], 0, 0

    def feed(self, data: bytes) -> None:
        """Take octets."""
        self._buffer = self._buffer + data if self._buffer else data

    def next(self) -> Reply | ReplyFault | None:
        """The next reply; None: it has not come whole yet."""
        buffer = self._buffer
        if not buffer:
            return None
        at = 0
        while True:
            end = buffer.find(b"\n", max(at, self._looked))
            self._looked = 0
            if end < 0 or end - at > LINE_BYTES:
                if len(buffer) - at > LINE_BYTES:
                    return ReplyFault.LONG_LINE
                self._buffer = buffer[at:]
                self._looked = len(self._buffer)
                return None
            line = buffer[at : end - 1] if buffer[end - 1 : end] == b"\r" and end > at else buffer[at:end]
            at = end + 1
            separator = line[3:4]
            if separator not in (b" ", b"-", b"") or not (line[:3].isdigit() and b"2" <= line[:1] <= b"5" and len(line) > 2):
                return ReplyFault.CODE
            if separator == b"-":
                self._bytes += len(line)
                if self._bytes > REPLY_BYTES:
                    return ReplyFault.LONG_REPLY
                self._lines.append(line)
                continue
            self._buffer = buffer[at:]
            if not self._lines:
                return _common(line) if len(line) <= COMMON_BYTES else _single(line)
            lines = [*self._lines, line]
            self._lines, self._bytes = [], 0
            return _several(lines)


def _clean(raw: bytes) -> str:
    text = raw.decode("utf-8", "replace")
    if not (text.isascii() and text.isprintable()):
        text = _unprintable.sub("?", text.replace("\t", " "))
    return text[:TEXT_CHARACTERS].strip(" ")


def _single(line: bytes) -> Reply:
    code = int(line[:3])
    text = _clean(line[4:])
    match = _enhanced.match(text)
    if match is not None and int(match[1]) == code // 100:
        return Reply(code, f"{match[1]}.{match[2]}.{match[3]}", text[match.end() :])
    return Reply(code, "", text)


_common = lru_cache(512)(_single)


def _several(lines: list[bytes]) -> Reply:
    """Where the codes of the lines differ, which they must not, the last one counts; it is what others go by too."""
    code = int(lines[-1][:3])
    enhanced, texts = "", []
    raw = tuple(_clean(line[4:]) for line in lines)
    for text in raw:
        match = _enhanced.match(text)
        if match is not None and int(match[1]) == code // 100:
            enhanced = enhanced or f"{match[1]}.{match[2]}.{match[3]}"
            text = text[match.end() :]  # RFC 2034 section 4: it stands on each line
        if text:
            texts.append(text)
    return Reply(code, enhanced, " ".join(texts)[:TEXT_CHARACTERS], raw)
