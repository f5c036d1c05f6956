"""editheader (RFC 5293): fields are added and deleted. Later tests and actions take the message as it is then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted_mail.sieve.editing import is_field_name
from twisted_mail.sieve.matching import MATCHING, matcher
from twisted_mail.sieve.registry import CommandSyntax, Kind, Operand, Step, Tag
from twisted_mail.sieve.values import Edit, SieveError

if TYPE_CHECKING:
    from twisted_mail.sieve.arguments import Arguments
    from twisted_mail.sieve.matching import Matcher
    from twisted_mail.sieve.running import Run
    from twisted_mail.sieve.text import Text, Texts

__all__ = ["CAPABILITIES", "COMMANDS", "PROTECTED"]

CAPABILITIES = ("editheader",)

PROTECTED: Final = frozenset({"auto-submitted", "received", "return-path"})
"""What tells loops and machines, and what delivery has put in front: neither added nor deleted, and without a word (RFC 5293
section 6)."""
_MOST_EDITS: Final = 200


def _field_name(args: Arguments) -> Text:
    name = args.text("name")
    if name.constant is not None and not is_field_name(name.constant):
        args.fail(f"{name.constant!r} is no name of a header field", "name")
    return name


def _named(run: Run, name: Text, line: int) -> str:
    value = name(run)
    if not is_field_name(value):
        raise SieveError(f"{value!r} is no name of a header field", line)
    return value


def _edit(run: Run, edit: Edit, line: int) -> None:
    if len(run.edits) >= _MOST_EDITS:
        raise SieveError(f"the script edits the header more than {_MOST_EDITS} times", line)
    # The header is read anew.
    run.spend(10 + (len(run.message.header.octets) >> 8))
    run.message = run.message.edited(edit)
    run.changed = True
    run.edits.append(edit)


def _add(args: Arguments) -> Step:
    name, value, last, line = _field_name(args), args.text("value"), args.flag("last"), args.line

    def step(run: Run) -> None:
        field = _named(run, name, line)
        if field.lower() in PROTECTED:
            run.tell(line, f"addheader: {field} is protected")
            return
        _edit(run, Edit(field, value(run), last), line)
        run.tell(line, f"addheader {field}")

    return step


def _delete(args: Arguments) -> Step:
    name, line = _field_name(args), args.line
    index, last = args.number("index"), args.flag("last")
    if args.given("index") and not index:
        args.fail("fields are counted from 1", "index")
    if last and not index:
        args.fail("the tag :last says something of :index, which is not there", "last")
    patterns = args.texts("patterns") if args.given("patterns") else None
    match = matcher(args, "patterns")

    def step(run: Run) -> None:
        field = _named(run, name, line)
        if field.lower() in PROTECTED:
            run.tell(line, f"deleteheader: {field} is protected")
            return
        values = run.message.values(field.lower())
        chosen = _chosen(run, values, index, last, patterns, match)
        if len(chosen) == len(values) and values:
            _edit(run, Edit(field, None), line)
        else:
            # Counted from the end, where delivery adds nothing; earlier ones first, so that the others keep their place.
            for place in chosen:
                _edit(run, Edit(field, None, True, len(values) - place), line)
        run.tell(line, f"deleteheader {field}: {len(chosen)} of {len(values)}")

    return step


def _chosen(
    run: Run, values: tuple[str, ...], index: int, last: bool, patterns: Texts | None, match: Matcher
) -> list[int]:
    """Places of the fields that are to go, from 0."""
    places = list(range(len(values)))
    if index:
        place = len(values) - index if last else index - 1
        places = [place] if 0 <= place < len(values) else []
    if patterns is None:
        return places
    # An action sets no match variables (RFC 5229 section 3.2 speaks of tests).
    taken = run.values
    if match.counts:
        kept = places if match(run, [values[place] for place in places]) else []
    else:
        kept = [place for place in places if match(run, (values[place],))]
    run.values = taken
    return kept


COMMANDS = {
    "addheader": CommandSyntax(
        compile=_add,
        needs="editheader",
        tags=(Tag("last"),),
        operands=(Operand("name", Kind.STRING), Operand("value", Kind.STRING)),
    ),
    "deleteheader": CommandSyntax(
        compile=_delete,
        needs="editheader",
        tags=(*MATCHING, Tag("index", Kind.NUMBER), Tag("last")),
        operands=(Operand("name", Kind.STRING), Operand("patterns", Kind.STRINGS, optional=True)),
    ),
}
