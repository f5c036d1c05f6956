"""mailctl dmarc."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.admin.calling import Mailctl
from twisted_mail.admin.opening import Store
from twisted_mail.filters.dmarc_received import ReceivedDMARCReports
from twisted_mail.reports.dmarc_aggregate import (
    AggregateReport,
    DKIMRow,
    PublishedPolicy,
    Row,
    SPFRow,
    packed,
    report_message,
)

DAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def report(organization: str, *rows: Row) -> bytes:
    policy = PublishedPolicy("here.example", "reject")
    made = AggregateReport(organization, "x@there.example", f"{organization}@there.example", DAY, DAY + timedelta(days=1), policy, rows)
    return report_message(
        made, packed(made), "dmarc@here.example", submitter="mx.there.example", sender="x@there.example", message_id="1@there.example", now=0
    )


GOOD = Row("192.0.2.1", 7, "pass", "pass", "fail", "here.example", "here.example")
BAD = Row(
    "203.0.113.9", 3, "reject", "fail", "fail", "shop.here.example", "",
    reasons=(("local_policy", "a list"),), dkim_results=(DKIMRow("else.example", "s", "pass"),), spf_results=(SPFRow("else.example", "pass"),),
)  # fmt: skip


def test_reports_of_others(ann: Mailctl) -> None:
    async def take(store: Store) -> None:
        async def is_local(domain: str) -> bool:
            return domain == "here.example"

        received = ReceivedDMARCReports(store.backend.records, is_local)
        for message in (report("There Inc.", GOOD, BAD), report("Quiet Inc.", GOOD)):
            assert await received.take(message) is not None

    ann.inside(take)
    rows: list[dict[str, Any]] = ann.json("dmarc", "reports", "Here.Example")
    assert {(row["organization"], row["messages"], row["failed"], row["rejected"]) for row in rows} == {
        ("There Inc.", 10, 3, 3),
        ("Quiet Inc.", 7, 0, 0),
    }
    (row,) = ann.json("dmarc", "reports", "here.example", "--failed", "--since", DAY.strftime("%Y-%m-%d"))
    assert (row["organization"], row["policy"], row["domain"]) == ("There Inc.", "reject", "here.example")
    first, second = ann.json("dmarc", "show", "here.example", row["id"])
    assert (first["count"], first["source"], first["dkim"], first["spf"]) == (7, "192.0.2.1", "pass", "fail")
    assert second == {
        "count": 3, "source": "203.0.113.9", "from": "shop.here.example", "sender": None, "dkim": "fail", "spf": "fail",
        "disposition": "reject", "signed by": ["else.example/s=pass"], "spf says": "else.example=pass", "reasons": ["local_policy: a list"],
    }  # fmt: skip
    assert "There Inc. on here.example (p=reject)" in ann.good("dmarc", "show", "here.example", row["id"]).err


def test_what_is_asked_for_wrongly(ann: Mailctl) -> None:
    assert ann.json("dmarc", "reports", "here.example") == []
    assert ann.run("dmarc", "reports", "here.example", "--since", "yesterday").status == 2
    result = ann.run("dmarc", "show", "here.example", "2026-11-24/abc", "--json")
    assert (result.status, result.error()["code"]) == (3, "no-such-report")
