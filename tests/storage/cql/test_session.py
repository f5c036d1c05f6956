"""The session over a driver that answers when it is told to: turns, batches, errors, and what is given up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID, uuid4

import cassandra
from cassandra.cluster import NoHostAvailable
from cassandra.connection import ConnectionShutdown
from cassandra.policies import RetryPolicy
from cassandra.protocol import OverloadedErrorMessage
from cassandra.query import BatchStatement, PreparedStatement
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from twisted_mail.storage.cql.driver import RepeatOnlyIdempotent, says_trouble, translate
from twisted_mail.storage.cql.options import Options
from twisted_mail.storage.cql.session import TROUBLE_SECONDS, ClusterSession
from twisted_mail.storage.cql.statements import Batch, Statement
from twisted_mail.storage.interfaces import Refused, StorageError, Unavailable
from twisted_mail.storage.testing.base import Suite, collect, fails

READ = Statement("SELECT a FROM t WHERE id = ?", True)
WRITE = Statement("INSERT INTO t (id, a) VALUES (?, ?)", True)
CAS = Statement("UPDATE t SET a = ? WHERE id = ? IF a = ?", False, conditional=True)


class Host:
    datacenter = "dc1"
    is_up = True

    def __init__(self) -> None:
        self.host_id = uuid4()


class Bound:
    routing_key = keyspace = table = custom_payload = None

    def __init__(self, text: str, values: Sequence[Any]) -> None:
        self.text, self.values = text, values


class Prepared(PreparedStatement):  # type: ignore[misc]  # the driver has no types
    def __init__(self, text: str) -> None:
        self.text = self.query_id = text

    def bind(self, values: Any) -> Any:
        return Bound(self.text, values)


class Future:
    """A request under way."""

    def __init__(self, bound: Any, page: bytes | None) -> None:
        self.bound, self.page = bound, page
        self.attempted_hosts: list[Any] = [Host]
        self._paging_state: bytes | None = None
        self.answered = False

    def add_callbacks(
        self, callback: Callable[..., None], errback: Callable[..., None], callback_args: Any, errback_args: Any
    ) -> None:
        self._callback, self._errback, self._arguments = callback, errback, callback_args

    def answer(self, rows: Sequence[Any] = (), page: bytes | None = None) -> None:
        self._paging_state, self.answered = page, True
        self._callback(list(rows), *self._arguments)

    def fail(self, error: Exception, attempts: int = 1) -> None:
        self.attempted_hosts, self.answered = [Host] * attempts, True
        self._errback(error, *self._arguments)


class Driver:
    """Stands in for the driver's cluster and session at once."""

    def __init__(self) -> None:
        self.hosts = [Host(), Host(), Host()]
        self.metadata: Any = self
        self.futures: list[Future] = []
        self.prepared: list[str] = []
        self.unprepared: Exception | None = None
        self.at_once: Callable[[Future], None] | None = None
        self._came = threading.Condition()

    def all_hosts(self) -> list[Host]:
        return self.hosts

    def connect(self) -> Any:
        return self

    def shutdown(self) -> None:
        for future in [future for future in self.futures if not future.answered]:
            future.fail(ConnectionShutdown("closed"))

    def prepare(self, text: str) -> Prepared:
        self.prepared.append(text)
        if self.unprepared is not None:
            raise self.unprepared
        return Prepared(text)

    def execute_async(self, bound: Any, timeout: float, paging_state: bytes | None, execution_profile: Any) -> Future:
        future = Future(bound, paging_state)
        if self.at_once is None:
            with self._came:
                self.futures.append(future)
                self._came.notify_all()
            return future
        inner = future.add_callbacks

        def answered(*arguments: Any, **named: Any) -> None:
            inner(*arguments, **named)
            assert self.at_once is not None
            self.at_once(future)

        future.add_callbacks = answered  # type: ignore[method-assign]
        return future


