"""DANE for SMTP (RFC 7672): which TLSA records hold for a host, and whether a server's certificates agree with them."""

from __future__ import annotations

import enum
import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa

from twisted_mail.dns.names import is_host_name
from twisted_mail.dns.values import DNS, TLSA, DNSFailure, NoSuchName
from twisted_mail.relay.values import Host, Route

__all__ = ["DANE", "Found", "Standing", "host_matches", "matches", "presentation", "usable"]

_TA, _EE = 2, 3
_DIGESTS: Final[dict[int, Callable[[bytes], bytes]]] = {
    1: lambda octets: hashlib.sha256(octets).digest(),
    2: lambda octets: hashlib.sha512(octets).digest(),
}
_DIGEST_OCTETS: Final = {1: 32, 2: 64}
_UNREADABLE: Final = (
    ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension,
    x509.ExtensionNotFound, x509.UnsupportedGeneralNameType,
)  # fmt: skip
"""What strange certificates raise."""
_DEEPEST: Final = 8
"""Most certificates above the server's own."""
_MOST_CERTIFICATES: Final = 20
_MOST_RECORDS: Final = 30
_KNOWN_CRITICAL: Final = frozenset({
    x509.BasicConstraints.oid, x509.KeyUsage.oid, x509.ExtendedKeyUsage.oid, x509.SubjectAlternativeName.oid,
    x509.CertificatePolicies.oid,
})  # fmt: skip


# --- the records


def _readable(record: TLSA) -> bool:
    """Data in full (matching type 0) must be a certificate or a key."""
    try:
        if record.selector == 0:
            x509.load_der_x509_certificate(record.data)
        else:
            serialization.load_der_public_key(record.data)
    except _UNREADABLE:
        return False
    return True


def usable(records: Iterable[TLSA]) -> tuple[TLSA, ...]:
    """Those of *records* that say something to an SMTP client: usages DANE-TA(2) and DANE-EE(3) with known selectors, matching
    types and lengths (RFC 7672 section 3.1); of two digests of a usage and selector the stronger (RFC 7671 section 9)."""
    fit = [
        record
        for record in list(dict.fromkeys(records))[:_MOST_RECORDS]
        if record.usage in (_TA, _EE)
        and record.selector in (0, 1)
        and (
            len(record.data) == _DIGEST_OCTETS[record.matching]
            if record.matching in _DIGEST_OCTETS
            else record.matching == 0 and _readable(record)
        )
    ]
    strongest: dict[tuple[int, int], int] = {}
    for record in fit:
        kind = (record.usage, record.selector)
        strongest[kind] = max(strongest.get(kind, 0), record.matching)
    return tuple(record for record in fit if record.matching in (0, strongest[record.usage, record.selector]))


def presentation(record: TLSA) -> str:
    """``3 1 1 0a1b…`` (RFC 6698 section 2.2), as TLS reports have it."""
    return f"{record.usage} {record.selector} {record.matching} {record.data.hex()}"


class Standing(enum.Enum):
    """What the DNS says of a host."""

    NONE = "none"
    """No DANE: it is not signed, or has no TLSA records."""
    USABLE = "usable"
    UNUSABLE = "unusable"
    """Records are there, but none that an SMTP client could use: TLS without a look at the certificate (RFC 7672 section 2.2)."""
    FAILED = "failed"
    """The records could not be had; somebody may hide them: the host is not to be used now (section 2.1.2)."""


@dataclass(frozen=True, slots=True)
class Found:
    """The TLSA records that hold for one host of a route."""

    standing: Standing
    base: str = ""
    """The TLSA base domain (RFC 7672 section 2.2.3)."""
    records: tuple[TLSA, ...] = ()
    names: tuple[str, ...] = ()
    """Reference identifiers for DANE-TA (section 3.2.3)."""


class DANE:
    """Looks TLSA records up. Only a resolver that trusts its servers' validation ever finds any."""

    def __init__(self, dns: DNS) -> None:
        self._dns = dns

    async def find(self, route: Route, host: Host) -> Found:
        """What holds for *host* of *route*. Never raises DNSFailure."""
        none = Found(Standing.NONE)
        if not route.secure or not is_host_name(host.name) or not host.port:
            return none  # nobody vouches for the way to this host
        for base in await self._bases(host):
            try:
                answer = await self._dns.tlsa(f"_{host.port}._tcp.{base}")
            except NoSuchName:
                continue
            except DNSFailure:
                return Found(Standing.FAILED, base)
            if not answer.records or not answer.secure:
                continue
            records = usable(answer.records)
            if not records:
                return Found(Standing.UNUSABLE, base, answer.records)
            return Found(Standing.USABLE, base, records, await self._names(route, host, base))
        return none

    async def _bases(self, host: Host) -> Sequence[str]:
        """Where the records may be: behind the aliases if all of them are signed, then at the host's own name."""
        if host.secure:
            return (host.alias, host.name) if host.alias else (host.name,)
        if host.alias:
            # The way leads out of what is signed; the first step of it, and so the host's own zone, may be signed.
            try:
                if (await self._dns.cname(host.name)).secure:
                    return (host.name,)
            except (NoSuchName, DNSFailure):
                pass
        return ()

    async def _names(self, route: Route, host: Host, base: str) -> tuple[str, ...]:
        names = [base, host.name]
        if not route.smart_host:
            names.append(route.domain)
            try:
                answer = await self._dns.mx(route.domain)
                if answer.secure and answer.name:
                    names.append(answer.name)
            except (NoSuchName, DNSFailure):
                pass
        return tuple(dict.fromkeys(names))


