"""Name servers that never answer: mail is taken all the same, in bounded time, and the next one does not wait as long."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.dns.fakes import Scripted
from tests.filters.asking import Message, client
from twisted_mail.dns.resolver import Resolver
from twisted_mail.dns.servers import NameServer
from twisted_mail.dns.values import DNSFailure
from twisted_mail.filters.arc_stage import ARCStage
from twisted_mail.filters.dkim_stage import DKIMStage
from twisted_mail.filters.dmarc_stage import DMARCStage
from twisted_mail.filters.gauntlet import Gauntlet, Post
from twisted_mail.filters.helo import Helo
from twisted_mail.filters.iprev_stage import IPRevStage
from twisted_mail.filters.spf import CheckHost
from twisted_mail.filters.spf_stage import SPFStage
from twisted_mail.filters.values import Action, Mail

T = TypeVar("T")


class House:
    """A gauntlet of all that asks the DNS, over a resolver whose servers are silent."""

    def __init__(self, servers: int = 1) -> None:
        self.clock = Clock()
        self.net = Scripted(self.clock)
        addresses = [f"192.0.2.{53 + number}" for number in range(servers)]
        self.net.silent = set(addresses)
        self.resolver = Resolver(self.net, tuple(map(NameServer, addresses)), self.clock)
        dns = self.resolver
        stages: list[Any] = [
            IPRevStage(dns, self.clock),
            Helo(dns, self.clock),
            SPFStage(CheckHost(dns, self.clock)),
            DKIMStage(dns),
            ARCStage(dns),
            DMARCStage(dns, self.clock),
        ]
        self.gauntlet = Gauntlet([Post(stage=stage, seconds=25.0) for stage in stages], self.clock)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Until it is over."""
        outcome: list[Any] = []
        Deferred.fromCoroutine(work).addBoth(outcome.append)
        for _ in range(10_000):
            if outcome:
                break
            self.clock.advance(0.1)
        [result] = outcome
        if hasattr(result, "raiseException"):
            result.raiseException()
        return result  # type: ignore[no-any-return]

    async def transaction(self, number: int) -> dict[str, str]:
        """One message of a new peer with names of its own: results by method."""
        peer = client(f"198.51.100.{number}", f"mx{number}.example.net")
        passage = self.gauntlet.enter(peer)
        assert await passage.connect() is None
        assert await passage.helo() is None
        mail = Mail(peer, f"ann@d{number}.example.org")
        begun = await passage.begin(mail)
        assert begun is None or begun.verdict.action < Action.JUNK
        reading = passage.read()
        octets = f"From: ann@a{number}.example.com\r\nDKIM-Signature: v=1; a=rsa-sha256; d=s{number}.example.com; s=k; h=from; bh=AA==; b=AA==\r\n\r\nhi\r\n".encode()
        await reading.write(octets)
        found = await reading.finish(Message(octets, mail))
        assert all(finding.verdict.action < Action.JUNK for finding in found)
        results = [result for finding in [*passage.findings(), *found] for result in finding.verdict.results]
        await passage.close()
        return {result.method: result.value for result in results}


@pytest.mark.parametrize("servers", [1, 2, 3])
def test_mail_is_taken_and_the_next_does_not_wait_as_long(servers: int) -> None:
    house = House(servers)
    house.wait(house.transaction(0))
    first = house.clock.seconds()
    assert first < 30.0
    results = house.wait(house.transaction(1))
    second = house.clock.seconds() - first
    assert {name: results[name] for name in ("spf", "dkim", "dmarc")} == {"spf": "temperror", "dkim": "temperror", "dmarc": "temperror"}
    assert second < 6.0
    for number in range(2, 5):
        house.wait(house.transaction(number))
    assert house.clock.seconds() - first < 4 * 6.0


def test_one_answer_and_they_are_there_again() -> None:
    house = House()
    house.wait(house.transaction(0))
    house.wait(house.transaction(1))
    house.net.silent.clear()
    house.net.answering = lambda asked: asked.reply(rcode="NXDOMAIN")
    results = house.wait(house.transaction(2))
    assert (results["spf"], results["dkim"], results["dmarc"]) == ("none", "permerror", "none")
    house.net.silent = {"192.0.2.53"}
    before = house.clock.seconds()
    with pytest.raises(DNSFailure):
        house.wait(_of(house.resolver.a("slow.example")))
    assert house.clock.seconds() - before == pytest.approx(14.0, abs=0.3)  # tried as patiently as ever


async def _of(answer: Awaitable[T]) -> T:
    return await answer


def test_a_single_slow_question_makes_nobody_impatient() -> None:
    house = House()
    with pytest.raises(DNSFailure):
        house.wait(_of(house.resolver.a("one.example")))
    before = house.clock.seconds()
    with pytest.raises(DNSFailure):
        house.wait(_of(house.resolver.a("two.example")))
    assert house.clock.seconds() - before > 3.0


def test_dead_servers_of_one_domain_make_nobody_impatient_either() -> None:
    house = House()
    for _ in range(4):
        with pytest.raises(DNSFailure):
            house.wait(_of(house.resolver.mx("dead.example")))
        house.clock.advance(10)
    before = house.clock.seconds()
    with pytest.raises(DNSFailure):
        house.wait(_of(house.resolver.mx("alive.example")))
    assert house.clock.seconds() - before == pytest.approx(14.0, abs=0.3)
