"""How values are held against keys: match types (RFC 5228 section 2.7.1, RFC 5231, ``:regex``) by comparators.

A test declares ``tags=MATCHING`` and makes a `Matcher` of its arguments; constant keys are folded and compiled once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from twisted_mail.sieve.arguments import Arguments
from twisted_mail.sieve.comparators import COMPARATORS, Comparator
from twisted_mail.sieve.patterns import REGEX_TEXT, Match, glob, glob_weight, plain_glob, regex
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

    __slots__ = ("counts", "disjoint", "folded", "keys", "match", "part")

    def __init__(
        self, match: Values, folded: Callable[[Sequence[str]], bool] | None = None, keys: int = 1, counts: bool = False
    ):
        self.match = match
        self.folded = folded
        self.keys = keys
        self.disjoint: Callable[[Iterable[str]], bool] | None = None
        """Of ``:is``: the opposite of `folded`, without a detour."""
        self.part: str | None = None
        """Of ``:contains`` with one key of one line: what a value must hold for `folded` to be true. Empty: any value does."""
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
    if kind == "matches" and not captures and keys.constant is not None:
        return _uncaptured(comparator, keys)
    if kind == "regex" and keys.constant is not None:
        compilation = args.scope.compilation
        compilation.regexes += len(keys.constant)
        if compilation.regexes > compilation.limits.regexes:
            args.fail(f"more than {compilation.limits.regexes} regular expressions", at)
    try:
        return _captured(make, comparator, keys, args.line, captures)
    except SieveError as error:
        args.fail(error.text, at)


def _spend(run: Run, values: Sequence[str], keys: int, weight: int, most: int = 1 << 62) -> None:
    """Eight comparisons are a step, and each 256 characters as many as the *weight* of all keys together."""
    size = 0
    for value in values:
        size += min(len(value), most)
    run.steps -= (len(values) * keys >> 3) + (size * weight >> 8) + 1
    if run.steps < 0:
        run.spend(0)


def _is(comparator: Comparator, keys: Texts) -> Matcher:
    fold, cost = comparator.folded or comparator.order, comparator.cost
    constant = keys.constant
    if constant is None:

        def is_any(run: Run, values: Sequence[str]) -> bool:
            if not values:
                return False
            wanted = {fold(key) for key in keys(run)}
            _spend(run, values, len(wanted), cost)
            return any(fold(value) in wanted for value in values)

        return Matcher(is_any)

    disjoint = frozenset(map(fold, constant)).isdisjoint

    def is_one(run: Run, values: Sequence[str]) -> bool:
        _spend(run, values, 1, cost)
        return not disjoint(map(fold, values))

    def is_one_folded(values: Sequence[str]) -> bool:
        return not disjoint(values)

    found = Matcher(is_one, is_one_folded if comparator.name == "i;ascii-casemap" else None)
    found.disjoint = disjoint
    return found


def _contains(comparator: Comparator, keys: Texts) -> Matcher:
    fold, cost = comparator.folded, comparator.cost
    assert fold is not None
    constant = keys.constant
    if constant is None:

        def contains_any(run: Run, values: Sequence[str]) -> bool:
            if not values:
                return False
            wanted = [fold(key) for key in keys(run)]
            _spend(run, values, len(wanted), len(wanted) + cost)
            return any(key in value for value in map(fold, values) for key in wanted)

        return Matcher(contains_any)

    wanted = tuple(map(fold, constant))
    count = len(wanted)

    def contains_folded(values: Sequence[str]) -> bool:
        for value in values:
            for key in wanted:
                if key in value:
                    return True
        return False

    def contains(run: Run, values: Sequence[str]) -> bool:
        _spend(run, values, count, count + cost)
        return contains_folded([fold(value) for value in values])

    found = Matcher(contains, contains_folded if comparator.name == "i;ascii-casemap" else None, 1 + (count >> 3))
    if found.folded is not None and count == 1 and "\n" not in wanted[0]:
        found.part = wanted[0]
    return found


def _uncaptured(comparator: Comparator, keys: Texts) -> Matcher:
    """Globs that nobody can ask for what a wildcard took."""
    fold, cost = comparator.folded, comparator.cost
    assert fold is not None
    assert keys.constant is not None
    globs = tuple(plain_glob(key, fold) for key in keys.constant)
    count, weight = len(globs), sum(map(glob_weight, keys.constant))
    # A header of 1 MB is charged for by 4 kB, not by 256 octets: see `Run.weight`.
    folded_cost = 1 + (count >> 3) + (weight - count)

    def matches_folded(values: Sequence[str]) -> bool:
        for value in values:
            for match in globs:
                if match(value):
                    return True
        return False

    def matches(run: Run, values: Sequence[str]) -> bool:
        _spend(run, values, count, weight + cost)
        return matches_folded([fold(value) for value in values])

    return Matcher(matches, matches_folded if comparator.name == "i;ascii-casemap" else None, folded_cost)


Maker = Callable[[Comparator, str], tuple[Match, int]]


def _captured(make: Maker, comparator: Comparator, keys: Texts, line: int, captures: bool) -> Matcher:
    constant = keys.constant
    made = [make(comparator, key) for key in constant] if constant is not None else []
    most = REGEX_TEXT if make is _regex else 1 << 62

    def now(run: Run, key: str) -> tuple[Match, int]:
        run.spend(_COMPILING + (len(key) >> 4))
        try:
            found = make(comparator, key)
        except SieveError as error:
            raise SieveError(error.text, line)
        run.spend(found[1] >> 3)
        return found

    def matches(run: Run, values: Sequence[str]) -> bool:
        if not values:
            return False
        patterns = made if constant is not None else [now(run, key) for key in keys(run)]
        _spend(run, values, len(patterns), sum([weight for _, weight in patterns]), most)
        for value in values:
            for match, _weight in patterns:
                taken = match(value)
                if taken is not None:
                    if captures:
                        run.remember(taken)
                    return True
        return False

    return Matcher(matches)


def _glob(comparator: Comparator, key: str) -> tuple[Match, int]:
    assert comparator.folded is not None
    return glob(key, comparator.folded), glob_weight(key) + comparator.cost


def _regex(comparator: Comparator, key: str) -> tuple[Match, int]:
    return regex(key, comparator.caseless)


def _relational(args: Arguments, kind: str, comparator: Comparator, keys: Texts) -> Matcher:
    """``:value`` and ``:count`` (RFC 5231 section 4)."""
    relation = _RELATIONS.get(args.literal("match").lower())
    if relation is None:
        args.fail(f"behind :{kind} one of gt, ge, lt, le, eq, ne is expected", "match")
    order, cost = comparator.order, comparator.cost
    constant = keys.constant
    ordered = [order(key) for key in constant] if constant is not None else []

    def value_of(run: Run, values: Sequence[str]) -> bool:
        if not values:
            return False
        wanted = ordered if constant is not None else [order(key) for key in keys(run)]
        _spend(run, values, len(wanted), len(wanted) + cost)
        return any(relation(value, key) for value in map(order, values) for key in wanted)

    if kind == "value":
        return Matcher(value_of)

    def count_of(run: Run, values: Sequence[str]) -> bool:
        return value_of(run, (str(len(values)),))

    return Matcher(count_of, counts=True)
