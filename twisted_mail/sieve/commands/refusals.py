"""reject and ereject (RFC 5429): the sender is told that the message was not taken, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_mail.sieve.registry import CommandSyntax, Kind, Operand, Step
from twisted_mail.sieve.values import Reject

if TYPE_CHECKING:
    from twisted_mail.sieve.arguments import Arguments
    from twisted_mail.sieve.running import Run

__all__ = ["CAPABILITIES", "COMMANDS"]

CAPABILITIES = ("ereject", "reject")


def _compile(args: Arguments) -> Step:
    reason, line, name = args.text("reason"), args.line, args.name

    def step(run: Run) -> None:
        run.act(Reject(reason(run), name == "ereject"), line, keep=False)
        run.tell(line, name)

    return step


COMMANDS = {
    name: CommandSyntax(compile=_compile, needs=name, operands=(Operand("reason", Kind.STRING),))
    for name in ("reject", "ereject")
}
