"""What a script says, as a tree (RFC 5228 section 8.2), before anybody knows which commands there are."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Argument", "Item", "Node", "Number", "Strings", "TagName"]


@dataclass(frozen=True, slots=True)
class Number:
    """``10K``."""

    value: int
    at: int


@dataclass(frozen=True, slots=True)
class Item:
    """One string."""

    value: str
    at: int


@dataclass(frozen=True, slots=True)
class Strings:
    """A string, or a list of them in brackets."""

    items: tuple[Item, ...]
    at: int
    bracketed: bool


@dataclass(frozen=True, slots=True)
class TagName:
    """``:name``, lower case, without the colon."""

    value: str
    at: int


Argument = Number | Strings | TagName


@dataclass(slots=True)
class Node:
    """A command or a test with all that belongs to it."""

    name: str
    """Lower case."""
    at: int
    arguments: list[Argument] = field(default_factory=list)
    tests: list[Node] = field(default_factory=list)
    parenthesized: bool = False
    """The tests stood in parentheses."""
    block: list[Node] | None = None
    end: int = 0
    """Where it ended: offset behind the semicolon or brace (of commands)."""
