"""Commands on mailboxes as a whole (RFC 9051 section 6.3, RFC 3501, 5530, 6154, 7889, 8438, 8474)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from twisted_mail.account.state import SEPARATOR, Mailbox
from twisted_mail.account.tree import CreateMailbox, DeleteMailbox, RenameMailbox
from twisted_mail.account.tree import Subscribe as SubscribeIntent
from twisted_mail.imap import codes, replies
from twisted_mail.imap.commands.mailbox import (
    Create,
    Delete,
    Rename,
    Status,
    Subscribe,
    Unsubscribe,
)
from twisted_mail.imap.execute.attributes import mailbox_attributes
from twisted_mail.imap.replies import Condition, no, ok
from twisted_mail.values import MailboxId

if TYPE_CHECKING:
    from twisted_mail.imap.session import Session

__all__ = ["CAPABILITIES", "EXECUTE", "USES", "object_id", "status_of"]

CAPABILITIES = ("CREATE-SPECIAL-USE", "STATUS=SIZE", "OBJECTID")

USES: Final = {
    use.lower(): use for use in ("\\All", "\\Archive", "\\Drafts", "\\Flagged", "\\Junk", "\\Sent", "\\Trash")
}
"""RFC 6154 section 2, of which mailboxes can be made."""
VIRTUAL: Final = frozenset(("\\All", "\\Flagged"))


def object_id(mailbox: MailboxId) -> str:
    """MAILBOXID (RFC 8474 section 4)."""
    return f"F{mailbox}"


async def create(session: Session, tag: bytes, command: Create) -> Condition:
    """RFC 9051 section 6.3.4: a separator at the end says that levels will come below it; the name is without it."""
    name = session.name_in(command.mailbox)
    if len(name) > 1:
        name = name.removesuffix(SEPARATOR)
    uses = []
    for use in command.special_use:
        known = USES.get(use.lower())
        if known is None or known in VIRTUAL:
            return no("That special use is not supported", codes.USEATTR)
        uses.append(known)
    intent = CreateMailbox.of(name, int(session.clock()), tuple(uses))
    created = await session.account.commit(intent)
    return ok("CREATE completed", codes.mailbox_id(object_id(created)))


async def delete(session: Session, tag: bytes, command: Delete) -> Condition:
    """RFC 9051 section 6.3.5. Deleting the selected mailbox closes it."""
    name = session.name_in(command.mailbox)
    state = session.account.state
    if name not in state.by_name and state.has_inferiors(name):
        return no("Only its inferiors exist", codes.HASCHILDREN)
    await session.account.commit(DeleteMailbox(name=name))
    view = session.view
    if view is not None and view.mailbox.id not in session.account.state.mailboxes:
        session.leave_mailbox()
        session.write(ok("The selected mailbox has been deleted", codes.CLOSED).untagged())
    return ok("DELETE completed")


async def rename(session: Session, tag: bytes, command: Rename) -> Condition:
    """RFC 9051 section 6.3.6; with IMAP4rev2 enabled, LIST says what the name became (section 6.3.9.7)."""
    old, new = session.name_in(command.mailbox), session.name_in(command.new)
    intent = RenameMailbox.of(session.account.state, old, new.removesuffix(SEPARATOR) or new, int(session.clock()))
    await session.account.commit(intent)
    if session.enabled.rev2:
        mailbox = session.account.state.by_name.get(intent.new_name)
        if mailbox is not None:
            attributes = mailbox_attributes(session, mailbox)
            session.write(
                replies.list_response(
                    session.name_out(mailbox.name),
                    attributes,
                    separator=session.settings.separator,
                    utf8=True,
                    old_name=command.mailbox,
                )
            )
    return ok("RENAME completed")


async def subscribe(session: Session, tag: bytes, command: Subscribe) -> Condition:
    """RFC 9051 section 6.3.7: of names that exist."""
    name = session.name_in(command.mailbox)
    if not session.account.state.has_inferiors(name):
        session.mailbox(command.mailbox)
    await session.account.commit(SubscribeIntent(name=name))
    return ok("SUBSCRIBE completed")


async def unsubscribe(session: Session, tag: bytes, command: Unsubscribe) -> Condition:
    """RFC 9051 section 6.3.8: a name that is not subscribed is no error."""
    await session.account.commit(SubscribeIntent(name=session.name_in(command.mailbox), on=False))
    return ok("UNSUBSCRIBE completed")


async def status(session: Session, tag: bytes, command: Status) -> Condition:
    """RFC 9051 section 6.3.11."""
    mailbox = session.mailbox(command.mailbox)
    if session.view is None or session.view.mailbox.id != mailbox.id:
        await session.refresh()
        mailbox = session.mailbox(command.mailbox)
    session.write(status_of(session, mailbox, command.items))
    return ok("STATUS completed")


def status_of(session: Session, mailbox: Mailbox, items: Iterable[str]) -> bytes:
    """The STATUS response, from the head of the account's state alone: no column is looked at or loaded."""
    values: list[tuple[str, int | str | None]] = []
    for item in items:
        value: int | str | None
        match item:
            case "MESSAGES":
                value = mailbox.messages
            case "RECENT":
                key = (session.account.id, mailbox.id)
                value = session.recents.count(key, mailbox.messages, mailbox.uid_next, mailbox.columns)
            case "UIDNEXT":
                value = mailbox.uid_next
            case "UIDVALIDITY":
                value = mailbox.uid_validity
            case "UNSEEN":
                value = mailbox.unseen
            case "DELETED":
                value = mailbox.deleted
            case "SIZE":
                value = mailbox.size
            case "HIGHESTMODSEQ":
                session.enable_condstore()
                value = mailbox.highest_modseq
            case "APPENDLIMIT":
                value = session.settings.message_bytes
            case "MAILBOXID":
                value = object_id(mailbox.id)
            case _:
                continue
        values.append((item, value))
    return replies.status(session.name_out(mailbox.name), values, utf8=session.enabled.utf8_names)


EXECUTE = {
    Create: create,
    Delete: delete,
    Rename: rename,
    Subscribe: subscribe,
    Unsubscribe: unsubscribe,
    Status: status,
}
