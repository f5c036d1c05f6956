"""The arguments of one command or test, held against its declaration, and given out by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

from twisted_mail.sieve.registry import Check, CommandSyntax, Kind, Operand, Step, Tag, Tests, TestSyntax
from twisted_mail.sieve.syntax import Argument, Node, Number, Strings, TagName
from twisted_mail.sieve.text import Text, Texts

if TYPE_CHECKING:
    from twisted_mail.sieve.scope import Scope

__all__ = ["Arguments", "bind"]

_NONE = Texts(())


class Arguments:
    """What a command was given, with strings already made into `Text`."""

    __slots__ = ("_given", "_node", "block", "checks", "command", "line", "scope")

    def __init__(self, node: Node, scope: Scope, command: bool):
        self._node = node
        self.scope = scope
        """The script that is compiled."""
        self.command = command
        """It is a command, not a test."""
        self.line = scope.source.line(node.at)
        self._given: dict[str, tuple[str, Argument | None, int]] = {}
        self.checks: tuple[Check, ...] = ()
        """The tests behind it, compiled."""
        self.block: Step = _nothing
        """The block behind it, compiled."""

    @property
    def name(self) -> str:
        """Of the command or test, lower case."""
        return self._node.name

    def given(self, name: str) -> bool:
        """Whether there is a tag, a tag of that group, or an (optional) operand."""
        return name in self._given

    flag = given

    def choice(self, group: str) -> str:
        """Which tag of *group* was given; empty: none."""
        found = self._given.get(group)
        return found[0] if found is not None else ""

    def text(self, name: str) -> Text:
        """The string of an operand, or behind the tag (or the tag of the group) *name*; it must have been given."""
        strings = self._strings(name)
        return self.scope.text(strings.items[0])

    def written(self, name: str) -> str:
        """The string as it stands in the script, variables and all; empty where it was not given."""
        return self._strings(name).items[0].value if name in self._given else ""

    def optional_text(self, name: str) -> Text | None:
        """The same, or None."""
        return self.text(name) if name in self._given else None

    def texts(self, name: str) -> Texts:
        """A list of strings; empty where it was not given."""
        if name not in self._given:
            return _NONE
        return Texts([self.scope.text(item) for item in self._strings(name).items])

    def literal(self, name: str, default: str = "") -> str:
        """The string as it stands in the script, of which variables are no part (RFC 5229 section 3: constant strings).

        Raises: SieveError where there are variables in it.
        """
        if name not in self._given:
            return default
        text = self.text(name)
        if text.constant is None:
            self.fail("variables are not possible here", name)
        return text.constant

    def literals(self, name: str) -> tuple[str, ...]:
        """A list of such strings."""
        texts = self.texts(name)
        if texts.constant is None:
            self.fail("variables are not possible here", name)
        return texts.constant

    def number(self, name: str, default: int = 0) -> int:
        """A number."""
        if name not in self._given:
            return default
        argument = self._given[name][1]
        assert isinstance(argument, Number)
        return argument.value

    def fail(self, text: str, name: str = "") -> NoReturn:
        """Raises: SieveError that points at the operand, tag or group *name*, or at the command."""
        found = self._given.get(name)
        self.scope.source.fail(text, found[2] if found is not None else self._node.at)

    def _strings(self, name: str) -> Strings:
        argument = self._given[name][1]
        assert isinstance(argument, Strings), f"{name} is no string"
        return argument

    def take(self, name: str, tag: str, argument: Argument | None, at: int) -> None:
        """For `bind`."""
        self._given[name] = (tag, argument, at)


def _nothing(run: object) -> None:
    pass


def bind(node: Node, syntax: CommandSyntax | TestSyntax, tags: Mapping[str, Tag], scope: Scope) -> Arguments:
    """Checks the arguments of *node* (RFC 5228 section 2.6): tags known, required, once, in front; operands of their kind.

    Raises: SieveError.
    """
    bound = Arguments(node, scope, isinstance(syntax, CommandSyntax))
    operands: list[Argument] = []
    arguments = iter(node.arguments)
    for argument in arguments:
        if not isinstance(argument, TagName):
            operands.append(argument)
            continue
        if operands:
            scope.source.fail(f"the tag :{argument.value} must stand in front of the other arguments", argument.at)
        tag = tags.get(argument.value)
        if tag is None:
            scope.source.fail(f"{node.name} has no tag :{argument.value}", argument.at)
        if tag.needs:
            scope.need(tag.needs, f":{tag.name}", argument.at)
        value = next(arguments, None) if tag.takes is not None else None
        if tag.takes is not None:
            _check_kind(scope, value, tag.takes, f"behind :{tag.name}", argument.at)
        key = tag.group or tag.name
        if bound.given(key):
            other = bound.choice(key)
            if other == tag.name:
                scope.source.fail(f"the tag :{tag.name} was given twice", argument.at)
            scope.source.fail(f"the tags :{other} and :{tag.name} exclude each other", argument.at)
        bound.take(key, tag.name, value, argument.at)
    _bind_operands(bound, node, syntax.operands, operands, scope)
    _check_rest(node, syntax, scope)
    return bound


def _bind_operands(
    bound: Arguments, node: Node, expected: tuple[Operand, ...], given: list[Argument], scope: Scope
) -> None:
    wanted = list(expected)
    while len(wanted) > len(given):
        optional = next((operand for operand in wanted if operand.optional), None)
        if optional is None:
            missing = wanted[len(given)]
            scope.source.fail(f"{node.name} lacks its {missing.name}: {missing.kind.value}", node.at)
        wanted.remove(optional)
    if len(given) > len(wanted):
        scope.source.fail(f"{node.name} takes {_count(len(expected))}, and this is one more", given[len(wanted)].at)
    for operand, argument in zip(wanted, given):
        _check_kind(scope, argument, operand.kind, f"as the {operand.name} of {node.name}", argument.at)
        bound.take(operand.name, "", argument, argument.at)


def _count(number: int) -> str:
    return "no arguments" if not number else "one argument" if number == 1 else f"{number} arguments"


def _check_kind(scope: Scope, argument: Argument | None, kind: Kind, where: str, at: int) -> None:
    fits = isinstance(argument, Number) if kind is Kind.NUMBER else isinstance(argument, Strings)
    if fits and kind is Kind.STRING and isinstance(argument, Strings):
        # RFC 5228 section 2.4.2.1 lets a string stand for a list, and not the other way round.
        fits = not argument.bracketed
    if not fits:
        scope.source.fail(f"{kind.value} is expected {where}", argument.at if argument is not None else at)


def _check_rest(node: Node, syntax: CommandSyntax | TestSyntax, scope: Scope) -> None:
    if syntax.tests is Tests.LIST:
        if not node.parenthesized:
            scope.source.fail(f"{node.name} takes {syntax.tests.value}", node.at)
    elif syntax.tests is Tests.ONE:
        if node.parenthesized or not node.tests:
            scope.source.fail(f"{node.name} takes {syntax.tests.value}", node.at)
    elif node.tests:
        scope.source.fail(f"{node.name} takes no test", node.tests[0].at)
    if isinstance(syntax, CommandSyntax) and syntax.block != (node.block is not None):
        scope.source.fail(f"{node.name} takes a block" if syntax.block else f"{node.name} takes no block", node.at)


