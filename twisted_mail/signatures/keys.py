"""Keys: the private ones that sign, and the records that publish the others (RFC 6376 section 3.6.1, RFC 8463)."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
)

from twisted_mail.signatures.tags import BadTags, decode_base64, list_of, parse_tags

__all__ = ["BadKey", "KeyType", "NoKey", "PrivateKey", "PublicKey", "parse_key_record"]

KeyType = Literal["rsa", "ed25519"]

MAX_RECORD: Final = 4096
"""Octets of a key record; an RSA key of 16,384 bits fits, which nobody needs and every check would pay for."""
MAX_RSA_BITS: Final = 8192
MAX_EXPONENT_BITS: Final = 33
_SHA256: Final = Prehashed(hashes.SHA256())


class BadKey(Exception):
    """The record or the key cannot be used; the text is for a result's reason."""


class NoKey(BadKey):
    """The record says that the key is revoked (an empty ``p=``)."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What a key record says."""

    key: rsa.RSAPublicKey | ed25519.Ed25519PublicKey
    hashes: tuple[str, ...] = ()
    """``h=``; empty: all."""
    services: tuple[str, ...] = ("*",)
    """``s=``."""
    testing: bool = False
    strict: bool = False
    """``t=s``: ``i=`` must have the very domain ``d=``."""

    @property
    def type(self) -> KeyType:
        return "rsa" if isinstance(self.key, rsa.RSAPublicKey) else "ed25519"

    @property
    def bits(self) -> int:
        return self.key.key_size if isinstance(self.key, rsa.RSAPublicKey) else 256

    def verifies(self, signature: bytes, digest: bytes) -> bool:
        """Whether *signature* is of the SHA-256 *digest*."""
        try:
            if isinstance(self.key, rsa.RSAPublicKey):
                self.key.verify(signature, digest, padding.PKCS1v15(), _SHA256)
            else:
                # RFC 8463 section 3: PureEdDSA over the hash.
                self.key.verify(signature, digest)
        except (InvalidSignature, ValueError):
            return False
        return True


@lru_cache(maxsize=1024)
def parse_key_record(record: bytes) -> PublicKey:
    """Read one TXT record. Raises: BadKey, NoKey. What was read is remembered: to load a key takes as long as to verify."""
    if len(record) > MAX_RECORD:
        raise BadKey("key record too long")
    try:
        tags = parse_tags(record.decode("utf-8"))
        version = tags.get("v")
        # It must come first, if at all.
        if version is not None and (version != "DKIM1" or next(iter(tags)) != "v"):
            raise BadKey("unknown version of the key record")
        if "p" not in tags:
            raise BadKey("key record without a key")
        if not tags["p"]:
            raise NoKey("key revoked")
        data = decode_base64(tags["p"], "p")
    except (BadTags, UnicodeDecodeError) as error:
        raise BadKey("malformed key record") from error
    flags = list_of(tags.get("t", ""))
    return PublicKey(
        _public_key(tags.get("k", "rsa"), data),
        hashes=tuple(list_of(tags.get("h", ""))),
        services=tuple(list_of(tags.get("s", "*"))) or ("*",),
        testing="y" in flags,
        strict="s" in flags,
    )


def _public_key(type: str, data: bytes) -> rsa.RSAPublicKey | ed25519.Ed25519PublicKey:
    try:
        if type == "ed25519":
            return ed25519.Ed25519PublicKey.from_public_bytes(data)
        if type != "rsa":
            raise BadKey("unknown type of key")
        # SubjectPublicKeyInfo, or PKCS #1 alone as RFC 6376 says in its text: both are read.
        key = load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadKey("malformed key") from error
    if not isinstance(key, rsa.RSAPublicKey):
        raise BadKey("key of another type than its record says")
    if key.key_size > MAX_RSA_BITS or key.public_numbers().e.bit_length() > MAX_EXPONENT_BITS:
        raise BadKey("key too large")
    return key


class PrivateKey:
    """A key that signs. `sign` may run in any thread."""

    def __init__(self, key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def generate(cls, type: KeyType, bits: int = 2048) -> PrivateKey:
        """A new one; *bits* are RSA's (2048: what every receiver takes and one DNS answer holds, RFC 8301 section 3.2)."""
        if type == "rsa":
            return cls(rsa.generate_private_key(public_exponent=65537, key_size=bits))
        return cls(ed25519.Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, data: bytes) -> PrivateKey:
        """From PEM or DER (PKCS #8, PKCS #1), or 32 octets of Ed25519. Raises: BadKey."""
        try:
            if len(data) == 32:
                return cls(ed25519.Ed25519PrivateKey.from_private_bytes(data))
            load = load_pem_private_key if data.lstrip().startswith(b"-----") else load_der_private_key
            key = load(data, None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise BadKey("not a private key") from error
        if not isinstance(key, (rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey)):
            raise BadKey("neither an RSA nor an Ed25519 key")
        return cls(key)

    @property
    def type(self) -> KeyType:
        return "rsa" if isinstance(self._key, rsa.RSAPrivateKey) else "ed25519"

    @property
    def algorithm(self) -> str:
        """``a=``."""
        return f"{self.type}-sha256"

    @property
    def bits(self) -> int:
        return self._key.key_size if isinstance(self._key, rsa.RSAPrivateKey) else 256

    def sign(self, digest: bytes) -> bytes:
        """Sign a SHA-256 *digest*. RSA of 2048 bits takes 0.7 ms."""
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(digest, padding.PKCS1v15(), _SHA256)
        return self._key.sign(digest)

    def dump(self) -> bytes:
        """PKCS #8 in DER, not encrypted."""
        return self._key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    def pem(self) -> bytes:
        """PKCS #8 in PEM, not encrypted."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def record(self, *, testing: bool = False) -> str:
        """The TXT record that publishes the public half (RFC 6376 section 3.6.1)."""
        public = self._key.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            data = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        else:
            data = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        flags = "t=y; " if testing else ""
        return f"v=DKIM1; k={self.type}; {flags}p={base64.b64encode(data).decode()}"
