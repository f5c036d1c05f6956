"""DMARC reports: counted by several processes, told once to who may be told, and those of others kept."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from twisted.internet.task import Clock

from tests.dns.fakes import TableDNS
from tests.filters.asking import now
from twisted_mail.dns.values import DNSFailure
from twisted_mail.filters.dmarc import Found, PolicyFinder
from twisted_mail.filters.dmarc_counts import PolicyCounts
from twisted_mail.filters.dmarc_received import ReceivedDMARCReports
from twisted_mail.filters.dmarc_record import ReportAddress, parse_policy
from twisted_mail.filters.dmarc_reports import DMARCReports, destinations
from twisted_mail.filters.dmarc_stage import Judged
from twisted_mail.filters.origins import SPF, Disposition, DKIMResults, DMARCResult, SPFResult
from twisted_mail.reports.daily import ReportSettings, day_of
from twisted_mail.reports.dmarc_aggregate import (
    AggregateReport,
    DKIMRow,
    PublishedPolicy,
    Row,
    SPFRow,
    packed,
    report_message,
)
from twisted_mail.reports.dmarc_reading import find_report
from twisted_mail.signatures import Result, Verification
from twisted_mail.storage.interfaces import Unavailable
from twisted_mail.storage.memory import MemoryLeases, MemoryRecords

MIDNIGHT = 1_795_478_400
"""2026-11-24T00:00:00Z."""
DAY = "2026-11-24"
SETTINGS = ReportSettings(organization="Example Inc.", submitter="mail.example.net", contact="dmarc@example.net")
RECORD = b"v=DMARC1; p=reject; rua=mailto:reports@example.org"


def judged(
    address: str = "192.0.2.7",
    author: str = "example.org",
    *,
    record: bytes = RECORD,
    policy_domain: str = "example.org",
    spf: bool = False,
    dkim: bool = True,
    signatures: int = 1,
    **more: Any,
) -> Judged:
    result = DMARCResult(
        result="pass" if spf or dkim else "fail",
        domain=author,
        policy_domain=policy_domain,
        policy=Disposition.REJECT,
        applied=more.pop("applied", Disposition.NONE if spf or dkim else Disposition.REJECT),
        spf_aligned=spf,
        dkim_aligned=dkim,
        **more,
    )
    verifications = [Verification(Result.FAIL, "changed", domain="list.example", selector="s")] * (signatures - 1)
    verifications += [Verification(Result.PASS if dkim else Result.FAIL, domain=author, selector="s1")] * bool(signatures)
    return Judged(
        MIDNIGHT + 3600.0,
        address,
        result,
        Found(author, policy_domain, parse_policy(record), Disposition.REJECT),
        SPFResult(SPF.PASS if spf else SPF.FAIL, "bounce.example.org", "mailfrom", "-all"),
        DKIMResults(tuple(verifications)),
    )


class House:
    """A store, a DNS, a queue, and processes."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(MIDNIGHT + 3600)
        self.records = MemoryRecords(self.clock)
        self.leases = MemoryLeases(self.clock)
        self.dns = TableDNS({("_dmarc.example.org", "TXT"): [RECORD]})
        self.sent: list[tuple[AggregateReport, str, bytes]] = []
        self.full = False
        self.one = self.process("one")

    def process(self, node: str, *, sends: bool = True, **settings: Any) -> DMARCReports:
        return DMARCReports(
            self.dns,
            self.records,
            self.clock,
            replace(SETTINGS, **settings),
            node=node,
            submit=self.submit if sends else None,
            leases=self.leases,
            wall=self.clock.seconds,
            rng=random.Random(4),
        )

    async def submit(self, message: bytes, recipient: str) -> None:
        if self.full:
            raise Unavailable("the queue is full")
        report = find_report(message)
        assert report is not None
        self.sent.append((report, recipient, message))


@pytest.fixture
def house() -> House:
    return House()


# --- counted and told


