"""The message as a script sees it: built from octets, everything looked at only when it is asked for, and once.

`Message` has the header and the tree of its parts; both it and `Entity` (one part) have a `Header`. Nothing here raises,
whatever the octets: what is no header has no fields, what lies beyond the bounds of `twisted_mail.mime` is seen coarsely.
A message does not change: editheader makes another one (`Message.edited`), which shares what stayed the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from twisted_mail.mime import (
    Limits,
    Mailbox,
    MessageParser,
    Part,
    UnknownEncoding,
    decode_header,
    decode_transfer,
    mailboxes_of,
    parse_addresses,
    unfold,
)
from twisted_mail.mime.charsets import decode, decode_unlabelled
from twisted_mail.mime.headers import split_fields
from twisted_mail.mime.texts import part_text
from twisted_mail.sieve.comparators import fold
from twisted_mail.sieve.editing import edit_header
from twisted_mail.sieve.values import Edit

__all__ = ["Address", "Entity", "Header", "Message"]

_HEADER_BYTES: Final = 1 << 20
_TEXT_BYTES: Final = 4 << 20
"""Of one part, as sent, that body tests and extracttext look at."""
_ALL_TEXT_BYTES: Final = 16 << 20
"""Of all parts that one body test looks at."""
_LIMITS: Final = Limits(text_bytes=0)
_MOST_NAMES: Final = 40
_BLANK: Final = re.compile(rb"\n\r?\n")
_FIELD_LINE: Final = re.compile(rb"[!-9;-~]++[ \t]*+:|[ \t]|>?From ")


class Address(NamedTuple):
    """An address of a structured field (RFC 5228 section 2.7.4)."""

    full: str
    """``local@domain``; what could not be read as an address, as it stands: only ``:all`` may match it."""
    local: str
    """Without quoting; empty where `valid` is false."""
    domain: str
    valid: bool
    """There are a local part and a domain."""


_PLAIN: Final = re.compile(
    r"(?:\A|,)\s*+(?:[^\"\\<>@,;:()\[\]]*+(<))?+(([^\"\\<>@,;:()\[\]\s]++)@([^\"\\<>@,;:()\[\]\s]++))(?(1)>)\s*+(?=,|\Z)"
)
"""``local@domain`` or ``Name <local@domain>``, nothing quoted: nearly all addresses. The address, and its two parts."""


_UNQUOTED: Final = re.compile(r"[^\"\\<>@,;:()\[\]\s]+")


def _plain_addresses(text: str) -> list[tuple[str, str, str, str]] | None:
    """What `_PLAIN` finds, where the field has nothing else."""
    found = _PLAIN.findall(text)
    return found if len(found) == text.count(",") + 1 else None


def _addresses(value: bytes) -> tuple[Address, ...]:
    """Those of one field, unfolded."""
    if value.isascii() and (plain := _plain_addresses(value.decode("ascii"))) is not None:
        return tuple([Address(full, local, domain, True) for _, full, local, domain in plain])
    return tuple([_address(mailbox) for mailbox in mailboxes_of(parse_addresses(value))])


def _address(mailbox: Mailbox) -> Address:
    local = mailbox.local.decode("utf-8", "replace")
    domain = mailbox.host.decode("utf-8", "replace")
    if local and domain:
        # Dots where they must not be need no quotes to be understood, and senders know of none.
        full = f"{local}@{domain}" if _UNQUOTED.fullmatch(local) else mailbox.address
        return Address(full, local, domain, True)
    return Address(f"{local}@{domain}" if domain else local, "", "", False)


def _text(value: bytes) -> str:
    """What a field's raw value says."""
    value = unfold(value)
    if value.isascii() and b"=?" not in value and (text := value.decode("ascii")).isprintable():
        return text
    return decode_header(value)


@lru_cache(maxsize=1024)
def _pattern(names: frozenset[str]) -> re.Pattern[str] | None:
    """Finds the fields of these names; None where that is no quicker than to read all."""
    if not names or len(names) > _MOST_NAMES:
        return None
    chosen = "|".join([re.escape(name) for name in sorted(names)])
    return re.compile("\n(" + chosen + r")[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)", re.IGNORECASE | re.ASCII)


_FOLD: Final = re.compile(r"\r?\n(?=[ \t])")


