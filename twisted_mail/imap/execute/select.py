"""SELECT, EXAMINE, CLOSE, UNSELECT (RFC 9051 section 6.3.2, 6.3.3, 6.4.1, 6.4.2, RFC 7162, RFC 8474)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyroaring import BitMap

from twisted_mail.account.intents import Expunge
from twisted_mail.imap import codes, replies
from twisted_mail.imap.commands.mailbox import Close, QResync, Select, Unselect
from twisted_mail.imap.execute.attributes import mailbox_attributes
from twisted_mail.imap.execute.mailbox import object_id
from twisted_mail.imap.replies import Condition, bad, no, ok
from twisted_mail.imap.selected import Selected, batches

if TYPE_CHECKING:
    from twisted_mail.imap.session import Session

__all__ = ["CAPABILITIES", "EXECUTE"]

CAPABILITIES = ("UNSELECT", "CONDSTORE", "QRESYNC")


async def select(session: Session, tag: bytes, command: Select) -> Condition:
    """RFC 9051 section 6.3.2 and 6.3.3.

    A store that does not answer gives the newest state there is, read-only and without mod-sequences: what this node
    has not seen yet must never make a client believe that mail has vanished. A client that says it has seen more is
    told to come back.
    """
    enabled = session.enabled
    if command.qresync is not None and not enabled.qresync:
        return bad("QRESYNC is not enabled")
    fresh = await session.refresh()  # first: what is written before a wait is sent by itself
    if session.view is not None:
        session.leave_mailbox()
        session.write(ok("Previous mailbox closed", codes.CLOSED).untagged())
    if command.condstore or command.qresync is not None:
        session.enable_condstore()
    mailbox = session.mailbox(command.mailbox)
    columns = await session.account.columns(mailbox)
    known = command.qresync
    if not fresh and known is not None and known.uid_validity == mailbox.uid_validity:
        if known.modseq > max(mailbox.highest_modseq, 1):
            return no("What can be read now is older than what was seen", codes.UNAVAILABLE)
    readonly = command.readonly or not fresh
    view = Selected(session.account, mailbox, columns, session.recents, readonly=readonly, rev2=enabled.rev2)
    session.enter_mailbox(view)
    _describe(session, view, fresh=fresh)
    if command.qresync is not None and fresh:
        await _resynchronise(session, view, command.qresync)
    if readonly:
        name = "EXAMINE" if command.readonly else "SELECT"
        return ok(f"{name} completed", codes.READ_ONLY)
    return ok("SELECT completed", codes.READ_WRITE)


def _describe(session: Session, view: Selected, *, fresh: bool) -> None:
    """The untagged responses that both revisions ask for, and those of the one that is in use."""
    write, enabled, mailbox = session.write, session.enabled, view.mailbox
    write(replies.flags(view.flag_names()))
    write(replies.exists(len(view)))
    if not enabled.rev2:
        write(replies.recent(len(view.recent)))
        unseen = view.present - view.columns.with_flag("\\Seen")
        if unseen:
            first = view.present.rank(unseen.min())
            write(ok("First unseen message", codes.unseen(first)).untagged())
    write(ok("Flags permitted", view.permanent_flags()).untagged())
    write(ok("UIDs valid", codes.uid_validity(mailbox.uid_validity)).untagged())
    write(ok("Predicted next UID", codes.uid_next(mailbox.uid_next)).untagged())
    if fresh:
        write(ok("Highest", codes.highest_modseq(max(mailbox.highest_modseq, 1))).untagged())
    else:
        write(ok("The store does not answer", codes.NOMODSEQ).untagged())
    write(ok("Ok", codes.mailbox_id(object_id(mailbox.id))).untagged())
    if enabled.rev2:
        name = session.name_out(mailbox.name)
        attributes = mailbox_attributes(session, mailbox)
        write(replies.list_response(name, attributes, separator=session.settings.separator, utf8=True))


async def _resynchronise(session: Session, view: Selected, known: QResync) -> None:
    """What happened since the client was here last (RFC 7162 section 3.2.5)."""
    if known.uid_validity != view.mailbox.uid_validity:
        return
    columns = view.columns
    # RFC 7162 section 3.2.5.1: without known UIDs, all below UIDNEXT.
    uids = ((1, view.mailbox.uid_next - 1),) if known.known_uids is None else known.known_uids.ranges
    if columns.vanished_since(known.modseq) is None:
        # Forgotten which: all that are not there are named, from where the client's numbers first differ.
        agreed = _agreed(view, known)
        uids = tuple((max(low, agreed + 1), high) for low, high in uids if high > agreed)
    vanished = view.vanished(known.modseq, uids)
    if vanished:
        session.write(replies.vanished(vanished, earlier=True))
    changed = columns.changed_since(known.modseq) & view.present
    if known.known_uids is not None:
        changed &= view.slots_of_uids(known.known_uids)
    for batch in batches(changed, 4096):
        session.write(view.fetch_flags(batch, uid=True, modseq=True))
        await session.sink.drained()


def _agreed(view: Selected, known: QResync) -> int:
    """The highest UID up to which numbers and UIDs still belong together (section 3.2.5.2); 0 if none."""
    agreed = 0
    if known.matches is not None:
        numbers = [n for low, high in known.matches[0].within(len(view)) for n in range(low, high + 1)]
        most = len(numbers)
        uids: list[int] = []
        for low, high in known.matches[1].ranges:
            uids.extend(range(low, min(high, low + most) + 1))
            if len(uids) >= most:
                break
        for number, uid in zip(numbers, uids, strict=False):
            if view.columns.uids[view.present[number - 1]] != uid:
                break
            agreed = uid
    return agreed


async def close(session: Session, tag: bytes, command: Close) -> Condition:
    """RFC 9051 section 6.4.1: what has ``\\Deleted`` goes, and nothing is said of it."""
    view = session.selected
    code = None
    if not view.readonly and view.columns.with_flag("\\Deleted") & view.columns.live:
        removed: BitMap = await session.account.commit(Expunge(mailbox=view.mailbox.id))
        if removed and session.enabled.qresync:
            code = codes.highest_modseq(view.mailbox.highest_modseq)
    session.leave_mailbox()
    return ok("CLOSE completed", code)


async def unselect(session: Session, tag: bytes, command: Unselect) -> Condition:
    """RFC 9051 section 6.4.2."""
    session.leave_mailbox()
    return ok("UNSELECT completed")


EXECUTE = {Select: select, Close: close, Unselect: unselect}
