"""Connections on the process's own loop, against a socket that the test holds the other end of."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Any, ClassVar

from cassandra.connection import ConnectionShutdown
from cassandra.protocol import OptionsMessage, ReadyMessage
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.storage.cql.cluster import ClusterCase
from twisted_mail.storage.cql.connection import LoopConnection, loop_of, on_loop
from twisted_mail.storage.cql.flights import LOOK_SECONDS, Flights
from twisted_mail.storage.cql.session import ClusterSession
from twisted_mail.storage.cql.statements import Statement
from twisted_mail.storage.testing.base import Suite


def here() -> asyncio.AbstractEventLoop:
    from twisted.internet import reactor

    loop = loop_of(reactor)
    assert loop is not None
    return loop


def frame(stream: int, operation: int) -> bytes:
    """An answer of protocol version 4 without a body."""
    return bytes((0x84, 0)) + stream.to_bytes(2, "big", signed=True) + bytes((operation,)) + bytes(4)


READY = 2
"""The operation of an answer without a body."""


class Pair(LoopConnection):
    """Whose socket is one end of a pair."""

    other: ClassVar[socket.socket]

    def _connect_socket(self) -> None:
        self._socket, type(self).other = socket.socketpair()

    def _send_options_message(self) -> None:
        """The greeting is not what is tested."""


class LoopConnectionTests(Suite, TestCase):
    timeout = 20

    def setUp(self) -> None:
        kind: Any = type("Pair", (Pair,), {"loop": here(), "thread": threading.get_ident()})
        self.connection: Any = kind("127.0.0.1", protocol_version=4)
        self.server: socket.socket = kind.other
        self.server.setblocking(False)
        self.addCleanup(self.server.close)
        self.addCleanup(self.connection.close)
        self.answers: list[tuple[Any, int]] = []
        self.got = bytearray()

    def ask(self, stream: int) -> None:
        self.connection.send_msg(OptionsMessage(), stream, lambda a: self.answers.append((a, threading.get_ident())))

    async def until(self, holds: Any) -> None:
        from twisted.internet import reactor

        while not holds():
            await deferLater(reactor, 0.001, lambda: None)

    def sent(self) -> bytearray:
        """All that has come to the other end."""
        with contextlib.suppress(BlockingIOError):
            self.got += self.server.recv(1 << 20)
        return self.got

    async def test_a_request_is_sent_at_once_and_its_answer_given_in_this_thread(self) -> None:
        self.ask(1)
        self.assertEqual(self.sent()[:5], bytes((4, 0, 0, 1, 5)))
        self.ask(2)
        answers = frame(2, READY) + frame(1, READY)
        self.server.send(answers[:13])
        await self.until(lambda: self.answers)
        self.assertEqual(len(self.answers), 1, "the other has not come whole")
        self.server.send(answers[13:])
        await self.until(lambda: len(self.answers) == 2)
        for answer, thread in self.answers:
            self.assertEqual(type(answer), ReadyMessage)
            self.assertEqual(thread, threading.get_ident())

    async def test_another_thread_may_ask(self) -> None:
        await deferToThread(self.ask, 3)
        await self.until(self.sent)
        self.assertEqual(self.got[:5], bytes((4, 0, 0, 3, 5)))

    async def test_what_the_socket_does_not_take_follows_in_order(self) -> None:
        pieces = [bytes([number]) * 300_000 for number in range(6)]
        for piece in pieces:
            self.connection.push(piece)
        await self.until(lambda: len(self.sent()) == 1_800_000)
        self.assertTrue(self.got == b"".join(pieces))
        self.connection.push(b"more")
        await self.until(lambda: self.sent().endswith(b"more"))

    async def test_who_waits_is_told_when_the_other_end_goes(self) -> None:
        self.ask(1)
        self.server.close()
        await self.until(lambda: self.answers)
        self.assertEqual(type(self.answers[0][0]), ConnectionShutdown)
        self.assertTrue(self.connection.is_closed)

    async def test_a_failure_to_send_is_told_after_the_call_that_sent(self) -> None:
        self.server.close()
        self.ask(1)
        self.assertEqual(self.answers, [])
        await self.until(lambda: self.answers)
        self.assertEqual(type(self.answers[0][0]), ConnectionShutdown)

    async def test_timers_of_the_driver_are_kept_and_may_be_cancelled_elsewhere(self) -> None:
        rung: list[int] = []
        kept = self.connection.create_timer(0.001, lambda: rung.append(1))
        lost = self.connection.create_timer(60.0, lambda: rung.append(2))
        await deferToThread(lost.cancel)
        lost.end()  # its time has come
        await self.until(lambda: rung)
        self.assertEqual(rung, [1])
        kept.cancel()


class Future:
    """One of the driver's."""

    def __init__(self) -> None:
        self.given_up = 0
        self.asked_again = 0

    def _on_timeout(self) -> None:
        self.given_up += 1

    def send_request(self, error_no_hosts: bool) -> None:
        assert not error_no_hosts
        self.asked_again += 1


