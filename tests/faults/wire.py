"""Small clients of our own for SMTP and IMAP, which tell an answer from a refusal from no answer at all.

They keep no state that a server could not have told them, and never repeat anything by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

__all__ = ["Cut", "IMAPClient", "Reply", "Response", "SMTPClient", "WrongAnswer"]

LITERAL: Final = re.compile(rb"\{(\d+)\}\r\n$")
READ_LIMIT: Final = 1 << 20
CONNECT_SECONDS: Final = 5.0


class Cut(Exception):
    """The connection ended, or nothing came in time: whatever was under way is unknown."""


class WrongAnswer(Exception):
    """What came is against the protocol."""


class _Client:
    """A connection of lines."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
        self._reader, self._writer, self._seconds = reader, writer, seconds

    @staticmethod
    async def _connect(port: int, host: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            return await asyncio.wait_for(asyncio.open_connection(host, port, limit=READ_LIMIT), CONNECT_SECONDS)
        except (OSError, TimeoutError) as error:
            raise Cut(str(error) or "no connection") from None

    async def _line(self, seconds: float | None = None) -> bytes:
        """The next line, CRLF included. Raises Cut."""
        try:
            line = await asyncio.wait_for(self._reader.readline(), seconds or self._seconds)
        except (OSError, TimeoutError, ValueError) as error:
            raise Cut(str(error) or "no answer in time") from None
        if not line.endswith(b"\n"):
            raise Cut("the connection ended")
        return line

    async def _exactly(self, size: int) -> bytes:
        try:
            return await asyncio.wait_for(self._reader.readexactly(size), self._seconds)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise Cut(str(error) or "no answer in time") from None

    async def _send(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            await asyncio.wait_for(self._writer.drain(), self._seconds)
        except (OSError, TimeoutError) as error:
            raise Cut(str(error) or "nothing was taken in time") from None

    def abort(self) -> None:
        """Break the connection."""
        with contextlib.suppress(Exception):
            self._writer.transport.abort()


class SMTPClient(_Client):
    """SMTP (RFC 5321), without extensions; LMTP as long as a message has one recipient."""

    @classmethod
    async def connect(
        cls, port: int, host: str = "127.0.0.1", seconds: float = 60.0, hello: str = "EHLO"
    ) -> SMTPClient:
        """A session that has said EHLO (LMTP: LHLO). Raises Cut; also when the server is not ready (421)."""
        client = cls(*await cls._connect(port, host), seconds)
        try:
            for command in (None, hello.encode() + b" load.example"):
                if command is not None:
                    await client._send(command + b"\r\n")
                if (reply := await client.reply())[0] != 2:
                    raise Cut(reply[1])
        except BaseException:
            client.abort()
            raise
        return client

    async def reply(self) -> tuple[int, str]:
        """Its first digit, and all of it."""
        text = b""
        while True:
            line = await self._line()
            text += line
            if not re.match(rb"[2-5]\d\d[ -]", line):
                raise WrongAnswer(f"SMTP: {line!r}")
            if line[3:4] == b" ":
                return int(line[:1]), text.decode("utf-8", "replace").strip()

    async def command(self, text: str) -> tuple[int, str]:
        """One command and its reply."""
        await self._send(text.encode() + b"\r\n")
        return await self.reply()

    async def message(self, sender: str, recipients: list[str], octets: bytes) -> tuple[dict[str, str], int, str]:
        """One transaction: what recipients were refused with (they get nothing), and the answer to the rest.

        *octets* must have no line that begins with a dot. Raises Cut; then the outcome is unknown only if DATA was
        begun, which `begun` says.
        """
        self.begun = False
        refused = {}
        kind, text = await self.command(f"MAIL FROM:<{sender}>")
        if kind != 2:
            return {}, kind, text
        for recipient in recipients:
            kind, text = await self.command(f"RCPT TO:<{recipient}>")
            if kind != 2:
                refused[recipient] = text
        if len(refused) == len(recipients):
            await self.command("RSET")
            return refused, kind, text
        kind, text = await self.command("DATA")
        if kind != 3:
            return refused, kind, text
        self.begun = True
        await self._send(octets + b".\r\n")
        kind, text = await self.reply()
        return refused, kind, text

    begun = False


@dataclass(frozen=True, slots=True)
class Response:
    """An untagged response: its text with literals taken out, and these."""

    text: str
    literals: tuple[bytes, ...] = ()

    def number(self, name: str) -> int | None:
        """Of ``* 5 EXISTS`` and the like."""
        match = re.fullmatch(rf"(\d+) {name}", self.text, re.IGNORECASE)
        return int(match[1]) if match else None

    @property
    def uid(self) -> int | None:
        """Of a FETCH response."""
        match = re.match(r"\d+ FETCH .*?\bUID (\d+)", self.text, re.IGNORECASE)
        return int(match[1]) if match else None

    @property
    def flags(self) -> frozenset[str] | None:
        """Of a FETCH response."""
        match = re.match(r"\d+ FETCH .*?\bFLAGS \(([^)]*)\)", self.text, re.IGNORECASE)
        return frozenset(match[1].split()) if match else None

    def vanished(self) -> list[int]:
        """UIDs of ``* VANISHED [(EARLIER)] set``."""
        match = re.fullmatch(r"VANISHED (?:\(EARLIER\) )?([\d:,]+)", self.text, re.IGNORECASE)
        return uids_of(match[1]) if match else []


def uids_of(text: str) -> list[int]:
    """A set of UIDs without ``*``."""
    found: list[int] = []
    for part in text.split(","):
        low, _, high = part.partition(":")
        ends = sorted((int(low), int(high or low)))
        found += range(ends[0], ends[1] + 1)
    return found


@dataclass(frozen=True, slots=True)
class Reply:
    """A tagged reply with what came before it."""

    status: str
    """OK, NO, BAD."""
    text: str
    untagged: tuple[Response, ...]

    @property
    def ok(self) -> bool:
        return self.status == "OK"

    def code(self, name: str) -> list[str] | None:
        """The words of a response code, of the tagged reply or (COPYUID of MOVE) of an untagged OK."""
        for text in (self.text, *(response.text for response in self.untagged if response.text.startswith("OK ["))):
            if match := re.search(rf"\[{name}(?: ([^\]]*))?\]", text):
                return (match[1] or "").split()
        return None


class IMAPClient(_Client):
    """IMAP (RFC 9051, with QRESYNC of RFC 7162), logged in."""

    _count = 0

    @classmethod
    async def connect(
        cls, port: int, user: str, password: str, host: str = "127.0.0.1", seconds: float = 60.0
    ) -> IMAPClient:
        """A session that is logged in. Raises Cut, also where the server cannot serve now."""
        client = cls(*await cls._connect(port, host), seconds)
        try:
            if not (greeting := await client._line()).startswith(b"* OK"):
                raise Cut(greeting.decode("utf-8", "replace"))
            reply = await client.command(f'LOGIN {user} "{password}"')
            if not reply.ok:
                raise Cut(reply.text)
        except BaseException:
            client.abort()
            raise
        return client

    async def _response(self, seconds: float | None = None) -> tuple[bytes, list[bytes]]:
        line, literals = await self._line(seconds), []
        whole = b""
        while match := LITERAL.search(line):
            literals.append(await self._exactly(int(match[1])))
            whole += line[: match.start()] + b"{}"
            line = await self._line()
        return whole + line.rstrip(b"\r\n"), literals

    async def untagged(self, seconds: float) -> Response | None:
        """The next untagged response (in IDLE, where none has a literal); None when none came in time. Raises Cut."""
        try:
            line = await asyncio.wait_for(self._reader.readline(), seconds)
        except TimeoutError:
            return None
        except (OSError, ValueError) as error:
            raise Cut(str(error)) from None
        if not line.endswith(b"\n"):
            raise Cut("the connection ended")
        if not line.startswith(b"* "):
            raise WrongAnswer(f"IMAP: {line[:200]!r}")
        return self._made(line.rstrip(b"\r\n"), [])

    @staticmethod
    def _made(line: bytes, literals: list[bytes]) -> Response:
        text = line[2:].decode("utf-8", "replace")
        if text.upper().startswith("BYE"):
            raise Cut(text)
        return Response(text, tuple(literals))

    async def command(self, text: str, literal: bytes | None = None) -> Reply:
        """One command, *literal* behind it if given. Raises Cut, WrongAnswer."""
        self._count += 1
        tag = f"a{self._count}"
        early: list[Response] = []
        data = f"{tag} {text}".encode()
        if literal is not None:
            await self._send(data + b" {%d}\r\n" % len(literal))
            while not (line := await self._line()).startswith(b"+"):
                if line.startswith(tag.encode() + b" "):
                    _, status, words = line.decode("utf-8", "replace").split(" ", 2)
                    return Reply(status, words, tuple(early))
                early.append(self._made(line.rstrip(b"\r\n"), []))
            data = literal
        await self._send(data + b"\r\n")
        reply = await self._tagged(tag)
        return Reply(reply.status, reply.text, (*early, *reply.untagged))

    async def _tagged(self, tag: str) -> Reply:
        untagged = []
        while True:
            line, literals = await self._response()
            if line.startswith(b"* "):
                untagged.append(self._made(line, literals))
            elif line.startswith(tag.encode() + b" "):
                _, status, words = line.decode("utf-8", "replace").split(" ", 2)
                return Reply(status, words, tuple(untagged))
            else:
                raise WrongAnswer(f"IMAP: {line[:200]!r}")

    @contextlib.asynccontextmanager
    async def idle(self) -> AsyncIterator[list[Response]]:
        """IDLE (RFC 2177); responses come by `untagged`. Those of the end are put into the list."""
        self._count += 1
        tag = f"a{self._count}"
        late: list[Response] = []
        await self._send(f"{tag} IDLE\r\n".encode())
        while not (line := await self._line()).startswith(b"+"):
            if not line.startswith(b"* "):
                raise Cut(line.decode("utf-8", "replace"))
            late.append(self._made(line.rstrip(b"\r\n"), []))
        yield late
        await self._send(b"DONE\r\n")
        late += (await self._tagged(tag)).untagged

    async def logout(self) -> None:
        """LOGOUT, and whatever comes of it."""
        with contextlib.suppress(Cut, WrongAnswer):
            await self.command("LOGOUT")
        self.abort()
