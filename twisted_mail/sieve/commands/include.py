"""``include``, ``return`` and ``global`` (RFC 6609).

Included scripts are compiled with the one that includes them, each once. What may be wrong with them (they are missing,
they are no valid scripts, they include themselves) is said when the place is come to, as the RFC asks: a script can be
uploaded before those that it includes.
"""

from __future__ import annotations

import re
from typing import Final

from twisted_mail.sieve.arguments import Arguments
from twisted_mail.sieve.compiler import script_of
from twisted_mail.sieve.lexer import Source
from twisted_mail.sieve.registry import CommandSyntax, Kind, Operand, Step, Tag
from twisted_mail.sieve.running import Returned, Run
from twisted_mail.sieve.scope import NAMESPACES, Compilation, Scope
from twisted_mail.sieve.text import VARIABLE_NAME, Reader, global_variable
from twisted_mail.sieve.values import SieveError

__all__ = ["CAPABILITIES", "COMMANDS"]

CAPABILITIES = ("include",)

_NAME: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,128}")
"""RFC 5804 section 1.6."""


class _Included:
    """A script that is included somewhere."""

    def __init__(self, location: str, name: str):
        self.location = location
        self.name = name
        self.missing = False
        self.error: SieveError | None = None
        self.step: Step | None = None


def _included(compilation: Compilation, location: str, name: str) -> _Included:
    found = compilation.included.get((location, name))
    if isinstance(found, _Included):
        return found
    included = compilation.included[location, name] = _Included(location, name)
    text = compilation.include(location, name) if compilation.include is not None else None
    if text is None:
        included.missing = True
        return included
    try:
        included.step = script_of(Source(text, name), compilation)
    except SieveError as error:
        included.error = error
    return included


def _include(args: Arguments) -> Step:
    compilation = args.scope.compilation
    name = args.literal("name")
    if not _NAME.fullmatch(name):
        args.fail(f"{name!r} is no name of a script", "name")
    compilation.places += 1
    if compilation.places > compilation.limits.includes:
        args.fail(f"more than {compilation.limits.includes} scripts are included")
    included = _included(compilation, args.choice("location") or "personal", name)
    once, optional, line = args.flag("once"), args.flag("optional"), args.line
    depth = compilation.limits.include_depth - 1

    def step(run: Run) -> None:
        if once and (included in run.once or included in run.stack):
            return
        if included.missing:
            if optional:
                return
            raise SieveError(f"there is no {included.location} script {name!r} to include", line)
        if included in run.stack:
            raise SieveError(f"the script {name!r} includes itself", line)
        if len(run.stack) >= depth:
            raise SieveError(f"more than {depth + 1} scripts in one another", line)
        if included.step is None:
            error = included.error
            raise SieveError(str(error) if error is not None else f"the script {name!r} is not ready", line)
        run.once.add(included)
        run.spend(10)
        run.tell(line, f'include "{name}"')
        before, values, depth_before = run.locals, run.values, len(run.stack)
        run.locals, run.values = {}, ()
        run.stack.append(included)
        try:
            included.step(run)
        except Returned:
            pass
        finally:
            del run.stack[depth_before:]
            run.memory += sum(map(len, run.locals.values()))
            run.locals, run.values = before, values

    return step


def _return(args: Arguments) -> Step:
    line = args.line

    def step(run: Run) -> None:
        run.tell(line, "return")
        raise Returned

    return step


def _global(args: Arguments) -> Step:
    scope = args.scope
    if not scope.uses("variables"):
        args.fail('global needs: require "variables"')
    for name in args.literals("names"):
        if not VARIABLE_NAME.fullmatch(name):
            args.fail(f"{name!r} is no name of a variable", "names")
        if name.lower() in scope.variables:
            args.fail(f"the variable {name!r} is there already, and is not global", "names")
        scope.globals.add(name.lower())
    return lambda run: None


def _namespace(scope: Scope, name: str) -> Reader:
    """``${global.name}`` (section 3.4.2)."""
    if not scope.uses("include"):
        raise SieveError('the namespace "global" needs: require "include"')
    if not VARIABLE_NAME.fullmatch(name):
        raise SieveError(f"{name!r} is no name of a global variable")
    return global_variable(name)


NAMESPACES["global"] = _namespace

COMMANDS = {
    "include": CommandSyntax(
        compile=_include,
        needs="include",
        tags=(Tag("personal", group="location"), Tag("global", group="location"), Tag("once"), Tag("optional")),
        operands=(Operand("name", Kind.STRING),),
    ),
    "return": CommandSyntax(compile=_return, needs="include"),
    "global": CommandSyntax(compile=_global, needs="include", operands=(Operand("names", Kind.STRINGS),)),
}
