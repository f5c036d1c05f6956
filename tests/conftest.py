"""The reactor that `twistd mail` runs on, before any test module can bring in another."""

import sys

if "twisted.internet.reactor" not in sys.modules:
    from twisted.internet import asyncioreactor

    asyncioreactor.install()


def pytest_sessionfinish() -> None:
    """Servers that tests have started go with the run."""
    running = sys.modules.get("tests.services.running")
    if running is not None:
        running.stop_all()
