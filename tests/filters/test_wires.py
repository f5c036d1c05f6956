"""Connections to daemons: addresses, time limits, ends, and a daemon that does not read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.filters.milters import MilterOnASocket, ScriptedMilter, a_mail
from twisted_mail.filters import wires
from twisted_mail.filters.milter import Milter
from twisted_mail.filters.values import ACCEPTED, FilterDown
from twisted_mail.filters.wires import Place, Wire, dial

reactor: Any = _reactor


@pytest.mark.parametrize(
    ("text", "place", "shown"),
    [
        ("127.0.0.1:8891", Place("127.0.0.1", 8891), "127.0.0.1:8891"),
        ("inet:8891@127.0.0.1", Place("127.0.0.1", 8891), "127.0.0.1:8891"),
        ("inet:filter.example:8891", Place("filter.example", 8891), "filter.example:8891"),
        ("[::1]:10", Place("::1", 10), "[::1]:10"),
        ("inet6:10@::1", Place("::1", 10), "[::1]:10"),
        ("inet6:10@[::1]", Place("::1", 10), "[::1]:10"),
        ("unix:/run/x.sock", Place(path="/run/x.sock"), "unix:/run/x.sock"),
        ("local:/run/x.sock", Place(path="/run/x.sock"), "unix:/run/x.sock"),
    ],
)
def test_an_address_is_read_as_milters_and_postfix_write_it(text: str, place: Place, shown: str) -> None:
    assert Place.parse(text) == place
    assert str(place) == shown
    assert Place.parse(str(place)) == place


@pytest.mark.parametrize("text", ["", "8891", "host", "host:", "host:0", "host:70000", "unix:relative", "a b:1", "::1:80"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Place.parse(text)


class Pausing(StringTransport):
    """A transport whose peer is gone at once when it is told so."""

    def setTcpNoDelay(self, enabled: bool) -> None: ...


class WireTests(SynchronousTestCase):
    """Without a network, by a clock that is not real."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.stream = wires._Stream()
        self.transport = Pausing()
        self.stream.makeConnection(self.transport)
        self.wire = Wire(self.stream, self.clock)

    def started(self, work: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(work)

    def test_what_came_is_received_at_once_and_else_waited_for(self) -> None:
        self.stream.dataReceived(b"a")
        self.stream.dataReceived(b"b")
        self.assertEqual(self.successResultOf(self.started(self.wire.receive(1))), b"ab")
        waiting = self.started(self.wire.receive(1))
        self.assertNoResult(waiting)
        self.stream.dataReceived(b"c")
        self.assertEqual(self.successResultOf(waiting), b"c")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nobody_waits_longer_than_said(self) -> None:
        waiting = self.started(self.wire.receive(5))
        self.clock.advance(4.9)
        self.assertNoResult(waiting)
        self.clock.advance(0.2)
        self.assertIn("5 s", str(self.failureResultOf(waiting, FilterDown).value))
        self.assertTrue(self.wire.ended and self.transport.disconnected)

    def test_an_end_is_told_to_who_waits_and_who_comes_later(self) -> None:
        waiting = self.started(self.wire.receive(5))
        self.stream.connectionLost()
        self.failureResultOf(waiting, FilterDown)
        self.failureResultOf(self.started(self.wire.receive(5)), FilterDown)
        self.failureResultOf(self.started(self.wire.send(b"x", 5)), FilterDown)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_came_before_the_end_is_still_received(self) -> None:
        self.stream.dataReceived(b"last words")
        self.stream.connectionLost()
        self.assertEqual(self.successResultOf(self.started(self.wire.receive(5))), b"last words")

    def test_who_is_cancelled_leaves_no_connection_in_an_unknown_state(self) -> None:
        waiting = self.started(self.wire.receive(5))
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertTrue(self.wire.ended)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_daemon_that_does_not_read_is_waited_for(self) -> None:
        self.stream.pauseProducing()
        sending = self.started(self.wire.send(b"x" * 100, 5))
        self.assertNoResult(sending)
        self.stream.resumeProducing()
        self.successResultOf(sending)
        self.stream.pauseProducing()
        late = self.started(self.wire.send(b"x", 5))
        self.clock.advance(5)
        self.failureResultOf(late, FilterDown)

    def test_goodbye_is_not_said_to_who_does_not_listen(self) -> None:
        self.stream.pauseProducing()
        self.wire.close()
        self.assertTrue(self.transport.disconnected)
        self.assertTrue(self.wire.ended)

    def test_a_daemon_that_talks_without_being_asked_is_not_listened_to_for_ever(self) -> None:
        for _ in range(10):
            self.stream.dataReceived(b"x" * 65_536)
        self.assertEqual(self.transport.producerState, "paused")
        self.successResultOf(self.started(self.wire.receive(5)))
        self.assertEqual(self.transport.producerState, "producing")


class SocketTests(TestCase):
    """Real sockets."""

    timeout = 20

    async def listen(self, endpoint: Any, milter: ScriptedMilter) -> Any:
        factory: Any = Factory.forProtocol(MilterOnASocket)
        factory.milter = milter
        port = await endpoint.listen(factory)
        self.addCleanup(port.stopListening)
        return port

    async def conversed(self, place: Place) -> str:
        milter = ScriptedMilter()
        endpoint: Any = (
            UNIXServerEndpoint(reactor, place.path) if place.path else TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        )
        port = await self.listen(endpoint, milter)
        if not place.path:
            place = Place("127.0.0.1", port.getHost().port)
        asked = Milter(place, dial(reactor), "mx.example.net")
        mail = a_mail()
        self.assertEqual(await asked.rcpt(mail, mail.recipients.pop()), ACCEPTED)
        await asked.ended(mail)
        await asked.closed(mail.client)
        while "Q" not in milter.commands:
            await deferLater(reactor, 0.01)
        return milter.commands

    async def test_a_milter_is_reached_by_tcp(self) -> None:
        self.assertEqual(await self.conversed(Place()), "CHMRAQ")

    async def test_a_milter_is_reached_by_a_unix_socket(self) -> None:
        path = Path(self.mktemp()).absolute()
        self.assertEqual(await self.conversed(Place(path=str(path))), "CHMRAQ")

    async def test_nobody_there_is_down(self) -> None:
        for place in (Place("127.0.0.1", 1), Place(path="/does/not/exist")):
            with self.assertRaises(FilterDown):
                await dial(reactor)(place, 5.0)

    async def test_what_accepts_and_hangs_up_is_down(self) -> None:
        class HangsUp(Protocol):
            def connectionMade(self) -> None:
                self.transport.loseConnection()  # type: ignore[union-attr]  # connected

        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(HangsUp))
        self.addCleanup(port.stopListening)
        asked = Milter(Place("127.0.0.1", port.getHost().port), dial(reactor), "mx.example.net")
        with self.assertRaises(FilterDown):
            await asked.connect(a_mail().client)

    async def test_a_host_by_its_name_and_by_ipv6_is_reached_too(self) -> None:
        for interface, host in (("127.0.0.1", "localhost"), ("::1", "::1")):
            milter = ScriptedMilter()
            factory: Any = Factory.forProtocol(MilterOnASocket)
            factory.milter = milter
            try:
                port = reactor.listenTCP(0, factory, interface=interface)
            except CannotListenError:
                continue  # a machine without IPv6
            self.addCleanup(port.stopListening)
            asked = Milter(Place(host, port.getHost().port), dial(reactor), "mx.example.net")
            mail = a_mail()
            self.assertEqual(await asked.connect(mail.client), ACCEPTED)
            await asked.closed(mail.client)
            self.assertEqual(milter.commands[:1], "C")
