"""DKIM signatures made (RFC 6376 section 5), several of one message at once: an RSA one and an Ed25519 one (RFC 8463).

Reading the message costs hashing; `Unsigned.sign` costs the arithmetic, is pure, and may run in a thread.
``l=`` is never made.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from twisted_mail.signatures.canonical import BodyHash, Canon, relax_field
from twisted_mail.signatures.fields import Fields, RawField
from twisted_mail.signatures.keys import PrivateKey
from twisted_mail.signatures.reading import Reading

__all__ = ["OVERSIGNED", "SIGNED", "DKIMSigner", "SigningKey", "Unsigned", "fold_base64", "fold_tags", "names_to_sign", "raw_field"]

OVERSIGNED: Final = (
    "from sender reply-to subject date message-id to cc in-reply-to references mime-version content-type "
    "content-transfer-encoding"
).split()
"""Named once more than they occur, so that none can be added (section 8.15): what people see, and what says how to read it."""
SIGNED: Final = (
    "content-id content-description resent-date resent-from resent-sender resent-to resent-cc resent-message-id "
    "list-id list-help list-unsubscribe list-unsubscribe-post list-subscribe list-post list-owner list-archive "
    "feedback-id auto-submitted"
).split()
"""Signed if they are there, and then oversigned too: List-Unsubscribe must be (RFC 8058 section 4). A list that a message
goes through may add its own."""
_RESENT: Final = frozenset(name for name in SIGNED if name.startswith("resent-"))
_WIDTH: Final = 76


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key and where its other half is published."""

    domain: str
    """A-labels."""
    selector: str
    key: PrivateKey


def names_to_sign(fields: Fields) -> list[str]:
    """``h=`` for a message: each field as often as it occurs, and once more."""
    names: list[str] = []
    for name in OVERSIGNED:
        names += [name] * (fields.count(name) + 1)
    for name in SIGNED:
        if count := fields.count(name):
            # Resent fields come in blocks, and each hop may add one.
            names += [name] * (count if name in _RESENT else count + 1)
    return names


class DKIMSigner:
    """Signs one message: give `at_body` to its `Reading`; when that is closed, `unsigned` has all that signing needs."""

    def __init__(self, *, now: float, lifetime: int | None = 14 * 86400, identity: str = "") -> None:
        self._now = int(now)
        self._lifetime = lifetime
        self._identity = identity
        self._fields: Fields | None = None
        self._body: BodyHash | None = None

    def at_body(self, reading: Reading) -> None:
        """The header is there."""
        self._fields = reading.fields
        self._body = reading.want(Canon.RELAXED)

    def unsigned(self, keys: Sequence[SigningKey]) -> Unsigned:
        """What is left to do. Raises: RuntimeError before the body has begun (or when the header was too long)."""
        if self._fields is None or self._body is None:
            raise RuntimeError("the header is not there")
        names = names_to_sign(self._fields)
        digest = hashlib.sha256()
        for field in self._fields.chosen(names, Canon.RELAXED):
            digest.update(field)
        tags = [("d", ""), ("s", ""), ("t", str(self._now))]
        if self._lifetime is not None:
            tags.append(("x", str(self._now + self._lifetime)))
        if self._identity:
            tags.append(("i", self._identity))
        tags += [("h", ":".join(names)), ("bh", base64.b64encode(self._body.digest()).decode())]
        return Unsigned(tuple(keys), tuple(tags), digest)


class Unsigned:
    """Hashed, and not yet signed."""

    def __init__(self, keys: tuple[SigningKey, ...], tags: tuple[tuple[str, str], ...], digest: hashlib._Hash) -> None:
        self._keys = keys
        self._tags = tags
        self._digest = digest

    def sign(self) -> bytes:
        """The DKIM-Signature fields, to be put in front of the message; the first key's comes first."""
        return b"".join(self._sign(key) for key in self._keys)

    def _sign(self, key: SigningKey) -> bytes:
        own = {"d": key.domain, "s": key.selector}
        tags = [("v", "1"), ("a", key.key.algorithm), ("c", "relaxed/relaxed")]
        tags += [(name, own.get(name, value)) for name, value in self._tags]
        field = fold_tags("DKIM-Signature", tags)
        digest = self._digest.copy()
        digest.update(relax_field(field))
        return field + fold_base64(key.key.sign(digest.digest())) + b"\r\n"


def fold_tags(name: str, tags: Sequence[tuple[str, str]]) -> bytes:
    """A field of *tags*, folded, up to and with an empty ``b=`` at its end."""
    lines = [f"{name}:"]
    for tag, value in tags:
        if len(lines[-1]) + len(tag) + len(value) + 3 <= _WIDTH:
            lines[-1] += f" {tag}={value};"
        elif len(value) < _WIDTH - 8:
            lines.append(f"\t{tag}={value};")
        else:
            lines += _folded(tag, value)
    lines.append("\tb=")
    return "\r\n".join(lines).encode()


@lru_cache(maxsize=256)
def _folded(tag: str, value: str) -> tuple[str, ...]:
    """A value that is longer than a line, cut behind colons. Messages mostly have the same fields."""
    lines = [f"\t{tag}="]
    for part in value.replace(":", ":\0").split("\0"):
        if len(lines[-1]) + len(part) > _WIDTH:
            lines.append("\t ")
        lines[-1] += part
    lines[-1] += ";"
    return tuple(lines)


def fold_base64(signature: bytes) -> bytes:
    """The value of ``b=``, folded behind it."""
    text = base64.b64encode(signature).decode()
    pieces = [text[:72], *(text[at : at + 74] for at in range(72, len(text), 74))]
    return "\r\n\t ".join(pieces).encode()


def raw_field(octets: bytes) -> RawField:
    """*octets*, a field with its line end, as `Fields` has it."""
    name = octets.partition(b":")[0].strip(b" \t").decode("ascii").lower()
    return RawField(name, octets.removesuffix(b"\r\n"))
