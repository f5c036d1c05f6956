"""Commands on the messages of the selected mailbox, and IDLE (RFC 9051 section 6.4, RFC 2177, 4315, 6851, 7162)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pyroaring import BitMap

from twisted_mail.account.columns import SYSTEM_FLAGS
from twisted_mail.account.entries import pack_uids
from twisted_mail.account.errors import InvalidMailboxName, NoSuchMailbox
from twisted_mail.account.intents import ChangeFlags, Copied, CopyMessages
from twisted_mail.account.intents import Expunge as ExpungeIntent
from twisted_mail.account.state import Mailbox, check_mailbox_name
from twisted_mail.imap import codes
from twisted_mail.imap.codes import Code
from twisted_mail.imap.commands.message import Check, Copy, Expunge, Idle, Move, Store
from twisted_mail.imap.replies import Condition, bad, no, ok
from twisted_mail.imap.selected import batches
from twisted_mail.imap.sequence import Range, SequenceSet
from twisted_mail.imap.syntax import BadSyntax

if TYPE_CHECKING:
    from twisted_mail.imap.session import Session

__all__ = ["CAPABILITIES", "EXECUTE", "READ_ONLY", "check_flags", "runs", "target_mailbox"]

CAPABILITIES = ("IDLE", "UIDPLUS", "MOVE")
READ_ONLY = no("The mailbox is selected read-only", codes.READ_ONLY)
GONE = codes.EXPUNGEISSUED


def check_flags(flags: tuple[str, ...]) -> None:
    r"""Raises BadSyntax for a flag with a backslash that is not one of the RFC's; ``\Recent`` is passed over."""
    for flag in flags:
        if flag.startswith("\\") and flag.lower() not in SYSTEM_FLAGS and flag.lower() != "\\recent":
            raise BadSyntax("there is no such system flag")


def runs(numbers: Sequence[int]) -> Sequence[Range]:
    """Ascending *numbers* as ranges; a `range` costs nothing."""
    if isinstance(numbers, range):
        return ((numbers[0], numbers[-1]),) if numbers else ()
    return SequenceSet.of(numbers).ranges


async def idle(session: Session, tag: bytes, command: Idle) -> Condition:
    """RFC 2177: changes are told as they come, until ``DONE``."""
    session.write(b"+ idling\r\n")
    while True:
        view = session.view
        if view is not None and view.news:
            await session.tell_news()
            await session.sink.drained()
        line = session.wire.next_line()
        if line is not None:
            done = getattr(line, "octets", b"").upper() == b"DONE"
            return ok("IDLE terminated") if done else bad("Expected DONE")
        if session.ending or (view is not None and view.gone):
            return ok("IDLE terminated")
        await session.wait()


async def check(session: Session, tag: bytes, command: Check) -> Condition:
    """RFC 3501 section 6.4.1: everything is durable already; as NOOP."""
    await session.refresh()
    return ok("CHECK completed")


async def expunge(session: Session, tag: bytes, command: Expunge) -> Condition:
    """RFC 9051 section 6.4.3, UID EXPUNGE RFC 4315 section 2.1; what went is told by the view."""
    view = session.selected
    if view.readonly:
        return READ_ONLY
    uids: bytes | None = None
    if command.uids is not None:
        slots = view.resolve(command.uids, uid=True)
        uids = pack_uids(view.columns.uids_of(slots & view.columns.live))
    removed: BitMap = await session.account.commit(ExpungeIntent(mailbox=view.mailbox.id, uids=uids))
    code = None
    if removed and session.enabled.condstore:
        code = codes.highest_modseq(view.mailbox.highest_modseq)
    return ok("EXPUNGE completed", code)


