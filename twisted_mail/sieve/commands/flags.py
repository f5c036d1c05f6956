"""imap4flags (RFC 5232): flags of what is kept or filed, in an internal variable and in variables of the script's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from twisted_mail.sieve.commands.variables import storing
from twisted_mail.sieve.flags import flags_of
from twisted_mail.sieve.matching import MATCHING, compile_matcher
from twisted_mail.sieve.registry import Check, CommandSyntax, Kind, Operand, Step, Tag, TestSyntax
from twisted_mail.sieve.text import VARIABLE_NAME, Text, Texts, constant

if TYPE_CHECKING:
    from twisted_mail.sieve.arguments import Arguments
    from twisted_mail.sieve.running import Run

__all__ = ["CAPABILITIES", "COMMANDS", "TAGS", "TESTS"]

CAPABILITIES = ("imap4flags",)

_FLAGS = Tag("flags", Kind.STRINGS, needs="imap4flags")
TAGS = {"fileinto": (_FLAGS,), "keep": (_FLAGS,)}

Flags = tuple[str, ...]


def _set(before: Flags, given: Flags) -> Flags:
    return given


def _added(before: Flags, given: Flags) -> Flags:
    return flags_of((*before, *given))


def _removed(before: Flags, given: Flags) -> Flags:
    gone = {flag.lower() for flag in given}
    return tuple([flag for flag in before if flag.lower() not in gone])


_CHANGES: dict[str, Callable[[Flags, Flags], Flags]] = {"setflag": _set, "addflag": _added, "removeflag": _removed}


def _compile(args: Arguments) -> Step:
    change, texts = _CHANGES[args.name], args.texts("flags")
    known = flags_of(texts.constant) if texts.constant is not None else None
    if args.given("variable"):
        _need_variables(args, "variable")
        store, read = storing(args, "variable"), _reading(args, args.literal("variable"), "variable")

        def step(run: Run) -> None:
            given = known if known is not None else flags_of(texts(run))
            run.spend(1 + len(given))
            store(run, " ".join(change(flags_of((read(run),)), given)))

        return step

    def internal(run: Run) -> None:
        given = known if known is not None else flags_of(texts(run))
        run.spend(1 + len(given))
        run.flags = change(run.flags, given)

    return internal


def _need_variables(args: Arguments, operand: str) -> None:
    if not args.scope.uses("variables"):
        # Section 1.1.
        args.fail(f'flags in a variable need: require "variables"; else {args.name} takes a list of flags only', operand)


def _reading(args: Arguments, name: str, operand: str) -> Callable[[Run], str]:
    """What gives the value of the variable *name*, perhaps a global one (RFC 6609 section 3.4)."""
    name = name.lower()
    shared = name in args.scope.globals
    if name.startswith("global."):
        if not args.scope.uses("include"):
            args.fail('global variables need: require "include"', operand)
        name, shared = name.removeprefix("global."), True
    if not VARIABLE_NAME.fullmatch(name):
        args.fail(f"{name!r} is no name of a variable", operand)
    return (lambda run: run.globals.get(name, "")) if shared else (lambda run: run.locals.get(name, ""))


def _split(texts: Texts) -> Texts:
    """Keys of which each may be several flags (section 2)."""
    if texts.constant is not None:
        return Texts([constant(flag) for flag in _words(texts.constant)])

    def each(index: int) -> Text:
        return Text(None, lambda run: " ".join(_words((texts.texts[index](run),))))

    return _SplitTexts([each(index) for index in range(len(texts.texts))])


class _SplitTexts(Texts):
    """Split anew in each run."""

    def __call__(self, run: Run) -> tuple[str, ...]:
        return tuple(_words(text(run) for text in self.texts))


def _words(values: Iterable[str]) -> list[str]:
    return [word for value in values for word in value.split()]


def _has(args: Arguments) -> Check:
    match = compile_matcher(args, _split(args.texts("flags")), "flags")
    if not args.given("variables"):
        return lambda run: match(run, run.flags)
    _need_variables(args, "variables")
    readers = [_reading(args, name, "variables") for name in args.literals("variables")]

    def check(run: Run) -> bool:
        # Each variable's flags once; the count of several variables is the sum (section 4).
        return match(run, [flag for read in readers for flag in flags_of((read(run),))])

    return check


_GIVEN = Operand("flags", Kind.STRINGS)

COMMANDS = {
    name: CommandSyntax(
        compile=_compile, needs="imap4flags", operands=(Operand("variable", Kind.STRING, optional=True), _GIVEN)
    )
    for name in _CHANGES
}

TESTS = {
    "hasflag": TestSyntax(
        compile=_has,
        needs="imap4flags",
        tags=MATCHING,
        operands=(Operand("variables", Kind.STRINGS, optional=True), _GIVEN),
    )
}
