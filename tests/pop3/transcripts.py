r"""Reading and running transcripts (tests/transcripts/pop3).

``# …``          a comment
``! KEY VALUE``  a setting: ``mail SIZE…`` (messages of so many octets for mrose), ``message OCTETS`` (one more, with
                 Python's escapes), ``tls yes``, ``address``, ``cleartext no`` (from nowhere), or a field of `Settings`
``C: …``         a line from the client; CRLF is added. ``C2: …`` on a second connection
``R: …``         raw octets from the client, with Python's escapes
``S: …``         a line from the server, exact but for ``{name}``, which stands for any text within the line
``T:``           the TLS handshake
``E:``           the server ends the connection here; ``H:``: the client hangs up
``L: N``         N messages are in mrose's INBOX now, as another node sees it
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.pop3.support import LOCAL, Conversation, House, message_of
from twisted_mail.pop3.login import LastLogins
from twisted_mail.pop3.settings import Settings
from twisted_mail.services import Peer

ROOT = Path(__file__).parent.parent / "transcripts" / "pop3"
Feeding = Literal["whole", "octets"]
_LINE = re.compile(r"(?P<kind>[CRSTEHL])(?P<connection>2?): ?(?P<text>.*)")


@dataclass
class Transcript:
    """One file."""

    settings: list[tuple[str, str]] = field(default_factory=list)
    lines: list[tuple[str, str, str]] = field(default_factory=list)


def load(path: Path) -> Transcript:
    transcript = Transcript()
    for line in path.read_text("utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        if line.startswith("! "):
            key, _, value = line[2:].partition(" ")
            transcript.settings.append((key, value))
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            raise ValueError(f"{path.name}: {line!r}")
        transcript.lines.append((found["kind"], found["connection"], found["text"]))
    return transcript


def unescaped(text: str) -> bytes:
    return text.encode().decode("unicode_escape").encode("latin-1")


def check(expected: list[str], got: bytes) -> None:
    text = got.decode("utf-8")
    lines = text.split("\r\n")
    assert lines.pop() == "", got
    assert len(lines) == len(expected), f"expected {expected}\ngot:\n{text}"
    for want, line in zip(expected, lines, strict=True):
        pattern = "[^\r\n]*?".join(map(re.escape, re.split(r"\{\w+\}", want)))
        assert re.fullmatch(pattern, line), f"expected {want!r}, got {line!r}\n{text}"


async def play(transcript: Transcript, house: House, feeding: Feeding) -> None:
    """Run it on *house*."""
    limits: dict[str, Any] = {}
    rules: dict[str, Any] = {}
    tls, peer = False, LOCAL
    for key, value in transcript.settings:
        if key == "mail":
            await house.deliver("mrose", *(message_of(int(size)) for size in value.split()))
        elif key == "message":
            await house.deliver("mrose", unescaped(value))
        elif key == "tls":
            tls = value == "yes"
        elif key == "address":
            peer = Peer(value, service="pop3")
        elif key == "cleartext":
            rules["allow_cleartext"] = ()
        else:
            limits[key] = int(value)
    settings = Settings(**limits)
    last = LastLogins(settings.login_delay_seconds, house.clock.seconds)
    talks: dict[str, Conversation] = {}
    sent: dict[str, bytearray] = {}
    expected: list[str] = []

    def talk_of(connection: str) -> Conversation:
        if connection not in talks:
            talks[connection] = Conversation(house, settings, tls=tls, peer=peer, last_logins=last, **rules)
            sent[connection] = bytearray()
        return talks[connection]

    async def settle(connection: str) -> None:
        talk, octets = talk_of(connection), bytes(sent[connection])
        sent[connection].clear()
        if feeding == "octets":
            for octet in octets:
                await talk.feed(bytes((octet,)))
        elif octets:
            await talk.feed(octets)
        check(expected, talk.take())
        expected.clear()

    before = ("", "")
    for kind, connection, text in transcript.lines:
        talk_of(connection)
        if before != ("", "") and (connection != before[1] or (kind in "CR" and before[0] == "S")):
            await settle(before[1])
        if kind == "C":
            sent[connection] += text.encode() + b"\r\n"
        elif kind == "R":
            sent[connection] += unescaped(text)
        elif kind == "S":
            expected.append(text)
        else:
            await settle(connection)
            if kind == "T":
                talks[connection].handshake()
            elif kind == "E":
                assert talks[connection].session.closing
            elif kind == "H":
                await talks[connection].hang_up()
            else:
                assert len(await house.inbox("mrose")) == int(text)
        before = (kind, connection)
    await settle(before[1])
    for talk in talks.values():
        await talk.hang_up()
    assert not house.failures, house.failures
