"""mailctl pool and suppression: how addresses stand, what a plan would do, what an operator does."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest

from tests.admin.calling import CONFIGURATION, Mailctl
from twisted_mail.admin.opening import Store
from twisted_mail.admin.pools import _bars, _picture
from twisted_mail.relay.pools import Departure, Grant
from twisted_mail.relay.reputation import Signal
from twisted_mail.relay.suppression import BOUNCE, Suppressions
from twisted_mail.tap.relaying import leaving_of

TODAY = datetime.datetime.now(datetime.UTC).date()
FIRST = TODAY - datetime.timedelta(days=4)
"""The plan's first day. The clock of these tests is set to noon of today: a day may end while they run."""
NOON = datetime.datetime.combine(TODAY, datetime.time(12), datetime.UTC).timestamp()
LATER = TODAY + datetime.timedelta(days=9)
POOLS = f"""
[relay.pools.main]
addresses = {{ "192.0.2.10" = "mx1.example.org" }}
[relay.pools.bulk]
addresses = {{ "192.0.2.20" = "news1.example.org" }}
warm_up = "{FIRST}"
[relay.pools.next]
addresses = {{ "192.0.2.30" = "news2.example.org" }}
warm_up = "{LATER}"
[relay.streams.normal]
pools = ["main"]
[relay.streams.marketing]
pools = ["bulk"]
match = {{ precedence = ["bulk"] }}
"""


@pytest.fixture
def ctl(tmp_path: Path) -> Mailctl:
    (tmp_path / "mail.toml").write_text(CONFIGURATION + POOLS)
    ctl = Mailctl(tmp_path)
    ctl.good("domain", "add", "example.org")
    return ctl


@pytest.fixture(autouse=True)
def noon() -> Iterator[None]:
    with patch("twisted_mail.admin.pools.time", SimpleNamespace(time=lambda: NOON)):
        yield


async def _days(store: Store) -> None:
    """Four days of the plan were sent in full, 40 messages today, of which six bounced."""
    pools = leaving_of(store.configuration).over(store.backend.records, store.backend.allowances)
    departure = Departure("google.com", "example.org")
    for back in range(4, -1, -1):
        at = NOON - back * 86_400.0
        for _ in range(1000 if back else 40):
            grant = await pools.source("marketing", departure, at)
            if not isinstance(grant, Grant):
                break
            pools.plans.heard("192.0.2.20", "google", Signal.DELIVERED, at)
        await pools.plans.review(at, pools.warming())
    pools.plans.heard("192.0.2.20", "google", Signal.BOUNCED, NOON, 6)
    pools.plans.heard("192.0.2.10", "yahoo", Signal.DELIVERED, NOON, 3)
    await pools.plans.review(NOON, pools.warming())


def test_status_says_how_each_address_stands(ctl: Mailctl) -> None:
    ctl.inside(_days)
    rows = {(row["address"], row["provider"]): row for row in ctl.json("pool", "status")}
    bulk = rows["192.0.2.20", "google"]
    assert (bulk["plan"], bulk["allowance"], bulk["delivered"], bulk["bounced"]) == ("day 5 of 42", 98, 40, 6)
    assert 40 <= bulk["sent"] <= 46, "what was taken ahead is in it"
    assert bulk["history"][-5:-1] == [50, 59, 70, 83] and len(bulk["history"]) == 14 and len(bulk["curve"]) == 42
    main = rows["192.0.2.10", "yahoo"]
    assert (main["plan"], main["sent"], main["allowance"]) == ("warm", 3, None)
    assert rows["192.0.2.30", None]["plan"] == f"begins {LATER}"
    [line] = [line for line in ctl.good("pool", "status", "bulk").out.splitlines() if "google" in line]
    assert line.split("\t")[:5] == ["bulk", "192.0.2.20", "google", "day 5 of 42", "98"]
    assert ctl.run("pool", "status", "nothing").status == 3


def test_a_plan_is_drawn(ctl: Mailctl) -> None:
    ctl.inside(_days)
    [row] = ctl.json("pool", "status", "bulk")
    text = _picture(row).plain
    assert "192.0.2.20 to google" in text and "50 to 50,000 in 42 days" in text and f"{row['sent']} of 98" in text
    plan = next(line for line in text.splitlines() if line.startswith("  plan")).split()[1]
    assert len(plan) == 42 and (plan[0], plan[-1]) == ("▁", "█")
    assert [_bars(each) for each in ([0, 1, 10, 1000], [50, 50_000], [7, 7], [0, 0], [])] == [" ▁▃█", "▁█", "██", "  ", ""]


def test_before_anything_was_sent(ctl: Mailctl) -> None:
    assert {row["address"]: row["plan"] for row in ctl.json("pool", "status")} == {
        "192.0.2.10": "warm", "192.0.2.20": "day 1 of 42", "192.0.2.30": f"begins {LATER}",
    }  # fmt: skip


def test_without_pools_there_is_what_the_system_chooses(tmp_path: Path) -> None:
    ctl = Mailctl(tmp_path)
    ctl.good("domain", "add", "example.org")
    [row] = ctl.json("pool", "status")
    assert (row["address"], row["plan"]) == ("any", "warm")


