"""From a host to a connection on which a message may be sent: connected, greeted, protected as is asked, logged in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime

from twisted_mail.relay.connections import Client, HandshakeFailed
from twisted_mail.relay.dialling import NotConnected, dial
from twisted_mail.relay.tls_contexts import ClientTLS
from twisted_mail.relay.values import Host, Protection, Result, Route, Source, Stage, TLSFailure, TLSMode, Verdict
from twisted_mail.smtp.client.conversation import Conversation, Event
from twisted_mail.smtp.client.login import choose
from twisted_mail.smtp.client.replies import Heard
from twisted_mail.tls_info import channel_bindings

__all__ = ["NotOpened", "Opening", "SendingSettings", "TLSNoted", "verdict_on", "where"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SendingSettings:
    """Time limits in seconds (RFC 5321 section 4.5.3.2 has the minimums) and bounds."""

    hostname: str
    """What EHLO says where a source has no name of its own."""
    connect_seconds: float = 30.0
    """For each address."""
    greeting_seconds: float = 300.0
    hello_seconds: float = 300.0
    tls_seconds: float = 60.0
    """For the handshake."""
    login_seconds: float = 120.0
    command_seconds: float = 300.0
    """For each reply to MAIL, RCPT and DATA."""
    block_seconds: float = 180.0
    """Until the server takes more of a message."""
    end_seconds: float = 600.0
    """For the reply to the end of a message."""
    opening_seconds: float = 900.0
    """From the greeting to the first MAIL, all together: against a server that answers, but never gets on."""
    transaction_seconds: float = 7200.0
    """For one message, all together."""
    leave_seconds: float = 5.0
    """For the reply to QUIT."""
    idle_seconds: float = 10.0
    """A connection waits so long for its next message."""
    idle_connections: int = 200
    """All together; 0: none is kept."""
    messages: int = 100
    """Transactions on one connection; what the server says in LIMITS (RFC 9422) can only be less."""
    attempts: int = 5
    """Connections opened for one parcel, to the hosts of its route together."""
    chunking: bool = True
    """BDAT (RFC 3030) where it is offered."""
    pipelining: bool = True
    """RFC 2920 where it is offered."""


class TLSNoted(Protocol):
    """Told how each attempt at TLS went, for reports (RFC 8460)."""

    def __call__(
        self, protection: Protection, host: Host, failure: TLSFailure | None, source: str, remote: str, detail: str
    ) -> None:
        """*failure* is None for a success; *source* and *remote* are addresses; *detail* is for people."""


class NotOpened(Exception):
    """There is no connection; `verdict` is for every recipient."""

    def __init__(self, verdict: Verdict, address: str = "") -> None:
        super().__init__(verdict.reply)
        self.verdict = verdict
        self.address = address
        """The server's, if it had come so far: another one may be tried."""


class _Cleartext(Exception):
    """TLS broke, and it does not matter: try again without (RFC 7435 section 3)."""


def verdict_on(heard: Heard, host: str, client: Client, *, dsn: bool = False) -> Verdict:
    """What *heard* is to the recipient it is about."""
    reply, stage = heard.reply, heard.stage
    if reply.code < 300 and stage is Stage.END:
        result = Result.DELIVERED
    elif reply.code < 500 or stage in _NEVER_FOR_GOOD:
        result = Result.TEMPORARY
    else:
        result = Result.PERMANENT
    return Verdict(
        result,
        reply.line,
        stage,
        host,
        client.source,
        client.protected,
        heard.about_connection,
        dsn,
        reply.remote,
        client.note,
    )


def where(host: Host, client: Client) -> str:
    """The server as a verdict names it."""
    return f"{host.name}[{client.address}]"


_NEVER_FOR_GOOD = (Stage.GREETING, Stage.HELLO, Stage.TLS, Stage.LOGIN)
"""Here 5yz is about us or the server, not about the message: it may go another way, or later."""


@dataclass(frozen=True, slots=True)
class _Way:
    """To where, and how."""

    route: Route
    host: Host
    addresses: tuple[str, ...]
    source: Source
    protection: Protection


