"""mailctl route and tls-report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.admin.calling import CONFIGURATION, Mailctl
from tests.services.knot import Knot
from twisted_mail.admin.opening import Store
from twisted_mail.relay.tls_received import ReceivedTLSReports
from twisted_mail.reports.tls import FailureDetail, PolicyResult, TLSReport, report_message

ZONE = """
@ MX 10 mx1
@ MX 20 mx2
mx1 A 192.0.2.1
mx1 AAAA 2001:db8::1
mx2 A 192.0.2.2
null MX 0 .
"""


@pytest.fixture(scope="module")
def knot() -> Iterator[Knot]:
    knot = Knot({"there.example": ZONE}, signed=frozenset())
    knot.start()
    yield knot
    knot.stop()


@pytest.fixture
def ctl(tmp_path: Path, knot: Knot) -> Mailctl:
    (tmp_path / "mail.toml").write_text(
        f'{CONFIGURATION}[dns]\nservers = ["{knot.address}:{knot.port}"]\n[relay]\ntls = "require"\n'
        '[relay.routes]\n".partner.example" = "smtps://user:secret@192.0.2.9"\n'
    )
    return Mailctl(tmp_path).with_user()


def test_a_route_by_the_dns(ctl: Mailctl) -> None:
    for address in ("there.example", "bob@there.example"):
        rows = ctl.json("route", address)
        assert [(row["host"], row["preference"], row["addresses"]) for row in rows] == [
            ("mx1.there.example", 10, ["2001:db8::1", "192.0.2.1"]),
            ("mx2.there.example", 20, ["192.0.2.2"]),
        ]
        assert {(row["protection"], row["why"], row["port"]) for row in rows} == {("TLS", "configuration", 25)}


def test_requiretls_with_nobody_who_vouches(ctl: Mailctl) -> None:
    rows = ctl.json("route", "there.example", "--requiretls")
    assert {row["protection"] for row in rows} == {"not used"}
    assert rows[0]["why"].startswith("550 5.7.30")


def test_routes_without_the_dns(ctl: Mailctl) -> None:
    (row,) = ctl.json("route", "a.partner.example")
    assert (row["host"], row["port"], row["addresses"]) == ("192.0.2.9", 465, ["192.0.2.9"])
    (row,) = ctl.json("route", "[192.0.2.77]")
    assert (row["host"], row["protection"]) == ("192.0.2.77", "TLS")
    assert "secret" not in ctl.good("route", "a.partner.example").out


def test_no_route(ctl: Mailctl) -> None:
    for domain, status, reply in (("null.there.example", 1, "556 5.1.10"), ("no.there.example", 1, "550 5.1.2"), ("elsewhere.example", 75, "451 4.4.3")):
        result = ctl.run("route", domain, "--json")
        assert (result.status, result.error()["code"]) == (status, "no-route"), result
        assert result.error()["text"].startswith(reply)


def test_reports_of_others(ctl: Mailctl) -> None:
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    details = (FailureDetail("certificate-expired", "", "mx1.here.example", "", 3),)
    policies = (PolicyResult("sts", "here.example", successes=7, failures=3, details=details), PolicyResult("tlsa", "here.example", successes=1))
    report = TLSReport("There Inc.", "tls@there.example", "1", day, day, policies)
    made = report_message(report, "here.example", "mailto:tls@here.example", submitter="mx.there.example", sender="tls@there.example", message_id="1@there.example", now=time.time())
    assert made is not None

    async def take(store: Store) -> None:
        async def is_local(domain: str) -> bool:
            return True

        assert await ReceivedTLSReports(store.backend.records, is_local).take(made[0]) is not None

    ctl.inside(take)
    rows = ctl.json("tls-report", "list", "here.example")
    assert {(row["policy"], row["sessions"], row["failed"]) for row in rows} == {("sts", 10, 3), ("tlsa", 1, 0)}
    (row,) = ctl.json("tls-report", "list", "Here.Example", "--failed", "--since", day.strftime("%Y-%m-%d"))
    assert (row["organization"], row["reasons"]) == ("There Inc.", ["certificate-expired mx1.here.example 3"])
    assert ctl.json("tls-report", "list", "here.example", "--since", "2999-01-01") == []
    assert ctl.run("tls-report", "list", "here.example", "--since", "yesterday").status == 2
