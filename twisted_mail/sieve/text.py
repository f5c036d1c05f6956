"""Strings of a script: constants, or templates with variables in them (RFC 5228 section 2.4.2.4, RFC 5229 section 3)."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING, Final

from twisted_mail.sieve.values import SieveError

if TYPE_CHECKING:
    from twisted_mail.sieve.running import Run

__all__ = ["VARIABLE_NAME", "Reader", "Text", "Texts", "constant", "decode_characters", "global_variable", "template"]

Reader = Callable[["Run"], str]
"""What gives the value of a piece of a string."""

VARIABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_REFERENCE: Final = re.compile(
    r"\$\{((?:[A-Za-z_][A-Za-z0-9_]*\.(?:(?:[A-Za-z_][A-Za-z0-9_]*|[0-9]+)\.)*)?)([A-Za-z_][A-Za-z0-9_]*|[0-9]+)\}"
)
"""Namespace with its dots, name."""

_ENCODED: Final = re.compile(
    r"\$\{(?:(hex):[ \t\r\n]*([0-9a-f]{1,2}(?:[ \t\r\n]+[0-9a-f]{1,2})*)"
    r"|(unicode):[ \t\r\n]*([0-9a-f]+(?:[ \t\r\n]+[0-9a-f]+)*))[ \t\r\n]*\}",
    re.IGNORECASE,
)


class Text:
    """One string: call it with the run. `constant` is its value where it is always the same."""

    __slots__ = ("_make", "constant")

    def __init__(self, constant: str | None, make: Callable[[Run], str] | None = None):
        self.constant = constant
        self._make = make

    def __call__(self, run: Run) -> str:
        if self._make is None:
            return self.constant or ""
        return self._make(run)


class Texts:
    """A list of strings."""

    __slots__ = ("constant", "texts")

    def __init__(self, texts: Sequence[Text]):
        self.texts = tuple(texts)
        values = tuple(text.constant for text in texts if text.constant is not None)
        self.constant: tuple[str, ...] | None = values if len(values) == len(self.texts) else None

    def __call__(self, run: Run) -> tuple[str, ...]:
        if self.constant is not None:
            return self.constant
        return tuple([text(run) for text in self.texts])


def constant(value: str) -> Text:
    """A string without variables."""
    return Text(value)


def decode_characters(value: str) -> str:
    """``${hex: 24 40}`` and ``${unicode: 20AC}`` become what they stand for (RFC 5228 section 2.4.2.4).

    Octets that are no UTF-8 become replacement characters; what is not well formed stays as it is.
    Raises: SieveError for a number that is no character.
    """
    if "${" not in value:
        return value
    # Octets of several ${hex:} in a row may make up one character: they pass through as surrogates.
    replaced = _ENCODED.sub(_decoded, value)
    if any("\udc80" <= character <= "\udcff" for character in replaced):
        replaced = replaced.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return replaced


def _decoded(found: re.Match[str]) -> str:
    if found[1]:
        return bytes.fromhex("".join(pair.zfill(2) for pair in found[2].split())).decode("utf-8", "surrogateescape")
    characters = []
    for digits in found[4].split():
        code = int(digits, 16) if len(digits.lstrip("0")) <= 6 else 0x110000
        if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            raise SieveError(f"{digits!r} is no Unicode character")
        characters.append(chr(code))
    return "".join(characters)


def template(value: str, namespaces: Callable[[str, str], Reader], shared: Container[str] = ()) -> Text:
    """A string with references in it; *namespaces* gives what reads ``${namespace.name}`` or raises SieveError.
    Variables among *shared* are global (RFC 6609 section 3.4.1).
    """
    pieces: list[str | Reader] = []
    last = 0
    for found in _REFERENCE.finditer(value):
        if found.start() > last:
            pieces.append(value[last : found.start()])
        last = found.end()
        namespace, name = found[1].rstrip("."), found[2].lower()
        if namespace:
            pieces.append(namespaces(namespace.lower(), name))
        elif name.isdigit():
            pieces.append(_matched(int(name[-9:])))
        elif name in shared:
            pieces.append(global_variable(name))
        else:
            pieces.append(_variable(name))
    if not pieces or (len(pieces) == 1 and isinstance(pieces[0], str)):
        return constant(value)
    if last < len(value):
        pieces.append(value[last:])
    if len(pieces) == 1:
        return Text(None, pieces[0])  # type: ignore[arg-type]  # the only piece is no string: see above
    return Text(None, _joined(tuple(pieces)))


def _variable(name: str) -> Reader:
    def read(run: Run) -> str:
        return run.locals.get(name, "")

    return read


def global_variable(name: str) -> Reader:
    """Reads ``${global.name}``."""

    def read(run: Run) -> str:
        return run.globals.get(name, "")

    return read


def _matched(number: int) -> Reader:
    def read(run: Run) -> str:
        values = run.values
        return values[number] if number < len(values) else ""

    return read


def _joined(pieces: tuple[str | Reader, ...]) -> Reader:
    def make(run: Run) -> str:
        made = []
        size = 0
        most = run.limits.memory_bytes
        for piece in pieces:
            part = piece if type(piece) is str else piece(run)  # type: ignore[operator]  # isinstance costs more
            size += len(part)
            if size > most:
                raise SieveError(f"a string would be longer than {most} characters")
            made.append(part)
        run.spend(len(pieces) + (size >> 8))
        return "".join(made)

    return make
