"""Putting the sending of mail together: the door of the outbound queue, and the worker behind it."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.web.server import Site

from twisted_mail.delivery import Bodies, SpoolFolder
from twisted_mail.delivery.bodies import Body
from twisted_mail.delivery.internal import InternalMail
from twisted_mail.dns.resolver import Resolver, ResolverSettings
from twisted_mail.dns.servers import of_system, parse_server
from twisted_mail.dns.transport import Network
from twisted_mail.queueing.leasing import LeaseSettings
from twisted_mail.relay.bounces import Bounces, BounceSettings
from twisted_mail.relay.counts import RelayCounts
from twisted_mail.relay.dane import DANE
from twisted_mail.relay.departing import Departing
from twisted_mail.relay.destinations import DestinationSettings
from twisted_mail.relay.dkim_keys import DKIMKeys
from twisted_mail.relay.feedback import DailyCounts, Feedback, Known
from twisted_mail.relay.https import HTTPS, load_authorities
from twisted_mail.relay.intake import Outgoing
from twisted_mail.relay.items import Outbound
from twisted_mail.relay.journal import Journal
from twisted_mail.relay.leaving import Leaving
from twisted_mail.relay.mta_sts import MTASTS, MTASTSSettings
from twisted_mail.relay.opening import SendingSettings
from twisted_mail.relay.own_addresses import OwnAddresses
from twisted_mail.relay.pools import Pools
from twisted_mail.relay.returning import Returning
from twisted_mail.relay.rewriting import SRS, VERP, ReturnPaths
from twisted_mail.relay.routing import Router, RoutingSettings
from twisted_mail.relay.schedule import Schedule
from twisted_mail.relay.secrets import shared_secret
from twisted_mail.relay.sending import Sender
from twisted_mail.relay.signing import Signing, SigningSettings
from twisted_mail.relay.static_routes import StaticRoutes, parse_static_route
from twisted_mail.relay.suppression import Suppressions, kept_for
from twisted_mail.relay.tls_contexts import ClientTLS
from twisted_mail.relay.tls_policy import Level, TLSPolicy
from twisted_mail.relay.tls_received import ReceivedTLSReports
from twisted_mail.relay.tls_reports import TLSReports, TLSReportSettings
from twisted_mail.relay.unsubscribe import Unsubscribing, Unsubscription
from twisted_mail.relay.unsubscribe_page import unsubscribe_site, unsubscriber
from twisted_mail.relay.worker import RelayWorker, WorkerSettings, body_of
from twisted_mail.storage import Backend
from twisted_mail.storage.interfaces import QueueItem
from twisted_mail.tap.listeners import StartError
from twisted_mail.tap.reporting import report_readers
from twisted_mail.tap.settings import Configuration
from twisted_mail.values import DeliveryId

__all__ = ["Relaying", "leaving_of", "resolver_of"]

REVIEW_SECONDS: Final = 10.0
"""Between two looks at how addresses stand."""


def leaving_of(configuration: Configuration) -> Leaving:
    """Streams, pools and plans; checked when the configuration was read."""
    relay = configuration.relay
    return Leaving.read(
        {"pools": relay.pools, "streams": relay.streams, "providers": relay.providers, "warm_up": relay.warm_up}
    )


def resolver_of(reactor: Any, configuration: Configuration) -> Resolver:
    """The resolver of this process. *reactor* provides IReactorTime, IReactorUDP and IReactorTCP.

    Where nobody names a name server, the one on this machine is meant, as resolv.conf(5) has it.
    """
    dns = configuration.dns
    servers = tuple(parse_server(text) for text in dns.servers) or of_system() or (parse_server("127.0.0.1"),)
    return Resolver(Network(reactor), servers, reactor, ResolverSettings(dnssec=dns.dnssec))


class Relaying:
    """All of a process that has to do with mail for other domains: `prepare` it, and `start` it where the role is."""

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        configuration: Configuration,
        backend: Backend,
        bodies: Bodies,
        spools: SpoolFolder,
        node: str,
        *,
        in_thread: Callable[..., Awaitable[Any]],
        trouble: Callable[[], str | None],
    ) -> None:
        # reactor provides what resolver, connections and timers need
        self._reactor = reactor
        self._configuration = configuration
        self._backend = backend
        self._bodies = bodies
        self._node = node
        self._in_thread = in_thread
        self.counts = RelayCounts()
        self.leaving = leaving_of(configuration)
        self.journal = Journal(backend.records, node)
        self.pools: Pools = self.leaving.over(backend.records, backend.allowances)
        self.suppressions = Suppressions(backend.records)
        self.outgoing = Outgoing(
            backend.queue, bodies, spools, self.leaving.streams, self.journal, reactor, trouble=trouble
        )
        self.unsubscribing: Unsubscribing | None = None
        self.returning: Returning | None = None
        self.worker: RelayWorker | None = None
        self._sender: Sender | None = None
        self._tls_reports: TLSReports | None = None
        self._reviewing: LoopingCall | None = None

    async def _is_local(self, domain: str) -> bool:
        return await self._backend.directory.domain(domain) is not None

    async def prepare(self) -> None:
        """Once the stores are open: secrets that all nodes share, and what is made with them. Raises: StorageError."""
        backend, relay, signing = self._backend, self._configuration.relay, self._configuration.signing
        secret = await shared_secret(backend.records, backend.leases, "return-paths")
        paths = ReturnPaths([secret], records=backend.records)
        srs = SRS(paths, signing.srs.lower(), self._is_local) if signing.srs else None
        verp = VERP(paths)
        if relay.unsubscribe:
            self.unsubscribing = Unsubscribing([secret], relay.unsubscribe)

        def known(token: str) -> Known | None:
            who = self.unsubscribing.read(token) if self.unsubscribing is not None else None
            return None if who is None else Known(who.sender_domain, who.recipient, stream=who.stream)

        def complained(source: str, recipient: str) -> None:
            self.pools.complained(source, recipient.rpartition("@")[2], self.outgoing.wall())

        async def rewrite(sender: str, recipient: str, stream: str) -> str:
            if not stream:
                return await srs.forward(sender) if srs is not None else sender
            found = self.leaving.streams.named(stream)
            domain = sender.rpartition("@")[2].lower()
            if found is not None and found.one_click and await self._is_local(domain):
                return await verp.encode(domain, recipient)
            return sender

        self.outgoing.rewrite = rewrite
        settings = self.suppressions.settings
        self.returning = Returning(
            srs=srs,
            feedback=Feedback(
                verp,
                self.suppressions.add,
                DailyCounts(backend.allowances),
                kept_for=lambda reply: kept_for(reply, settings),
                complaints=[address.lower() for address in relay.complaints],
                token=known,
                complained=complained,
            ),
            tls=ReceivedTLSReports(backend.records, self._is_local),
            tls_addresses=[relay.tls_reports] if relay.tls_reports else [],
            readers=report_readers(self._configuration, backend, self._is_local, self._in_thread),
        )

    def site(self) -> Site | None:
        """The page that links for unsubscribing lead to; None: there are no links."""
        if self.unsubscribing is None:
            return None
        path = urlsplit(self._configuration.relay.unsubscribe).path.strip("/").encode() or b"unsubscribe"
        return unsubscribe_site(self.unsubscribing, unsubscriber(self.suppressions), self._reactor, path)

    # --- the worker

    def start(self, internal: InternalMail) -> None:
        """Begin to take items out of the queue. Raises: StartError."""
        configuration, relay, reactor = self._configuration, self._configuration.relay, self._reactor
        dns = resolver_of(reactor, configuration)
        authorities = _authorities()
        try:
            tls = ClientTLS(authorities)
            https = HTTPS(reactor, dns, load_authorities(authorities))
        except (OSError, ValueError) as error:
            raise StartError(f"the authorities that certificates must come from cannot be read: {error}") from None
        # always there, since policies are noted by it; it only tells others where it is to
        reports = TLSReports(
            dns,
            self._backend.records,
            reactor,
            self._submit_report,
            TLSReportSettings(
                organization=configuration.hostname, submitter=configuration.hostname, contact=relay.tls_reports
            ),
            node=self._node,
            https=https,
            leases=self._backend.leases,
        )
        if relay.tls_reports:
            self._tls_reports = reports
            reports.start()
        timeouts = relay.timeouts
        sender = self._sender = Sender(
            reactor,
            reactor,
            tls,
            SendingSettings(
                hostname=configuration.hostname,
                connect_seconds=timeouts.connect,
                greeting_seconds=timeouts.command,
                hello_seconds=timeouts.command,
                command_seconds=timeouts.command,
                end_seconds=timeouts.data,
            ),
            noted=reports.noted if relay.tls_reports else None,
        )
        policies = TLSPolicy(
            DANE(dns) if configuration.dns.dnssec else None,
            MTASTS(
                dns,
                https,
                self._backend.records,
                reactor,
                MTASTSSettings(port=relay.mta_sts_port),
                failed=reports.no_policy if relay.tls_reports else lambda domain, failure, why: None,
            ),
            Level(relay.tls),
        )
        router = Router(
            dns,
            StaticRoutes({name: parse_static_route(url) for name, url in relay.routes.items()}),
            own_names=frozenset({configuration.hostname.lower()}),
            is_own=OwnAddresses(_listening(configuration)),
            settings=RoutingSettings(port=relay.port, ipv6=relay.ipv6, refused=relay.refused),
            clock=reactor.seconds,
        )
        signing = Signing(
            DKIMKeys(self._backend.records, defer=self._in_thread),
            SigningSettings(
                lifetime_seconds=int(configuration.signing.lifetime) or None, seal_domain=configuration.signing.seal
            ),
            dns=dns,
        )
        worker = self.worker = RelayWorker(
            self._backend.queue,
            self._bodies,
            router,
            policies,
            self.pools,
            sender,
            Departing(
                signing,
                self.pools,
                self.suppressions,
                unsubscribe=self._unsubscribe,
                results=lambda outbound: outbound.results or f"{configuration.hostname}; none",
            ),
            Bounces(
                internal.submit,
                self._open,
                BounceSettings(hostname=configuration.hostname),
                verified=lambda outbound: outbound.verified,
            ),
            self.journal,
            reactor,
            settings=WorkerSettings(
                lease=LeaseSettings(
                    concurrent=relay.concurrent,
                    slow=2 * relay.concurrent,
                    lease_seconds=relay.lease,
                    margin_seconds=relay.lease / 6,
                ),
                schedule=Schedule(retry=relay.retry, warn=relay.warn, expire=relay.expire),
                destinations=DestinationSettings(
                    connections=relay.connections,
                    first=min(3, relay.connections),
                    waiting=max(relay.concurrent * 2 // 5, 1),
                    strangers=max(relay.concurrent // 4, 1),
                ),
            ),
            counts=self.counts,
        )
        self.outgoing.wake(worker.wake)
        worker.start()
        self._reviewing = LoopingCall(self._review)
        self._reviewing.clock = reactor
        self._reviewing.start(REVIEW_SECONDS, now=False)

    async def _submit_report(self, message: bytes, recipient: str) -> None:
        # signed, as RFC 8460 section 5.3 wants it, hence with a sender of ours
        contact = self._configuration.relay.tls_reports
        await self.outgoing.submit(DeliveryId.new(), "report", recipient, message, sender=contact)

    def _open(self, item: QueueItem, outbound: Outbound) -> AsyncIterator[bytes]:
        return self._bodies.open(Body(outbound.place, body_of(item, outbound).ref))

    def _unsubscribe(self, outbound: Outbound, header: bytes) -> bytes:
        """Fields for one-click unsubscribe, where they are wanted and missing."""
        if self.unsubscribing is None or not outbound.sender_domain:
            return b""
        who = Unsubscription(outbound.sender_domain, outbound.address, outbound.stream)
        return self.unsubscribing.fields(header, who)

    def _review(self) -> Deferred[None]:
        async def review() -> None:
            try:
                await self.pools.plans.review(self.outgoing.wall(), self.pools.warming())
            except Exception as error:
                self._log.warn("how our addresses stand cannot be looked at: {why!r}", why=error)

        return Deferred.fromCoroutine(review())

    async def stop(self, seconds: float) -> None:
        """Lease nothing more, give conversations *seconds*, end all connections."""
        if self._reviewing is not None and self._reviewing.running:
            self._reviewing.stop()
        if self.worker is not None:
            await self.worker.stop(seconds)
            await self._review()  # what was heard since the last time is written down
        if self._tls_reports is not None:
            await self._tls_reports.stop()
        if self._sender is not None:
            self._sender.close()


def _listening(configuration: Configuration) -> list[str]:
    """Addresses at which other servers find this one, as far as the listeners say."""
    found = []
    for text in configuration.listen.smtp:
        kind, _, rest = text.partition(":")
        port = rest.partition(":")[0]
        # behind a firewall another port may be led here from 25
        if kind in ("tcp", "tcp6") and (port == str(configuration.relay.port) or configuration.relay.port == 25):
            interface = re.search(r"interface=((?:[^:\\]|\\.)*)", rest)
            everywhere = "::" if kind == "tcp6" else "0.0.0.0"
            found.append(interface[1].replace("\\", "") if interface else everywhere)
    return [each for each in found if _is_address(each)]


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _authorities() -> Path | None:
    """OpenSSL's own variable, which every program of the system goes by; None: the system's authorities."""
    named = os.environ.get(ssl.get_default_verify_paths().openssl_cafile_env)
    return Path(named) if named else None
