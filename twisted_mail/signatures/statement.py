"""What a signature says of itself: the tags of DKIM-Signature and of ARC-Message-Signature and ARC-Seal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import idna

from twisted_mail.signatures.canonical import Canon
from twisted_mail.signatures.fields import RawField
from twisted_mail.signatures.tags import BadTags, decode_base64, list_of, number_of, parse_tags

__all__ = ["Statement", "Unacceptable", "a_labels", "read_dkim", "read_message_seal", "read_seal", "without_signature"]

_DOMAIN: Final = re.compile(r"(?=.{1,253}\Z)(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)+[A-Za-z0-9-]{1,63}\Z")
_SELECTOR: Final = re.compile(
    r"(?=.{1,200}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
    r"(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\Z"
)
_HEX: Final = re.compile(r"=[0-9A-F]{2}")
_MOST_NAMES: Final = 500
_MOST_OCTETS: Final = 64 * 1024
_ALGORITHMS: Final = {"rsa-sha256": "rsa", "ed25519-sha256": "ed25519"}


class Unacceptable(Exception):
    """It can be read, and can never be verified; the text is for a result's reason."""


@dataclass(frozen=True, slots=True)
class Statement:
    """The tags that matter, checked."""

    field: RawField
    algorithm: str
    signature: bytes
    signature_start: str
    domain: str
    """A-labels, lower case."""
    selector: str
    names: tuple[str, ...] = ()
    """``h=``, lower case; of an ARC-Seal empty."""
    body_hash: bytes = b""
    header_canon: Canon = Canon.RELAXED
    body_canon: Canon = Canon.RELAXED
    length: int | None = None
    """``l=``."""
    identity: str = ""
    """``i=`` of DKIM-Signature."""
    signed_at: int | None = None
    expires_at: int | None = None
    chain: str = ""
    """``cv=`` of ARC-Seal, lower case."""

    @property
    def key_name(self) -> str:
        """Where the key record is."""
        return f"{self.selector}._domainkey.{self.domain}"

    @property
    def key_type(self) -> str:
        return _ALGORITHMS[self.algorithm]


def a_labels(domain: str) -> str:
    """A domain in lower case and ASCII (RFC 8616). Raises: BadTags."""
    if not domain.isascii():
        try:
            domain = idna.encode(domain, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError) as error:
            raise BadTags("malformed domain") from error
    return domain.lower().removesuffix(".")


def without_signature(raw: bytes) -> bytes:
    """The field with the value of ``b=`` taken out, white space around it too (RFC 6376 section 3.7)."""
    name, colon, value = raw.partition(b":")
    parts = value.split(b";")
    for at, part in enumerate(parts):
        tag, equals, _ = part.partition(b"=")
        if equals and tag.strip(b" \t\r\n") == b"b":
            parts[at] = tag + equals
            break
    return name + colon + b";".join(parts)


def read_dkim(field: RawField) -> Statement:
    """Read a DKIM-Signature (RFC 6376 section 3.5). Raises: BadTags, Unacceptable."""
    tags = _tags(field, ("v", "a", "b", "bh", "d", "h", "s"))
    if tags["v"] != "1":
        raise BadTags("unknown version")
    if "dns/txt" not in [each.lower() for each in list_of(tags.get("q", "dns/txt"))]:
        raise Unacceptable("no way to fetch the key that is known")
    statement = _message_statement(field, tags, default_canon=Canon.SIMPLE)
    if "from" not in statement.names:
        raise Unacceptable("From field not signed")
    domain = a_labels(statement.identity.rpartition("@")[2])
    if domain != statement.domain and not domain.endswith("." + statement.domain):
        raise Unacceptable("i= is not of the domain d=")
    return statement


