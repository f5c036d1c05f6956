"""Tag lists (RFC 6376 section 3.2): ``name=value; name=value``, in signatures and in key records."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

__all__ = ["BadTags", "decode_base64", "list_of", "number_of", "parse_tags"]

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
_FOLDED: Final = re.compile(r"\r?\n(?=[ \t])")
_SPACE: Final = re.compile(r"[ \t\r\n]+")
_MOST_TAGS: Final = 100


class BadTags(Exception):
    """What was read does not follow the grammar; the text says where, for a result's reason."""


def parse_tags(text: str) -> dict[str, str]:
    """Values by tag name, without white space around them; their names keep their case, as they mean something by it.

    Raises: BadTags (no ``=``, a bad name, a name that comes twice, more than 100 tags).
    """
    parts = (_FOLDED.sub("", text) if "\n" in text else text).split(";")
    if not parts[-1].strip(" \t\r\n"):
        parts.pop()
    if len(parts) > _MOST_TAGS:
        raise BadTags("too many tags")
    tags: dict[str, str] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        name = name.strip(" \t\r\n")
        if not equals or _NAME.match(name) is None:
            raise BadTags("malformed tag list")
        if name in tags:
            raise BadTags(f"tag {name} comes twice")
        tags[name] = value.strip(" \t\r\n")
    return tags


def list_of(value: str) -> list[str]:
    """The members of a colon-separated list, without white space; empty ones are left out."""
    return [member for member in _SPACE.sub("", value).split(":") if member]


def number_of(value: str, name: str, digits: int = 12) -> int:
    """A decimal number. Raises: BadTags."""
    if not (value.isascii() and value.isdigit()) or len(value) > digits:
        raise BadTags(f"{name}= is no number")
    return int(value)


def decode_base64(value: str, name: str) -> bytes:
    """Base64 with white space in it (section 2.10). Raises: BadTags."""
    try:
        return base64.b64decode(_SPACE.sub("", value), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadTags(f"{name}= is not base64") from error
