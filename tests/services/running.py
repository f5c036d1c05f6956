"""The servers of a test run: started when the first test asks, the same for all tests of the process, stopped at its end.

Any test may call these, trial's test cases too::

    from tests.services import running

    url = running.cassandra().url(keyspace)

Where a server cannot be had the test is skipped with one line that says what is missing; with ``CI=true`` it fails. With
``CQL=cql://…``, ``S3=s3://…``, ``NATS=nats://…`` in the environment an operator's own servers are used instead; a test
that has to kill nodes asks for its own by `ours`, and is skipped there. Under pytest-xdist each worker has its own servers.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from tests.services import fetch
from tests.services.cassandra import Cassandra
from tests.services.nats import Nats
from tests.services.processes import NotReady
from tests.services.versity import VersityGateway

__all__ = ["Server", "cassandra", "nats", "new_folder", "ours", "shared", "stop_all", "two_data_centres", "unavailable", "versity"]


class Server(Protocol):
    """What a test needs of a server that it does not kill."""

    def url(self, name: str, /, **options: str) -> str:
        """For the configuration; *name* is the keyspace, the bucket, or a prefix for streams and subjects."""


class _Stoppable(Protocol):
    def start(self) -> None: ...
    def stop(self) -> None: ...


S = TypeVar("S", bound=_Stoppable)
_started: dict[str, _Stoppable] = {}
_failed: dict[str, str] = {}


class _NatsServer:
    """Gives `Nats.url` the shape of the others: the name is the prefix."""

    def __init__(self, server: Nats) -> None:
        self._server = server

    def url(self, name: str, /, **options: str) -> str:
        return self._server.url(prefix=name, **options)


class _Operators:
    """A server of an operator: *url* with the name put in."""

    def __init__(self, url: str, named: str) -> None:
        self._url, self._named = url, named

    def url(self, name: str, /, **options: str) -> str:
        parts = urlsplit(self._url)
        query = dict(parse_qsl(parts.query)) | options
        path = parts.path
        if self._named == "path":
            path = "/" + name
        elif self._named == "prefix":
            query["prefix"] = name
        return urlunsplit(parts._replace(path=path, query=urlencode(query, safe=":,/")))


def unavailable(why: str) -> None:
    """End the test: skipped, or failed where everything has to be there. Raises."""
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        raise AssertionError(why)
    raise unittest.SkipTest(why)


def new_folder(name: str) -> Path:
    """A folder of its own, outside of pytest's: paths of sockets and logs stay short."""
    return Path(tempfile.mkdtemp(prefix=f"mail-{name}-"))


def _get(name: str, build: Callable[[Path], S]) -> S:
    if name in _failed:
        unavailable(_failed[name])
    if name not in _started:
        why = fetch.missing()
        if why is not None and os.environ.get("CI"):
            try:
                fetch.fetch()
                why = None
            except fetch.Missing as error:
                why = str(error)
        if why is not None:
            _failed[name] = why
            unavailable(why)
    return shared(name, build)


def shared(name: str, build: Callable[[Path], S]) -> S:
    """The one server of that name in this run, built in a folder of its own and started at the first call."""
    if name in _failed:
        unavailable(_failed[name])
    if name not in _started:
        for attempt in range(3):  # another program may have taken a port in between
            server = build(new_folder(name))
            try:
                server.start()
                break
            except NotReady as error:
                server.stop()
                if attempt == 2:
                    _failed[name] = f"{name}: {error}"
                    unavailable(_failed[name])
        _started[name] = server
    return _started[name]  # type: ignore[return-value]  # built above, or by an earlier call, under this very name


def ours(variable: str) -> None:
    """The test needs servers that it may kill: skipped when *variable* (``CQL``, ``S3``, ``NATS``) names an operator's."""
    if os.environ.get(variable):
        raise unittest.SkipTest(f"{variable} names servers that are not ours to kill")


def cassandra(nodes: int = 1) -> Cassandra | _Operators:
    """A Cassandra cluster of one node (which no test kills), or three (whose nodes a test may kill if it brings them back)."""
    if url := os.environ.get("CQL"):
        return _Operators(url, "path")
    return _get(f"cassandra{nodes}", lambda folder: Cassandra(folder, nodes=nodes, lasting=nodes > 1))


def two_data_centres() -> Cassandra:
    """Two nodes, one in ``dc1``, one in ``dc2``. One that is killed cannot come back."""
    ours("CQL")
    return _get(
        "cassandra-dc", lambda folder: Cassandra(folder, nodes=2, datacenters=("dc1", "dc2"), lasting=False)
    )


def nats(nodes: int = 1) -> Server:
    """nats-server, one or three."""
    if url := os.environ.get("NATS"):
        return _Operators(url, "prefix")
    return _NatsServer(nats_cluster(nodes))


def nats_cluster(nodes: int = 1) -> Nats:
    """The same with its nodes, for tests that kill them."""
    ours("NATS")
    return _get(f"nats{nodes}", lambda folder: Nats(folder, nodes=nodes))


def versity() -> VersityGateway | _Operators:
    """An S3 server."""
    if url := os.environ.get("S3"):
        return _Operators(url, "path")
    return _get("versitygw", VersityGateway)


def stop(name: str) -> None:
    """Stop one before the run is over, to make room (``cassandra3``)."""
    server = _started.pop(name, None)
    if server is not None:
        server.stop()


def stop_all() -> None:
    """At the end of the run."""
    while _started:
        _started.popitem()[1].stop()


def remove(folder: Path) -> None:
    """Forget a folder of `new_folder`."""
    shutil.rmtree(folder, ignore_errors=True)
