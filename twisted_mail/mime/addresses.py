"""Address fields by the grammar of RFC 5322 section 3.4, with the obsolete forms of section 4.4 and RFC 6532's UTF-8.

Recovery instead of refusal: whatever stands between two commas becomes something, so that a reader sees that there was
an address. Values are octets as they were sent (encoded words stay encoded, as ENVELOPE wants them), without quoting and
comments; `Mailbox.display` and `Mailbox.address` are for people.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

import msgspec

from twisted_mail.mime.words import decode_header

__all__ = ["Address", "Group", "Mailbox", "mailboxes_of", "parse_addresses"]

_MOST: Final = 20_000
"""Addresses kept of one field; a header is bounded, but ENVELOPE costs more octets than the field."""
_SHORT: Final = 200
"""Octets of a value that is remembered: filters and ENVELOPE want the same fields, and people write more than once."""


class Mailbox(msgspec.Struct, frozen=True):
    """One address."""

    name: bytes | None
    """The phrase without quoting, or where there is none the last comment, as was the habit before RFC 822."""
    adl: bytes | None
    """The obsolete source route, ``@a,@b``."""
    local: bytes
    """Without quoting; empty where nothing could be found."""
    host: bytes
    """The domain, comments and white space taken out, literals with their brackets; empty where it is missing."""

    @property
    def display(self) -> str:
        """The name decoded, or empty."""
        return decode_header(self.name) if self.name else ""

    @property
    def address(self) -> str:
        """``local@host``, the local part quoted where it must be."""
        local = self.local.decode("utf-8", "replace")
        if not _DOT_ATOM.fullmatch(local):
            local = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return f"{local}@{self.host.decode('utf-8', 'replace')}" if self.host else local


class Group(msgspec.Struct, frozen=True):
    """A named list of addresses, perhaps empty (``undisclosed-recipients:;``)."""

    name: bytes
    members: tuple[Mailbox, ...]

    @property
    def display(self) -> str:
        """The name decoded."""
        return decode_header(self.name)


Address = Mailbox | Group

_DOT_ATOM: Final = re.compile(r"[^\s\x00-\x20()<>\[\]:;@\\,.\"\x7f]+(?:\.[^\s\x00-\x20()<>\[\]:;@\\,.\"\x7f]+)*")

# The forms that nearly every address has: `Name <local@host>`, `"Name" <local@host>`, `local@host`.
_SIMPLE: Final = re.compile(
    rb"[\s,]*+(?:(?:\"([^\"\\\r\n]*+)\"[ \t]*+|([^\"\\<>@,;:()\[\]\r\n]*+))<([^\"\\<>@,;:()\[\]\s]++)@([^\"\\<>@,;:()\[\]\s]++)>"
    rb"|([^\"\\<>@,;:()\[\]\s]++)@([^\"\\<>@,;:()\[\]\s]++))\s*+(?:,|\Z)"
)
_TOKEN: Final = re.compile(
    rb"(?P<space>[\s\x00]++)|(?P<quoted>\"(?:[^\"\\]|\\.)*+(?:\"|\Z))|(?P<special>[<>@,;:.])"
    rb"|(?P<literal>\[[^\]\[<>,\s]*+\])|(?P<comment>\()|(?P<atom>[^\s\x00\"<>@,;:.()\[]++|[\[)])",
    re.DOTALL,
)
_COMMENT_PART: Final = re.compile(rb"[^()\\]++|\\.|[()]|\\", re.DOTALL)
_ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)
_SPACES: Final = re.compile(rb"[\s\x00]+")


def parse_addresses(raw: bytes) -> tuple[Address, ...]:
    """The addresses of a field's value (From, To, Reply-To…), in order. Never raises; an empty value gives none."""
    return _short_ones(raw) if len(raw) <= _SHORT else _parsed(raw)


@lru_cache(maxsize=4096)
def _short_ones(raw: bytes) -> tuple[Address, ...]:
    return _parsed(raw)


def _parsed(raw: bytes) -> tuple[Address, ...]:
    found: list[Address] = []
    at, length = 0, len(raw)
    match = _SIMPLE.match
    while at < length and len(found) < _MOST:
        simple = match(raw, at)
        if simple is None:
            found.extend(_Recovery(raw, at).addresses(_MOST - len(found)))
            break
        quoted, plain, local, host, bare_local, bare_host = simple.groups()
        if bare_local is not None:
            found.append(Mailbox(None, None, bare_local, bare_host))
        else:
            name = quoted if quoted is not None else _SPACES.sub(b" ", plain).strip()
            found.append(Mailbox(name or None, None, local, host))
        at = simple.end()
    return tuple(found)


def mailboxes_of(addresses: Iterable[Address]) -> Iterator[Mailbox]:
    """The mailboxes, those of groups too."""
    for address in addresses:
        if isinstance(address, Group):
            yield from address.members
        else:
            yield address


