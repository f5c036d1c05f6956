"""``python -m benchmarks.judging [--messages N] [--json]``: what judging a message costs, without daemons.

A message of 4 kB from a stranger goes in twice: straight into an account in memory, and through all that looks at mail by
default (SPF, reverse name, HELO, limits, DKIM without a signature, DMARC, ARC, the built-in score, the story that is kept).
The difference is the pipeline's. Names are answered from a table, so nothing waits; CPU of this process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections.abc import Coroutine
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from benchmarks.figures import Figure
from tests.dns.fakes import TableDNS
from twisted_mail.account.service import AccountService
from twisted_mail.delivery import DeliverySettings, MailIntake, Ways
from twisted_mail.delivery.judging import Judge, JudgeSettings
from twisted_mail.delivery.placing import Placer
from twisted_mail.delivery.stories import Stories
from twisted_mail.filters.arc_stage import ARCStage
from twisted_mail.filters.builtin_score import BuiltinScore
from twisted_mail.filters.dkim_stage import DKIMStage
from twisted_mail.filters.dmarc_stage import DMARCStage
from twisted_mail.filters.early_talkers import EarlyTalkers
from twisted_mail.filters.gauntlet import Gauntlet, Post
from twisted_mail.filters.helo import Helo
from twisted_mail.filters.iprev_stage import IPRevStage
from twisted_mail.filters.rates import DEFAULT_LIMITS, Rates, limits_from
from twisted_mail.filters.spf import CheckHost
from twisted_mail.filters.spf_stage import SPFStage
from twisted_mail.queueing.spool import SpoolFolder
from twisted_mail.services import Envelope, Peer
from twisted_mail.storage.interfaces import AccountRecord, Domain, EngineContext
from twisted_mail.storage.memory import MemoryEngine
from twisted_mail.values import AccountId

_WORDS: Final = "meeting report invoice birds anvil weather python storage release question answer holiday order".split()
PEER: Final = Peer("192.0.2.7", 4711, service="smtp")


def message(number: int) -> bytes:
    """4 kB as people and lists send them, signed by nobody."""
    chance = random.Random(number)
    head = [
        f"Received: from in.b.example (in.b.example [198.51.100.{number % 250}]) by mail.b.example with ESMTPS id {number:x};",
        "\tTue, 24 Nov 2026 12:00:00 +0000",
        f"From: Bob Builder <bob{number % 50}@b.example>",
        "To: Ann <ann@example.org>",
        f"Subject: {' '.join(chance.choices(_WORDS, k=5))}",
        "Date: Tue, 24 Nov 2026 12:00:00 +0000",
        f"Message-ID: <{number}.{chance.getrandbits(48):x}@b.example>",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "",
    ]
    text = [" ".join(chance.choices(_WORDS, k=11)) + "." for _ in range(46)]
    return "\r\n".join([*head, *text, ""]).encode()


TABLE: Final[dict[tuple[str, str], Any]] = {
    ("b.example", "TXT"): [b"v=spf1 ip4:192.0.2.0/24 include:more.b.example -all"],
    ("more.b.example", "TXT"): [b"v=spf1 a:mail.b.example ~all"],
    ("b.example", "MX"): [],
    ("mail.b.example", "A"): ["192.0.2.7"],
    ("192.0.2.7", "PTR"): ["mail.b.example"],
    ("_dmarc.b.example", "TXT"): [b"v=DMARC1; p=reject"],
}


def now(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of what does not have to wait."""
    results: list[Any] = []
    Deferred.fromCoroutine(work).addBoth(results.append)
    if not results:
        raise RuntimeError("it waits")
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


