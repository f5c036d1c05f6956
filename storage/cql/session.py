"""The connection to the cluster: requests wait fairly by account, the driver sends them, results are given to whoever waits.

Over asyncio's reactor all that happens in the reactor's thread, on connections of ours (`connection`).

Over another one three threads take part. In the reactor's, requests queue and results are given out. *cql-feeder* calls the driver,
and the driver's own (libev) reads answers and puts them into one deque, which one `callFromThread` empties, however many
there are. That costs three times the CPU.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, TypeVar
from uuid import UUID

import cassandra
from cassandra.cluster import EXEC_PROFILE_DEFAULT, NoHostAvailable
from cassandra.query import BatchStatement, BatchType, SimpleStatement
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_mail.storage.cql.connection import loop_of, on_loop
from twisted_mail.storage.cql.driver import (
    CONSISTENCY,
    READS,
    READS_OF_ONE,
    SECOND_READS,
    build_cluster,
    says_trouble,
    translate,
)
from twisted_mail.storage.cql.fairness import FairQueue, Full
from twisted_mail.storage.cql.flights import Flights
from twisted_mail.storage.cql.options import Options
from twisted_mail.storage.cql.statements import Batch, Row, Statement
from twisted_mail.storage.cql.together import all_of
from twisted_mail.storage.interfaces import Refused, StorageError, Unavailable

__all__ = ["ClusterSession", "Statistics"]

T = TypeVar("T")
TROUBLE_SECONDS: Final = 10.0
"""How long the store seems down after a request failed."""
DRAIN: Final = 256
"""Answers given out in one go of the reactor."""
ALL_ROWS: Final = 5000
"""Rows asked for at once where all are wanted."""
ADMIN_SECONDS: Final = 60.0
PREPARE_ATTEMPTS: Final = 3
PREPARE_SECONDS: Final = 1.5
CONNECTING_SECONDS: Final = 20.0
"""How long a change of the schema waits for connections to the node that it is asked of."""
_TABLE: Final = re.compile(r"\b(?:FROM|INTO|UPDATE|TABLE(?: IF NOT EXISTS)?|TRUNCATE)\s+(?=[a-z][a-z0-9_]*\b(?!\.))")
"""What stands before the name of a table that has no keyspace before it."""


@dataclass(slots=True)
class Statistics:
    """What has been done so far; for tests and metrics."""

    requests: int = 0
    answers: int = 0
    failures: int = 0
    wakes: int = 0
    """How often the reactor was woken for answers."""


class _Request:
    """One request on its way, and who waits for it."""

    __slots__ = ("account", "deadline", "done", "future", "landed", "page", "parameters", "size", "statement")

    def __init__(self, statement: Statement | Batch, parameters: Sequence[Any], size: int, page: bytes | None) -> None:
        self.statement = statement
        self.parameters = parameters
        self.size = size
        self.page = page
        self.deadline = 0.0
        self.landed = False
        self.future: Any = None
        """The driver's, once it was sent."""
        first = statement.parts[0][1] if isinstance(statement, Batch) else parameters
        self.account = first[0] if first and isinstance(first[0], UUID) else None
        """Whose turn it takes: the first parameter of everything about an account is its id."""
        # what is given up while it waits is passed over; what is under way counts until its answer has come
        self.done: Deferred[tuple[Sequence[Row], bytes | None]] = Deferred(lambda _: None)

    @property
    def parts(self) -> Sequence[Statement]:
        if isinstance(self.statement, Batch):
            return [statement for statement, _ in self.statement.parts]
        return (self.statement,)

    @property
    def writes(self) -> bool:
        return not self.parts[0].text.startswith("SELECT")

    @property
    def conditional(self) -> bool:
        return any(part.conditional for part in self.parts)

    def failed(self, error: Exception, attempts: int) -> StorageError:
        return translate(error, writes=self.writes, conditional=self.conditional, attempts=attempts)