class SessionCase(Suite, TestCase):
    timeout = 20

    async def open(self, **options: Any) -> tuple[Driver, ClusterSession]:
        from twisted.internet import reactor

        driver = Driver()
        session = ClusterSession(Options(("nowhere",), **options), reactor, lambda _: driver)
        await session.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(session.stop()))
        return driver, session

    def run_aside(self, coroutine: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(coroutine)

    async def until(self, holds: Callable[[], bool]) -> None:
        from twisted.internet import reactor

        while not holds():
            await deferLater(reactor, 0.002, lambda: None)


class TurnTests(SessionCase):
    async def test_a_thousand_answers_wake_the_reactor_a_few_times(self) -> None:
        driver, session = await self.open(in_flight=1000, in_flight_per_account=1000)
        driver.at_once = lambda future: future.answer([{"a": 1}])
        answers = await session.execute_many(READ, [(uuid4(),) for _ in range(1000)])
        self.assertEqual(len(answers), 1000)
        self.assertEqual(session.statistics.answers, 1000)
        assert session.statistics.wakes < 300, session.statistics

    async def test_only_so_many_are_under_way_of_all_and_of_one_account(self) -> None:
        driver, session = await self.open(in_flight=4, in_flight_per_account=3)
        importing, reading = uuid4(), uuid4()
        many = self.run_aside(session.execute_many(READ, [(importing,)] * 20))
        await self.until(lambda: len(driver.futures) == 3)
        one = self.run_aside(session.execute(READ, (reading,)))
        await self.until(lambda: len(driver.futures) == 4)
        self.assertEqual([future.bound.values[0] for future in driver.futures], [importing] * 3 + [reading])
        two = self.run_aside(session.execute(READ, (reading,)))
        driver.futures[0].answer()
        await self.until(lambda: len(driver.futures) == 5)
        done = 1
        for done in range(1, 22):
            await self.until(lambda: len(driver.futures) > done)  # noqa: B023  # called at once
            driver.futures[done].answer()
        for waiting in (many, one, two):
            await waiting

    async def test_what_is_given_up_while_it_waits_is_never_sent_and_leaves_nothing(self) -> None:
        driver, session = await self.open(in_flight=1)
        first, second, third = (self.run_aside(session.execute(READ, (uuid4(),))) for _ in range(3))
        await self.until(lambda: len(driver.futures) == 1)
        second.cancel()
        await fails(CancelledError, second)
        driver.futures[0].answer()
        await first
        await self.until(lambda: len(driver.futures) == 2)
        driver.futures[1].answer()
        await third
        self.assertEqual((len(driver.futures), session._queue.flying, session._queue.waiting), (2, 0, 0))

    async def test_what_is_given_up_while_it_is_under_way_keeps_its_place_until_its_answer_has_come(self) -> None:
        driver, session = await self.open(in_flight=1)
        first, second = (self.run_aside(session.execute(READ, (uuid4(),))) for _ in range(2))
        await self.until(lambda: len(driver.futures) == 1)
        first.cancel()
        await fails(CancelledError, first)
        self.assertEqual(len(driver.futures), 1)
        driver.futures[0].answer()
        await self.until(lambda: len(driver.futures) == 2)
        driver.futures[1].answer([{"a": 5}])
        self.assertEqual(await second, [{"a": 5}])

    async def test_giving_up_many_gives_up_each(self) -> None:
        driver, session = await self.open(in_flight=2)
        many = self.run_aside(session.execute_many(READ, [(uuid4(),)] * 5))
        await self.until(lambda: len(driver.futures) == 2)
        many.cancel()
        await fails(CancelledError, many)
        for future in list(driver.futures):
            future.answer()
        await self.until(lambda: session._queue.flying == 0)
        self.assertEqual((len(driver.futures), session._queue.waiting), (2, 0))

    async def test_what_finds_the_line_full_is_refused(self) -> None:
        driver, session = await self.open(in_flight=1, waiting=1)
        waiting = [self.run_aside(session.execute(READ, (uuid4(),))) for _ in range(2)]
        await fails(Refused, session.execute(READ, (uuid4(),)))
        for number, one in enumerate(waiting):
            await self.until(lambda: len(driver.futures) > number)  # noqa: B023  # called at once
            driver.futures[number].answer()
            await one

    async def test_what_waits_too_long_is_refused(self) -> None:
        driver, session = await self.open(in_flight=1, timeout=0.05)
        first, second = (self.run_aside(session.execute(WRITE, (uuid4(), 1))) for _ in range(2))
        await self.until(lambda: len(driver.futures) == 1)
        from twisted.internet import reactor

        await deferLater(reactor, 0.1, lambda: None)
        driver.futures[0].answer()
        await first
        await fails(Refused, second)
        self.assertEqual(len(driver.futures), 1)

    async def test_what_is_left_when_it_is_closed_has_an_answer(self) -> None:
        driver, session = await self.open(in_flight=1)
        first, second = (self.run_aside(session.execute(WRITE, (uuid4(), 1))) for _ in range(2))
        await self.until(lambda: len(driver.futures) == 1)
        await session.stop()
        error = await fails(Unavailable, first)
        assert not isinstance(error, Refused), "it was sent"
        await fails(Refused, second)
        await fails(Refused, session.execute(READ, (uuid4(),)))


class AnswerTests(SessionCase):
    async def test_pages_are_asked_for_one_by_one(self) -> None:
        driver, session = await self.open()

        def answer(future: Future) -> None:
            number = int(future.page or b"0")
            future.answer([{"a": number}], b"%d" % (number + 1) if number < 2 else None)

        driver.at_once = answer
        self.assertEqual(await collect(session.pages(READ, (uuid4(),), 1)), [[{"a": 0}], [{"a": 1}], [{"a": 2}]])
        self.assertEqual(await session.execute(READ, (uuid4(),)), [{"a": 0}, {"a": 1}, {"a": 2}])
        before = session.statistics.requests
        async for rows in session.pages(READ, (uuid4(),), 1):
            self.assertEqual(rows, [{"a": 0}])
            break
        self.assertEqual(session.statistics.requests, before + 1)

    async def test_of_two_answers_to_one_request_the_first_counts(self) -> None:
        driver, session = await self.open(in_flight=1)

        def twice(future: Future) -> None:
            future.answer([{"a": 1}])
            future.fail(cassandra.ReadTimeout("slow"))
            future.answer([{"a": 2}])

        driver.at_once = twice
        for _ in range(5):
            self.assertEqual(await session.execute(READ, (uuid4(),)), [{"a": 1}])
        self.assertEqual((session._queue.flying, session.statistics.answers), (0, 5))

    async def test_of_a_conditional_answer_only_whether_it_was_applied_is_read(self) -> None:
        driver, session = await self.open()
        user = uuid4()
        forms: list[tuple[list[dict[str, Any]], bool]] = [
            ([{"[applied]": True}], True),  # Cassandra's
            ([{"[applied]": False, "a": 4}], False),
            ([{"[applied]": False}], False),
            ([{"[applied]": True, "id": user, "a": 4}], True),  # ScyllaDB's: the old row, or nulls
            ([{"[applied]": False, "id": None, "a": None}], False),
            ([{"[applied]": True, "id": None, "a": None}, {"[applied]": True, "id": user, "a": 1}], True),
        ]
        for rows, applied in forms:
            driver.at_once = lambda future: future.answer(rows)  # noqa: B023  # called at once
            self.assertEqual(await session.apply(CAS, (1, user, 0)), applied)
            self.assertEqual(await session.apply_batch(Batch([(CAS, (1, user, 0)), (WRITE, (user, 2))])), applied)

    async def test_a_batch_goes_as_one_and_is_repeated_only_where_each_part_may_be(self) -> None:
        driver, session = await self.open()
        driver.at_once = lambda future: future.answer([{"[applied]": True}])
        sent: list[Any] = []
        carry_out = driver.execute_async
        driver.execute_async = lambda bound, **rest: sent.append(bound) or carry_out(bound, **rest)  # type: ignore[method-assign,func-returns-value]
        await session.write_batch(Batch([(WRITE, (uuid4(), 1)), (WRITE, (uuid4(), 2))]))
        await session.apply_batch(Batch([(CAS, (1, uuid4(), 0)), (WRITE, (uuid4(), 2))]))
        self.assertEqual([type(bound) for bound in sent], [BatchStatement, BatchStatement])
        self.assertEqual([bound.is_idempotent for bound in sent], [True, False])

    async def test_a_statement_is_prepared_once_with_the_keyspace_in_it(self) -> None:
        driver, session = await self.open()
        session.use("mail")
        driver.at_once = lambda future: future.answer()
        await session.execute_many(READ, [(uuid4(),)] * 10)
        await session.execute(WRITE, (uuid4(), 1))
        self.assertEqual(
            driver.prepared, ["SELECT a FROM mail.t WHERE id = ?", "INSERT INTO mail.t (id, a) VALUES (?, ?)"]
        )

    async def test_what_cannot_be_prepared_is_refused_and_tried_anew_the_next_time(self) -> None:
        driver, session = await self.open()
        driver.at_once = lambda future: future.answer()
        driver.unprepared = NoHostAvailable("none", {})
        await fails(Refused, session.apply(CAS, (1, uuid4(), 0)))
        driver.unprepared = None
        self.assertEqual(list(await session.execute(WRITE, (uuid4(), 1))), [])

    async def test_of_many_that_fail_the_first_error_comes_when_all_have_ended(self) -> None:
        driver, session = await self.open()
        driver.at_once = lambda future: (
            future.fail(cassandra.WriteTimeout("slow", write_type=cassandra.WriteType.SIMPLE))
            if future.bound.values[1] == 2
            else future.answer()
        )
        await fails(Unavailable, session.execute_many(WRITE, [(uuid4(), number) for number in range(5)]))
        self.assertEqual(session.statistics.answers, 5)


class HealthTests(SessionCase):
    async def test_a_failure_makes_the_store_seem_down_for_a_while(self) -> None:
        driver, session = await self.open()
        self.assertEqual((session.seems_down, session.health()), (False, None))
        driver.at_once = lambda future: future.fail(cassandra.ReadTimeout("slow"))
        await fails(Unavailable, session.execute(READ, (uuid4(),)))
        assert session.seems_down and "slow" in str(session.health())
        driver.at_once = lambda future: future.answer()
        await session.execute(READ, (uuid4(),))
        assert session.seems_down, "another account may still be without a quorum"
        self.assertIsNone(session.health())
        assert session._trouble is not None
        session._trouble = (session._trouble[0] - TROUBLE_SECONDS, "slow")
        self.assertFalse(session.seems_down)

    async def test_an_error_of_ours_is_no_trouble_of_the_store(self) -> None:
        driver, session = await self.open()
        driver.at_once = lambda future: future.fail(cassandra.InvalidRequest("no such table"))
        await fails(Unavailable, session.execute(READ, (uuid4(),)))
        self.assertFalse(session.seems_down)

    async def test_with_too_few_nodes_for_a_quorum_it_seems_down(self) -> None:
        driver, session = await self.open(replication={"": 3})
        for number, (down, health) in enumerate([(False, True), (True, True), (True, False)]):
            driver.hosts[number].is_up = False
            self.assertEqual((session.seems_down, session.health() is None), (down, health))

    async def test_a_cluster_without_the_data_centre_is_refused_with_a_word(self) -> None:
        from twisted.internet import reactor

        session = ClusterSession(Options(("nowhere",), datacenter="moon"), reactor, lambda _: Driver())
        error = await fails(StorageError, session.start())
        assert "moon" in str(error) and "dc1" in str(error)


class ErrorTests(Suite, TestCase):
    def test_what_is_certain_and_what_is_not(self) -> None:
        none = NoHostAvailable("none", {})
        missing = cassandra.Unavailable("2 needed, 1 alive")
        invalid = cassandra.InvalidRequest("no")
        overloaded = OverloadedErrorMessage(code=0x1001, message="busy", info=None)
        lost = ConnectionShutdown("closed")
        timed_out = cassandra.OperationTimedOut()
        slow = cassandra.WriteTimeout("slow", write_type=cassandra.WriteType.CAS)
        refused: list[tuple[Exception, bool, int]] = [
            (none, True, 0),
            (none, False, 0),
            (invalid, True, 1),
            (invalid, False, 1),
            (missing, False, 1),
            (overloaded, False, 1),
        ]
        unknown: list[tuple[Exception, bool, int]] = [
            (none, True, 1),  # somebody was sent it before
            (none, False, 2),
            (missing, True, 1),  # of a later round, perhaps
            (overloaded, True, 1),
            (missing, False, 2),
            (invalid, False, 2),
            (lost, True, 1),
            (lost, False, 1),
            (timed_out, True, 1),
            (timed_out, False, 0),  # the last one may just have been sent
            (slow, True, 1),
            (slow, False, 1),
            (cassandra.RateLimitReached(cassandra.OperationType.Write), False, 1),
        ]
        for cases, kind in ((refused, Refused), (unknown, Unavailable)):
            for error, conditional, attempts in cases:
                found = translate(error, writes=True, conditional=conditional, attempts=attempts)
                self.assertEqual(type(found), kind, (error, conditional, attempts))
                found = translate(error, writes=False, conditional=False, attempts=attempts)
                self.assertEqual(type(found), Unavailable, "a read")
        self.assertEqual([says_trouble(error) for error in (none, missing, lost, slow)], [True] * 4)
        self.assertFalse(says_trouble(invalid))

    def test_nothing_is_sent_twice_that_may_not_be(self) -> None:
        policy = RepeatOnlyIdempotent()

        class Query:
            def __init__(self, is_idempotent: bool) -> None:
                self.is_idempotent = is_idempotent

        once, often = Query(False), Query(True)
        give_up, same, other = RetryPolicy.RETHROW, RetryPolicy.RETRY, RetryPolicy.RETRY_NEXT_HOST
        closed = ConnectionShutdown("closed")
        self.assertEqual(policy.on_request_error(once, 1, closed, 0)[0], give_up)
        self.assertEqual([policy.on_request_error(often, 1, closed, n)[0] for n in range(3)], [other, other, give_up])
        self.assertEqual(policy.on_unavailable(once, 1, 2, 1, 0)[0], give_up)
        self.assertEqual([policy.on_unavailable(often, 1, 2, 1, n)[0] for n in range(2)], [other, give_up])
        self.assertEqual(policy.on_read_timeout(once, 1, 2, 2, False, 0)[0], give_up)
        self.assertEqual(policy.on_read_timeout(often, 1, 2, 2, False, 0)[0], same)
        self.assertEqual(policy.on_read_timeout(often, 1, 2, 1, False, 0)[0], give_up)
        for query in (once, often):
            self.assertEqual(policy.on_write_timeout(query, 1, "SIMPLE", 2, 1, 0)[0], give_up)


def test_the_account_whose_turn_it_takes_is_the_first_parameter() -> None:
    from twisted_mail.storage.cql.session import _Request

    user = uuid4()
    assert _Request(READ, (user,), 1, None).account == user
    assert _Request(Batch([(WRITE, (user, 1))]), (), 0, None).account == user
    assert _Request(READ, ("example.org",), 1, None).account is None
    assert isinstance(user, UUID)


class SchemaTests(SessionCase):
    async def test_a_change_waits_until_there_are_connections_to_the_node_that_is_asked(self) -> None:
        driver, session = await self.open()
        first, second, _ = sorted(driver.hosts, key=lambda host: str(host.host_id))
        asked: list[Any] = []

        class Answer:
            is_schema_agreed = True

            def result(self) -> list[Any]:
                if len(asked) == 2:
                    first.is_up = False  # as the driver finds out meanwhile
                if len(asked) < 4:
                    raise NoHostAvailable("marked down or removed", {})
                return []

        def execute_async(statement: Any, parameters: Any, timeout: float, host: Any) -> Answer:
            asked.append(host)
            return Answer()

        driver.execute_async = execute_async  # type: ignore[assignment, method-assign]
        await session.run_schema("CREATE TABLE t (a int PRIMARY KEY)")
        self.assertEqual([host.host_id for host in asked], [each.host_id for each in (first, first, second, second)])

    async def test_a_statement_for_any_node_is_not_repeated(self) -> None:
        driver, session = await self.open()
        asked: list[Any] = []

        def execute_async(statement: Any, parameters: Any, timeout: float, host: Any) -> Any:
            asked.append(host)
            raise NoHostAvailable("nobody is there", {})

        driver.execute_async = execute_async  # type: ignore[assignment, method-assign]
        await fails(Unavailable, session.run("SELECT a FROM t"))
        self.assertEqual(asked, [None])
