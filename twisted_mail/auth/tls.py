"""Certificates for TLS: several pairs chosen by server name, a self-signed one for the start, read again while running.

`TLSContexts` is what `transport.startTLS` and `TLSMemoryBIOFactory(contexts, False, factory)` take; whoever connects
after a `reload` gets the new certificates, and no connection notices.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from zope.interface import implementer

__all__ = ["CIPHERS", "CertificateError", "KeyPair", "TLSContexts", "self_signed"]

CIPHERS: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:ECDHE+AES:!aNULL:!eNULL:!MD5:!DSS:!PSK:!SRP"
"""For TLS 1.2: forward secrecy always, authenticated encryption first; ECDHE with CBC stays for old mail programs.
TLS 1.3 has its own few, all of them sound."""
VALID_DAYS: Final = 820
"""Of a self-signed certificate. Apple's systems take none that is valid for more than 825 days, even when the user
trusts it, so ten years would shut them out; it is renewed, with the same key, at a start in its last `RENEW_DAYS`."""
RENEW_DAYS: Final = 30


class CertificateError(Exception):
    """A certificate or key cannot be used. One line that names the file."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate chain (leaf first) and its private key, both PEM; they may be one file."""

    certificate: Path
    key: Path
    names: tuple[str, ...] = ()
    """Host names that it is chosen for; none: those that the certificate itself has."""


# --- reading ------------------------------------------------------------------------------------------------------


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error.strerror or error}") from error


def _chain(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except ValueError as error:
        raise CertificateError(f"{path} is not a certificate in PEM form") from error


def _key(path: Path) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(_read(path), None)
    except TypeError as error:
        raise CertificateError(f"{path} is encrypted: a key without a passphrase is needed") from error
    except Exception as error:  # ValueError, UnsupportedAlgorithm, and what OpenSSL adds
        raise CertificateError(f"{path} holds no private key in PEM form that can be used") from error


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """The host names of *certificate* in lower case; the common name only where it has no subjectAltName (RFC 6125)."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return tuple(name.lower() for name in names.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return tuple(str(name.value).lower() for name in common)
    except ValueError:
        return ()


# --- contexts -----------------------------------------------------------------------------------------------------


@implementer(IOpenSSLServerConnectionCreator)
class TLSContexts:
    """The TLS of all listeners. The first pair is for clients that name no server, or one that nobody has."""

    _log = Logger()

    def __init__(self, pairs: Sequence[KeyPair], *, minimum: str = "1.2", ciphers: bytes = CIPHERS) -> None:
        """*minimum*: ``1.2`` or ``1.3``. Raises: CertificateError."""
        if not pairs:
            raise ValueError("at least one certificate is needed")
        self._pairs = tuple(pairs)
        self._minimum = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}[minimum]
        self._ciphers = ciphers
        self._default, self._by_name = self._load()

    def reload(self) -> bool:
        """Read all files again. If one cannot be used, everything stays as it was, the reason is logged, and this is False."""
        try:
            self._default, self._by_name = self._load()
        except CertificateError as error:
            self._log.error("the certificates stay as they are: {error}", error=error)
            return False
        return True

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """For Twisted: a new connection's TLS. Any: whatever protocol asks."""
        return SSL.Connection(self._default, None)

    def context_for(self, name: str) -> SSL.Context:
        """The context for the server *name*: exactly, by a wildcard one level below (RFC 6125 section 6.4.3), or the first."""
        name = name.lower().rstrip(".")
        exact = self._by_name.get(name)
        if exact is not None:
            return exact
        _, dot, parent = name.partition(".")
        return self._by_name.get(f"*.{parent}", self._default) if dot else self._default

    def _load(self) -> tuple[SSL.Context, dict[str, SSL.Context]]:
        default: SSL.Context | None = None
        by_name: dict[str, SSL.Context] = {}
        for pair in self._pairs:
            context, names = self._context(pair)
            default = default or context
            for name in pair.names or names:
                by_name.setdefault(name.lower().rstrip("."), context)
        if default is None:
            raise ValueError("at least one certificate is needed")
        default.set_tlsext_servername_callback(self._choose(default, by_name))
        return default, by_name

    def _choose(self, default: SSL.Context, by_name: dict[str, SSL.Context]) -> Callable[[SSL.Connection], None]:
        def choose(connection: SSL.Connection) -> None:
            asked = connection.get_servername()
            if asked is not None and by_name:
                try:
                    context = self.context_for(asked.decode("ascii"))
                except UnicodeDecodeError:
                    return
                if context is not default:
                    connection.set_context(context)

        return choose

    def _context(self, pair: KeyPair) -> tuple[SSL.Context, tuple[str, ...]]:
        chain, key = _chain(pair.certificate), _key(pair.key)
        leaf = chain[0]
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(self._minimum)
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_NO_RENEGOTIATION)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # an idle connection keeps no buffers
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)  # tickets only: nothing is kept for clients
        context.set_cipher_list(self._ciphers)
        try:
            context.use_certificate(leaf)
            for further in chain[1:]:
                context.add_extra_chain_cert(further)
        except SSL.Error as error:
            raise CertificateError(f"{pair.certificate} cannot be used: {_why(error)}") from error
        if leaf.public_key() != key.public_key():
            raise CertificateError(f"{pair.key} is not the key of the certificate {pair.certificate}")
        try:
            context.use_privatekey(key)  # type: ignore[arg-type]  # TypeError tells
            context.check_privatekey()
        except (SSL.Error, TypeError) as error:
            raise CertificateError(f"{pair.key} cannot be used: {_why(error)}") from error
        until = leaf.not_valid_after_utc
        if until < datetime.datetime.now(datetime.UTC):
            self._log.warn(
                "the certificate {file} ran out on {until:%Y-%m-%d}", file=str(pair.certificate), until=until
            )
        return context, names_of(leaf)


