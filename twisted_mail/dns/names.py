"""Domain names as questions need them: A-labels, lower case, within the limits of RFC 1035."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import idna

__all__ = ["BadName", "a_labels", "is_host_name", "query_name"]

_NAME_OCTETS: Final = 253
_NAME: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*+")
_ANY_LABEL: Final = re.compile(r"[!#-Z^-~]{1,63}")
_HOST_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class BadName(ValueError):
    """It cannot be the name of anything in the DNS."""


@lru_cache(maxsize=4096)
def a_labels(name: str) -> str:
    """*name* in lower case, U-labels turned into A-labels (RFC 5891, with the mapping of UTS 46), without a final dot.

    Underscores are let through (RFC 8552). Raises BadName.
    """
    bare = name[:-1] if name.endswith((".", "\u3002")) else name
    if not bare.isascii():
        try:
            bare = idna.encode(bare, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise BadName(f"{name!r}: {error}") from error
    bare = bare.lower()
    if len(bare) > _NAME_OCTETS or _NAME.fullmatch(bare) is None:
        raise BadName(f"{name[:300]!r} is not a domain name")
    return bare


def query_name(name: str) -> str:
    """*name* as it is asked for: as `a_labels` makes it, or with other printable characters in its labels (RFC 2181 section
    11), as SPF makes names of what senders write (``exists:%{l}._spf.example.org``, RFC 7208 section 7). Raises BadName."""
    try:
        return a_labels(name)
    except BadName:
        bare = name.removesuffix(".").lower()
        if len(bare) > _NAME_OCTETS or not all(_ANY_LABEL.fullmatch(label) for label in bare.split(".")):
            raise
        return bare


def is_host_name(name: str) -> bool:
    """Whether *name* (A-labels, lower case) may name a host (RFC 1123 section 2.1): letters, digits, hyphens, and not an
    IPv4 address in disguise, whose last label is digits only."""
    labels = name.split(".")
    return (
        0 < len(name) <= _NAME_OCTETS
        and all(_HOST_LABEL.fullmatch(label) for label in labels)
        and not labels[-1].isdigit()
    )