class Header:
    """The fields of one header block. Names are asked for in lower case; values stand in the order of the block."""

    __slots__ = ("_addresses", "_expected", "_fields", "_found_first", "_raw", "_values", "folds", "octets", "texts")

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        """The block as it stands, perhaps with its blank line."""
        self._fields: dict[bytes, list[bytes]] | None = None
        self._expected: frozenset[str] = frozenset()
        self._found_first: dict[str, list[str]] = {}
        """Raw values of the names that were expected, octets as characters of the same number."""
        self._raw: dict[str, tuple[bytes, ...]] = {}
        self._values: dict[str, tuple[str, ...]] = {}
        self.folds: dict[str, tuple[str, ...]] = {}
        """What `folded` knows already."""
        self.texts: dict[str, str] = {}
        """What `folded_text` knows already."""
        self._addresses: dict[str, tuple[tuple[Address, ...], ...]] = {}

    def expect(self, names: frozenset[str]) -> None:
        """Says which names will be asked for, if any. Others may be, too: then all of the header is read."""
        if self._expected or self._fields is not None or (pattern := _pattern(names)) is None:
            return
        self._expected = names
        fields = self._found_first
        # As characters: whether an octet is in octets takes five times as long to find out.
        for name, value in pattern.findall("\n" + self.octets.decode("latin-1")):
            name = name.lower()
            if name in fields:
                fields[name].append(value)
            else:
                fields[name] = [value]
        # What needs no decoding is made here, in one go; a call for each name would cost twice as much.
        values, folds, lines = self._values, self.folds, self.texts
        for name, found in fields.items():
            texts = []
            for value in found:
                if "\n" in value:
                    value = _FOLD.sub("", value)
                value = value.strip(" \t\r\n")
                if "=?" in value or not value.isascii() or not value.isprintable():
                    break
                texts.append(value)
            else:
                values[name] = tuple(texts)
                if len(texts) == 1:
                    lines[name] = text = texts[0].lower()
                    folds[name] = (text,)
                else:
                    folds[name] = tuple([text.lower() for text in texts])
        for name in names:
            if name not in fields:
                folds[name] = values[name] = ()
                lines[name] = ""

    def _found(self, name: str) -> Sequence[bytes]:
        if name in self._expected:
            return [value.encode("latin-1") for value in self._found_first.get(name, ())]
        fields = self._fields
        if fields is None:
            fields = self._fields = _gathered(split_fields(self.octets))
        # Names that are not ASCII are no names of fields; any encoding says so.
        return fields.get(name.encode("utf-8", "replace"), ())

    def exists(self, name: str) -> bool:
        """Whether there is such a field, an empty one too."""
        return bool(self._found(name))

    def raw(self, name: str) -> tuple[bytes, ...]:
        """The values, unfolded, without white space around them, encoded words as they are."""
        raw = self._raw.get(name)
        if raw is None:
            raw = self._raw[name] = tuple([unfold(value) for value in self._found(name)])
        return raw

    def values(self, name: str) -> tuple[str, ...]:
        """The values, unfolded, without white space around them, encoded words decoded (RFC 5228 section 2.7.2)."""
        values = self._values.get(name)
        if values is None:
            values = self._values[name] = tuple([_text(value) for value in self._found(name)])
        return values

    def folded(self, name: str) -> tuple[str, ...]:
        """`values` as ``i;ascii-casemap`` compares them."""
        folded = self.folds.get(name)
        if folded is None:
            folded = self.folds[name] = tuple([fold(value) for value in self.values(name)])
        return folded

    def folded_text(self, name: str) -> str:
        """`folded`, a line each, in which a part of a line is looked for; empty where there is no such field."""
        text = self.texts.get(name)
        if text is None:
            text = self.texts[name] = "\n".join(self.folded(name))
        return text

    def addresses(self, name: str) -> tuple[tuple[Address, ...], ...]:
        """The addresses of every field *name*, in order, those of groups too; names of groups are left out."""
        addresses = self._addresses.get(name)
        if addresses is None:
            addresses = self._addresses[name] = tuple([_addresses(unfold(value)) for value in self._found(name)])
        return addresses

    def folded_parts(self, name: str) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
        """Of all addresses of all fields *name* what may be compared, as ``i;ascii-casemap`` does: the whole, local parts,
        domains. What is no valid address has a whole alone."""
        first = self._found_first.get(name)
        if first is not None and len(first) == 1 and first[0].isascii():
            plain = _plain_addresses(_FOLD.sub("", first[0]).strip(" \t\r\n").lower())
            if plain:
                _, fulls, locals, domains = zip(*plain)
                return fulls, locals, domains
        addresses = [address for field in self.addresses(name) for address in field]
        valid = [address for address in addresses if address.valid]
        return (
            [fold(address.full) for address in addresses],
            [fold(address.local) for address in valid],
            [fold(address.domain) for address in valid],
        )

    def names(self) -> list[str]:
        """The names that occur, in lower case, each once, in the order of the block."""
        self._found("")  # which nobody expects
        return [name.decode("ascii") for name in self._fields or ()]


