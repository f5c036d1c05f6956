"""Vacation answers (RFC 5230): whom they must never go to (section 4.5 and 4.6, RFC 3834 section 2), and what they look like.

Once in so many days is the account's to see to (`account.delivering`).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Iterator
from email.utils import formatdate
from typing import Final

from twisted_mail.delivery.letters import encoded, field, letter, one_line, text_part
from twisted_mail.mime import iterate_fields, mailboxes_of, message_ids, parse_addresses, unfold
from twisted_mail.sieve.message import Header
from twisted_mail.sieve.values import Vacation
from twisted_mail.values import canonical_address

__all__ = ["addressed_to", "answer_id", "by_program", "canonical", "compose", "is_addressed", "never_answered"]

_PROGRAMS: Final = frozenset(
    ("mailer-daemon", "listserv", "listproc", "majordomo", "mdaemon", "noreply", "no-reply", "donotreply", "do-not-reply")
)
_PREFIXES: Final = ("owner-", "bounce-", "bounces-")
_SUFFIXES: Final = ("-request", "-owner", "-bounces", "-bounce", "-return")
_LIST_FIELDS: Final = (
    "list-id",
    "list-help",
    "list-subscribe",
    "list-unsubscribe",
    "list-post",
    "list-owner",
    "list-archive",
)
_ADDRESSED: Final = ("to", "cc", "bcc", "resent-to", "resent-cc", "resent-bcc")
_SUPPRESSED: Final = frozenset(("all", "oof", "autoreply"))
_BLANK: Final = re.compile(r"(?:\A|\r?\n)\r?\n")
_REFERENCES: Final = 20
MOST_ADDRESSED: Final = 20
"""Addresses of a message that are looked up in the directory, to see whether one is the user's."""


def canonical(address: str) -> str:
    """As the directory spells it; empty if it is no address."""
    try:
        return canonical_address(address.strip().removeprefix("<").removesuffix(">")) if "@" in address else ""
    except ValueError:
        return ""


def never_answered(sender: str, header: Header, own: Collection[str]) -> str:
    """Why *sender* must not be answered at all; empty: it may be. *own* are the user's addresses, `canonical`."""
    if not sender:
        return "it has no sender"
    address = canonical(sender)
    if not address:
        return "its sender has no address"
    if address in own:
        return "it is from the user"
    local = address.rpartition("@")[0]
    if local in _PROGRAMS or local.startswith(_PREFIXES) or local.endswith(_SUFFIXES):
        return f"{address} is a program's address"
    return by_program(header)


def by_program(header: Header) -> str:
    """Why a message comes from no person; empty: nothing says so."""
    for name in _LIST_FIELDS:
        if header.exists(name):
            return f"it comes from a mailing list ({name})"
    for value in header.values("auto-submitted"):
        if value.partition(";")[0].strip().lower() != "no":
            return "a program sent it (Auto-Submitted)"
    for value in header.values("precedence"):
        if value.strip().lower() in ("bulk", "junk", "list"):
            return f"it was sent in bulk (Precedence: {one_line(value, 20)})"
    for value in header.values("x-auto-response-suppress"):
        if _SUPPRESSED & {word.strip().lower() for word in value.split(",")}:
            return "its sender wants no answer (X-Auto-Response-Suppress)"
    return ""


def addressed_to(header: Header) -> Iterator[str]:
    """The addresses that a message was openly sent to, `canonical`, each once."""
    known: set[str] = set()
    for name in _ADDRESSED:
        for addresses in header.addresses(name):
            for address in addresses:
                found = canonical(address.full)
                if found and found not in known:
                    known.add(found)
                    yield found


async def is_addressed(header: Header, own: Collection[str], leads_here: Callable[[str], Awaitable[bool]]) -> bool:
    """Whether the message was openly sent to one of the user's addresses: those of *own*, and such that *leads_here*
    says are the user's alone."""
    addresses = list(addressed_to(header))
    if any(address in own for address in addresses):
        return True
    for address in addresses[:MOST_ADDRESSED]:
        if await leads_here(address):
            return True
    return False


def answer_id(delivery: object, hostname: str) -> str:
    """The Message-ID of the answer to a delivery: the same however often it is written."""
    return f"{delivery}.vacation@{hostname}"


def compose(vacation: Vacation, header: Header, *, sender: str, author: str, message_id: str, now: float) -> bytes:
    """The answer (section 5). *sender*: whom it goes to. *author*: the value of From. *now*: seconds since 1970."""
    subject = vacation.subject or _subject(header)
    original = _ids(header, "message-id")[:1]
    before = _ids(header, "references") or _ids(header, "in-reply-to")[:1]
    references = list(dict.fromkeys((*before, *original)))
    if len(references) > _REFERENCES:
        references = [references[0], *references[1 - _REFERENCES :]]
    fields = [
        ("From", author),
        ("To", sender),
        ("Subject", subject),
        ("Date", formatdate(now)),
        ("Message-ID", f"<{message_id}>"),
        ("In-Reply-To", " ".join(f"<{id}>" for id in original)),
        ("References", " ".join(f"<{id}>" for id in references) if original else ""),
        ("Auto-Submitted", "auto-replied"),
    ]
    if vacation.mime:
        front, body = _entity(vacation.reason)
        return b"".join(field(name, value) for name, value in fields if value) + front + b"\r\n" + body
    more, body = text_part(vacation.reason)
    return letter([*fields, *more], body)


def _subject(header: Header) -> str:
    found = header.values("subject")
    return f"Auto: {one_line(found[0])}" if found and found[0].strip() else "Automated reply"


def _ids(header: Header, name: str) -> list[str]:
    return [id for value in header.raw(name)[:1] for id in message_ids(value) if id.isascii() and " " not in id]


def _entity(reason: str) -> tuple[bytes, bytes]:
    """The MIME fields and the body of ``:mime``; other fields are left out (section 4.4 knows none)."""
    text = re.sub(r"\r\n|\r|\n", "\r\n", reason)
    blank = _BLANK.search(text)
    head, body = (text[: blank.start()], text[blank.end() :]) if blank is not None else (text, "")
    octets = body.encode("utf-8", "replace")
    front, names = b"", set()
    for each in iterate_fields(head.encode("utf-8", "replace") + b"\r\n"):
        if each.name.startswith(b"content-"):
            name = each.name.decode("ascii").title()
            names.add(each.name)
            value = unfold(each.value).decode("utf-8", "replace")
            front += field(name, value if value.isascii() else encoded(value, name))
    if not octets.isascii() and b"content-transfer-encoding" not in names:
        front += b"Content-Transfer-Encoding: 8bit\r\n"
    return b"MIME-Version: 1.0\r\n" + front, octets


def from_addresses(value: str) -> list[str]:
    """The addresses of a ``:from``, `canonical`."""
    found = mailboxes_of(parse_addresses(value.encode("utf-8", "replace")))
    return [canonical(mailbox.address) for mailbox in found]
