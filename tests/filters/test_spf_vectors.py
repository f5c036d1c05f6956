"""The openspf.org test suites for RFC 7208 and RFC 4408, every case, but for one word of case.

The JSON files hold their YAML, in the form in which pyspf 2.0.14 carries it; `spf_vectors.LICENSE` is theirs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from tests.filters.asking import now as run
from tests.filters.zones import zone
from twisted_mail.filters.spf import CheckHost

HERE = Path(__file__).parent


def cases(name: str) -> Iterator[Any]:
    for scenario in json.loads((HERE / name).read_text("utf-8")):
        for test, data in scenario["tests"].items():
            yield pytest.param(scenario["zonedata"], data, id=test)


def check(zonedata: dict[str, Any], data: dict[str, Any]) -> None:
    sender, helo = data["mailfrom"], data["helo"]
    domain = sender.rpartition("@")[2] if sender else helo
    checker = CheckHost(zone(zonedata), Clock(), receiver="receiver.example.net", wall=lambda: 1_700_000_000)
    found = run(checker.check(data["host"], domain, sender or helo, helo))
    accepted = data["result"] if isinstance(data["result"], list) else [data["result"]]
    assert found.result.value in accepted, f"{found} ({data.get('description')})"
    if "explanation" in data and found.result.value == "fail":
        wanted = "" if data["explanation"] == "DEFAULT" else data["explanation"]
        # The suites write the nibbles of an IPv6 address in upper case (v-macro-ip6), RFC 7208 section 7.4 in lower case;
        # to the DNS they are the same.
        assert found.explanation.lower() == wanted.lower()


@pytest.mark.parametrize(("zonedata", "data"), list(cases("spf_rfc7208.json")))
def test_rfc_7208(zonedata: dict[str, Any], data: dict[str, Any]) -> None:
    check(zonedata, data)


@pytest.mark.parametrize(("zonedata", "data"), list(cases("spf_rfc4408.json")))
def test_rfc_4408(zonedata: dict[str, Any], data: dict[str, Any]) -> None:
    check(zonedata, data)
