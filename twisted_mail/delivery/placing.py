"""One copy of a message into one account: what the straight way and the worker of the queue do alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from twisted.logger import Logger

from twisted_mail.account.delivering import Delivered, DeliverMessage, Remember, memory_key
from twisted_mail.account.intents import new_message
from twisted_mail.delivery.causes import Caused
from twisted_mail.delivery.effects import Effects, refusal_of
from twisted_mail.delivery.items import Copy
from twisted_mail.delivery.sorting import Arrival, Sorted, Sorter, usual_place
from twisted_mail.delivery.stories import Chapter, message_id_of
from twisted_mail.mime import first_value
from twisted_mail.services import Account, Accounts, MessageWriter, PreparedMessage
from twisted_mail.sieve.editing import edit_header
from twisted_mail.sieve.values import Edit
from twisted_mail.storage.interfaces import StorageError

__all__ = ["Placer"]


class Placer:
    """Decides about copies, and puts them where they belong; one per process."""

    _log = Logger()

    def __init__(
        self,
        accounts: Accounts,
        *,
        sorter: Sorter | None = None,
        effects: Effects | None = None,
        wall: Callable[[], float] = time.time,
        tell: Callable[[Chapter], None] = lambda chapter: None,
    ) -> None:
        """Without *sorter* everything goes into INBOX (or the mailbox that the sub-address names); it needs *effects*, or
        what scripts send elsewhere is kept. *tell* is told what became of a copy where there is something to say."""
        self._accounts = accounts
        self._sorter = sorter
        self._effects = effects
        self._wall = wall
        self._tell = tell

    async def place(
        self, prepared: PreparedMessage, copy: Copy, arrival: Arrival, *, repeated: bool, refusable: bool = False
    ) -> None:
        """Blobs are there; the row, then the entry, then what it causes: a crash in between leaves nothing that can be seen,
        or something that the next attempt completes.

        With *repeated* nothing is put where the delivery stands already, and what it causes is caused again, which is
        harmless. *refusable*: the peer waits, and a refusal concerns this copy alone. Raises: MailRefused (only then: the
        recipient's script wants it), Quarantined, AccountError (OutcomeUnknown among them: it may still come to stand),
        StorageError.
        """
        account = await self._accounts.open(copy.account)
        try:
            await self._place(account, prepared, copy, arrival, repeated=repeated, refusable=refusable)
        finally:
            self._accounts.release(account)

    async def _place(
        self,
        account: Account,
        prepared: PreparedMessage,
        copy: Copy,
        arrival: Arrival,
        *,
        repeated: bool,
        refusable: bool,
    ) -> None:
        now = self._wall()
        if self._sorter is None:
            found = Sorted(places=(usual_place(account.state, copy.detail),))
        else:
            found = await self._sorter.sort(account.state, copy, prepared, arrival, now)
        edited: _Edited | None = None
        try:
            if found.edits:
                edited = await _Edited.of(self._accounts, account, prepared, found.edits)
                prepared = edited.prepared
            await self._carry_out(account, prepared, copy, arrival, found, now, repeated=repeated, refusable=refusable)
        finally:
            if edited is not None:
                await given_up(edited.writer)

    async def _carry_out(
        self,
        account: Account,
        prepared: PreparedMessage,
        copy: Copy,
        arrival: Arrival,
        found: Sorted,
        now: float,
        *,
        repeated: bool,
        refusable: bool,
    ) -> None:
        effects = self._effects
        places = found.places
        if effects is None and (found.redirects or found.reject):
            places = (*places, usual_place(account.state, copy.detail))
        caused = Caused(places=places)
        if effects is not None and found.message is not None:
            caused = await effects.causes.prepare(account, copy, prepared, arrival, found, refusable=refusable)
            if caused.refusal is not None:
                self._note(prepared, copy, arrival, found, ["refused"])
                raise refusal_of(caused.refusal)
        delivered = await self._write(account, prepared, copy, arrival, found, caused, now, repeated=repeated)
        became = [*caused.trace, *_where(account, delivered)]
        if effects is not None and (found.message is not None or delivered.tell):
            became += await effects.carry_out(
                account, copy, prepared, arrival, found, caused, delivered, repeated=repeated
            )
        self._note(prepared, copy, arrival, found, became)

    def _note(
        self, prepared: PreparedMessage, copy: Copy, arrival: Arrival, found: Sorted, became: Sequence[str]
    ) -> None:
        """For the message's story: a delivery into INBOX that nobody asked about has none."""
        if found.message is None and not found.trace:
            return
        chapter = Chapter(
            at=self._wall(),
            what="sorted",
            id=str(copy.delivery),
            message_id=message_id_of(first_value(prepared.header, b"message-id") or b""),
            sender=arrival.sender,
            recipients=(copy.address,),
            result="; ".join(became) or "thrown away",
            lines=found.trace,
        )
        self._tell(chapter)

    async def _write(
        self,
        account: Account,
        prepared: PreparedMessage,
        copy: Copy,
        arrival: Arrival,
        found: Sorted,
        caused: Caused,
        now: float,
        *,
        repeated: bool,
    ) -> Delivered:
        answers = caused.remembered(int(now))
        seen = tuple(Remember(memory_key(key), int(now) + seconds) for key, seconds in found.seen)
        told = found.failed.version if found.failed is not None and self._effects is not None else ""
        if not (caused.places or answers or seen or told):
            return Delivered()
        message = None
        if caused.places:
            message = new_message(await account.store(prepared), arrival.received, arrival.zone)
        intent = DeliverMessage(
            delivery=copy.delivery.octets,
            message=message,
            places=caused.places,
            repeated=repeated,
            now=int(now),
            answers=answers,
            seen=seen,
            told=told,
        )
        return await account.commit(intent)


class _Edited:
    """A message with another header."""

    def __init__(self, writer: MessageWriter, prepared: PreparedMessage) -> None:
        self.writer = writer
        self.prepared = prepared

    @classmethod
    async def of(
        cls, accounts: Accounts, account: Account, prepared: PreparedMessage, edits: Sequence[Edit]
    ) -> _Edited:
        """Raises: StorageError."""
        header, start = prepared.header, 0
        if header[:12].lower() == b"return-path:":
            start = header.find(b"\n") + 1  # ours, which stays in front
        writer = accounts.writer(account.id)
        try:
            await writer.write(header[:start] + edit_header(header[start:], edits))
            async for chunk in prepared.octets(len(header)):
                await writer.write(chunk)
            return cls(writer, await writer.finish())
        except BaseException:
            await given_up(writer)
            raise


async def given_up(writer: MessageWriter) -> None:
    """Give back what *writer* has stored, unless a row has taken it over; as well as it goes."""
    with suppress(StorageError):
        await writer.abort()


def _where(account: Account, delivered: Delivered) -> list[str]:
    names = [found.name for id in delivered.mailboxes if (found := account.state.mailboxes.get(id)) is not None]
    return [f"put into {', '.join(names)}"] if names else []
