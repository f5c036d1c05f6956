"""``set`` and ``string`` (RFC 5229)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted_mail.sieve.arguments import Arguments
from twisted_mail.sieve.comparators import fold
from twisted_mail.sieve.matching import MATCHING, matcher
from twisted_mail.sieve.patterns import quote_glob, quote_regex
from twisted_mail.sieve.registry import Check, CommandSyntax, Kind, Modifier, Operand, Step, TestSyntax
from twisted_mail.sieve.text import VARIABLE_NAME
from twisted_mail.sieve.values import SieveError

if TYPE_CHECKING:
    from twisted_mail.sieve.running import Run

__all__ = ["CAPABILITIES", "COMMANDS", "MODIFIERS", "TESTS", "modifiers", "storing"]

CAPABILITIES = ("variables",)


def _upper(value: str) -> str:
    return value.upper() if value.isascii() else "".join([each.upper() if each.isascii() else each for each in value])


MODIFIERS = {
    "lower": Modifier(40, fold),
    "upper": Modifier(40, _upper),
    "lowerfirst": Modifier(30, lambda value: fold(value[:1]) + value[1:]),
    "upperfirst": Modifier(30, lambda value: _upper(value[:1]) + value[1:]),
    "quotewildcard": Modifier(20, quote_glob),
    "quoteregex": Modifier(20, quote_regex, needs="regex"),
    "length": Modifier(10, lambda value: str(len(value))),
}


def modifiers(args: Arguments) -> Callable[[str], str]:
    """What the modifiers that were given make of a value, those of highest precedence first (section 4.1)."""
    known = args.scope.compilation.vocabulary.modifiers
    changes = []
    for precedence in sorted({modifier.precedence for modifier in known.values()}, reverse=True):
        name = args.choice(f"modifier-{precedence}")
        if name:
            changes.append(known[name].change)
    if not changes:
        return lambda value: value

    def change(value: str) -> str:
        for each in changes:
            value = each(value)
        return value

    return change


def storing(args: Arguments, operand: str) -> Callable[[Run, str], None]:
    """What sets the variable that *operand* names. Too long a value is cut (section 6).

    Raises: SieveError for what is no name of a variable that can be set.
    """
    scope = args.scope
    name = args.literal(operand).lower()
    shared = False
    if name.startswith("global."):
        if not scope.uses("include"):
            args.fail('global variables need: require "include"', operand)
        name = name.removeprefix("global.")
        shared = True
    if not VARIABLE_NAME.fullmatch(name):
        args.fail(f"{name!r} is no name of a variable", operand)
    if not shared:
        shared = name in scope.globals
        if not shared:
            scope.variables.add(name)
    line = args.line

    def store(run: Run, value: str) -> None:
        most = run.limits.variable_bytes
        if len(value) * 4 > most:
            octets = value.encode("utf-8", "replace")
            if len(octets) > most:
                value = octets[:most].decode("utf-8", "ignore")
        variables = run.globals if shared else run.locals
        run.memory -= len(value) - len(variables.get(name, ""))
        if run.memory < 0:
            raise SieveError(f"variables hold more than {run.limits.memory_bytes} characters", line)
        variables[name] = value

    return store


def _set(args: Arguments) -> Step:
    value = args.text("value")
    store = storing(args, "name")
    change = modifiers(args)
    constant = value.constant
    if constant is not None:
        changed = change(constant)
        return lambda run: store(run, changed)
    return lambda run: store(run, change(value(run)))


def _string(args: Arguments) -> Check:
    source = args.texts("source")
    match = matcher(args)
    if match.counts:
        # Section 5: the empty string counts nothing.
        return lambda run: match(run, [value for value in source(run) if value])
    return lambda run: match(run, source(run))


COMMANDS = {
    "set": CommandSyntax(
        compile=_set,
        needs="variables",
        operands=(Operand("name", Kind.STRING), Operand("value", Kind.STRING)),
    ),
}
TESTS = {
    "string": TestSyntax(
        compile=_string,
        needs="variables",
        tags=MATCHING,
        operands=(Operand("source", Kind.STRINGS), Operand("keys", Kind.STRINGS)),
    ),
}