def test_what_several_processes_saw_is_one_report(house: House) -> None:
    other = house.process("two", sends=False)
    for _ in range(3):
        house.one.judged(judged())
        other.judged(judged())
    other.judged(judged(spf=True))
    other.judged(judged("2001:db8::7", "mail.example.org", dkim=False, signatures=0))
    for process in (house.one, other, house.one):
        now(process.flush())
    house.one.judged(judged())
    now(house.one.flush())
    assert now(house.one.send(DAY))
    [(report, recipient, message)] = house.sent
    assert recipient == "reports@example.org"
    assert (report.organization, report.contact, report.policy) == (
        "Example Inc.", "dmarc@example.net", PublishedPolicy("example.org", "reject", discovery="treewalk", fo="0"),
    )  # fmt: skip
    assert (report.begin.isoformat(), report.end.isoformat()) == ("2026-11-24T00:00:00+00:00", "2026-11-24T23:59:59+00:00")
    signed = (DKIMRow("example.org", "s1", "pass"),)
    assert report.rows == (
        Row("192.0.2.7", 7, "pass", "pass", "fail", "example.org", "bounce.example.org", dkim_results=signed, spf_results=(SPFRow("bounce.example.org", "fail", why="-all"),)),
        Row("192.0.2.7", 1, "pass", "pass", "pass", "example.org", "bounce.example.org", dkim_results=signed, spf_results=(SPFRow("bounce.example.org", "pass", why="-all"),)),
        Row("2001:db8::7", 1, "reject", "fail", "fail", "mail.example.org", "bounce.example.org", spf_results=(SPFRow("bounce.example.org", "fail", why="-all"),)),
    )  # fmt: skip
    assert b"Subject: Report Domain: example.org\r\n Submitter: mail.example.net\r\n Report-ID: <2026-11-24." in message
    assert now(house.process("three").send(DAY))
    assert len(house.sent) == 1


def test_why_less_was_done_than_wanted_is_told(house: House) -> None:
    house.one.judged(judged(dkim=False, applied=Disposition.NONE, override="trusted_forwarder"))
    now(house.one.flush())
    now(house.one.send(DAY))
    [row] = house.sent[0][0].rows
    assert (row.disposition, row.reasons) == ("none", (("trusted_forwarder", ""),))


def test_the_authors_signatures_come_first(house: House) -> None:
    house.one.judged(judged(signatures=30))
    now(house.one.flush())
    now(house.one.send(DAY))
    [row] = house.sent[0][0].rows
    assert row.dkim_results[0] == DKIMRow("example.org", "s1", "pass")
    assert len(row.dkim_results) == 10


def test_who_does_not_ask_is_not_counted(house: House) -> None:
    house.one.judged(judged(record=b"v=DMARC1; p=reject"))
    assert house.one._counts == {}


def test_a_day_is_told_after_it_once_and_by_itself(house: House) -> None:
    reports = house.one
    reports.start()
    reports.judged(judged())
    house.clock.pump([60.0] * 60 * 22)
    assert house.sent == []
    house.clock.pump([60.0] * 60 * 8)
    assert [recipient for _, recipient, _ in house.sent] == ["reports@example.org"]
    now(reports.stop())
    assert house.clock.getDelayedCalls() == []


def test_a_process_that_only_counts_sends_nothing(house: House) -> None:
    reports = house.process("smtp", sends=False)
    reports.start()
    reports.judged(judged())
    house.clock.pump([600.0] * 6 * 48)
    assert house.sent == []
    assert now(house.process("relay").send(DAY))
    assert len(house.sent) == 1


def test_a_queue_that_is_full_gets_it_later(house: House) -> None:
    house.dns.table["_dmarc.example.org", "TXT"] = [b"v=DMARC1; p=none; rua=mailto:a@example.org, mailto:b@example.org"]
    house.one.judged(judged())
    now(house.one.flush())
    house.full = True
    assert not now(house.one.send(DAY))
    house.full = False
    assert now(house.one.send(DAY))
    assert [recipient for _, recipient, _ in house.sent] == ["a@example.org", "b@example.org"]
    assert len({report.id for report, _, _ in house.sent}) == 1


def test_a_dns_that_is_down_is_waited_for_and_a_policy_that_is_gone_is_not(house: House) -> None:
    house.one.judged(judged())
    now(house.one.flush())
    house.dns.table["_dmarc.example.org", "TXT"] = DNSFailure("down")
    assert not now(house.one.send(DAY))
    house.dns.table["_dmarc.example.org", "TXT"] = []
    assert now(house.one.send(DAY))
    assert house.sent == []


def test_a_report_above_the_size_that_is_wanted_is_not_sent(house: House) -> None:
    house.dns.table["_dmarc.example.org", "TXT"] = [b"v=DMARC1; p=none; rua=mailto:small@example.org!1k, mailto:large@example.org!10m"]
    for number in range(200):
        house.one.judged(judged(f"192.0.2.{number}", signatures=3))
    now(house.one.flush())
    assert now(house.one.send(DAY))
    assert [recipient for _, recipient, _ in house.sent] == ["large@example.org"]


# --- bounds


