"""replace and enclose (RFC 5703 sections 5 and 6): later tests and actions take the message as it is then; only redirect
sends what was there before it was enclosed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted_mail.sieve.addressing import is_mailbox_list
from twisted_mail.sieve.commands.base import lowered
from twisted_mail.sieve.commands.parts import Parts
from twisted_mail.sieve.editing import is_field_name
from twisted_mail.sieve.entity import Entity, parsed
from twisted_mail.sieve.header import HEADER_BYTES
from twisted_mail.sieve.registry import CommandSyntax, Kind, Operand, Step, Tag
from twisted_mail.sieve.rewriting import enclosed, mime_entity, replaced, text_entity
from twisted_mail.sieve.values import SieveError

if TYPE_CHECKING:
    from twisted_mail.sieve.arguments import Arguments
    from twisted_mail.sieve.running import Run

__all__ = ["CAPABILITIES", "COMMANDS"]

CAPABILITIES = ("enclose", "replace")

_MOST_ENCLOSED: Final = 8
"""Times that a message is enclosed."""


def _replace(args: Arguments) -> Step:
    text, subject, sender = args.text("replacement"), args.optional_text("subject"), args.optional_text("from")
    line, make = args.line, mime_entity if args.flag("mime") else text_entity
    if sender is not None and sender.constant is not None and not is_mailbox_list(sender.constant):
        args.fail(f"{sender.constant!r} is no address", "from")
    args.scope.reads_body()

    def step(run: Run) -> None:
        octets = make(text(run))
        _charge(run, len(octets), line)
        state = run.state(Parts)
        if state.current is not None:
            run.message.put(state.current, Entity(octets, parsed(octets), own=True))
            run.changed = True
            run.tell(line, "replace a part")
            return
        who = sender(run) if sender is not None else None
        if who is not None and not is_mailbox_list(who):
            raise SieveError(f"{who!r} is no address", line)
        _charge(run, len(_header(run, line)), line)
        run.message = replaced(run.message, octets, subject(run) if subject is not None else None, who)
        run.changed = True
        state.messages += 1
        run.tell(line, "replace the message")

    return step


def _enclose(args: Arguments) -> Step:
    text, subject, names = args.text("text"), args.optional_text("subject"), args.texts("headers")
    line, copied = args.line, lowered(names)
    for name in names.constant or ():
        if not is_field_name(name):
            args.fail(f"{name!r} is no name of a header field", "headers")
    args.scope.reads_body()

    def step(run: Run) -> None:
        said, environment = text(run), run.environment
        _charge(run, len(said) + 2 * len(_header(run, line)), line)
        run.enclosures += 1
        if run.enclosures > _MOST_ENCLOSED:
            raise SieveError(f"the message is enclosed more than {_MOST_ENCLOSED} times", line)
        if run.sent is None:
            # RFC 5703 section 6: what is redirected is not affected.
            run.sent = (run.message.rewritten(),)
        run.message = enclosed(
            run.message,
            said,
            subject=subject(run) if subject is not None else None,
            copied=copied(run),
            author=environment.user or environment.envelope_to,
            now=environment.now,
            zone=environment.zone,
        )
        run.changed = True
        run.tell(line, "enclose")

    return step


def _header(run: Run, line: int) -> bytes:
    """The message's own; of a larger one not all is known. Raises: SieveError."""
    octets = run.message.header.octets
    if len(octets) >= HEADER_BYTES:
        raise SieveError("the header of the message is too large for that", line)
    return octets


def _charge(run: Run, octets: int, line: int) -> None:
    run.spend(10 + (octets >> 8))
    run.write(octets, line)


COMMANDS = {
    "replace": CommandSyntax(
        compile=_replace,
        needs="replace",
        tags=(Tag("mime"), Tag("subject", Kind.STRING), Tag("from", Kind.STRING)),
        operands=(Operand("replacement", Kind.STRING),),
    ),
    "enclose": CommandSyntax(
        compile=_enclose,
        needs="enclose",
        tags=(Tag("subject", Kind.STRING), Tag("headers", Kind.STRINGS)),
        operands=(Operand("text", Kind.STRING),),
    ),
}
