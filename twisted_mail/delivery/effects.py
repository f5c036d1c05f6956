"""What a script asks for besides mailboxes: redirect, reject, vacation answers, notifications, and telling the owner that
it fails.

It is done once the message's entry stands; what may be done was looked at before (`causes`). Whatever is sent is an item of a
queue, whose id follows from the delivery's: a delivery that is repeated does all of it again, and each is there once. An item
that has left the queue can be put again, though; so it is noted what was done, and a delivery that is repeated looks. Only
who dies between a put and its note, and comes back after the item was sent, sends it twice.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from email.utils import formatdate
from functools import partial
from typing import Any, Final, Protocol

import msgspec
from twisted.logger import Logger

from twisted_mail.account.delivering import Delivered, DeliverMessage, Place
from twisted_mail.account.intents import NewMessage, new_message
from twisted_mail.delivery.causes import REDIRECTED, Answer, Caused, Causes, EffectSettings, Forward, Resolve, header_of
from twisted_mail.delivery.items import Copy
from twisted_mail.delivery.judgement import Judgement, deliver_by_text, with_envelope
from twisted_mail.delivery.letters import letter, text_part
from twisted_mail.delivery.notifying import compose_notification
from twisted_mail.delivery.outbound import OutboundQueue
from twisted_mail.delivery.queueing import InboundQueue, Waiting
from twisted_mail.delivery.sorting import Arrival, Sorted, place_of, usual_place
from twisted_mail.delivery.trace import return_path_field
from twisted_mail.delivery.vacation import compose, from_addresses
from twisted_mail.delivery.versions import octets_of, store_version
from twisted_mail.mime import first_value
from twisted_mail.services import (
    Account,
    Accounts,
    Envelope,
    MailRefused,
    Peer,
    PreparedMessage,
    Recipient,
    Refusal,
)
from twisted_mail.sieve.editing import header_field
from twisted_mail.sieve.mailto import Mailto
from twisted_mail.sieve.message import Header
from twisted_mail.sieve.values import FileInto, Notify, Redirect, Reject
from twisted_mail.storage.interfaces import Records, StorageError, Unavailable
from twisted_mail.values import DeliveryId

__all__ = ["Bounce", "Caused", "EffectSettings", "Effects", "Send"]

NOTED_SECONDS: Final = 10 * 86_400.0
"""Longer than any queue keeps mail."""
_REASON: Final = 2000


class Send(Protocol):
    """The door for mail of the server's own (`internal.InternalMail.submit`)."""

    async def __call__(
        self, cause: DeliveryId, action: str, recipient: str, octets: bytes, *, stream: str = ""
    ) -> None:
        """Raises: StorageError, MailRefused."""


class Bounce(Protocol):
    """Tells a sender that a script has refused a message."""

    async def __call__(
        self, cause: DeliveryId, reject: Reject, *, sender: str, recipient: str, header: bytes, received: float
    ) -> None:
        """*reject* with `ereject`: by a delivery status notification; else by a disposition notification (RFC 5429
        section 2.1.2, 2.2.1). Once for each *cause*. Raises: StorageError, MailRefused."""