def test_rows_of_a_domain_are_bounded(house: House) -> None:
    counts = PolicyCounts()
    for number in range(12_000):
        counts.add(judged(f"2001:db8::{number:x}", author=f"d{number}." + "x" * 60 + ".example.org"))
    parts = list(counts.parts())
    assert len(parts) == 16
    for _, part in parts:
        assert len(part.write()) <= 60_000
    whole = PolicyCounts()
    for _, part in parts:
        whole.merge(PolicyCounts.read(part.write()))
    assert 2_000 < len(whole.rows()) <= 12_000


def test_above_the_bound_signatures_are_left_out_then_rows() -> None:
    counts = PolicyCounts()
    for number in range(10_000):
        counts.add(judged(f"2001:db8::{number:x}"))
    for selector in range(5):
        counts.add(judged("192.0.2.1", signatures=1 + selector))
    rows = [row for row in counts.rows() if row.source == "192.0.2.1"]
    assert [(row.count, row.dkim_results) for row in rows] == [(5, ())]
    for number in range(20_000):
        counts.add(judged(f"2001:db8:1::{number:x}"))
    assert len(counts.rows()) == 20_000


def test_a_part_always_has_the_same_rows() -> None:
    first, second = PolicyCounts(), PolicyCounts()
    first.add(judged())
    second.add(judged())
    second.add(judged(spf=True))
    assert {name for name, _ in first.parts()} <= {name for name, _ in second.parts()}
    assert PolicyCounts.read(b"garbage").rows() == ()


def test_domains_are_bounded(house: House) -> None:
    reports = house.process("one", domains=10)
    for number in range(20):
        reports.judged(judged(policy_domain=f"d{number}.example"))
    assert len(reports._counts) == 10


def test_a_store_that_is_down_loses_nothing(house: House) -> None:
    put = house.records.put

    async def down(*anything: Any, **more: Any) -> None:
        raise Unavailable("down")

    house.records.put = down  # type: ignore[method-assign]
    house.one.judged(judged())
    now(house.one.flush())
    house.records.put = put  # type: ignore[method-assign]
    house.one.judged(judged())
    now(house.one.flush())
    now(house.one.send(DAY))
    assert [row.count for row in house.sent[0][0].rows] == [2]


# --- who may be told (RFC 9990 section 4)


def allowed(table: dict[str, str], *addresses: str, domain: str = "example.org") -> list[str]:
    dns = TableDNS({(name, "TXT"): [text.encode()] for name, text in table.items()})
    found = now(destinations(dns, PolicyFinder(dns), domain, [ReportAddress(address) for address in addresses]))
    return [each.address for each in found]


OWN = {"_dmarc.example.org": "v=DMARC1; p=reject"}


def test_the_organizations_own_addresses_need_no_word() -> None:
    assert allowed(OWN, "a@example.org", "b@Reports.example.org") == ["a@example.org", "b@Reports.example.org"]
    assert allowed(OWN, "a@example.org", domain="mail.example.org") == ["a@example.org"]


def test_others_must_have_agreed() -> None:
    agreed = {**OWN, "example.org._report._dmarc.reader.example": "v=DMARC1"}
    assert allowed(OWN, "a@reader.example") == []
    assert allowed(agreed, "a@reader.example") == ["a@reader.example"]
    assert allowed({**OWN, "example.org._report._dmarc.reader.example": "v=DMARC1;"}, "a@reader.example") == ["a@reader.example"]
    assert allowed({**OWN, "example.org._report._dmarc.reader.example": "yes"}, "a@reader.example") == []


def test_they_may_name_another_address_of_the_same_host() -> None:
    name = "example.org._report._dmarc.reader.example"
    assert allowed({**OWN, name: "v=DMARC1; rua=mailto:better@reader.example"}, "a@reader.example") == ["better@reader.example"]
    assert allowed({**OWN, name: "v=DMARC1; rua=mailto:victim@victim.example"}, "a@reader.example") == []
    assert allowed({**OWN, name: "v=DMARC1; rua=mailto:b@reader.example,mailto:v@victim.example"}, "a@reader.example") == []


def test_a_name_that_is_too_long_agrees_to_nothing() -> None:
    domain = ".".join(["x" * 60] * 3) + ".example.org"
    assert allowed({}, "a@" + ".".join(["y" * 50] * 2) + ".example", domain=domain) == []


