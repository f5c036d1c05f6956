"""Tests of mailboxes and their annotations (RFC 5490), by use (RFC 8579) and by id (RFC 9042), and fileinto's tags of
the same extensions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_mail.sieve.matching import MATCHING, matcher
from twisted_mail.sieve.registry import Check, Kind, Operand, Tag, TestSyntax
from twisted_mail.sieve.values import SieveError

if TYPE_CHECKING:
    from twisted_mail.sieve.arguments import Arguments
    from twisted_mail.sieve.running import Run

__all__ = ["CAPABILITIES", "TAGS", "TESTS", "WHERE_TAGS"]

CAPABILITIES = ("mailbox", "mailboxid", "mboxmetadata", "servermetadata", "special-use")

WHERE_TAGS = (
    Tag("create", needs="mailbox"),
    Tag("specialuse", Kind.STRING, needs="special-use"),
    Tag("mailboxid", Kind.STRING, needs="mailboxid"),
)
"""Which mailbox, besides its name."""
TAGS = {"fileinto": WHERE_TAGS}


def check_where(args: Arguments) -> None:
    """Raises: SieveError for tags of `WHERE_TAGS` that make no sense."""
    if args.given("specialuse"):
        if args.given("mailboxid"):
            # RFC 9042 section 4.2.
            args.fail("the tags :specialuse and :mailboxid exclude each other", "mailboxid")
        use = args.text("specialuse").constant
        if use is not None and not _is_use(use):
            args.fail(f"{use!r} is no special use: it looks like \\\\Junk", "specialuse")


def _is_use(use: str) -> bool:
    """``use-attr`` (RFC 6154 section 6)."""
    return len(use) > 1 and use[0] == "\\" and use.isascii() and not set(use[1:]) & set(' \\(){%*"]') and use.isprintable()


def _exists(args: Arguments) -> Check:
    names = args.texts("names")

    def check(run: Run) -> bool:
        mailboxes = run.environment.mailboxes
        wanted = names(run)
        run.spend(len(wanted))
        return all(mailboxes.exists(name) for name in wanted)

    return check


def _id_exists(args: Arguments) -> Check:
    ids = args.texts("ids")

    def check(run: Run) -> bool:
        mailboxes = run.environment.mailboxes
        wanted = ids(run)
        run.spend(len(wanted))
        return all(mailboxes.id_exists(each) for each in wanted)

    return check


def _use_exists(args: Arguments) -> Check:
    mailbox, uses, line = args.optional_text("mailbox"), args.texts("uses"), args.line
    for use in uses.constant or ():
        if not _is_use(use):
            args.fail(f"{use!r} is no special use: it looks like \\\\Junk", "uses")

    def check(run: Run) -> bool:
        mailboxes = run.environment.mailboxes
        name = mailbox(run) if mailbox is not None else None
        if name is not None and not mailboxes.exists(name):
            return False
        wanted = uses(run)
        run.spend(len(wanted))
        for use in wanted:
            if not _is_use(use):
                raise SieveError(f"{use!r} is no special use", line)
        return all(mailboxes.special_use_exists(use, name) for use in wanted)

    return check


def _metadata(args: Arguments) -> Check:
    server = args.name == "servermetadata"
    mailbox = None if server else args.text("mailbox")
    entry, match = args.text("entry"), matcher(args)

    def check(run: Run) -> bool:
        name = mailbox(run) if mailbox is not None else None
        value = run.environment.mailboxes.metadata(name, entry(run).lower())
        # What is not there matches nothing, not even the empty string (RFC 5490 section 3.2).
        return match(run, (value,) if value is not None else ())

    return check


def _metadata_exists(args: Arguments) -> Check:
    server = args.name == "servermetadataexists"
    mailbox = None if server else args.text("mailbox")
    entries = args.texts("entries")

    def check(run: Run) -> bool:
        mailboxes = run.environment.mailboxes
        name = mailbox(run) if mailbox is not None else None
        if name is not None and not mailboxes.exists(name):
            return False
        wanted = entries(run)
        run.spend(len(wanted))
        return all(mailboxes.metadata(name, entry.lower()) is not None for entry in wanted)

    return check


_MAILBOX = Operand("mailbox", Kind.STRING)
_ENTRY, _ENTRIES = Operand("entry", Kind.STRING), Operand("entries", Kind.STRINGS)
_KEYS = Operand("keys", Kind.STRINGS)

TESTS = {
    "mailboxexists": TestSyntax(compile=_exists, needs="mailbox", operands=(Operand("names", Kind.STRINGS),)),
    "mailboxidexists": TestSyntax(compile=_id_exists, needs="mailboxid", operands=(Operand("ids", Kind.STRINGS),)),
    "specialuse_exists": TestSyntax(
        compile=_use_exists,
        needs="special-use",
        operands=(Operand("mailbox", Kind.STRING, optional=True), Operand("uses", Kind.STRINGS)),
    ),
    "metadata": TestSyntax(
        compile=_metadata, needs="mboxmetadata", tags=MATCHING, operands=(_MAILBOX, _ENTRY, _KEYS)
    ),
    "metadataexists": TestSyntax(compile=_metadata_exists, needs="mboxmetadata", operands=(_MAILBOX, _ENTRIES)),
    "servermetadata": TestSyntax(compile=_metadata, needs="servermetadata", tags=MATCHING, operands=(_ENTRY, _KEYS)),
    "servermetadataexists": TestSyntax(compile=_metadata_exists, needs="servermetadata", operands=(_ENTRIES,)),
}
