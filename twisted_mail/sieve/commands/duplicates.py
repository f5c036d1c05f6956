"""duplicate (RFC 7352): whether a message with this id has come before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted_mail.sieve.registry import Check, Kind, Tag, TestSyntax

if TYPE_CHECKING:
    from twisted_mail.sieve.arguments import Arguments
    from twisted_mail.sieve.running import Run

__all__ = ["CAPABILITIES", "TESTS", "tracking_key"]

CAPABILITIES = ("duplicate",)

_SECONDS: Final = 7 * 86_400
_MOST_SECONDS: Final = 90 * 86_400


def tracking_key(handle: str, unique_id: str) -> str:
    """What an id is remembered by. Ids of different handles never meet (RFC 7352 section 3)."""
    return f"{len(handle)}:{handle}:{unique_id}"


def _compile(args: Arguments) -> Check:
    handle = args.optional_text("handle")
    source = args.choice("source")
    named = args.text("source") if source else None
    seconds = min(args.number("seconds", _SECONDS), _MOST_SECONDS)
    last = args.flag("last")

    def check(run: Run) -> bool:
        if not seconds:
            return False
        if source == "uniqueid" and named is not None:
            unique_id = named(run)
        else:
            # What is no name of a field is no error, and there is no such field (section 3.1).
            values = run.header.values(named(run).lower() if named is not None else "message-id")
            if not values or not values[0]:
                return False
            unique_id = values[0]
        key = tracking_key(handle(run) if handle is not None else "", unique_id)
        seen = run.environment.seen.get(key)
        before = seen is not None and run.environment.now - seen < seconds
        # Only a run that ends well is remembered, so asking twice in one run gives one answer (section 3).
        if last or not before:
            run.tracked[key] = max(seconds, run.tracked.get(key, 0))
        return before

    return check


TESTS = {
    "duplicate": TestSyntax(
        compile=_compile,
        needs="duplicate",
        tags=(
            Tag("handle", Kind.STRING),
            Tag("header", Kind.STRING, group="source"),
            Tag("uniqueid", Kind.STRING, group="source"),
            Tag("seconds", Kind.NUMBER),
            Tag("last"),
        ),
    )
}
