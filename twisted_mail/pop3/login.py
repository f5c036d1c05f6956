"""The SASL exchange of AUTH (RFC 5034 section 4), and when a user was here last (LOGIN-DELAY)."""

from __future__ import annotations

import binascii
from collections import OrderedDict
from collections.abc import Callable

from twisted_mail.services import Authentication, AuthenticationFailed, Exchange, Identity, Peer, UnknownMechanism
from twisted_mail.values import AccountId

__all__ = ["LastLogins", "SASLExchange"]


def _decode(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except ValueError:  # binascii.Error and UnicodeEncodeError are ones
        raise AuthenticationFailed("malformed", "that is not base64") from None


class SASLExchange:
    """One AUTH command. Each step gives a line for the client, or who it is. Raises: AuthenticationFailed."""

    def __init__(self, authentication: Authentication, peer: Peer) -> None:
        self._authentication = authentication
        self._peer = peer
        self._exchange: Exchange | None = None

    async def begin(self, mechanism: str, initial: str | None) -> bytes | Identity:
        """``AUTH mechanism [initial-response]``; ``=`` is an initial response of no octets."""
        response = None if initial is None else b"" if initial == "=" else _decode(initial)
        try:
            self._exchange = self._authentication.begin(mechanism, self._peer)
        except UnknownMechanism:
            if mechanism in ("PLAIN", "LOGIN") and not self._authentication.cleartext_allowed(self._peer):
                raise AuthenticationFailed("privacy", "a password needs TLS here") from None
            raise AuthenticationFailed("malformed", "there is no such mechanism") from None
        return await self._step(response)

    async def respond(self, line: bytes) -> bytes | Identity:
        """The client's line after a challenge; ``*`` gives up."""
        if line == b"*":
            raise AuthenticationFailed("cancelled", "authentication cancelled")
        return await self._step(_decode(line.decode("ascii", "replace")))

    async def _step(self, response: bytes | None) -> bytes | Identity:
        if self._exchange is None:
            raise RuntimeError("no exchange has begun")
        result = await self._exchange.step(response)
        if isinstance(result, Identity):
            return result
        return b"+ " + binascii.b2a_base64(result.data, newline=False) + b"\r\n"


class LastLogins:
    """When each account was logged into last, for as long as that matters. One for all connections of a listener."""

    def __init__(self, delay_seconds: float, now: Callable[[], float]) -> None:
        self._delay = delay_seconds
        self._now = now
        self._last: OrderedDict[AccountId, float] = OrderedDict()

    def too_soon(self, account: AccountId) -> bool:
        """Whether *account* has to wait."""
        if not self._delay:
            return False
        now = self._now()
        while self._last and next(iter(self._last.values())) + self._delay <= now:
            self._last.popitem(last=False)
        return account in self._last

    def note(self, account: AccountId) -> None:
        """*account* has been logged into."""
        if self._delay:
            self._last[account] = self._now()
            self._last.move_to_end(account)
