"""One connection to a milter, command by command.

The filter says at the beginning which commands it does not want, and which it does not answer; the methods here know, so
that their caller says everything to everybody. What goes wrong is FilterDown, and the connection is ended.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from twisted_mail.filters.milter_macros import DEFAULT, pick
from twisted_mail.filters.milter_packets import (
    V2_ACTIONS,
    V2_STEPS,
    VERSION,
    Command,
    Malformed,
    Modification,
    Negotiation,
    Packet,
    Packets,
    Reply,
    ReplyCode,
    Step,
    Steps,
    Tells,
    body,
    end_of_body,
    header,
    macros,
    modification,
    reply_code,
    simple,
)
from twisted_mail.filters.values import FilterDown
from twisted_mail.filters.wires import Wire

__all__ = ["CONTINUED", "Conversation", "Said", "cut_fields"]

OFFERED_ACTIONS: Final = Tells(0x1FF)
OFFERED_STEPS: Final = Steps(0x1FFFFF) & ~Steps.REJECTED_RECIPIENTS
"""Recipients that we refuse ourselves are not shown to filters."""

CHANGES_MESSAGE: Final = Tells.ADD_HEADERS | Tells.CHANGE_HEADERS | Tells.CHANGE_BODY

_NOT_WANTED: Final[Mapping[Command, Steps]] = {
    Command.CONNECT: Steps.NO_CONNECT,
    Command.HELO: Steps.NO_HELO,
    Command.MAIL: Steps.NO_MAIL,
    Command.RCPT: Steps.NO_RCPT,
    Command.DATA: Steps.NO_DATA,
    Command.HEADER: Steps.NO_HEADERS,
    Command.END_OF_HEADER: Steps.NO_END_OF_HEADER,
    Command.BODY: Steps.NO_BODY,
    Command.UNKNOWN: Steps.NO_UNKNOWN,
}
_NOT_ANSWERED: Final[Mapping[Command, Steps]] = {
    Command.CONNECT: Steps.UNANSWERED_CONNECT,
    Command.HELO: Steps.UNANSWERED_HELO,
    Command.MAIL: Steps.UNANSWERED_MAIL,
    Command.RCPT: Steps.UNANSWERED_RCPT,
    Command.DATA: Steps.UNANSWERED_DATA,
    Command.HEADER: Steps.UNANSWERED_HEADERS,
    Command.END_OF_HEADER: Steps.UNANSWERED_END_OF_HEADER,
    Command.BODY: Steps.UNANSWERED_BODY,
    Command.UNKNOWN: Steps.UNANSWERED_UNKNOWN,
}
_STEP: Final[Mapping[Command, Step]] = {
    Command.CONNECT: Step.CONNECT,
    Command.HELO: Step.HELO,
    Command.MAIL: Step.MAIL,
    Command.RCPT: Step.RCPT,
    Command.DATA: Step.DATA,
    Command.END_OF_HEADER: Step.END_OF_HEADER,
    Command.END_OF_BODY: Step.END_OF_BODY,
}
_ANSWERS: Final = {
    Reply.ACCEPT,
    Reply.CONTINUE,
    Reply.DISCARD,
    Reply.CONNECTION_FAILURE,
    Reply.REJECT,
    Reply.SKIP,
    Reply.TEMPORARY_FAILURE,
    Reply.REPLY_CODE,
    Reply.SHUTDOWN,
}


_NAME: Final = re.compile(rb"[!-~]+\Z")
_REPLIES: Final = {reply.value: reply for reply in Reply}


@dataclass(frozen=True, slots=True)
class Said:
    """A filter's answer to one command; with the last one comes what it changes."""

    reply: Reply
    code: ReplyCode | None = None
    """Of REPLY_CODE."""
    changes: tuple[Modification, ...] = ()


CONTINUED: Final = Said(Reply.CONTINUE)


