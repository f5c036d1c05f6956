"""From the text of a script to something that runs: closures, one for each command and test, made once.

Everything that can be wrong is found here, with line and column; what only shows at run time ends the run in the
implicit keep (RFC 5228 section 2.10.6).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from twisted_mail.sieve.arguments import bind
from twisted_mail.sieve.lexer import Source
from twisted_mail.sieve.parser import parse
from twisted_mail.sieve.registry import Check, Step, uncharged
from twisted_mail.sieve.running import Run
from twisted_mail.sieve.scope import Compilation, Scope
from twisted_mail.sieve.syntax import Node, Strings
from twisted_mail.sieve.values import SieveError

__all__ = ["block_of", "check_of", "script_of", "sequence"]

Branch = tuple[Check, Step, str]
"""A test, what is done where it is true, and the sentence for the trace that says so."""

_ROW: Final = 16
"""Ifs of a row that are counted together, and so perhaps in vain."""
_CHAIN: Final = ("if", "elsif", "else")


def script_of(source: Source, compilation: Compilation) -> Step:
    """A script, main or included.

    Raises: SieveError.
    """
    if len(source.text) > compilation.limits.script_bytes or compilation.octets > compilation.limits.script_bytes:
        raise SieveError(f"the script is larger than {compilation.limits.script_bytes} octets")
    octets = len(source.text.encode("utf-8", "replace"))
    compilation.octets += octets
    if compilation.octets > compilation.limits.script_bytes:
        raise SieveError(f"the script is larger than {compilation.limits.script_bytes} octets")
    scope = Scope(source, compilation)
    nodes = parse(source, compilation.limits.nesting)
    behind = 0
    while behind < len(nodes) and nodes[behind].name == "require":
        _require(nodes[behind], scope)
        behind += 1
    return block_of(nodes[behind:], scope)


def _require(node: Node, scope: Scope) -> None:
    """``require`` (RFC 5228 section 3.2)."""
    fail = scope.source.fail
    if node.tests or node.block is not None or len(node.arguments) != 1:
        fail("require takes one argument: a string or a list of strings", node.at)
    (argument,) = node.arguments
    if not isinstance(argument, Strings):
        fail("require takes a string or a list of strings", argument.at)
    for item in argument.items:
        if not scope.require(item.value):
            fail(f"the extension {item.value!r} is not known here", item.at)


def block_of(nodes: Sequence[Node], scope: Scope) -> Step:
    """The commands of a block, one behind the other."""
    steps: list[Step] = []
    row: list[Branch] = []
    index = 0
    while index < len(nodes):
        node = nodes[index]
        if node.name not in _CHAIN:
            _end_row(row, steps)
            steps.append(_deferred(scope, node, lambda node=node: _command(node, scope)))  # type: ignore[misc]
            index += 1
            continue
        if node.name != "if":
            scope.source.fail(f"{node.name} stands behind no if", node.at)
        chain = [node]
        index += 1
        while index < len(nodes) and nodes[index].name in ("elsif", "else"):
            if chain[-1].name == "else":
                scope.source.fail(f"{nodes[index].name} stands behind an else", nodes[index].at)
            chain.append(nodes[index])
            index += 1
        branches, otherwise = _chain(chain, scope)
        if len(branches) == 1 and otherwise is None:
            row += branches
        else:
            _end_row(row, steps)
            steps.append(_first_of(branches, otherwise))
    _end_row(row, steps)
    return sequence(steps)


def _end_row(row: list[Branch], steps: list[Step]) -> None:
    """Ifs that stand one behind the other, with nothing else, are one step: most scripts are nothing but these."""
    if row:
        for at in range(0, len(row), _ROW):
            part = row[at : at + _ROW]
            steps.append(_if(*part[0]) if len(part) == 1 else _each_of(part))
        row.clear()


def sequence(steps: Sequence[Step]) -> Step:
    """Runs *steps* in order, and counts them."""
    if not steps:
        return _nothing
    some = tuple(steps)
    count = len(some)
    if count == 1:
        only = some[0]

        def single(run: Run) -> None:
            run.steps -= 1
            only(run)

        return single

    def block(run: Run) -> None:
        run.steps -= count
        if run.steps < 0:
            run.spend(0)
        for step in some:
            step(run)

    return block


def _nothing(run: Run) -> None:
    pass


def _deferred(scope: Scope, node: Node, compile: Callable[[], Step]) -> Step:
    """Behind ihave what is wrong with extensions is said when it is come to, not before (RFC 5463 section 4)."""
    if not scope.tried:
        return compile()
    try:
        return compile()
    except SieveError as error:
        return _failing(error)


def _failing(error: SieveError) -> Step:
    def fail(run: Run) -> None:
        raise SieveError(error.text, error.line, error.column)

    return fail


def _command(node: Node, scope: Scope) -> Step:
    vocabulary = scope.compilation.vocabulary
    if node.name == "require":
        scope.source.fail("require must stand in front of all other commands", node.at)
    syntax = vocabulary.commands.get(node.name)
    if syntax is None:
        what = "a test, not a command" if node.name in vocabulary.tests else "no command that is known here"
        scope.source.fail(f"{node.name} is {what}", node.at)
    if syntax.needs:
        scope.need(syntax.needs, node.name, node.at)
    args = bind(node, syntax, vocabulary.command_tags[node.name], scope)
    args.checks = tuple(check_of(test, scope) for test in node.tests)
    if node.block is None:
        return syntax.compile(args)
    loops = len(scope.loops)
    try:
        if syntax.opens is not None:
            syntax.opens(args)
        args.block = block_of(node.block, scope)
        return syntax.compile(args)
    finally:
        del scope.loops[loops:]


def check_of(node: Node, scope: Scope) -> Check:
    """A test, with the tests in it."""
    try:
        return _check(node, scope)
    except SieveError as error:
        if not scope.tried:
            raise
        return _failing_check(error)


def _check(node: Node, scope: Scope) -> Check:
    vocabulary = scope.compilation.vocabulary
    syntax = vocabulary.tests.get(node.name)
    if syntax is None:
        what = "a command, not a test" if node.name in vocabulary.commands else "no test that is known here"
        scope.source.fail(f"{node.name} is {what}", node.at)
    if syntax.needs:
        scope.need(syntax.needs, node.name, node.at)
    args = bind(node, syntax, vocabulary.test_tags[node.name], scope)
    args.checks = tuple(check_of(test, scope) for test in node.tests)
    return syntax.compile(args)


def _chain(chain: Sequence[Node], scope: Scope) -> tuple[list[Branch], Step | None]:
    """``if``, ``elsif``, ``else`` (RFC 5228 section 3.1)."""
    branches: list[Branch] = []
    otherwise: Step | None = None
    for node in chain:
        if node.arguments or node.parenthesized:
            scope.source.fail(f"{node.name} takes {'no arguments' if node.name == 'else' else 'one test'}", node.at)
        if node.block is None:
            scope.source.fail(f"{node.name} takes a block", node.at)
        if node.name == "else":
            if node.tests:
                scope.source.fail("else takes no test", node.tests[0].at)
            otherwise = block_of(node.block, scope)
            continue
        if len(node.tests) != 1:
            scope.source.fail(f"{node.name} takes one test", node.at)
        check = check_of(node.tests[0], scope)
        sentence = f"line {scope.source.line(node.at)}: {node.name} {_shown(node.tests[0])}"
        if scope.compilation.explain:
            check = _explained(check, sentence + ": false")
        branches.append((check, block_of(node.block, scope), sentence + ": true"))
    return branches, otherwise


def _first_of(branches: Sequence[Branch], otherwise: Step | None) -> Step:
    """The first that is true, else *otherwise*."""
    some = tuple(branches)

    def step(run: Run) -> None:
        for check, block, sentence in some:
            if check(run):
                run.note(sentence)
                block(run)
                return
        if otherwise is not None:
            otherwise(run)

    return step


def _each_of(row: Sequence[Branch]) -> Step:
    """All that are true, one after the other. What their tests cost is counted before, for all of them."""
    more = len(row) - 1  # the step itself is counted by who runs it
    cost = sum(uncharged(check)[1] for check, _, _ in row)
    some = tuple([(uncharged(check)[0], block, sentence) for check, block, sentence in row])

    def step(run: Run) -> None:
        run.steps = steps = run.steps - more - run.weight * cost
        if steps < 0:
            run.spend(0)
        for check, block, sentence in some:
            if check(run):
                run.note(sentence)
                block(run)

    return step


def _if(check: Check, block: Step, sentence: str) -> Step:
    def step(run: Run) -> None:
        if check(run):
            run.note(sentence)
            block(run)

    return step


def _explained(check: Check, sentence: str) -> Check:
    """Says so when *check* is false."""

    def told(run: Run) -> bool:
        if check(run):
            return True
        run.note(sentence)
        return False

    return told


def _failing_check(error: SieveError) -> Check:
    def fail(run: Run) -> bool:
        raise SieveError(error.text, error.line, error.column)

    return fail


def _shown(node: Node) -> str:
    """A test in a sentence."""
    inner = ", ".join(_shown(test) for test in node.tests[:2])
    if inner:
        return f"{node.name} ({inner}{', …' if len(node.tests) > 2 else ''})"[:120]
    words = []
    for argument in node.arguments:
        if isinstance(argument, Strings):
            texts = ", ".join(f'"{item.value[:40]}"' for item in argument.items[:3])
            words.append(f"[{texts}{', …' if len(argument.items) > 3 else ''}]" if argument.bracketed else texts)
        else:
            words.append(str(argument.value) if isinstance(argument.value, int) else ":" + argument.value)
    return " ".join((node.name, *words))[:120]
