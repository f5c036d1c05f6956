"""FETCH items that were rendered when the message was stored, and lie in its row (RFC 9051 section 7.5.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted_mail.imap import printing
from twisted_mail.imap.fetch_items import Attribute, Body, FetchItem, Preview, item_name
from twisted_mail.mime import COMMON_FIELDS, filter_fields

__all__ = ["Render", "cell_item", "literal"]

Render = Callable[[bytes], bytes]
"""From the cell to name and value."""

RENDERED: Final = {
    Attribute.ENVELOPE: "envelope",
    Attribute.BODYSTRUCTURE: "structure",
    Attribute.BODY: "body",
}


def literal(octets: bytes, partial: tuple[int, int] | None = None) -> bytes:
    """A literal of *octets*, or of a part of them; the empty string where nothing is left."""
    if partial is not None:
        octets = octets[partial[0] : partial[0] + partial[1]]
    return b"{%d}\r\n%b" % (len(octets), octets) if octets else b'""'


def cell_item(item: FetchItem, *, utf8: bool) -> tuple[str, Render] | None:
    """The column that *item* is made from, and how; None if it needs the message's octets, or no row at all."""
    name = item_name(item)
    match item:
        case Attribute():
            column = RENDERED.get(item)
            if column is not None:
                return column, lambda cell: name + b" " + cell
            if item is Attribute.RFC822_HEADER:
                return "header", lambda cell: name + b" " + literal(cell)
        case Preview():
            return "preview", lambda cell: name + b" " + printing.string(cell, utf8=utf8)
        case Body(section, _, partial) if not section.path:
            match section.what:
                case "HEADER":
                    return "header", lambda cell: name + b" " + literal(cell, partial)
                case "HEADER.FIELDS":
                    fields = section.fields
                    common = all(field.lower() in COMMON_FIELDS for field in fields)
                    column = "common_header" if common else "header"
                    return column, lambda cell: name + b" " + literal(filter_fields(cell, fields), partial)
                case "HEADER.FIELDS.NOT":
                    fields = section.fields
                    return "header", lambda cell: name + b" " + literal(filter_fields(cell, fields, True), partial)
    return None
