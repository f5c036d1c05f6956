"""HTTPS to hosts that other domains name: policies are fetched and reports are posted by it.

One request for each connection, addresses from our own resolver, a certificate that is checked, no redirects, limits on
size and time. Nothing is sent in the clear.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from OpenSSL import SSL, crypto
from twisted.internet import error as twisted_error
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IConsumer, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import Certificate, optionsForClientTLS, platformTrust, trustRootFromCertificates
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    Agent,
    HTTPConnectionPool,
    ResponseDone,
    ResponseFailed,
    ResponseNeverReceived,
    _HTTP11ClientFactory,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer
from zope.interface import implementer

from twisted_mail.dns.names import BadName, a_labels, is_host_name
from twisted_mail.dns.values import DNS, Answer, DNSFailure, NoSuchName
from twisted_mail.relay.routing import together

__all__ = ["HTTPS", "Authorities", "HTTPFailure", "HTTPResponse", "UntrustedServer", "load_authorities"]

_ADDRESSES: Final = 4
_HEAD_OCTETS: Final = 65_536
"""For a response's status line and header fields; chunks may double a body."""
_AGENT: Final = b"twisted-mail-suite"


class HTTPFailure(Exception):
    """No response that can be used; the text says why, in a line."""


class UntrustedServer(HTTPFailure):
    """TLS failed: the certificate is for somebody else, has run out, or nobody trusted has signed it."""


@dataclass(frozen=True, slots=True)
class HTTPResponse:
    status: int
    type: str
    """The media type, lower case, without parameters."""
    body: bytes


class Authorities:
    """Whom certificates of web servers must come from."""

    def __init__(self, root: Any) -> None:
        """*root* provides Twisted's IOpenSSLTrustRoot."""
        self.root = root


def load_authorities(file: Path | None) -> Authorities:
    """The certificates in a PEM *file*, or the system's. Raises OSError, ValueError."""
    if file is None:
        return Authorities(platformTrust())
    blocks = file.read_bytes().split(b"-----BEGIN CERTIFICATE-----")[1:]
    if not blocks:
        raise ValueError(f"{file}: there is no certificate in it")
    try:
        return Authorities(
            trustRootFromCertificates([Certificate.loadPEM(b"-----BEGIN CERTIFICATE-----" + block) for block in blocks])
        )
    except (SSL.Error, crypto.Error) as trouble:
        raise ValueError(f"{file}: a certificate cannot be read") from trouble


class HTTPS:
    """A client. Every request ends within its time limit, whatever the server does."""

    def __init__(self, reactor: Any, dns: DNS, authorities: Authorities, *, connect_seconds: float = 5.0) -> None:
        """*reactor* provides IReactorTime and IReactorTCP. *connect_seconds* is for each of a host's addresses."""
        self._reactor = reactor
        self._dns = dns
        self._authorities = authorities
        self._connect_seconds = connect_seconds

    async def get(self, host: str, path: str, *, port: int, seconds: float, octets: int) -> HTTPResponse:
        """*port* is where the host is asked; its name for the certificate and the request is *host* alone.

        Raises HTTPFailure: no answer in *seconds*, a body above *octets*, and everything else.
        """
        return await self._limited(self._request(b"GET", f"https://{host}{path}", port, octets, {}, None), seconds)

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], *, seconds: float, octets: int = 65_536
    ) -> HTTPResponse:
        """*url* is an ``https:`` one. Raises HTTPFailure, as `get` does."""
        return await self._limited(self._request(b"POST", url, None, octets, headers, body), seconds)

    async def _limited(self, request: Any, seconds: float) -> HTTPResponse:
        waiting: Deferred[HTTPResponse] = Deferred.fromCoroutine(request)
        late: list[bool] = []

        def give_up() -> None:
            late.append(True)
            waiting.cancel()

        call = self._reactor.callLater(seconds, give_up)
        try:
            return await waiting
        except CancelledError:
            if not late:
                waiting.cancel()
                raise
            raise HTTPFailure(f"no response within {seconds:g} s") from None
        except HTTPFailure:
            if late:  # what the agent made of being cancelled
                raise HTTPFailure(f"no response within {seconds:g} s") from None
            raise
        finally:
            if call.active():
                call.cancel()

    async def _request(
        self, method: bytes, url: str, port: int | None, most: int, headers: Mapping[str, str], body: bytes | None
    ) -> HTTPResponse:
        host, port_of_url = _host_and_port(url)
        places = await self._places(host)
        sent = Headers({b"User-Agent": [_AGENT]})
        for name, value in headers.items():
            sent.setRawHeaders(name, [value])
        finder = _Places(
            self._reactor, places, port or port_of_url, self._authorities, self._connect_seconds, 2 * most + _HEAD_OCTETS
        )
        pool = HTTPConnectionPool(self._reactor, persistent=False)
        pool._factory = _QuietFactory
        agent = Agent.usingEndpointFactory(self._reactor, finder, pool=pool)
        try:
            response = await agent.request(
                method, url.encode("ascii"), sent, None if body is None else _Whole(body)
            )
        except CancelledError:
            raise
        except Exception as trouble:
            raise _failure(trouble) from trouble
        collected = _Body(most)
        response.deliverBody(collected)
        text = await collected.whole
        type = (response.headers.getRawHeaders("content-type") or [""])[0]
        return HTTPResponse(response.code, type.partition(";")[0].strip().lower(), text)

    async def _places(self, host: str) -> tuple[str, ...]:
        """The host's addresses, families in turn."""
        answers = await together([self._dns.aaaa(host), self._dns.a(host)])
        families = [list(answer.records) for answer in answers if isinstance(answer, Answer)]
        found = [address for pair in _in_turn(families) for address in pair]
        if found:
            return tuple(found[:_ADDRESSES])
        for answer in answers:
            if isinstance(answer, DNSFailure):
                raise HTTPFailure(f"the DNS does not answer for {host}")
            if isinstance(answer, Exception) and not isinstance(answer, NoSuchName):
                raise answer
        raise HTTPFailure(f"{host} has no address")


