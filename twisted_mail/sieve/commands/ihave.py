"""``ihave`` and ``error`` (RFC 5463): scripts that do with what there is."""

from __future__ import annotations

from twisted_mail.sieve.arguments import Arguments
from twisted_mail.sieve.registry import Check, CommandSyntax, Kind, Operand, Step, TestSyntax
from twisted_mail.sieve.running import Run
from twisted_mail.sieve.values import SieveError

__all__ = ["CAPABILITIES", "COMMANDS", "TESTS"]

CAPABILITIES = ("ihave",)


def _ihave(args: Arguments) -> Check:
    """Which extensions there are is known when the script is compiled; those that it asks for can be used from then on.

    From here on errors wait until they are come to (section 4), since they may stand behind a test that failed.
    """
    wanted = args.literals("capabilities")
    args.scope.tried.update(wanted)
    known = args.scope.compilation.vocabulary.capabilities
    there = all(each in known for each in wanted)
    if there:
        for each in wanted:
            args.scope.require(each)
    return lambda run: there


def _error(args: Arguments) -> Step:
    text, line = args.text("message"), args.line

    def step(run: Run) -> None:
        raise SieveError(text(run), line)

    return step


COMMANDS = {"error": CommandSyntax(compile=_error, needs="ihave", operands=(Operand("message", Kind.STRING),))}
TESTS = {"ihave": TestSyntax(compile=_ihave, needs="ihave", operands=(Operand("capabilities", Kind.STRINGS),))}
