"""Commands about who the client is (RFC 9051 section 6.2, RFC 4959, RFC 8437)."""

from __future__ import annotations

import re
from binascii import Error, a2b_base64
from dataclasses import dataclass, field
from typing import Final

from twisted_mail.imap.cursor import Cursor
from twisted_mail.imap.syntax import LOGGED_IN, NOT_LOGGED_IN, BadSyntax, Command, Syntax, Syntaxes

__all__ = ["COMMANDS", "Authenticate", "Login", "StartTls", "Unauthenticate", "decode_response"]

_BASE64: Final = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


@dataclass(frozen=True, slots=True)
class StartTls(Command):
    """STARTTLS (RFC 9051 section 6.2.1)."""


@dataclass(frozen=True, slots=True)
class Authenticate(Command):
    """AUTHENTICATE (RFC 9051 section 6.2.2): the mechanism in capitals; `initial` is the decoded initial response
    (RFC 4959), None where there is none."""

    mechanism: str
    initial: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Login(Command):
    """LOGIN (RFC 9051 section 6.2.3)."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Unauthenticate(Command):
    """UNAUTHENTICATE (RFC 8437 section 2)."""


def parse_starttls(args: Cursor) -> StartTls:
    """``"STARTTLS"`` (RFC 9051 section 6.2.1)."""
    args.end()
    return StartTls()


def decode_response(line: bytes) -> bytes | None:
    """A line of the SASL exchange, decoded; None for ``*``, the client's cancel (RFC 9051 section 6.2.2).

    Raises BadSyntax.
    """
    if line == b"*":
        return None
    if not _BASE64.fullmatch(line):
        raise BadSyntax("bad base64")
    try:
        return a2b_base64(line)
    except Error:
        raise BadSyntax("bad base64")


def parse_authenticate(args: Cursor) -> Authenticate:
    """``authenticate = "AUTHENTICATE" SP auth-type [SP initial-resp]``, ``initial-resp = base64 / "="``
    (RFC 9051 section 9, RFC 4959 section 7)."""
    mechanism = args.space().keyword().decode("ascii")
    if args.at_end():
        return Authenticate(mechanism)
    rest = args.space().text[args.at :]
    if rest == b"=":
        return Authenticate(mechanism, b"")
    initial = decode_response(rest)
    if not initial:
        raise BadSyntax("bad initial response")
    return Authenticate(mechanism, initial)


def parse_login(args: Cursor) -> Login:
    """``login = "LOGIN" SP userid SP password``, both ``astring`` (RFC 9051 section 9)."""
    user = args.space().text_string("the user name")
    password = args.space().text_string("the password")
    args.end()
    return Login(user, password)


def parse_unauthenticate(args: Cursor) -> Unauthenticate:
    """``unauthenticate = "UNAUTHENTICATE"`` (RFC 8437 section 5)."""
    args.end()
    return Unauthenticate()


COMMANDS: Syntaxes = {
    b"STARTTLS": Syntax(parse_starttls, NOT_LOGGED_IN),
    b"AUTHENTICATE": Syntax(parse_authenticate, NOT_LOGGED_IN),
    b"LOGIN": Syntax(parse_login, NOT_LOGGED_IN),
    b"UNAUTHENTICATE": Syntax(parse_unauthenticate, LOGGED_IN),
}