class _Recovery:
    """The whole grammar over a list of tokens; one address is what stands between two commas outside everything else."""

    def __init__(self, raw: bytes, at: int) -> None:
        self._tokens = list(_tokens(raw, at))

    def addresses(self, most: int) -> list[Address]:
        found: list[Address] = []
        group: tuple[bytes, list[Mailbox]] | None = None
        piece: list[tuple[str, bytes]] = []
        # Inside "<": 1 nothing yet, 2 a route, whose commas part nothing, 3 an address.
        angle = 0
        has_at = False
        count = 0

        def finish() -> None:
            nonlocal count
            mailbox = _mailbox(piece)
            piece.clear()
            if mailbox is not None and count < most:
                count += 1
                if group is None:
                    found.append(mailbox)
                else:
                    group[1].append(mailbox)

        for kind, text in self._tokens:
            if kind == "special":
                if text == b"<":
                    angle = 1
                elif text == b">":
                    angle = 0
                elif text == b"," and angle != 2:
                    angle, has_at = 0, False
                    finish()
                    continue
                elif text == b";" and not angle:
                    has_at = False
                    finish()
                    if group is not None:
                        found.append(Group(group[0], tuple(group[1])))
                        group = None
                    continue
                elif text == b":" and not angle and group is None and not has_at:
                    group = (_phrase(piece) or b"", [])
                    piece.clear()
                    continue
                elif text == b"@":
                    has_at = True
                    if angle == 1:
                        angle = 2
                if angle == 2 and text == b":":
                    angle = 3
            elif angle == 1 and kind not in ("space", "comment"):
                angle = 3
            piece.append((kind, text))
        finish()
        if group is not None:
            found.append(Group(group[0], tuple(group[1])))
        return found


def _tokens(raw: bytes, at: int) -> Iterator[tuple[str, bytes]]:
    length = len(raw)
    while at < length:
        match = _TOKEN.match(raw, at)
        if match is None:
            at += 1
            continue
        kind = match.lastgroup or ""
        if kind == "comment":
            text, at = _comment(raw, match.end())
            yield "comment", text
            continue
        at = match.end()
        text = match[0]
        if kind == "quoted":
            text = text[1:-1] if len(text) > 1 and text.endswith(b'"') else text[1:]
            if b"\\" in text:
                text = _ESCAPED.sub(rb"\1", text)
        yield kind, text


def _comment(raw: bytes, at: int) -> tuple[bytes, int]:
    """The text of a comment whose parenthesis has been read, and where it ends; one that never ends goes to the end."""
    depth, parts = 1, []
    for match in _COMMENT_PART.finditer(raw, at):
        text = match[0]
        at = match.end()
        if text == b"(":
            depth += 1
        elif text == b")":
            depth -= 1
            if not depth:
                break
        elif text.startswith(b"\\"):
            text = text[1:]
        parts.append(text)
    return _SPACES.sub(b" ", b"".join(parts)).strip(), at


def _phrase(piece: list[tuple[str, bytes]]) -> bytes | None:
    """Words and dots as one text: white space as one space, quoting gone, comments left out."""
    parts: list[bytes] = []
    for kind, text in piece:
        if kind == "space":
            if parts and parts[-1] != b" ":
                parts.append(b" ")
        elif kind != "comment" and (kind, text) not in (("special", b"<"), ("special", b">")):
            parts.append(text)
    joined = _SPACES.sub(b" ", b"".join(parts)).strip()
    return joined or None


def _last_comment(piece: list[tuple[str, bytes]]) -> bytes | None:
    for kind, text in reversed(piece):
        if kind == "comment" and text:
            return text
    return None


def _mailbox(piece: list[tuple[str, bytes]]) -> Mailbox | None:
    if all(kind in ("space", "comment") for kind, _ in piece):
        return None
    opening = ("special", b"<")
    if opening in piece:
        # The last bracket opens the address: an unquoted one may stand in the name.
        start = len(piece) - 1 - piece[::-1].index(opening)
        inside = piece[start + 1 :]
        closing = ("special", b">")
        rest: list[tuple[str, bytes]] = []
        if closing in inside:
            end = inside.index(closing)
            inside, rest = inside[:end], inside[end + 1 :]
        name = _phrase(piece[:start]) or _last_comment(piece[:start]) or _last_comment(inside) or _last_comment(rest)
        adl, inside = _route(inside)
        local, host = _local_and_host(inside)
        return Mailbox(name, adl, local, host)
    adl, piece = _route(piece)
    local, host = _local_and_host(piece)
    return Mailbox(_last_comment(piece), adl, local, host)


def _route(inside: list[tuple[str, bytes]]) -> tuple[bytes | None, list[tuple[str, bytes]]]:
    """The route and what follows it (RFC 5322 section 4.4 obs-route)."""
    words = [item for item in inside if item[0] not in ("space", "comment")]
    if not words or words[0] != ("special", b"@") or ("special", b":") not in inside:
        return None, inside
    end = inside.index(("special", b":"))
    route = b"".join([text for kind, text in inside[:end] if kind not in ("space", "comment")])
    return route.strip(b",") or None, inside[end + 1 :]


def _local_and_host(words: list[tuple[str, bytes]]) -> tuple[bytes, bytes]:
    """Split at the last ``@`` outside quotes; white space and comments around dots do not count."""
    places = [place for place, item in enumerate(words) if item == ("special", b"@")]
    if not places:
        return _word_text(words), b""
    last = places[-1]
    host = b"".join([text for kind, text in words[last + 1 :] if kind not in ("space", "comment") and text not in b"<>"])
    return _word_text(words[:last]), host


def _word_text(words: list[tuple[str, bytes]]) -> bytes:
    """A local part: words that white space parts (garbage, or a dot forgotten) keep one space between them."""
    parts: list[bytes] = []
    gap = False
    for kind, text in words:
        if kind in ("space", "comment") or text in (b"<", b">"):
            gap = bool(parts)
            continue
        if gap and text != b"." and parts[-1] != b".":
            parts.append(b" ")
        gap = False
        parts.append(text)
    return b"".join(parts)
