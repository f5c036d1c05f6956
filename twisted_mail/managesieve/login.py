"""The SASL exchange of AUTHENTICATE (RFC 5804 section 2.1)."""

from __future__ import annotations

import binascii

from twisted_mail.services import (
    Authentication,
    AuthenticationFailed,
    Challenge,
    Exchange,
    Identity,
    Peer,
    UnknownMechanism,
)

__all__ = ["SASLExchange"]


def _decode(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except ValueError:  # binascii.Error and UnicodeEncodeError are ones
        raise AuthenticationFailed("malformed", "that is not base64") from None


def _encode(data: bytes) -> bytes:
    return binascii.b2a_base64(data, newline=False)


class SASLExchange:
    """One AUTHENTICATE command. Each step gives the next challenge in base64, or who it is. Raises: AuthenticationFailed."""

    def __init__(self, authentication: Authentication, peer: Peer) -> None:
        self._authentication = authentication
        self._peer = peer
        self._exchange: Exchange | None = None
        self._scram = False
        self.last = b""
        """What the mechanism says last, with success, in base64 (the SASL response code)."""

    async def begin(self, mechanism: str, initial: str | None) -> bytes | Identity:
        """``AUTHENTICATE mechanism [initial-response]``; an empty string is an initial response of no octets."""
        response = None if initial is None else _decode(initial)
        try:
            self._exchange = self._authentication.begin(mechanism, self._peer)
        except UnknownMechanism:
            if mechanism in ("PLAIN", "LOGIN") and not self._authentication.cleartext_allowed(self._peer):
                raise AuthenticationFailed("privacy", "a password needs TLS here") from None
            raise AuthenticationFailed("malformed", "there is no such mechanism") from None
        self._scram = mechanism.startswith("SCRAM-")
        return await self._step(response)

    async def respond(self, response: str) -> bytes | Identity:
        """The client's string after a challenge; ``*`` gives up."""
        if response == "*":
            raise AuthenticationFailed("cancelled", "authentication cancelled")
        return await self._step(_decode(response))

    async def _step(self, response: bytes | None) -> bytes | Identity:
        if self._exchange is None:
            raise RuntimeError("no exchange has begun")
        result = await self._exchange.step(response)
        if self._scram and isinstance(result, Challenge) and result.data.startswith(b"v="):
            # server-final-message (RFC 5802 section 7): it goes with OK, which saves a round trip
            self.last = _encode(result.data)
            result = await self._exchange.step(b"")
        return result if isinstance(result, Identity) else _encode(result.data)
