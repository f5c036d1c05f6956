"""environment (RFC 5183): what is known about where a script runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_mail.sieve.matching import MATCHING, matcher
from twisted_mail.sieve.registry import Check, Kind, Operand, TestSyntax

if TYPE_CHECKING:
    from twisted_mail.sieve.arguments import Arguments
    from twisted_mail.sieve.running import Run

__all__ = ["CAPABILITIES", "TESTS"]

CAPABILITIES = ("environment",)


def _compile(args: Arguments) -> Check:
    name, match = args.text("name"), matcher(args)

    def check(run: Run) -> bool:
        value = run.environment.items.get(name(run).lower())
        # An item that is not known makes the test false, whatever the match type (RFC 5183 section 4).
        # One that is empty counts nothing.
        return value is not None and match(run, () if match.counts and not value else (value,))

    return check


TESTS = {
    "environment": TestSyntax(
        compile=_compile,
        needs="environment",
        tags=MATCHING,
        operands=(Operand("name", Kind.STRING), Operand("keys", Kind.STRINGS)),
    )
}
