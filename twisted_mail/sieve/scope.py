"""What is known about a script while it is compiled: what it required, how its strings read, what it will need."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from twisted_mail.sieve.editing import is_field_name
from twisted_mail.sieve.lexer import Source
from twisted_mail.sieve.syntax import Item
from twisted_mail.sieve.text import Reader, Text, constant, decode_characters, template
from twisted_mail.sieve.values import CompileLimits, Include, SieveError

if TYPE_CHECKING:
    from twisted_mail.sieve.registry import Vocabulary

__all__ = ["NAMESPACES", "Compilation", "Namespace", "Scope"]

Namespace = Callable[["Scope", str], Reader]
"""Gives what reads ``${namespace.name}``; raises SieveError where that is not possible."""

NAMESPACES: dict[str, Namespace] = {}
"""Filled by the modules that have one (RFC 5229 section 3), when they are imported."""


@dataclass(slots=True)
class Compilation:
    """One script with all that it includes."""

    vocabulary: Vocabulary
    include: Include | None
    limits: CompileLimits
    explain: bool = False
    """The trace also says which tests were false."""
    capabilities: set[str] = field(default_factory=set)
    """Of all its scripts."""
    needs_body: bool = False
    fields: set[str] = field(default_factory=set)
    """Names of header fields, in lower case, that its tests look at."""
    included: dict[tuple[str, str], object] = field(default_factory=dict)
    """Scripts that are included, by location and name: each is compiled once."""
    regexes: int = 0
    """Regular expressions so far."""
    places: int = 0
    """That include one."""
    octets: int = 0
    """Of all scripts so far."""


class Scope:
    """One script, main or included."""

    def __init__(self, source: Source, compilation: Compilation):
        self.source = source
        self.compilation = compilation
        self.required: set[str] = set()
        self.tried: set[str] = set()
        """Capabilities that ihave asked for."""
        self.globals: set[str] = set()
        """Variables that were declared global (RFC 6609 section 3.4.1)."""
        self.variables: set[str] = set()
        """Variables that were set so far."""
        self.loops: list[tuple[str, object]] = []
        """foreverypart loops around what is compiled now, innermost last: (name or empty, mark)."""

    # --- capabilities

    def uses(self, capability: str) -> bool:
        """Whether the script required it (or may, after ihave)."""
        return capability in self.required

    def require(self, capability: str) -> bool:
        """Takes *capability* into use; False: there is no such one."""
        vocabulary = self.compilation.vocabulary
        if capability not in vocabulary.capabilities:
            return False
        for each in (capability, *vocabulary.implies.get(capability, ())):
            self.required.add(each)
            self.compilation.capabilities.add(each)
        return True

    def need(self, capability: str, what: str, at: int) -> None:
        """Raises: SieveError unless *capability* was required."""
        if capability not in self.required:
            self.source.fail(f'{what} needs: require "{capability}"', at)

    def reads_fields(self, names: Iterable[str]) -> None:
        """Says which header fields (lower case) a test looks at: a header is then read for these."""
        self.compilation.fields.update([name for name in names if is_field_name(name)])

    def reads_body(self) -> None:
        """Says that the script looks at more than header and size."""
        self.compilation.needs_body = True

    # --- strings

    def text(self, item: Item) -> Text:
        """A string of the script, decoded and with its variables."""
        value = item.value
        if "$" not in value:
            return constant(value)
        try:
            if "encoded-character" in self.required:
                value = decode_characters(value)
            if "variables" in self.required:
                return template(value, self._read, self.globals)
        except SieveError as error:
            self.source.fail(error.text, item.at)
        return constant(value)

    def _read(self, namespace: str, name: str) -> Reader:
        found = NAMESPACES.get(namespace)
        if found is None:
            raise SieveError(f"there is no namespace {namespace!r}")
        return found(self, name)


