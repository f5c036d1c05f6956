"""The rules about logging in: which mechanisms whom, when a password may be shown, who is throttled, who may send as whom.

Every failure is one log line with the event ``auth.failed``, made for fail2ban:

    auth.failed: address=192.0.2.7 service=imap reason=credentials login='ann@example.org'

    failregex = auth\\.failed: address=<ADDR> service=\\S+ reason=(credentials|throttled)

What a peer can write stands last and is escaped. A password is never in it.
"""

from __future__ import annotations

import dataclasses
import hmac
import ipaddress
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import LoginDenied, LoginFailed
from twisted.cred.portal import Portal
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from twisted_mail.auth.passwords import PasswordVerifier, ScramKeys, TooBusy, stored_scram
from twisted_mail.auth.realm import DirectoryChecker, FirstOf, IIdentity, MailRealm, Names
from twisted_mail.auth.sasl import LoginExchange, PlainExchange
from twisted_mail.auth.scram import ScramExchange
from twisted_mail.auth.throttle import Throttle, plain_address
from twisted_mail.services import AuthenticationFailed, Exchange, Identity, Peer, UnknownMechanism
from twisted_mail.storage.interfaces import AccountRecord, Cache, Directory, NotFound, StorageError
from twisted_mail.values import AccountId, canonical_address

