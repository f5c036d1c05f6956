"""The mail nodes of the fault tests, and the accounts that the load works on."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Coroutine, Sequence
from typing import Any, Final, TypeVar

from tests.faults.blobs import check_blobs, check_presence
from tests.faults.checker import check, missing, report
from tests.faults.holdings import holdings
from tests.faults.load import Load, look
from tests.faults.records import Picture, Recorder
from tests.faults.warehouse import Warehouse
from tests.faults.wire import Cut
from tests.services.mail import MailCluster, MailNode
from tests.services.processes import NotReady

__all__ = ["ACCOUNTS", "EXTRA", "PASSWORD", "judge", "judge_blobs", "pictures", "populate", "run_in_loop", "work_under"]

PASSWORD: Final = "wise owls hoot at 3"
ACCOUNTS: Final = ("ann@demo.example", "bob@demo.example")
EXTRA: Final = """\
[auth]
failures_per_minute = 0
allow_cleartext = ["127.0.0.0/8", "198.18.0.0/15"]
argon2_memory = "64KiB"
argon2_passes = 1
[limits]
connections_per_address = 0
[process]
drain = "5s"
"""
"""Configuration that every node has: logging in is no subject here, so it costs nothing."""

T = TypeVar("T")


def run_in_loop(work: Coroutine[Any, Any, T]) -> T:
    """In an event loop of its own, beside the reactor's."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def populate(cluster: MailCluster, accounts: Sequence[str] = ACCOUNTS) -> None:
    """The domains and the accounts, all with `PASSWORD`."""
    for domain in sorted({account.rpartition("@")[2] for account in accounts}):
        _surely(cluster, "domain", "add", domain, "--no-dkim")
    for account in accounts:
        _surely(cluster, "user", "add", account, "--password-stdin", given=PASSWORD + "\n")


def _surely(cluster: MailCluster, *words: str, given: str = "") -> None:
    """A database that has just started, on a machine with much to do, may miss its own time limits at first."""
    for attempt in range(6):
        try:
            cluster.mailctl(*words, given=given)
            return
        except NotReady as error:
            if attempt and "already" in str(error):
                return  # by the attempt before
            if attempt == 5:
                raise
        time.sleep(2)


async def pictures(recorder: Recorder, nodes: Sequence[MailNode], accounts: Sequence[str], seconds: float) -> list[Picture]:
    """What is in the accounts once nothing that was answered is missing any more, or *seconds* are over.

    The nodes are asked in turn.
    """
    deadline = time.monotonic() + seconds
    turn = 0
    while True:
        turn += 1
        try:
            found = [await look(nodes[turn % len(nodes)], account, PASSWORD) for account in accounts]
        except Cut:
            if time.monotonic() > deadline:
                raise
        else:
            if not missing(recorder, found) or time.monotonic() > deadline:
                return found
        await asyncio.sleep(1.0)


def judge(recorder: Recorder, found: Sequence[Picture], cluster: MailCluster) -> None:
    """Raises AssertionError: a promise was broken, or the log, what it gives, rows, blobs and lists do not agree."""
    recorder.flush()
    violations = check(recorder, found)
    assert not violations, report(violations)
    for picture in found:
        said = json.loads(cluster.mailctl("account", "check", picture.account, "--deep", "--json"))
        assert said["result"] == "ok", said
        assert said["messages"] >= len(picture.messages), said


def judge_blobs(recorder: Recorder, warehouse: Warehouse, cluster: MailCluster) -> None:
    """Raises AssertionError: the sweeper, which is still at work, has taken something that was needed, or nothing at all;
    or this judgement is blind, which a blob shows that is taken away by hand."""
    config = next(iter(cluster.nodes.values())).config
    found = holdings(config)
    warehouse.stop()
    taken = warehouse.presence.taken()
    violations = check_blobs(found, taken) + check_presence(recorder, warehouse.presence)
    assert not violations, report(violations)
    assert len(taken) > 20, f"only {len(taken)} blobs were swept"
    attached = {each.attached for each in recorder.arrived} - {""}
    victim = next(name for name in found.needed if name.partition(".")[0] in attached)
    path = warehouse.paths()[victim]
    aside = shutil.move(path, cluster.folder / "aside")
    codes = {each.code for each in check_blobs(holdings(config), {victim})}
    shutil.move(aside, path)
    assert codes == {"blob-taken"}, codes
    recorder.note(f"{len(taken)} blobs were swept, {len(found.there)} are there, {len(found.needed)} are needed")


async def work_under(load: Load, faults: Coroutine[Any, Any, object]) -> None:
    """The load from before the first fault until after the last. Raises what either raises."""
    working = asyncio.ensure_future(load.run())
    failing = asyncio.ensure_future(faults)
    try:
        await asyncio.wait({working, failing}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        await failing
        await asyncio.sleep(2.0)
    finally:
        load.ended.set()
        if not failing.done():
            failing.cancel()
    await asyncio.wait_for(working, 2 * load.seconds + 30)
