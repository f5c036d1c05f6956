"""Passwords: what is stored of them, and checking them without standing in anybody's way.

An account has a list of stored credentials, each one line of text whose beginning names its form:

- ``$argon2id$v=19$m=19456,t=2,p=1$salt$hash``: the PHC form of argon2id (RFC 9106);
- ``{SCRAM-SHA-256}15000:salt:stored:server``: iterations, then salt, StoredKey and ServerKey in base64 (RFC 5802
  section 3, RFC 7677).

A form that is not known here is passed over, so that another version's credentials do no harm.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import argon2
from argon2.exceptions import InvalidHashError, VerificationError
from twisted.internet.interfaces import IReactorTime

from twisted_mail.auth.saslprep import saslprep

__all__ = [
    "MAX_PASSWORD_OCTETS",
    "PasswordParameters",
    "PasswordVerifier",
    "ScramKeys",
    "TooBusy",
    "Verdict",
    "credentials_for",
    "matches",
    "prepare",
    "scram_keys",
    "stored_scram",
]

MAX_PASSWORD_OCTETS: Final = 1024
_ARGON2: Final = "$argon2id$"
_SCRAM: Final = "{SCRAM-SHA-256}"

DeferToThread = Callable[..., Awaitable[Any]]
"""Calls a function with arguments in some other thread and gives what it returns; Any, since it takes every function."""


class TooBusy(Exception):
    """More passwords wait to be checked than is reasonable."""


@dataclass(frozen=True, slots=True)
class PasswordParameters:
    """How dear a password is made. What is stored keeps its own; a login renews it when these have changed."""

    memory_kib: int = 19 * 1024
    """Memory of one hash, KiB: 19 MiB and 2 passes take some 20 ms, and a few logins at once fit into any machine."""
    passes: int = 2
    lanes: int = 1
    scram_iterations: int = 15_000
    """PBKDF2 rounds of the SCRAM keys (RFC 7677 section 4: at least 4096, 15,000 as a rule of thumb; the client works
    them off at each login). 0: no SCRAM keys are made, so SCRAM cannot be used."""

    def __post_init__(self) -> None:
        if self.scram_iterations and not 4096 <= self.scram_iterations <= 10_000_000:
            raise ValueError("SCRAM iterations must be 4096 or more (RFC 7677 section 4)")
        if self.passes < 1 or self.lanes < 1 or self.memory_kib < 8 * self.lanes:
            raise ValueError("argon2 needs at least one pass, one lane, and 8 KiB a lane (RFC 9106 section 3.1)")

    def hasher(self) -> argon2.PasswordHasher:
        """Hashes with these parameters."""
        return argon2.PasswordHasher(self.passes, self.memory_kib, self.lanes, hash_len=32, salt_len=16)


def prepare(password: str) -> bytes:
    """The octets of *password* that are hashed. Raises: ValueError (empty, too long, not allowed by RFC 4013)."""
    if len(password) > MAX_PASSWORD_OCTETS:
        raise ValueError(f"a password has at most {MAX_PASSWORD_OCTETS} octets")
    octets = saslprep(password).encode()  # UnicodeEncodeError (a lone surrogate) is a ValueError
    if not octets:
        raise ValueError("the password is empty")
    if len(octets) > MAX_PASSWORD_OCTETS:
        raise ValueError(f"a password has at most {MAX_PASSWORD_OCTETS} octets")
    return octets


# --- SCRAM keys ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScramKeys:
    """What a server keeps for SCRAM-SHA-256: enough to check a client, not enough to be one (RFC 5802 section 3)."""

    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes

    def __str__(self) -> str:
        parts = (base64.b64encode(part).decode() for part in (self.salt, self.stored_key, self.server_key))
        return f"{_SCRAM}{self.iterations}:{':'.join(parts)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str()`` wrote. Raises: ValueError for anything else."""
        if not text.startswith(_SCRAM):
            raise ValueError("not SCRAM-SHA-256 keys")
        iterations, *parts = text[len(_SCRAM) :].split(":")
        try:
            salt, stored, server = (binascii.a2b_base64(part.encode(), strict_mode=True) for part in parts)
        except binascii.Error as error:
            raise ValueError("not base64") from error
        if not iterations.isascii() or not iterations.isdigit() or int(iterations) < 1:
            raise ValueError("not a count of iterations")
        if not salt or len(stored) != 32 or len(server) != 32:
            raise ValueError("keys of a wrong length")
        return cls(int(iterations), salt, stored, server)