def _why(error: Exception) -> str:
    """The last of OpenSSL's reasons, without its codes."""
    if isinstance(error, SSL.Error) and error.args and error.args[0]:
        return str(error.args[0][-1][-1])
    return str(error)


# --- self-signed --------------------------------------------------------------------------------------------------


def self_signed(folder: Path, hostname: str, *, now: datetime.datetime | None = None) -> KeyPair:
    """The pair that is used when no certificate is configured: *folder*/self-signed.pem, made at the first start.

    That file has key and certificate together (mode 0600), so that several processes that start at once agree;
    *folder*/certificate.pem is a copy of the certificate for handing out. It is made anew, with the same key, in its
    last `RENEW_DAYS` and when *hostname* is not in it. Raises: CertificateError.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    both, public = folder / "self-signed.pem", folder / "certificate.pem"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if both.exists():
            leaf, found = _chain(both)[0], _key(both)
            if not _is_for(leaf, hostname) or leaf.not_valid_after_utc - now < datetime.timedelta(RENEW_DAYS):
                key = (
                    found if isinstance(found, ec.EllipticCurvePrivateKey) else ec.generate_private_key(ec.SECP256R1())
                )
                _publish(both, _pem(key, hostname, now), replace=True)
        else:
            key = ec.generate_private_key(ec.SECP256R1())
            _publish(both, _pem(key, hostname, now), replace=False)
        certificate = _chain(both)[0].public_bytes(serialization.Encoding.PEM)
        if not public.exists() or public.read_bytes() != certificate:
            _publish(public, certificate, replace=True, mode=0o644)
    except OSError as error:
        raise CertificateError(f"{error.filename or folder} cannot be written: {error.strerror or error}") from error
    return KeyPair(both, both)


def _is_for(certificate: x509.Certificate, hostname: str) -> bool:
    if hostname.lower() in names_of(certificate):
        return True
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return ipaddress.ip_address(hostname) in names.get_values_for_type(x509.IPAddress)
    except ValueError:
        return False


def _publish(path: Path, data: bytes, *, replace: bool, mode: int = 0o600) -> None:
    """Write *path* whole or not at all; without *replace* whoever was first stands."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    if replace:
        fresh.replace(path)
        return
    try:
        os.link(fresh, path)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()


def _pem(key: ec.EllipticCurvePrivateKey, hostname: str, now: datetime.datetime) -> bytes:
    """Key and certificate, for *hostname* and this machine's own names."""
    names: list[x509.GeneralName] = []
    for name in dict.fromkeys((hostname.lower(), "localhost")):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            try:
                names.append(x509.DNSName(name))
            except ValueError as error:
                raise CertificateError(f"no certificate can be made for the host name {name!r}") from error
    names += [x509.IPAddress(ipaddress.ip_address(own)) for own in ("127.0.0.1", "::1")]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # clocks differ
        .not_valid_after(now + datetime.timedelta(VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + certificate.public_bytes(serialization.Encoding.PEM)
