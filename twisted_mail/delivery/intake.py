"""Where SMTP, submission and LMTP put mail: says for each recipient where it goes, and takes the message."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from twisted_mail.account.errors import AccountError
from twisted_mail.delivery.incoming import IncomingMail, Target, Ways
from twisted_mail.delivery.judgement import Judgement, deliver_by_text, with_envelope
from twisted_mail.delivery.judging import Judge, JudgedVisit
from twisted_mail.delivery.outbound import OutboundQueue, Returns
from twisted_mail.delivery.resolution import Resolution, Resolver
from twisted_mail.delivery.trace import received_field, return_path_field
from twisted_mail.queueing.limits import TooSlow
from twisted_mail.services import Envelope, Identity, Incoming, MailRefused, Peer, Recipient, Refusal, Visit
from twisted_mail.storage.interfaces import AccountRecord, Directory, StorageError
from twisted_mail.values import AccountId, random_octets

__all__ = ["DeliverySettings", "MailIntake"]

MAX_REMEMBERED: Final = 10_000
"""Addresses."""
STALE_SECONDS: Final = 3600.0
"""How long what an address stood for is good enough while the directory does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverySettings:
    """What an operator may set about inbound mail."""

    hostname: str
    """This server's name, in Received fields and for ``<postmaster>``."""
    subaddress: str = "+"
    """What parts user and detail (RFC 5233); empty: there are no details."""
    detail_mailboxes: bool = False
    """Deliver ``user+detail`` into the mailbox *detail*, where the user has one, instead of INBOX."""
    hops: int = 100
    """Received fields that a message may have before it is taken for a loop (RFC 5321 section 6.3)."""
    postmaster: str = ""
    """Who gets mail for the postmaster of a domain that names none; empty: the domain's oldest account."""
    remember_seconds: float = 0.0
    """How long what an address stands for may be remembered (a change in the directory waits as long); 0: not at all.
    What does not exist is never remembered."""