def test_plan_says_what_would_leave_and_what_waits(ctl: Mailctl) -> None:
    found = ctl.json("pool", "plan", "100", "--days", "10")
    assert (found["stream"], found["provider"], found["nothing_waits_from"]) == ("marketing", "google", 9)
    assert found["days"][0] == {
        "day": 1, "date": TODAY.isoformat(), "allowance": 50, "arrives": 100, "leaves": 50, "waits": 50,
    }  # fmt: skip
    once = ctl.json("pool", "plan", "170", "--once", "--days", "5")
    assert [day["leaves"] for day in once["days"]] == [50, 59, 61, 0, 0]
    out = ctl.good("pool", "plan", "100", "--days", "2")
    assert out.out.splitlines()[1].split("\t")[2:] == ["59", "100", "59", "91"] and "after 2 days 91 messages wait" in out.err
    assert "leaves at once" in ctl.good("pool", "plan", "100", "--stream", "normal").err
    ctl.inside(_days)
    assert ctl.json("pool", "plan", "1000", "--days", "1")["days"][0]["allowance"] == 98, "from where it stands"
    assert ctl.run("pool", "plan", "5", "--stream", "gone").status == 3
    assert ctl.run("pool", "plan", "5", "--provider", "gone").status == 3


def test_an_operator_halts_resumes_and_steps_back(ctl: Mailctl) -> None:
    ctl.inside(_days)
    ctl.good("pool", "halt", "192.0.2.20", "--why", "listed by example")
    [row] = ctl.json("pool", "status", "bulk")
    assert (row["plan"], row["allowance"], row["why"]) == ("halted by an operator", 0, "listed by example")
    assert ctl.json("pool", "plan", "10", "--days", "1")["days"][0]["leaves"] == 0
    ctl.good("pool", "resume", "192.0.2.20")
    [row] = ctl.json("pool", "status", "bulk")
    assert row["plan"] == "day 5 of 42"
    assert ctl.json("pool", "step-back", "192.0.2.20", "--days", "2")["days"] == {"google": 3}
    [row] = ctl.json("pool", "status", "bulk")
    assert (row["plan"], row["allowance"], row["why"]) == ("day 3 of 42", 70, "2 days back by an operator")
    assert ctl.run("pool", "step-back", "192.0.2.20", "--provider", "yahoo").status == 3
    for verb in ("halt", "resume", "step-back"):
        assert ctl.run("pool", verb, "192.0.2.99").status == 3


def test_receivers_halt_a_plan_and_status_says_why(ctl: Mailctl) -> None:
    async def trouble(store: Store) -> None:
        await _days(store)
        pools = leaving_of(store.configuration).over(store.backend.records, store.backend.allowances)
        pools.plans.heard("192.0.2.20", "google", Signal.COMPLAINED, NOON, 9)
        await pools.plans.review(NOON, pools.warming())

    ctl.inside(trouble)
    [row] = ctl.json("pool", "status", "bulk")
    assert row["plan"] == f"halted until {TODAY + datetime.timedelta(days=3)}" and row["allowance"] == 0
    assert "9 complaints of" in row["why"]
    found = ctl.json("pool", "plan", "10", "--days", "5")
    assert [day["leaves"] for day in found["days"]] == [0, 0, 0, 40, 10]


def test_a_mistake_in_the_configuration_is_named(ctl: Mailctl) -> None:
    ctl.config.write_text(CONFIGURATION + POOLS.replace('pools = ["bulk"]', 'pools = ["bulky"]'))
    result = ctl.run("pool", "status")
    assert result.status != 0 and "relay.streams.marketing.pools" in result.err


# --- suppression


def test_entries_are_added_listed_checked_and_removed(ctl: Mailctl) -> None:
    assert ctl.json("suppression", "list") == []
    ctl.good("suppression", "add", "Example.org", "Bob@Y.example", "--reason", "asked by phone", "--for", "90d")

    async def bounced(store: Store) -> None:
        await Suppressions(store.backend.records).add("example.org", "eve@y.example", "550 5.1.1 unknown", BOUNCE, 3600.0)

    ctl.inside(bounced)
    assert ctl.json("suppression", "list") == [{"domain": "example.org"}]
    rows = {row["address"]: row for row in ctl.json("suppression", "list", "example.org")}
    bob = rows["bob@y.example"]
    assert (bob["source"], bob["reason"]) == ("operator", "asked by phone")
    until = datetime.datetime.fromisoformat(bob["until"]) - datetime.datetime.fromisoformat(bob["since"])
    assert until == datetime.timedelta(days=90)
    assert rows["eve@y.example"]["source"] == "bounce"
    assert len(ctl.json("suppression", "list", "example.org", "--limit", "1")) == 1

    def may(address: str) -> dict[str, bool]:
        found = ctl.json("suppression", "check", "example.org", address)
        return {row["stream"]: row["may_send"] for row in found["streams"]}

    assert may("bob@y.example") == {"normal": False, "marketing": False}
    assert may("eve@y.example") == {"normal": True, "marketing": False}
    assert may("ann@y.example") == {"normal": True, "marketing": True}
    assert "asked by phone" in ctl.good("suppression", "check", "example.org", "bob@y.example").out
    ctl.good("suppression", "allow", "example.org", "bob@y.example")
    assert may("bob@y.example") == {"normal": True, "marketing": True}
    assert set(ctl.json("suppression", "remove", "example.org", "bob@y.example")["removed"]) == {"operator", "allowed"}
    assert may("bob@y.example") == {"normal": True, "marketing": True}
    assert ctl.run("suppression", "remove", "example.org", "bob@y.example").status == 3


def test_one_stream_alone(ctl: Mailctl) -> None:
    ctl.good("suppression", "add", "example.org", "bob@y.example", "--stream", "marketing")
    found = ctl.json("suppression", "check", "example.org", "bob@y.example")
    assert [row["may_send"] for row in found["streams"]] == [True, False]
    assert ctl.run("suppression", "add", "example.org", "bob@y.example", "--stream", "gone").status == 3


@pytest.mark.parametrize("words", [("example.org", "nobody"), ("no domain", "a@b.example"), ("example.org", "a@b.example", "--for", "soon")])
def test_what_makes_no_sense_is_refused(ctl: Mailctl, words: tuple[str, ...]) -> None:
    assert ctl.run("suppression", "add", *words).status == 2
