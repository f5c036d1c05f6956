"""spamtest, spamtestplus and virustest (RFC 5235): what the filters found, as figures of fixed ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_mail.sieve.matching import MATCHING, matcher
from twisted_mail.sieve.registry import Check, Kind, Operand, Tag, TestSyntax

if TYPE_CHECKING:
    from twisted_mail.sieve.arguments import Arguments
    from twisted_mail.sieve.running import Run

__all__ = ["CAPABILITIES", "IMPLIES", "TESTS", "spam_value"]

CAPABILITIES = ("spamtest", "spamtestplus", "virustest")
IMPLIES = {"spamtestplus": ("spamtest",)}


def spam_value(percent: float) -> int:
    """1 (clear of spam) to 10 (spam for certain) for 0 to 100 percent (RFC 5235 section 2.1)."""
    return 1 + int(max(0.0, min(percent, 100.0)) * 9 / 100 + 0.5)


def _spam(args: Arguments) -> Check:
    percent, match = args.flag("percent"), matcher(args, "value")

    def check(run: Run) -> bool:
        found = run.environment.spam_percent
        if found is None:
            # Not tested is "0" with and without :percent, and no value at all to :count (section 2).
            return match(run, () if match.counts else ("0",))
        value = int(max(0.0, min(found, 100.0)) + 0.5) if percent else spam_value(found)
        return match(run, (str(value),))

    return check


def _virus(args: Arguments) -> Check:
    match = matcher(args, "value")

    def check(run: Run) -> bool:
        found = run.environment.virus
        return match(run, () if match.counts and not found else (str(max(0, min(found, 5))),))

    return check


_VALUE = Operand("value", Kind.STRING)

TESTS = {
    "spamtest": TestSyntax(
        compile=_spam, needs="spamtest", tags=(*MATCHING, Tag("percent", needs="spamtestplus")), operands=(_VALUE,)
    ),
    "virustest": TestSyntax(compile=_virus, needs="virustest", tags=MATCHING, operands=(_VALUE,)),
}
