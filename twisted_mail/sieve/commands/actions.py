"""Where a message goes: keep, fileinto, redirect, discard (RFC 5228 section 4), and ``:copy`` (RFC 3894)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from twisted_mail.sieve.addressing import outbound_address
from twisted_mail.sieve.arguments import Arguments
from twisted_mail.sieve.commands.mailboxes import check_where
from twisted_mail.sieve.commands.redirecting import redirection
from twisted_mail.sieve.flags import flags_of
from twisted_mail.sieve.registry import CommandSyntax, Kind, Operand, Step, Tag
from twisted_mail.sieve.running import Run
from twisted_mail.sieve.text import Text
from twisted_mail.sieve.values import Discard, FileInto, Keep, SieveError

__all__ = ["CAPABILITIES", "COMMANDS", "TAGS", "file_into"]

CAPABILITIES = ("copy", "encoded-character", "fileinto")

_MAILBOX_MOST = 1000
"""Octets of a mailbox's name."""


def _flags(args: Arguments) -> Callable[[Run], tuple[str, ...]]:
    """``:flags``, or what imap4flags' internal variable holds by then (RFC 5232 section 5)."""
    if not args.given("flags"):
        return lambda run: run.flags
    given = args.texts("flags")
    if given.constant is not None:
        flags = flags_of(given.constant)
        return lambda run: flags
    return lambda run: flags_of(given(run))


def _bad_mailbox(name: str) -> str:
    """What is wrong with a mailbox's name; empty: nothing."""
    if not name:
        return "a mailbox has a name"
    if len(name) > _MAILBOX_MOST or len(name.encode("utf-8", "replace")) > _MAILBOX_MOST:
        return f"the name of a mailbox has {_MAILBOX_MOST} octets at most"
    if any(character < " " or "\x7f" <= character <= "\x9f" for character in name):
        return "the name of a mailbox has no control characters"
    return ""


def file_into(args: Arguments, mailbox: Text, at: str) -> Callable[[Run], FileInto]:
    """What ``fileinto`` asks for with the arguments that it has: :flags, :create, :specialuse, :mailboxid; ``:fcc`` too,
    which has the same. *at* is the argument of the mailbox, for errors.
    """
    line = args.line
    check_where(args)
    flags = _flags(args)
    create = args.flag("create")
    use = args.optional_text("specialuse")
    identifier = args.optional_text("mailboxid")
    constant = mailbox.constant
    if constant is not None and (wrong := _bad_mailbox(constant)):
        args.fail(wrong, at)

    def make(run: Run) -> FileInto:
        if constant is None:
            name = mailbox(run)
            if wrong := _bad_mailbox(name):
                raise SieveError(wrong, line)
        else:
            name = constant
        return FileInto(
            name,
            flags(run),
            create,
            "" if use is None else use(run),
            "" if identifier is None else identifier(run),
        )

    return make


def _fileinto(args: Arguments) -> Step:
    line, keep = args.line, args.flag("copy")
    mailbox = args.text("mailbox")
    make = file_into(args, mailbox, "mailbox")
    if mailbox.constant is not None and not any(map(args.given, ("flags", "create", "specialuse", "mailboxid"))):
        return _plain_fileinto(FileInto(mailbox.constant), line, keep)

    def step(run: Run) -> None:
        action = make(run)
        run.act(action, line, keep=keep)
        run.tell(line, f'fileinto "{action.mailbox}"{", a copy" if keep else ""}')

    return step


def _plain_fileinto(action: FileInto, line: int, keep: bool) -> Step:
    """What nearly all of them are: always the same."""
    sentence = f'line {line}: fileinto "{action.mailbox}"{", a copy" if keep else ""}'

    def step(run: Run) -> None:
        run.act(replace(action, flags=run.flags) if run.flags else action, line, keep=keep)
        run.note(sentence)

    return step


def _keep(args: Arguments) -> Step:
    line, flags = args.line, _flags(args)

    def step(run: Run) -> None:
        run.act(Keep(flags(run)), line, keep=False)
        run.tell(line, "keep")

    return step


def _redirect(args: Arguments) -> Step:
    line, keep, text = args.line, args.flag("copy"), args.text("address")
    make = redirection(args)
    known: str | None = None
    if text.constant is not None:
        known = outbound_address(text.constant)
        if known is None:
            args.fail(f"{text.constant!r} is no address", "address")

    def step(run: Run) -> None:
        address = known
        if address is None:
            given = text(run)
            address = outbound_address(given)
            if address is None:
                raise SieveError(f"{given[:200]!r} is no address", line)
        run.act(make(run, address), line, keep=keep)
        run.tell(line, f"redirect to {address}{', a copy' if keep else ''}")

    return step


def _discard(args: Arguments) -> Step:
    line = args.line

    def step(run: Run) -> None:
        run.act(Discard(), line, keep=False)
        run.tell(line, "discard")

    return step


COMMANDS = {
    "keep": CommandSyntax(compile=_keep),
    "fileinto": CommandSyntax(compile=_fileinto, needs="fileinto", operands=(Operand("mailbox", Kind.STRING),)),
    "redirect": CommandSyntax(compile=_redirect, operands=(Operand("address", Kind.STRING),)),
    "discard": CommandSyntax(compile=_discard),
}
TAGS = {
    "fileinto": (Tag("copy", needs="copy"),),
    "redirect": (Tag("copy", needs="copy"),),
}
