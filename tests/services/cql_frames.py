"""As much of CQL's binary protocol (version 4) as a proxy has to read: frames, what they are about, and answers of its own."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

__all__ = [
    "CONDITION",
    "INVALID",
    "READ_TIMEOUT",
    "WRITE_TIMEOUT",
    "Consistency",
    "Frame",
    "Op",
    "Reader",
    "applied",
    "error",
    "failure_of",
    "prepared_id",
    "query_of",
    "statements_of",
    "take_frames",
    "without_compression",
]

HEADER: Final = struct.Struct(">BBhBI")
VERSION: Final = 4
ANSWER: Final = 0x80
COMPRESSED: Final = 0x01
WRITE_TIMEOUT: Final = 0x1100
READ_TIMEOUT: Final = 0x1200
INVALID: Final = 0x2200
_APPLIED: Final = b"\0\0\0\1" b"\0\0\0\1" b"\1"
"""How the answer to a conditional statement ends that was applied: one row, of one column, which is true."""


class Op(IntEnum):
    """Opcodes (section 2.4)."""

    ERROR = 0x00
    SUPPORTED = 0x06
    QUERY = 0x07
    RESULT = 0x08
    PREPARE = 0x09
    EXECUTE = 0x0A
    BATCH = 0x0D


class Consistency(IntEnum):
    """Those that matter here (section 3)."""

    SERIAL = 0x08
    LOCAL_SERIAL = 0x09


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame."""

    version: int
    flags: int
    stream: int
    opcode: int
    body: bytes

    @property
    def octets(self) -> bytes:
        return HEADER.pack(self.version, self.flags, self.stream, self.opcode, len(self.body)) + self.body

    def on(self, stream: int) -> Frame:
        """The same on another stream."""
        return replace(self, stream=stream)


def take_frames(buffer: bytearray) -> list[Frame]:
    """The whole frames at the beginning of *buffer*, which are taken out of it."""
    frames = []
    at = 0
    while len(buffer) - at >= HEADER.size:
        version, flags, stream, opcode, length = HEADER.unpack_from(buffer, at)
        if version & ~ANSWER != VERSION or flags & COMPRESSED:
            raise ValueError(f"a frame of version {version & ~ANSWER}, flags {flags:#x}: this proxy reads plain version {VERSION}")
        end = at + HEADER.size + length
        if len(buffer) < end:
            break
        frames.append(Frame(version, flags, stream, opcode, bytes(buffer[at + HEADER.size : end])))
        at = end
    del buffer[:at]
    return frames


class Reader:
    """Takes a body apart from its beginning (section 3's notations)."""

    def __init__(self, body: bytes) -> None:
        self._body, self._at = body, 0

    def octets(self, length: int) -> bytes:
        self._at += length
        return self._body[self._at - length : self._at]

    def byte(self) -> int:
        return self.octets(1)[0]

    def short(self) -> int:
        return int.from_bytes(self.octets(2), "big")

    def int(self) -> int:
        return int.from_bytes(self.octets(4), "big", signed=True)

    def string(self) -> str:
        return self.octets(self.short()).decode()

    def long_string(self) -> str:
        return self.octets(self.int()).decode()

    def short_bytes(self) -> bytes:
        return self.octets(self.short())

    def value(self) -> None:
        """Passed over; null (-1) and "not set" (-2) have no octets."""
        self.octets(max(0, self.int()))


def query_of(frame: Frame) -> str:
    """The text in QUERY or PREPARE."""
    return Reader(frame.body).long_string()


def prepared_id(frame: Frame) -> bytes | None:
    """The id in the answer to PREPARE; None: it is none."""
    reader = Reader(frame.body)
    return reader.short_bytes() if frame.opcode == Op.RESULT and reader.int() == 4 else None


def statements_of(frame: Frame, prepared: Mapping[bytes, str]) -> tuple[list[str], int]:
    """The texts of what QUERY, EXECUTE or BATCH wants carried out, and at which consistency."""
    reader = Reader(frame.body)
    if frame.opcode == Op.QUERY:
        return [reader.long_string()], reader.short()
    if frame.opcode == Op.EXECUTE:
        return [prepared.get(reader.short_bytes(), "")], reader.short()
    texts = []
    reader.byte()  # the kind of batch
    for _ in range(reader.short()):
        texts.append(prepared.get(reader.short_bytes(), "") if reader.byte() else reader.long_string())
        for _ in range(reader.short()):
            reader.value()
    return texts, reader.short()


def applied(frame: Frame) -> bool:
    """Whether it says that a conditional statement was applied."""
    return frame.opcode == Op.RESULT and frame.body.endswith(_APPLIED)


def failure_of(frame: Frame) -> tuple[int, str] | None:
    """Code and text of ERROR, with the write type where there is one; None: it is none."""
    if frame.opcode != Op.ERROR:
        return None
    reader = Reader(frame.body)
    code, text = reader.int(), reader.string()
    if code == WRITE_TIMEOUT:
        reader.octets(2 + 4 + 4)
        text = f"{reader.string()}: {text}"
    return code, text


def _string(text: str) -> bytes:
    return len(text).to_bytes(2, "big") + text.encode()


def error(code: int, stream: int, consistency: int = Consistency.LOCAL_SERIAL) -> Frame:
    """An answer that says: time-out of a conditional write (type CAS), of a read, or an invalid request (section 9)."""
    body = code.to_bytes(4, "big") + _string("injected")
    if code == WRITE_TIMEOUT:
        body += struct.pack(">Hii", consistency, 1, 2) + _string("CAS")
    elif code == READ_TIMEOUT:
        body += struct.pack(">HiiB", consistency, 1, 2, 0)
    return Frame(VERSION | ANSWER, 0, stream, Op.ERROR, body)


def without_compression(frame: Frame) -> Frame:
    """SUPPORTED that offers no compression: what is compressed could not be read."""
    reader = Reader(frame.body)
    pairs = {}
    for _ in range(reader.short()):
        name = reader.string()
        pairs[name] = [reader.string() for _ in range(reader.short())]
    pairs["COMPRESSION"] = []
    body = len(pairs).to_bytes(2, "big") + b"".join(
        _string(name) + len(values).to_bytes(2, "big") + b"".join(map(_string, values)) for name, values in pairs.items()
    )
    return replace(frame, body=body)


CONDITION: Final = re.compile(r"\s*(?:INSERT|UPDATE|DELETE|BEGIN)\b.*\sIF\s", re.IGNORECASE | re.DOTALL)
"""Matches the text of a statement that is carried out only on a condition (CREATE … IF NOT EXISTS is another thing)."""