async def store(session: Session, tag: bytes, command: Store) -> Condition:
    """RFC 9051 section 6.4.6, with UNCHANGEDSINCE of RFC 7162 section 3.1.3."""
    view, enabled = session.selected, session.enabled
    check_flags(command.flags)
    slots = view.resolve(command.numbers, uid=command.uid)
    if view.readonly:
        return READ_ONLY
    if command.unchanged_since is not None:
        session.enable_condstore()
    dead = view.dead(slots)
    slots -= dead
    code: Code | None = GONE if dead else None
    if slots:
        columns = view.columns
        changed = await session.account.commit(
            ChangeFlags(
                mailbox=view.mailbox.id,
                uids=pack_uids(columns.uids_of(slots)),
                mode=command.mode,
                flags=command.flags,
                unchanged_since=command.unchanged_since,
            )
        )
        touched = columns.slots_of(changed.changed, view.present)
        failed = columns.slots_of(changed.failed, view.present) if changed.failed else BitMap()
        if changed.modseq:
            view.own_change(changed.modseq, touched)
        view.tell_flag_names(session.write)
        if not command.silent:
            told = slots - failed
        else:
            # RFC 7162 section 3.1.3: who counts mod-sequences is told the new ones, of what changed, in silence too.
            told = touched if enabled.condstore else BitMap()
        for batch in batches(told & view.present, 4096):
            session.write(
                view.fetch_flags(
                    batch,
                    uid=command.uid or enabled.uids,
                    modseq=enabled.condstore,
                    flags=not command.silent,
                )
            )
            await session.sink.drained()
        if failed:
            code = codes.modified(runs(view.names_of(failed, uid=command.uid)))
            return ok("Conditional STORE failed for some", code)
    return ok("STORE completed", code)


def target_mailbox(session: Session, name: str) -> Mailbox | Condition:
    """Where messages are to go, or why they cannot: TRYCREATE only if CREATE could succeed (RFC 9051 section 7.1)."""
    try:
        return session.mailbox(name)
    except NoSuchMailbox as error:
        reason: Exception = error
        try:
            check_mailbox_name(session.name_in(name))
        except InvalidMailboxName as invalid:
            reason = invalid
        return session.condition_for(reason, target=True)


async def _transfer(session: Session, command: Copy | Move, *, move: bool) -> tuple[Copied, BitMap] | Condition:
    """COPY and MOVE are one entry each: all of it, or nothing."""
    view = session.selected
    slots = view.resolve(command.numbers, uid=command.uid)
    if move and view.readonly:
        return READ_ONLY
    target = target_mailbox(session, command.mailbox)
    if isinstance(target, Condition):
        return target
    dead = view.dead(slots)
    intent = CopyMessages(
        mailbox=view.mailbox.id,
        uids=pack_uids(view.columns.uids_of(slots - dead)),
        target=target.id,
        move=move,
        quota_bytes=session.quota_bytes,
    )
    return await session.account.commit(intent), dead


def _copy_uid(copied: Copied) -> Code | None:
    if not copied.source_uids:
        return None
    return codes.copy_uid(copied.uid_validity, runs(copied.source_uids), runs(copied.target_uids))


async def copy(session: Session, tag: bytes, command: Copy) -> Condition:
    """RFC 9051 section 6.4.7, COPYUID RFC 4315 section 3."""
    done = await _transfer(session, command, move=False)
    if isinstance(done, Condition):
        return done
    copied, dead = done
    return ok("COPY completed", _copy_uid(copied) or (GONE if dead else None))


async def move(session: Session, tag: bytes, command: Move) -> Condition:
    """RFC 6851: COPYUID comes untagged, before the view tells what has left (section 4.3)."""
    done = await _transfer(session, command, move=True)
    if isinstance(done, Condition):
        return done
    copied, dead = done
    code = _copy_uid(copied)
    if code is not None:
        session.write(ok("Moved", code).untagged())
    code = GONE if dead else None
    if copied.source_uids and session.enabled.qresync:
        code = codes.highest_modseq(session.selected.mailbox.highest_modseq)
    return ok("MOVE completed", code)


EXECUTE = {Idle: idle, Check: check, Expunge: expunge, Store: store, Copy: copy, Move: move}
