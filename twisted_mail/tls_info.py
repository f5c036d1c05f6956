"""What a finished TLS handshake says about itself: channel bindings, version and cipher.

Protocols' servers read these from the pyOpenSSL connection under their transport (`transport.getHandle()`).
"""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

__all__ = ["EXPORTER_LABEL", "channel_bindings", "describe", "end_point"]

EXPORTER_LABEL = b"EXPORTER-Channel-Binding"


def channel_bindings(connection: SSL.Connection) -> dict[str, bytes]:
    """Channel binding data of *connection* by type; those that can be had.

    ``tls-exporter`` (RFC 9266) only with TLS 1.3: with 1.2 it is sound only where the extended master secret was
    negotiated (section 4.2), which cannot be asked here. ``tls-server-end-point`` (RFC 5929 section 4) always.
    """
    bindings: dict[str, bytes] = {}
    if connection.get_protocol_version() >= SSL.TLS1_3_VERSION:
        bindings["tls-exporter"] = connection.export_keying_material(EXPORTER_LABEL, 32, b"")
    certificate = connection.get_certificate()
    if certificate is not None:
        bindings["tls-server-end-point"] = end_point(certificate.to_cryptography())
    return bindings


def end_point(certificate: x509.Certificate) -> bytes:
    """The hash of *certificate* by its signature's own algorithm; SHA-256 instead of MD5, SHA-1 and of none
    (RFC 5929 section 4.1)."""
    algorithm = certificate.signature_hash_algorithm
    if algorithm is None or isinstance(algorithm, (hashes.MD5, hashes.SHA1)):
        algorithm = hashes.SHA256()
    digest = hashes.Hash(algorithm)
    digest.update(certificate.public_bytes(Encoding.DER))
    return digest.finalize()


def describe(connection: SSL.Connection) -> str:
    """Version and cipher, e.g. ``TLS1.3 with cipher TLS_AES_256_GCM_SHA384``."""
    version = connection.get_protocol_version_name().replace("TLSv", "TLS")
    return f"{version} with cipher {connection.get_cipher_name()}"
