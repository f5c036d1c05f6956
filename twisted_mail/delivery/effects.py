"""What a script asks for besides mailboxes: redirect, reject, vacation answers, notifications, and telling the owner that
it fails.

First everything is looked at (`prepare`), before the message's entry is written; what cannot or must not be done becomes the
implicit keep. Then, once the entry stands, it is done (`carry_out`). Whatever is sent is an item of a queue, whose id follows
from the delivery's: a delivery that is repeated does all of it again, and each is there once.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Final, Protocol

import msgspec
from twisted.logger import Logger

from twisted_mail.account.delivering import Delivered, DeliverMessage, Place, Remember, memory_key
from twisted_mail.account.intents import NewMessage, new_message
from twisted_mail.delivery.items import Copy
from twisted_mail.delivery.letters import letter, text_part
from twisted_mail.delivery.notifying import compose_notification, not_notified
from twisted_mail.delivery.outbound import OutboundQueue
from twisted_mail.delivery.queueing import InboundQueue, Waiting
from twisted_mail.delivery.resolution import Resolution
from twisted_mail.delivery.sorting import Arrival, Sorted, place_of, usual_place
from twisted_mail.delivery.trace import HopCount, return_path_field
from twisted_mail.delivery.vacation import canonical, compose, from_addresses, is_addressed, never_answered
from twisted_mail.mime import all_values
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
from twisted_mail.sieve.addressing import outbound_address
from twisted_mail.sieve.editing import header_field
from twisted_mail.sieve.mailto import Mailto, parse_mailto
from twisted_mail.sieve.message import Header
from twisted_mail.sieve.values import FileInto, Notify, Reject, Vacation
from twisted_mail.storage.interfaces import Unavailable
from twisted_mail.values import DeliveryId

__all__ = ["Bounce", "Caused", "EffectSettings", "Effects", "Send"]

REDIRECTED: Final = "X-Sieve-Redirected-From"
"""Names the account that has redirected a message: what comes back to it is not redirected again."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectSettings:
    """What an operator says about what scripts may cause."""

    hostname: str
    redirect_hops: int = 50
    """Received fields from which on a message is not redirected."""


@dataclass(frozen=True, slots=True)
class _Forward:
    """Where a redirect goes."""

    address: str
    found: Resolution


@dataclass(frozen=True, slots=True)
class _Answer:
    """A vacation answer that is to be given unless it was."""

    vacation: Vacation
    author: str
    key: str
    seconds: int


@dataclass(slots=True, kw_only=True)
class Caused:
    """What a delivery causes, looked at already."""

    places: tuple[Place, ...]
    forwards: list[_Forward] = field(default_factory=list)
    answer: _Answer | None = None
    refusal: Reject | None = None
    """By a reply: the peer still waits for it."""
    bounce: Reject | None = None
    notifications: list[tuple[Notify, Mailto]] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)

    def remembered(self, now: int) -> tuple[Remember, ...]:
        """Whom it answers."""
        return () if self.answer is None else (Remember(self.answer.key, now + self.answer.seconds),)


