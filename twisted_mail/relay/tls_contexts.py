"""TLS as a client: what is offered to a server, and what is thought of the certificate that it shows.

A handshake never fails here because of a certificate: whether the certificate is good enough is looked at when it is done
(`ClientTLS.fault`), so that the reason can be told in words, and counted.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from zope.interface import implementer

from twisted_mail.relay import dane
from twisted_mail.relay.values import Protection, TLSFailure, TLSMode

__all__ = ["ClientTLS", "DANEMatch"]

DANEMatch = Callable[[Sequence[bytes], Sequence[str], Sequence[object]], bool]
"""(DER certificates, the server's first; names; TLSA records) -> whether they agree."""

_EXPIRED: Final = (9, 10)
"""X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED."""
_WORDS: Final = {
    2: "its issuer is not known",
    7: "its signature is wrong",
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is signed by itself",
    19: "its chain ends in an authority that is not trusted",
    20: "its issuer is not known",
    21: "it was sent without its issuer",
    23: "it was revoked",
    24: "an issuer of it is no authority",
    26: "it is not meant for servers",
}
"""By OpenSSL's X509_V_ERR_*."""


class _Connection(SSL.Connection):
    """Keeps what OpenSSL thinks of the certificates. (Twisted has its own use for a connection's app data.)"""

    looked = False
    """The server's own certificate was looked at."""
    faults: tuple[int, ...] = ()


@implementer(IOpenSSLClientConnectionCreator)
class _Creator:
    """One handshake: the server is told which name is meant (RFC 6066 section 3)."""

    def __init__(self, context: SSL.Context, server_name: str) -> None:
        self._context = context
        self._server_name = server_name

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """For Twisted. Any: whatever protocol asks."""
        connection = _Connection(self._context, None)
        if self._server_name:
            connection.set_tlsext_host_name(self._server_name.encode("ascii"))
        return connection


class ClientTLS:
    """*authorities*: a PEM file of those that are trusted; None: the system's own. Raises: ValueError."""

    def __init__(self, authorities: Path | None = None, *, match: DANEMatch = dane.matches) -> None:
        self._match = match
        # RFC 7435: any TLS is better than none, so where nothing is asked of it, old versions and ciphers are taken
        self._any, self._looking = _context(strict=False), _context(strict=False)
        self._strict = _context(strict=True)
        for context in (self._looking, self._strict):
            if authorities is None:
                context.set_default_verify_paths()
            else:
                try:
                    context.load_verify_locations(str(authorities))
                except SSL.Error:
                    raise ValueError(f"{authorities} holds no certificates in PEM form") from None
            context.set_verify(SSL.VERIFY_PEER, _note)

    def creator(self, protection: Protection, host_name: str) -> Any:
        """What `transport.startTLS` takes; Any, since Twisted has no common type for what it takes."""
        name = host_name
        if protection.mode is TLSMode.DANE and protection.names:
            name = protection.names[0]  # RFC 7672 section 8.1: the TLSA base domain
        if protection.mode in (TLSMode.VERIFIED, TLSMode.DANE):
            context = self._strict
        else:
            context = self._looking if protection.testing else self._any
        return _Creator(context, name if _is_name(name) else "")

    def fault(self, connection: SSL.Connection, protection: Protection) -> tuple[TLSFailure, str] | None:
        """What is wrong with the certificate shown on *connection*, if *protection* looks at it."""
        if protection.mode is TLSMode.DANE:
            chain = connection.get_peer_cert_chain(as_cryptography=True) or []
            shown = [each.public_bytes(Encoding.DER) for each in chain]
            if self._match(shown, protection.names, protection.tlsa):
                return None
            return TLSFailure.VALIDATION_FAILURE, "The server's certificate is not the one that its TLSA records name"
        if protection.mode is not TLSMode.VERIFIED and not protection.testing:
            return None
        certificate = connection.get_peer_certificate(as_cryptography=True)
        if certificate is None or not isinstance(connection, _Connection) or not connection.looked:
            return TLSFailure.CERTIFICATE_NOT_TRUSTED, "The server showed no certificate"
        faults = connection.faults
        if faults:
            worst = next((each for each in faults if each not in _EXPIRED), faults[0])
            kind = TLSFailure.CERTIFICATE_EXPIRED if worst in _EXPIRED else TLSFailure.CERTIFICATE_NOT_TRUSTED
            return kind, f"The server's certificate is not to be trusted: {_WORDS.get(worst, f'error {worst} of OpenSSL')}"
        if protection.names and not _is_for(certificate, protection.names):
            wanted = " or ".join(protection.names)
            return TLSFailure.CERTIFICATE_HOST_MISMATCH, f"The server's certificate is not for {wanted}"
        return None


def _context(*, strict: bool) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_options(SSL.OP_NO_COMPRESSION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    if strict:
        context.set_min_proto_version(SSL.TLS1_2_VERSION)  # RFC 8996
    else:
        context.set_min_proto_version(SSL.TLS1_VERSION)
        context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
    return context


def _note(connection: SSL.Connection, certificate: Any, error: int, depth: int, well: int) -> bool:
    """Keep what OpenSSL finds, and go on. Any: an OpenSSL.crypto.X509, which is not looked at."""
    if not isinstance(connection, _Connection):
        return False
    if not well:
        connection.faults = (*connection.faults[:9], error)
    connection.looked = connection.looked or depth == 0
    return True


def _is_name(host: str) -> bool:
    """RFC 6066 section 3: no address literals."""
    try:
        ipaddress.ip_address(host.strip("[]").removeprefix("IPv6:"))
    except ValueError:
        return bool(host) and host.isascii() and "/" not in host
    return False


def _is_for(certificate: x509.Certificate, names: Sequence[str]) -> bool:
    """Whether one of *names* is among the certificate's (RFC 6125 section 6.4, RFC 8461 section 4.1); its common name does
    not count."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False
    patterns = found.get_values_for_type(x509.DNSName)
    for name in names:
        try:
            address = ipaddress.ip_address(name.strip("[]").removeprefix("IPv6:"))
        except ValueError:
            if any(dane.host_matches(pattern, name) for pattern in patterns):
                return True
        else:
            if address in found.get_values_for_type(x509.IPAddress):
                return True
    return False
