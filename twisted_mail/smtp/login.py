"""The AUTH exchange (RFC 4954 section 4): base64 around the steps of a SASL mechanism (RFC 4422)."""

from __future__ import annotations

import binascii

from twisted_mail.services import (
    Authentication,
    AuthenticationFailed,
    Exchange,
    Identity,
    Peer,
    UnknownMechanism,
)
from twisted_mail.smtp.replies import Reply, authentication_failed
from twisted_mail.smtp.wire import LineFault

__all__ = ["Login"]

_NOT_BASE64 = Reply(501, "5.5.2", "Not base64")


def _decode(text: bytes) -> bytes | None:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        return None


class Login:
    """One AUTH command. Each step gives a 334, a final reply, or who it is."""

    def __init__(self, authentication: Authentication, peer: Peer) -> None:
        self._authentication = authentication
        self._peer = peer
        self._exchange: Exchange | None = None

    async def begin(self, mechanism: str, initial: str | None) -> Reply | Identity:
        """``AUTH mechanism [initial-response]``."""
        response: bytes | None = None
        if initial is not None:
            # section 4: "=" is an initial response of no octets
            response = b"" if initial == "=" else _decode(initial.encode())
            if response is None:
                return _NOT_BASE64
        try:
            self._exchange = self._authentication.begin(mechanism, self._peer)
        except UnknownMechanism:
            if not self._peer.secure and not self._authentication.cleartext_allowed(self._peer):
                return Reply(538, "5.7.11", "Encryption is needed for this")
            return Reply(504, "5.5.4", "No such authentication mechanism")
        except AuthenticationFailed as error:
            return authentication_failed(error)
        return await self._step(response)

    async def respond(self, line: bytes | LineFault) -> Reply | Identity:
        """The client's line after a 334."""
        if line is LineFault.TOO_LONG:
            return Reply(500, "5.5.6", "Authentication exchange line is too long")
        if isinstance(line, LineFault):
            return Reply(500, "5.5.2", "Lines must end with CR LF, and have neither alone")
        if line == b"*":
            return Reply(501, "5.7.0", "Authentication cancelled")
        response = _decode(line)
        if response is None:
            return _NOT_BASE64
        return await self._step(response)

    async def _step(self, response: bytes | None) -> Reply | Identity:
        if self._exchange is None:
            raise RuntimeError("no exchange has begun")
        try:
            result = await self._exchange.step(response)
        except AuthenticationFailed as error:
            return authentication_failed(error)
        if isinstance(result, Identity):
            return result
        return Reply(334, "", binascii.b2a_base64(result.data, newline=False).decode())