class Effects:
    """Carries out what scripts ask for; one per process."""

    _log = Logger()

    def __init__(
        self,
        accounts: Accounts,
        resolve: Resolve,
        send: Send | None,
        settings: EffectSettings,
        *,
        inbound: InboundQueue | None = None,
        outbound: OutboundQueue | None = None,
        bounce: Bounce | None = None,
        records: Records | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """*inbound*, *outbound*: where what is redirected to us and to others goes; without one there is no such redirect,
        without *send* no mail of ours. *records*: where it is noted what was done."""
        self._accounts = accounts
        self.causes = Causes(
            resolve,
            settings,
            sends=send is not None,
            leaves=outbound is not None,
            queues=inbound is not None,
            bounces=bounce is not None,
        )
        self._send = send
        self._settings = settings
        self._inbound = inbound
        self._outbound = outbound
        self._bounce = bounce
        self._records = records
        self._wall = wall

    async def carry_out(
        self,
        account: Account,
        copy: Copy,
        prepared: PreparedMessage,
        arrival: Arrival,
        found: Sorted,
        caused: Caused,
        delivered: Delivered,
        *,
        repeated: bool,
    ) -> list[str]:
        """Do all of it; again is harmless. Returns sentences for the trace. Raises: StorageError, AccountError."""
        try:
            return await self._carry_out(account, copy, prepared, arrival, found, caused, delivered, repeated)
        except MailRefused as error:  # of a queue, not of the message
            raise Unavailable(error.text) from error

    async def _carry_out(
        self,
        account: Account,
        copy: Copy,
        prepared: PreparedMessage,
        arrival: Arrival,
        found: Sorted,
        caused: Caused,
        delivered: Delivered,
        repeated: bool,
    ) -> list[str]:
        trace: list[str] = []
        header = header_of(found, prepared)
        for forward in caused.forwards:
            try:
                await self._redirect(copy, prepared, arrival, header, forward, repeated)
                trace.append(f"redirected to {forward.address}")
            except MailRefused as error:
                if error.temporary:
                    raise
                trace.append(f"not redirected to {forward.address}, but kept: {error.text}")
                kept = copy.delivery.caused(f"redirect/{forward.address}/kept")
                stored = await store_version(self._accounts, account, prepared, forward.version)
                message = new_message(stored, arrival.received, arrival.zone)
                await self._commit(account, kept, message, usual_place(account.state, copy.detail))
        if caused.bounce is not None and self._bounce is not None:
            bounce = self._bounce(
                copy.delivery,
                caused.bounce,
                sender=arrival.sender,
                recipient=copy.address,
                header=header.octets,
                received=arrival.received,
            )
            await self._once(copy, "refused", repeated, bounce)
            trace.append(f"refused; {arrival.sender} is told by a message")
        if caused.answer is not None:
            if caused.answer.key in delivered.answers:
                await self._answer(account, copy, arrival, header, caused.answer, repeated)
                trace.append(f"a vacation answer goes to {arrival.sender}")
            else:
                trace.append(f"no vacation answer: {arrival.sender} has had it already")
        for number, (notify, mailto) in enumerate(caused.notifications):
            await self._notify(account, copy, header, notify, mailto, number, repeated)
            trace.append(f"a notification goes to {', '.join((*mailto.recipients, *mailto.copies))}")
        if delivered.tell and found.failed is not None:
            await self._tell(account, copy, arrival, found)
            trace.append("the owner of the script is told")
        return trace

    async def _once(self, copy: Copy, action: str, repeated: bool, work: Coroutine[Any, Any, None]) -> None:
        """*work*, unless it was done by an earlier attempt. Raises: StorageError, and what *work* raises."""
        id = str(copy.delivery.caused(action))
        space = f"caused/{id[:4]}"
        try:
            if repeated and self._records is not None and await self._records.get(space, id) is not None:
                return
            await work
        finally:
            work.close()
        if self._records is not None:
            try:
                await self._records.put(space, id, b"", NOTED_SECONDS)
            except StorageError as error:
                self._log.warn("{action} of {id} may be done again: {why}", action=action, id=copy.delivery, why=error)

    async def _redirect(
        self,
        copy: Copy,
        prepared: PreparedMessage,
        arrival: Arrival,
        header: Header,
        forward: Forward,
        repeated: bool,
    ) -> None:
        """Raises: StorageError, MailRefused."""
        cause = copy.delivery.caused(f"redirect/{forward.address}")
        front = header_field(REDIRECTED, copy.user or copy.address)
        found = forward.found
        if found.remote and self._outbound is not None:
            envelope = _envelope(copy, arrival, header, forward.redirect, self._wall())
            recipient = partial(_addressed, copy, forward.redirect)
            leaving = self._leave(self._outbound, envelope, _version(prepared, forward), front, cause, found.remote, recipient)
            await self._once(copy, f"redirect/{forward.address}", repeated, leaving)
        if found.accounts and self._inbound is not None:
            judgement = copy.judgement
            if judgement is not None:
                judgement = msgspec.structs.replace(judgement, pending=())
            judgement = _with_tags(judgement, forward.redirect)
            waiting = [
                Waiting(
                    Copy(
                        delivery=cause.caused(str(record.id)),
                        account=record.id,
                        detail=found.detail,
                        address=forward.address,
                        user=record.address,
                        shared=len(found.accounts) + len(found.remote) > 1,
                        judgement=judgement,
                    ),
                    repeated=True,
                )
                for record in found.accounts
            ]
            await self._enqueue(self._inbound, waiting, _version(prepared, forward), arrival, front)

    async def _leave(
        self,
        outbound: OutboundQueue,
        envelope: Envelope,
        octets: AsyncIterator[bytes],
        front: bytes,
        cause: DeliveryId,
        to: Sequence[str],
        recipient: Callable[[str], Recipient],
    ) -> None:
        """Raises: StorageError, MailRefused."""
        leaving = outbound.begin(envelope)
        try:
            await leaving.write(front)
            async for chunk in octets:
                await leaving.write(chunk)
            ids = [cause] if len(to) == 1 else [cause.caused(address) for address in to]
            await leaving.finish([(id, address, recipient(address)) for id, address in zip(ids, to, strict=True)])
        except BaseException:
            await leaving.abort()
            raise

    async def _enqueue(
        self, queue: InboundQueue, waiting: list[Waiting], octets: AsyncIterator[bytes], arrival: Arrival, front: bytes
    ) -> None:
        """Raises: StorageError, MailRefused."""
        spool = queue.spools.begin()
        try:
            await spool.write(return_path_field(arrival.sender) + front)
            async for chunk in octets:
                await spool.write(chunk)
            failures = await queue.put(spool, waiting, sender=arrival.sender, received=arrival.received)
        except OSError as error:
            raise Unavailable(str(error)) from error
        finally:
            spool.close()
        for failure in failures.values():
            raise failure

    async def _sent(self, cause: DeliveryId, action: str, recipient: str, octets: bytes) -> None:
        """What can never be sent is dropped: there is nobody to tell. Raises: StorageError, MailRefused (temporary)."""
        if self._send is None:
            return
        try:
            await self._send(cause, action, recipient, octets)
        except MailRefused as error:
            if error.temporary:
                raise
            self._log.info("{action} of {id} to {to} is dropped: {why}", action=action, id=cause, to=recipient, why=error)

    async def _answer(
        self, account: Account, copy: Copy, arrival: Arrival, header: Header, answer: Answer, repeated: bool
    ) -> None:
        """Raises: StorageError, MailRefused, AccountError."""
        octets = compose(
            answer.vacation,
            header,
            sender=arrival.sender,
            author=answer.author,
            message_id=f"{copy.delivery}.vacation@{self._settings.hostname}",
            now=self._wall(),
        )
        sending = self._sent(copy.delivery, "vacation", arrival.sender, octets)
        await self._once(copy, "vacation", repeated, sending)
        if answer.vacation.fcc is not None:
            await self._file(account, copy.delivery.caused("vacation/fcc"), answer.vacation.fcc, octets)

    async def _notify(
        self,
        account: Account,
        copy: Copy,
        header: Header,
        notify: Notify,
        mailto: Mailto,
        number: int,
        repeated: bool,
    ) -> None:
        """Raises: StorageError, MailRefused, AccountError."""
        owner = copy.user or copy.address
        author = owner
        if notify.sender:
            addresses = from_addresses(notify.sender)
            if addresses and all([await self.causes.is_own(copy, address) for address in addresses]):
                author = notify.sender
        octets = compose_notification(
            notify,
            mailto,
            header,
            author=author,
            owner=owner,
            message_id=f"{copy.delivery}.notify{number}@{self._settings.hostname}",
            now=self._wall(),
        )
        for recipient in dict.fromkeys((*mailto.recipients, *mailto.copies)):
            action = f"notify/{number}/{recipient}"
            await self._once(copy, action, repeated, self._sent(copy.delivery, action, recipient, octets))
        if notify.fcc is not None:
            await self._file(account, copy.delivery.caused(f"notify/{number}/fcc"), notify.fcc, octets)

    async def _file(self, account: Account, delivery: DeliveryId, into: FileInto, octets: bytes) -> None:
        """A copy of what was sent (RFC 8580). Raises: StorageError, AccountError."""
        now = int(self._wall())
        await self._put(account, delivery, place_of(account.state, into, now), octets, now)

    async def _put(self, account: Account, delivery: DeliveryId, place: Place, octets: bytes, now: int) -> None:
        writer = self._accounts.writer(account.id)
        try:
            await writer.write(octets)
            message = new_message(await account.store(await writer.finish()), now)
        except BaseException:
            await writer.abort()
            raise
        await self._commit(account, delivery, message, place)

    async def _commit(self, account: Account, delivery: DeliveryId, message: NewMessage, place: Place) -> None:
        now = int(self._wall())
        intent = DeliverMessage(delivery=delivery.octets, message=message, places=(place,), repeated=True, now=now)
        await account.commit(intent)

    async def _tell(self, account: Account, copy: Copy, arrival: Arrival, found: Sorted) -> None:
        """The owner of a script that fails: a message into INBOX, past the script. Raises: StorageError, AccountError."""
        script = found.failed
        if script is None:
            return
        now = int(self._wall())
        hostname, owner = self._settings.hostname, copy.user or copy.address
        more, body = text_part(
            f"Your Sieve script {script.name!r} could not be run on a message to you, which was put into your INBOX "
            f"instead:\n\n    {found.error[:_REASON]}\n\n"
            "As long as the script fails, your mail comes to INBOX. You get this message once for each version of the "
            "script.\n"
        )
        octets = letter(
            [
                ("From", f"Mail filter <mailer-daemon@{hostname}>"),
                ("To", owner),
                ("Subject", f"Your mail filter {script.name} does not work"),
                ("Date", formatdate(now)),
                ("Message-ID", f"<{copy.delivery}.script@{hostname}>"),
                ("Auto-Submitted", "auto-generated"),
                *more,
            ],
            body,
        )
        await self._put(account, copy.delivery.caused("script"), Place(account.state.inbox.id), octets, now)


def _envelope(copy: Copy, arrival: Arrival, header: Header, redirect: Redirect, now: float) -> Envelope:
    """What is redirected has the sender that it came with; SRS and ARC are the relay's. RFC 6009: what redirect says of
    notifications takes the place of what the sender has said."""
    judgement = copy.judgement or Judgement()
    results = b""
    if copy.judgement is not None and not judgement.login:
        # the first such field is ours, since judging puts it in front; a script's edits come later
        results = first_value(header.octets, b"authentication-results") or b""
    return Envelope(
        arrival.sender,
        (),
        Peer(judgement.peer, service="smtp"),
        envelope_id=judgement.envelope.get("envid", ""),
        dsn_return=redirect.ret or judgement.envelope.get("ret", ""),
        deliver_by=None if redirect.deliver_by is None else (int(redirect.deliver_by[0] - now), redirect.deliver_by[1]),
        verified=judgement.verified,
        results=results.decode("utf-8", "replace").strip(),
    )


def _addressed(copy: Copy, redirect: Redirect, address: str) -> Recipient:
    """RFC 3461 section 5.2.7: a forward asks for the notifications that its sender has asked for, unless the script does."""
    given = copy.judgement.envelope if copy.judgement is not None else {}
    notify = redirect.notify or tuple(filter(None, given.get("notify", "").split(",")))
    return Recipient(address, (), original=given.get("orcpt", ""), notify=frozenset(notify))


def _with_tags(judgement: Judgement | None, redirect: Redirect) -> Judgement | None:
    """For a redirect to one of us, whose script may ask for it."""
    by = redirect.deliver_by
    text = "" if by is None else deliver_by_text((0, by[1]), by[0])
    return with_envelope(judgement, notify=",".join(sorted(redirect.notify)), ret=redirect.ret, by=text)


def _version(prepared: PreparedMessage, forward: Forward) -> AsyncIterator[bytes]:
    """What is sent on, without the field that the message's delivery here has put in front: no script takes that away.

    Raises: StorageError.
    """
    start = 0
    if prepared.header[:12].lower() == b"return-path:":
        start = prepared.header.find(b"\n") + 1
    return octets_of(prepared, forward.version, start)


def refusal_of(reject: Reject) -> MailRefused:
    """The reply to a peer that still waits (RFC 5429 section 2.5)."""
    return MailRefused(Refusal.POLICY, reject.reason.strip() or "Refused by the recipient", code=550, enhanced="5.7.1")


