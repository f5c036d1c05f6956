"""What the tests on a real cluster made goes before the interpreter does: at its shutdown no thread can be started."""

from __future__ import annotations

import sys


def pytest_sessionfinish() -> None:
    # not imported here: that would say that every test of this folder needs a cluster
    if (cluster := sys.modules.get("tests.storage.cql.cluster")) is not None:
        cluster.drop_keyspace()