def test_reports_go_where_they_may_go(house: House) -> None:
    house.dns.table["_dmarc.example.org", "TXT"] = [b"v=DMARC1; p=none; rua=mailto:a@example.org,mailto:v@victim.example,mailto:r@reader.example"]
    house.dns.table["example.org._report._dmarc.reader.example", "TXT"] = [b"v=DMARC1"]
    house.one.judged(judged())
    now(house.one.flush())
    assert now(house.one.send(DAY))
    assert [recipient for _, recipient, _ in house.sent] == ["a@example.org", "r@reader.example"]


# --- those of others


def received(house: House, *domains: str) -> ReceivedDMARCReports:
    async def is_local(domain: str) -> bool:
        return domain in (domains or ("example.net",))

    return ReceivedDMARCReports(house.records, is_local, wall=house.clock.seconds)


def report(rows: int = 3, domain: str = "example.net", day: int = MIDNIGHT, id: str = "r1@mail.example.org") -> AggregateReport:
    begin = datetime.fromtimestamp(day, UTC)
    made = (
        Row(
            f"192.0.2.{number % 250}", rows - number, "reject" if number % 2 else "none", "fail" if number % 2 else "pass", "fail", domain,
            reasons=(("local_policy", "because"),), dkim_results=(DKIMRow(domain, "s", "fail"),), spf_results=(SPFRow(domain, "softfail"),),
        )
        for number in range(rows)
    )  # fmt: skip
    return AggregateReport("Receiver", "x@example.org", id, begin, begin + timedelta(days=1), PublishedPolicy(domain, "reject"), tuple(made))


def carried(made: AggregateReport) -> bytes:
    return report_message(made, packed(made), "dmarc@example.net", submitter="mail.example.org", sender="x@example.org", message_id="1@mail.example.org", now=0)


def test_a_report_about_us_is_kept(house: House) -> None:
    mine = received(house)
    assert now(mine.take(carried(report()))) is not None
    [summary] = now(mine.list("example.net"))
    assert (summary.organization, summary.domain, summary.policy) == ("Receiver", "example.net", "reject")
    assert (summary.messages, summary.failed, summary.rejected, summary.quarantined) == (6, 2, 2, 0)
    assert (summary.rows[0].source, summary.rows[0].count, summary.rows[0].signed_by, summary.rows[0].spf_result) == (
        "192.0.2.0", 3, ("example.net/s=fail",), "example.net=softfail",
    )  # fmt: skip
    assert summary.rows[0].reasons == ("local_policy: because",)
    assert now(mine.get("example.net", summary.id)) == summary
    assert now(mine.get("example.net", "nothing")) is None


def test_one_that_comes_twice_is_one(house: House) -> None:
    mine = received(house)
    for _ in range(2):
        now(mine.take(carried(report())))
    assert len(now(mine.list("example.net"))) == 1
    now(mine.take(carried(report(day=MIDNIGHT - 86_400, id="r0@x"))))
    assert [summary.begin[:10] for summary in now(mine.list("example.net"))] == ["2026-11-23", DAY]
    assert [summary.begin[:10] for summary in now(mine.list("example.net", DAY))] == [DAY]


def test_of_a_large_one_the_rows_that_matter_are_kept(house: House) -> None:
    mine = received(house)
    now(mine.take(carried(report(2_000))))
    [summary] = now(mine.list("example.net"))
    assert (len(summary.rows), summary.rows_left_out, summary.messages) == (100, 1_900, 2_001_000)
    [record] = now(house.records.list("dmarc-received/example.net"))
    assert len(record.value) < 60_000


def test_what_is_not_ours_or_nonsense_is_not_kept(house: House) -> None:
    mine = received(house)
    for message in (
        carried(report(domain="example.com")),
        carried(report(day=MIDNIGHT + 10 * 86_400)),
        b"Subject: hi\r\n\r\nhello\r\n",
        b"Content-Type: application/gzip\r\n\r\n\x1f\x8bgarbage",
        carried(report())[:900],
    ):
        assert now(mine.take(message)) is None
    assert now(mine.list("example.net")) == []


def test_a_report_on_a_subdomain_is_on_ours(house: House) -> None:
    mine = received(house)
    now(mine.take(carried(report(domain="news.example.net"))))
    assert [summary.domain for summary in now(mine.list("example.net"))] == ["news.example.net"]


def test_what_we_send_we_can_read(house: House) -> None:
    house.one.judged(judged())
    now(house.one.flush())
    now(house.one.send(DAY))
    mine = received(house, "example.org")
    assert now(mine.take(house.sent[0][2])) is not None
    assert now(mine.list("example.org"))[0].messages == 1
    assert day_of(MIDNIGHT) == DAY