def _gathered(fields: list[tuple[bytes, bytes]]) -> dict[bytes, list[bytes]]:
    """Raw values by name in lower case."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        name = name.lower()
        if name in found:
            found[name].append(value)
        else:
            found[name] = [value]
    return found


class Entity:
    """One part of a message (RFC 2045 section 2.4), or the message itself, which is the root of its parts."""

    __slots__ = ("_all", "_children", "_content", "_header", "_text", "part")

    def __init__(self, octets: bytes, part: Part, header: Header | None = None) -> None:
        self._all = octets
        """Of the message. The message itself would make a circle, which only the garbage collector takes away."""
        self.part = part
        self._header = header
        self._children: tuple[Entity, ...] | None = None
        self._text: str | None = None
        self._content: str | None = None

    @property
    def header(self) -> Header:
        """Of this part alone. The root's is the message's, with what editheader did to it."""
        if self._header is None:
            start, end = self.part.start, self.part.body
            self._header = Header(self._all[start : min(end, start + _HEADER_BYTES)])
        return self._header

    @property
    def children(self) -> tuple[Entity, ...]:
        """Of a multipart its parts, of message/rfc822 the one message that it holds (as an entity of its own)."""
        if self._children is None:
            part = self.part
            inside = (part.message,) if part.message is not None else part.parts
            self._children = tuple([Entity(self._all, child) for child in inside])
        return self._children

    def walk(self) -> Iterator[Entity]:
        """This entity and all below it, each before what it holds, in the order of the message."""
        stack = [self]
        while stack:
            entity = stack.pop()
            yield entity
            stack.extend(reversed(entity.children))

    @property
    def octets(self) -> bytes:
        """The body as sent, at most some 4 MB."""
        part = self.part
        return self._all[part.body : min(part.end, part.body + _TEXT_BYTES)]

    @property
    def text(self) -> str:
        """Of a ``text/*`` part its text, of HTML what is visible, with CRLF as in multi-line strings of a script (RFC 5228
        section 2.4.2); of other leaves the decoded octets where these are UTF-8; else empty."""
        if self._text is None:
            part = self.part
            if part.type == "text":
                text = part_text(self.octets, part.subtype, part.encoding, part.param("charset"))
                self._text = text.replace("\n", "\r\n") if "\n" in text else text
            elif part.parts or part.message is not None:
                self._text = ""
            else:
                try:
                    self._text = decode_transfer(part.encoding, self.octets).decode("utf-8")
                except ValueError:  # no encoding that is known, or no text
                    self._text = ""
        return self._text

    @property
    def content(self) -> str:
        """The body without its transfer encoding, as text (RFC 5173 section 5.2: HTML keeps its tags); of what cannot be
        decoded the octets as they are."""
        if self._content is None:
            part, octets = self.part, self.octets
            try:
                octets = decode_transfer(part.encoding, octets)
            except UnknownEncoding:
                pass
            charset = part.param("charset") if part.type == "text" else None
            self._content = decode(octets, charset) if charset else decode_unlabelled(octets)
        return self._content

    def matching(self, content_type: str) -> bool:
        """Whether *content_type* (lower case) names this part's type: ``""``, ``type`` or ``type/subtype``
        (RFC 5173 section 5.2); with other slashes it names none."""
        if not content_type:
            return True
        part = self.part
        if "/" in content_type:
            return content_type == f"{part.type}/{part.subtype}"
        return content_type == part.type


class Message:
    """A message, whole, or its header alone (body and parts are then empty).

    *size* is what the size test sees, where it is not the number of octets; *root* the parts as `MessageParser` found
    them in these very octets, where that was done before: reading them costs most of what is done here.
    """

    __slots__ = ("_bodies", "_entity", "_header", "_root", "memo", "octets", "size")

    def __init__(self, octets: bytes, size: int | None = None, root: Part | None = None) -> None:
        self.octets = octets
        self.size = len(octets) if size is None else size
        self._root = root
        self._header: Header | None = None
        self._entity: Entity | None = None
        self._bodies: dict[tuple[str, ...] | str, tuple[str, ...]] = {}
        self.memo: dict[Any, Any] = {}
        """For whoever runs a script: what was made of this message and is good as long as it does not change."""

    @property
    def header(self) -> Header:
        """The message's own header, at most 1 MiB of it."""
        if self._header is None:
            end = self._root.body if self._root is not None else _header_end(self.octets)
            self._header = Header(self.octets[: min(end, _HEADER_BYTES)])
        return self._header

    @property
    def has_body(self) -> bool:
        """Whether a blank line stands behind the header; RFC 5173 section 4: without one no body test is true."""
        octets = self.octets
        start = self._root.body if self._root is not None else _header_end(octets)
        return start < len(octets) or octets.endswith((b"\n\n", b"\n\r\n")) or octets in (b"\n", b"\r\n")

    @property
    def entity(self) -> Entity:
        """The root of the parts."""
        if self._entity is None:
            root = self._root
            if root is None:
                parser = MessageParser(_LIMITS)
                parser.feed(self.octets)
                self._root = root = parser.close().root
            self._entity = Entity(self.octets, root, self.header)
        return self._entity

    def values(self, name: str) -> tuple[str, ...]:
        """Of the message's own header; see `Header.values`."""
        return self.header.values(name)

    def folded(self, name: str) -> tuple[str, ...]:
        """See `Header.folded`."""
        return self.header.folded(name)

    def addresses(self, name: str) -> tuple[tuple[Address, ...], ...]:
        """See `Header.addresses`."""
        return self.header.addresses(name)

    def edited(self, edit: Edit) -> Message:
        """The message after *edit* (RFC 5293); itself where that changes nothing."""
        octets = edit_header(self.header.octets, (edit,))
        if octets == self.header.octets:
            return self
        other = Message(self.octets, self.size, self._root)
        other._header = Header(octets)
        other._bodies = self._bodies
        return other

    # --- what the body test looks at (RFC 5173)

    def body_raw(self) -> str:
        """``:raw``: everything behind the header, undecoded (octets that are not UTF-8 as by windows-1252)."""
        found = self._bodies.get("raw")
        if found is None:
            start = self._root.body if self._root is not None else _header_end(self.octets)
            found = self._bodies["raw"] = (decode_unlabelled(self.octets[start : start + _ALL_TEXT_BYTES]),)
        return found[0]

    def body_text(self) -> str:
        """``:text``: the text of all ``text/*`` parts, of HTML what is visible."""
        found = self._bodies.get("text")
        if found is None:
            room = _ALL_TEXT_BYTES
            texts = []
            for entity in self.entity.walk():
                if entity.part.type == "text" and room > 0:
                    room -= entity.part.size
                    texts.append(entity.text)
            found = self._bodies["text"] = ("\r\n".join(texts),)
        return found[0]

    def body_content(self, types: Sequence[str]) -> tuple[str, ...]:
        """``:content``: of each part whose type is one of *types* (lower case) the decoded body; of a multipart prologue
        and epilogue, of a message/rfc822 the header of the message inside."""
        key = tuple(types)
        found = self._bodies.get(key)
        if found is None:
            room = _ALL_TEXT_BYTES
            texts: list[str] = []
            for entity in self.entity.walk():
                if room <= 0 or not any(entity.matching(wanted) for wanted in key):
                    continue
                part = entity.part
                if part.parts:
                    pieces = _around(self.octets, part)
                    texts += pieces
                    room -= sum(map(len, pieces))
                elif part.message is not None:
                    header = entity.children[0].header.octets
                    room -= len(header)
                    texts.append(decode_unlabelled(header))
                else:
                    room -= part.size
                    texts.append(entity.content)
            found = self._bodies[key] = tuple(texts)
        return found


def _header_end(octets: bytes) -> int:
    """Where the body begins, as `MessageParser` sees it: a first line that is no field means that there is no header."""
    if octets.startswith((b"\r\n", b"\n")):
        return octets.index(b"\n") + 1
    if _FIELD_LINE.match(octets) is None:
        return 0
    blank = _BLANK.search(octets)
    return len(octets) if blank is None else blank.end()


def _around(octets: bytes, part: Part) -> list[str]:
    """Prologue and epilogue of a multipart, without the delimiter lines."""
    first, last = part.parts[0], part.parts[-1]
    prologue = octets[part.body : min(first.start, part.body + _TEXT_BYTES)]
    line = prologue.rfind(b"\n--") if b"\n--" in prologue else 0 if prologue.startswith(b"--") else len(prologue)
    epilogue = octets[last.end : min(part.end, last.end + _TEXT_BYTES)]
    # The close-delimiter's line; nothing where the multipart was cut off.
    end = epilogue.find(b"\n", epilogue.find(b"--"))
    behind = epilogue[end + 1 :] if b"--" in epilogue and end >= 0 else b""
    return [decode_unlabelled(prologue[:line].removesuffix(b"\r")), decode_unlabelled(behind)]
