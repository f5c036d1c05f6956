"""The directory behind `twisted.cred`: who a name is, whether a password is right, and which accounts may be used."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import LoginDenied, LoginFailed, UnauthorizedLogin
from twisted.cred.portal import IRealm
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import Logger
from zope.interface import Interface, implementer

from twisted_mail.auth.passwords import PasswordVerifier
from twisted_mail.services import Identity
from twisted_mail.storage.interfaces import AccountRecord, Directory
from twisted_mail.values import canonical_address, canonical_domain

__all__ = ["Checked", "DirectoryChecker", "FirstOf", "IIdentity", "MailRealm", "Names"]


class IIdentity(Interface):
    """The avatar that `MailRealm` gives: a `services.Identity`."""


class Names:
    """Login names: ``user@domain`` without regard to case, or a bare user of the default domain."""

    def __init__(self, default_domain: str = "") -> None:
        self._default = canonical_domain(default_domain) if default_domain else ""

    def canonical(self, name: str) -> str:
        """The address that *name* stands for. Raises: ValueError."""
        address = canonical_address(name.strip(" "))
        if "@" not in address and self._default:
            return f"{address}@{self._default}"
        return address

    def same(self, one: str, other: str) -> bool:
        """Whether two names are one user."""
        try:
            return self.canonical(one) == self.canonical(other)
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class Checked:
    """An avatar id that carries what its checker has read, so that the realm need not read it again."""

    record: AccountRecord


@implementer(ICredentialsChecker)
class DirectoryChecker:
    """Checks passwords against the directory; the avatar id is a `Checked`."""

    credentialInterfaces = (IUsernamePassword,)
    _log = Logger()

    def __init__(self, directory: Directory, verifier: PasswordVerifier, names: Names) -> None:
        self._directory = directory
        self._verifier = verifier
        self._names = names

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """A `Checked` (Any: the interface speaks of octets only) for credentials with octets ``username`` and ``password``.

        Fails with: UnauthorizedLogin, StorageError, TooBusy.
        """
        return Deferred.fromCoroutine(self._check(credentials.username, credentials.password))

    async def _check(self, username: bytes, password: bytes) -> Checked:
        record: AccountRecord | None = None
        try:
            record = await self._directory.account_by_address(self._names.canonical(username.decode()))
        except ValueError:
            pass
        name = record.address if record is not None else ""
        stored = record.credentials if record is not None else None
        verdict = await self._verifier.verify(name, password.decode("utf-8", "replace"), stored)
        if not verdict.right or record is None:
            raise UnauthorizedLogin
        if verdict.renew:
            await self._renew(record, password.decode())
        return Checked(record)

    async def _renew(self, record: AccountRecord, password: str) -> None:
        """Hash anew with today's parameters. What fails here is no reason to refuse a login."""
        try:
            made = await self._verifier.credentials_for(password)
            now = await self._directory.account(record.id)
            if now is not None and now.credentials == record.credentials:  # the password was not changed meanwhile
                await self._directory.set_account(dataclasses.replace(now, credentials=made))
                self._log.info("the password of {login} is stored anew", login=record.address)
        except CancelledError:
            raise
        except Exception as error:
            self._log.warn("the password of {login} is not stored anew: {error}", login=record.address, error=error)


@implementer(ICredentialsChecker)
class FirstOf:
    """Asks several checkers, one after the other, until one says yes."""

    credentialInterfaces = (IUsernamePassword,)
    _log = Logger()

    def __init__(self, checkers: Sequence[Any]) -> None:
        # each provides ICredentialsChecker; zope interfaces are no types, hence Any
        for checker in checkers:
            if IUsernamePassword not in checker.credentialInterfaces:
                raise ValueError(
                    f"{type(checker).__name__} does not check names and passwords, which is what is needed"
                )
        self._checkers = tuple(checkers)

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """Fails with UnauthorizedLogin when all said no; with another error when one of them could not tell."""
        return Deferred.fromCoroutine(self._ask(credentials))

    async def _ask(self, credentials: Any) -> Any:
        trouble: Exception | None = None
        for checker in self._checkers:
            try:
                return await maybeDeferred(checker.requestAvatarId, credentials)
            except LoginFailed:
                continue
            except CancelledError:
                raise
            except Exception as error:
                trouble = error
        raise trouble or UnauthorizedLogin()


@implementer(IRealm)
class MailRealm:
    """Turns what a checker says into an `Identity`."""

    _log = Logger()

    def __init__(self, directory: Directory, names: Names) -> None:
        self._directory = directory
        self._names = names

    def requestAvatar(
        self, avatarId: Any, mind: Any, *interfaces: Any
    ) -> Deferred[tuple[type[Interface], object, Callable[[], None]]]:
        """*avatarId*: a `Checked`, or a login name as octets or text (other checkers give that). Fails with LoginDenied
        where no account of that name may be used."""
        if IIdentity not in interfaces:
            raise NotImplementedError("only IIdentity")
        return Deferred.fromCoroutine(self._avatar(avatarId))

    async def _avatar(self, id: Any) -> tuple[type[Interface], object, Callable[[], None]]:
        if isinstance(id, Checked):
            record = id.record
        else:
            record = await self.find(id.decode("utf-8", "replace") if isinstance(id, bytes) else str(id))
        return IIdentity, await self.identity(record), lambda: None

    async def find(self, name: str) -> AccountRecord:
        """The account of that login name. Raises: LoginDenied, StorageError."""
        try:
            record = await self._directory.account_by_address(self._names.canonical(name))
        except ValueError:
            record = None
        if record is None:
            self._log.warn("a checker knows {login}, but there is no such account here", login=ascii(name))
            raise LoginDenied
        return record

    async def identity(self, record: AccountRecord) -> Identity:
        """Who the account of *record* is, if it may be used. Raises: LoginDenied, StorageError."""
        if not record.enabled:
            raise LoginDenied
        domain = await self._directory.domain(record.address.rpartition("@")[2])
        if domain is None or not domain.enabled:
            raise LoginDenied
        return Identity(record.id, record.address, record.quota_bytes)
