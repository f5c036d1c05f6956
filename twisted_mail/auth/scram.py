"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, the server's side (RFC 5802, RFC 7677), as a `services.Exchange`.

    C: n,,n=user,r=cnonce                                      client-first-message
    S: r=cnonce+snonce,s=salt,i=iterations                     server-first-message
    C: c=biws,r=cnonce+snonce,p=proof                          client-final-message
    S: v=signature                                             server-final-message
    C: (nothing)                                               RFC 4422 section 3.6

A user who does not exist is led on with a salt that is always the same for that name, and refused with the proof.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from twisted_mail.auth.passwords import ScramKeys
from twisted_mail.services import AuthenticationFailed, Challenge, Identity

__all__ = ["MAX_MESSAGE", "ClientFinal", "ClientFirst", "ScramExchange", "ScramUsers", "new_nonce"]

MAX_MESSAGE: Final = 4096
"""Octets of a client's message."""
_PRINTABLE: Final = re.compile(r"[\x21-\x2b\x2d-\x7e]+")
_GS2: Final = re.compile(r"(?P<flag>n|y|p=(?P<binding>[A-Za-z0-9.-]+)),(?:a=(?P<authzid>[^,\0]+))?,")
_EXTENSION: Final = re.compile(r"[A-Za-z]=[^\0,]+")


class ScramUsers(Protocol):
    """What an exchange asks about users."""

    def same(self, one: str, other: str) -> bool:
        """Whether two names are one user."""

    async def keys(self, user: str) -> ScramKeys:
        """The keys of *user*, or plausible ones that no password has. Raises: AuthenticationFailed (throttled, …)."""

    async def proved(self, user: str) -> Identity:
        """*user* has shown to know the password. Raises: AuthenticationFailed (the account may not be used)."""

    async def disproved(self, user: str) -> AuthenticationFailed:
        """*user* has not: count it, wait, and say how it is refused."""


def new_nonce() -> str:
    """144 bits, printable, without a comma (RFC 5802 section 5.1)."""
    return secrets.token_urlsafe(18)


def _malformed(text: str) -> AuthenticationFailed:
    return AuthenticationFailed("malformed", text)


def _text(message: bytes) -> str:
    if len(message) > MAX_MESSAGE:
        raise _malformed("the message is too long")
    try:
        return message.decode("utf-8")
    except UnicodeDecodeError:
        raise _malformed("not UTF-8") from None


def _name(escaped: str) -> str:
    """A ``saslname`` (RFC 5802 section 5.1): ``=2C`` is a comma, ``=3D`` an equals sign, and no other ``=`` may be."""
    if not escaped or "\0" in escaped or re.search("=(?!2C|3D)", escaped):
        raise _malformed("invalid user name encoding")
    return escaped.replace("=2C", ",").replace("=3D", "=")


