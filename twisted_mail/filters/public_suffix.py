"""Organizational domains by the public suffix list (RFC 7489 section 3.2), as DMARC had them before RFC 9989.

The list is that of the package ``publicsuffixlist``, which is released anew every few days: nothing is fetched at run time.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

__all__ = ["organizational_domain", "public_suffix"]


@cache
def _list() -> PublicSuffixList:
    """Read when it is first asked for: that takes 0.1 s and 4 MB."""
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList()


def organizational_domain(domain: str) -> str:
    """The name one label below the public suffix of *domain* (A-labels, lower case); itself, where it is one."""
    found: str | None = _list().privatesuffix(domain)
    return found or domain


def public_suffix(domain: str) -> str:
    """``co.uk`` of ``a.example.co.uk``; the last label of what is not in the list."""
    found: str | None = _list().publicsuffix(domain)
    return found or domain
