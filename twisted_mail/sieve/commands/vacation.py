"""vacation (RFC 5230) with vacation-seconds (RFC 6131): asks that the sender be answered. Whom that must never be, and
who was answered already, is decided by who carries it out.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

from twisted_mail.sieve.addressing import is_mailbox_list
from twisted_mail.sieve.commands.fcc import FCC_TAGS, compile_fcc
from twisted_mail.sieve.registry import CommandSyntax, Kind, Operand, Step, Tag
from twisted_mail.sieve.values import SieveError, Vacation

if TYPE_CHECKING:
    from twisted_mail.sieve.arguments import Arguments
    from twisted_mail.sieve.running import Run

__all__ = ["CAPABILITIES", "COMMANDS", "IMPLIES"]

CAPABILITIES = ("vacation", "vacation-seconds")
IMPLIES = {"vacation-seconds": ("vacation",)}

_DAY: Final = 86_400
_DAYS: Final = 7


def implicit_handle(subject: str, sender: str, mime: bool, reason: str) -> str:
    """What names a response that its script gave no name: what it says, as that stands in the script, before variables
    (RFC 5230 section 4.2): one answer with the subject of each message in it is one and the same."""
    digest = sha256()
    for piece in (subject, sender, "mime" if mime else "", reason):
        octets = piece.encode("utf-8", "replace")
        digest.update(b"%d:" % len(octets) + octets)
    return "~" + digest.hexdigest()[:32]


def _compile(args: Arguments) -> Step:
    line = args.line
    reason, subject, sender = args.text("reason"), args.optional_text("subject"), args.optional_text("from")
    handle, addresses, mime = args.optional_text("handle"), args.texts("addresses"), args.flag("mime")
    if sender is not None and sender.constant is not None and not is_mailbox_list(sender.constant):
        args.fail(f"{sender.constant!r} is no address", "from")
    made = implicit_handle(args.written("subject"), args.written("from"), mime, args.written("reason"))
    given = args.choice("period")
    asked = args.number("period") * (_DAY if given == "days" else 1) if given else _DAYS * _DAY
    fcc = compile_fcc(args)

    def step(run: Run) -> None:
        if any(type(action) is Vacation for action in run.actions):
            raise SieveError("vacation may be asked for once (RFC 5230 section 4.7)", line)
        who = sender(run) if sender is not None else ""
        if who and not is_mailbox_list(who):
            raise SieveError(f"{who!r} is no address", line)
        limits = run.limits
        action = Vacation(
            reason=reason(run),
            handle=handle(run) if handle is not None else made,
            seconds=max(limits.vacation_min_seconds, min(asked, limits.vacation_max_seconds)),
            subject=subject(run) if subject is not None else "",
            sender=who,
            addresses=addresses(run),
            mime=mime,
            fcc=fcc(run) if fcc is not None else None,
        )
        run.act(action, line)
        run.tell(line, "vacation")

    return step


COMMANDS = {
    "vacation": CommandSyntax(
        compile=_compile,
        needs="vacation",
        tags=(
            Tag("days", Kind.NUMBER, group="period"),
            Tag("seconds", Kind.NUMBER, group="period", needs="vacation-seconds"),
            Tag("subject", Kind.STRING),
            Tag("from", Kind.STRING),
            Tag("addresses", Kind.STRINGS),
            Tag("mime"),
            Tag("handle", Kind.STRING),
            *FCC_TAGS,
        ),
        operands=(Operand("reason", Kind.STRING),),
    )
}
