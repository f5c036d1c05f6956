"""Notes on who sent a message: what SPF, iprev, DKIM, ARC and DMARC found out, for whoever judges it further."""

from __future__ import annotations

import enum

import msgspec

from twisted_mail.filters.values import AuthenticationResult
from twisted_mail.signatures import ChainResult, Verification

__all__ = ["SPF", "ARCResult", "DKIMResults", "DMARCResult", "Disposition", "ReverseName", "SPFHelo", "SPFResult"]


class SPF(enum.Enum):
    """What `check_host` says (RFC 7208 section 2.6), in the words of RFC 8601 section 2.7.2."""

    NONE = "none"
    """There is no record, or no domain that could have one."""
    NEUTRAL = "neutral"
    """The domain says nothing of the client."""
    PASS = "pass"
    FAIL = "fail"
    SOFTFAIL = "softfail"
    """Probably not; the domain does not want it refused for that."""
    TEMPERROR = "temperror"
    """The DNS does not answer now."""
    PERMERROR = "permerror"
    """The record cannot be made sense of."""


class SPFResult(msgspec.Struct, frozen=True):
    """SPF of the reverse-path, noted at the `Mail`; of a null one it is that of HELO (RFC 7208 section 2.4)."""

    result: SPF
    domain: str
    """The one whose record was asked for: of the reverse-path, or said at HELO. A-labels, lower case; may be empty."""
    identity: str = "mailfrom"
    """``mailfrom``, or ``helo`` for the null reverse-path."""
    reason: str = ""
    """The mechanism that matched (``-all``), or what is wrong."""
    explanation: str = ""
    """What the domain wants a refused client to read (``exp=``); a stranger's words, in ASCII."""


class SPFHelo(msgspec.Struct, frozen=True):
    """SPF of the name said at HELO, noted at the `Client` (RFC 7208 section 2.3)."""

    result: SPF
    domain: str
    reason: str = ""


class ReverseName(msgspec.Struct, frozen=True):
    """The client's name by its address, noted at the `Client` (RFC 8601 section 2.7.3)."""

    result: str
    """``pass``: a name leads back to the address; ``fail``: none does; ``permerror``: there is no name;
    ``temperror``: the DNS does not answer."""
    name: str = ""
    """The one that is confirmed, else empty."""
    claimed: tuple[str, ...] = ()
    """All names, confirmed or not."""


class DKIMResults(msgspec.Struct, frozen=True):
    """One for each DKIM signature from the top, noted at the `Mail`; none where the message has none."""

    signatures: tuple[Verification, ...] = ()

    @property
    def passed(self) -> tuple[str, ...]:
        """The domains (``d=``) whose signature is right."""
        return tuple(dict.fromkeys(each.domain for each in self.signatures if each.result.value == "pass"))


class ARCResult(msgspec.Struct, frozen=True):
    """The message's chain, noted at the `Mail`."""

    chain: ChainResult
    trusted: str = ""
    """The domain of the first sealer on the way with only trusted ones behind it, if the chain passes; else empty."""
    dmarc: str = ""
    """What that one saw DMARC say: ``pass``, ``fail``, …; empty where it says nothing."""
    seen: tuple[AuthenticationResult, ...] = ()
    """All that it saw."""


class Disposition(enum.Enum):
    """What a domain wants to become of mail in its name that is not from it (RFC 9989 section 4.7)."""

    NONE = "none"
    QUARANTINE = "quarantine"
    REJECT = "reject"


class DMARCResult(msgspec.Struct, frozen=True, kw_only=True):
    """Noted at the `Mail` (RFC 9989)."""

    result: str
    """``none`` (no policy), ``pass``, ``fail``, ``temperror``, ``permerror`` (RFC 7489 section 11.2)."""
    domain: str = ""
    """Of the author (From); A-labels, lower case."""
    policy_domain: str = ""
    """Where the record was found."""
    policy: Disposition = Disposition.NONE
    """What is wanted for this author domain, if it fails."""
    applied: Disposition = Disposition.NONE
    """What was done, as far as DMARC decides: less than `policy` in test mode, or where a trusted sealer speaks for it."""
    override: str = ""
    """Why `applied` is less than `policy`: ``trusted_forwarder``, ``policy_test_mode``, ``local_policy``."""
    spf_aligned: bool = False
    dkim_aligned: bool = False
    reason: str = ""
    """For ``none`` and the errors: why."""
    domains: tuple[str, ...] = ()
    """All author domains, where there are several."""