def _octets(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except ValueError:  # binascii.Error and UnicodeEncodeError are ones
        raise _malformed("not base64") from None


@dataclass(frozen=True, slots=True)
class ClientFirst:
    """``client-first-message = gs2-header client-first-message-bare`` (RFC 5802 section 7)."""

    header: str
    """The gs2-header as it came."""
    flag: str
    """``n``: no channel binding; ``y``: the client could, but saw no -PLUS offered; ``p``: it binds."""
    binding: str
    """The type of the binding, with ``p``."""
    authzid: str
    user: str
    nonce: str
    bare: str

    @classmethod
    def parse(cls, message: bytes) -> ClientFirst:
        """Raises: AuthenticationFailed (malformed)."""
        text = _text(message)
        header = _GS2.match(text)
        if header is None:
            raise _malformed("not a SCRAM client-first-message")
        bare = text[header.end() :]
        parts = bare.split(",")
        if parts[0].startswith("m="):
            raise _malformed("mandatory extensions are not supported")
        if len(parts) < 2 or not parts[0].startswith("n=") or not parts[1].startswith("r="):
            raise _malformed("not a SCRAM client-first-message")
        if not _PRINTABLE.fullmatch(parts[1][2:]) or not all(_EXTENSION.fullmatch(part) for part in parts[2:]):
            raise _malformed("not a SCRAM client-first-message")
        return cls(
            header[0],
            header["flag"][0],
            header["binding"] or "",
            _name(header["authzid"]) if header["authzid"] else "",
            _name(parts[0][2:]),
            parts[1][2:],
            bare,
        )


@dataclass(frozen=True, slots=True)
class ClientFinal:
    """``client-final-message = channel-binding "," nonce ["," extensions] "," proof`` (RFC 5802 section 7)."""

    binding: bytes
    nonce: str
    proof: bytes
    without_proof: str

    @classmethod
    def parse(cls, message: bytes) -> ClientFinal:
        """Raises: AuthenticationFailed (malformed)."""
        without, comma, proof = _text(message).rpartition(",p=")
        parts = without.split(",")
        if not comma or len(parts) < 2 or not parts[0].startswith("c=") or not parts[1].startswith("r="):
            raise _malformed("not a SCRAM client-final-message")
        if not all(_EXTENSION.fullmatch(part) for part in parts[2:]):
            raise _malformed("not a SCRAM client-final-message")
        return cls(_octets(parts[0][2:]), parts[1][2:], _octets(proof), without)


class ScramExchange:
    """One run. *plus*: the mechanism is SCRAM-SHA-256-PLUS. *plus_offered*: the client has been told of it, so that
    a client that saw none was lied to."""

    def __init__(
        self,
        users: ScramUsers,
        *,
        plus: bool = False,
        plus_offered: bool = False,
        bindings: Mapping[str, bytes] | None = None,
        nonce: Callable[[], str] = new_nonce,
    ) -> None:
        self._users = users
        self._plus = plus
        self._plus_offered = plus_offered
        self._bindings = dict(bindings or {})
        self._nonce = nonce
        self._step = self._first
        self._client: ClientFirst | None = None
        self._server_first = ""
        self._keys: ScramKeys | None = None

    async def step(self, response: bytes | None) -> Challenge | Identity:
        """See `services.Exchange`."""
        step, self._step = self._step, self._over
        return await step(response)

    async def _over(self, response: bytes | None) -> Challenge | Identity:
        raise _malformed("the exchange is over")

    async def _first(self, response: bytes | None) -> Challenge | Identity:
        if response is None:
            self._step = self._first
            return Challenge(b"")
        client = ClientFirst.parse(response)
        self._check_binding_flag(client)
        if client.authzid and not self._users.same(client.authzid, client.user):
            raise AuthenticationFailed("credentials", "acting for another user is not possible")
        self._client = client
        self._keys = keys = await self._users.keys(client.user)
        salt = base64.b64encode(keys.salt).decode()
        self._server_first = f"r={client.nonce}{self._nonce()},s={salt},i={keys.iterations}"
        self._step = self._final
        return Challenge(self._server_first.encode())

    def _check_binding_flag(self, client: ClientFirst) -> None:
        """RFC 5802 section 6."""
        if self._plus:
            if client.flag != "p":
                raise _malformed("SCRAM-SHA-256-PLUS needs channel binding")
            if client.binding not in self._bindings:
                raise _malformed("unsupported channel binding type")
        elif client.flag == "p":
            raise _malformed("channel binding needs SCRAM-SHA-256-PLUS")
        elif client.flag == "y" and self._plus_offered:
            raise AuthenticationFailed("credentials", "the server does support channel binding: somebody is in between")

    async def _final(self, response: bytes | None) -> Challenge | Identity:
        client, keys = self._client, self._keys
        if client is None or keys is None:
            raise RuntimeError("the first message comes first")
        final = ClientFinal.parse(response or b"")
        bound = client.header.encode() + (self._bindings[client.binding] if self._plus else b"")
        nonce = self._server_first.partition(",")[0][2:]
        message = f"{client.bare},{self._server_first},{final.without_proof}".encode()
        # everything is worked out before anything is compared: each failure takes the same time
        signature = hmac.digest(keys.stored_key, message, "sha256")
        claimed = bytes(a ^ b for a, b in zip(final.proof, signature, strict=False))
        right = hmac.compare_digest(hashlib.sha256(claimed).digest(), keys.stored_key) and len(final.proof) == 32
        if not (right and hmac.compare_digest(final.binding, bound) and final.nonce == nonce):
            raise await self._users.disproved(client.user)
        self._step = self._last
        return Challenge(b"v=" + base64.b64encode(hmac.digest(keys.server_key, message, "sha256")))

    async def _last(self, response: bytes | None) -> Challenge | Identity:
        if response or self._client is None:
            raise _malformed("nothing was asked")
        return await self._users.proved(self._client.user)
