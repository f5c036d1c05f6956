"""Putting inbound mail together: how it is judged and sorted, its two ways into accounts, and the worker behind the queue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from twisted_mail import __version__
from twisted_mail.account.service import AccountService
from twisted_mail.delivery import (
    Bodies,
    DeliveryCounts,
    DeliverySettings,
    InboundQueue,
    MailIntake,
    SpoolFolder,
    Ways,
)
from twisted_mail.delivery.effects import Effects, EffectSettings
from twisted_mail.delivery.failing import RetrySettings
from twisted_mail.delivery.internal import InternalMail
from twisted_mail.delivery.learned import Learned
from twisted_mail.delivery.placing import Placer
from twisted_mail.delivery.script_news import hear_of_scripts
from twisted_mail.delivery.scripts import ActiveScripts
from twisted_mail.delivery.sorting import Sorter, SortSettings
from twisted_mail.delivery.worker import DeliveryWorker, WorkerSettings
from twisted_mail.dns.resolver import Resolver
from twisted_mail.filters.bayes import Bayes, BayesSettings
from twisted_mail.queueing.leasing import LeaseSettings
from twisted_mail.sieve import CompileLimits, compile_script
from twisted_mail.sieve.values import RunLimits
from twisted_mail.storage import Backend
from twisted_mail.tap.judging import Judging
from twisted_mail.tap.rejecting import Rejections
from twisted_mail.tap.relaying import Relaying
from twisted_mail.tap.settings import Configuration
from twisted_mail.tap.status import Metric
from twisted_mail.tap.teaching import lesson_metrics, teaching
from twisted_mail.values import DeliveryId

__all__ = ["Delivering"]

RECENT_BYTES: Final = 16 << 20
DAY: Final = 86_400


class Delivering:
    """All of a process that has to do with mail that comes in; `open` it once the stores are."""

    def __init__(
        self,
        reactor: Any,
        configuration: Configuration,
        backend: Backend,
        accounts: AccountService,
        in_thread: Callable[..., Any],
        dns: Resolver,
        node: str,
        *,
        counts: DeliveryCounts,
        trouble: Callable[..., str | None],
    ) -> None:
        """*in_thread* calls a function in the threads for spools. *trouble* says what is the matter with stores, by name.
        Raises: StartError."""
        self._reactor = reactor
        self._configuration = configuration
        self._backend = backend
        self._accounts = accounts
        self._counts = counts
        self.bodies = Bodies(
            backend.blobs,
            backend.references,
            reactor,
            overflow=backend.queue_bodies,
            trouble=lambda: trouble("blobs", "references"),
            recent_bytes=RECENT_BYTES,
        )
        self.spools = SpoolFolder(configuration.data / "spool", in_thread)
        self.queue = InboundQueue(
            backend.queue, self.bodies, self.spools, reactor, counts=counts, trouble=lambda: trouble("queue")
        )
        self.judging = Judging(reactor, configuration, backend, self.spools, dns, node)
        self.scripts = ActiveScripts(
            backend.directory,
            reactor,
            partial(compile_script, limits=CompileLimits(script_bytes=configuration.sieve.script_bytes)),
            in_thread=in_thread,
        )
        self._deaf = hear_of_scripts(backend.bus, self.scripts.forget_tagged)
        self.bayes: Bayes | None = None
        """What users' moves teach, and what their mail is judged by."""
        filters = configuration.filters
        if filters.enabled and filters.bayes:
            points = filters.bayes_points
            learner = BayesSettings(least=filters.bayes_least, spam_points=points, ham_points=-points * 2 / 3)
            self.bayes = Bayes(backend.records, reactor.seconds, learner)
        self.lessons = teaching(filters, reactor, backend, accounts, self.bayes, self.judging.judge.judged_by)
        """How users teach filters; None: there is nobody to teach."""
        self.worker: DeliveryWorker | None = None
        self._intake: MailIntake | None = None
        self._internal: InternalMail | None = None

    @property
    def intake(self) -> MailIntake:
        """Where SMTP, submission and LMTP put mail."""
        if self._intake is None:
            raise RuntimeError("not opened yet")
        return self._intake

    @property
    def internal(self) -> InternalMail:
        """The door for mail of the server's own."""
        if self._internal is None:
            raise RuntimeError("not opened yet")
        return self._internal

    def open(self, relaying: Relaying | None) -> None:
        """*relaying*: how mail leaves, if it does."""
        configuration, backend = self._configuration, self._backend
        works = "delivery" in configuration.roles
        placer = self._placer(relaying)
        outbound = relaying.outgoing if relaying is not None else None
        if works:
            settings = configuration.delivery
            self.worker = DeliveryWorker(
                backend.queue,
                self.bodies,
                self._accounts,
                backend.directory,
                self._reactor,
                placer=placer,
                rejudge=self.judging.judge,
                settings=WorkerSettings(
                    lease=LeaseSettings(
                        concurrent=settings.concurrent,
                        lease_seconds=settings.lease,
                        margin_seconds=settings.lease / 6,
                    ),
                    retry=RetrySettings(expire_seconds=settings.expire),
                ),
                counts=self._counts,
            )
            self.queue.wake(self.worker.wake)
        self._intake = MailIntake(
            backend.directory,
            Ways(
                accounts=self._accounts,
                clock=self._reactor,
                queue=self.queue,
                straight=works,
                straight_seconds=configuration.smtp.straight,
                counts=self._counts,
                placer=placer,
            ),
            DeliverySettings(
                hostname=configuration.hostname,
                subaddress=configuration.smtp.subaddress,
                detail_mailboxes=configuration.smtp.subaddress_folders,
                hops=configuration.smtp.hops,
                remember_seconds=1.0,
            ),
            outbound=outbound,
            returns=relaying.returning if relaying is not None else None,
            judge=self.judging.judge if configuration.filters.enabled else None,
        )
        self._internal = InternalMail(self._intake, self.queue, outbound)
        self.judging.reporting.open(outbound)
        if self.lessons is not None:
            self.lessons.start()

    def metrics(self) -> Sequence[Metric]:
        """What filters did, and what they were taught."""
        taught = lesson_metrics(self.lessons) if self.lessons is not None else ()
        return [*self.judging.metrics(), *taught]

    async def stop(self) -> None:
        """Write down what was counted, and what was not taught yet."""
        self._deaf()
        if self.lessons is not None:
            await self.lessons.stop()
        await self.judging.stop()

    def _placer(self, relaying: Relaying | None) -> Placer:
        configuration, sieve = self._configuration, self._configuration.sieve
        sorter = Sorter(
            self.scripts,
            SortSettings(
                hostname=configuration.hostname,
                limits=RunLimits(
                    redirects=sieve.max_redirects, vacation_min_seconds=sieve.vacation_min_days * DAY
                ),
                subaddress=configuration.smtp.subaddress,
                version=__version__,
            ),
            learned=Learned(self.bayes, configuration.filters.junk_score) if self.bayes is not None else None,
        )
        effects = Effects(
            self._accounts,
            lambda address: self.intake.resolve(address),
            self._send,
            EffectSettings(hostname=configuration.hostname),
            inbound=self.queue,
            outbound=relaying.outgoing if relaying is not None else None,
            bounce=Rejections(self._send, configuration.hostname),
            records=self._backend.records,
        )
        return Placer(self._accounts, sorter=sorter, effects=effects, tell=self.judging.tell)

    async def _send(
        self, cause: DeliveryId, action: str, recipient: str, octets: bytes, *, stream: str = ""
    ) -> None:
        await self.internal.submit(cause, action, recipient, octets, stream=stream)
