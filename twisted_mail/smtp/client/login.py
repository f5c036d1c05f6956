"""Logging in, the client's side: SCRAM-SHA-256(-PLUS) (RFC 5802, RFC 7677), PLAIN (RFC 4616), LOGIN.

The best mechanism that both know is taken. PLAIN and LOGIN show the password to whoever reads along, so they are used
only where the caller says that nobody does.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import stringprep
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

__all__ = ["BadChallenge", "Exchange", "choose", "new_nonce"]

MAX_ITERATIONS: Final = 1_000_000
"""More than this is an attack on our time (RFC 7677 section 4 asks for 4096 at least)."""
MIN_ITERATIONS: Final = 4096


class BadChallenge(Exception):
    """What the server said makes no sense, or it is not the one that knows the password."""


class Exchange(Protocol):
    """One run of a mechanism."""

    name: str

    def initial(self) -> bytes:
        """The initial response (RFC 4954 section 4), or none: empty."""

    def respond(self, challenge: bytes) -> bytes:
        """Raises: BadChallenge."""

    def finish(self) -> None:
        """The server says that this is it. Raises: BadChallenge, if it has not shown that it knows the password."""


def new_nonce() -> str:
    """144 bits, printable, without a comma (RFC 5802 section 5.1)."""
    return secrets.token_urlsafe(18)


def choose(
    offered: Sequence[str],
    user: str,
    password: str,
    *,
    private: bool,
    bindings: Mapping[str, bytes] | None = None,
    nonce: Callable[[], str] = new_nonce,
) -> Exchange | None:
    """The best mechanism of those *offered*; None: there is none that may be used.

    *private*: nobody can read along. *bindings*: channel bindings of the TLS connection by type.
    """
    if "SCRAM-SHA-256-PLUS" in offered and bindings:
        kind = "tls-exporter" if "tls-exporter" in bindings else next(iter(bindings))
        return Scram(user, password, binding=(kind, bindings[kind]), nonce=nonce)
    if "SCRAM-SHA-256" in offered:
        return Scram(user, password, could_bind=bool(bindings), nonce=nonce)
    if private and "PLAIN" in offered:
        return Plain(user, password)
    if private and "LOGIN" in offered:
        return LoginMechanism(user, password)
    return None


def prepared(text: str) -> str:
    """SASLprep (RFC 4013) of a name or password; what it forbids is left to the server to refuse."""
    if text.isascii():
        return text
    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in text
        if not stringprep.in_table_b1(character)
    )
    return unicodedata.normalize("NFKC", mapped)


class Plain:
    """``[authzid] NUL authcid NUL passwd`` (RFC 4616 section 2)."""

    name = "PLAIN"

    def __init__(self, user: str, password: str) -> None:
        self._message = f"\0{user}\0{password}".encode()

    def initial(self) -> bytes:
        """See `Exchange`."""
        return self._message

    def respond(self, challenge: bytes) -> bytes:
        """See `Exchange`."""
        return self._message  # RFC 4954 section 4: a server that has not read the initial response asks for it

    def finish(self) -> None:
        """See `Exchange`."""


class LoginMechanism:
    """Asked for the name, then for the password, with whatever words."""

    name = "LOGIN"

    def __init__(self, user: str, password: str) -> None:
        self._answers = [user.encode(), password.encode()]

    def initial(self) -> bytes:
        """See `Exchange`."""
        return b""

    def respond(self, challenge: bytes) -> bytes:
        """See `Exchange`."""
        if not self._answers:
            raise BadChallenge("LOGIN asks for more than a name and a password")
        return self._answers.pop(0)

    def finish(self) -> None:
        """See `Exchange`."""


class Scram:
    """``n,,n=user,r=cnonce`` / ``r=cnonce+snonce,s=salt,i=iterations`` / ``c=biws,r=…,p=proof`` / ``v=signature``."""

    def __init__(
        self,
        user: str,
        password: str,
        *,
        binding: tuple[str, bytes] | None = None,
        could_bind: bool = False,
        nonce: Callable[[], str] = new_nonce,
    ) -> None:
        self.name = "SCRAM-SHA-256-PLUS" if binding else "SCRAM-SHA-256"
        self._password = prepared(password).encode()
        self._header = f"p={binding[0]},," if binding else "y,," if could_bind else "n,,"
        self._bound = binding[1] if binding else b""
        self._nonce = nonce()
        name = prepared(user).replace("=", "=3D").replace(",", "=2C")
        self._bare = f"n={name},r={self._nonce}"
        self._signature: bytes | None = None
        self._proved = False

    def initial(self) -> bytes:
        """See `Exchange`."""
        return (self._header + self._bare).encode()

    def respond(self, challenge: bytes) -> bytes:
        """See `Exchange`."""
        if self._signature is None:
            return self._prove(challenge) if challenge else self.initial()
        if not challenge.startswith(b"v=") or not hmac.compare_digest(_octets(challenge[2:].decode("latin-1")), self._signature):
            raise BadChallenge("the server does not know the password")
        self._proved = True
        return b""

    def finish(self) -> None:
        """See `Exchange`."""
        if not self._proved:
            raise BadChallenge("the server has not shown that it knows the password")

    def _prove(self, challenge: bytes) -> bytes:
        try:
            first = challenge.decode()
        except UnicodeDecodeError:
            raise BadChallenge("not UTF-8") from None
        parts = first.split(",")
        if len(parts) < 3 or [part[:2] for part in parts[:3]] != ["r=", "s=", "i="]:
            raise BadChallenge("not a SCRAM server-first-message")
        nonce, salt, count = parts[0][2:], _octets(parts[1][2:]), parts[2][2:]
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise BadChallenge("the server's nonce is not made of ours")
        if not (count.isascii() and count.isdigit() and len(count) < 8 and MIN_ITERATIONS <= int(count) <= MAX_ITERATIONS):
            raise BadChallenge("an unreasonable number of iterations")
        salted = hashlib.pbkdf2_hmac("sha256", self._password, salt, int(count))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        bound = base64.b64encode(self._header.encode() + self._bound).decode()
        without_proof = f"c={bound},r={nonce}"
        message = f"{self._bare},{first},{without_proof}".encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self._signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()


def _octets(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except ValueError:  # binascii.Error and UnicodeEncodeError are ones
        raise BadChallenge("not base64") from None