def _in_turn(families: list[list[str]]) -> list[list[str]]:
    longest = max(map(len, families), default=0)
    return [[family[index] for family in families if index < len(family)] for index in range(longest)]


def _host_and_port(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 443
        if parts.scheme != "https" or parts.username or parts.password or not url.isascii() or not url.isprintable():
            raise ValueError
        host = a_labels(host)
        if not is_host_name(host) or " " in url:
            raise ValueError
    except (ValueError, BadName):
        raise HTTPFailure("it is not the URL of an HTTPS server") from None
    return host, port


def _failure(trouble: Exception) -> HTTPFailure:
    """What a failed request means to us."""
    reasons: list[Any] = [trouble]
    if isinstance(trouble, (ResponseFailed, ResponseNeverReceived)):
        reasons += [reason.value for reason in trouble.reasons]
    for reason in reasons:
        if isinstance(reason, SSL.Error) or type(reason).__module__.startswith("service_identity"):
            return UntrustedServer(f"TLS failed: {_words(reason)}")
    return HTTPFailure(_words(reasons[-1]))


def _words(reason: Any) -> str:
    """One line about an exception, of a bounded length."""
    if isinstance(reason, SSL.Error) and reason.args and reason.args[0]:
        entry = reason.args[0][-1]
        return str(entry[-1])[:200]
    return " ".join(f"{type(reason).__name__}: {reason}".split())[:200]


class _QuietFactory(_HTTP11ClientFactory):
    """Without two lines in the log for each request; Twisted has no public way to say so."""

    noisy = False


@implementer(IBodyProducer)
class _Whole:
    """A request's body, small and in memory."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self.length = len(octets)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._octets)
        return succeed(None)

    def pauseProducing(self) -> None:
        """All of it is written already."""

    def resumeProducing(self) -> None:
        """Likewise."""

    def stopProducing(self) -> None:
        """Likewise."""


class _Body(Protocol):
    """Collects a response's body, and hangs up when there is too much."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._octets = bytearray()
        self.whole: Deferred[bytes] = Deferred(lambda _: self._abort())

    def dataReceived(self, data: bytes) -> None:
        self._octets += data
        if len(self._octets) > self._most:
            self._octets.clear()
            self._fail(HTTPFailure(f"a body of more than {self._most} octets"))
            self._abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.whole.called:
            if reason.check(ResponseDone, PotentialDataLoss):  # the latter: a body without a length, ended by TLS
                self.whole.callback(bytes(self._octets))
            else:
                self._fail(HTTPFailure("the body was cut off"))

    def _fail(self, why: HTTPFailure) -> None:
        if not self.whole.called:
            self.whole.errback(why)

    def _abort(self) -> None:
        transport: Any = self.transport
        if transport is not None and hasattr(transport, "abortConnection"):
            transport.abortConnection()
        elif transport is not None:
            transport.loseConnection()


@implementer(IStreamClientEndpoint)
class _OneOf:
    """The first address that takes a connection."""

    def __init__(self, endpoints: list[Any], octets: int) -> None:
        self._endpoints = endpoints
        self._octets = octets

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        return Deferred.fromCoroutine(self._connect(factory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        trouble: Exception = twisted_error.ConnectError(string="no address")
        for endpoint in self._endpoints:
            try:
                protocol: Any = await endpoint.connect(factory)
                self._bound(protocol)
                return protocol  # type: ignore[no-any-return]  # what the factory made
            except CancelledError:
                raise
            except Exception as error:
                trouble = error
        raise trouble

    def _bound(self, protocol: Any) -> None:
        """Hang up when more comes than any response of ours has, header fields included, which nobody else bounds."""
        received, pass_on = 0, protocol.dataReceived

        def counted(data: bytes) -> None:
            nonlocal received
            received += len(data)
            if received > self._octets:
                protocol.transport.abortConnection()
            else:
                pass_on(data)

        protocol.dataReceived = counted


@implementer(IAgentEndpointFactory)
class _Places:
    """Where the agent connects to: known addresses and a port, with TLS for the URL's name."""

    def __init__(
        self, reactor: Any, places: tuple[str, ...], port: int, authorities: Authorities, seconds: float, octets: int
    ) -> None:
        self._reactor = reactor
        self._octets = octets
        self._places = places
        self._port = port
        self._authorities = authorities
        self._seconds = seconds

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        options = optionsForClientTLS(uri.host.decode("ascii"), trustRoot=self._authorities.root)
        found = []
        for place in self._places:
            kind = TCP6ClientEndpoint if ":" in place else TCP4ClientEndpoint
            found.append(wrapClientTLS(options, kind(self._reactor, place, self._port, timeout=self._seconds)))
        return _OneOf(found, self._octets)

