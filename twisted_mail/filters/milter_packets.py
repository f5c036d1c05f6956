"""The milter protocol's packets, versions 2 to 6: values to octets and back, no socket, no clock.

A packet is a length (32 bits, network order), a command character, and data (draft-adams-milter-protocol-00 section 3;
sendmail's ``libmilter/mfdef.h`` names the characters and bits). We are the mail server: what is encoded here are
commands, what is decoded are replies. The other direction is here too, for tests and for a filter of one's own.
"""

from __future__ import annotations

import enum
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = [
    "BODY_CHUNK",
    "Command",
    "Malformed",
    "Modification",
    "Negotiation",
    "Packet",
    "Packets",
    "Reply",
    "ReplyCode",
    "Step",
    "Steps",
    "Tells",
    "body",
    "connect",
    "encoded_modification",
    "end_of_body",
    "header",
    "helo",
    "macros",
    "mail",
    "modification",
    "rcpt",
    "reply_code",
    "simple",
    "unknown",
]

BODY_CHUNK: Final = 65_535
"""The most octets of a body, or of any command, in one packet (MILTER_CHUNK_SIZE)."""
VERSION: Final = 6


class Malformed(Exception):
    """The other side does not speak the protocol."""


class Command(enum.Enum):
    """What a mail server says (SMFIC)."""

    ABORT = b"A"
    BODY = b"B"
    CONNECT = b"C"
    MACROS = b"D"
    END_OF_BODY = b"E"
    HELO = b"H"
    QUIT_NEW_CONNECTION = b"K"
    HEADER = b"L"
    MAIL = b"M"
    END_OF_HEADER = b"N"
    NEGOTIATE = b"O"
    QUIT = b"Q"
    RCPT = b"R"
    DATA = b"T"
    UNKNOWN = b"U"


class Reply(enum.Enum):
    """What a filter answers (SMFIR)."""

    ACCEPT = b"a"
    CONTINUE = b"c"
    DISCARD = b"d"
    CONNECTION_FAILURE = b"f"
    PROGRESS = b"p"
    REJECT = b"r"
    SKIP = b"s"
    TEMPORARY_FAILURE = b"t"
    REPLY_CODE = b"y"
    SHUTDOWN = b"4"
    # changes, before the last answer to the end of the body
    ADD_RECIPIENT = b"+"
    ADD_RECIPIENT_WITH_PARAMETERS = b"2"
    DELETE_RECIPIENT = b"-"
    REPLACE_BODY = b"b"
    CHANGE_SENDER = b"e"
    ADD_HEADER = b"h"
    INSERT_HEADER = b"i"
    CHANGE_HEADER = b"m"
    QUARANTINE = b"q"


class Tells(enum.IntFlag):
    """What a filter may change (SMFIF)."""

    ADD_HEADERS = 0x01
    CHANGE_BODY = 0x02
    ADD_RECIPIENTS = 0x04
    DELETE_RECIPIENTS = 0x08
    CHANGE_HEADERS = 0x10
    QUARANTINE = 0x20
    CHANGE_SENDER = 0x40
    ADD_RECIPIENTS_WITH_PARAMETERS = 0x80
    CHOOSE_MACROS = 0x100


class Steps(enum.IntFlag):
    """What need not be said, or not be answered (SMFIP)."""

    NO_CONNECT = 0x01
    NO_HELO = 0x02
    NO_MAIL = 0x04
    NO_RCPT = 0x08
    NO_BODY = 0x10
    NO_HEADERS = 0x20
    NO_END_OF_HEADER = 0x40
    UNANSWERED_HEADERS = 0x80
    NO_UNKNOWN = 0x100
    NO_DATA = 0x200
    SKIP = 0x400
    """The filter may answer SKIP: no more of the same kind."""
    REJECTED_RECIPIENTS = 0x800
    UNANSWERED_CONNECT = 0x1000
    UNANSWERED_HELO = 0x2000
    UNANSWERED_MAIL = 0x4000
    UNANSWERED_RCPT = 0x8000
    UNANSWERED_DATA = 0x10000
    UNANSWERED_UNKNOWN = 0x20000
    UNANSWERED_END_OF_HEADER = 0x40000
    UNANSWERED_BODY = 0x80000
    LEADING_SPACE = 0x100000
    """Header values come with the space behind the colon, both ways."""


class Step(enum.IntEnum):
    """Where macros belong (SMFIM)."""

    CONNECT = 0
    HELO = 1
    MAIL = 2
    RCPT = 3
    DATA = 4
    END_OF_BODY = 5
    END_OF_HEADER = 6


