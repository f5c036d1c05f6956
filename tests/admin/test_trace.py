"""mailctl trace and mailctl test spam: what became of a message, and what would become of one."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.admin.calling import Mailctl
from twisted_mail.admin.opening import Store
from twisted_mail.delivery.stories import Chapter, Stories
from twisted_mail.relay.journal import Journal, Step

NOW = 1_700_000_000.0
GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"


@pytest.fixture
def ctl(tmp_path: Path) -> Mailctl:
    return Mailctl(tmp_path).with_user()


def tell(ctl: Mailctl, *chapters: Chapter) -> None:
    async def write(store: Store) -> None:
        stories = Stories(store.backend.records, "mx1")
        for chapter in chapters:
            stories.tell(chapter)
        await stories.written()

    ctl.inside(write)


ACCEPTED = Chapter(
    at=NOW,
    what="accepted",
    id="5f1e",
    message_id="1@b.example",
    client="192.0.2.7",
    helo="client.example",
    sender="a@b.example",
    recipients=("ann@example.org",),
    result="to be delivered as junk",
    score=6.25,
    lines=("spf: 192.0.2.7 may not send for b.example (+3.0 points), 1.2 ms", "helo: \x1b[31mred"),
)
SORTED = Chapter(at=NOW + 1, what="sorted", message_id="1@b.example", recipients=("ann@example.org",), result="into Junk")


def test_the_story_of_a_message_is_told_in_order_with_what_each_filter_said(ctl: Mailctl) -> None:
    tell(ctl, SORTED, ACCEPTED)

    async def leave(store: Store) -> None:
        step = Step(at=NOW + 2, what="delivered", id="77", address="far@away.example", host="mx.away.example")
        await Journal(store.backend.records).note("1@b.example", step)

    ctl.inside(leave)
    lines = ctl.good("trace", "<1@b.example>").out.splitlines()
    assert lines[0] == (
        "2023-11-14T22:13:20Z  accepted from [192.0.2.7] (client.example): <a@b.example> to ann@example.org;"
        " to be delivered as junk (6.2 points)"
    )
    assert lines[1] == "    spf: 192.0.2.7 may not send for b.example (+3.0 points), 1.2 ms"
    assert lines[2] == "    helo: \\x1b[31mred", "a stranger's octets do nothing to a terminal"
    assert lines[3].endswith("sorted: <> to ann@example.org; into Junk")
    assert "far@away.example: delivered" in lines[4]
    found = ctl.json("trace", "1@b.example")
    assert [each["what"] for each in found["story"]] == ["accepted", "sorted", "delivered"]
    assert found["story"][0]["score"] == 6.25 and found["story"][0]["node"] == "mx1"


@pytest.mark.parametrize(
    ("address", "ours"), [("ann@example.org", False), ("ANN@example.org", False), ("a@b.example", True)]
)
def test_an_address_has_the_stories_it_had_a_part_in(ctl: Mailctl, address: str, ours: bool) -> None:
    tell(ctl, msgspec.structs.replace(ACCEPTED, ours=ours), SORTED)
    out = ctl.good("trace", address).out
    assert out.startswith("<1@b.example>\n") and out.count("accepted from") == 1
    assert "into Junk" in out


def test_somebody_who_was_refused_before_a_message_came_is_found_by_address(ctl: Mailctl) -> None:
    tell(
        ctl,
        Chapter(
            at=NOW,
            what="refused",
            client="192.0.2.7",
            sender="a@b.example",
            recipients=("ann@example.org",),
            result="You are on a list (at RCPT)",
            lines=("dnsbl: 192.0.2.7 is on zen.example",),
        ),
    )
    for address in ("ann@example.org", "a@b.example"):
        assert "dnsbl: 192.0.2.7 is on zen.example" in ctl.good("trace", address).out


def test_what_nobody_knows_is_said_so(ctl: Mailctl) -> None:
    result = ctl.run("trace", "nobody@example.org")
    assert result.status == 3 and result.err.startswith("mailctl: nothing is known of")


@pytest.fixture
def judging(ctl: Mailctl) -> Mailctl:
    with ctl.config.open("a") as file:
        file.write("[filters]\norigin = false\n")
    return ctl


def test_a_message_is_shown_to_the_filters_and_each_says_what_it_found(judging: Mailctl, tmp_path: Path) -> None:
    file = tmp_path / "spam.eml"
    file.write_text(f"From: a@b.example\nTo: ann@example.org\nSubject: x\n\n{GTUBE}\n")
    found = judging.json("test", "spam", str(file), "--from", "a@b.example", "--to", "ann@example.org")
    assert found["action"] == "reject" and found["score"] >= 1000
    (builtin,) = [each for each in found["findings"] if each["filter"] == "builtin_score"]
    assert "GTUBE" in builtin["reason"]
    out = judging.good("test", "spam", str(file)).out
    assert out.splitlines()[-1].endswith("reject, since 15 points are too many")


def test_a_message_that_nobody_minds_is_accepted(judging: Mailctl, tmp_path: Path) -> None:
    file = tmp_path / "ham.eml"
    file.write_text(
        "From: Bob <bob@b.example>\nTo: ann@example.org\nSubject: Lunch\nDate: Tue, 24 Nov 2026 12:00:00 +0000\n"
        "Message-ID: <1@b.example>\n\nShall we have lunch tomorrow?\n"
    )
    found = judging.json("test", "spam", str(file), "--from", "bob@b.example", "--to", "ann@example.org")
    assert found["action"] == "accept" and found["score"] < 5


def test_filters_that_count_peers_are_not_asked(judging: Mailctl, tmp_path: Path) -> None:
    file = tmp_path / "ham.eml"
    file.write_text("From: bob@b.example\n\nhi\n")
    found = judging.json("test", "spam", str(file))
    assert {each["filter"] for each in found["findings"]}.isdisjoint({"rates", "greylisting", "early_talkers"})
