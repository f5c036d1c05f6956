"""Tags of redirect: which delivery status notifications are asked for, and until when it is to be delivered (RFC 6009)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Final, TypeVar

from twisted_mail.sieve.registry import Kind, Tag
from twisted_mail.sieve.values import Redirect, SieveError

if TYPE_CHECKING:
    from twisted_mail.sieve.arguments import Arguments
    from twisted_mail.sieve.running import Run
    from twisted_mail.sieve.text import Text

__all__ = ["CAPABILITIES", "TAGS", "redirection"]

T = TypeVar("T")

CAPABILITIES = ("redirect-deliverby", "redirect-dsn")

TAGS = {
    "redirect": (
        Tag("notify", Kind.STRING, needs="redirect-dsn"),
        Tag("ret", Kind.STRING, needs="redirect-dsn"),
        Tag("bytimerelative", Kind.NUMBER, group="bytime", needs="redirect-deliverby"),
        Tag("bytimeabsolute", Kind.STRING, group="bytime", needs="redirect-deliverby"),
        Tag("bymode", Kind.STRING, needs="redirect-deliverby"),
        Tag("bytrace", needs="redirect-deliverby"),
    )
}

_NOTIFY: Final = frozenset(("SUCCESS", "FAILURE", "DELAY"))
_MODES: Final = {"notify": "N", "return": "R"}
_MOST_SECONDS: Final = 999_999_999
"""RFC 2852 section 4: nine digits."""


def _notify(text: str) -> tuple[str, ...]:
    """``notify-esmtp-value`` (RFC 3461 section 4.1). Raises: ValueError."""
    words = text.upper().split(",")
    if words != ["NEVER"] and (not _NOTIFY.issuperset(words) or len(set(words)) < len(words)):
        raise ValueError(f"{text[:100]!r} is neither NEVER nor a list of SUCCESS, FAILURE, DELAY")
    return tuple(words)


def _ret(text: str) -> str:
    """Section 4.3 there. Raises: ValueError."""
    if text.upper() not in ("FULL", "HDRS"):
        raise ValueError(f"{text[:100]!r} is neither FULL nor HDRS")
    return text.upper()


def _mode(text: str) -> str:
    """Raises: ValueError."""
    try:
        return _MODES[text.lower()]
    except KeyError:
        raise ValueError(f"{text[:100]!r} is neither notify nor return") from None


def _moment(text: str) -> float:
    """Seconds since 1970 of a date and time with its zone. Raises: ValueError."""
    wrong = f"{text[:100]!r} is no date and time with a zone (RFC 3339)"
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError:
        raise ValueError(wrong) from None
    if moment.tzinfo is None or "T" not in text.upper():
        raise ValueError(wrong)
    return moment.timestamp()


def redirection(args: Arguments) -> Callable[[Run, str], Redirect]:
    """What makes the redirect to an address. Raises: SieveError for what is wrong with the tags."""
    for tag in ("bymode", "bytrace"):
        if args.given(tag) and not args.given("bytime"):
            args.fail(f"the tag :{tag} says something of a time that is not given", tag)
    if not any(map(args.given, ("notify", "ret", "bytime"))):
        return lambda run, address: Redirect(address)
    notify = _read(args, "notify", args.optional_text("notify"), _notify)
    ret = _read(args, "ret", args.optional_text("ret"), _ret)
    mode = _read(args, "bymode", args.optional_text("bymode"), _mode)
    trace, line = "T" if args.flag("bytrace") else "", args.line
    relative, absolute = args.choice("bytime") == "bytimerelative", args.choice("bytime") == "bytimeabsolute"
    seconds = min(args.number("bytime"), _MOST_SECONDS) if relative else 0
    moment = _read(args, "bytime", args.text("bytime"), _moment) if absolute else None
    if relative and not seconds and args.given("bymode") and args.written("bymode").lower() == "return":
        args.fail("what is to come back if it is late needs some time", "bytime")

    def make(run: Run, address: str) -> Redirect:
        try:
            until = None
            if relative:
                until = run.environment.now + seconds
            elif moment is not None:
                until = min(moment(run), run.environment.now + _MOST_SECONDS)
            return Redirect(
                address,
                () if notify is None else notify(run),
                "" if ret is None else ret(run),
                None if until is None else (until, ("N" if mode is None else mode(run)) + trace),
            )
        except ValueError as error:
            raise SieveError(str(error), line) from None

    return make


def _read(args: Arguments, name: str, text: Text | None, read: Callable[[str], T]) -> Callable[[Run], T] | None:
    """What gives a tag's value; None: it was not given. Raises: SieveError, and at run time ValueError."""
    if text is None:
        return None
    if text.constant is not None:
        try:
            constant = read(text.constant)
        except ValueError as error:
            args.fail(str(error), name)
        return lambda run: constant
    return lambda run: read(text(run))
