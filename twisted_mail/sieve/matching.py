"""How values are held against keys: match types (RFC 5228 section 2.7.1, RFC 5231, ``:regex``) by comparators.

A test declares ``tags=MATCHING`` and makes a `Matcher` of its arguments; constant keys are folded and compiled once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from twisted_mail.sieve.arguments import Arguments
from twisted_mail.sieve.comparators import COMPARATORS, Comparator
from twisted_mail.sieve.patterns import Match, glob, plain_glob, regex
from twisted_mail.sieve.registry import Kind, Tag
from twisted_mail.sieve.values import SieveError

if TYPE_CHECKING:
    from twisted_mail.sieve.running import Run
    from twisted_mail.sieve.text import Texts

__all__ = ["CAPABILITIES", "MATCHING", "Matcher", "compile_matcher", "matcher"]

CAPABILITIES = (
    "comparator-i;ascii-casemap",
    "comparator-i;ascii-numeric",
    "comparator-i;octet",
    "comparator-i;unicode-casemap",
    "regex",
    "relational",
)

MATCHING: Final = (
    Tag("is", group="match"),
    Tag("contains", group="match"),
    Tag("matches", group="match"),
    Tag("regex", group="match", needs="regex"),
    Tag("value", Kind.STRING, group="match", needs="relational"),
    Tag("count", Kind.STRING, group="match", needs="relational"),
    Tag("comparator", Kind.STRING),
)
"""What a test takes that compares strings."""

_COMPILING: Final = 50
"""Steps that a pattern made of variables costs."""

_ALWAYS_THERE: Final = ("i;octet", "i;ascii-casemap")

Values = Callable[["Run", Sequence[str]], bool]

_RELATIONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "gt": lambda value, key: value > key,
    "ge": lambda value, key: value >= key,
    "lt": lambda value, key: value < key,
    "le": lambda value, key: value <= key,
    "eq": lambda value, key: value == key,
    "ne": lambda value, key: value != key,
}


class Matcher:
    """Call it with the run and the values: whether one of them matches one of the keys.

    `folded` is the same for values that were made lower case already (`comparators.fold`), where that does; it counts no
    steps: whoever calls it does, `keys` times what the values weigh.
    `counts` says that only the number of values is looked at.
    """

    __slots__ = ("counts", "disjoint", "folded", "keys", "match")

    def __init__(
        self, match: Values, folded: Callable[[Sequence[str]], bool] | None = None, keys: int = 1, counts: bool = False
    ):
        self.match = match
        self.folded = folded
        self.keys = keys
        self.disjoint: Callable[[Iterable[str]], bool] | None = None
        """Of ``:is``: the opposite of `folded`, without a detour."""
        self.counts = counts

    def __call__(self, run: Run, values: Sequence[str]) -> bool:
        return self.match(run, values)


def matcher(args: Arguments, keys: str = "keys", *, captures: bool = True) -> Matcher:
    """Of a test with `MATCHING` among its tags and the keys as an operand. Without *captures* no match variables are set.

    Raises: SieveError for a comparator that there is not, was not required, or does not go with the match type.
    """
    return compile_matcher(args, args.texts(keys), keys, captures)


def compile_matcher(args: Arguments, keys: Texts, at: str, captures: bool = True) -> Matcher:
    """The same for keys from elsewhere; *at* is the argument that errors point at."""
    name = args.literal("comparator", "i;ascii-casemap")
    comparator = COMPARATORS.get(name)
    if comparator is None:
        args.fail(f"there is no comparator {name!r}", "comparator")
    if name not in _ALWAYS_THERE and not args.scope.uses(f"comparator-{name}"):
        args.fail(f'the comparator needs: require "comparator-{name}"', "comparator")
    kind = args.choice("match") or "is"
    if kind in ("value", "count"):
        return _relational(args, kind, comparator, keys)
    if comparator.folded is None and kind != "is":
        args.fail(f"the comparator {name} compares whole numbers: :{kind} is not possible", "comparator")
    if kind == "is":
        return _is(comparator, keys)
    if kind == "contains":
        return _contains(comparator, keys)
    captures = captures and args.scope.uses("variables")
    make = _glob if kind == "matches" else _regex
    if keys.constant is not None:
        try:
            for key in keys.constant:
                make(comparator, key)
        except SieveError as error:
            args.fail(error.text, at)
    if kind == "matches" and not captures and keys.constant is not None:
        return _uncaptured(comparator, keys)
    return _captured(make, comparator, keys, args.line, captures)


def _spend(run: Run, values: Sequence[str], keys: int) -> None:
    """Every comparison is one step, and one more for each 256 characters."""
    size = 0
    for value in values:
        size += len(value)
    run.steps -= len(values) * keys + (size * keys >> 8) + 1
    if run.steps < 0:
        run.spend(0)


def _is(comparator: Comparator, keys: Texts) -> Matcher:
    fold = comparator.folded or comparator.order
    constant = keys.constant
    if constant is None:

        def is_any(run: Run, values: Sequence[str]) -> bool:
            if not values:
                return False
            wanted = {fold(key) for key in keys(run)}
            _spend(run, values, len(wanted))
            return any(fold(value) in wanted for value in values)

        return Matcher(is_any)

    disjoint = frozenset(map(fold, constant)).isdisjoint

    def is_one(run: Run, values: Sequence[str]) -> bool:
        _spend(run, values, 1)
        return not disjoint(map(fold, values))

    def is_one_folded(values: Sequence[str]) -> bool:
        return not disjoint(values)

    found = Matcher(is_one, is_one_folded if comparator.name == "i;ascii-casemap" else None)
    found.disjoint = disjoint
    return found


def _contains(comparator: Comparator, keys: Texts) -> Matcher:
    fold = comparator.folded
    assert fold is not None
    constant = keys.constant
    if constant is None:

        def contains_any(run: Run, values: Sequence[str]) -> bool:
            if not values:
                return False
            wanted = [fold(key) for key in keys(run)]
            _spend(run, values, len(wanted))
            return any(key in value for value in map(fold, values) for key in wanted)

        return Matcher(contains_any)

    wanted = tuple(map(fold, constant))
    weight = len(wanted)

    def contains_folded(values: Sequence[str]) -> bool:
        for value in values:
            for key in wanted:
                if key in value:
                    return True
        return False

    def contains(run: Run, values: Sequence[str]) -> bool:
        _spend(run, values, weight)
        return contains_folded([fold(value) for value in values])

    return Matcher(contains, contains_folded if comparator.name == "i;ascii-casemap" else None, weight)


def _uncaptured(comparator: Comparator, keys: Texts) -> Matcher:
    """Globs that nobody can ask for what a wildcard took."""
    fold = comparator.folded
    assert fold is not None
    assert keys.constant is not None
    globs = tuple(plain_glob(key, fold) for key in keys.constant)

    def matches_folded(values: Sequence[str]) -> bool:
        for value in values:
            for match in globs:
                if match(value):
                    return True
        return False

    def matches(run: Run, values: Sequence[str]) -> bool:
        _spend(run, values, len(globs))
        return matches_folded([fold(value) for value in values])

    return Matcher(matches, matches_folded if comparator.name == "i;ascii-casemap" else None, len(globs))


def _captured(
    make: Callable[[Comparator, str], Match], comparator: Comparator, keys: Texts, line: int, captures: bool
) -> Matcher:
    constant = keys.constant
    made = tuple(make(comparator, key) for key in constant) if constant is not None else ()

    def now(run: Run, key: str) -> Match:
        run.spend(_COMPILING + (len(key) >> 4))
        try:
            return make(comparator, key)
        except SieveError as error:
            raise SieveError(error.text, line)

    def matches(run: Run, values: Sequence[str]) -> bool:
        if not values:
            return False
        if constant is None:
            patterns = tuple([now(run, key) for key in keys(run)])
        else:
            patterns = made
        _spend(run, values, len(patterns))
        for value in values:
            for match in patterns:
                taken = match(value)
                if taken is not None:
                    if captures:
                        run.remember(taken)
                    return True
        return False

    return Matcher(matches)


def _glob(comparator: Comparator, key: str) -> Match:
    assert comparator.folded is not None
    return glob(key, comparator.folded)


def _regex(comparator: Comparator, key: str) -> Match:
    return regex(key, comparator.caseless)


def _relational(args: Arguments, kind: str, comparator: Comparator, keys: Texts) -> Matcher:
    """``:value`` and ``:count`` (RFC 5231 section 4)."""
    relation = _RELATIONS.get(args.literal("match").lower())
    if relation is None:
        args.fail(f"behind :{kind} one of gt, ge, lt, le, eq, ne is expected", "match")
    order = comparator.order
    constant = keys.constant
    ordered = [order(key) for key in constant] if constant is not None else []

    def value_of(run: Run, values: Sequence[str]) -> bool:
        if not values:
            return False
        wanted = ordered if constant is not None else [order(key) for key in keys(run)]
        _spend(run, values, len(wanted))
        return any(relation(value, key) for value in map(order, values) for key in wanted)

    if kind == "value":
        return Matcher(value_of)

    def count_of(run: Run, values: Sequence[str]) -> bool:
        return value_of(run, (str(len(values)),))

    return Matcher(count_of, counts=True)
