"""The driver as this engine sets it up, and what its errors mean for whoever asked."""

from __future__ import annotations

import ssl
from typing import Any, Final

import cassandra
from cassandra.application_info import ApplicationInfo
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable
from cassandra.policies import (
    ConstantSpeculativeExecutionPolicy,
    DCAwareRoundRobinPolicy,
    ExponentialReconnectionPolicy,
    RetryPolicy,
    TokenAwarePolicy,
)
from cassandra.protocol import IsBootstrappingErrorMessage, OverloadedErrorMessage
from cassandra.query import dict_factory

from twisted_mail.storage.cql.options import Options
from twisted_mail.storage.interfaces import Refused, StorageError, Unavailable

__all__ = [
    "CONSISTENCY",
    "READS",
    "READS_OF_ONE",
    "SECOND_READS",
    "RepeatOnlyIdempotent",
    "build_cluster",
    "says_trouble",
    "translate",
]

CONSISTENCY: Final = cassandra.ConsistencyLevel.name_to_value
PROTOCOL_VERSION: Final = 4
"""The newest that both servers speak."""
EXECUTOR_THREADS: Final = 2
READS: Final = "reads"
READS_OF_ONE: Final = "reads of one"
"""Profiles: a node that hangs answers nothing until its heartbeat is missed, so after a while a read, and a read only,
is asked of another node too."""
SECOND_READ_SECONDS: Final = 1.5
SECOND_READ_OF_ONE_SECONDS: Final = 0.3
SECOND_READS: Final = {READS: (SECOND_READ_SECONDS, 1), READS_OF_ONE: (SECOND_READ_OF_ONE_SECONDS, 2)}
"""After how many seconds, and how often."""


class RepeatOnlyIdempotent(RetryPolicy):  # type: ignore[misc]  # the driver has no types
    """A statement that may not be carried out twice is never sent twice: its error goes to whoever asked, at once.

    The driver's own policy sends every request again after a lost connection, lightweight transactions too.
    """

    def on_read_timeout(
        self,
        query: Any,
        consistency: Any,
        required_responses: int,
        received_responses: int,
        data_retrieved: bool,
        retry_num: int,
    ) -> tuple[int, Any]:
        digests_only = received_responses >= required_responses and not data_retrieved
        if query.is_idempotent and retry_num == 0 and digests_only:
            return self.RETRY, consistency
        return self.RETHROW, None

    def on_write_timeout(self, *arguments: Any, **named: Any) -> tuple[int, Any]:
        return self.RETHROW, None  # the replicas are slow: more of the same does not help them

    def on_unavailable(
        self, query: Any, consistency: Any, required_replicas: int, alive_replicas: int, retry_num: int
    ) -> tuple[int, Any]:
        # another node may see more replicas than one that is cut off
        return (self.RETRY_NEXT_HOST, None) if query.is_idempotent and retry_num == 0 else (self.RETHROW, None)

    def on_request_error(self, query: Any, consistency: Any, error: Any, retry_num: int) -> tuple[int, Any]:
        return (self.RETRY_NEXT_HOST, None) if query.is_idempotent and retry_num < 2 else (self.RETHROW, None)


def _tls(options: Options) -> ssl.SSLContext:
    """Raises: StorageError for files that cannot be used."""
    try:
        context = ssl.create_default_context(cafile=options.ca or None)
        context.check_hostname = options.check_hostname
        if options.certificate:
            context.load_cert_chain(options.certificate, options.key)
    except OSError as error:  # ssl.SSLError is one
        raise StorageError(f"the TLS files of the cluster cannot be used: {error}") from error
    return context


def build_cluster(options: Options, connections: type[Any] | None = None) -> Any:
    """The driver's cluster, not connected; on *connections* of another class than the driver's own.

    Any, since the driver has no types. Raises: StorageError.
    """

    def profile(speculation: Any = None) -> ExecutionProfile:
        return ExecutionProfile(
            load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy(local_dc=options.datacenter)),
            retry_policy=RepeatOnlyIdempotent(),
            consistency_level=CONSISTENCY[options.consistency],
            serial_consistency_level=cassandra.ConsistencyLevel.LOCAL_SERIAL,
            request_timeout=options.timeout,
            row_factory=dict_factory,  # named tuples cost twice as much a row
            speculative_execution_policy=speculation,
        )

    return Cluster(
        contact_points=list(options.hosts),
        port=options.port,
        protocol_version=PROTOCOL_VERSION,
        execution_profiles={
            name: profile(ConstantSpeculativeExecutionPolicy(*second)) for name, second in SECOND_READS.items()
        }
        | {EXEC_PROFILE_DEFAULT: profile()},
        connection_class=connections or Cluster.connection_class,
        auth_provider=PlainTextAuthProvider(options.user, options.password) if options.user else None,
        ssl_context=_tls(options) if options.tls else None,
        reconnection_policy=ExponentialReconnectionPolicy(0.5, 10.0),
        # a node that hangs (stopped, or cut off) must be found out, or each of its requests costs a time-out
        idle_heartbeat_interval=5,
        idle_heartbeat_timeout=5,
        connect_timeout=options.timeout,
        control_connection_timeout=options.timeout,
        # waiting for every node would stop all work while one hangs; a node that does not know a statement says so,
        # and is told it then
        prepare_on_all_hosts=False,
        reprepare_on_up=False,
        max_schema_agreement_wait=30,
        executor_threads=EXECUTOR_THREADS,
        application_info=ApplicationInfo(application_name="twisted-mail"),
    )


def translate(error: Exception, *, writes: bool, conditional: bool, attempts: int) -> StorageError:
    """What *error* of a request means: `Refused` only where nothing was and nothing will be written.

    That is certain where no node was sent anything, where the one node asked found the request invalid, and for
    a plain write which that node refused before it told any replica. A lightweight transaction has several rounds and
    checks before each who is alive: it may be refused in a later one although an earlier one was accepted, so for it
    "not enough replicas" and "overloaded" say nothing.
    """
    text = f"{type(error).__name__}: {error}"
    if not writes:
        return Unavailable(text)
    if isinstance(error, NoHostAvailable) and attempts == 0:
        return Refused(text)
    if attempts > 1 or isinstance(error, cassandra.RateLimitReached):
        return Unavailable(text)
    if isinstance(error, cassandra.RequestValidationException):
        return Refused(text)
    refusals = (cassandra.Unavailable, OverloadedErrorMessage, IsBootstrappingErrorMessage)
    if isinstance(error, refusals) and not conditional:
        return Refused(text)
    return Unavailable(text)


def says_trouble(error: Exception) -> bool:
    """Whether it says that replicas are missing or slow, rather than that something is wrong with the request."""
    return not isinstance(error, cassandra.RequestValidationException) or isinstance(error, cassandra.RateLimitReached)
