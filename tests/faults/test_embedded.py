"""The embedded server is killed and paused while clients work; what they were answered holds."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

from tests.faults.checker import check, report
from tests.faults.load import Load, look
from tests.faults.nodes import MailNode, mailctl, populate
from tests.faults.records import Recorder

ACCOUNTS = ("ann@demo.example", "bob@demo.example")


async def _with_faults(load: Load, node: MailNode, seconds: float, seed: int) -> None:
    loop, chance = asyncio.get_running_loop(), random.Random(seed)
    working = asyncio.ensure_future(load.run())
    end = loop.time() + seconds
    try:
        for number in range(100):
            await asyncio.sleep(1.5 + chance.random() * 2)
            if loop.time() > end:
                break
            if number % 2:
                load.recorder.note("pause")
                node.pause()
                await asyncio.sleep(1)
                node.resume()
            else:
                load.recorder.note("kill")
                node.kill()
                await asyncio.to_thread(node.start)
    finally:
        load.ended.set()
        await asyncio.wait_for(working, 90)


def test_what_clients_were_answered_holds_when_the_server_is_killed(tmp_path: Path) -> None:
    node = MailNode(tmp_path, "one", ("smtp", "imap"))
    populate(node, ACCOUNTS)
    node.start()
    recorder = Recorder(tmp_path / "records.jsonl")
    try:
        load = Load(recorder, [node], [node], ACCOUNTS, seed=1, seconds=20, pause=0.02)
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(_with_faults(load, node, 12, 1))
            pictures = [loop.run_until_complete(look(node, account)) for account in ACCOUNTS]
        finally:
            loop.close()
        recorder.flush()
        violations = check(recorder, pictures)
        assert not violations, report(violations)
        for account in ACCOUNTS:
            said = json.loads(mailctl(node, "account", "check", account, "--deep", "--json"))
            assert said["result"] == "ok", said
        counts = recorder.counts()
        assert counts["arrived answered"] > 50 and counts["stored answered"] > 50 and counts["moved answered"] > 10, counts
        assert counts["shown"] > 50, counts
    finally:
        node.stop()