class FakeLoop:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[tuple[float, Any]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, call: Any) -> object:
        self.calls.append((self.now + seconds, call))
        return call

    def advance(self, seconds: float) -> None:
        ends = self.now + seconds
        while due := [each for each in self.calls if each[0] <= ends + 1e-9]:
            self.calls.remove(due[0])
            self.now = due[0][0]
            due[0][1]()
        self.now = ends


class FlightsTests(Suite, TestCase):
    def setUp(self) -> None:
        self.loop = FakeLoop()
        loop: Any = self.loop
        self.flights = Flights(loop)

    def test_what_is_not_answered_in_time_is_given_up_once(self) -> None:
        late, answered = Future(), Future()
        self.flights.add(late, 1.0, None)
        self.flights.add(answered, 1.0, None)
        self.flights.landed(answered)
        self.loop.advance(0.9)
        self.assertEqual(late.given_up, 0)
        self.loop.advance(0.1 + LOOK_SECONDS)
        self.loop.advance(5)
        self.assertEqual((late.given_up, late.asked_again, answered.given_up), (1, 0, 0))
        self.assertEqual(self.loop.calls, [], "nobody looks while nothing is under way")

    def test_another_node_is_asked_as_often_as_may_be(self) -> None:
        one, two = Future(), Future()
        self.flights.add(one, 5.0, (1.5, 1))
        self.flights.add(two, 5.0, (0.3, 2))
        self.loop.advance(0.3 + LOOK_SECONDS)
        self.assertEqual((one.asked_again, two.asked_again), (0, 1))
        self.loop.advance(3.0)
        self.assertEqual((one.asked_again, two.asked_again), (1, 2))
        self.flights.landed(one)
        self.loop.advance(5.0)
        self.assertEqual((one.given_up, two.given_up), (0, 1))


class OnAClusterTests(ClusterCase):
    """A real node; what a request goes through."""

    async def test_requests_need_no_thread(self) -> None:
        session = await self.session()
        assert session._flights is not None
        self.assertIsNone(session._feeder)
        read = Statement("SELECT head FROM account_log WHERE user_id = 00000000-0000-0000-0000-000000000000", True)
        await session.execute(read)
        wakes, requests = session.statistics.wakes, session.statistics.requests
        for _ in range(20):
            await session.execute(read)
        self.assertEqual((session.statistics.wakes - wakes, session.statistics.requests - requests), (0, 20))
        self.assertEqual(session._flights._flights, {})

    async def test_a_session_ends_while_requests_are_under_way(self) -> None:
        session: ClusterSession = await self.another_session()
        read = Statement("SELECT head FROM account_log WHERE user_id = 00000000-0000-0000-0000-000000000000", True)
        await session.execute(read)
        waiting = [Deferred.fromCoroutine(session.execute(read)) for _ in range(50)]
        ended: list[Any] = []
        for each in waiting:
            each.addBoth(ended.append)
        await session.stop()
        while len(ended) < 50:
            await deferLater(self.reactor, 0.01, lambda: None)
        self.assertEqual(on_loop(here()).thread, threading.get_ident())
