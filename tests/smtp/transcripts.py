r"""Reading and running transcripts (tests/transcripts/smtp, tests/transcripts/lmtp).

``# …``        a comment
``! KEY VALUE``  a setting: ``profile``, ``tls`` (yes), ``address``, or a field of `Limits`
``C: …``       a line from the client; CRLF is added
``R: …``       raw octets from the client, with Python's escapes
``S: …``       a line from the server, exact but for ``{name}``, which stands for any text
``T:``         the TLS handshake
``M: SENDER > RECIPIENTS | OCTETS``  a message that has been taken by now (Python's escapes; ``{name}`` as above)
``E:``         the server ends the connection here
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.smtp.fakes import PROFILES, Conversation
from twisted_mail.services import Peer
from twisted_mail.smtp.profiles import Limits

ROOT = Path(__file__).parent.parent / "transcripts"
Feeding = Literal["blocks", "octets", "at once"]


@dataclass
class Transcript:
    """One file."""

    settings: dict[str, str] = field(default_factory=dict)
    lines: list[tuple[str, str]] = field(default_factory=list)

    def conversation(self) -> Conversation:
        settings = dict(self.settings)
        profile = PROFILES[settings.pop("profile", "smtp")]
        tls = settings.pop("tls", "no") == "yes"
        peer = Peer(settings.pop("address", "192.0.2.7"))
        limits: dict[str, Any] = {key: int(value) for key, value in settings.items()}
        return Conversation(profile, limits=Limits(**limits), tls=tls, peer=peer)


def load(path: Path) -> Transcript:
    transcript = Transcript()
    for line in path.read_text("utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        if line.startswith("! "):
            key, _, value = line[2:].partition(" ")
            transcript.settings[key] = value
            continue
        kind, text = line[:2], line[3:]
        if kind not in ("C:", "R:", "S:", "T:", "M:", "E:"):
            raise ValueError(f"{path.name}: {line!r}")
        transcript.lines.append((kind[0], text))
    return transcript


def _octets(kind: str, text: str) -> bytes:
    if kind == "C":
        return text.encode() + b"\r\n"
    return text.encode().decode("unicode_escape").encode("latin-1")


def pattern(text: str) -> re.Pattern[str]:
    parts = re.split(r"\{\w+\}", text)
    return re.compile(".*?".join(map(re.escape, parts)), re.DOTALL)


def check_reply(expected: list[str], got: bytes) -> None:
    lines = got.decode("ascii").split("\r\n")
    assert lines.pop() == "", got
    text = "\n".join(lines)
    assert len(lines) == len(expected), f"expected {expected}\ngot:\n{text}"
    for want, line in zip(expected, lines, strict=True):
        assert pattern(want).fullmatch(line), f"expected {want!r}, got {line!r}\n{text}"


def play(transcript: Transcript, feeding: Feeding) -> None:
    """Run it. ``at once``: everything between two handshakes comes in one piece."""
    talk = transcript.conversation()
    got = talk.session.take_output()
    sent, taken = bytearray(), 0
    expected: list[str] = []

    def settle() -> None:
        nonlocal got
        if feeding == "octets":
            got += b"".join(talk.say(bytes((octet,))) for octet in sent)
        elif sent:
            got += talk.say(bytes(sent))
        sent.clear()
        check_reply(expected, got)
        expected.clear()
        got = b""

    before = ""
    for kind, text in transcript.lines:
        if kind in "CR":
            if before == "S" and feeding != "at once":
                settle()
            sent += _octets(kind, text)
        elif kind == "S":
            expected.append(text)
        else:
            settle()
            if kind == "T":
                talk.handshake()
            elif kind == "E":
                assert talk.session.closing
            else:
                assert taken < len(talk.intake.messages), f"no such message was taken: {text}"
                envelope, octets = talk.intake.messages[taken]
                who, _, body = text.partition(" | ")
                sender, _, recipients = who.partition(" > ")
                assert envelope.sender == sender
                assert [each.address for each in envelope.recipients] == recipients.split(", ")
                wanted = body.encode().decode("unicode_escape").encode("latin-1").decode()
                assert pattern(wanted).fullmatch(octets.decode()), octets
                taken += 1
        before = kind
    settle()
    assert taken == len(talk.intake.messages), "a message was taken that the transcript does not have"
    assert not talk.failures, talk.failures