class MailIntake:
    """Implements `services.Intake` over the directory and the accounts.

    Without *outbound*, mail for other domains is refused: to strangers as relaying, to those who have logged in with
    a text that says why.
    """

    def __init__(
        self,
        directory: Directory,
        ways: Ways,
        settings: DeliverySettings,
        *,
        outbound: OutboundQueue | None = None,
        returns: Returns | None = None,
        judge: Judge | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._ways = ways
        self._judge = judge
        self._settings = settings
        self._outbound = outbound
        self._returns = returns
        self._wall = wall
        self._recent: OrderedDict[str, tuple[float, Resolution]] = OrderedDict()
        self._resolver = Resolver(
            directory,
            hostname=settings.hostname,
            delimiter=settings.subaddress,
            postmaster=settings.postmaster,
        )

    def visit(self, peer: Peer) -> Visit | None:
        """See `services.Intake.visit`."""
        return None if self._judge is None else self._judge.visit(peer)

    async def recipient(
        self, address: str, *, identity: Identity | None, original: str = "", notify: frozenset[str] = frozenset()
    ) -> Recipient:
        """See `services.Intake.recipient`. A mailbox that is full is refused here, before the message comes."""
        try:
            resolution = await self.resolve(address)
            self._check_remote(resolution, identity)
            await self._check_room(resolution.accounts)
        except (StorageError, AccountError) as error:
            raise MailRefused(Refusal.UNAVAILABLE) from error
        return Target(
            address=address,
            accounts=tuple(record.id for record in resolution.accounts),
            detail=resolution.detail,
            original=original,
            notify=notify,
            users=tuple(record.address for record in resolution.accounts),
            remote=resolution.remote,
            program=resolution.program,
        )

    async def resolve(self, address: str) -> Resolution:
        """What *address* stands for, whoever asks. Raises: MailRefused, StorageError.

        It is remembered for a moment: a server in front sends many messages to one user, and each would ask the directory two
        or three times.
        """
        if self._returns is not None and self._returns.ours(address):
            target = await self._returns.leads_to(address)
            if target is None:
                return Resolution(program=True)
            found = await self._resolver.resolve(target)
            return replace(found, aliased=True)
        recent = self._recent.get(address)
        began = self._wall()
        if recent is not None and recent[0] <= began < recent[0] + self._settings.remember_seconds:
            return recent[1]
        try:
            resolution = await self._resolver.resolve(address)
        except StorageError:
            # rather mail for who was here just now than none at all
            if recent is not None and self._ways.queue is not None and began < recent[0] + STALE_SECONDS:
                return recent[1]
            raise
        if self._settings.remember_seconds and resolution.accounts:
            self._recent[address] = (began, resolution)
            self._recent.move_to_end(address)
            if len(self._recent) > MAX_REMEMBERED:
                self._recent.popitem(last=False)
        return resolution

    def _check_remote(self, resolution: Resolution, identity: Identity | None) -> None:
        """Another domain's address is for those who have logged in; an alias of ours may always lead to one."""
        if not resolution.remote:
            return
        ours = bool(resolution.accounts) or resolution.aliased
        if identity is None and not ours:
            raise MailRefused(Refusal.RELAY_DENIED)
        if self._outbound is None:
            raise MailRefused(Refusal.NO_QUEUE)

    async def _check_room(self, records: tuple[AccountRecord, ...]) -> None:
        """Raises MailRefused. Where the store does not answer, and a queue would take the mail, there is room."""
        if not self._ways.straight:
            return
        for record in records:
            if record.quota_bytes is None:
                continue
            try:
                full = await self._ways.in_time(self._is_full(record.id, record.quota_bytes))
            except (AccountError, StorageError, TooSlow):
                if self._ways.queue is None:
                    raise
                return
            if full:
                raise MailRefused(Refusal.MAILBOX_FULL)

    async def _is_full(self, id: AccountId, quota: int) -> bool:
        account = await self._ways.accounts.open(id)
        try:
            return account.state.size >= quota
        finally:
            self._ways.accounts.release(account)

    async def begin(self, envelope: Envelope) -> Incoming:
        """See `services.Intake.begin`."""
        returns = self._returns
        if envelope.sender and returns is not None:
            if any(returns.bounces_only(recipient.address) for recipient in envelope.recipients):
                raise MailRefused(Refusal.RELAY_DENIED)
        if isinstance(envelope.visit, JudgedVisit):
            await envelope.visit.data()
            return envelope.visit.begin(envelope, self.accepted, self._added)
        return self.accepted(envelope, id=random_octets(8).hex())

    async def _added(self, address: str) -> Recipient:
        """A recipient that a filter adds."""
        return await self.recipient(address, identity=None)

    def accepted(
        self,
        envelope: Envelope,
        *,
        id: str,
        fields: bytes = b"",
        judgement: Judgement | None = None,
        queue_only: bool = False,
    ) -> Incoming:
        """The delivery of a message, which may have been judged. *fields* stand in front of its header, with the trace
        fields. Raises: MailRefused."""
        settings, ways = self._settings, self._ways
        if queue_only:
            if ways.queue is None:
                raise MailRefused(Refusal.UNAVAILABLE)
            ways = replace(ways, straight=False)
        remote = any(isinstance(each, Target) and each.remote for each in envelope.recipients)
        received = received_field(envelope, hostname=settings.hostname, id=id, seconds=self._wall())
        return IncomingMail(
            ways,
            envelope.recipients,
            sender=envelope.sender,
            return_path=return_path_field(envelope.sender),
            received=fields + received,
            hops=settings.hops,
            detail_mailboxes=settings.detail_mailboxes,
            outbound=self._outbound.begin(envelope) if self._outbound is not None and remote else None,
            wall=self._wall,
            hold_until=envelope.hold_until,
            returns=self._returns,
            judgement=with_envelope(
                judgement,
                ret=envelope.dsn_return,
                envid=envelope.envelope_id,
                by=deliver_by_text(envelope.deliver_by, self._wall()),
            ),
            each_answered="LMTP" in envelope.protocol,
        )