class Room:
    """A delivery room over stores in memory, with or without filters in front."""

    def __init__(self, folder: Path, judged: bool) -> None:
        clock = Clock()
        clock.advance(time.time())
        engine = MemoryEngine(EngineContext(clock, folder))
        accounts = AccountService(
            log=engine.account_log,
            messages=engine.messages,
            blobs=engine.blobs,
            leases=engine.leases,
            bus=engine.bus,
            clock=clock,
            wall=time.time,
        )
        # the usual limits, as far as they count, but none that one peer reaches here
        limits = [replace(limit, most=10**9) for limit in limits_from(DEFAULT_LIMITS)]
        self.gauntlet = Gauntlet(
            [
                Post(stage=stage)
                for stage in (
                    Rates(engine.cache, engine.allowances, time.time, limits),
                    EarlyTalkers(clock, greeting_seconds=0.0),
                    IPRevStage(TableDNS(TABLE), clock),
                    Helo(TableDNS(TABLE), clock, own_names=("mx.example.org",)),
                    SPFStage(CheckHost(TableDNS(TABLE), clock)),
                    DKIMStage(TableDNS(TABLE)),
                    ARCStage(TableDNS(TABLE)),
                    DMARCStage(TableDNS(TABLE), clock),
                    BuiltinScore(time.time),
                )
            ],
            clock,
        )
        stories = Stories(engine.records)
        spools = SpoolFolder(folder, maybeDeferred)
        judge = Judge(self.gauntlet, spools, JudgeSettings(hostname="mx.example.org"), tell=stories.tell)
        self.intake = MailIntake(
            engine.directory,
            Ways(accounts=accounts, clock=clock, placer=Placer(accounts)),
            DeliverySettings(hostname="mx.example.org", remember_seconds=60.0),
            judge=judge if judged else None,
        )
        now(engine.directory.add_domain(Domain("example.org")))
        now(engine.directory.add_account(AccountRecord(AccountId.new(), "ann@example.org")))

    async def deliver(self, octets: bytes, number: int) -> None:
        """One connection, one message: what a session awaits."""
        sender = f"bob{number % 50}@b.example"
        visit = self.intake.visit(PEER)
        if visit is not None:
            await visit.connected()
            await visit.greeted("mail.b.example", PEER, extended=True)
            await visit.sender(sender, identity=None, size=len(octets), body="7BIT", smtputf8=False)
        recipient = await self.intake.recipient("ann@example.org", identity=None)
        if visit is not None:
            await visit.recipient(recipient)
        envelope = Envelope(sender, (recipient,), PEER, "mail.b.example", "ESMTP", visit=visit)
        incoming = await self.intake.begin(envelope)
        await incoming.write(octets)
        (outcome,) = await incoming.finish()
        if outcome.refused is not None:
            raise outcome.refused
        if visit is not None:
            await visit.ended()
            await visit.closed()


def cost(room: Room, messages: list[bytes]) -> float:
    """Microseconds of CPU a message."""
    began = time.process_time()
    for number, octets in enumerate(messages):
        now(room.deliver(octets, number))
    return (time.process_time() - began) / len(messages) * 1e6


def figures(count: int) -> list[Figure]:
    """Measured in turns, so that both meet the same machine; the smallest of five."""
    messages = [message(number) for number in range(count)]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        plain, judged = Room(Path(folder), False), Room(Path(folder), True)
        for room in (plain, judged):
            cost(room, messages[:50])
        pairs = [(cost(plain, messages), cost(judged, messages)) for _ in range(5)]
        least, most = min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)
        found = [
            Figure("delivery, straight into an account in memory", least, "µs"),
            Figure("the same, judged", most, "µs"),
            Figure("judging", most - least, "µs", "at most 300"),
        ]
        for name, counted in judged.gauntlet.counts.items():
            found.append(Figure(f"of it {name}", counted.seconds / (5 * count + 50) * 1e6, "µs"))
    return found


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.judging", description=__doc__)
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    asyncio.set_event_loop(asyncio.new_event_loop())
    found = figures(arguments.messages)
    if arguments.json:
        print(json.dumps([asdict(figure) for figure in found], indent=2, ensure_ascii=False))
    else:
        for figure in found:
            print(figure)


if __name__ == "__main__":
    main()