class Conversation:
    """One connection to a filter."""

    def __init__(self, wire: Wire, seconds: float, changes_bytes: int) -> None:
        # seconds: for each answer; a filter that says it is still busy gets them anew
        # changes_bytes: the most that it may change a message by
        self._wire = wire
        self._seconds = seconds
        self._changes_bytes = changes_bytes
        self._packets = Packets()
        self._unwanted: frozenset[Command] = frozenset()
        self._unanswered: frozenset[Command] = frozenset()
        self.leading_space = False
        """Header values go with the space behind the colon."""
        self.may_change = True
        """Whether the filter may change a message's header or body, by what it has negotiated."""
        self._macros: dict[Step, tuple[str, ...]] = dict(DEFAULT)

    @property
    def ended(self) -> bool:
        return self._wire.ended

    def wants(self, command: Command) -> bool:
        """Whether the filter wants to hear *command*."""
        return command not in self._unwanted

    # --- the beginning and the end

    async def negotiate(self) -> None:
        """Agree on a version and on what is said. Raises: FilterDown."""
        await self._send(Negotiation(VERSION, OFFERED_ACTIONS, OFFERED_STEPS).encode())
        packet = await self._packet()
        try:
            answer = Negotiation.decode(packet)
        except Malformed as error:
            raise self._broken(error) from None
        if not 2 <= answer.version <= VERSION:
            raise self._broken(f"version {answer.version} of the protocol")
        actions, steps = (OFFERED_ACTIONS, OFFERED_STEPS) if answer.version > 2 else (V2_ACTIONS, V2_STEPS)
        if unknown := (answer.actions & ~actions) or (answer.steps & ~steps):
            raise self._broken(f"something was asked for that was not offered ({unknown:#x})")
        unwanted = {command for command, step in _NOT_WANTED.items() if answer.steps & step}
        if answer.version < 4:
            unwanted.add(Command.DATA)
        if answer.version < 3:
            unwanted.add(Command.UNKNOWN)
        self._unwanted = frozenset(unwanted)
        self._unanswered = frozenset(command for command, step in _NOT_ANSWERED.items() if answer.steps & step)
        self.leading_space = bool(answer.steps & Steps.LEADING_SPACE)
        self.may_change = bool(answer.actions & CHANGES_MESSAGE)
        self._macros.update(answer.macros)

    def abort(self) -> None:
        """The transaction is over; the next MAIL may follow. There is no answer."""
        self._wire.write(simple(Command.ABORT).encode())

    def quit(self) -> None:
        """Take leave."""
        self._wire.write(simple(Command.QUIT).encode())
        self._wire.close()

    def hang_up(self) -> None:
        """Without a word."""
        self._wire.abort()

    # --- commands

    async def say(self, command: Command, packet: Packet, values: Mapping[str, str]) -> Said:
        """Say *command*, with the macros that belong to it, and hear the answer. Raises: FilterDown."""
        if not self.wants(command):
            return CONTINUED
        told = pick(values, self._macros.get(_STEP[command], ())) if command in _STEP else []
        octets = (macros(command, told).encode() if told else b"") + packet.encode()
        await self._wire.send(octets, self._seconds)
        if command in self._unanswered:
            return CONTINUED
        return await self._answer()

    async def fields(self, fields: Sequence[tuple[bytes, bytes]]) -> Said:
        """The header's fields, raw values with their folding and all behind the colon; until it has heard enough."""
        if not self.wants(Command.HEADER):
            return CONTINUED
        packets = []
        for name, raw in fields:
            value = raw.replace(b"\r\n", b"\n")
            packets.append(header(name, value if self.leading_space else value.lstrip(b" \t")))
        if Command.HEADER in self._unanswered:
            await self._wire.send(b"".join([packet.encode() for packet in packets]), self._seconds)
            return CONTINUED
        for packet in packets:
            await self._wire.send(packet.encode(), self._seconds)
            said = await self._answer()
            if said.reply is not Reply.CONTINUE:
                return CONTINUED if said.reply is Reply.SKIP else said
        return CONTINUED

    async def body(self, chunk: bytes) -> Said:
        """At most `BODY_CHUNK` octets of the body."""
        return await self.say(Command.BODY, body(chunk), {})

    async def end_of_body(self, values: Mapping[str, str]) -> Said:
        """All was said: the last answer, and the changes. Raises: FilterDown."""
        told = pick(values, self._macros.get(Step.END_OF_BODY, ()))
        octets = (macros(Command.END_OF_BODY, told).encode() if told else b"") + end_of_body().encode()
        await self._wire.send(octets, self._seconds)
        changes: list[Modification] = []
        room = self._changes_bytes
        while True:
            packet = await self._packet()
            try:
                said = self._read(packet)
                if said is None:
                    room -= len(packet.data) + 16
                    if room < 0:
                        raise Malformed("its changes do not end")
                    changes.append(modification(packet))
            except Malformed as error:
                raise self._broken(error) from None
            if said is not None:
                return Said(said.reply, said.code, tuple(changes))

    async def _answer(self) -> Said:
        packet = await self._packet()
        try:
            said = self._read(packet)
        except Malformed as error:
            raise self._broken(error) from None
        if said is None:
            raise self._broken(f"{packet.kind!r} is no answer here")
        return said

    def _read(self, packet: Packet) -> Said | None:
        """An answer; None: it is none, but a change perhaps. Raises: Malformed."""
        reply = _REPLIES.get(packet.kind)
        if reply is None:
            raise Malformed(f"an unknown answer {packet.kind!r}")
        if reply is Reply.CONTINUE:
            return CONTINUED
        if reply not in _ANSWERS:
            return None
        return Said(reply, reply_code(packet.data) if reply is Reply.REPLY_CODE else None)

    # --- packets

    async def _send(self, packet: Packet) -> None:
        await self._wire.send(packet.encode(), self._seconds)

    async def _packet(self) -> Packet:
        """The next packet that is more than a sign of life."""
        while True:
            try:
                packet = self._packets.next()
            except Malformed as error:
                raise self._broken(error) from None
            if packet is None:
                self._packets.feed(await self._wire.receive(self._seconds))
            elif packet.kind != Reply.PROGRESS.value:
                return packet

    def _broken(self, why: object) -> FilterDown:
        self._wire.abort()
        return FilterDown(f"it does not speak the milter protocol: {why}")


def cut_fields(octets: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The fields of a header: (name, all behind the colon without the last line end). Lines that belong to no field are
    left out."""
    name, value = b"", b""
    for line in octets.split(b"\r\n"):
        if line[:1] in (b" ", b"\t"):
            if name:
                value += b"\r\n" + line
            continue
        if name:
            yield name, value
        name, colon, value = line.partition(b":")
        name = name.rstrip(b" \t")
        if not colon or not _NAME.match(name):
            name = b""
    if name:
        yield name, value
