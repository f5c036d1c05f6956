"""What CPython's `email` package sees in a message, in a form that can be compared with ours."""

from __future__ import annotations

import email
import email.message
import email.policy
from collections.abc import Iterator

from twisted_mail.mime import Part, UnknownEncoding, decode_transfer

__all__ = ["Seen", "ours", "theirs"]

Seen = tuple[str, str, int | None, bytes | None]
"""Where in the tree, content type, octets of a leaf's body as sent, and decoded."""


def theirs(octets: bytes) -> list[Seen]:
    """The standard library's view."""
    return list(_walk_theirs(email.message_from_bytes(octets, policy=email.policy.compat32), "0"))


def _walk_theirs(part: email.message.Message, where: str) -> Iterator[Seen]:
    kind = part.get_content_type()
    # get_payload() makes text of 8-bit octets, and fails where the charset lies: the attribute has the octets.
    payload = part._payload  # type: ignore[attr-defined]
    if kind in ("message/rfc822", "message/global") and isinstance(payload, list):
        yield where, kind, None, None
        yield from _walk_theirs(payload[0], where + ".m")
    elif kind.startswith("multipart/"):
        yield where, kind, None, None
        if isinstance(payload, list):
            for number, child in enumerate(payload, 1):
                yield from _walk_theirs(child, f"{where}.{number}")
    elif isinstance(payload, list):
        # It parses message/delivery-status, message/partial and all the others; BODYSTRUCTURE must not.
        yield where, kind, None, None
    else:
        raw = (payload or "").encode("ascii", "surrogateescape")
        decoded = part.get_payload(decode=True)
        assert isinstance(decoded, bytes)
        yield where, kind, len(raw), decoded


def ours(octets: bytes, root: Part) -> list[Seen]:
    """Our view of the same."""
    return list(_walk_ours(octets, root, "0"))


def _walk_ours(octets: bytes, part: Part, where: str) -> Iterator[Seen]:
    kind = part.content_type
    if part.message is not None:
        yield where, kind, None, None
        yield from _walk_ours(octets, part.message, where + ".m")
    elif part.type == "multipart":
        yield where, kind, None, None
        for number, child in enumerate(part.parts, 1):
            yield from _walk_ours(octets, child, f"{where}.{number}")
    elif part.type == "message":
        yield where, kind, None, None
    else:
        body = octets[part.body : part.end]
        try:
            decoded = decode_transfer(part.encoding, body)
        except UnknownEncoding:
            decoded = body
        yield where, kind, len(body), decoded