__all__ = ["LOCAL_NETWORKS", "AuthenticationService", "load_secret", "set_password"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LOCAL_NETWORKS: Final[tuple[Network, ...]] = (
    ipaddress.IPv4Network("127.0.0.0/8"),
    ipaddress.IPv6Network("::1/128"),
)
_LONGEST_LOGIN: Final = 320
"""Characters of an address (RFC 3696 erratum 1690: 254; 64 + 1 + 255 by the grammar)."""


def load_secret(path: Path) -> bytes:
    """The 32 octets in *path*, made at the first call (mode 0600). Nodes that share users should share this file.

    From it comes the salt that a SCRAM client sees for a user who does not exist: were it another after each start,
    asking twice would tell. Raises: OSError.
    """
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(os.urandom(32))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(fresh, path)
    except FileExistsError:
        pass  # another process was first
    finally:
        fresh.unlink()
    return path.read_bytes()


async def set_password(directory: Directory, verifier: PasswordVerifier, account: AccountId, password: str) -> None:
    """Give *account* the password. Raises: ValueError (not a password), NotFound and other StorageErrors."""
    made = await verifier.credentials_for(password)
    record = await directory.account(account)
    if record is None:
        raise NotFound("no such account")
    await directory.set_account(dataclasses.replace(record, credentials=made))


class AuthenticationService:
    """Implements `services.Authentication`."""

    _log = Logger()

    def __init__(
        self,
        directory: Directory,
        cache: Cache,
        verifier: PasswordVerifier,
        clock: IReactorTime,
        *,
        checkers: Sequence[Any] = (),
        allow_cleartext: Iterable[Network] = LOCAL_NETWORKS,
        failures_per_minute: int = 10,
        failure_seconds: float = 1.0,
        default_domain: str = "",
        subaddress: str = "+",
        secret: bytes | None = None,
    ) -> None:
        """*checkers*: ICredentialsCheckers for IUsernamePassword (strcred's ``--auth``), asked after the directory; SCRAM
        is not offered then, since they have no keys for it. An account must exist in the directory all the same.
        *failures_per_minute*: 0 is no limit. *failure_seconds*: how long each refusal takes. *default_domain*: of a
        login without ``@``. *secret*: see `load_secret`. Raises: ValueError for a checker that cannot be used.
        """
        self._directory = directory
        self._verifier = verifier
        self._clock = clock
        self._names = Names(default_domain)
        self._realm = MailRealm(directory, self._names)
        own = DirectoryChecker(directory, verifier, self._names)
        self.portal = Portal(self._realm, [FirstOf([own, *checkers])])
        self._scram = bool(verifier.parameters.scram_iterations) and not checkers
        self._allowed = tuple(allow_cleartext)
        self._throttle = Throttle(cache, failures_per_minute)
        self._failure_seconds = failure_seconds
        self._subaddress = subaddress
        self._secret = secret or os.urandom(32)

    # --- what may be used

    def mechanisms(self, peer: Peer) -> Sequence[str]:
        """See `services.Authentication`."""
        names = []
        if self._scram:
            if self._plus(peer):
                names.append("SCRAM-SHA-256-PLUS")
            names.append("SCRAM-SHA-256")
        if self.cleartext_allowed(peer):
            names += ["PLAIN", "LOGIN"]
        return names

    def _plus(self, peer: Peer) -> bool:
        return self._scram and peer.secure and bool(peer.channel_bindings)

    def cleartext_allowed(self, peer: Peer) -> bool:
        """See `services.Authentication`. A UNIX socket's peer may always."""
        if peer.secure or not peer.address:
            return True
        address = plain_address(peer.address)
        return address is not None and any(
            address in network for network in self._allowed if network.version == address.version
        )

    def begin(self, mechanism: str, peer: Peer) -> Exchange:
        """See `services.Authentication`."""
        name = mechanism.upper()
        if name not in self.mechanisms(peer):
            raise UnknownMechanism(mechanism)
        users = _Users(self, peer)
        if name == "PLAIN":
            return PlainExchange(users)
        if name == "LOGIN":
            return LoginExchange(users)
        return ScramExchange(
            users,
            plus=name.endswith("-PLUS"),
            plus_offered=self._plus(peer),
            bindings=peer.channel_bindings,
        )

    # --- names and passwords

    async def login(self, user: str, password: str, peer: Peer) -> Identity:
        """See `services.Authentication`."""
        if not self.cleartext_allowed(peer):
            raise AuthenticationFailed("privacy", "a password needs TLS here")
        login = self._canonical(user)
        await self._admit(login, peer)
        credentials = UsernamePassword(user.encode("utf-8", "replace"), password.encode("utf-8", "replace"))
        try:
            _, identity, _ = await self.portal.login(credentials, None, IIdentity)
        except LoginFailed as error:
            raise await self._failed(login, peer, isinstance(error, LoginDenied)) from None
        except (StorageError, TooBusy):
            raise self._unavailable(login, peer) from None
        await self._throttle.succeeded(peer.address, login)
        if not isinstance(identity, Identity):
            raise TypeError("the realm gives an Identity")
        return identity

    async def vouched(self, login: str, peer: Peer) -> Identity:
        """See `services.Vouching`: the password was checked by a server of ours in front."""
        try:
            return await self._realm.identity(await self._realm.find(login))
        except LoginDenied:
            self._note("credentials", self._canonical(login), peer)
            raise AuthenticationFailed from None
        except StorageError:
            raise self._unavailable(self._canonical(login), peer) from None

    async def identity_of(self, login: str) -> Identity | None:
        """Who the account *login* is, for whom nobody has to prove it; None: there is none that may be used.
        Raises: StorageError."""
        try:
            record = await self._directory.account_by_address(self._canonical(login))
            return None if record is None else await self._realm.identity(record)
        except LoginDenied:
            return None

    def _canonical(self, user: str) -> str:
        """For counting and for the log: whatever was given has some form."""
        try:
            return self._names.canonical(user)[:_LONGEST_LOGIN]
        except ValueError:
            return user[:_LONGEST_LOGIN]

    async def _admit(self, login: str, peer: Peer) -> None:
        if await self._throttle.refuses(peer.address, login):
            self._note("throttled", login, peer)
            await self._pause()
            raise AuthenticationFailed("throttled", "too many failed logins, try again in a minute", temporary=True)

    async def _failed(self, login: str, peer: Peer, denied: bool = False) -> AuthenticationFailed:
        """A wrong password is counted; a right one for an account that may not be used is not."""
        self._note("disabled" if denied else "credentials", login, peer)
        if not denied:
            await self._throttle.failed(peer.address, login)
        await self._pause()
        if denied:
            return AuthenticationFailed("disabled", "this account is disabled")
        return AuthenticationFailed()

    def _unavailable(self, login: str, peer: Peer) -> AuthenticationFailed:
        self._note("unavailable", login, peer)
        return AuthenticationFailed("unavailable", "logging in is not possible at the moment", temporary=True)

    def _note(self, reason: str, login: str, peer: Peer) -> None:
        self._log.warn(
            "{event}: address={address} service={service} reason={reason} login={login}",
            event="auth.failed",
            address=peer.address or "local",
            service=peer.service or "-",
            reason=reason,
            login=ascii(login),
        )

    async def _pause(self) -> None:
        if self._failure_seconds > 0:
            await deferLater(self._clock, self._failure_seconds)

    # --- SCRAM

    async def _keys(self, user: str, peer: Peer) -> tuple[ScramKeys, AccountRecord | None]:
        """The keys that *user* has to know, and whose they are; None: nobody's, and no proof fits them."""
        login = self._canonical(user)
        await self._admit(login, peer)
        try:
            record = await self._directory.account_by_address(login) if "@" in login else None
        except StorageError:
            raise self._unavailable(login, peer) from None
        found = stored_scram(record.credentials) if record is not None else None
        return (found, record) if found is not None else (self._keys_of_nobody(login), None)

    def _keys_of_nobody(self, login: str) -> ScramKeys:
        """What a user who does not exist would have; no proof fits it."""
        name = login.encode("utf-8", "surrogatepass")
        salt = hmac.digest(self._secret, b"salt\0" + name, "sha256")[:16]
        return ScramKeys(self._verifier.parameters.scram_iterations, salt, os.urandom(32), os.urandom(32))

    async def _proved(self, user: str, record: AccountRecord | None, peer: Peer) -> Identity:
        """*record*: whose keys it was that *user* has proved to know."""
        login = self._canonical(user)
        try:
            if record is None:
                raise LoginDenied
            identity = await self._realm.identity(record)
        except LoginDenied:
            raise await self._failed(login, peer, denied=True) from None
        except StorageError:
            raise self._unavailable(login, peer) from None
        await self._throttle.succeeded(peer.address, login)
        return identity

    # --- sending

    async def may_send_as(self, identity: Identity, address: str) -> bool:
        """See `services.Authentication`: the null path, the account's own address, an alias that names the account
        itself among its targets, a sub-address of either, and any free address of a domain whose catch-all does.
        Raises: StorageError.
        """
        if not address:
            return True
        try:
            wanted = canonical_address(address)
        except ValueError:
            return False
        local, at, domain = wanted.rpartition("@")
        if not at or not local:
            return False
        candidates = [wanted]
        if self._subaddress and self._subaddress in local[1:]:
            candidates.append(local[: local.index(self._subaddress, 1)] + "@" + domain)
        for candidate in candidates:
            if candidate == identity.login:
                return True
            if await self._directory.account_by_address(candidate) is not None:
                return False
            alias = await self._directory.alias(candidate)
            if alias is not None:
                return identity.login in alias.targets
        everything = await self._directory.alias("@" + domain)
        return everything is not None and identity.login in everything.targets


class _Users:
    """What the exchanges ask, for one peer."""

    def __init__(self, service: AuthenticationService, peer: Peer) -> None:
        self._service = service
        self._peer = peer
        self._record: AccountRecord | None = None
        """Whose keys were given out last: what was read for them need not be read again once they are proved."""

    def same(self, one: str, other: str) -> bool:
        return self._service._names.same(one, other)

    async def check(self, user: str, password: str) -> Identity:
        return await self._service.login(user, password, self._peer)

    async def keys(self, user: str) -> ScramKeys:
        keys, self._record = await self._service._keys(user, self._peer)
        return keys

    async def proved(self, user: str) -> Identity:
        return await self._service._proved(user, self._record, self._peer)

    async def disproved(self, user: str) -> AuthenticationFailed:
        return await self._service._failed(self._service._canonical(user), self._peer)
