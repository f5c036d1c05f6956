"""What the tests of this folder share: reading one command, and driving a `Wire`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted_mail.imap.registry import announced, parse
from twisted_mail.imap.syntax import BadCommand, Command, Modes, Tagged
from twisted_mail.imap.wire import (
    CommandReceived,
    Event,
    Limits,
    LiteralAnnounced,
    LiteralData,
    Wire,
)

Decide = Callable[[LiteralAnnounced], str]


def whole_if_it_fits(event: LiteralAnnounced) -> str:
    return "whole" if event.fits and event.allowed else "refuse"


def stream_if_allowed(event: LiteralAnnounced) -> str:
    return "stream" if event.allowed else "refuse"


def by_meaning(event: LiteralAnnounced) -> str:
    """As a session decides: messages stream, arguments are taken whole, the rest is refused."""
    command = announced(event.line, event.size).command
    if isinstance(command, BadCommand) or not event.allowed:
        return "refuse"
    if type(command).__name__ in ("Append", "Replace"):
        return "stream"
    return "whole" if event.fits else "refuse"


def drive(
    chunks: Iterable[bytes],
    decide: Decide = whole_if_it_fits,
    limits: Limits | None = None,
    wire: Wire | None = None,
) -> tuple[list[Event], bytes]:
    """All events of *chunks*, the data of one streamed literal put together, and what was to be sent."""
    wire = wire or Wire(limits)
    events: list[Event] = []
    sent = b""
    for chunk in chunks:
        wire.receive(chunk)
        while (event := wire.next_event()) is not None:
            if isinstance(event, LiteralData) and events and isinstance(last := events[-1], LiteralData):
                events[-1] = LiteralData(last.octets + event.octets)
                continue
            events.append(event)
            if isinstance(event, LiteralAnnounced):
                decision = decide(event)
                if decision == "refuse":
                    wire.refuse_literal()
                else:
                    sent += wire.accept_literal(stream=decision == "stream")
    return events, sent


def read_tagged(octets: bytes, modes: Modes | None = None) -> Tagged:
    """The one command that *octets*, without the last CRLF, make; literals are taken whole."""
    events, _ = drive([octets + b"\r\n"])
    command = events[-1]
    assert isinstance(command, CommandReceived), events
    return parse(command.line, modes or Modes())


def read(arguments: bytes, modes: Modes | None = None) -> Command:
    """The command of ``a1 <arguments>``; it must be well-formed."""
    tagged = read_tagged(b"a1 " + arguments, modes)
    assert tagged.tag == b"a1"
    assert not isinstance(tagged.command, BadCommand), tagged.command
    return tagged.command


def refusal(arguments: bytes, modes: Modes | None = None) -> str:
    """Why ``a1 <arguments>`` is malformed; its tag must have been kept."""
    command = read_tagged(b"a1 " + arguments, modes).command
    assert isinstance(command, BadCommand), command
    assert command.tag == b"a1"
    return command.why
