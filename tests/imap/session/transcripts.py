r"""Reading and running transcripts (tests/transcripts/imap).

``# …``        a comment
``! KEY VALUE``  a setting: ``mailbox`` (``empty``: no messages), ``tls`` and ``cleartext`` (yes or no), ``login`` (no: the
               transcript does it), or a field of `Settings`
``C: …``       a line from the client; CRLF is added.  ``C1:``, ``C2:`` for two connections
``R: …``       octets from the client, with Python's escapes and no line end
``S: …``       a line from the server, exact but for ``{name}``: a word without spaces, brackets and parentheses, the same
               wherever the name comes again, also in lines of the client; ``{text}`` is anything
``T:``         the TLS handshake
``P: SECONDS``  time passes
``E:``         the server ends the connection here

Each file starts with ann logged in on every connection (`login no`: not), and with the messages of `mailbox`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.imap.session.fakes import Node, Talk
from tests.imap.session.mailbox import MESSAGES
from twisted_mail.account.service import AccountService
from twisted_mail.imap.settings import Settings
from twisted_mail.services import Peer

__all__ = ["ROOT", "Feeding", "Transcript", "load", "play"]

ROOT = Path(__file__).parents[2] / "transcripts" / "imap"
Feeding = Literal["lines", "octets"]
Settle = Callable[[Talk, int], Awaitable[None]]
"""Wait until a connection is at rest, with so many lines said."""

_LINE = re.compile(r"([CSRTEP])([12]?):(?: (.*))?")
_NAME = re.compile(r"\{([a-z][a-z_0-9]*)\}")
_BOOLEANS = {"yes": True, "no": False}


@dataclass
class Transcript:
    """One file."""

    settings: dict[str, str] = field(default_factory=dict)
    lines: list[tuple[str, int, str]] = field(default_factory=list)
    """(kind, connection from 1, text)."""


def load(path: Path) -> Transcript:
    transcript = Transcript()
    for line in path.read_text("utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        if line.startswith("! "):
            key, _, value = line[2:].partition(" ")
            transcript.settings[key] = value
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{path.name}: {line!r}")
        transcript.lines.append((match[1], int(match[2] or 1), match[3] or ""))
    return transcript


class Player:
    """One run of a transcript."""

    def __init__(
        self, transcript: Transcript, service: AccountService | None, feeding: Feeding, settle: Settle
    ) -> None:
        settings = dict(transcript.settings)
        self.empty = settings.pop("mailbox", "given") == "empty"
        self.log_in = _BOOLEANS[settings.pop("login", "yes")]
        self.tls = _BOOLEANS[settings.pop("tls", "no")]
        cleartext = _BOOLEANS[settings.pop("cleartext", "yes")]
        fields: dict[str, Any] = {k: int(v) if v.isdigit() else v for k, v in settings.items()}
        self.node = Node(service, Settings(**fields), cleartext=cleartext)
        self.lines = transcript.lines
        self.feeding = feeding
        self.settle = settle
        self.names: dict[str, str] = {}
        self.talks: dict[int, Talk] = {}
        self.got: dict[int, list[str]] = {}
        self.sent: dict[int, bytearray] = {}

    async def talk(self, number: int) -> Talk:
        if number not in self.talks:
            talk = self.talks[number] = self.node.talk(tls=self.tls)
            self.got[number], self.sent[number] = [], bytearray()
            await self.settle(talk, 1)
            if self.log_in:
                talk.take()
                talk.feed(b"login LOGIN ann secret\r\n")
                await self.settle(talk, 1)
                assert b"login OK" in talk.take()
        return self.talks[number]

    async def play(self) -> None:
        if not self.empty:
            for given in MESSAGES:
                await self.node.add(given.octets, flags=given.flags, received=given.received, zone=given.zone)
        at = 0
        while at < len(self.lines):
            kind, number, text = self.lines[at]
            talk = await self.talk(number)
            if kind == "S":
                expected = []
                while at < len(self.lines) and self.lines[at][0] == "S" and self.lines[at][1] == number:
                    expected.append(self.lines[at][2])
                    at += 1
                await self.expect(number, expected)
                continue
            at += 1
            if kind == "C":
                octets = _NAME.sub(lambda match: self.names.get(match[1], match[0]), text).encode() + b"\r\n"
                await self.feed(talk, octets)
            elif kind == "R":
                await self.feed(talk, text.encode().decode("unicode_escape").encode("latin-1"))
            elif kind == "T":
                assert talk.handshake is not None, "no handshake is expected"
                handshake, talk.handshake = talk.handshake, None
                handshake.callback(Peer("192.0.2.7", 4711, secure=True, service="imap"))
            elif kind == "P":
                self.node.house.clock.advance(float(text))
            else:
                await self.settle(talk, 0)
                assert talk.ended, "the connection goes on"
        for number, talk in self.talks.items():
            await self.settle(talk, 0)
            assert not talk.take(), f"connection {number} said more than the transcript has"
            assert not talk.failures, talk.failures
            assert talk.error is None, talk.error
            talk.lose()

    async def feed(self, talk: Talk, octets: bytes) -> None:
        if self.feeding == "octets":
            for octet in octets:
                talk.feed(bytes((octet,)))
        else:
            talk.feed(octets)

    async def expect(self, number: int, expected: list[str]) -> None:
        talk = self.talks[number]
        await self.settle(talk, len(expected))
        got = talk.take().decode("utf-8", "surrogateescape")
        lines = got.split("\r\n")
        assert lines.pop() == "", got
        assert len(lines) == len(expected), "expected:\n{}\ngot:\n{}".format("\n".join(expected), "\n".join(lines))
        for want, line in zip(expected, lines, strict=True):
            self.match(want, line)

    def match(self, want: str, line: str) -> None:
        pieces, at, fresh = [], 0, []
        for match in _NAME.finditer(want):
            pieces.append(re.escape(want[at : match.start()]))
            at, name = match.end(), match[1]
            if name == "text":
                pieces.append(".*?")
            elif name in self.names:
                pieces.append(re.escape(self.names[name]))
            else:
                fresh.append(name)
                pieces.append(f"(?P<{name}>[^ ()\\[\\]]+)")
        pieces.append(re.escape(want[at:]))
        found = re.fullmatch("".join(pieces), line)
        assert found is not None, f"expected: {want}\ngot:      {line}"
        self.names.update({name: found[name] for name in fresh})


async def play(transcript: Transcript, service: AccountService | None, feeding: Feeding, settle: Settle) -> None:
    await Player(transcript, service, feeding, settle).play()