class Effects:
    """Carries out what scripts ask for; one per process."""

    _log = Logger()

    def __init__(
        self,
        accounts: Accounts,
        resolve: Callable[[str], Awaitable[Resolution]],
        send: Send | None,
        settings: EffectSettings,
        *,
        inbound: InboundQueue | None = None,
        outbound: OutboundQueue | None = None,
        bounce: Bounce | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """*resolve*: what an address stands for (`MailIntake.resolve`). *inbound*, *outbound*: where what is redirected to
        us and to others goes; without one there is no such redirect, without *send* no mail of ours."""
        self._accounts = accounts
        self._resolve = resolve
        self._send = send
        self._settings = settings
        self._inbound = inbound
        self._outbound = outbound
        self._bounce = bounce
        self._wall = wall

    # --- before the entry

    async def prepare(
        self, account: Account, copy: Copy, prepared: PreparedMessage, arrival: Arrival, found: Sorted, *, refusable: bool
    ) -> Caused:
        """*refusable*: the peer waits, and a refusal concerns this copy alone. Raises: StorageError."""
        caused = Caused(places=found.places)
        header = found.message.header if found.message is not None else Header(prepared.header)
        own = own_addresses(copy)
        if found.reject is not None:
            self._prepare_refusal(caused, copy, arrival, found.reject, refusable)
        for redirect in found.redirects:
            why = await self._prepare_redirect(caused, copy, prepared, redirect.address, own)
            if why:
                caused.trace.append(f"not redirected to {redirect.address}: {why}")
                self._keep(account, copy, caused)
        if found.vacation is not None and found.reject is None:
            why = await self._prepare_answer(caused, account, copy, arrival, header, found.vacation, own)
            if why:
                caused.trace.append(f"no vacation answer: {why}")
        for notify in found.notifications:
            why = not_notified(header) or self._prepare_notification(caused, notify)
            if why:
                caused.trace.append(f"no notification: {why}")
        return caused

    def _keep(self, account: Account, copy: Copy, caused: Caused) -> None:
        """Rather kept than lost."""
        usual = usual_place(account.state, copy.detail)
        if all(place.mailbox != usual.mailbox for place in caused.places):
            caused.places = (*caused.places, usual)

    def _prepare_refusal(
        self, caused: Caused, copy: Copy, arrival: Arrival, reject: Reject, refusable: bool
    ) -> None:
        # RFC 5429 section 2.2: a reject keeps the exact words of its reason, which a reply can have only in ASCII
        if refusable and (reject.ereject or reject.reason.isascii()):
            caused.refusal = reject
        elif not arrival.sender:
            caused.trace.append("refused; there is no sender to tell")
        elif reject.ereject and not (copy.judgement is not None and copy.judgement.verified):
            caused.trace.append("refused; the sender is not told, since who it is cannot be known for sure")
        elif self._bounce is None:
            caused.trace.append("refused; there is no way to tell the sender")
        else:
            caused.bounce = reject

    async def _prepare_redirect(
        self, caused: Caused, copy: Copy, prepared: PreparedMessage, wanted: str, own: Collection[str]
    ) -> str:
        """Why not; empty: it is to be done. Raises: StorageError."""
        address = outbound_address(wanted)
        if address is None:
            return "that is no address"
        if canonical(address) in own:
            return "that is the account itself"
        before = all_values(prepared.header, REDIRECTED.lower().encode())
        if any(canonical(value.decode("utf-8", "replace")) in own for value in before):
            return "it was redirected by this account before"
        count = HopCount()
        count.feed(prepared.header)
        if count.count >= self._settings.redirect_hops:
            return f"it has passed {count.count} servers"
        try:
            found = await self._resolve(address)
        except MailRefused as error:
            if error.temporary:
                raise Unavailable(error.text) from error
            return error.text
        if any(record.id == copy.account for record in found.accounts):
            return "that is the account itself"
        if found.remote and self._outbound is None:
            return "no mail leaves here"
        if found.accounts and self._inbound is None:
            return "there is no queue"
        if not found.accounts and not found.remote:
            return "nobody has a mailbox there"
        caused.forwards.append(_Forward(address, found))
        return ""

    async def _prepare_answer(
        self,
        caused: Caused,
        account: Account,
        copy: Copy,
        arrival: Arrival,
        header: Header,
        vacation: Vacation,
        own: Collection[str],
    ) -> str:
        """Why not; empty: it is to be given, unless it was. Raises: StorageError."""
        if self._send is None:
            return "no mail of ours can be sent"
        theirs = {address for each in vacation.addresses if (address := canonical(each))}
        why = never_answered(arrival.sender, header, {*own, *theirs})
        if why:
            return why

        async def leads_here(address: str) -> bool:
            return await self._is_own(copy, address)

        if not await is_addressed(header, {*own, *theirs}, leads_here):
            return "it was not addressed to the user"
        author = copy.user or copy.address
        if vacation.sender:
            for address in from_addresses(vacation.sender):
                if address not in own and not await self._is_own(copy, address):
                    break
            else:
                author = vacation.sender
        key = memory_key("vacation", vacation.handle, canonical(arrival.sender))
        caused.answer = _Answer(vacation, author, key, vacation.seconds)
        return ""

    async def _is_own(self, copy: Copy, address: str) -> bool:
        """Whether *address* leads to this account and nobody else. Raises: StorageError."""
        if not address:
            return False
        try:
            found = await self._resolve(address)
        except MailRefused as error:
            if error.temporary:
                raise Unavailable(error.text) from error
            return False
        return not found.remote and [record.id for record in found.accounts] == [copy.account]

    def _prepare_notification(self, caused: Caused, notify: Notify) -> str:
        if self._send is None:
            return "no mail of ours can be sent"
        try:
            caused.notifications.append((notify, parse_mailto(notify.method)))
        except ValueError as error:
            return f"{notify.method[:100]}: {error}"
        return ""

    # --- when the entry stands

    async def carry_out(
        self,
        account: Account,
        copy: Copy,
        prepared: PreparedMessage,
        arrival: Arrival,
        found: Sorted,
        caused: Caused,
        delivered: Delivered,
    ) -> list[str]:
        """Do all of it; again is harmless. Returns sentences for the trace. Raises: StorageError, AccountError."""
        try:
            return await self._carry_out(account, copy, prepared, arrival, found, caused, delivered)
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
    ) -> list[str]:
        trace: list[str] = []
        header = found.message.header if found.message is not None else Header(prepared.header)
        for forward in caused.forwards:
            try:
                await self._redirect(copy, prepared, arrival, forward)
                trace.append(f"redirected to {forward.address}")
            except MailRefused as error:
                if error.temporary:
                    raise
                trace.append(f"not redirected to {forward.address}, but kept: {error.text}")
                kept = copy.delivery.caused(f"redirect/{forward.address}/kept")
                message = new_message(await account.store(prepared), arrival.received, arrival.zone)
                await self._commit(account, kept, message, usual_place(account.state, copy.detail))
        if caused.bounce is not None and self._bounce is not None:
            await self._bounce(
                copy.delivery,
                caused.bounce,
                sender=arrival.sender,
                recipient=copy.address,
                header=header.octets,
                received=arrival.received,
            )
            trace.append(f"refused; {arrival.sender} is told by a message")
        if caused.answer is not None:
            if caused.answer.key in delivered.answers:
                await self._answer(account, copy, arrival, header, caused.answer)
                trace.append(f"a vacation answer goes to {arrival.sender}")
            else:
                trace.append(f"no vacation answer: {arrival.sender} has had it already")
        for number, (notify, mailto) in enumerate(caused.notifications):
            await self._notify(account, copy, header, notify, mailto, number)
            trace.append(f"a notification goes to {', '.join((*mailto.recipients, *mailto.copies))}")
        if delivered.tell and found.failed is not None:
            await self._tell(account, copy, arrival, found)
            trace.append("the owner of the script is told")
        return trace

    async def _redirect(self, copy: Copy, prepared: PreparedMessage, arrival: Arrival, forward: _Forward) -> None:
        """Raises: StorageError, MailRefused."""
        cause = copy.delivery.caused(f"redirect/{forward.address}")
        front = header_field(REDIRECTED, copy.user or copy.address)
        found = forward.found
        if found.remote and self._outbound is not None:
            leaving = self._outbound.begin(_envelope(copy, arrival))
            try:
                await leaving.write(front)
                async for chunk in _without_return_path(prepared):
                    await leaving.write(chunk)
                targets = [(cause.caused(each), each, Recipient(each, ())) for each in found.remote]
                if len(targets) == 1:
                    targets = [(cause, found.remote[0], Recipient(found.remote[0], ()))]
                await leaving.finish(targets)
            except BaseException:
                await leaving.abort()
                raise
        if found.accounts and self._inbound is not None:
            judgement = copy.judgement
            if judgement is not None:
                judgement = msgspec.structs.replace(judgement, pending=())
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
            await self._enqueue(self._inbound, waiting, prepared, arrival, front)

    async def _enqueue(
        self, queue: InboundQueue, waiting: list[Waiting], prepared: PreparedMessage, arrival: Arrival, front: bytes
    ) -> None:
        """Raises: StorageError, MailRefused."""
        spool = queue.spools.begin()
        try:
            await spool.write(return_path_field(arrival.sender) + front)
            async for chunk in _without_return_path(prepared):
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

    async def _answer(self, account: Account, copy: Copy, arrival: Arrival, header: Header, answer: _Answer) -> None:
        """Raises: StorageError, MailRefused, AccountError."""
        octets = compose(
            answer.vacation,
            header,
            sender=arrival.sender,
            author=answer.author,
            message_id=f"{copy.delivery}.vacation@{self._settings.hostname}",
            now=self._wall(),
        )
        await self._sent(copy.delivery, "vacation", arrival.sender, octets)
        if answer.vacation.fcc is not None:
            await self._file(account, copy.delivery.caused("vacation/fcc"), answer.vacation.fcc, octets)

    async def _notify(
        self, account: Account, copy: Copy, header: Header, notify: Notify, mailto: Mailto, number: int
    ) -> None:
        """Raises: StorageError, MailRefused, AccountError."""
        owner = copy.user or copy.address
        author = owner
        if notify.sender:
            addresses = from_addresses(notify.sender)
            if addresses and all([await self._is_own(copy, address) for address in addresses]):
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
            await self._sent(copy.delivery, f"notify/{number}/{recipient}", recipient, octets)
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


