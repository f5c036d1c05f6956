"""One running server for all tests of this folder that only need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.whole.running import RunningServer


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Started once; tests use mailboxes of their own in it."""
    running = RunningServer(tmp_path_factory.mktemp("server"))
    running.populate()
    running.start()
    yield running
    running.stop()
