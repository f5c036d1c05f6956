r"""Every transcript (tests/transcripts/managesieve), fed in pieces of a command and octet by octet.

Written as those of POP3 (tests/pop3/transcripts.py), with these settings: ``tls yes``, ``address``, ``cleartext no``,
``login USER``, ``script NAME OCTETS`` (Python's escapes), ``active NAME``, ``max_bytes``, ``max_scripts``, or a field of
`Settings`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.managesieve.support import LOCAL, Conversation, House, identity, now
from tests.pop3.transcripts import Transcript, load, unescaped
from twisted_mail.managesieve.settings import Settings
from twisted_mail.services import Peer

ROOT = Path(__file__).parent.parent / "transcripts" / "managesieve"
FILES = sorted(ROOT.glob("*.txt"))


def check(expected: list[str], got: bytes) -> None:
    """Exact but for ``{name}``; ``{12}`` announces a literal."""
    text = got.decode("utf-8")
    lines = text.split("\r\n")
    assert lines.pop() == "", got
    assert len(lines) == len(expected), f"expected {expected}\ngot:\n{text}"
    for want, line in zip(expected, lines, strict=True):
        pattern = "[^\r\n]*?".join(map(re.escape, re.split(r"\{[a-z]+\}", want)))
        assert re.fullmatch(pattern, line), f"expected {want!r}, got {line!r}\n{text}"


async def play(transcript: Transcript, octets: bool) -> None:
    limits: dict[str, Any] = {}
    rules: dict[str, Any] = {}
    store: dict[str, Any] = {}
    scripts: list[tuple[str, str]] = []
    active, login, tls, peer = "", "", False, LOCAL
    for key, value in transcript.settings:
        if key == "script":
            name, _, text = value.partition(" ")
            scripts.append((name, unescaped(text).decode()))
        elif key == "active":
            active = value
        elif key == "login":
            login = value
        elif key == "tls":
            tls = value == "yes"
        elif key == "address":
            peer = Peer(value, service="managesieve")
        elif key == "cleartext":
            rules["allow_cleartext"] = ()
        elif key in ("max_bytes", "max_scripts"):
            store[key] = int(value)
        else:
            limits[key] = int(value)
    house = House(**store)
    for name, text in scripts:
        await house.backend.directory.put_script(identity("tim"), name, text)
    if active:
        await house.backend.directory.activate_script(identity("tim"), active)
    talk = Conversation(house, Settings(**limits), tls=tls, peer=peer, **rules)
    if login:
        await talk.log_in(login)
    sent = bytearray()
    expected: list[str] = []

    async def settle() -> None:
        data = bytes(sent)
        sent.clear()
        if octets:
            for octet in data:
                await talk.feed(bytes((octet,)))
        elif data:
            await talk.feed(data)
        check(expected, talk.take())
        expected.clear()

    before = ""
    for kind, _, text in transcript.lines:
        if kind in "CR" and before == "S":
            await settle()
        if kind == "C":
            sent += text.encode() + b"\r\n"
        elif kind == "R":
            sent += unescaped(text)
        elif kind == "S":
            expected.append(text)
        else:
            await settle()
            if kind == "T":
                talk.handshake()
            else:
                assert talk.session.closing == (kind == "E")
        before = kind
    await settle()
    assert not house.failures, house.failures


def test_there_are_transcripts() -> None:
    assert len(FILES) > 12


@pytest.mark.parametrize("octets", [False, True], ids=["whole", "octets"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_transcript(path: Path, octets: bool) -> None:
    now(play(load(path), octets))
