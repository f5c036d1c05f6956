"""Structured MIME fields: ``value; name=value`` with comments, quoting and RFC 2231's continuations and charsets."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from twisted_mail.mime.charsets import decode, decode_unlabelled
from twisted_mail.mime.words import decode_header

__all__ = ["Structured", "parse_content_type", "parse_structured", "strip_comments"]

RawParams = tuple[tuple[bytes, bytes], ...]
Params = tuple[tuple[str, str], ...]

_PARAMETER: Final = re.compile(rb';[\s;]*+([^\s=;"]++)\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)(?:"|\Z)|([^;]*+))[^;]*+', re.DOTALL)
_TYPE: Final = re.compile(rb"\s*([!#-'*+.0-9A-Z^-~-]+)\s*/\s*([!#-'*+.0-9A-Z^-~-]+)\s*(?=;|\s|\Z)")
_HEAD: Final = re.compile(rb"\s*([^\s;]*)")
_ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)
_SECTION: Final = re.compile(rb"([^*]+)\*(?:(\d{1,4})(\*?))?\Z")
_COMMENT_OR_STRING: Final = re.compile(rb'[()\\"]')
_MOST: Final = 500


class Structured(NamedTuple):
    """A value and its parameters."""

    value: str
    """Lower case, e.g. ``text/plain`` or ``attachment``; empty where there is none."""
    raw: RawParams
    """As BODYSTRUCTURE gives them: names in lower case, continuations put together (``name*`` if any part is extended:
    ``charset'language'percent-encoded``), nothing decoded."""
    params: Params
    """Decoded: RFC 2231, and encoded words where senders put them though they must not."""

    def get(self, name: str) -> str | None:
        """The decoded value of parameter *name* (lower case)."""
        for key, value in self.params:
            if key == name:
                return value
        return None


def strip_comments(raw: bytes) -> bytes:
    """*raw* without comments (RFC 5322 section 3.2.2), each replaced by a space; quoted strings stay as they are."""
    if b"(" not in raw:
        return raw
    kept: list[bytes] = []
    depth = at = i = 0
    quoted = False
    while (match := _COMMENT_OR_STRING.search(raw, i)) is not None:
        character = match[0]
        i = match.end()
        if character == b"\\":
            i += 1
        elif character == b'"':
            if not depth:
                quoted = not quoted
        elif quoted:
            continue
        elif character == b"(":
            if not depth:
                kept += (raw[at : match.start()], b" ")
            depth += 1
        elif depth:
            depth -= 1
            at = i
    if not depth:
        kept.append(raw[at:])
    return b"".join(kept)


def parse_content_type(raw: bytes) -> Structured | None:
    """A Content-Type value; None when it is malformed (RFC 2045 section 5.2: the default then applies)."""
    return _recent_type(raw) if len(raw) < 200 else _content_type(raw)


def _content_type(raw: bytes) -> Structured | None:
    raw = strip_comments(raw)
    match = _TYPE.match(raw)
    if match is None:
        return None
    return Structured((match[1] + b"/" + match[2]).decode("ascii").lower(), *_params(raw[match.end() :]))


_recent_type = lru_cache(maxsize=512)(_content_type)
"""The same few values come again and again: short ones are remembered."""


def parse_structured(raw: bytes) -> Structured:
    """Content-Disposition and its like: one word and parameters (RFC 2183)."""
    raw = strip_comments(raw)
    match = _HEAD.match(raw)
    head = match[1] if match else b""
    return Structured(head.strip(b'"').decode("latin-1").lower(), *_params(raw[match.end() if match else 0 :]))


def _params(raw: bytes) -> tuple[RawParams, Params]:
    if b"=" not in raw:
        return (), ()
    if not raw.lstrip().startswith(b";"):
        raw = b";" + raw
    found: list[tuple[bytes, bytes]] = []
    sections: dict[bytes, dict[int, tuple[bytes, bool]]] = {}
    for match in _PARAMETER.finditer(raw):
        name = match[1].lower()
        value = match[3].strip() if match[2] is None else match[2]
        if match[2] is not None and b"\\" in value:
            value = _ESCAPED.sub(rb"\1", value)
        if b"*" in name and (split := _SECTION.match(name)) is not None:
            name = split[1]
            number, extended = (0, True) if split[2] is None else (int(split[2]), bool(split[3]))
            pieces = sections.setdefault(name, {})
            if not pieces:
                found.append((name, b"*"))
            pieces.setdefault(number, (value, extended))
        else:
            found.append((name, value))
        if len(found) >= _MOST:
            break
    rendered = [(name, *_joined(sections[name])) if name in sections else (name, value, False) for name, value in found]
    taken: dict[bytes, None] = {}
    raws: list[tuple[bytes, bytes]] = []
    params: list[tuple[str, str]] = []
    for name, value, extended in sorted(rendered, key=_extended_first) if sections else rendered:
        if name in taken:
            continue
        taken[name] = None
        raws.append((name + b"*" if extended else name, value))
        params.append((name.decode("latin-1"), _extended_text(value) if extended else _plain_text(value)))
    return tuple(raws), tuple(params)


def _extended_first(item: tuple[bytes, bytes, bool]) -> bool:
    """``filename*`` is better than the ``filename`` beside it (RFC 6266 section 4.3 says so, mail does it)."""
    return not item[2]


def _joined(pieces: dict[int, tuple[bytes, bool]]) -> tuple[bytes, bool]:
    """Continuations in the order of their numbers, to the first gap (RFC 2231 section 3)."""
    count = 0
    while count in pieces:
        count += 1
    if not count:  # no section 0: take what there is
        ordered = [pieces[number] for number in sorted(pieces)]
    else:
        ordered = [pieces[number] for number in range(count)]
    if not any(extended for _, extended in ordered):
        return b"".join([value for value, _ in ordered]), False
    if not ordered[0][1]:
        return b"''" + b"".join([value if extended else _quote(value) for value, extended in ordered]), True
    return b"".join([value if extended else _quote(value) for value, extended in ordered]), True


def _quote(value: bytes) -> bytes:
    return value.replace(b"%", b"%25")


def _extended_text(value: bytes) -> str:
    parts = value.split(b"'", 2)
    if len(parts) < 3:
        return decode_unlabelled(unquote_to_bytes(value))
    return decode(unquote_to_bytes(parts[2]), parts[0].decode("latin-1") or None)


def _plain_text(value: bytes) -> str:
    if b"=?" in value:
        return decode_header(value)
    return value.decode("ascii") if value.isascii() else decode_unlabelled(value)
