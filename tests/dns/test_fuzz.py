"""Generated replies: whatever comes, a question ends in an answer, a denial or a failure, and in time."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no types)

from __future__ import annotations

import random

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.dns.fakes import Asked, Scripted, reply_to
from twisted_mail.dns.resolver import Resolver, ResolverSettings
from twisted_mail.dns.servers import NameServer
from twisted_mail.dns.values import Answer, DNSFailure, NoSuchName

NAMES = ["a.example.", "b.example.", "A.example.", "mx.b.example.", "c.d.example.", "."]


def _record(rng: random.Random) -> str:
    name, other = rng.choice(NAMES), rng.choice(NAMES)
    data = rng.choice([
        f"MX {rng.randrange(4)} {other}", f"CNAME {other}", f"CNAME {other}", "A 192.0.2.1", "AAAA 2001:db8::1", 'TXT "v=STSv1;" "id=1"',
        f"TLSA 3 1 1 {'ab' * 32}", f"SOA {other} {other} 1 2 3 4 {rng.randrange(9999)}", f"NS {other}", f"DNAME {other}",
    ])  # fmt: skip
    return f"{name} {rng.choice([0, 1, 60, 2**31 - 1])} IN {data}"


def _answer(rng: random.Random, asked: Asked) -> None:
    octets = reply_to(
        asked.octets,
        *(_record(rng) for _ in range(rng.randrange(6))),
        authority=tuple(_record(rng) for _ in range(rng.randrange(3))),
        rcode=rng.choice(["NOERROR", "NOERROR", "NXDOMAIN", "SERVFAIL", "FORMERR", "REFUSED"]),
        authentic=rng.random() < 0.5,
        truncated=rng.random() < 0.1,
    )
    if rng.random() < 0.3:
        spoiled = bytearray(octets)
        for _ in range(rng.randrange(1, 5)):
            spoiled[rng.randrange(len(spoiled))] = rng.randrange(256)
        octets = bytes(spoiled[: rng.randrange(len(spoiled) + 1)])
    asked.receive(octets)


def check(seed: int) -> None:
    rng, clock = random.Random(seed), Clock()
    net = Scripted(clock)
    net.answering = lambda asked: _answer(rng, asked)
    resolver = Resolver(net, (NameServer("192.0.2.1"),), clock, ResolverSettings(dnssec=True, rounds=2), rng=random.Random(seed))
    questions = [resolver.mx, resolver.a, resolver.aaaa, resolver.txt, resolver.tlsa, resolver.cname]
    for _ in range(6):
        ends: list[object] = []
        name = rng.choice(NAMES[:-1])
        Deferred.fromCoroutine(rng.choice(questions)(name)).addBoth(ends.append)
        clock.pump([1.0] * 25)
        assert len(ends) == 1, seed
        end = getattr(ends[0], "value", ends[0])
        assert isinstance(end, (Answer, DNSFailure, NoSuchName)), (seed, end)
        if isinstance(end, Answer):
            assert 0 <= end.ttl <= 86_400, (seed, end)
    assert len(net.asked) < 6 * 9 * 4, seed
    assert not clock.getDelayedCalls(), seed


def test_generated_replies() -> None:
    for seed in range(20):
        check(seed)


@pytest.mark.fuzz
def test_many_generated_replies() -> None:
    for seed in range(20, 3_000):
        check(seed)
