"""A scripted milter, in memory or on a socket, and messages to show to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol

from twisted_mail.filters.milter_conversation import cut_fields
from twisted_mail.filters.milter_packets import (
    BODY_CHUNK,
    Command,
    Modification,
    Negotiation,
    Packet,
    Packets,
    Reply,
    Steps,
    Tells,
    encoded_modification,
)
from twisted_mail.filters.values import Client, FilterDown, Mail, by_name
from twisted_mail.services import Recipient
from twisted_mail.values import AccountId

__all__ = ["ASKS_ALL", "Answers", "FakeWire", "Message", "ScriptedMilter", "a_mail", "code", "drive", "recipient", "say"]

ASKS_ALL = Negotiation(6, Tells(0x1FF), Steps(0))
Answers = Mapping[Command, Sequence[Packet]]


def say(reply: Reply, data: bytes = b"") -> Packet:
    return Packet(reply.value, data)


def code(text: str) -> Packet:
    return Packet(Reply.REPLY_CODE.value, text.encode() + b"\0")


def changed(*changes: Modification) -> list[Packet]:
    return [encoded_modification(each) for each in changes]


class ScriptedMilter:
    """Answers as it was told (per command: all packets of one answer, or, of RCPT, HEADER, BODY, one a time), else CONTINUE."""

    def __init__(self, negotiation: Negotiation | None = ASKS_ALL, answers: Answers | None = None) -> None:
        self.negotiation = negotiation
        self.answers = dict(answers or {})
        self.heard: list[tuple[Command, bytes]] = []
        """Without macros and negotiation."""
        self.macros: dict[Command, dict[str, str]] = {}
        self.silent: set[Command] = set()
        """Never answered."""
        self.dies_at: Command | None = None
        self._packets = Packets()

    @property
    def commands(self) -> str:
        """The commands' letters."""
        return b"".join(command.value for command, _ in self.heard).decode()

    def receive(self, data: bytes) -> bytes | None:
        """What it answers; None: it hangs up."""
        self._packets.feed(data)
        out = b""
        while (packet := self._packets.next()) is not None:
            assert len(packet.data) <= BODY_CHUNK
            command = Command(packet.kind)
            if command is Command.NEGOTIATE:
                if self.negotiation is not None:
                    out += self.negotiation.encode().encode()
                continue
            if command is Command.MACROS:
                strings = [each.decode() for each in packet.data[1:-1].split(b"\0")]
                self.macros[Command(packet.data[:1])] = dict(zip(strings[::2], strings[1::2]))
                continue
            self.heard.append((command, packet.data))
            if command is self.dies_at:
                return None
            if command in (Command.ABORT, Command.QUIT, Command.QUIT_NEW_CONNECTION) or command in self.silent:
                continue
            for answer in self._answer(command):
                out += answer.encode()
        return out

    def _answer(self, command: Command) -> Iterable[Packet]:
        answers = self.answers.get(command)
        if answers is None:
            return [say(Reply.CONTINUE)]
        if command in (Command.RCPT, Command.HEADER, Command.BODY) and len(answers) > 1:
            self.answers[command] = answers[1:]
            return answers[:1]
        return answers


class FakeWire:
    """A connection to a `ScriptedMilter` that needs no socket."""

    def __init__(self, milter: ScriptedMilter) -> None:
        self.milter = milter
        self.ended = False
        self._received = b""

    def write(self, data: bytes) -> None:
        if not self.ended:
            answer = self.milter.receive(data)
            if answer is None:
                self.ended = True
            else:
                self._received += answer

    async def send(self, data: bytes, seconds: float) -> None:
        self.write(data)

    async def receive(self, seconds: float) -> bytes:
        if not self._received:
            raise FilterDown("it has closed the connection" if self.ended else "no answer in time")
        data, self._received = self._received, b""
        return data

    def close(self) -> None:
        self.ended = True

    abort = close


class MilterOnASocket(Protocol):
    """A `ScriptedMilter` that is its factory's `milter`."""

    def dataReceived(self, data: bytes) -> None:
        transport: Any = self.transport
        answer = self.factory.milter.receive(data)
        if answer is None:
            transport.abortConnection()
        else:
            for octet in range(0, len(answer), 7):  # in pieces
                transport.write(answer[octet : octet + 7])


class Message:
    """An `Arrived`."""

    def __init__(self, mail: Mail, octets: bytes) -> None:
        self.mail = mail
        self._octets = octets
        self.size = len(octets)
        self.header = octets.partition(b"\r\n\r\n")[0] + b"\r\n"
        self.fields = list(cut_fields(self.header))
        self.named = by_name(self.fields)

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._octets

    async def octets(self, most: int) -> bytes:
        return self._octets[:most]


def recipient(address: str, *, local: bool = True) -> Recipient:
    return Recipient(address, (AccountId.new(),) if local else ())


def a_mail(client: Client | None = None, sender: str = "ann@example.org", *recipients: str) -> Mail:
    if client is None:
        client = Client("192.0.2.1", port=4711)
        client.helo = "mail.example.org"
    mail = Mail(client, sender)
    mail.id = "ABC1"
    mail.recipients = [recipient(each) for each in recipients or ("bob@example.net",)]
    return mail


def drive(work: Any) -> Any:
    """The result of a coroutine that never has to wait."""
    results: list[Any] = []
    Deferred.fromCoroutine(work).addBoth(results.append)
    assert results, "it waits"
    if hasattr(results[0], "raiseException"):
        results[0].raiseException()
    return results[0]