V2_ACTIONS: Final = Tells(0x3F)
V2_STEPS: Final = Steps(0x7F)


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet, whichever way it goes."""

    kind: bytes
    """One octet."""
    data: bytes = b""

    def encode(self) -> bytes:
        return struct.pack("!I", len(self.data) + 1) + self.kind + self.data


class Packets:
    """Octets in, whole packets out. *most*: of the data of one; more is Malformed."""

    def __init__(self, most: int = 1 << 20) -> None:
        self._most = most
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Take octets as they come."""
        self._buffer += data

    def next(self) -> Packet | None:
        """The next packet; None: it has not come whole. Raises: Malformed."""
        if len(self._buffer) < 4:
            return None
        (length,) = struct.unpack_from("!I", self._buffer)
        if not 1 <= length <= self._most:
            raise Malformed(f"a packet of {length} octets")
        if len(self._buffer) < 4 + length:
            return None
        packet = Packet(bytes(self._buffer[4:5]), bytes(self._buffer[5 : 4 + length]))
        del self._buffer[: 4 + length]
        return packet

    @property
    def empty(self) -> bool:
        """Nothing lies here that was not asked for."""
        return not self._buffer


# --- negotiation


@dataclass(frozen=True, slots=True)
class Negotiation:
    """What one side can (the server), or wants (the filter)."""

    version: int
    actions: Tells
    steps: Steps
    macros: Mapping[Step, tuple[str, ...]] = field(default_factory=dict)
    """What the filter wants to hear at each step, if it says so."""

    def encode(self) -> Packet:
        data = struct.pack("!III", self.version, self.actions, self.steps)
        for step, names in self.macros.items():
            data += struct.pack("!I", step) + _ended(" ".join(names))
        return Packet(Command.NEGOTIATE.value, data)

    @classmethod
    def decode(cls, packet: Packet) -> Negotiation:
        """Raises: Malformed."""
        if packet.kind != Command.NEGOTIATE.value or len(packet.data) < 12:
            raise Malformed(f"no negotiation, but {packet.kind!r}")
        version, actions, steps = struct.unpack_from("!III", packet.data)
        wanted: dict[Step, tuple[str, ...]] = {}
        at = 12
        while at < len(packet.data):
            end = packet.data.find(b"\0", at + 4)
            if end < 0:
                raise Malformed("a list of macros without an end")
            (number,) = struct.unpack_from("!I", packet.data, at)
            if number in set(Step):
                wanted[Step(number)] = tuple(re.split(r"[\s,]+", _text(packet.data[at + 4 : end]).strip()))
            at = end + 1
        return cls(version, Tells(actions & 0x1FF), Steps(steps & 0x1FFFFF), wanted)


# --- commands


def _ended(text: str) -> bytes:
    """A string with the octet that ends it; one inside it would end it too early."""
    return text.encode("utf-8", "surrogateescape").replace(b"\0", b"") + b"\0"


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


def simple(command: Command) -> Packet:
    """One without data: ABORT, QUIT, QUIT_NEW_CONNECTION, DATA, END_OF_HEADER."""
    return Packet(command.value)


def macros(command: Command, values: Iterable[tuple[str, str]]) -> Packet:
    """What *command*, which follows, may ask for. Names of one letter stand as they are, others in braces."""
    return Packet(
        Command.MACROS.value,
        command.value + b"".join(_ended(name) + _ended(value) for name, value in values),
    )


def connect(host: str, address: str, port: int) -> Packet:
    """*host*: the peer's name, or its address in brackets; *address* empty: it has none (a UNIX socket)."""
    data = _ended(host)
    if not address:
        return Packet(Command.CONNECT.value, data + b"U")
    family = b"6" if ":" in address else b"4"
    return Packet(Command.CONNECT.value, data + family + struct.pack("!H", port) + _ended(address))


def helo(name: str) -> Packet:
    return Packet(Command.HELO.value, _ended(name))


def mail(address: str, parameters: Iterable[str] = ()) -> Packet:
    """*address* without angle brackets."""
    return Packet(Command.MAIL.value, b"".join(_ended(each) for each in (f"<{address}>", *parameters)))


def rcpt(address: str, parameters: Iterable[str] = ()) -> Packet:
    """*address* without angle brackets."""
    return Packet(Command.RCPT.value, b"".join(_ended(each) for each in (f"<{address}>", *parameters)))


def unknown(line: str) -> Packet:
    """A command that the server does not know, as the client said it."""
    return Packet(Command.UNKNOWN.value, _ended(line))


def header(name: bytes, value: bytes) -> Packet:
    """One field; *value* with LF where lines are folded. What no packet has room for is cut off."""
    name = name.replace(b"\0", b"")[:1000]
    value = value.replace(b"\0", b"")
    return Packet(Command.HEADER.value, name + b"\0" + value[: BODY_CHUNK - len(name) - 3] + b"\0")


def body(chunk: bytes) -> Packet:
    """At most `BODY_CHUNK` octets."""
    return Packet(Command.BODY.value, chunk)


def end_of_body(chunk: bytes = b"") -> Packet:
    """The last octets may come with it."""
    return Packet(Command.END_OF_BODY.value, chunk)


# --- replies


