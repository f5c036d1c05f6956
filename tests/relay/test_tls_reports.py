"""Sessions counted, written down, told to who wants to know, and what others tell us."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no types)

from __future__ import annotations

import gzip
import random
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.dns.fakes import TableDNS
from tests.reports.test_tls import REPORT
from twisted_mail.dns.values import DNSFailure
from twisted_mail.relay.https import HTTPFailure, HTTPResponse
from twisted_mail.relay.tls_counts import DomainCounts
from twisted_mail.relay.tls_received import ReceivedTLSReports
from twisted_mail.relay.tls_reports import TLSReports, TLSReportSettings, day_of
from twisted_mail.relay.values import Host, PolicyNote, Protection, TLSFailure, TLSMode
from twisted_mail.reports.tls import TLSReport, find_report, read_report, report_message
from twisted_mail.storage.interfaces import Record, Unavailable
from twisted_mail.storage.memory import MemoryLeases, MemoryRecords

T = TypeVar("T")
MIDNIGHT = 1_795_478_400
"""2026-11-24T00:00:00Z."""
DAY = "2026-11-24"
SETTINGS = TLSReportSettings(organization="Example Inc.", submitter="mail.example.net", contact="tls@example.net")
STS = PolicyNote("sts", "example.org", ("version: STSv1",), ("mx1.example.org",), recipients="example.org")
MX1 = Host("mx1.example.org", ("192.0.2.1",))


class FakeHTTPS:
    def __init__(self) -> None:
        self.posted: list[tuple[str, TLSReport]] = []
        self.answer: HTTPResponse | HTTPFailure = HTTPResponse(201, "", b"")

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], *, seconds: float) -> HTTPResponse:
        assert headers["Content-Type"] == "application/tlsrpt+gzip"
        self.posted.append((url, read_report(gzip.decompress(body))))
        if isinstance(self.answer, HTTPFailure):
            raise self.answer
        return self.answer


class Faulty(MemoryRecords):
    """A store that may be down."""

    down = False

    async def put(self, space: str, key: str, value: bytes, ttl: float | None = None) -> None:
        if self.down:
            raise Unavailable("down")
        await super().put(space, key, value, ttl)

    async def list(self, space: str, after: str = "", limit: int = 1000) -> Sequence[Record]:
        if self.down:
            raise Unavailable("down")
        return await super().list(space, after, limit)


class ReportCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(MIDNIGHT + 3600)
        self.records = Faulty(self.clock)
        self.leases = MemoryLeases(self.clock)
        self.dns = TableDNS({("_smtp._tls.example.org", "TXT"): [b"v=TLSRPTv1; rua=mailto:tls@example.org"]})
        self.https = FakeHTTPS()
        self.sent: list[tuple[TLSReport, str]] = []
        self.refusing = False
        self.reports = self.build("one")

    def build(self, node: str, **settings: Any) -> TLSReports:
        return TLSReports(
            self.dns,
            self.records,
            self.clock,
            self.submit,
            replace(SETTINGS, **settings),
            node=node,
            https=self.https,  # type: ignore[arg-type]  # as much of it as is used
            leases=self.leases,
            wall=self.clock.seconds,
            rng=random.Random(4),
        )

    async def submit(self, message: bytes, recipient: str) -> None:
        if self.refusing:
            raise Unavailable("the queue is full")
        report = find_report(message)
        assert report is not None
        self.sent.append((report, recipient))

    def now(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def session(self, reports: TLSReports | None = None, failure: TLSFailure | None = None, policy: PolicyNote = STS, times: int = 1) -> None:
        for _ in range(times):
            (reports or self.reports).noted(
                Protection(TLSMode.VERIFIED, "mta-sts", policy=policy), MX1, failure, "192.0.2.77", "192.0.2.1", "why" if failure else ""
            )


class CountingTests(ReportCase):
    def test_two_processes_one_report(self) -> None:
        other = self.build("two")
        self.session(times=5)
        self.session(failure=TLSFailure.CERTIFICATE_EXPIRED, times=2)
        self.session(other, times=3)
        self.session(other, TLSFailure.CERTIFICATE_EXPIRED)
        self.session(other, policy=replace(STS, kind="no-policy-found", strings=(), mx=()))
        for reports in (self.reports, other, self.reports):
            self.now(reports.flush())
        self.session(times=1)
        self.now(self.reports.flush())
        self.assertTrue(self.now(self.reports.send(DAY)))
        ((report, recipient),) = self.sent
        self.assertEqual(recipient, "tls@example.org")
        self.assertEqual((report.organization, report.contact), ("Example Inc.", "tls@example.net"))
        self.assertEqual((report.begin.isoformat(), report.end.isoformat()), ("2026-11-24T00:00:00+00:00", "2026-11-24T23:59:59+00:00"))
        bare, sts = report.policies
        self.assertEqual((bare.kind, bare.successes, bare.failures), ("no-policy-found", 1, 0))
        self.assertEqual((sts.kind, sts.domain, sts.strings, sts.mx), ("sts", "example.org", ("version: STSv1",), ("mx1.example.org",)))
        self.assertEqual((sts.successes, sts.failures), (9, 3))
        (detail,) = sts.details
        self.assertEqual(
            (detail.type, detail.sending, detail.host, detail.receiving, detail.count, detail.information),
            ("certificate-expired", "192.0.2.77", "mx1.example.org", "192.0.2.1", 3, "why"),
        )

    def test_domains_that_do_not_ask_cost_no_record(self) -> None:
        self.session(policy=PolicyNote("no-policy-found", "plain.example", recipients="plain.example"))
        self.now(self.reports.flush())
        self.assertEqual(self.now(self.records.list(self.reports.space_of(DAY, "plain.example"))), [])

    def test_what_has_no_policy_is_not_counted(self) -> None:
        self.reports.noted(Protection(TLSMode.OPPORTUNISTIC), MX1, None, "", "", "")
        self.assertEqual(self.reports._counts, {})

    def test_a_policy_that_could_not_be_had(self) -> None:
        self.reports.no_policy("example.org", TLSFailure.STS_WEBPKI_INVALID, "expired")
        self.now(self.reports.flush())
        self.now(self.reports.send(DAY))
        self.assertEqual(self.sent[0][0].policies[0].details[0].type, "sts-webpki-invalid")

    def test_a_store_that_is_down_loses_nothing(self) -> None:
        self.records.down = True
        self.session(times=2)
        self.now(self.reports.flush())
        self.session()
        self.records.down = False
        self.now(self.reports.flush())
        self.now(self.reports.send(DAY))
        self.assertEqual(self.sent[0][0].policies[0].successes, 3)

    def test_memory_and_records_are_bounded(self) -> None:
        reports = self.build("small", domains=10)
        for number in range(100):
            self.session(reports, policy=PolicyNote("sts", f"d{number}.example"))
        self.assertEqual(len(reports._counts), 10)
        counts = DomainCounts()
        for number in range(100):
            note = PolicyNote("sts", "example.org", tuple(f"{number} {n} " + "x" * 500 for n in range(100)), ("mx." + "y" * 200,) * 100)
            for host in range(100):
                counts.add(note, TLSFailure.VALIDATION_FAILURE, "192.0.2.1", f"mx{host}.{'z' * 200}", "192.0.2.2", "w" * 900)
        written = counts.write()
        self.assertLess(len(written), 60_001)
        self.assertEqual(sum(result.failures for result in DomainCounts.read(written).results()), 10_000)
        self.assertEqual(DomainCounts.read(b"nonsense").results(), ())


class ReportingTests(ReportCase):
    def counted(self) -> None:
        self.session()
        self.now(self.reports.flush())

    def test_a_day_is_told_once(self) -> None:
        self.counted()
        for reports in (self.reports, self.reports, self.build("two")):
            self.assertTrue(self.now(reports.send(DAY)))
        self.assertEqual(len(self.sent), 1)

    def test_by_one_process_at_a_time(self) -> None:
        self.counted()
        for shard in range(16):
            self.now(self.leases.acquire(f"tls-rpt/{DAY}/{shard:x}", 900))
        self.assertFalse(self.now(self.reports.send(DAY)))
        self.assertEqual(self.sent, [])
        self.clock.advance(901)
        self.assertTrue(self.now(self.reports.send(DAY)))
        self.assertEqual(len(self.sent), 1)

    def test_what_could_not_be_sent_is_tried_again_and_the_rest_is_not(self) -> None:
        self.dns.table["_smtp._tls.example.org", "TXT"] = [b"v=TLSRPTv1; rua=mailto:a@example.org,https://example.org/v1"]
        self.counted()
        self.https.answer = HTTPFailure("late")
        self.assertFalse(self.now(self.reports.send(DAY)))
        self.https.answer = HTTPResponse(503, "", b"")
        self.assertFalse(self.now(self.reports.send(DAY)))
        self.https.answer = HTTPResponse(200, "", b"")
        self.assertTrue(self.now(self.reports.send(DAY)))
        self.assertTrue(self.now(self.reports.send(DAY)))
        self.assertEqual((len(self.sent), len(self.https.posted)), (1, 3))
        self.assertEqual(self.https.posted[0][1], self.sent[0][0])

    def test_a_refusal_for_good_is_the_end_of_it(self) -> None:
        self.dns.table["_smtp._tls.example.org", "TXT"] = [b"v=TLSRPTv1; rua=https://example.org/v1"]
        self.counted()
        self.https.answer = HTTPResponse(410, "", b"")
        self.assertTrue(self.now(self.reports.send(DAY)))
        self.assertEqual(len(self.https.posted), 1)

    def test_a_queue_or_a_dns_that_takes_nothing_now(self) -> None:
        self.counted()
        self.refusing = True
        self.assertFalse(self.now(self.reports.send(DAY)))
        self.refusing = False
        self.dns.table["_smtp._tls.example.org", "TXT"] = DNSFailure("late")
        self.assertFalse(self.now(self.reports.send(DAY)))
        self.dns.table["_smtp._tls.example.org", "TXT"] = []
        self.assertTrue(self.now(self.reports.send(DAY)))  # nobody wants it any more
        self.assertEqual(self.sent, [])

    def test_many_domains(self) -> None:
        one_space = (name for n in range(9999) if self.reports.space_of(DAY, name := f"d{n}.example.org").endswith("/7"))
        for _ in range(150):  # more than a page of one space
            name = next(one_space)
            self.dns.table[f"_smtp._tls.{name}", "TXT"] = [f"v=TLSRPTv1; rua=mailto:tls@{name}".encode()]
            for node in ("one", "two"):
                counts = DomainCounts()
                counts.add(replace(STS, domain=name), None, "", "", "", "")
                self.now(self.records.put(self.reports.space_of(DAY, name), f"{name}/{node}", counts.write()))
        self.assertTrue(self.now(self.reports.send(DAY)))
        self.assertEqual(len({recipient for _, recipient in self.sent}), 150)
        self.assertEqual({report.policies[0].successes for report, _ in self.sent}, {2})

    def test_by_itself_within_four_hours_of_the_next_day(self) -> None:
        self.reports.start()
        self.session()
        self.clock.pump([60.0] * (23 * 60 + 10))
        self.assertEqual(self.sent, [])
        self.assertEqual(day_of(self.clock.seconds()), "2026-11-25")
        self.session()  # of the next day
        self.clock.pump([60.0] * 245)
        self.assertEqual([report.begin.day for report, _ in self.sent], [24])
        self.clock.pump([60.0] * 1440)
        self.assertEqual([report.begin.day for report, _ in self.sent], [24, 25])
        self.now(self.reports.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_comes_back_after_half_an_hour_and_survives_what_is_down(self) -> None:
        self.reports.start()
        self.session()
        self.clock.pump([60.0] * 2)
        self.records.down = True
        self.clock.pump([600.0] * (28 * 6))
        self.assertEqual(self.sent, [])
        self.records.down = False
        self.clock.pump([60.0] * 31)
        self.assertEqual(len(self.sent), 1)
        self.now(self.reports.stop())

    def test_stopping_writes_what_was_counted(self) -> None:
        self.reports.start()
        self.session()
        self.now(self.reports.stop())
        self.assertTrue(self.now(self.build("two").send(DAY)))
        self.assertEqual(len(self.sent), 1)


class ReceivedTests(ReportCase):
    def setUp(self) -> None:
        super().setUp()
        self.received = ReceivedTLSReports(self.records, self.is_local, wall=self.clock.seconds)

    async def is_local(self, domain: str) -> bool:
        return domain == "example.org"

    def message(self, report: TLSReport = REPORT) -> bytes:
        made = report_message(report, "example.org", "mailto:tls@example.org", submitter="m.example", sender="a@m.example", message_id="1@m.example", now=0)
        assert made is not None
        return made[0]

    def test_what_is_said_of_us_is_kept_in_short_and_once(self) -> None:
        for _ in range(2):
            self.assertEqual(self.now(self.received.take(self.message())), REPORT)
        summaries = self.now(self.received.list("example.org"))
        self.assertEqual(len(summaries), 2)  # two policies
        sts = next(summary for summary in summaries if summary.kind == "sts")
        self.assertEqual((sts.organization, sts.successes, sts.failures), ("Example Inc.", 5326, 303))
        self.assertEqual(sts.reasons, ("starttls-not-supported mx2.mail.example.org 203", "certificate-expired mx1.mail.example.org 100"))
        self.assertEqual(self.now(self.received.list("example.org", after="2026-11-25")), [])
        self.clock.advance(91 * 86_400)
        self.assertEqual(self.now(self.received.list("example.org")), [])

    def test_a_policy_of_a_host_is_kept_with_its_domain(self) -> None:
        for number, host in enumerate(("mx1.mail.example.org", "mx.provider.example")):  # the other's by the message's own word
            tlsa = replace(REPORT, id=str(number), policies=(replace(REPORT.policies[0], kind="tlsa", domain=host),))
            self.now(self.received.take(self.message(tlsa)))
        kept = self.now(self.received.list("example.org"))
        self.assertEqual({summary.domain for summary in kept}, {"mx1.mail.example.org", "mx.provider.example"})

    def test_what_is_said_of_others_or_cannot_be_read_is_not(self) -> None:
        foreign = replace(REPORT, policies=(replace(REPORT.policies[0], domain="evil.example"),))
        self.now(self.received.take(self.message(foreign).replace(b"TLS-Report-Domain: example.org", b"TLS-Report-Domain: evil.example")))
        self.assertEqual(self.now(self.received.list("evil.example")), [])
        self.assertIsNone(self.now(self.received.take(b"Subject: hello\r\n\r\nhello\r\n")))
        self.assertIsNone(self.now(self.received.take(self.message().replace(b"H4sI", b"AAAA"))))
        self.assertIsNone(self.now(self.received.take(self.message(replace(REPORT, begin=REPORT.begin.replace(year=2030))))))
        self.assertEqual(self.now(self.received.list("example.org")), [])
