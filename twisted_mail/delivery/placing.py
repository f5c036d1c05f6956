"""One copy of a message into one account: what the straight way and the worker of the queue do alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from twisted.logger import Logger

from twisted_mail.account.delivering import Another, Delivered, DeliverMessage, Place, Remember, memory_key
from twisted_mail.account.intents import new_message
from twisted_mail.delivery.causes import Caused
from twisted_mail.delivery.effects import Effects, refusal_of
from twisted_mail.delivery.items import Copy
from twisted_mail.delivery.sorting import Arrival, Sorted, Sorter, usual_place
from twisted_mail.delivery.stories import Chapter, message_id_of
from twisted_mail.delivery.versions import store_version
from twisted_mail.mime import first_value
from twisted_mail.services import Account, Accounts, PreparedMessage
from twisted_mail.sieve.values import Rewritten

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
        await self._carry_out(account, prepared, copy, arrival, found, now, repeated=repeated, refusable=refusable)

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
        caused = Caused(places=places, rewritten=dict(found.rewritten))
        if effects is not None and found.message is not None:
            caused = await effects.causes.prepare(
                account, copy, prepared, arrival, found, now=now, refusable=refusable
            )
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
        messages: list[Another] = []
        for version, places in _versions(caused):
            stored = await store_version(self._accounts, account, prepared, version)
            messages.append(Another(new_message(stored, arrival.received, arrival.zone), places))
        intent = DeliverMessage(
            delivery=copy.delivery.octets,
            message=messages[0].message if messages else None,
            places=messages[0].places if messages else (),
            others=tuple(messages[1:]),
            repeated=repeated,
            now=int(now),
            answers=answers,
            seen=seen,
            told=told,
        )
        return await account.commit(intent)


def _versions(caused: Caused) -> list[tuple[Rewritten | None, tuple[Place, ...]]]:
    """The places that get each version of the message (None: as it came), in order."""
    if not caused.rewritten:
        return [(None, caused.places)] if caused.places else []
    found: list[tuple[Rewritten | None, list[Place]]] = []
    for number, place in enumerate(caused.places):
        version = caused.rewritten.get(number)
        places = next((places for known, places in found if known is version), None)
        if places is None:
            found.append((version, [place]))
        else:
            places.append(place)
    return [(version, tuple(places)) for version, places in found]


def _where(account: Account, delivered: Delivered) -> list[str]:
    names = [found.name for id in delivered.mailboxes if (found := account.state.mailboxes.get(id)) is not None]
    return [f"put into {', '.join(names)}"] if names else []
