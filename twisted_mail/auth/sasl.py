"""The SASL mechanisms that show the password: PLAIN (RFC 4616) and LOGIN (draft-murchison-sasl-login)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from twisted_mail.services import AuthenticationFailed, Challenge, Identity

__all__ = ["MAX_RESPONSE", "LoginExchange", "PasswordUsers", "PlainExchange"]

MAX_RESPONSE: Final = 4096
"""Octets of a client's response."""


class PasswordUsers(Protocol):
    """What an exchange asks about users."""

    def same(self, one: str, other: str) -> bool:
        """Whether two names are one user."""

    async def check(self, user: str, password: str) -> Identity:
        """Raises: AuthenticationFailed."""


def _text(response: bytes) -> str:
    if len(response) > MAX_RESPONSE:
        raise AuthenticationFailed("malformed", "the response is too long")
    try:
        return response.decode("utf-8")
    except UnicodeDecodeError:
        raise AuthenticationFailed("malformed", "not UTF-8") from None


class PlainExchange:
    """``message = [authzid] NUL authcid NUL passwd`` (RFC 4616 section 2). Nobody acts for another here."""

    def __init__(self, users: PasswordUsers) -> None:
        self._users = users
        self._over = False

    async def step(self, response: bytes | None) -> Challenge | Identity:
        """See `services.Exchange`."""
        if self._over:
            raise AuthenticationFailed("malformed", "the exchange is over")
        if response is None:
            return Challenge(b"")
        self._over = True
        parts = _text(response).split("\0")
        if len(parts) != 3 or not parts[1] or not parts[2]:
            raise AuthenticationFailed("malformed", "not a PLAIN message")
        authzid, user, password = parts
        if authzid and not self._users.same(authzid, user):
            raise AuthenticationFailed("credentials", "acting for another user is not possible")
        return await self._users.check(user, password)


class LoginExchange:
    """Asks for the name, then for the password. An initial response, which some clients send, is the name."""

    def __init__(self, users: PasswordUsers) -> None:
        self._users = users
        self._user = ""
        self._step: Callable[[bytes | None], Awaitable[Challenge | Identity]] = self._name

    async def step(self, response: bytes | None) -> Challenge | Identity:
        """See `services.Exchange`."""
        step, self._step = self._step, self._over
        return await step(response)

    async def _name(self, response: bytes | None) -> Challenge | Identity:
        if response is None:
            self._step = self._name
            return Challenge(b"Username:")
        self._user = _text(response)
        if not self._user or "\0" in self._user:
            raise AuthenticationFailed("malformed", "not a user name")
        self._step = self._password
        return Challenge(b"Password:")

    async def _password(self, response: bytes | None) -> Challenge | Identity:
        password = _text(response or b"")
        if not password or "\0" in password:
            raise AuthenticationFailed("malformed", "not a password")
        return await self._users.check(self._user, password)

    async def _over(self, response: bytes | None) -> Challenge | Identity:
        raise AuthenticationFailed("malformed", "the exchange is over")
