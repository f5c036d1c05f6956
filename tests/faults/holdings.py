"""Which blobs are needed, held and there, as the stores themselves say at the end of a run.

``python -m tests.faults.holdings CONFIG`` prints it as JSON; `holdings` starts that, since a reactor runs once in a process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Holdings", "holdings"]

BATCH = 200


@dataclass(frozen=True, slots=True)
class Holdings:
    """By object, ``hash.generation``."""

    needed: dict[str, list[str]] = field(default_factory=dict)
    """As holders: messages that are in a mailbox (``m/…``), items of the queue (``q/…``)."""
    held: dict[str, list[str]] = field(default_factory=dict)
    """Who is written down as a holder; the sweeper's marks are none."""
    there: list[str] = field(default_factory=list)


def holdings(config: Path) -> Holdings:
    """What the stores of that configuration say now. Raises AssertionError."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.holdings", str(config)],
        capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Holdings(**json.loads(done.stdout))


async def _collect(reactor: Any, config: Path) -> Holdings:
    from twisted_mail.account.manifests import refs_of
    from twisted_mail.account.references import message_holder
    from twisted_mail.account.sweeping import is_mark
    from twisted_mail.admin.opening import opened
    from twisted_mail.delivery.bodies import holder_of
    from twisted_mail.delivery.items import inbound_of
    from twisted_mail.storage.interfaces import QueueFilter
    from twisted_mail.tap.configuration import load
    from twisted_mail.values import BlobRef

    def name(ref: BlobRef) -> str:
        return f"{ref.hash}.{ref.generation}"

    needed, held = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    async with opened(reactor, load(config, os.environ)) as store:
        for record in await store.directory.accounts():
            async with store.account(record) as account:
                await account.refresh()
                for mailbox in list(account.state.mailboxes.values()):
                    columns = await account.columns(mailbox)
                    keys = [columns.key(slot) for slot in columns.live]
                    for at in range(0, len(keys), BATCH):
                        part = iter(keys[at : at + BATCH])
                        async for cells in account.rows(keys[at : at + BATCH], ("manifest",)):
                            for cell in cells:
                                holder = message_holder(record.id, next(part).id)
                                if cell is None:
                                    needed["row.0"].append(holder)  # which nothing can be
                                    continue
                                for ref in refs_of(cell[0]):
                                    needed[name(ref)].append(holder)
        after = None
        while items := await store.backend.queue.list(QueueFilter(), after):
            after = items[-1].item.id
            for status in items:
                item = status.item
                if item.body is not None and inbound_of(item).place == "blobs":
                    needed[name(item.body)].append(holder_of(item.id))
        async for ref, holder in store.backend.references.iterate():
            if not is_mark(holder):
                held[name(ref)].append(holder)
        there = [name(ref) async for ref in store.backend.blobs.iterate()]
    return Holdings(dict(needed), dict(held), there)


def _main(config: Path) -> None:
    from dataclasses import asdict

    from twisted_mail.admin.running import run

    found = run(lambda reactor: _collect(reactor, config))
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    from twisted.internet import asyncioreactor

    asyncioreactor.install()
    _main(Path(sys.argv[1]))
