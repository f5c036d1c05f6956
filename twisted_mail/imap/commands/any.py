"""Commands of every state, and those about the connection itself (RFC 9051 section 6.1, RFC 2971, RFC 4978)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from twisted_mail.imap.cursor import Cursor
from twisted_mail.imap.syntax import ANY, LOGGED_IN, BadSyntax, Command, State, Syntax, Syntaxes

__all__ = ["COMMANDS", "Capability", "Compress", "Enable", "Id", "Logout", "Noop"]

ID_PAIRS: Final = 30
ID_FIELD_OCTETS: Final = 30
ID_VALUE_OCTETS: Final = 1024


@dataclass(frozen=True, slots=True)
class Capability(Command):
    """CAPABILITY (RFC 9051 section 6.1.1)."""


@dataclass(frozen=True, slots=True)
class Noop(Command):
    """NOOP (RFC 9051 section 6.1.2)."""


@dataclass(frozen=True, slots=True)
class Logout(Command):
    """LOGOUT (RFC 9051 section 6.1.3)."""


@dataclass(frozen=True, slots=True)
class Id(Command):
    """ID (RFC 2971 section 3.1): what the client says of itself, None for ``NIL``."""

    fields: tuple[tuple[str, str | None], ...] | None


@dataclass(frozen=True, slots=True)
class Enable(Command):
    """ENABLE (RFC 5161 section 3.1): names of extensions in capitals."""

    capabilities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Compress(Command):
    """COMPRESS (RFC 4978 section 3): name of the algorithm in capitals."""

    algorithm: str


def parse_capability(args: Cursor) -> Capability:
    """``"CAPABILITY"`` (RFC 9051 section 6.1.1)."""
    args.end()
    return Capability()


def parse_noop(args: Cursor) -> Noop:
    """``"NOOP"`` (RFC 9051 section 6.1.2)."""
    args.end()
    return Noop()


def parse_logout(args: Cursor) -> Logout:
    """``"LOGOUT"`` (RFC 9051 section 6.1.3)."""
    args.end()
    return Logout()


def parse_id(args: Cursor) -> Id:
    """``id = "ID" SP id-params-list``, ``id-params-list = "(" [string SP nstring *(SP string SP nstring)] ")" / nil``
    (RFC 2971 section 4), with that section's limits."""
    args.space()
    if args.word(b"NIL"):
        args.end()
        return Id(None)

    def pair() -> tuple[str, str | None]:
        field = args.string()
        value = args.space().nstring()
        if len(field) > ID_FIELD_OCTETS or (value is not None and len(value) > ID_VALUE_OCTETS):
            raise BadSyntax("a field of ID is too long")
        return field.decode("utf-8", "replace"), None if value is None else value.decode("utf-8", "replace")

    fields = args.list_of(pair, empty=True)
    args.end()
    if len(fields) > ID_PAIRS:
        raise BadSyntax("too many fields in ID")
    return Id(tuple(fields))


def parse_enable(args: Cursor) -> Enable:
    """``enable = "ENABLE" 1*(SP capability)`` (RFC 5161 section 4)."""
    names = [args.space().keyword().decode("ascii")]
    while not args.at_end():
        names.append(args.space().keyword().decode("ascii"))
    return Enable(tuple(dict.fromkeys(names)))


def parse_compress(args: Cursor) -> Compress:
    """``compress = "COMPRESS" SP algorithm`` (RFC 4978 section 5)."""
    algorithm = args.space().keyword().decode("ascii")
    args.end()
    return Compress(algorithm)


COMMANDS: Syntaxes = {
    b"CAPABILITY": Syntax(parse_capability, ANY),
    b"NOOP": Syntax(parse_noop, ANY),
    b"LOGOUT": Syntax(parse_logout, ANY),
    b"ID": Syntax(parse_id, ANY),
    # Only before a mailbox is selected (RFC 9051 section 6.3.1).
    b"ENABLE": Syntax(parse_enable, frozenset((State.AUTHENTICATED,))),
    b"COMPRESS": Syntax(parse_compress, LOGGED_IN),
}