class Opening:
    """Opens connections. *reactor*: IReactorTCP and IReactorUNIX; Any, as Twisted has no common type for them."""

    def __init__(
        self,
        reactor: Any,
        clock: IReactorTime,
        tls: ClientTLS,
        settings: SendingSettings,
        noted: TLSNoted | None = None,
    ) -> None:
        self._reactor = reactor
        self._clock = clock
        self._tls = tls
        self._settings = settings
        self._noted = noted

    async def open(
        self, route: Route, host: Host, addresses: tuple[str, ...], source: Source, protection: Protection
    ) -> Client:
        """A connection on which a message may be sent. Raises: NotOpened."""
        way = _Way(route, host, addresses, source, protection)
        try:
            return await self._open(way, clear=protection.mode is TLSMode.OFF)
        except _Cleartext as broken:
            client = await self._open(way, clear=True)
            client.note = f"sent in the clear, as TLS was offered but broken: {broken}"
            return client

    async def _open(self, way: _Way, *, clear: bool) -> Client:
        settings, route = self._settings, way.route
        implicit = self._tls.creator(way.protection, way.host.name) if route.implicit_tls else None

        def build(address: str) -> Client:
            conversation = Conversation(
                way.source.helo or settings.hostname,
                lmtp=route.lmtp,
                chunking=settings.chunking,
                pipelining=settings.pipelining,
            )
            return Client(conversation, self._clock, address, implicit)

        try:
            client = await dial(
                self._reactor,
                self._clock,
                way.addresses,
                way.host.port,
                build,
                bind=way.source.address,
                seconds=settings.connect_seconds,
            )
        except NotConnected as error:
            reply = f"421 4.4.1 {error}"
            raise NotOpened(
                Verdict(Result.TEMPORARY, reply, Stage.CONNECT, way.host.name, way.source.address or "",
                        about_connection=True, remote=False)
            ) from error  # fmt: skip
        opened = False
        try:
            client.limit(settings.opening_seconds)
            await self._greet(client, way, clear=clear)
            opened = True
        finally:
            if not opened:
                talk = client.conversation
                if talk.ended is not None and not talk.broken:
                    client.leave(settings.leave_seconds)
                else:
                    client.abort()
        return client

    async def _greet(self, client: Client, way: _Way, *, clear: bool) -> None:
        settings, route, protection = self._settings, way.route, way.protection
        talk = client.conversation
        if route.implicit_tls:
            await self._secured(client, way, client.handshaken(settings.tls_seconds))
        await self._ready(client, way, settings.greeting_seconds)
        if not (clear or client.tls):
            if talk.offers.starttls:
                talk.start_tls()
                await self._expect(client, way, Event.TLS, settings.command_seconds)
            if talk.offers.starttls and talk.tls_refusal is None:
                options = self._tls.creator(protection, way.host.name)
                await self._secured(client, way, client.handshake(options, settings.tls_seconds))
                await self._ready(client, way, settings.hello_seconds)
            else:
                refusal = talk.tls_refusal
                text = "The server does not offer TLS" if refusal is None else f"The server refused TLS: {refusal.line}"
                self._note(client, way, TLSFailure.STARTTLS_NOT_SUPPORTED, text)
                if protection.mode is not TLSMode.OPPORTUNISTIC:
                    raise self._failed(client, way, Stage.TLS, f"451 4.7.4 {text}")
        if protection.requiretls and not talk.offers.requiretls:
            raise self._failed(client, way, Stage.TLS, "550 5.7.30 The server does not offer REQUIRETLS")
        if route.login is not None:
            private = bool(client.tls) or protection.mode is TLSMode.OFF
            exchange = choose(
                talk.offers.auth,
                route.login.user,
                route.login.password,
                private=private,
                bindings=channel_bindings(client.handle) if client.tls else None,
            )
            if exchange is None:
                text = "451 4.7.0 The server offers no login that could be used" + ("" if private else " without TLS")
                raise self._failed(client, way, Stage.LOGIN, text)
            talk.log_in(exchange)
            await self._ready(client, way, settings.login_seconds)

    async def _ready(self, client: Client, way: _Way, seconds: float) -> None:
        await self._expect(client, way, Event.READY, seconds)

    async def _expect(self, client: Client, way: _Way, wanted: Event, seconds: float) -> None:
        """Wait for *wanted*, or for READY, which says that it is refused. Raises: NotOpened."""
        event = await client.event(seconds)
        ended = client.conversation.ended
        if event not in (wanted, Event.READY) or ended is not None:
            if ended is None:
                raise RuntimeError(f"{event} instead of {wanted}")
            raise NotOpened(verdict_on(ended, self._where(client, way), client), client.address)

    async def _secured(self, client: Client, way: _Way, handshake: Any) -> None:
        """Any: the coroutine that waits for the handshake. Raises: NotOpened, _Cleartext."""
        protection = way.protection
        try:
            await handshake
        except HandshakeFailed as error:
            text = f"TLS did not come about: {error}"
            self._note(client, way, TLSFailure.VALIDATION_FAILURE, text)
            if protection.mode is TLSMode.OPPORTUNISTIC and not way.route.implicit_tls:
                raise _Cleartext(str(error)) from error
            raise self._failed(client, way, Stage.TLS, f"451 4.7.5 {text}") from error
        fault = self._tls.fault(client.handle, protection)
        self._note(client, way, fault[0] if fault else None, fault[1] if fault else "")
        if fault is not None and not protection.testing:
            raise self._failed(client, way, Stage.TLS, f"451 4.7.5 {fault[1]}")
        client.protected = f"{client.tls}, {protection.why}" if protection.why else client.tls
        client.conversation.tls_started()

    def _failed(self, client: Client, way: _Way, stage: Stage, reply: str) -> NotOpened:
        result = Result.PERMANENT if reply.startswith("5") else Result.TEMPORARY
        host = self._where(client, way)
        verdict = Verdict(result, reply, stage, host, client.source, about_connection=True, remote=False)
        return NotOpened(verdict, client.address)

    def _note(self, client: Client, way: _Way, failure: TLSFailure | None, detail: str) -> None:
        if self._noted is not None:
            self._noted(way.protection, way.host, failure, client.source, client.address, detail)

    @staticmethod
    def _where(client: Client, way: _Way) -> str:
        return where(way.host, client)
