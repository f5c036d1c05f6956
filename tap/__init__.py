"""What `twistd mail` runs: options, configuration and the wiring of services.

The reactor is chosen here, before anything else can: asyncio's, unless `--reactor` (which twistd reads before it
loads a service) has installed another. Nothing that this package imports touches `twisted.internet.reactor` at
module level.
"""

if __name__ != "twisted_mail.tap":
    raise ImportError("import this package as twisted_mail.tap")

import sys

if "twisted.internet.reactor" not in sys.modules:
    from twisted.internet import asyncioreactor

    asyncioreactor.install()

from twisted_mail.tap.options import Options
from twisted_mail.tap.service import makeService

__all__ = ["Options", "makeService"]
