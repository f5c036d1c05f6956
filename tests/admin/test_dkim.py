"""mailctl dkim: keys are made, shown, rotated, retired, and compared with the DNS."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest

from tests.admin.calling import Mailctl
from tests.signatures.support import Table
from twisted_mail.signatures import PrivateKey, parse_key_record

RSA = PrivateKey.generate("rsa", 1024)


@pytest.fixture
def org(ctl: Mailctl) -> Mailctl:
    ctl.good("domain", "add", "example.org", "--no-dkim")
    return ctl


def check(ctl: Mailctl, dns: Table) -> tuple[int, Any]:
    with patch("twisted_mail.admin.dkim.dns_of", return_value=dns):
        result = ctl.run("dkim", "check", "example.org", "--json")
    return result.status, result.json()


def test_a_domain_gets_both_keys_and_is_told_what_to_publish(org: Mailctl) -> None:
    assert org.run("dkim", "show", "example.org").status == 3
    out = org.good("dkim", "add", "example.org", "--bits", "1024").out
    rows = org.json("dkim", "list", "example.org")
    assert sorted((row["type"], row["bits"], row["state"]) for row in rows) == [
        ("ed25519", 256, "signing"), ("rsa", 1024, "signing"),
    ]  # fmt: skip
    assert org.json("dkim", "list") == rows == org.json("dkim", "show", "example.org")
    for row in rows:
        assert f"{row['selector']}._domainkey.example.org. 3600 IN TXT ( \"v=DKIM1; k={row['type']}; p=" in out
        assert parse_key_record(row["record"].encode()).type == row["type"]
        assert row["signs_until"] is None
    assert org.good("dkim", "show", "example.org").out == out


def test_a_key_from_elsewhere_keeps_its_selector(org: Mailctl) -> None:
    file = org.folder / "key.pem"
    file.write_bytes(RSA.pem())
    (row,) = org.json("dkim", "add", "example.org", "--selector", "mail", "--from-file", file)
    assert (row["selector"], row["record"]) == ("mail", RSA.record())
    again = org.run("dkim", "add", "example.org", "--selector", "mail", "--from-file", file, "--json")
    assert (again.status, again.error()["code"]) == (4, "exists")
    file.write_bytes(b"no key")
    assert org.run("dkim", "add", "example.org", "--from-file", file).status == 2
    assert org.run("dkim", "add", "example.org", "--selector", "x").status == 2
    assert org.run("dkim", "add", "example.org", "--type", "ed25519", "--selector", "-").status == 2


def test_a_rotation_waits_for_the_dns(org: Mailctl) -> None:
    org.good("dkim", "add", "example.org", "--type", "ed25519", "--selector", "old")
    (new,) = org.json("dkim", "rotate", "example.org", "--after", "2")
    assert new["state"] == "pending"
    assert org.json("dkim", "rotate", "example.org")[0]["selector"] == new["selector"]
    old = next(row for row in org.json("dkim", "list") if row["selector"] == "old")
    assert old["state"] == "signing" and old["signs_until"] == new["signs_from"]
    (at_once,) = (row for row in org.json("dkim", "list") if row["state"] == "pending")
    assert at_once["selector"] == new["selector"]


def test_a_key_is_retired_and_deleted(org: Mailctl) -> None:
    org.good("dkim", "add", "example.org", "--type", "ed25519", "--selector", "a")
    assert org.run("dkim", "retire", "example.org", "a").status == 2
    done = org.good("dkim", "retire", "example.org", "a", "--yes")
    assert "no key that signs any more" in done.err
    assert org.json("dkim", "list")[0]["state"] == "old"
    assert org.json("dkim", "delete", "example.org", "a", "--yes")["deleted"] is True
    assert org.json("dkim", "list") == []
    for verb in ("retire", "delete"):
        assert org.run("dkim", verb, "example.org", "a", "--yes").status == 3


def test_the_dns_is_compared(org: Mailctl) -> None:
    (row,) = org.json("dkim", "add", "example.org", "--type", "ed25519")
    assert check(org, Table())[0] == 1
    status, found = check(org, Table({row["name"]: row["record"]}))
    assert (status, found[0]["dns"], found[0]["ok"]) == (0, "published", True)
    assert check(org, Table({row["name"]: RSA.record()}))[1][0]["dns"] == "different"
    assert check(org, Table(down=(row["name"],)))[0] == 75
    org.good("dkim", "delete", "example.org", row["selector"], "--yes")
    with patch("twisted_mail.admin.dkim.dns_of", return_value=Table()):
        assert org.run("dkim", "check", "example.org").status == 3


def test_what_is_not_there_is_not_found(org: Mailctl) -> None:
    for words in (("add", "example.net"), ("show", "example.net"), ("rotate", "example.net"), ("list", "example.net")):
        assert org.run("dkim", *words).status == 3
    assert org.run("dkim", "check", "example.org", "--server", "nonsense").status == 2


def test_a_new_domain_has_keys(ctl: Mailctl) -> None:
    ctl.good("domain", "add", "example.org")
    rows = ctl.json("dkim", "list", "example.org")
    assert sorted((row["type"], row["state"]) for row in rows) == [("ed25519", "signing"), ("rsa", "signing")]