class ClusterSession:
    """Implements `Session`."""

    _log = Logger()

    def __init__(self, options: Options, reactor: Any, connect: Callable[[Options], Any] | None = None) -> None:
        # the reactor provides IReactorThreads, IReactorTime and IReactorCore; the driver has no types.
        # connect: makes another cluster than the driver's, which is used by threads
        self.options = options
        self.statistics = Statistics()
        self._reactor = reactor
        self._connect = connect
        self._flights: Flights | None = None
        """What is under way, if that is on the reactor's own loop."""
        self._thread = 0
        """The reactor's."""
        self._launching = False
        self._keyspace = ""
        self._cluster: Any = None
        self._driver: Any = None
        self._queue: FairQueue[_Request] = FairQueue(options.in_flight, options.in_flight_per_account, options.waiting)
        self._feed: SimpleQueue[_Request | None] = SimpleQueue()
        self._feeder: threading.Thread | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._prepared: dict[Statement, Any] = {}
        self._preparing: dict[Statement, list[_Request]] = {}
        self._preparing_lock = threading.Lock()
        self._landed: deque[tuple[_Request, Sequence[Row] | Exception, bytes | None]] = deque()
        self._woken = False
        self._trouble: tuple[float, str] | None = None
        self._success = 0.0
        self._open = False

    # --- opening and closing

    async def start(self) -> None:
        """Connect. Raises: StorageError with a text for operators."""
        self._threads = ThreadPoolExecutor(2, "cql-admin")
        self._thread = threading.get_ident()
        if self._connect is None:
            loop = loop_of(self._reactor)
            self._connect = partial(build_cluster, connections=None if loop is None else on_loop(loop))
            self._flights = None if loop is None else Flights(loop)
        try:
            await self._in_thread(self._open_driver)
        except BaseException:
            await self.stop()
            raise
        if self._flights is None:
            self._feeder = threading.Thread(target=self._feed_driver, name="cql-feeder", daemon=True)
            self._feeder.start()
        self._open = True

    def _open_driver(self) -> None:
        assert self._connect is not None
        names = ",".join(self.options.hosts)
        try:
            self._cluster = self._connect(self.options)
            self._driver = self._cluster.connect()
        except NoHostAvailable as error:
            self._check_datacenter()
            raise StorageError(f"no node of the cluster {names} could be reached: {_reasons(error)}") from error
        except (cassandra.DriverException, OSError, ValueError) as error:
            raise StorageError(f"the cluster {names} could not be opened: {error}") from error
        # the coordinator's clock gives the timestamps: those of mail nodes may be minutes apart
        self._driver.use_client_timestamp = False
        self._driver._default_timeout = PREPARE_SECONDS  # of preparing alone; it has no public name beside profiles
        self._check_datacenter()

    def _check_datacenter(self) -> None:
        found = {str(host.datacenter) for host in self._cluster.metadata.all_hosts() if host.datacenter}
        if self.options.datacenter and found and self.options.datacenter not in found:
            raise StorageError(
                f"no node of the cluster is in the data centre {self.options.datacenter}; "
                f"there are {', '.join(sorted(found))}"
            )

    async def stop(self) -> None:
        """Close. What waits is refused; what is under way has the driver's answer or fails."""
        self._open = False
        for request in self._queue.clear():
            if not request.done.called:
                request.done.errback(Refused("the connection to the cluster is being closed"))
        feeder, self._feeder = self._feeder, None
        if feeder is not None:
            self._feed.put(None)
        threads, self._threads = self._threads, None
        if threads is None:
            return
        try:
            if feeder is not None:
                await self._in(threads, feeder.join)
            cluster, self._cluster = self._cluster, None
            if cluster is not None:
                await self._in(threads, cluster.shutdown)
        finally:
            threads.shutdown(wait=False)
        self._driver = None
        while not self._feed.empty():
            left = self._feed.get()
            if left is not None and not left.done.called:
                left.done.errback(Refused("the connection to the cluster is being closed"))

    def _in_thread(self, call: Callable[..., T], *arguments: Any) -> Deferred[T]:
        if self._threads is None:
            raise Refused("the connection to the cluster is closed")
        return self._in(self._threads, call, *arguments)

    def _in(self, threads: ThreadPoolExecutor, call: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """Call it in a thread that may block."""
        done: Deferred[T] = Deferred(lambda _: None)

        def give(result: Any) -> None:
            if not done.called:
                done.callback(result)

        def run() -> None:
            try:
                result: Any = call(*arguments)
            except Exception:
                result = Failure()
            self._reactor.callFromThread(give, result)

        threads.submit(run)
        return done

    # --- what operators do: rare, and may block a thread

    async def run(self, text: str, parameters: Sequence[Any] = (), *, serial: bool = False) -> Sequence[Row]:
        """Carry out a CQL text that is not prepared (``%s`` for parameters) at a quorum, or LOCAL_SERIAL.

        Raises: StorageError.
        """
        level = cassandra.ConsistencyLevel.LOCAL_SERIAL if serial else CONSISTENCY[self.options.consistency]
        return await self._run(text, parameters, level, lambda: None)

    async def run_schema(self, text: str) -> None:
        """Change the schema, and wait until all nodes agree on it. Every node of ours asks the same node of the cluster,
        so that two that make the same table at once make one. Raises: StorageError."""
        await self._run(text, (), None, self._first_up)

    def _first_up(self) -> Any:
        up = [host for host in self._hosts() if host.is_up is not False and host.host_id is not None]
        return min(up, key=lambda host: str(host.host_id), default=None)

    async def _run(self, text: str, parameters: Sequence[Any], level: Any, choose: Callable[[], Any]) -> Sequence[Row]:
        """*choose* says which node is to be asked; None: any."""
        def call() -> Sequence[Row]:
            serial = cassandra.ConsistencyLevel.LOCAL_SERIAL
            statement = SimpleStatement(self._qualified(text), consistency_level=level, serial_consistency_level=serial)
            until = time.monotonic() + CONNECTING_SECONDS
            while True:
                host = choose()
                future = self._driver.execute_async(statement, parameters or None, timeout=ADMIN_SECONDS, host=host)
                try:
                    rows = list(future.result())
                    break
                except NoHostAvailable:
                    # nothing was sent; the driver waits for connections to some node, not to the one that is asked
                    if host is None or time.monotonic() > until:
                        raise
                    time.sleep(0.2)
            if not future.is_schema_agreed:
                raise Unavailable("the nodes of the cluster do not agree on the schema")
            return rows

        try:
            return await self._in_thread(call)
        except (cassandra.DriverException, NoHostAvailable) as error:
            reads = text.lstrip().upper().startswith("SELECT")
            raise translate(error, writes=not reads, conditional=True, attempts=1) from error

    def use(self, keyspace: str) -> None:
        """Work in *keyspace* from now on. Statements name it, since prepared ones that rely on USE are ambiguous."""
        self._keyspace = keyspace
        self._prepared.clear()

    def _qualified(self, text: str) -> str:
        return _TABLE.sub(rf"\g<0>{self._keyspace}.", text) if self._keyspace else text

    # --- whether it is well

    @property
    def seems_down(self) -> bool:
        """Whether an agreement may fail: something has failed of late, or so many nodes are down that some accounts
        have no quorum."""
        if self._trouble is not None and self._reactor.seconds() - self._trouble[0] < TROUBLE_SECONDS:
            return True
        copies = self.options.copies
        return self._down() > copies - (copies // 2 + 1)

    def _hosts(self) -> list[Any]:
        if self._cluster is None:
            return []
        wanted = self.options.datacenter
        return [host for host in self._cluster.metadata.all_hosts() if not wanted or host.datacenter == wanted]

    @property
    def local_datacenter(self) -> str:
        """The data centre that we work in; empty while not connected."""
        if self.options.datacenter or self._cluster is None:
            return self.options.datacenter
        contact = self._cluster.get_control_connection_host()
        return str(contact.datacenter) if contact is not None else ""

    def nodes_by_datacenter(self) -> dict[str, int]:
        """How many nodes the cluster has in each."""
        found: dict[str, int] = {}
        for host in self._cluster.metadata.all_hosts() if self._cluster is not None else ():
            found[str(host.datacenter)] = found.get(str(host.datacenter), 0) + 1
        return found

    @property
    def clock(self) -> Any:
        """Provides IReactorTime."""
        return self._reactor

    def _down(self) -> int:
        return sum(host.is_up is False for host in self._hosts())

    def health(self) -> str | None:
        """None while the cluster answers; else what is the matter. Never blocks."""
        if not self._open:
            return "not connected"
        hosts = self._hosts()
        if hosts and self._down() == len(hosts):
            return "no node of the cluster can be reached"
        trouble = self._trouble
        if trouble is None or self._success > trouble[0] or self._reactor.seconds() - trouble[0] > 3 * TROUBLE_SECONDS:
            return None
        return trouble[1]

    # --- requests, in the reactor's thread

    def _submit(self, request: _Request) -> Deferred[tuple[Sequence[Row], bytes | None]]:
        if not self._open:
            raise Refused("the connection to the cluster is not open")
        request.deadline = self._reactor.seconds() + self.options.timeout
        try:
            self._queue.push(request.account, request)
        except Full:
            raise Refused("too many requests wait for the cluster") from None
        self._launch()
        return request.done

    def _launch(self) -> None:
        """Hand on those whose turn it is."""
        if self._launching:
            return  # one that failed at once: whoever handed it on goes on with the next
        self._launching = True
        try:
            self._launch_all()
        finally:
            self._launching = False

    def _launch_all(self) -> None:
        while (turn := self._queue.pop()) is not None:
            account, request = turn
            if request.done.called:
                self._queue.landed(account)  # given up while it waited
            elif request.deadline < self._reactor.seconds():
                self._queue.landed(account)
                request.done.errback(Refused("its turn did not come in time"))
            else:
                self.statistics.requests += 1
                self._on(request)

    def _on(self, request: _Request) -> None:
        """To where the driver is called."""
        if self._flights is None:
            self._feed.put(request)
        elif threading.get_ident() == self._thread:
            self._hand_over_safely(request)
        else:
            self._reactor.callFromThread(self._hand_over_safely, request)

    def _drain(self) -> None:
        """Give the answers that have come to those who wait for them."""
        self._woken = False
        self.statistics.wakes += 1
        for _ in range(DRAIN):
            try:
                request, result, page = self._landed.popleft()
            except IndexError:
                break
            self._give(request, result, page)
        else:
            self._wake()
        self._launch()

    def _give(self, request: _Request, result: Sequence[Row] | Exception, page: bytes | None) -> None:
        if request.landed:
            return  # the driver gives every answer of a read that it asked of two nodes
        request.landed = True
        if self._flights is not None:
            self._flights.landed(request.future)
        self._queue.landed(request.account)
        self._note(result)
        if request.done.called:
            return
        if isinstance(result, Exception):
            request.done.errback(Failure(result))
        else:
            request.done.callback((result, page))

    def _note(self, result: Sequence[Row] | Exception) -> None:
        self.statistics.answers += 1
        if not isinstance(result, Exception):
            self._success = self._reactor.seconds()
            return
        self.statistics.failures += 1
        cause = result.__cause__ or result
        if isinstance(cause, Exception) and says_trouble(cause):
            self._trouble = (self._reactor.seconds(), str(result))

    # --- in the feeder's thread, or in the reactor's

    def _feed_driver(self) -> None:
        while (request := self._feed.get()) is not None:
            self._hand_over_safely(request)

    def _hand_over_safely(self, request: _Request) -> None:
        try:
            self._hand_over(request)
        except (cassandra.DriverException, NoHostAvailable) as error:
            self._fail(request, error, 0)
        except Exception as error:  # a value that does not fit its column, say: a defect of whoever asked
            self._land(request, error)

    def _hand_over(self, request: _Request) -> None:
        missing = next((part for part in request.parts if part not in self._prepared), None)
        if missing is not None:
            self._prepare(missing, request)
            return
        seconds, profile = self.options.timeout, EXEC_PROFILE_DEFAULT
        if isinstance(request.statement, Batch):
            bound = BatchStatement(BatchType.UNLOGGED, consistency_level=CONSISTENCY[self.options.consistency])
            for part, parameters in request.statement.parts:
                bound.add(self._prepared[part], parameters)
            bound.is_idempotent = not request.conditional and all(part.idempotent for part in request.parts)
        else:
            bound = self._prepared[request.statement].bind(request.parameters)
            bound.fetch_size = request.size
            seconds = min(seconds, request.statement.seconds or seconds)
            if not request.writes and "SERIAL" not in request.statement.consistency:
                profile = READS_OF_ONE if request.statement.consistency == "LOCAL_ONE" else READS
        flights = self._flights
        if flights is not None:
            # no timers of the driver's
            future = self._driver.execute_async(bound, timeout=None, paging_state=request.page)
            request.future = future
            flights.add(future, seconds, SECOND_READS.get(profile))
        else:
            future = self._driver.execute_async(
                bound, timeout=seconds, paging_state=request.page, execution_profile=profile
            )
        future.add_callbacks(
            self._answered, self._failed, callback_args=(request, future), errback_args=(request, future)
        )

    def prepare(self, statements: Sequence[Statement]) -> None:
        """Begin to prepare what will be needed, so that nothing has to be prepared while nodes are down."""
        for statement in statements:
            self._prepare(statement, None)

    def _prepare(self, statement: Statement, request: _Request | None) -> None:
        """The driver waits for a node when it prepares; other requests must not wait with it."""
        with self._preparing_lock:
            waiting = self._preparing.get(statement)
            if waiting is None:
                waiting = self._preparing[statement] = []
                begun = False
            else:
                begun = True
            if request is not None:
                waiting.append(request)
        if begun:
            return
        threads = self._threads
        if threads is None:
            self._prepare_ended(statement, Refused("the connection to the cluster is closed"))
        else:
            threads.submit(self._prepare_in_thread, statement)

    def _prepare_in_thread(self, statement: Statement) -> None:
        for attempt in range(PREPARE_ATTEMPTS):
            try:
                prepared = self._driver.prepare(self._qualified(statement.text))
                break
            except (cassandra.OperationTimedOut, NoHostAvailable) as error:
                if attempt == PREPARE_ATTEMPTS - 1:  # each time another node is asked first
                    self._prepare_ended(statement, error)
                    return
            except Exception as error:
                self._prepare_ended(statement, error)
                return
        level = self.options.consistency if statement.consistency == "LOCAL_QUORUM" else statement.consistency
        prepared.consistency_level = CONSISTENCY[level]
        prepared.serial_consistency_level = CONSISTENCY[statement.serial]
        prepared.is_idempotent = statement.idempotent and not statement.conditional
        self._prepared[statement] = prepared
        self._prepare_ended(statement, None)

    def _prepare_ended(self, statement: Statement, error: Exception | None) -> None:
        with self._preparing_lock:
            waiting = self._preparing.pop(statement)
        for request in waiting:
            if error is None and self._open:
                self._on(request)
            else:
                refused = Refused(f"a statement could not be prepared: {error}")
                refused.__cause__ = error
                self._land(request, refused)

    # --- where answers are read: in the driver's thread, or in the reactor's

    def _answered(self, rows: Sequence[Row] | None, request: _Request, future: Any) -> None:
        self._land(request, rows or (), future._paging_state if request.size else None)

    def _failed(self, error: Exception, request: _Request, future: Any) -> None:
        self._fail(request, error, len(future.attempted_hosts))

    def _fail(self, request: _Request, error: Exception, attempts: int) -> None:
        failure = request.failed(error, attempts)
        failure.__cause__ = error
        self._land(request, failure)

    def _land(self, request: _Request, result: Sequence[Row] | Exception, page: bytes | None = None) -> None:
        if self._flights is not None and threading.get_ident() == self._thread:
            self._give(request, result, page)
            self._launch()
            return
        self._landed.append((request, result, page))
        if not self._woken:
            self._wake()

    def _wake(self) -> None:
        self._woken = True
        self._reactor.callFromThread(self._drain)

    # --- Session

    async def execute(self, statement: Statement, parameters: Sequence[Any] = ()) -> Sequence[Row]:
        rows, page = await self._submit(_Request(statement, parameters, ALL_ROWS, None))
        if page is None:
            return rows
        found = list(rows)
        while page is not None:
            rows, page = await self._submit(_Request(statement, parameters, ALL_ROWS, page))
            found += rows
        return found

    async def pages(
        self, statement: Statement, parameters: Sequence[Any] = (), size: int = 1000
    ) -> AsyncIterator[Sequence[Row]]:
        page: bytes | None = None
        while True:
            rows, page = await self._submit(_Request(statement, parameters, size, page))
            if rows:
                yield rows
            if page is None:
                return

    async def apply(self, statement: Statement, parameters: Sequence[Any] = ()) -> bool:
        rows, _ = await self._submit(_Request(statement, parameters, 0, None))
        return bool(rows[0]["[applied]"])

    async def apply_batch(self, batch: Batch) -> bool:
        rows, _ = await self._submit(_Request(batch, (), 0, None))
        return bool(rows[0]["[applied]"])

    async def execute_many(self, statement: Statement, parameters: Sequence[Sequence[Any]]) -> Sequence[Sequence[Row]]:
        return await all_of(self.execute(statement, each) for each in parameters)

    async def write_batch(self, batch: Batch) -> None:
        await self._submit(_Request(batch, (), 0, None))


def _reasons(error: Exception) -> str:
    """What each node said, in one line."""
    errors = getattr(error, "errors", None)
    if isinstance(errors, dict) and errors:
        return "; ".join(f"{node}: {why}" for node, why in errors.items())
    return str(error)
