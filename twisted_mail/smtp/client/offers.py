"""What a server offers in its answer to EHLO or LHLO (RFC 5321 section 4.1.1.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["NOTHING", "Offers"]

_keyword = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:[ =]+(.*))?")
MOST: Final = 200
"""Lines that are looked at."""


@dataclass(frozen=True, slots=True)
class Offers:
    """The extensions that sending makes use of."""

    pipelining: bool = False
    """RFC 2920."""
    chunking: bool = False
    """RFC 3030."""
    eight_bit: bool = False
    """8BITMIME (RFC 6152)."""
    smtputf8: bool = False
    """RFC 6531."""
    size: int | None = None
    """SIZE (RFC 1870): the largest message; 0: offered, no limit known; None: not offered."""
    dsn: bool = False
    """RFC 3461."""
    starttls: bool = False
    """RFC 3207."""
    auth: tuple[str, ...] = ()
    """RFC 4954: mechanisms, in upper case."""
    deliver_by: int | None = None
    """DELIVERBY (RFC 2852): the least number of seconds, 0 if none was said; None: not offered."""
    priority: bool = False
    """MT-PRIORITY (RFC 6710)."""
    requiretls: bool = False
    """RFC 8689."""
    most_messages: int = 0
    """MAILMAX (RFC 9422): transactions on one connection; 0: no word of it."""
    most_recipients: int = 0
    """RCPTMAX: recipients of one transaction; 0: no word of it."""
    most_domains: int = 0
    """RCPTDOMAINMAX: different domains of one transaction's recipients; 0: no word of it."""

    @classmethod
    def parse(cls, lines: Sequence[str]) -> Offers:
        """From the lines of the reply without their codes, the first of which is the greeting.

        What is malformed counts as not there: an extension that is not used does no harm.
        """
        found: dict[str, str] = {}
        auth: list[str] = []
        for line in lines[1:MOST]:
            match = _keyword.fullmatch(line)
            if match is not None:
                keyword, parameters = match[1].upper(), match[2] or ""
                if keyword == "AUTH":  # also as AUTH=LOGIN, from before RFC 2554
                    auth += parameters.upper().split()
                found.setdefault(keyword, parameters)
        limits = dict(word.upper().partition("=")[::2] for word in found.get("LIMITS", "").split())
        return cls(
            pipelining="PIPELINING" in found,
            chunking="CHUNKING" in found,
            eight_bit="8BITMIME" in found,
            smtputf8="SMTPUTF8" in found,
            size=_number(found["SIZE"]) if "SIZE" in found else None,
            dsn="DSN" in found,
            starttls="STARTTLS" in found,
            auth=tuple(dict.fromkeys(auth)),
            deliver_by=_number(found["DELIVERBY"].partition(",")[0]) if "DELIVERBY" in found else None,
            priority="MT-PRIORITY" in found,
            requiretls="REQUIRETLS" in found,
            most_messages=_number(limits.get("MAILMAX", "")),
            most_recipients=_number(limits.get("RCPTMAX", "")),
            most_domains=_number(limits.get("RCPTDOMAINMAX", "")),
        )


def _number(text: str) -> int:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else 0


NOTHING: Final = Offers()
"""What HELO tells."""
