"""``python -m tests.services fetch``, and ``start``: the servers in the foreground, to try the suite on."""

from __future__ import annotations

import argparse
import os
import signal
import sys

from tests.services import fetch
from tests.services.cassandra import Cassandra
from tests.services.nats import Nats
from tests.services.processes import NotReady
from tests.services.running import new_folder
from tests.services.versity import VersityGateway


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.services", description="The servers of the distributed store.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    get = verbs.add_parser("fetch", help="get the programs into the cache folder")
    get.add_argument("--or-go-on", action="store_true", help="what cannot be had is only said, if this is not CI")
    start = verbs.add_parser("start", help="start them on loopback; Ctrl-C ends them")
    start.add_argument("--cassandra", type=int, choices=(1, 3), default=1, help="nodes")
    start.add_argument("--nats", type=int, choices=(1, 3), default=1, help="nodes")
    wanted = parser.parse_args()
    try:
        fetch.fetch()
        if wanted.verb == "fetch":
            print(f"the servers' programs are in {fetch.folder()}")
            return 0
        return _start(wanted.cassandra, wanted.nats)
    except (fetch.Missing, NotReady) as error:
        print(error, file=sys.stderr)
        return 0 if getattr(wanted, "or_go_on", False) and not os.environ.get("CI") else 1


def _start(cassandra_nodes: int, nats_nodes: int) -> int:
    cassandra = Cassandra(new_folder("cassandra"), nodes=cassandra_nodes)
    nats = Nats(new_folder("nats"), nodes=nats_nodes)
    versity = VersityGateway(new_folder("s3"))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for server in (versity, nats, cassandra):
            server.start()
        print("[storage]")
        print(f'metadata  = "{cassandra.url("mail")}"')
        print(f'blobs     = "{versity.url("mail")}"')
        print(f'messaging = "{nats.url()}"', flush=True)
        signal.pause()
    except KeyboardInterrupt:
        print("ending", file=sys.stderr)
    finally:
        for server in (cassandra, nats, versity):
            server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