def read_message_seal(field: RawField) -> Statement:
    """Read an ARC-Message-Signature (RFC 8617 section 4.1.2). Raises: BadTags, Unacceptable."""
    tags = _tags(field, ("a", "b", "bh", "d", "h", "s"))
    # Its i= is the instance.
    statement = _message_statement(field, {**tags, "i": ""}, default_canon=Canon.RELAXED)
    if "arc-seal" in statement.names:
        raise Unacceptable("ARC-Message-Signature covers an ARC-Seal")
    return statement


def read_seal(field: RawField) -> Statement:
    """Read an ARC-Seal (RFC 8617 section 4.1.3). Raises: BadTags, Unacceptable."""
    tags = _tags(field, ("a", "b", "cv", "d", "s"))
    if "h" in tags or "bh" in tags:
        raise Unacceptable("ARC-Seal with h=")
    domain, selector = _place_of_key(tags)
    return Statement(
        field=field,
        algorithm=_algorithm(tags["a"]),
        signature=decode_base64(tags["b"], "b"),
        signature_start=_start(tags["b"]),
        domain=domain,
        selector=selector,
        signed_at=number_of(tags["t"], "t") if "t" in tags else None,
        chain=tags["cv"].lower(),
    )


def _tags(field: RawField, required: tuple[str, ...]) -> dict[str, str]:
    if len(field.raw) > _MOST_OCTETS:
        raise BadTags("signature field too long")
    try:
        tags = parse_tags(field.value.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadTags("signature field is not UTF-8") from error
    for name in required:
        if not tags.get(name):
            raise BadTags(f"{name}= is missing")
    return tags


def _message_statement(field: RawField, tags: Mapping[str, str], default_canon: Canon) -> Statement:
    """What DKIM-Signature and ARC-Message-Signature have in common."""
    domain, selector = _place_of_key(tags)
    names = tuple(name.lower() for name in list_of(tags["h"]))
    if len(names) > _MOST_NAMES:
        raise BadTags("too many names in h=")
    header_canon = body_canon = default_canon
    if "c" in tags:
        header, _, body = tags["c"].lower().partition("/")
        try:
            header_canon, body_canon = Canon(header), Canon(body or "simple")
        except ValueError as error:
            raise BadTags("unknown canonicalization") from error
    signed_at = number_of(tags["t"], "t") if "t" in tags else None
    expires_at = number_of(tags["x"], "x") if "x" in tags else None
    if signed_at is not None and expires_at is not None and expires_at <= signed_at:
        raise BadTags("x= is not later than t=")
    return Statement(
        field=field,
        algorithm=_algorithm(tags["a"]),
        signature=decode_base64(tags["b"], "b"),
        signature_start=_start(tags["b"]),
        domain=domain,
        selector=selector,
        names=names,
        body_hash=decode_base64(tags["bh"], "bh"),
        header_canon=header_canon,
        body_canon=body_canon,
        length=number_of(tags["l"], "l", digits=76) if "l" in tags else None,
        identity=_quoted_printable(tags.get("i") or "@" + domain),
        signed_at=signed_at,
        expires_at=expires_at,
    )


def _algorithm(value: str) -> str:
    algorithm = value.lower()
    if algorithm == "rsa-sha1":
        raise Unacceptable("rsa-sha1 is not accepted any more (RFC 8301)")
    if algorithm not in _ALGORITHMS:
        raise BadTags("unknown algorithm")
    return algorithm


def _place_of_key(tags: Mapping[str, str]) -> tuple[str, str]:
    domain, selector = a_labels(tags["d"]), a_labels(tags["s"])
    if _DOMAIN.match(domain) is None:
        raise BadTags("malformed domain")
    if _SELECTOR.match(selector) is None:
        raise BadTags("malformed selector")
    return domain, selector


def _start(signature: str) -> str:
    return "".join(signature.split())[:8]


def _quoted_printable(value: str) -> str:
    """Section 2.11: "=" and two digits, white space without meaning."""
    packed = "".join(value.split())
    return _HEX.sub(lambda match: chr(int(match[0][1:], 16)), packed)
