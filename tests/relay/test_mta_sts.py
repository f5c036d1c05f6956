"""MTA-STS policies: read, fetched, kept, and held on to."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no types)

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.dns.fakes import TableDNS
from twisted_mail.dns.values import DNSFailure
from twisted_mail.relay.https import HTTPFailure, HTTPResponse, UntrustedServer
from twisted_mail.relay.mta_sts import MTASTS, SPACE, BadPolicy, MTASTSSettings, Policy, parse_policy, policy_id
from twisted_mail.relay.values import TLSFailure
from twisted_mail.storage.interfaces import Unavailable
from twisted_mail.storage.memory import MemoryRecords

GOOD = b"version: STSv1\r\nmode: enforce\r\nmx: mail.example.org\r\nmx: *.Example.net\r\nmax_age: 604800\r\n"


@pytest.mark.parametrize(
    ("records", "id"),
    [
        ([b"v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
        ([b"v=STSv1;id=1"], "1"),
        ([b"other", b"v=STSv1; id=1;", b"v=spf1 -all"], "1"),
        ([b"v=STSv1; id=1; new=thing ;"], "1"),
        ([], None),
        ([b"v=STSv1; id=1;", b"v=STSv1; id=2;"], None),  # nobody could say which
        ([b"v=STSv1;"], None),
        ([b"v=STSv1; id=a-b"], None),
        ([b"v=STSv1; id=" + b"1" * 33], None),
        ([b"v=STSv1; id=1; id=2"], None),
        ([b"v=STSv1; nonsense"], None),
        ([b"v=STSv2; id=1"], None),
        ([b" v=STSv1; id=1"], None),
        ([b"v=STSv1; id=\xff"], None),
        ([b"v=STSv1; " + b"x=1;" * 5000 + b"id=1"], None),
    ],
)
def test_the_txt_record(records: list[bytes], id: str | None) -> None:
    assert policy_id(records) == id


def test_a_policy() -> None:
    policy = parse_policy(GOOD)
    assert (policy.mode, policy.mx, policy.max_age) == ("enforce", ("mail.example.org", "*.example.net"), 604800)
    assert policy.lines[0] == "version: STSv1" and len(policy.lines) == 5
    assert policy.allows("mail.example.org") and policy.allows("mx1.example.net")
    for host in ("a.mx.example.net", "example.net", "example.org", "x.mail.example.org", ""):
        assert not policy.allows(host), host


def test_what_a_policy_may_also_be() -> None:
    assert parse_policy(b"version:STSv1\nmode:none\nmax_age:0").mode == "none"
    assert parse_policy(GOOD + b"future: thing\n\nmode: none\n").mode == "enforce"
    assert parse_policy(GOOD.replace(b"604800", b"9999999999")).max_age == 31_557_600
    assert parse_policy(GOOD.replace(b"mail.example", "b\u00fccher.example".encode())).mx[0] == "xn--bcher-kva.example.org"


@pytest.mark.parametrize(
    "octets",
    [
        b"", b"<html>", b"\xff" + GOOD, GOOD.replace(b"STSv1", b"STSv2"), GOOD.replace(b"enforce", b"Enforce"), GOOD.replace(b"604800", b"-1"),
        GOOD.replace(b"604800", b""), GOOD.replace(b"604800", b"99999999999"), b"version: STSv1\nmode: testing\nmax_age: 1\n",
        GOOD.replace(b"mail.example.org", b"[192.0.2.1]"), GOOD.replace(b"mail.example.org", b"192.0.2.1"), GOOD.replace(b"*.Ex", b"m*.Ex"),
        GOOD + b"a line without a key\n", GOOD + b"".join(b"mx: mx%d.example.org\n" % n for n in range(300)), GOOD.replace(b"mode: enforce", b""),
    ],
)  # fmt: skip
def test_no_policy(octets: bytes) -> None:
    with pytest.raises(BadPolicy):
        parse_policy(octets)


class FakeHTTPS:
    """Answers as the test says; a list of deferreds where it should hang."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.asked: list[str] = []
        self.answer: Any = HTTPResponse(200, "text/plain", GOOD)
        self.hanging: list[Deferred[Any]] = []

    async def get(self, host: str, path: str, *, port: int, seconds: float, octets: int) -> HTTPResponse:
        self.asked.append(f"https://{host}:{port}{path}")
        answer = self.answer
        if answer is None:
            waiting: Deferred[Any] = Deferred()
            self.hanging.append(waiting)
            call = self.clock.callLater(seconds, lambda: waiting.called or waiting.errback(HTTPFailure("late")))  # type: ignore[func-returns-value]
            answer = await waiting
            if call.active():
                call.cancel()
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, HTTPResponse)
        return answer


