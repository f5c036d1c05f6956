"""What FETCH can be asked for (RFC 9051 section 6.4.5, RFC 3501, 3516, 7162, 8474, 8514, 8970)."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final, Literal

__all__ = [
    "Attribute",
    "Binary",
    "BinarySize",
    "Body",
    "FetchItem",
    "Part",
    "Preview",
    "Section",
    "Text",
    "item_name",
]

Text = Literal["HEADER", "HEADER.FIELDS", "HEADER.FIELDS.NOT", "TEXT", "MIME"]
Part = tuple[int, ...]

_ASTRING: Final = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\]+')


class Attribute(enum.Enum):
    """Items without parameters; the value is how the client asks and how the answer is labelled."""

    BODY = b"BODY"
    """BODYSTRUCTURE without extension data."""
    BODYSTRUCTURE = b"BODYSTRUCTURE"
    EMAILID = b"EMAILID"
    ENVELOPE = b"ENVELOPE"
    FLAGS = b"FLAGS"
    INTERNALDATE = b"INTERNALDATE"
    MODSEQ = b"MODSEQ"
    RFC822 = b"RFC822"
    """As BODY[]: sets ``\\Seen``."""
    RFC822_HEADER = b"RFC822.HEADER"
    """As BODY.PEEK[HEADER]."""
    RFC822_SIZE = b"RFC822.SIZE"
    RFC822_TEXT = b"RFC822.TEXT"
    """As BODY[TEXT]: sets ``\\Seen``."""
    SAVEDATE = b"SAVEDATE"
    THREADID = b"THREADID"
    UID = b"UID"


@dataclass(frozen=True, slots=True)
class Section:
    """``section``: the part's numbers, what of it (None: all), and the field names of HEADER.FIELDS as given."""

    path: Part = ()
    what: Text | None = None
    fields: tuple[bytes, ...] = ()

    def __bytes__(self) -> bytes:
        """As it stands between ``[`` and ``]``; a field name that is no atom comes as a quoted string."""
        pieces = [b"%d" % number for number in self.path]
        if self.what is not None:
            pieces.append(self.what.encode("ascii"))
        text = b".".join(pieces)
        if self.fields:
            text += b" (" + b" ".join([_astring(name) for name in self.fields]) + b")"
        return text


@dataclass(frozen=True, slots=True)
class Body:
    """``BODY[…]`` and ``BODY.PEEK[…]``; `partial` is (first octet, most octets)."""

    section: Section
    peek: bool = False
    partial: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Binary:
    """``BINARY[…]`` and ``BINARY.PEEK[…]`` (RFC 3516 section 4.2): the part decoded."""

    path: Part
    peek: bool = False
    partial: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class BinarySize:
    """``BINARY.SIZE[…]`` (RFC 3516 section 4.2): octets of the decoded part."""

    path: Part


@dataclass(frozen=True, slots=True)
class Preview:
    """``PREVIEW``; `lazy`: NIL will do where it is not at hand (RFC 8970 section 4.1)."""

    lazy: bool = False


FetchItem = Attribute | Body | Binary | BinarySize | Preview


def item_name(item: FetchItem) -> bytes:
    """What stands before the value in the answer: PEEK and the length of a partial are left out
    (RFC 9051 section 7.5.2)."""
    match item:
        case Attribute():
            return item.value
        case Body(section, _, partial):
            return b"BODY[" + bytes(section) + b"]" + (b"<%d>" % partial[0] if partial else b"")
        case Binary(path, _, partial):
            return b"BINARY[" + bytes(Section(path)) + b"]" + (b"<%d>" % partial[0] if partial else b"")
        case BinarySize(path):
            return b"BINARY.SIZE[" + bytes(Section(path)) + b"]"
        case Preview():
            return b"PREVIEW"


def _astring(name: bytes) -> bytes:
    if _ASTRING.fullmatch(name):
        return name
    return b'"' + name.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
