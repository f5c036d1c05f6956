"""APPEND and REPLACE: messages come in as streams (RFC 9051 section 6.3.12, RFC 3502, 3516, 4315, 6855, 7889, 8508).

Each literal goes straight to a `MessageWriter`, so a message costs no memory here. All messages of one APPEND become
one entry: all or nothing, and a client that goes away in the middle leaves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from twisted_mail.account.errors import NoSuchMailbox
from twisted_mail.account.intents import AddMessages, NewMessage, ReplaceMessage, new_message
from twisted_mail.account.state import Mailbox
from twisted_mail.imap import codes, registry
from twisted_mail.imap.commands.append import Append, AppendMessage, Replace
from twisted_mail.imap.execute.message import READ_ONLY, check_flags, runs, target_mailbox
from twisted_mail.imap.execute.types import sentence
from twisted_mail.imap.replies import Condition, bad, no, ok
from twisted_mail.imap.syntax import BadCommand, BadSyntax, State, Tagged
from twisted_mail.imap.wire_events import CommandReceived, LiteralAnnounced, LiteralData, LiteralEnd
from twisted_mail.services import MessageWriter, PreparedMessage

if TYPE_CHECKING:
    from twisted_mail.imap.session import Session

__all__ = ["CAPABILITIES", "STREAMED"]


def CAPABILITIES(session: Session) -> list[str]:
    """APPENDLIMIT says how large a message may be (RFC 7889)."""
    return ["MULTIAPPEND", f"APPENDLIMIT={session.settings.message_bytes}", "REPLACE", "BINARY"]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the messages go, and for REPLACE what leaves."""

    mailbox: Mailbox
    replaced: int | None = None
    """A UID of the selected mailbox."""


def _place(session: Session, command: Append | Replace) -> _Place | Condition:
    """Raises BadSyntax."""
    replaced: int | None = None
    if isinstance(command, Replace):
        view = session.selected
        if view.readonly:
            return READ_ONLY
        if command.number is None:
            slot = view.present.max() if view.present else None
        elif command.uid:
            slot = view.columns.slot_of(command.number)
        elif command.number > len(view):
            raise BadSyntax("there is no message of that number")
        else:
            slot = view.present[command.number - 1]
        if slot is None:
            return no("There is no such message", codes.NONEXISTENT)
        replaced = view.columns.uids[slot]
    mailbox = target_mailbox(session, command.mailbox)
    return mailbox if isinstance(mailbox, Condition) else _Place(mailbox, replaced)


def _last(command: Append | Replace) -> AppendMessage:
    return command.message if isinstance(command, Replace) else command.messages[-1]


def _refusal(session: Session, tagged: Tagged, event: LiteralAnnounced, taken: int) -> Condition | None:
    """Why the announced message cannot be taken, looked at before a single octet of it is."""
    command = tagged.command
    if isinstance(command, BadCommand):
        return bad(sentence(command.why))
    if not isinstance(command, Append | Replace):
        return bad("Expected a message")
    if session.state not in (State.AUTHENTICATED, State.SELECTED):
        return bad("Not in this state")
    message = _last(command)
    try:
        check_flags(message.flags)
        place = _place(session, command)
    except BadSyntax as error:
        return bad(sentence(error.text))
    if isinstance(place, Condition):
        return place
    if message.utf8 and not session.enabled.utf8:
        return bad("UTF8=ACCEPT is not enabled")
    if not event.allowed:
        return bad("The literal is not allowed")
    if event.size > session.settings.message_bytes:
        return no("The message is too large", codes.TOOBIG)
    if event.size == 0:
        return no("An empty message is no message")
    if taken >= session.settings.append_messages:
        return no("Too many messages in one command", codes.LIMIT)
    return None


async def receive(session: Session, tagged: Tagged, event: LiteralAnnounced) -> Condition | None:
    """Take the messages of an APPEND or REPLACE from the first announced literal to the end of the command."""
    writers: list[MessageWriter] = []
    try:
        return await _receive(session, tagged, event, writers)
    finally:
        for writer in writers:
            await writer.abort()  # what no row has taken over goes


async def _receive(
    session: Session, tagged: Tagged, event: LiteralAnnounced, writers: list[MessageWriter]
) -> Condition | None:
    prepared: list[PreparedMessage] = []
    while True:
        refusal = _refusal(session, tagged, event, len(prepared))
        if refusal is not None:
            session.refuse_literal(refusal)
            return None
        session.write(session.wire.accept_literal(stream=True))
        writers.append(session.accounts.writer(session.account.id))
        message = await _message(session, writers[-1])
        if message is None:
            return None
        prepared.append(message)
        following = await session.next_event()
        if isinstance(following, LiteralAnnounced):
            event = following
            tagged = registry.announced(event.line, event.size, session.modes)
        elif isinstance(following, CommandReceived):
            return await _complete(session, registry.parse(following.line, session.modes), prepared)
        else:
            return bad("Line too long")


async def _message(session: Session, writer: MessageWriter) -> PreparedMessage | None:
    """The octets of one literal; None if they could not be kept, and go past unread."""
    while True:
        event = await session.next_event()
        if isinstance(event, LiteralEnd):
            return await writer.finish()
        assert isinstance(event, LiteralData)
        try:
            await writer.write(event.octets)
        except Exception as error:
            if session.lost:
                raise
            session.abort_literal(session.condition_for(error))
            return None
        await session.sink.drained()


async def _complete(session: Session, tagged: Tagged, prepared: list[PreparedMessage]) -> Condition | None:
    """The command has come to its end: write the rows, then the entry that names them."""
    command = tagged.command
    if isinstance(command, BadCommand):
        return bad(sentence(command.why))
    assert isinstance(command, Append | Replace)
    place = _place(session, command)
    if isinstance(place, Condition):
        return place
    described = (command.message,) if isinstance(command, Replace) else command.messages
    messages = [await _store(session, about, message) for about, message in zip(described, prepared, strict=True)]
    try:
        if place.replaced is None:
            return await _append(session, place.mailbox, messages)
        return await _replace(session, place, messages[0])
    except NoSuchMailbox as error:
        return session.condition_for(error, target=True)


async def _store(session: Session, about: AppendMessage, message: PreparedMessage) -> NewMessage:
    stored = await session.account.store(message)
    if about.date is not None:
        return new_message(stored, about.date.seconds, about.date.zone, about.flags)
    return new_message(stored, int(session.clock()), 0, about.flags)


async def _append(session: Session, mailbox: Mailbox, messages: list[NewMessage]) -> Condition:
    added = await session.account.commit(
        AddMessages(mailbox=mailbox.id, messages=tuple(messages), quota_bytes=session.quota_bytes)
    )
    return ok("APPEND completed", codes.append_uid(added.uid_validity, runs(added.uids)))


async def _replace(session: Session, place: _Place, message: NewMessage) -> Condition:
    """RFC 8508 section 3.4: APPENDUID comes untagged, before the view tells what has left."""
    view = session.selected
    assert place.replaced is not None
    done = await session.account.commit(
        ReplaceMessage(
            mailbox=view.mailbox.id,
            uid=place.replaced,
            target=place.mailbox.id,
            message=message,
            quota_bytes=session.quota_bytes,
        )
    )
    code = codes.append_uid(done.added.uid_validity, runs(done.added.uids))
    session.write(ok("Replacement message ready", code).untagged())
    return ok("REPLACE completed")


STREAMED = {Append: receive, Replace: receive}