# --- the certificates


def matches(
    chain: Sequence[bytes], names: Sequence[str], records: Sequence[object], *, now: float | None = None
) -> bool:
    """Whether a server that sent *chain* (DER, its own certificate first) is the one that *records* (`TLSA`) mean.

    DANE-EE: its key or certificate is named; neither its names nor its dates matter (RFC 7672 section 3.1.1). DANE-TA: an
    authority that is named has signed it, all dates hold at *now* (seconds since 1970), and it is for one of *names*
    (section 3.1.2). What cannot be read does not match.
    """
    wanted = usable(record for record in records if isinstance(record, TLSA))
    try:
        certificates = [x509.load_der_x509_certificate(der) for der in chain[:_MOST_CERTIFICATES]]
    except _UNREADABLE:
        return False
    if not certificates:
        return False
    leaf = certificates[0]
    if any(record.usage == _EE and _names_certificate(record, leaf) for record in wanted):
        return True
    anchors = [record for record in wanted if record.usage == _TA]
    moment = datetime.fromtimestamp(time.time() if now is None else now, UTC)
    try:
        return (
            bool(anchors)
            and any(host_matches(pattern, name) for pattern in _subjects(leaf) for name in names)
            and _leads_to(leaf, certificates[1:], anchors, moment)
        )
    except _UNREADABLE:
        return False


def _names_certificate(record: TLSA, certificate: x509.Certificate) -> bool:
    try:
        if record.selector == 0:
            octets = certificate.public_bytes(serialization.Encoding.DER)
        else:
            octets = certificate.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
    except _UNREADABLE:
        return False
    digest = _DIGESTS.get(record.matching)
    return record.data == (digest(octets) if digest is not None else octets)


def _subjects(certificate: x509.Certificate) -> list[str]:
    """Its DNS names; the common name where it has none (RFC 7672 section 3.2.3)."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if found := names.get_values_for_type(x509.DNSName):
            return [name.lower() for name in found]
    except _UNREADABLE:
        pass
    return [str(name.value).lower() for name in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]


def host_matches(pattern: str, name: str) -> bool:
    """Whether a certificate's *pattern* stands for *name*: equal, or ``*.`` in place of exactly one label (RFC 6125)."""
    pattern, name = pattern.rstrip(".").lower(), name.rstrip(".").lower()
    if pattern.startswith("*."):
        first, dot, rest = name.partition(".")
        return bool(first and dot) and "." in rest and rest == pattern[2:]
    return bool(name) and pattern == name


def _leads_to(leaf: x509.Certificate, others: list[x509.Certificate], anchors: list[TLSA], now: datetime) -> bool:
    """Whether signatures lead from *leaf* to one of *anchors*. The order of the others does not matter."""
    if not _valid_at(leaf, now) or not _understood(leaf):
        return False
    # A record that has the authority in full may stand for one that the server did not send.
    others = [*others, *(x509.load_der_x509_certificate(each.data) for each in anchors if (each.selector, each.matching) == (0, 0))]
    keys = [serialization.load_der_public_key(each.data) for each in anchors if (each.selector, each.matching) == (1, 0)]
    paths = [(leaf, 0)]
    seen = {leaf}
    while paths:
        certificate, depth = paths.pop()
        if any(_signed_by(certificate, key) for key in keys):
            return True
        if depth == _DEEPEST:
            continue
        for issuer in others:
            if issuer in seen or not _issued(issuer, certificate, depth, now):
                continue
            if any(_names_certificate(anchor, issuer) for anchor in anchors):
                return True
            seen.add(issuer)
            paths.append((issuer, depth + 1))
    return False


def _issued(issuer: x509.Certificate, certificate: x509.Certificate, below: int, now: datetime) -> bool:
    """*issuer* is an authority (RFC 5280 section 6.1.4) and has signed *certificate*, with *below* authorities under it."""
    try:  # octets are read when they are asked for
        if certificate.issuer != issuer.subject or not _valid_at(issuer, now) or not _understood(issuer):
            return False
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        if not constraints.ca or (constraints.path_length is not None and constraints.path_length < below):
            return False
        certificate.verify_directly_issued_by(issuer)
    except _UNREADABLE:
        return False
    try:
        return issuer.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        return True


def _valid_at(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def _understood(certificate: x509.Certificate) -> bool:
    """It has no critical extension that is not looked at here, such as name constraints."""
    try:
        return all(not extension.critical or extension.oid in _KNOWN_CRITICAL for extension in certificate.extensions)
    except _UNREADABLE:
        return False


def _signed_by(certificate: x509.Certificate, key: object) -> bool:
    """Whether the bare *key* of a ``2 1 0`` record has signed *certificate*."""
    signature, signed, hashed = certificate.signature, certificate.tbs_certificate_bytes, None
    try:
        hashed = certificate.signature_hash_algorithm
        if isinstance(key, rsa.RSAPublicKey) and hashed is not None:
            parameters = certificate.signature_algorithm_parameters
            pad = parameters if isinstance(parameters, padding.PSS) else padding.PKCS1v15()
            key.verify(signature, signed, pad, hashed)
        elif isinstance(key, ec.EllipticCurvePublicKey) and hashed is not None:
            key.verify(signature, signed, ec.ECDSA(hashed))
        elif isinstance(key, (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey)):
            key.verify(signature, signed)
        elif isinstance(key, dsa.DSAPublicKey) and hashed is not None:
            key.verify(signature, signed, hashed)
        else:
            return False
    except _UNREADABLE:
        return False
    return True
