"""What came of a check, in the words of RFC 8601 section 2.7."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

__all__ = ["DEFAULT_LIMITS", "ArcSet", "Chain", "ChainResult", "Limits", "Result", "Verification"]


class Result(enum.Enum):
    """Of one DKIM signature (RFC 8601 section 2.7.1)."""

    PASS = "pass"
    FAIL = "fail"
    """It was checked, and is not of this message: changed on its way, or forged; or it has expired."""
    NEUTRAL = "neutral"
    """It could not be read."""
    POLICY = "policy"
    """It may be right, and is not accepted: a short key, octets behind ``l=``, one signature too many."""
    TEMPERROR = "temperror"
    """The key could not be fetched now."""
    PERMERROR = "permerror"
    """It cannot be checked, ever: no key, a revoked one, an algorithm given up."""


@dataclass(frozen=True, slots=True)
class Verification:
    """Of one signature of a message."""

    result: Result
    reason: str = ""
    """Why, if it is no pass."""
    domain: str = ""
    """``d=``, lower case, A-labels; empty if it could not be read."""
    identity: str = ""
    """``i=``."""
    selector: str = ""
    algorithm: str = ""
    signature_start: str = ""
    """The first eight characters of ``b=``, which tell signatures apart (RFC 6008)."""
    testing: bool = False
    """The key says ``t=y``: a failure is to be taken as no signature (RFC 6376 section 3.6.1)."""
    covered: tuple[str, ...] = ()
    """``h=``, lower case."""
    signed_at: int | None = None
    """``t=``."""


class Chain(enum.Enum):
    """Of a message's ARC sets together (RFC 8617 section 4.4)."""

    NONE = "none"
    PASS = "pass"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class ArcSet:
    """One hop that sealed."""

    instance: int
    domain: str
    """``d=`` of its seal."""
    results: str
    """Its Authentication-Results behind the instance, unfolded."""
    chain: Chain
    """What it says of the chain that it found."""


@dataclass(frozen=True, slots=True)
class ChainResult:
    """What the chain is worth."""

    chain: Chain
    reason: str = ""
    temporary: bool = False
    """It fails because a key could not be fetched now."""
    sets: tuple[ArcSet, ...] = field(default=())
    """In ascending order; to be believed only if the chain passes, and then as far as each domain is trusted."""
    oldest_pass: int = 0
    """The least instance from which on the message is unchanged; 0: it has not been changed at all (section 5.2)."""
    instances: int = 0
    """The highest instance there is, whatever the chain is worth."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is looked at of a message."""

    signatures: int = 10
    """DKIM signatures; those further down get `Result.POLICY` (RFC 6376 section 8.4)."""
    header_bytes: int = 1 << 20
    """A longer header is not checked at all."""
    body_hashes: int = 8
    """Different ways to hash the body (two, and one for each ``l=``)."""
    rsa_bits: int = 1024
    """The shortest RSA key (RFC 8301 section 3.2)."""
    clock_skew: int = 600
    """Seconds that ``t=`` may lie ahead and ``x=`` behind."""


DEFAULT_LIMITS: Final = Limits()
