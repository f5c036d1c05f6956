"""How a command or a test is declared: its arguments, what must be required for it, and what is made of it.

A module of `twisted_mail.sieve.commands` exports any of

- ``COMMANDS``: name to `CommandSyntax`, and ``TESTS``: name to `TestSyntax`;
- ``TAGS``: name of a command or test of any module to more `Tag` that it takes (as RFC 3894 gives ``:copy`` to fileinto);
- ``MODIFIERS``: name to `Modifier`, for ``set`` and ``extracttext`` (RFC 5229 section 4.1);
- ``CAPABILITIES``: what `require` may name because of it, and ``IMPLIES``: what a capability brings along.

`vocabulary` puts them together, once, and refuses duplicates.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_mail.sieve.arguments import Arguments
    from twisted_mail.sieve.running import Run

__all__ = [
    "Check",
    "CommandSyntax",
    "Kind",
    "Modifier",
    "Operand",
    "Step",
    "Tag",
    "TestSyntax",
    "Tests",
    "Vocabulary",
    "charged",
    "uncharged",
]

Step = Callable[["Run"], None]
"""What a command becomes: it changes the run, and nothing else."""
Check = Callable[["Run"], bool]
"""What a test becomes. It counts its steps itself; one of many that stand in a row has a twin that leaves that to the row:
see `charged`."""


def charged(check: Check, uncharged: Check, cost: int) -> Check:
    """*check*, which knows of *uncharged*, the same without counting; *cost* are its steps, for each 4 kB of the header."""
    check.uncharged = uncharged  # type: ignore[attr-defined]  # functions have room for it
    check.cost = cost  # type: ignore[attr-defined]
    return check


def uncharged(check: Check) -> tuple[Check, int]:
    """The twin of *check* and what it costs; itself and 0 where it has none."""
    return getattr(check, "uncharged", check), getattr(check, "cost", 0)


class Kind(enum.Enum):
    """What an argument is (RFC 5228 section 8.2)."""

    NUMBER = "a number"
    STRING = "a string"
    STRINGS = "a string or a list of strings"


class Tests(enum.Enum):
    """How many tests stand behind the arguments."""

    __test__ = False  # pytest looks for the prefix

    NONE = "no test"
    ONE = "one test"
    LIST = "a list of tests in parentheses"


@dataclass(frozen=True, slots=True)
class Tag:
    """``:name``, with what stands behind it."""

    name: str
    """Lower case, without the colon."""
    takes: Kind | None = None
    group: str = ""
    """Of the tags of one group at most one may be given; `Arguments.choice` says which."""
    needs: str = ""
    """The capability that must be required."""


@dataclass(frozen=True, slots=True)
class Operand:
    """A positional argument. Optional ones are left out from the left when there are too few."""

    name: str
    kind: Kind
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSyntax:
    """A command: what it takes, and how it is compiled."""

    compile: Callable[[Arguments], Step]
    """Called once for each place in a script; raises SieveError (`Arguments.fail`) for what is wrong."""
    tags: tuple[Tag, ...] = ()
    operands: tuple[Operand, ...] = ()
    needs: str = ""
    tests: Tests = Tests.NONE
    block: bool = False
    """Whether a block stands behind it (then always)."""
    opens: Callable[[Arguments], None] | None = None
    """Called before the block is compiled: a loop puts itself on `Scope.loops`, from which it is taken afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestSyntax:
    """A test."""

    __test__ = False  # pytest looks for the prefix

    compile: Callable[[Arguments], Check]
    tags: tuple[Tag, ...] = ()
    operands: tuple[Operand, ...] = ()
    needs: str = ""
    tests: Tests = Tests.NONE


@dataclass(frozen=True, slots=True)
class Modifier:
    """A tag of ``set`` that changes the value; those of higher precedence first, of one precedence only one."""

    precedence: int
    change: Callable[[str], str]
    needs: str = ""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Everything the language has."""

    commands: Mapping[str, CommandSyntax]
    tests: Mapping[str, TestSyntax]
    command_tags: Mapping[str, Mapping[str, Tag]]
    """Of each command, by name."""
    test_tags: Mapping[str, Mapping[str, Tag]]
    modifiers: Mapping[str, Modifier]
    capabilities: frozenset[str]
    implies: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, modules: Iterable[ModuleType]) -> Vocabulary:
        """Puts the families together.

        Raises: ValueError for what is declared twice, or extends what is not there.
        """
        building = _Building()
        for module in modules:
            building.take(module)
        return building.vocabulary()


@dataclass(slots=True)
class _Building:
    commands: dict[str, CommandSyntax] = field(default_factory=dict)
    tests: dict[str, TestSyntax] = field(default_factory=dict)
    extra: list[tuple[str, Tag]] = field(default_factory=list)
    modifiers: dict[str, Modifier] = field(default_factory=dict)
    capabilities: set[str] = field(default_factory=set)
    implies: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def take(self, module: ModuleType) -> None:
        for attribute, into in (
            ("COMMANDS", self.commands),
            ("TESTS", self.tests),
            ("MODIFIERS", self.modifiers),
            ("IMPLIES", self.implies),
        ):
            for name, value in getattr(module, attribute, {}).items():
                if name in into:
                    raise ValueError(f"{module.__name__}: {name!r} is there already")
                into[name] = value
        for name, tags in getattr(module, "TAGS", {}).items():
            self.extra += [(name, tag) for tag in tags]
        self.capabilities.update(getattr(module, "CAPABILITIES", ()))

    def vocabulary(self) -> Vocabulary:
        for command in ("set", "extracttext"):
            if command in self.commands:
                self.extra += [
                    (command, Tag(name, group=f"modifier-{modifier.precedence}", needs=modifier.needs))
                    for name, modifier in self.modifiers.items()
                ]
        command_tags = {name: _by_name(name, syntax.tags) for name, syntax in self.commands.items()}
        test_tags = {name: _by_name(name, syntax.tags) for name, syntax in self.tests.items()}
        for name, tag in self.extra:
            found = [table[name] for table in (command_tags, test_tags) if name in table]
            if not found:
                raise ValueError(f":{tag.name} is a tag of {name!r}, which is not there")
            for tags in found:
                if tag.name in tags:
                    raise ValueError(f":{tag.name} of {name!r} is there already")
                tags[tag.name] = tag
        return Vocabulary(
            self.commands,
            self.tests,
            command_tags,
            test_tags,
            self.modifiers,
            frozenset(self.capabilities),
            self.implies,
        )


def _by_name(name: str, tags: Iterable[Tag]) -> dict[str, Tag]:
    table: dict[str, Tag] = {}
    for tag in tags:
        if tag.name in table:
            raise ValueError(f":{tag.name} of {name!r} is there already")
        table[tag.name] = tag
    return table
