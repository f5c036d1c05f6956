"""fcc (RFC 8580): a copy of the message that vacation or notify sends goes into a mailbox."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted_mail.sieve.commands.actions import file_into
from twisted_mail.sieve.commands.mailboxes import WHERE_TAGS
from twisted_mail.sieve.registry import Kind, Tag
from twisted_mail.sieve.values import FileInto

if TYPE_CHECKING:
    from twisted_mail.sieve.arguments import Arguments
    from twisted_mail.sieve.running import Run

__all__ = ["CAPABILITIES", "FCC_TAGS", "compile_fcc"]

CAPABILITIES = ("fcc",)

FCC_TAGS = (Tag("fcc", Kind.STRING, needs="fcc"), Tag("flags", Kind.STRINGS, needs="imap4flags"), *WHERE_TAGS)
"""``FCC-OPTS`` (section 3.1): fileinto's tags as far as their extensions were required."""


def _filed(action: FileInto) -> FileInto:
    """The flags of the message at hand are not those of the answer: without ``:flags`` it has none (RFC 8580 section 3.1)."""
    return FileInto(action.mailbox, (), action.create, action.special_use, action.mailbox_id)


def compile_fcc(args: Arguments) -> Callable[[Run], FileInto] | None:
    """What files the copy, of a command with `FCC_TAGS`; None: none is wanted.

    Raises: SieveError where there are tags for a mailbox, and no ``:fcc``.
    """
    if not args.given("fcc"):
        for tag in ("flags", "create", "specialuse", "mailboxid"):
            if args.given(tag):
                args.fail(f"the tag :{tag} says something of :fcc, which is not there", tag)
        return None
    make = file_into(args, args.text("fcc"), "fcc")
    return make if args.given("flags") else lambda run: _filed(make(run))