class Broken(MemoryRecords):
    """A store that is down."""

    async def get(self, space: str, key: str) -> bytes | None:
        raise Unavailable("down")

    async def put(self, space: str, key: str, value: bytes, ttl: float | None = None) -> None:
        raise Unavailable("down")


class PolicyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.https = FakeHTTPS(self.clock)
        self.dns = TableDNS({})
        self.publish("1")
        self.records: MemoryRecords = MemoryRecords(self.clock)
        self.failures: list[tuple[str, TLSFailure, str]] = []
        self.sts = self.build()

    def build(self, **settings: Any) -> MTASTS:
        return MTASTS(
            self.dns,
            self.https,  # type: ignore[arg-type]  # as much of it as is used
            self.records,
            self.clock,
            MTASTSSettings(port=8443, **settings),
            wall=self.clock.seconds,
            failed=lambda *what: self.failures.append(what),
        )

    def publish(self, id: str | None) -> None:
        self.dns.table["_mta-sts.example.org", "TXT"] = [] if id is None else [f"v=STSv1; id={id};".encode()]

    def ask(self, sts: MTASTS | None = None, domain: str = "example.org") -> Deferred[Policy | None]:
        return Deferred.fromCoroutine((sts or self.sts).policy(domain))

    def policy(self, sts: MTASTS | None = None) -> Policy | None:
        return self.successResultOf(self.ask(sts))

    def held(self, sts: MTASTS | None = None) -> Policy:
        policy = self.policy(sts)
        assert policy is not None
        return policy

    def test_fetched_once_and_then_known(self) -> None:
        policy = self.held()
        self.assertEqual((policy.mode, policy.id, policy.fetched), ("enforce", "1", 1_800_000_000))
        self.policy()
        self.assertEqual(self.https.asked, ["https://mta-sts.example.org:8443/.well-known/mta-sts.txt"])

    def test_no_record_no_fetch(self) -> None:
        for table in ([], [b"v=spf1 -all"], DNSFailure("time-out")):
            self.dns.table["_mta-sts.example.org", "TXT"] = table
            self.assertIsNone(self.policy())
        self.assertEqual(self.https.asked, [])

    def test_a_policy_stays_in_force_when_record_and_host_are_gone(self) -> None:
        self.policy()
        self.https.answer = HTTPFailure("gone")
        for table in ([], DNSFailure("time-out"), [b"v=STSv1; id=2;"]):
            self.dns.table["_mta-sts.example.org", "TXT"] = table
            self.clock.advance(86_000)
            self.assertEqual(self.held().id, "1")
        self.clock.advance(604_800)
        self.assertIsNone(self.policy())

    def test_other_nodes_and_later_runs_find_it_in_the_store(self) -> None:
        first = self.held()
        self.https.asked.clear()
        self.https.answer = HTTPFailure("gone")
        self.publish(None)
        self.assertEqual(self.policy(self.build()), first)
        self.assertEqual(self.https.asked, [])
        self.clock.advance(604_801)
        self.assertIsNone(self.policy(self.build()))
        self.assertIsNone(self.successResultOf(Deferred.fromCoroutine(self.records.get(SPACE, "example.org"))))

    def test_a_new_id_is_fetched_while_the_old_policy_holds(self) -> None:
        self.policy()
        self.publish("2")
        self.https.answer = None
        self.assertEqual(self.held().id, "1")  # nobody waits
        self.assertEqual(self.held().id, "1")
        self.assertEqual(len(self.https.asked), 2)
        self.https.hanging[0].callback(HTTPResponse(200, "text/plain", GOOD.replace(b"enforce", b"none")))
        self.assertEqual((self.held().id, self.held().mode), ("2", "none"))

    def test_a_day_later_it_is_fetched_again_under_the_same_id(self) -> None:
        self.policy()
        self.clock.advance(86_401)
        self.policy()
        self.assertEqual(len(self.https.asked), 2)
        self.assertEqual(self.held().fetched, 1_800_086_401)

    def test_a_policy_host_that_hangs_holds_mail_up_once_and_within_the_limit(self) -> None:
        self.https.answer = None
        first, second = self.ask(), self.ask()
        self.clock.advance(19)
        self.assertNoResult(first)
        self.clock.advance(2)
        self.assertIsNone(self.successResultOf(first))
        self.assertIsNone(self.successResultOf(second))
        self.assertEqual(self.failures, [("example.org", TLSFailure.STS_POLICY_FETCH_ERROR, "late")])
        self.assertIsNone(self.policy())  # at once now
        self.assertEqual(len(self.https.asked), 1)
        self.clock.advance(300)
        self.https.answer = HTTPResponse(200, "text/plain", GOOD)
        self.assertEqual(self.held().id, "1")

    def test_many_policy_hosts_that_hang_hold_each_domain_up_no_longer(self) -> None:
        self.https.answer = None
        sts = self.build(fetches=2)
        waiting = []
        for number in range(10):
            self.dns.table[f"_mta-sts.d{number}.example", "TXT"] = [b"v=STSv1; id=1"]
            waiting.append(self.ask(sts, f"d{number}.example"))
        self.clock.advance(20)
        self.assertEqual([self.successResultOf(each) for each in waiting], [None] * 10)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_who_stops_waiting_stops_nothing(self) -> None:
        self.https.answer = None
        first, second = self.ask(), self.ask()
        first.cancel()
        self.failureResultOf(first)
        self.https.hanging[0].callback(HTTPResponse(200, "text/plain", GOOD))
        self.assertIsNotNone(self.successResultOf(second))

    def test_answers_that_are_no_policy(self) -> None:
        for answer, failure in (
            (HTTPResponse(404, "text/plain", GOOD), TLSFailure.STS_POLICY_FETCH_ERROR),
            (HTTPResponse(301, "text/plain", GOOD), TLSFailure.STS_POLICY_FETCH_ERROR),
            (HTTPResponse(200, "text/html", GOOD), TLSFailure.STS_POLICY_INVALID),
            (HTTPResponse(200, "text/plain", b"nonsense"), TLSFailure.STS_POLICY_INVALID),
            (UntrustedServer("expired"), TLSFailure.STS_WEBPKI_INVALID),
        ):
            self.https.answer = answer
            self.assertIsNone(self.policy(self.build()))
            self.assertEqual(self.failures[-1][1], failure)

    def test_a_store_that_is_down_costs_nothing_but_its_memory(self) -> None:
        self.records = Broken(self.clock)
        sts = self.build()
        self.assertEqual(self.held(sts).id, "1")
        self.assertEqual(self.held(sts).id, "1")
        self.assertEqual(len(self.https.asked), 1)

    def test_a_clock_that_is_put_back_does_not_lengthen_a_life(self) -> None:
        self.policy()
        self.clock.rightNow -= 10 * 86_400
        self.publish(None)
        self.assertIsNone(self.policy())

    def test_the_longest_policy_has_room_in_the_store(self) -> None:
        label = "x" * 60
        lines = "".join(f"mx: *.{label}.{label}.{label}.m{n}.example.org\n" for n in range(98))
        rest = "x: " + "\u00e4" * 9_000 + "\ny: " + "\0" * 9_000
        self.https.answer = HTTPResponse(200, "text/plain", GOOD + lines.encode() + rest.encode())
        policy = self.held()
        self.assertEqual(self.policy(self.build()), policy)

    def test_memory_is_bounded(self) -> None:
        sts = self.build(entries=5)
        for number in range(20):
            self.successResultOf(self.ask(sts, f"d{number}.example"))
        self.assertEqual(len(sts._known), 5)

    def test_what_is_in_the_store_may_be_nonsense(self) -> None:
        for nonsense in (b"", b"[]", b"{}", b'{"mode": 1}', b"\xff"):
            self.successResultOf(Deferred.fromCoroutine(self.records.put(SPACE, "example.org", nonsense)))
            self.publish(None)
            self.assertIsNone(self.policy(self.build()))
