"""What a message is asked for: header, address, exists, size (RFC 5228 section 5), with ``:user`` and ``:detail``
(RFC 5233) and ``:index`` (RFC 5260 section 6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from twisted_mail.sieve.arguments import Arguments
from twisted_mail.sieve.comparators import fold
from twisted_mail.sieve.matching import MATCHING, Matcher, matcher
from twisted_mail.sieve.registry import Check, Kind, Operand, Tag, TestSyntax, charged
from twisted_mail.sieve.running import Run

if TYPE_CHECKING:
    from twisted_mail.sieve.message import Address
    from twisted_mail.sieve.text import Texts

__all__ = ["ADDRESS_PARTS", "CAPABILITIES", "INDEX", "OF_PARTS", "TESTS", "Selection", "address_part", "lowered", "selection"]

CAPABILITIES = ("index", "subaddress")

T = TypeVar("T")

ADDRESS_PARTS: Final = (
    Tag("all", group="part"),
    Tag("localpart", group="part"),
    Tag("domain", group="part"),
    Tag("user", group="part", needs="subaddress"),
    Tag("detail", group="part", needs="subaddress"),
)

INDEX: Final = (Tag("index", Kind.NUMBER, needs="index"), Tag("last", needs="index"))

_WITHOUT_ADDRESSES: Final = frozenset(
    "subject date message-id in-reply-to references received mime-version content-type content-transfer-encoding "
    "content-disposition content-id content-description content-language keywords comments list-id user-agent "
    "x-mailer dkim-signature authentication-results received-spf importance priority precedence auto-submitted".split()
)
"""RFC 5228 section 5.1: the address test is for fields that hold addresses; these never do."""

Selection = Callable[[Sequence[T]], Sequence[T]]


def selection(args: Arguments) -> Selection[object] | None:
    """``:index n [:last]``: which of several fields are looked at; None: all are."""
    if not args.given("index"):
        if args.given("last"):
            args.fail(":last stands with :index only", "last")
        return None
    number = args.number("index")
    if number < 1:
        args.fail("fields are counted from 1", "index")
    at = -number if args.flag("last") else number - 1

    def select(values: Sequence[object]) -> Sequence[object]:
        return (values[at],) if -len(values) <= at < len(values) else ()

    return select


def lowered(texts: Texts) -> Callable[[Run], Sequence[str]]:
    """Names of fields, as the header is asked for them."""
    if texts.constant is not None:
        names = tuple(dict.fromkeys(map(fold, texts.constant)))
        return lambda run: names
    return lambda run: tuple(dict.fromkeys(map(fold, texts(run))))


def _header(args: Arguments) -> Check:
    texts = args.texts("header names")
    match = matcher(args)
    select = selection(args)
    if texts.constant is not None and select is None and match.folded is not None:
        return _folded_header(tuple(dict.fromkeys(map(fold, texts.constant))), match)
    names = lowered(texts)

    def check(run: Run) -> bool:
        header = run.header
        values: Sequence[str] = [value for name in names(run) for value in header.values(name)]
        if select is not None:
            values = select(values)  # type: ignore[assignment]  # what goes in comes out
        return match(run, values)

    return check


def _folded_header(names: tuple[str, ...], match: Matcher) -> Check:
    """The test that nearly all rules are made of."""
    matches, keys = match.folded, match.keys
    assert matches is not None
    if len(names) == 1:
        name = names[0]
        if (disjoint := match.disjoint) is not None:

            def is_one(run: Run) -> bool:
                try:
                    return not disjoint(run.folds[name])
                except KeyError:
                    return not disjoint(run.header.folded(name))

            return _charged(is_one, 1)

        if part := match.part:

            def contains(run: Run) -> bool:
                try:
                    return part in run.texts[name]
                except KeyError:
                    return part in run.header.folded_text(name)

            return _charged(contains, 1)

        def one(run: Run) -> bool:
            try:
                values = run.folds[name]
            except KeyError:
                values = run.header.folded(name)
            return bool(values) and matches(values)

        return _charged(one, keys)

    def any_of(run: Run) -> bool:
        for name in names:
            try:
                values = run.folds[name]
            except KeyError:
                values = run.header.folded(name)
            if values and matches(values):
                return True
        return False

    return _charged(any_of, keys * len(names))


def _charged(check: Check, cost: int) -> Check:
    """The test that counts, and its twin that does not."""

    def counting(run: Run) -> bool:
        run.steps = steps = run.steps - run.weight * cost
        if steps < 0:
            run.spend(0)
        return check(run)

    return charged(counting, check, cost)


def address_part(args: Arguments) -> Callable[[Run, Address], str | None]:
    """Reads the part that the test asks for; None: this address has none (RFC 5228 section 2.7.4, RFC 5233 section 4)."""
    part = args.choice("part") or "all"
    if part == "all":
        return lambda run, address: address.full
    if part == "localpart":
        return lambda run, address: address.local if address.valid else None
    if part == "domain":
        return lambda run, address: address.domain if address.valid else None
    if part == "user":
        return lambda run, address: address.local.partition(run.environment.separator)[0] if address.valid else None

    def detail(run: Run, address: Address) -> str | None:
        _user, separator, rest = address.local.partition(run.environment.separator)
        return rest if separator else None

    return detail


def _address(args: Arguments) -> Check:
    texts = args.texts("header names")
    for name in texts.constant or ():
        if fold(name) in _WITHOUT_ADDRESSES:
            args.fail(f"the field {name!r} holds no addresses", "header names")
    match = matcher(args)
    select = selection(args)
    part = address_part(args)
    names = lowered(texts)
    key = args.choice("part") or "all"
    if select is None and texts.constant is not None and match.folded is not None and key not in ("user", "detail"):
        return _folded_address(tuple(dict.fromkeys(map(fold, texts.constant))), key, match)

    def check(run: Run) -> bool:
        header = run.header
        fields: Sequence[Sequence[Address]] = [field for name in names(run) for field in header.addresses(name)]
        if select is not None:
            fields = select(fields)  # type: ignore[assignment]  # what goes in comes out
        return match(
            run, [value for field in fields for address in field if (value := part(run, address)) is not None]
        )

    return check


_PARTS: Final = ("all", "localpart", "domain")


def _folded_address(names: Sequence[str], part: str, match: Matcher) -> Check:
    matches, keys = match.folded, match.keys
    assert matches is not None
    index = _PARTS.index(part)
    fields = [("folded parts", name) for name in names]

    def any_of(run: Run) -> bool:
        memo = run.message.memo
        for key in fields:
            parts = memo.get(key)
            if parts is None:
                parts = memo[key] = run.header.folded_parts(key[1])
            values = parts[index]
            if values and matches(values):
                return True
        return False

    return _charged(any_of, keys * len(fields))


def _exists(args: Arguments) -> Check:
    names = lowered(args.texts("header names"))

    def check(run: Run) -> bool:
        run.steps -= 1
        header = run.header
        for name in names(run):
            if not header.exists(name):
                return False
        return True

    return check


def _size(args: Arguments) -> Check:
    limit = args.number("limit")
    if args.choice("relation") == "over":
        return lambda run: run.message.size > limit
    if args.choice("relation") == "under":
        return lambda run: run.message.size < limit
    args.fail("size takes :over or :under")


OF_PARTS: Final[dict[str, Callable[[Arguments], Check]]] = {}
"""The same tests with ``:mime`` (RFC 5703), by name; filled by the module that has them."""


def _or_of_parts(compile: Callable[[Arguments], Check]) -> Callable[[Arguments], Check]:
    def either(args: Arguments) -> Check:
        if args.flag("mime"):
            return OF_PARTS[args.name](args)
        for tag in ("anychild", "option"):
            if args.given(tag):
                args.fail(f"the tag :{args.choice(tag)} needs :mime", tag)
        args.scope.reads_fields(map(fold, args.texts("header names").constant or ()))
        return compile(args)

    return either


TESTS = {
    "header": TestSyntax(
        compile=_or_of_parts(_header),
        tags=(*MATCHING, *INDEX),
        operands=(Operand("header names", Kind.STRINGS), Operand("keys", Kind.STRINGS)),
    ),
    "address": TestSyntax(
        compile=_or_of_parts(_address),
        tags=(*MATCHING, *INDEX, *ADDRESS_PARTS),
        operands=(Operand("header names", Kind.STRINGS), Operand("keys", Kind.STRINGS)),
    ),
    "exists": TestSyntax(compile=_or_of_parts(_exists), operands=(Operand("header names", Kind.STRINGS),)),
    "size": TestSyntax(
        compile=_size,
        tags=(Tag("over", group="relation"), Tag("under", group="relation")),
        operands=(Operand("limit", Kind.NUMBER),),
    ),
}
