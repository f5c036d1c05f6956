"""What the tests on a real cluster made goes before the interpreter does: at its shutdown no thread can be started."""

from __future__ import annotations

from tests.storage.cql import cluster


def pytest_sessionfinish() -> None:
    cluster.drop_keyspace()
