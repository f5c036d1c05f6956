"""The reactor that `twistd mail` runs on, before any test module can bring in another."""

import sys

if "twisted.internet.reactor" not in sys.modules:
    from twisted.internet import asyncioreactor

    asyncioreactor.install()
