"""Encryption of objects before they leave this process: AES-256-GCM in frames of 64 KiB, a key of its own for each object.

An object is a header and frames:

- header, 96 octets: 8 ``TMSEAL01`` (format and version), 8 id of the master key, 32 salt, 48 the object's key, wrapped;
- a frame for each 64 KiB of content (an empty content has one, empty): the ciphertext and 16 octets of tag. The nonce is
  the frame's number (11 octets) and 1 octet that is 1 in the last frame and 0 in others (the STREAM construction), so
  frames that are left out, repeated, put elsewhere or cut off do not open.

The object's key is 256 random bits and used for this object only, so a nonce never comes twice under one key. It is
wrapped by AES-256-GCM under HMAC-SHA256(master key, salt), a key that is used once too, whence its nonce may be zero; so
one master key serves any number of objects.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from twisted_mail.storage.interfaces import Corrupt, StorageError

__all__ = ["FRAME", "HEADER", "SEALED_FRAME", "Keyring", "KeyUnknown", "frames", "key_named_in", "seal", "sealed_size", "unseal"]

FRAME: Final = 65_536
TAG: Final = 16
SEALED_FRAME: Final = FRAME + TAG
MAGIC: Final = b"TMSEAL01"
SALT: Final = 32
ID: Final = 8
HEADER: Final = len(MAGIC) + ID + SALT + 32 + TAG


class KeyUnknown(StorageError):
    """An object was encrypted under a master key that was not given to this process."""


def frames(size: int) -> int:
    """How many frames *size* octets have."""
    return max(1, -(-size // FRAME))


def sealed_size(size: int) -> int:
    """How long the object of *size* octets is."""
    return HEADER + size + TAG * frames(size)


def key_named_in(header: bytes) -> bytes:
    """The id of the master key that wrapped *header*, whether it is known or not. Raises: Corrupt."""
    if len(header) != HEADER or not header.startswith(MAGIC):
        raise Corrupt("an encrypted object does not begin with its header")
    return header[len(MAGIC) : len(MAGIC) + ID]


class Keyring:
    """The master keys: the first wraps the keys of new objects, all of them unwrap."""

    def __init__(self, keys: list[bytes]) -> None:
        if not keys or any(len(key) != 32 for key in keys):
            raise ValueError("a key for encryption has 64 hexadecimal digits")
        self._keys = {hmac.digest(key, b"twisted-mail key id", hashlib.sha256)[:ID]: key for key in keys}
        self.current = next(iter(self._keys))

    def __repr__(self) -> str:
        return f"<Keyring {', '.join(self.ids)}>"

    def __contains__(self, id: bytes) -> bool:
        return id in self._keys

    @property
    def ids(self) -> list[str]:
        """What objects and error texts call the keys, in their order; says nothing of the keys."""
        return [id.hex() for id in self._keys]

    @classmethod
    def parse(cls, text: str) -> Keyring:
        """Keys of 64 hexadecimal digits, by white space or commas; from ``#`` to the line's end is a comment.

        Raises: ValueError, without a word of the text.
        """
        words = re.split(r"[\s,]+", re.sub(r"#.*", "", text).strip())
        if not all(re.fullmatch(r"[0-9a-fA-F]{64}", word) for word in words):
            raise ValueError("a key for encryption has 64 hexadecimal digits")
        return cls([bytes.fromhex(word) for word in words])

    def new_header(self) -> tuple[bytes, AESGCM]:
        """The header of a new object, and its key."""
        key = os.urandom(32)
        return self._wrap(key), AESGCM(key)

    def _wrap(self, key: bytes) -> bytes:
        clear = MAGIC + self.current + os.urandom(SALT)
        return clear + self._wrapper(self.current, clear).encrypt(bytes(12), key, clear)

    def _wrapper(self, id: bytes, clear: bytes) -> AESGCM:
        return AESGCM(hmac.digest(self._keys[id], b"twisted-mail wrap" + clear[-SALT:], hashlib.sha256))

    def id_of(self, header: bytes) -> bytes:
        """Which key wrapped *header*. Raises: Corrupt, KeyUnknown."""
        id = key_named_in(header)
        if id not in self._keys:
            raise KeyUnknown(f"an object is encrypted under the key {id.hex()}; given are {', '.join(self.ids)}")
        return id

    def _key(self, header: bytes) -> bytes:
        id, clear = self.id_of(header), header[: len(MAGIC) + ID + SALT]
        try:
            return self._wrapper(id, clear).decrypt(bytes(12), header[len(clear) :], clear)
        except InvalidTag as error:
            raise Corrupt("the header of an encrypted object is damaged") from error

    def open_header(self, header: bytes) -> AESGCM:
        """The key of an object. Raises: Corrupt, KeyUnknown."""
        return AESGCM(self._key(header))

    def rewrap(self, header: bytes) -> bytes | None:
        """*header* with its key wrapped by the first master key; None if it is already. Raises: Corrupt, KeyUnknown."""
        return None if self.id_of(header) == self.current else self._wrap(self._key(header))


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\x01" if last else b"\x00")


def seal(cipher: AESGCM, first: int, content: bytes, last: bool) -> list[bytes]:
    """Frames *first*, … of *content*; all but the very last frame of an object are full (*last*: it is among these)."""
    view = memoryview(content)
    count = frames(len(view))
    return [
        cipher.encrypt(_nonce(first + at, last and at == count - 1), view[at * FRAME : (at + 1) * FRAME], None)
        for at in range(count)
    ]


def unseal(cipher: AESGCM, number: int, frame: memoryview, last: bool) -> bytes:
    """The content of one frame. Raises: Corrupt."""
    try:
        return cipher.decrypt(_nonce(number, last), frame, None)
    except InvalidTag as error:
        raise Corrupt(f"frame {number} of an encrypted object is not what was written") from error