def scram_keys(password: bytes, salt: bytes, iterations: int) -> ScramKeys:
    """The keys of a prepared *password* (RFC 5802 section 3). Takes milliseconds: not for the reactor's thread."""
    salted = hashlib.pbkdf2_hmac("sha256", password, salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return ScramKeys(iterations, salt, hashlib.sha256(client_key).digest(), server_key)


def stored_scram(credentials: Sequence[str]) -> ScramKeys | None:
    """The SCRAM keys among stored *credentials*; None if there are none that can be read."""
    for credential in credentials:
        try:
            return ScramKeys.parse(credential)
        except ValueError:
            continue
    return None


# --- hashing, in whatever thread ----------------------------------------------------------------------------------


def credentials_for(password: str, parameters: PasswordParameters | None = None) -> tuple[str, ...]:
    """What is to be stored for *password*. Blocks for tens of milliseconds.

    Raises: ValueError, with a text for whoever chose the password.
    """
    parameters = parameters or PasswordParameters()
    octets = prepare(password)
    made = [parameters.hasher().hash(octets)]
    if parameters.scram_iterations:
        made.append(str(scram_keys(octets, os.urandom(16), parameters.scram_iterations)))
    return tuple(made)


def matches(password: str, credentials: Sequence[str]) -> bool:
    """Whether *password* is the one of *credentials*. Blocks for tens of milliseconds."""
    try:
        octets = prepare(password)
    except ValueError:
        return False
    return _matches(octets, tuple(credentials))


def _matches(octets: bytes, credentials: tuple[str, ...]) -> bool:
    hashed = [credential for credential in credentials if credential.startswith(_ARGON2)]
    for credential in hashed:
        try:
            if argon2.PasswordHasher().verify(credential, octets):
                return True
        except (VerificationError, InvalidHashError):
            continue
    if hashed:
        return False
    keys = stored_scram(credentials)
    return keys is not None and hmac.compare_digest(
        scram_keys(octets, keys.salt, keys.iterations).stored_key, keys.stored_key
    )


# --- checking, in a server ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a password."""

    right: bool
    renew: bool = False
    """It is right, but stored with other parameters than those of today."""


class PasswordVerifier:
    """Checks passwords in threads, remembers recent successes, and takes as long for a user who does not exist.

    What is remembered is a keyed hash (a random key per process) of name, password and stored credentials: a changed
    password is forgotten by itself, and a dump of the memory holds no password.
    """

    def __init__(
        self,
        defer_to_thread: DeferToThread,
        clock: IReactorTime,
        parameters: PasswordParameters | None = None,
        *,
        remember_seconds: float = 300.0,
        remember_count: int = 50_000,
        waiting_most: int = 500,
    ) -> None:
        """*remember_seconds* 0: every login is hashed. *waiting_most*: checks that may wait for a thread."""
        self.parameters = parameters or PasswordParameters()
        self._defer = defer_to_thread
        self._clock = clock
        self._remember_seconds = remember_seconds
        self._remember_count = remember_count
        self._waiting_most = waiting_most
        self._waiting = 0
        self._key = os.urandom(32)
        self._known: OrderedDict[bytes, tuple[float, bool]] = OrderedDict()
        self._nobody = self._hash_of_nobody()

    def _hash_of_nobody(self) -> str:
        """A stored hash that no password has; checking against it takes what checking any takes."""
        p = self.parameters
        salt, digest = (base64.b64encode(os.urandom(n)).decode().rstrip("=") for n in (16, 32))
        return f"{_ARGON2}v=19$m={p.memory_kib},t={p.passes},p={p.lanes}${salt}${digest}"

    async def verify(self, name: str, password: str, credentials: Sequence[str] | None) -> Verdict:
        """Check *password* against the *credentials* of the account *name*; None (or empty): there is no such account.

        Raises: TooBusy.
        """
        try:
            octets = prepare(password)
        except ValueError:
            octets, credentials = b"-", None  # takes as long as a password that is only wrong
        stored = tuple(credentials or ())
        digest = self._digest(name, octets, stored)
        if stored and (known := self._recall(digest)) is not None:
            return known
        right = await self._in_thread(_matches, octets, stored or (self._nobody,))
        if not right or not stored:
            return Verdict(False)
        renew = self._is_stale(stored)
        self._remember(digest, renew)
        return Verdict(True, renew)

    async def credentials_for(self, password: str) -> tuple[str, ...]:
        """What is to be stored for *password*, hashed in a thread. Raises: ValueError, TooBusy."""
        made: tuple[str, ...] = await self._in_thread(credentials_for, password, self.parameters)
        return made

    async def _in_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        # any function with any arguments, hence Any
        if self._waiting >= self._waiting_most:
            raise TooBusy("too many logins at once")
        self._waiting += 1
        try:
            return await self._defer(call, *arguments)
        finally:
            self._waiting -= 1

    def _is_stale(self, stored: tuple[str, ...]) -> bool:
        hashed = [credential for credential in stored if credential.startswith(_ARGON2)]
        try:
            if len(hashed) != 1 or self.parameters.hasher().check_needs_rehash(hashed[0]):
                return True
        except InvalidHashError:
            return True
        keys = stored_scram(stored)
        return (keys.iterations if keys is not None else 0) != self.parameters.scram_iterations

    # --- recent successes

    def _digest(self, name: str, octets: bytes, stored: tuple[str, ...]) -> bytes:
        parts = [name.encode("utf-8", "surrogatepass"), octets, *(credential.encode() for credential in stored)]
        return hmac.digest(self._key, b"".join(len(part).to_bytes(4, "big") + part for part in parts), "sha256")

    def _recall(self, digest: bytes) -> Verdict | None:
        found = self._known.get(digest)
        if found is None:
            return None
        expires, renew = found
        if expires <= self._clock.seconds():
            del self._known[digest]
            return None
        return Verdict(True, renew)

    def _remember(self, digest: bytes, renew: bool) -> None:
        if self._remember_seconds <= 0:
            return
        now = self._clock.seconds()
        while self._known:
            expires, _ = self._known[next(iter(self._known))]
            if expires > now and len(self._known) < self._remember_count:
                break
            self._known.popitem(last=False)
        self._known[digest] = (now + self._remember_seconds, renew)
        self._known.move_to_end(digest)
