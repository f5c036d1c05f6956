"""The reactor that `twistd mail` runs on, before any test module can bring in another."""

import os
import sys
from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import HealthCheck, settings

from tests.servers import needs_servers

# For the processes that tests start, by the hundred: each would compile the whole suite first, for a second of CPU time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

if "twisted.internet.reactor" not in sys.modules:
    from twisted.internet import asyncioreactor

    asyncioreactor.install()


# How fast examples are made says something of what else the machine does, and nothing of ours.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def paths_of_trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Trial's `mktemp` gives paths in pytest's folder: its own makes folders where pytest was called, and leaves them."""
    from twisted.trial.unittest import SynchronousTestCase

    folder, numbers = tmp_path_factory.mktemp("trial"), count(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SynchronousTestCase, "mktemp", lambda case: str(folder / str(next(numbers))))
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--servers", choices=("only", "without"), help="only tests that start real servers, or all but these"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What ``--servers`` leaves out belongs to the other run: it does not count as deselected."""
    if chosen := config.getoption("--servers"):
        items[:] = [item for item in items if needs_servers(item.path) == (chosen == "only")]


def pytest_sessionfinish() -> None:
    """Servers that tests have started go with the run."""
    running = sys.modules.get("tests.services.running")
    if running is not None:
        running.stop_all()
