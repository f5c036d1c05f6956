"""The doctor's look at lists in the DNS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.task import Clock

from tests.admin.calling import Mailctl
from tests.dns.fakes import TableDNS
from tests.filters.asking import now
from twisted_mail.admin import doctor_lists
from twisted_mail.dns.values import DNSFailure
from twisted_mail.tap.configuration import load

TABLE: dict[tuple[str, str], Any] = {
    ("2.0.0.127.good.example", "A"): ["127.0.0.2"],
    ("2.0.0.127.shut.example", "A"): ["127.255.255.254"],
    ("2.0.0.127.sold.example", "A"): ["127.0.0.2"],
    ("1.0.0.127.sold.example", "A"): ["127.0.0.2"],
    ("2.0.0.127.dead.example", "A"): DNSFailure("SERVFAIL"),
}


def test_each_list_is_tried_by_its_test_entries(tmp_path: Path) -> None:
    file = tmp_path / "mail.toml"
    file.write_text('[filters.dnsbl]\n"good.example" = 1\n"shut.example" = 1\n"sold.example" = 1\n"dead.example" = 1\n')
    findings = now(doctor_lists.look(Clock(), load(file, {}), TableDNS(TABLE)))
    assert [(finding.severity, finding.text.partition(" ")[0]) for finding in findings] == [
        ("ok", "good.example"),
        ("warning", "shut.example"),
        ("warning", "sold.example"),
        ("warning", "dead.example"),
    ]
    assert "resolver of your own" in findings[1].remedy and "take it out" in findings[2].remedy


def test_without_lists_there_is_nothing_to_try(tmp_path: Path) -> None:
    report = Mailctl(tmp_path).json("doctor", "lists")
    assert [finding["code"] for finding in report["findings"]] == ["lists.none"]
