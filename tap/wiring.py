"""Putting the suite together: storage, accounts, logins, TLS, delivery, and a factory for each listener."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from twisted_mail.auth.passwords import PasswordParameters, PasswordVerifier
from twisted_mail.auth.service import AuthenticationService, load_secret
from twisted_mail.auth.submitters import Submitters
from twisted_mail.auth.tls import CertificateError, KeyPair, TLSContexts, self_signed
from twisted_mail.delivery import DeliveryCounts, MailIntake
from twisted_mail.delivery.internal import InternalMail
from twisted_mail.delivery.script_news import tell_of_scripts
from twisted_mail.delivery.worker import DeliveryWorker
from twisted_mail.imap.recent import Recents
from twisted_mail.imap.server import IMAPServerFactory
from twisted_mail.imap.settings import Settings as IMAPSettings
from twisted_mail.managesieve.server import ManageSieveServerFactory
from twisted_mail.pop3.server import POP3ServerFactory
from twisted_mail.pop3.settings import Settings as POP3Settings
from twisted_mail.queueing.limits import TooSlow, within
from twisted_mail.smtp.profiles import LMTP, MX, SUBMISSION
from twisted_mail.smtp.profiles import Limits as SMTPLimits
from twisted_mail.smtp.server import SMTPServerFactory
from twisted_mail.storage.interfaces import StorageError
from twisted_mail.tap.counting import delivery_metrics, engine_name, relay_metrics
from twisted_mail.tap.delivering import Delivering
from twisted_mail.tap.listeners import StartError
from twisted_mail.tap.masking import masked_in
from twisted_mail.tap.proxied import Trusted
from twisted_mail.tap.relaying import Relaying, resolver_of
from twisted_mail.tap.scripts import managesieve_settings, script_store
from twisted_mail.tap.service import Suite, prepare_data
from twisted_mail.tap.settings import Configuration, listeners_of
from twisted_mail.tap.status import Metric, Readiness
from twisted_mail.tap.stores import datacenter_of, open_stores
from twisted_mail.tap.sweeping import Sweeping, sweeper_of
from twisted_mail.tap.threads import Threads
from twisted_mail.values import AccountId

__all__ = ["Node", "assemble", "check", "imap_settings", "pop3_settings", "smtp_limits", "tls_contexts"]


LEAVE_SECONDS: Final = 15.0
"""How long the stores have to finish what is in flight, after the sessions have ended."""


@dataclass(frozen=True, slots=True)
class Node:
    """Which of the serving processes this is."""

    number: int
    """From 1."""
    of: int

    def name(self, configured: str) -> str:
        """Among the members: *configured*, and the number where there are several; else the machine's name (not
        `hostname`, which several machines may share) and the number."""
        if configured and self.of == 1:
            return configured
        return f"{configured or socket.gethostname()}-{self.number}"


def check(configuration: Configuration) -> None:
    """What a master looks at before it starts workers. Raises: StartError."""
    prepare_data(configuration.data)
    tls_contexts(configuration)


def tls_contexts(configuration: Configuration) -> TLSContexts:
    """The certificates that are configured, or the self-signed pair in the data folder. Raises: StartError."""
    tls = configuration.tls
    try:
        if tls.certificate is not None and tls.key is not None:
            first = KeyPair(tls.certificate, tls.key)
        else:
            first = self_signed(configuration.data / "tls", configuration.hostname)
        others = [KeyPair(each.certificate, each.key, each.names) for each in tls.sni]
        return TLSContexts([first, *others], minimum=tls.minimum)
    except CertificateError as error:
        raise StartError(f"tls: {error}") from None


def smtp_limits(configuration: Configuration) -> SMTPLimits:
    """The bounds of SMTP, submission and LMTP. Connections are counted by the gates, over all protocols."""
    smtp, limits = configuration.smtp, configuration.limits
    return SMTPLimits(
        message_bytes=limits.message_bytes,
        recipients=smtp.recipients,
        bad_commands=limits.bad_commands,
        refused_recipients=smtp.refused_recipients,
        strict_line_ends=smtp.strict_line_ends,
        command_seconds=smtp.command,
        data_seconds=smtp.data,
        login_seconds=limits.login,
        hold_seconds=int(configuration.relay.hold) if configuration.relay.enabled else 0,
    )


def imap_settings(configuration: Configuration) -> IMAPSettings:
    """The bounds and habits of IMAP. Connections are counted by the gates, over all protocols."""
    imap, limits = configuration.imap, configuration.limits
    return IMAPSettings(
        separator=imap.separator,
        message_bytes=limits.message_bytes,
        line_bytes=imap.line_bytes,
        literal_bytes=imap.literal_bytes,
        login_seconds=limits.login,
        idle_seconds=imap.idle,
        command_seconds=imap.command,
        bad_commands=limits.bad_commands,
        connections_per_address=0,
    )


def pop3_settings(configuration: Configuration) -> POP3Settings:
    """The bounds and habits of POP3."""
    pop3, limits = configuration.pop3, configuration.limits
    return POP3Settings(
        login_seconds=limits.login,
        idle_seconds=pop3.idle,
        login_delay_seconds=pop3.login_delay,
        bad_commands=limits.bad_commands,
        connections_per_address=0,
    )


class _Suite:
    """Everything of one process."""

    _log = Logger()

    def __init__(self, reactor: Any, configuration: Configuration, node: Node, checkers: Sequence[Any]) -> None:
        self._reactor = reactor
        self._configuration = configuration
        self._name = node.name(configuration.node)
        self._checkers = checkers
        self._stores = open_stores(reactor, configuration, self._name)
        sweeper = sweeper_of(self._stores.backend, reactor)
        self._sweeping = Sweeping(sweeper, reactor, configuration.storage.sweep)
        self._spool = Threads(reactor, configuration.threads.spool, "spool")
        self._counts = DeliveryCounts()
        self._delivering: Delivering | None = None
        self._worker: DeliveryWorker | None = None
        self._worker_ends: Deferred[None] | None = None
        self._threads = Threads(reactor, configuration.threads.passwords, "passwords")
        self._compiling = Threads(reactor, 1, "scripts")
        self._tls: TLSContexts | None = None
        self._recents = Recents(time.time())
        self._started = False
        self._factories: dict[str, Factory] = {}
        self._relaying: Relaying | None = None
        self._internal: InternalMail | None = None
        self._relay_ends: Deferred[None] | None = None

    async def start(self) -> Mapping[str, Factory]:
        """Open the stores, then build a factory for each listener that is configured. Raises: StartError."""
        configuration = self._configuration
        self._tls = tls_contexts(configuration)
        await self._stores.start()
        self._started = True
        authentication = self._authentication()
        intake = await self._intake()
        for name in listeners_of(configuration):
            if name == "http":
                self._factories[name] = self._site()
            elif name != "metrics":
                self._factories[name] = self._factory(name, authentication, intake)
        try:
            await self._stores.backend.members.join(
                self._name,
                frozenset(configuration.roles),
                self._stores.accounts.serve,
                datacenter_of(configuration),
            )
        except StorageError as error:
            # being a member makes things faster, nothing more
            self._log.warn("other nodes will not know of this one: {why}", why=error)
        if self._worker is not None:
            self._worker.start()
        if self._relaying is not None and self._internal is not None and "relay" in configuration.roles:
            self._relaying.start(self._internal)
        self._sweeping.start()
        return self._factories

    async def _intake(self) -> MailIntake:
        """Where mail goes in; the worker at the end of its queue, and what sends mail, if that is this node's."""
        configuration, backend = self._configuration, self._stores.backend
        delivering = self._delivering = Delivering(
            self._reactor,
            configuration,
            backend,
            self._stores.accounts,
            self._spool.defer,
            resolver_of(self._reactor, configuration),
            self._name,
            counts=self._counts,
            trouble=self._trouble,
        )
        if configuration.relay.enabled:
            self._relaying = Relaying(
                self._reactor,
                configuration,
                backend,
                delivering.bodies,
                delivering.spools,
                self._name,
                in_thread=self._threads.defer,
                trouble=lambda: self._trouble("queue"),
            )
            try:
                await self._relaying.prepare()
            except StorageError as error:
                raise StartError(f"storage: {masked_in(str(error), self._stores.urls)}") from None
        delivering.open(self._relaying)
        self._worker, self._internal = delivering.worker, delivering.internal
        return delivering.intake

    def _trouble(self, *stores: str) -> str | None:
        """What is the matter with the engines of *stores*, as far as they know; None: nothing."""
        backend = self._stores.backend
        for engine in backend.engines:
            if any(getattr(engine, store) is getattr(backend, store) for store in stores):
                if (trouble := engine.health()) is not None:
                    return trouble
        return None

    def _authentication(self) -> AuthenticationService:
        configuration, backend = self._configuration, self._stores.backend
        parameters = PasswordParameters(
            memory_kib=configuration.auth.argon2_memory // 1024, passes=configuration.auth.argon2_passes
        )
        try:
            secret = load_secret(configuration.data / "login-secret")
        except OSError as error:
            raise StartError(f"data: {error}") from None
        return AuthenticationService(
            backend.directory,
            backend.cache,
            PasswordVerifier(self._threads.defer, self._reactor, parameters),
            self._reactor,
            checkers=self._checkers,
            allow_cleartext=configuration.auth.allow_cleartext,
            failures_per_minute=configuration.auth.failures_per_minute,
            subaddress=configuration.smtp.subaddress,
            secret=secret,
        )

    def _scripts_changed(self, account: AccountId) -> None:
        """Here at once, and on other nodes as soon as they hear of it."""
        if self._delivering is not None:
            self._delivering.scripts.forget(account)
        tell_of_scripts(self._stores.backend.bus, account)

    def _factory(self, name: str, authentication: AuthenticationService, intake: MailIntake) -> Factory:
        hostname, clock, tls = self._configuration.hostname, self._reactor, self._tls
        from_the_start = name in ("submissions", "imaps", "pop3s")
        if name.startswith("imap"):
            return IMAPServerFactory(
                self._stores.accounts,
                authentication,
                imap_settings(self._configuration),
                tls,
                clock,
                hostname,
                implicit_tls=from_the_start,
                recents=self._recents,
            )
        if name.startswith("pop3"):
            return POP3ServerFactory(
                self._stores.accounts,
                authentication,
                pop3_settings(self._configuration),
                tls,
                clock,
                hostname,
                implicit_tls=from_the_start,
            )
        if name == "managesieve":
            scripts = script_store(
                self._configuration,
                self._stores.backend.directory,
                changed=self._scripts_changed,
                in_thread=self._compiling.defer,
            )
            return ManageSieveServerFactory(
                scripts, authentication, managesieve_settings(self._configuration), tls, clock, hostname
            )
        profile = {"smtp": MX, "lmtp": LMTP}.get(name, SUBMISSION)
        return SMTPServerFactory(
            profile,
            intake,
            authentication if profile.submission else None,
            smtp_limits(self._configuration),
            tls,
            clock,
            hostname,
            implicit_tls=from_the_start,
            trusted=Trusted(self._configuration.smtp.trusted),
            submitters=self._submitters(authentication),
        )

    def _submitters(self, authentication: AuthenticationService) -> Submitters | None:
        smtp = self._configuration.smtp
        if not smtp.submitters:
            return None
        fronts = Trusted(smtp.trusted)
        return Submitters(smtp.submitters, authentication, self._reactor.seconds, fronts=fronts)

    def _site(self) -> Factory:
        """What HTTP answers: the page for unsubscribing. Raises: StartError."""
        site = self._relaying.site() if self._relaying is not None else None
        if site is None:
            raise StartError("listen.http: there is nothing to serve without relay.unsubscribe")
        return site  # type: ignore[return-value]  # a factory of Twisted's own protocol

    def reload(self) -> None:
        """Read the certificates again."""
        if self._tls is not None:
            self._tls.reload()

    def readiness(self, state: str) -> Readiness:
        """See `tap.service.Suite`. An engine that has not been started yet is not down."""
        down = self._stores.backend.health() if self._started else {}
        words = {name: masked_in(trouble, self._stores.urls) for name, trouble in down.items()}
        return Readiness(self._name, self._configuration.roles, state, words)

    def metrics(self) -> Sequence[Metric]:
        """What this process has counted."""
        down = self._stores.backend.health() if self._started else {}
        names = sorted({engine_name(engine) for engine in self._stores.backend.engines})
        relay = relay_metrics(self._relaying.counts) if self._relaying is not None else ()
        judging = self._delivering.metrics() if self._delivering is not None else ()
        return [*delivery_metrics(self._counts, {name: name not in down for name in names}), *judging, *relay]

    def drain(self) -> None:
        """Every factory tells its sessions, and the worker leases no more."""
        if self._worker is not None:
            self._worker_ends = Deferred.fromCoroutine(self._worker.stop(self._configuration.process.drain))
            self._worker_ends.addErrback(lambda failure: self._log.failure("ending the delivery worker", failure))
        if self._relaying is not None:
            self._relay_ends = Deferred.fromCoroutine(self._relaying.stop(self._configuration.process.drain))
            self._relay_ends.addErrback(lambda failure: self._log.failure("ending the relay", failure))
        for factory in [factory for name, factory in self._factories.items() if name != "http"]:
            factory.drain()  # type: ignore[attr-defined]  # each of our servers has it

    async def stop(self) -> None:
        """Close the stores, if they were opened; before that the worker, if it has not been told to end."""
        if self._worker_ends is not None:
            await self._worker_ends
        elif self._worker is not None:
            await self._worker.stop(0.0)
        if self._relay_ends is not None:
            await self._relay_ends
        elif self._relaying is not None:
            await self._relaying.stop(0.0)
        if self._delivering is not None:
            await self._delivering.stop()
        await self._sweeping.stop()
        self._threads.stop()
        self._compiling.stop()
        self._spool.stop()
        if self._started:
            try:
                await within(self._reactor, LEAVE_SECONDS, self._leave())
            except TooSlow:
                self._log.warn("a store does not answer, so what was in flight is left as it is")

    async def _leave(self) -> None:
        try:
            await self._stores.backend.members.leave()
        finally:
            await self._stores.stop()


def assemble(reactor: Any, configuration: Configuration, node: Node, checkers: Sequence[Any]) -> Suite:
    """The suite of one process; nothing is opened yet. *checkers*: those of --auth. Raises: StartError."""
    return _Suite(reactor, configuration, node, checkers)
