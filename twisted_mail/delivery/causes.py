"""What a delivery is to cause by the will of a script, looked at before its entry is written.

What cannot or must not be done becomes the implicit keep: nothing is lost for a script that asks for too much.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Final

from twisted_mail.account.delivering import Place, Remember, memory_key
from twisted_mail.delivery.items import Copy
from twisted_mail.delivery.notifying import not_notified
from twisted_mail.delivery.resolution import Resolution
from twisted_mail.delivery.sorting import Arrival, Sorted, usual_place
from twisted_mail.delivery.trace import HopCount
from twisted_mail.delivery.vacation import canonical, from_addresses, is_addressed, never_answered
from twisted_mail.filters.values import Action
from twisted_mail.mime import all_values
from twisted_mail.services import Account, MailRefused, PreparedMessage
from twisted_mail.sieve.addressing import outbound_address
from twisted_mail.sieve.mailto import Mailto, parse_mailto
from twisted_mail.sieve.message import Header
from twisted_mail.sieve.values import Notify, Redirect, Reject, Rewritten, Vacation
from twisted_mail.storage.interfaces import Unavailable

__all__ = ["REDIRECTED", "Answer", "Caused", "Causes", "EffectSettings", "Forward", "Resolve", "header_of"]

REDIRECTED: Final = "X-Sieve-Redirected-From"
"""Names the account that has redirected a message: what comes back to it is not redirected again."""

Resolve = Callable[[str], Awaitable[Resolution]]
"""What an address stands for (`MailIntake.resolve`). Raises: MailRefused, StorageError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectSettings:
    """What an operator says about what scripts may cause."""

    hostname: str
    redirect_hops: int = 50
    """Received fields from which on a message is not redirected."""


@dataclass(frozen=True, slots=True)
class Forward:
    """Where a redirect goes."""

    address: str
    found: Resolution
    redirect: Redirect
    version: Rewritten | None = None
    """What is sent instead of the message that came."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A vacation answer that is to be given unless it was."""

    vacation: Vacation
    author: str
    key: str
    seconds: int


@dataclass(slots=True, kw_only=True)
class Caused:
    """What a delivery causes, looked at already."""

    places: tuple[Place, ...]
    rewritten: dict[int, Rewritten] = field(default_factory=dict)
    """What the places of these numbers get instead of the message that came."""
    forwards: list[Forward] = field(default_factory=list)
    answer: Answer | None = None
    refusal: Reject | None = None
    """By a reply: the peer still waits for it."""
    bounce: Reject | None = None
    notifications: list[tuple[Notify, Mailto]] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)

    def remembered(self, now: int) -> tuple[Remember, ...]:
        """Whom it answers."""
        return () if self.answer is None else (Remember(self.answer.key, now + self.answer.seconds),)


class Causes:
    """Says what can be done, and what must not."""

    def __init__(
        self, resolve: Resolve, settings: EffectSettings, *, sends: bool, leaves: bool, queues: bool, bounces: bool
    ) -> None:
        """*sends*: there is a way for mail of our own; *leaves*: for what others wrote to go to others; *queues*: to come to
        us again; *bounces*: to tell senders."""
        self._resolve = resolve
        self._settings = settings
        self._sends = sends
        self._leaves = leaves
        self._queues = queues
        self._bounces = bounces

    async def prepare(
        self,
        account: Account,
        copy: Copy,
        prepared: PreparedMessage,
        arrival: Arrival,
        found: Sorted,
        *,
        now: float,
        refusable: bool,
    ) -> Caused:
        """*now*: seconds since 1970. *refusable*: the peer waits, and a refusal concerns this copy alone.

        Raises: StorageError.
        """
        caused = Caused(places=found.places, rewritten=dict(found.rewritten))
        header = header_of(found, prepared)
        own = own_addresses(copy)
        if found.reject is not None:
            self._prepare_refusal(caused, copy, arrival, found.reject, refusable)
        for number, redirect in enumerate(found.redirects):
            version = found.redirected.get(number)
            why = await self._prepare_redirect(caused, copy, prepared, now, redirect, version, own)
            if why:
                caused.trace.append(f"not redirected to {redirect.address}: {why}")
                self._keep(account, copy, caused, version)
        if found.vacation is not None and found.reject is None:
            why = await self._prepare_answer(caused, account, copy, arrival, header, found.vacation, own)
            if why:
                caused.trace.append(f"no vacation answer: {why}")
        for notify in found.notifications:
            why = not_notified(header) or self._prepare_notification(caused, notify)
            if why:
                caused.trace.append(f"no notification: {why}")
        return caused

    def _keep(self, account: Account, copy: Copy, caused: Caused, version: Rewritten | None) -> None:
        """Rather kept than lost, as it was to be sent."""
        usual = usual_place(account.state, copy.detail)
        if all(place.mailbox != usual.mailbox for place in caused.places):
            if version is not None:
                caused.rewritten[len(caused.places)] = version
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
        elif not self._bounces:
            caused.trace.append("refused; there is no way to tell the sender")
        else:
            caused.bounce = reject

    async def _prepare_redirect(
        self,
        caused: Caused,
        copy: Copy,
        prepared: PreparedMessage,
        now: float,
        redirect: Redirect,
        version: Rewritten | None,
        own: Collection[str],
    ) -> str:
        """Why not; empty: it is to be done. Raises: StorageError."""
        address = outbound_address(redirect.address)
        if address is None:
            return "that is no address"
        if redirect.deliver_by is not None and redirect.deliver_by[1][:1] == "R" and redirect.deliver_by[0] <= now:
            return "the time until which it is to be delivered is over"
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
        if found.remote and not self._leaves:
            return "no mail leaves here"
        if found.accounts and not self._queues:
            return "there is no queue"
        if not found.accounts and not found.remote:
            return "nobody has a mailbox there"
        caused.forwards.append(Forward(address, found, redirect, version))
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
        if not self._sends:
            return "no mail of ours can be sent"
        if copy.judgement is not None and copy.judgement.action >= Action.JUNK:
            return "it is junk"
        theirs = {address for each in vacation.addresses if (address := canonical(each))}
        why = never_answered(arrival.sender, header, {*own, *theirs})
        if why:
            return why

        async def leads_here(address: str) -> bool:
            return await self.is_own(copy, address)

        if not await is_addressed(header, {*own, *theirs}, leads_here):
            return "it was not addressed to the user"
        author = copy.user or copy.address
        if vacation.sender:
            for address in from_addresses(vacation.sender):
                if address not in own and not await self.is_own(copy, address):
                    break
            else:
                author = vacation.sender
        key = memory_key("vacation", vacation.handle, canonical(arrival.sender))
        caused.answer = Answer(vacation, author, key, vacation.seconds)
        return ""

    async def is_own(self, copy: Copy, address: str) -> bool:
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
        if not self._sends:
            return "no mail of ours can be sent"
        try:
            caused.notifications.append((notify, parse_mailto(notify.method)))
        except ValueError as error:
            return f"{notify.method[:100]}: {error}"
        return ""


def header_of(found: Sorted, prepared: PreparedMessage) -> Header:
    """The message's header as it came, before a script's edits."""
    return found.message.header if found.message is not None else Header(prepared.header)


def own_addresses(copy: Copy) -> frozenset[str]:
    """The user's addresses, as far as they are known without asking; `canonical`."""
    return frozenset(address for each in (copy.user, "" if copy.shared else copy.address) if (address := canonical(each)))
