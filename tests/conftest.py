"""The reactor that `twistd mail` runs on, before any test module can bring in another."""

import sys

import pytest

from tests.groups import group_of

if "twisted.internet.reactor" not in sys.modules:
    from twisted.internet import asyncioreactor

    asyncioreactor.install()


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the marks in the same hook
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Under ``--dist loadgroup``: what starts servers stays together."""
    for item in items if config.pluginmanager.hasplugin("xdist") else ():
        item.add_marker(pytest.mark.xdist_group(group_of(item.path)))


def pytest_sessionfinish() -> None:
    """Servers that tests have started go with the run."""
    running = sys.modules.get("tests.services.running")
    if running is not None:
        running.stop_all()
