"""Certificates of the tests' own: authorities, and servers that they have signed."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["Certified", "authority", "server"]

_NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Certified:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def spki(self) -> bytes:
        """Its public key, as selector 1 of TLSA means it."""
        return self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def write(self, folder: Path) -> tuple[Path, Path]:
        """The files of certificate and key."""
        certificate, key = folder / "certificate.pem", folder / "key.pem"
        certificate.write_bytes(self.pem)
        key.write_bytes(self.key_pem)
        return certificate, key


def _issue(name: str, extensions: list[tuple[Any, bool]], issuer: Certified | None, days: tuple[int, int]) -> Certified:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOW + days[0] * _DAY)
        .not_valid_after(_NOW + days[1] * _DAY)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return Certified(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


def authority(
    name: str = "The tests' authority", issuer: Certified | None = None, *, ca: bool = True, path_length: int | None = None,
    days: tuple[int, int] = (-1, 30), more: list[tuple[Any, bool]] | None = None,
) -> Certified:  # fmt: skip
    """One that signs others."""
    constraints = x509.BasicConstraints(ca=ca, path_length=path_length if ca else None)
    return _issue(name, [(constraints, True), *(more or [])], issuer, days)


def server(
    *names: str, issuer: Certified | None = None, days: tuple[int, int] = (-1, 30), more: list[tuple[Any, bool]] | None = None
) -> Certified:
    """One for *names*; signed by itself where there is no *issuer*."""
    alternative = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    return _issue(names[0], [(alternative, False), *(more or [])], issuer, days)
