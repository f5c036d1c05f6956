"""Where each BODY[…] and BINARY[…] section lies in the raw message (RFC 9051 section 6.4.5.1, RFC 3516 section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from twisted_mail.mime.part import Part

__all__ = ["Section", "SectionLike", "Span", "find_part", "locate"]

What = Literal["HEADER", "HEADER.FIELDS", "HEADER.FIELDS.NOT", "TEXT", "MIME"]


class Span(NamedTuple):
    """Octets ``[start:end)`` of the message."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Section:
    """``section``: the part's numbers, what of it (None: all of it), and the fields of HEADER.FIELDS."""

    path: tuple[int, ...] = ()
    what: What | None = None
    fields: tuple[bytes, ...] = ()


class SectionLike(Protocol):
    """What `locate` needs of a section: a protocol may have a value of its own for it."""

    @property
    def path(self) -> tuple[int, ...]: ...

    @property
    def what(self) -> str | None: ...


def find_part(root: Part, path: tuple[int, ...]) -> Part | None:
    """The part with these numbers; no numbers: *root*.

    A message that is no multipart has one part, 1, which is its body: *root* itself is given for it. Below a
    message/rfc822 part the numbers go on with the parts of the embedded message (RFC 9051 section 6.4.5.1: ``4.1`` is
    the first part of the message in part 4).
    """
    part = root
    at_message = True
    for number in path:
        if not at_message and part.message is not None:
            part = part.message
            at_message = True
        if part.parts:
            if not 1 <= number <= len(part.parts):
                return None
            part = part.parts[number - 1]
        elif number != 1 or not at_message:
            return None
        at_message = False
    return part


def locate(root: Part, section: SectionLike) -> Span | None:
    """The octets of *section*; for HEADER.FIELDS the whole header, of which `filter_fields` takes its part. None: there
    is no such section in this message (IMAP answers NIL)."""
    path, what = section.path, section.what
    if not path:
        if what is None:
            return Span(root.start, root.end)
        if what == "MIME":
            return None
        return Span(root.body, root.end) if what == "TEXT" else Span(root.start, root.body)
    part = find_part(root, path)
    if part is None:
        return None
    if what is None:
        return Span(part.body, part.end)
    if what == "MIME":
        return Span(part.start, part.body)
    message = part.message
    if message is None:
        return None
    return Span(message.body, message.end) if what == "TEXT" else Span(message.start, message.body)