def own_addresses(copy: Copy) -> frozenset[str]:
    """The user's addresses, as far as they are known without asking; `canonical`."""
    return frozenset(address for each in (copy.user, "" if copy.shared else copy.address) if (address := canonical(each)))


def _envelope(copy: Copy, arrival: Arrival) -> Envelope:
    """What is redirected has the sender that it came with; SRS and ARC are the relay's."""
    extra = copy.judgement.envelope if copy.judgement is not None else {}
    peer = Peer(copy.judgement.peer if copy.judgement is not None else "", service="smtp")
    return Envelope(arrival.sender, (), peer, envelope_id=extra.get("envid", ""), dsn_return=extra.get("ret", ""))


async def _without_return_path(prepared: PreparedMessage) -> AsyncIterator[bytes]:
    """The message without the field that its delivery here has put in front. Raises: StorageError."""
    start = 0
    if prepared.header[:12].lower() == b"return-path:":
        start = prepared.header.find(b"\n") + 1
    async for chunk in prepared.octets(start):
        yield chunk


def refusal_of(reject: Reject) -> MailRefused:
    """The reply to a peer that still waits (RFC 5429 section 2.5)."""
    return MailRefused(Refusal.POLICY, reject.reason.strip() or "Refused by the recipient", code=550, enhanced="5.7.1")


