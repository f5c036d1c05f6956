"""``stop``, and what tests are joined with (RFC 5228 sections 3.3, 5.2, 5.3, 5.8, 5.10).

``require`` and ``if`` are the compiler's own: they stand in an order that other commands do not have.
"""

from __future__ import annotations

from twisted_mail.sieve.arguments import Arguments
from twisted_mail.sieve.registry import Check, CommandSyntax, Step, Tests, TestSyntax, charged, uncharged
from twisted_mail.sieve.running import Run, Stopped

__all__ = ["COMMANDS", "TESTS"]


def _stop(args: Arguments) -> Step:
    line = args.line

    def step(run: Run) -> None:
        run.tell(line, "stop")
        raise Stopped

    return step


def _allof(args: Arguments) -> Check:
    checks = args.checks
    if len(checks) == 2:
        (first, one), (second, two) = map(uncharged, checks)
        if one and two:
            before, behind = checks
            return charged(lambda run: before(run) and behind(run), lambda run: first(run) and second(run), one + two)
        first, second = checks
        return lambda run: first(run) and second(run)

    def check(run: Run) -> bool:
        for each in checks:
            if not each(run):
                return False
        return True

    return check


def _anyof(args: Arguments) -> Check:
    checks = args.checks
    if len(checks) == 2:
        (first, one), (second, two) = map(uncharged, checks)
        if one and two:
            before, behind = checks
            return charged(lambda run: before(run) or behind(run), lambda run: first(run) or second(run), one + two)
        first, second = checks
        return lambda run: first(run) or second(run)

    def check(run: Run) -> bool:
        for each in checks:
            if each(run):
                return True
        return False

    return check


def _not(args: Arguments) -> Check:
    (inner,) = args.checks
    free, cost = uncharged(inner)
    if cost:
        return charged(lambda run: not inner(run), lambda run: not free(run), cost)
    return lambda run: not inner(run)


COMMANDS = {"stop": CommandSyntax(compile=_stop)}
TESTS = {
    "allof": TestSyntax(compile=_allof, tests=Tests.LIST),
    "anyof": TestSyntax(compile=_anyof, tests=Tests.LIST),
    "not": TestSyntax(compile=_not, tests=Tests.ONE),
    "true": TestSyntax(compile=lambda args: lambda run: True),
    "false": TestSyntax(compile=lambda args: lambda run: False),
}
