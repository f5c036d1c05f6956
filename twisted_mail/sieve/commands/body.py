"""The body test (RFC 5173)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted_mail.sieve.arguments import Arguments
from twisted_mail.sieve.comparators import fold
from twisted_mail.sieve.matching import MATCHING, matcher
from twisted_mail.sieve.registry import Check, Kind, Operand, Tag, TestSyntax
from twisted_mail.sieve.running import Run

__all__ = ["CAPABILITIES", "TESTS"]

CAPABILITIES = ("body",)


def _body(args: Arguments) -> Check:
    args.scope.reads_body()
    # Section 6: what wildcards took of a body is not remembered.
    match = matcher(args, captures=False)
    values = _transform(args)

    def check(run: Run) -> bool:
        return match(run, values(run))

    return check


def _transform(args: Arguments) -> Callable[[Run], Sequence[str]]:
    """Section 5; ``:text`` is the default."""
    kind = args.choice("transform")
    if kind == "raw":
        return lambda run: (run.message.body_raw(),) if run.message.has_body else ()
    if kind == "content":
        types = args.texts("transform")
        if types.constant is not None:
            constant = tuple(map(fold, types.constant))
            return lambda run: run.message.body_content(constant) if run.message.has_body else ()
        return lambda run: run.message.body_content([fold(one) for one in types(run)]) if run.message.has_body else ()
    return lambda run: (run.message.body_text(),) if run.message.has_body else ()


TESTS = {
    "body": TestSyntax(
        compile=_body,
        needs="body",
        tags=(
            *MATCHING,
            Tag("raw", group="transform"),
            Tag("content", Kind.STRINGS, group="transform"),
            Tag("text", group="transform"),
        ),
        operands=(Operand("keys", Kind.STRINGS),),
    ),
}