@dataclass(frozen=True, slots=True)
class ReplyCode:
    """What SMTP is to say."""

    code: int
    """4yz or 5yz."""
    enhanced: str
    """Empty: not given."""
    text: str


def reply_code(data: bytes) -> ReplyCode:
    """Read the data of a REPLY_CODE: ``550 5.7.1 text``, of several lines perhaps. Raises: Malformed."""
    lines = _text(data.removesuffix(b"\0")).replace("\r\n", "\n").split("\n")
    texts, code, enhanced = [], 0, ""
    for line in lines:
        found = re.fullmatch(r"([45]\d\d)(?:[ -](?:([45]\.\d{1,3}\.\d{1,3})(?: |\Z))?(.*))?", line)
        if found is None or (code and int(found[1]) != code):
            raise Malformed("an answer that is none of SMTP's")
        code, enhanced = int(found[1]), enhanced or found[2] or ""
        texts.append(found[3] or "")
    if enhanced and enhanced[0] != str(code)[0]:
        enhanced = ""
    # in a reply a percent sign is written twice (smfi_setreply)
    text = " ".join(" ".join(texts).split()).replace("%%", "%")
    return ReplyCode(code, enhanced, "".join(each if each.isprintable() else "?" for each in text)[:400])


@dataclass(frozen=True, slots=True)
class Modification:
    """One change, or the reason of a quarantine."""

    kind: Reply
    name: str = ""
    """Of a header field; of REPLACE_BODY, recipients and sender nothing."""
    value: str = ""
    """The field's value, the address without angle brackets, the quarantine's reason."""
    index: int = 0
    """CHANGE_HEADER: which one of that name, from 1. INSERT_HEADER: before which of all, from 1 (0: as 1)."""
    octets: bytes = b""
    """REPLACE_BODY: the next ones of the new body."""
    parameters: str = ""
    """Behind an address (ESMTP)."""


_FIELD_NAME: Final = re.compile(r"[!-9;-~]{1,998}\Z")


def modification(packet: Packet) -> Modification:
    """Read a change. Raises: Malformed."""
    try:
        kind = Reply(packet.kind)
    except ValueError:
        raise Malformed(f"an unknown answer {packet.kind!r}") from None
    if kind is Reply.REPLACE_BODY:
        return Modification(kind, octets=packet.data)
    data, index = packet.data, 0
    if kind in (Reply.INSERT_HEADER, Reply.CHANGE_HEADER):
        if len(data) < 4:
            raise Malformed("a change of a header without its place")
        (index,) = struct.unpack_from("!I", data)
        data = data[4:]
    if not data.endswith(b"\0"):
        raise Malformed("a string without an end")
    strings = [_text(each) for each in data[:-1].split(b"\0")]
    match kind, strings:
        case (Reply.ADD_HEADER | Reply.INSERT_HEADER | Reply.CHANGE_HEADER, [name, *rest]) if len(rest) <= 1:
            if not _FIELD_NAME.match(name):
                raise Malformed("a field name that is none")
            return Modification(kind, name, rest[0] if rest else "", index)
        case (Reply.ADD_RECIPIENT | Reply.DELETE_RECIPIENT | Reply.ADD_RECIPIENT_WITH_PARAMETERS, [address, *_]) if (
            not _address(address)
        ):
            raise Malformed("a recipient that is none")
        case (Reply.ADD_RECIPIENT | Reply.DELETE_RECIPIENT, [address]):
            return Modification(kind, value=_address(address))
        case (Reply.ADD_RECIPIENT_WITH_PARAMETERS | Reply.CHANGE_SENDER, [address, *rest]) if len(rest) <= 1:
            return Modification(kind, value=_address(address), parameters=rest[0] if rest else "")
        case (Reply.QUARANTINE, [reason]):
            return Modification(kind, value=reason)
    raise Malformed(f"{kind.name.lower().replace('_', ' ')} with data that it does not have")


def _address(text: str) -> str:
    address = text.strip().removeprefix("<").removesuffix(">")
    if any(not each.isprintable() or each in "<>" for each in address):
        raise Malformed("an address that is none")
    return address


def encoded_modification(change: Modification) -> Packet:
    """The packet that says *change*: a filter's side."""
    match change.kind:
        case Reply.REPLACE_BODY:
            data = change.octets
        case Reply.INSERT_HEADER | Reply.CHANGE_HEADER:
            data = struct.pack("!I", change.index) + _ended(change.name) + _ended(change.value)
        case Reply.ADD_HEADER:
            data = _ended(change.name) + _ended(change.value)
        case Reply.QUARANTINE:
            data = _ended(change.value)
        case Reply.ADD_RECIPIENT | Reply.DELETE_RECIPIENT:
            data = _ended(f"<{change.value}>")
        case _:
            data = _ended(f"<{change.value}>") + (_ended(change.parameters) if change.parameters else b"")
    return Packet(change.kind.value, data)
