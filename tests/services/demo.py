"""``make demo-cluster``: a whole cluster on loopback, in one terminal, to read mail from and to kill nodes of.

Three Cassandra nodes, three NATS nodes, VersityGW; two mail nodes that take mail in, two that deliver it, two that serve
IMAP and POP3. Every node's log lines come with its name in front; Ctrl-C ends all. Nothing is kept.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from tests.services import fetch
from tests.services.cassandra import Cassandra
from tests.services.mail import MailCluster, Storage
from tests.services.nats import Nats
from tests.services.processes import NotReady
from tests.services.running import new_folder, remove
from tests.services.versity import VersityGateway
from twisted_mail.admin.demo import choose_ports
from twisted_mail.admin.init import put_samples
from twisted_mail.admin.opening import opened
from twisted_mail.admin.passwords import generate
from twisted_mail.admin.running import run
from twisted_mail.admin.users import create_user
from twisted_mail.storage.interfaces import Domain
from twisted_mail.tap.configuration import load

DOMAIN: Final = "demo.example"
USERS: Final = ("ann", "bob")
MESSAGES: Final = 60
NODES: Final[Mapping[str, tuple[str, ...]]] = {
    "smtp1": ("smtp", "submission", "lmtp"),
    "smtp2": ("smtp", "submission", "lmtp"),
    "delivery1": ("delivery",),
    "delivery2": ("delivery",),
    "imap1": ("imap", "pop3"),
    "imap2": ("imap", "pop3"),
}
_PORTS: Final = {"smtp": 9025, "submission": 9587, "imap": 9143, "imaps": 9993, "pop3": 9110}


class Logs:
    """Prints what comes into log files from now on, line by line, with the node's name in front."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = dict(files)
        self._places = {name: path.stat().st_size for name, path in files.items()}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="logs", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._ended.wait(0.3):
            for name, path in self._files.items():
                for line in self._new(name, path):
                    print(f"{name:>10} | {line}", flush=True)

    def _new(self, name: str, path: Path) -> Iterable[str]:
        try:
            with path.open("rb") as file:
                file.seek(self._places[name])
                data = file.read()
        except OSError:
            return []
        whole = data.rpartition(b"\n")[0]
        self._places[name] += len(whole) + 1 if whole else 0
        return whole.decode("utf-8", "replace").splitlines()


def ports() -> dict[str, dict[str, int]]:
    """For each node, near the usual numbers, and free."""
    wanted = {
        f"{name} {listener}": _PORTS[listener] + int(name[-1]) - 1
        for name, roles in NODES.items()
        for listener in _PORTS
        if listener in roles or listener.rstrip("s") in roles
    }
    chosen = choose_ports(wanted)
    found: dict[str, dict[str, int]] = {}
    for both, port in chosen.items():
        name, _, listener = both.partition(" ")
        found.setdefault(name, {})[listener] = port
    return found


def fill(cluster: MailCluster) -> dict[str, str]:
    """The domain, the users with mail; their passwords."""
    passwords = {f"{user}@{DOMAIN}": generate() for user in USERS}
    configuration = load(next(iter(cluster.nodes.values())).config, os.environ)

    async def make(reactor: Any) -> None:
        async with opened(reactor, configuration, create=True) as store:
            await store.directory.add_domain(Domain(DOMAIN))
            for address, password in passwords.items():
                await create_user(store, address, password, name=address.partition("@")[0].capitalize())
            for address in passwords:
                others = [other for other in passwords if other != address]
                await put_samples(store, address, others, int(time.time()), MESSAGES)

    run(make)
    return passwords


def instructions(cluster: MailCluster, cassandra: Cassandra, nats: Nats, passwords: Mapping[str, str]) -> str:
    """How to read and send, and what to kill."""
    ann, bob = passwords
    pids = {name: node.process.pid for name, node in cluster.nodes.items()}
    servers = [
        *(f"    kill -9 {node.process.pid}    Cassandra {node.address}" for node in cassandra.nodes),
        *(f"    kill -9 {node.process.pid}    NATS on port {node.port}" for node in nats.nodes),
        *(f"    kill -9 {pid}    {name}" for name, pid in pids.items()),
    ]
    return f"""
{ann}  password {passwords[ann]}
{bob}  password {passwords[bob]}

Read on either node:

    curl 'imap://127.0.0.1:{cluster.port("imap")}/INBOX;MAILINDEX=1' --user {ann}:{passwords[ann]}
    curl imap://127.0.0.1:{cluster.port("imap", 1)}/ --user {ann}:{passwords[ann]} --request 'STATUS INBOX (MESSAGES UNSEEN)'
    curl pop3://127.0.0.1:{cluster.port("pop3", 1)}/ --user {ann}:{passwords[ann]}

Send through either:

    printf 'Subject: hello\\r\\n\\r\\nhello\\r\\n' | curl smtp://127.0.0.1:{cluster.port("smtp")} --mail-from x@example.net --mail-rcpt {ann} -T -
    printf 'Subject: hello\\r\\n\\r\\nhello\\r\\n' | curl smtp://127.0.0.1:{cluster.port("smtp", 1)} --mail-from x@example.net --mail-rcpt {bob} -T -

Manage it:

    {Path(sys.executable).with_name("mailctl")} --config {next(iter(cluster.nodes.values())).config} user list

Kill what you like (a mail node that was killed comes back after two seconds; one node of three of the others is not missed):

{chr(10).join(servers)}
"""


def watch(cluster: MailCluster) -> None:
    """Bring back mail nodes that have died, until Ctrl-C."""
    while True:
        time.sleep(2)
        for node in cluster.nodes.values():
            if not node.process.running:
                print(f"{node.name:>10} | has died; it is started again", flush=True)
                node.start(wait=False)


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.services.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--once", action="store_true", help="start, see that everything answers, and end")
    wanted = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = new_folder("cluster")
    started: list[Any] = []  # servers of several kinds, each with stop()
    logs: Logs | None = None
    try:
        fetch.fetch()
        versity = VersityGateway(folder / "s3")
        nats = Nats(folder / "nats", nodes=3)
        cassandra = Cassandra(folder / "cassandra", nodes=3)
        for name, server in (("VersityGW", versity), ("three NATS nodes", nats), ("three Cassandra nodes (a minute)", cassandra)):
            print(f"starting {name}", flush=True)
            started.append(server)
            server.start()
        storage = Storage(cassandra.url("mail"), versity.url("mail"), nats.url())
        cluster = MailCluster(folder / "mail", storage, NODES, ports=ports())
        started.append(cluster)
        print("starting two nodes each for SMTP, delivery, IMAP", flush=True)
        cluster.start()
        passwords = fill(cluster)
        print(instructions(cluster, cassandra, nats, passwords), flush=True)
        if not wanted.once:
            logs = Logs({name: node.process.log for name, node in cluster.nodes.items()})
            logs.start()
            print("Everything runs. Ctrl-C ends it.", flush=True)
            watch(cluster)
    except KeyboardInterrupt:
        print("ending", file=sys.stderr)
    except (fetch.Missing, NotReady) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        if logs is not None:
            logs.stop()
        for server in reversed(started):
            server.stop()
        remove(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
