"""Putting the sending of mail together: the door of the outbound queue, and the worker behind it."""

from __future__ import annotations

import os
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twisted_mail.delivery import Bodies, SpoolFolder
from twisted_mail.delivery.internal import InternalMail
from twisted_mail.dns.resolver import Resolver, ResolverSettings
from twisted_mail.dns.servers import of_system, parse_server
from twisted_mail.dns.transport import Network
from twisted_mail.dns.values import DNS
from twisted_mail.queueing.leasing import LeaseSettings
from twisted_mail.relay.counts import RelayCounts
from twisted_mail.relay.dane import DANE
from twisted_mail.relay.departing import Departing
from twisted_mail.relay.destinations import DestinationSettings
from twisted_mail.relay.dkim_keys import DKIMKeys
from twisted_mail.relay.https import HTTPS, load_authorities
from twisted_mail.relay.intake import Outgoing
from twisted_mail.relay.journal import Journal
from twisted_mail.relay.leaving import Leaving
from twisted_mail.relay.mta_sts import MTASTS, MTASTSSettings
from twisted_mail.relay.opening import SendingSettings
from twisted_mail.relay.pools import Pools
from twisted_mail.relay.reporting import Reporting
from twisted_mail.relay.routing import Router, RoutingSettings
from twisted_mail.relay.schedule import Schedule
from twisted_mail.relay.sending import Sender
from twisted_mail.relay.signing import Signing, SigningSettings
from twisted_mail.relay.static_routes import StaticRoutes, parse_static_route
from twisted_mail.relay.suppression import Suppressions
from twisted_mail.relay.tls_contexts import ClientTLS
from twisted_mail.relay.tls_policy import Level, TLSPolicy
from twisted_mail.relay.worker import RelayWorker, WorkerSettings
from twisted_mail.storage import Backend
from twisted_mail.tap.listeners import StartError
from twisted_mail.tap.settings import Configuration

__all__ = ["Relaying", "leaving_of", "resolver_of"]

REVIEW_SECONDS = 10.0
"""Between two looks at how addresses stand."""


def leaving_of(configuration: Configuration) -> Leaving:
    """Streams, pools and plans; checked when the configuration was read."""
    relay = configuration.relay
    return Leaving.read(
        {"pools": relay.pools, "streams": relay.streams, "providers": relay.providers, "warm_up": relay.warm_up}
    )


def resolver_of(reactor: Any, configuration: Configuration) -> Resolver:
    """The resolver of this process. *reactor* provides IReactorTime, IReactorUDP and IReactorTCP. Raises: StartError."""
    dns = configuration.dns
    servers = tuple(parse_server(text) for text in dns.servers) or of_system()
    if not servers:
        raise StartError("dns.servers: none are named, and /etc/resolv.conf names none")
    return Resolver(Network(reactor), servers, reactor, ResolverSettings(dnssec=dns.dnssec))


class Relaying:
    """All of a process that has to do with mail for other domains."""

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
        self.counts = RelayCounts()
        self.leaving = leaving_of(configuration)
        self.journal = Journal(backend.records, node)
        self.pools: Pools = self.leaving.over(backend.records, backend.allowances)
        self.outgoing = Outgoing(
            backend.queue,
            bodies,
            spools,
            self.leaving.streams,
            self.journal,
            reactor,
            trouble=trouble,
        )
        self._in_thread = in_thread
        self._sender: Sender | None = None
        self._resolver: Resolver | None = None
        self.worker: RelayWorker | None = None
        self._reviewing: LoopingCall | None = None

    @property
    def dns(self) -> DNS:
        """Made when it is first asked for. Raises: StartError."""
        if self._resolver is None:
            self._resolver = resolver_of(self._reactor, self._configuration)
        return self._resolver

    def start(self, internal: InternalMail) -> None:
        """Begin to take items out of the queue. Raises: StartError."""
        configuration, reactor, backend = self._configuration, self._reactor, self._backend
        relay = configuration.relay
        authorities = _authorities()
        try:
            tls = ClientTLS(authorities)
            https = HTTPS(reactor, self.dns, load_authorities(authorities))
        except (OSError, ValueError) as error:
            raise StartError(f"the authorities that certificates must come from cannot be read: {error}") from None
        sender = self._sender = Sender(
            reactor,
            reactor,
            tls,
            SendingSettings(
                hostname=configuration.hostname,
                connect_seconds=relay.timeouts.connect,
                greeting_seconds=relay.timeouts.command,
                hello_seconds=relay.timeouts.command,
                command_seconds=relay.timeouts.command,
                end_seconds=relay.timeouts.data,
            ),
        )
        routes = StaticRoutes({name: parse_static_route(url) for name, url in relay.routes.items()})
        own = frozenset({configuration.hostname.lower()})
        router = Router(
            self.dns,
            routes,
            own_names=own,
            settings=RoutingSettings(port=relay.port, ipv6=relay.ipv6, refused=relay.refused),
            clock=reactor.seconds,
        )
        sts = MTASTS(self.dns, https, backend.records, reactor, MTASTSSettings(port=relay.mta_sts_port))
        policy = TLSPolicy(
            DANE(self.dns) if configuration.dns.dnssec else None, sts, Level(relay.tls)
        )
        signing = Signing(
            DKIMKeys(backend.records, defer=self._in_thread),
            SigningSettings(
                lifetime_seconds=int(configuration.signing.lifetime) or None, seal_domain=configuration.signing.seal
            ),
            dns=self.dns,
            defer=self._in_thread,
        )
        departing = Departing(signing, self.pools, Suppressions(backend.records))
        worker = self.worker = RelayWorker(
            backend.queue,
            self._bodies,
            router,
            policy,
            self.pools,
            sender,
            departing,
            Reporting(internal),
            self.journal,
            reactor,
            settings=WorkerSettings(
                lease=LeaseSettings(concurrent=relay.concurrent, lease_seconds=120, margin_seconds=20),
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
        if self._sender is not None:
            self._sender.close()


def _authorities() -> Path | None:
    """OpenSSL's own variable, which every program of the system goes by; None: the system's authorities."""
    named = os.environ.get(ssl.get_default_verify_paths().openssl_cafile_env)
    return Path(named) if named else None
