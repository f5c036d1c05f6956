"""enotify (RFC 5435) with the one method ``mailto`` (RFC 5436): asks that somebody be told of the message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_mail.sieve.addressing import outbound_address
from twisted_mail.sieve.commands.fcc import FCC_TAGS, compile_fcc
from twisted_mail.sieve.mailto import encode_url, parse_mailto
from twisted_mail.sieve.matching import MATCHING, matcher
from twisted_mail.sieve.registry import Check, CommandSyntax, Kind, Modifier, Operand, Step, Tag, TestSyntax
from twisted_mail.sieve.values import Notify, SieveError

if TYPE_CHECKING:
    from twisted_mail.sieve.arguments import Arguments
    from twisted_mail.sieve.running import Run

__all__ = ["CAPABILITIES", "COMMANDS", "MODIFIERS", "TESTS"]

CAPABILITIES = ("enotify",)

MODIFIERS = {"encodeurl": Modifier(15, encode_url, needs="enotify")}


def _fault(uri: str) -> str:
    """Why *uri* cannot be notified; empty: it can."""
    try:
        parse_mailto(uri)
    except ValueError as error:
        return str(error)
    return ""


def _compile(args: Arguments) -> Step:
    line = args.line
    method, sender, message = args.text("method"), args.optional_text("from"), args.optional_text("message")
    importance, options = args.optional_text("importance"), args.texts("options")
    # Another method is an error only where it is come to (RFC 5435 section 3.2).
    known = method.constant is not None and method.constant.lower().startswith("mailto:")
    if known and (why := _fault(method.constant or "")):
        args.fail(f"{method.constant!r}: {why}", "method")
    if sender is not None and sender.constant is not None and outbound_address(sender.constant) is None:
        args.fail(f"{sender.constant!r} is no address", "from")
    if importance is not None and importance.constant not in (None, "1", "2", "3"):
        args.fail("importance is 1, 2 or 3", "importance")
    fcc = compile_fcc(args)

    def step(run: Run) -> None:
        uri = method(run)
        if why := _fault(uri):
            raise SieveError(f"notify: {uri!r}: {why}", line)
        who = sender(run) if sender is not None else ""
        weight = importance(run) if importance is not None else "2"
        action = Notify(
            method=uri,
            message=message(run) if message is not None else "",
            # What is no address is left to the default (RFC 5435 section 3.3).
            sender=who if outbound_address(who) is not None else "",
            importance=weight if weight in ("1", "2", "3") else "2",
            options=options(run),
            fcc=fcc(run) if fcc is not None else None,
        )
        run.act(action, line)
        run.tell(line, f"notify {uri[:200]}")

    return step


def _valid(args: Arguments) -> Check:
    uris = args.texts("uris")

    def check(run: Run) -> bool:
        wanted = uris(run)
        run.spend(len(wanted))
        return not any(_fault(uri) for uri in wanted)

    return check


def _capability(args: Arguments) -> Check:
    uri, name, match = args.text("uri"), args.text("capability"), matcher(args)

    def check(run: Run) -> bool:
        # Whether a reader of mail is there nobody knows (RFC 5436 section 2.2); there are no other capabilities.
        known = name(run).lower() == "online" and not _fault(uri(run))
        return known and match(run, ("maybe",))

    return check


COMMANDS = {
    "notify": CommandSyntax(
        compile=_compile,
        needs="enotify",
        tags=(
            Tag("from", Kind.STRING),
            Tag("importance", Kind.STRING),
            Tag("options", Kind.STRINGS),
            Tag("message", Kind.STRING),
            *FCC_TAGS,
        ),
        operands=(Operand("method", Kind.STRING),),
    )
}

TESTS = {
    "valid_notify_method": TestSyntax(compile=_valid, needs="enotify", operands=(Operand("uris", Kind.STRINGS),)),
    "notify_method_capability": TestSyntax(
        compile=_capability,
        needs="enotify",
        tags=MATCHING,
        operands=(Operand("uri", Kind.STRING), Operand("capability", Kind.STRING), Operand("keys", Kind.STRINGS)),
    ),
}
