"""MIME parts (RFC 5703): foreverypart, break, extracttext, and ``:mime`` with its options for header, address, exists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from twisted_mail.mime import Structured, parse_content_type, parse_structured
from twisted_mail.sieve.commands import base
from twisted_mail.sieve.commands.variables import modifiers, storing
from twisted_mail.sieve.matching import matcher
from twisted_mail.sieve.registry import Check, CommandSyntax, Kind, Operand, Step, Tag
from twisted_mail.sieve.running import Break

if TYPE_CHECKING:
    from twisted_mail.sieve.arguments import Arguments
    from twisted_mail.sieve.message import Entity, Header
    from twisted_mail.sieve.running import Run

__all__ = ["CAPABILITIES", "COMMANDS", "TAGS", "Parts", "current_part"]

CAPABILITIES = ("extracttext", "foreverypart", "mime")

_NESTED: Final = 10
"""Loops in one another."""


class Parts:
    """Where the loops of a run are."""

    def __init__(self) -> None:
        self.inside = False
        """A loop is running."""
        self.current: Entity | None = None
        """The part of the innermost loop; None: the message itself, as it is outside of loops."""
        self.messages = 0
        """How often the message as a whole was replaced: its parts are then gone."""


def current_part(run: Run) -> Entity:
    """The part that the innermost loop is at; outside of loops the message itself."""
    return run.state(Parts).current or run.message.entity


class _Loop:
    """What a break names."""

    def __init__(self, line: int):
        self.line = line


def _open(args: Arguments) -> None:
    loops = args.scope.loops
    if len(loops) >= _NESTED:
        args.fail(f"more than {_NESTED} loops in one another")
    loops.append((args.literal("name").lower(), _Loop(args.line)))


def _for_every_part(args: Arguments) -> Step:
    _, loop = args.scope.loops[-1]
    block, line = args.block, args.line
    args.scope.reads_body()

    def step(run: Run) -> None:
        state = run.state(Parts)
        inside, outer, messages = state.inside, state.current, state.messages
        # Inside a loop: what the current part holds (section 3), not itself.
        stack: list[Entity | None] = list(reversed(current_part(run).children)) if inside else [None]
        run.tell(line, "foreverypart")
        state.inside = True
        try:
            while stack and state.messages == messages:
                run.spend(1)
                state.current = stack.pop()
                here = current_part(run)
                part = here.part
                block(run)
                if here.part is part:  # else it was replaced, and what it held is gone (section 5)
                    stack.extend(reversed(here.children))
        except Break as end:
            if end.loop is not loop:
                raise
        finally:
            state.inside, state.current = inside, outer

    return step


def _break(args: Arguments) -> Step:
    name = args.literal("name").lower()
    found = [loop for each, loop in args.scope.loops if each == name or not args.given("name")]
    if not found:
        args.fail(f"there is no loop {name!r} around this" if name else "break stands in no loop")
    loop = found[-1]

    def step(run: Run) -> None:
        raise Break(loop)

    return step


def _extract_text(args: Arguments) -> Step:
    if not args.scope.uses("variables"):
        args.fail('extracttext needs: require "variables"')
    if not args.scope.loops:
        args.fail("extracttext stands in no foreverypart")
    store, change = storing(args, "variable"), modifiers(args)
    first = args.number("first") if args.given("first") else None
    args.scope.reads_body()

    def step(run: Run) -> None:
        text = current_part(run).text
        run.spend(1 + (len(text) >> 8))
        # More than a variable holds is cut before it is changed, too: hex digits of megabytes help nobody.
        most = run.limits.variable_bytes if first is None else min(first, run.limits.variable_bytes)
        store(run, change(text[:most]))

    return step


# --- :mime


def _headers(args: Arguments) -> Callable[[Run], list[Header]]:
    """Which headers a test with ``:mime`` looks at (section 4.1)."""
    args.scope.reads_body()
    if not args.flag("anychild"):
        return lambda run: [current_part(run).header]

    def all_below(run: Run) -> list[Header]:
        found = [part.header for part in current_part(run).walk()]
        run.spend(len(found))
        return found

    return all_below


def _structured(name: str, raw: bytes) -> Structured | None:
    """A field of known structure, or None."""
    if name == "content-type":
        return parse_content_type(raw)
    found = parse_structured(raw)
    return found if found.value else None


def _reading(option: str, params: Sequence[str]) -> Callable[[str, bytes], Sequence[str]]:
    """What gives the values that are tested of one field."""

    def read(name: str, raw: bytes) -> Sequence[str]:
        if option == "param":
            if name == "content-type":
                found = parse_content_type(raw)
                if found is None:
                    # A type that makes no sense may have parameters that do.
                    found = parse_structured(raw)
            else:
                found = parse_structured(raw)
            return [value for key, value in found.params if key in params]
        if name not in ("content-type", "content-disposition"):
            return ("",)
        structured = _structured(name, raw)
        if structured is None:
            return ()
        if name == "content-disposition":
            return ("",) if option == "subtype" else (structured.value,)
        if option == "contenttype":
            return (structured.value,)
        kind, _, subtype = structured.value.partition("/")
        return (kind if option == "type" else subtype,)

    return read


def _header(args: Arguments) -> Check:
    headers, names, match = _headers(args), base.lowered(args.texts("header names")), matcher(args)
    select = base.selection(args)
    option = args.choice("option")
    params = [name.lower() for name in args.literals("option")] if option == "param" else []
    read = _reading(option, params) if option else None

    def check(run: Run) -> bool:
        values: list[str] = []
        for header in headers(run):
            for name in names(run):
                if read is None:
                    values += header.values(name)
                else:
                    for raw in header.raw(name):
                        values += read(name, raw)
        if select is not None:
            values = list(select(values))  # type: ignore[arg-type]  # what goes in comes out
        return match(run, values)

    return check


def _address(args: Arguments) -> Check:
    headers, names, match = _headers(args), base.lowered(args.texts("header names")), matcher(args)
    select, part = base.selection(args), base.address_part(args)

    def check(run: Run) -> bool:
        fields: Sequence[object] = [
            field for header in headers(run) for name in names(run) for field in header.addresses(name)
        ]
        if select is not None:
            fields = select(fields)
        return match(
            run,
            [
                value
                for field in fields
                for address in field  # type: ignore[attr-defined]  # what goes into `select` comes out
                if (value := part(run, address)) is not None
            ],
        )

    return check


def _exists(args: Arguments) -> Check:
    headers, names = _headers(args), base.lowered(args.texts("header names"))

    def check(run: Run) -> bool:
        found = headers(run)
        wanted = names(run)
        run.spend(1 + len(wanted) * len(found))
        return all(any(header.exists(name) for header in found) for name in wanted)

    return check


_MIME: Final = (Tag("mime", needs="mime"), Tag("anychild", needs="mime"))
_OPTION: Final = (
    *[Tag(name, group="option", needs="mime") for name in ("type", "subtype", "contenttype")],
    Tag("param", Kind.STRINGS, group="option", needs="mime"),
)
TAGS = {"header": (*_MIME, *_OPTION), "address": _MIME, "exists": _MIME}
base.OF_PARTS.update(header=_header, address=_address, exists=_exists)

COMMANDS = {
    "foreverypart": CommandSyntax(
        compile=_for_every_part,
        needs="foreverypart",
        tags=(Tag("name", Kind.STRING),),
        block=True,
        opens=_open,
    ),
    "break": CommandSyntax(compile=_break, needs="foreverypart", tags=(Tag("name", Kind.STRING),)),
    "extracttext": CommandSyntax(
        compile=_extract_text,
        needs="extracttext",
        tags=(Tag("first", Kind.NUMBER),),
        operands=(Operand("variable", Kind.STRING),),
    ),
}
