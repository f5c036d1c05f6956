"""mailctl queue over mail that leaves: found by any filter, tried, held, given up with its senders told, and traced."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.admin.calling import Mailctl
from tests.admin.test_queue import holders
from tests.admin.test_queue import waiting as inbound
from twisted_mail.admin.opening import Store
from twisted_mail.admin.queue_items import PAGE, bodies_of, body_of
from twisted_mail.delivery import Bodies
from twisted_mail.queueing.limits import some_at_a_time
from twisted_mail.relay.items import Outbound, outbound_item
from twisted_mail.relay.journal import Journal, Step
from twisted_mail.reports.reading import read_delivery_report
from twisted_mail.storage.interfaces import QueueFilter
from twisted_mail.values import DeliveryId

HEADER = b"From: ann@example.org\r\nMessage-ID: <1@example.org>\r\nSubject: Lunch\r\n"
BODY = HEADER + b"\r\nHello\r\n"
DAY = 86_400.0


async def octets() -> AsyncIterator[bytes]:
    yield BODY


def leaving(
    ctl: Mailctl, address: str = "bob@example.net", *, delay: float = 3600.0, age: float = 0.0, reply: str = "", **changes: Any
) -> str:
    """Put an item for *address* into the queue; its id."""

    async def put(store: Store) -> str:
        id = DeliveryId.new()
        kept = await Bodies(store.backend.blobs, store.backend.references, store.reactor).keep(octets, [id])
        facts: dict[str, Any] = {
            "sender": "ann@example.org", "login": "ann@example.org", "header": len(HEADER), "message_id": "1@example.org", **changes,
        }  # fmt: skip
        outbound = Outbound(address=address, **facts)
        item = outbound_item(id, outbound, kept[id].ref, domain=address.partition("@")[2], created=time.time() - age)
        await store.backend.queue.put(replace(item, last_reply=reply, attempts=3 if reply else 0), delay=delay)
        return str(id)

    return ctl.inside(put)


@pytest.fixture
def ctl(tmp_path: Path) -> Mailctl:
    return Mailctl(tmp_path).with_user()


def ids(ctl: Mailctl, *words: str) -> set[str]:
    return {row["id"] for row in ctl.json("queue", "list", *words)}


def test_any_filter_finds_what_it_should(ctl: Mailctl) -> None:
    bob = leaving(ctl, reply="451 4.7.1 Greylisted, come back")
    carl = leaving(ctl, "carl@Other.example".lower(), stream="marketing", sender="news@example.org", delay=0.0, age=3 * DAY)
    null = leaving(ctl, "dora@example.net", sender="", login="", cause="bounce/dora@example.net", age=1.5 * DAY)
    came = inbound(ctl)
    everything = {bob, carl, null, came}
    assert ids(ctl) == everything
    for words, found in (
        (("--use", "outbound"), {bob, carl, null}),
        (("--use", "inbound"), {came}),
        (("--domain", "example.net"), {bob, null}),
        (("--sender", "ann@example.org"), {bob}),
        (("--sender", "<>"), {null}),
        (("--sender", "*@example.org"), {bob, carl}),
        (("--recipient", "bob@EXAMPLE.net"), {bob}),
        (("--recipient", "*@example.net"), {bob, null}),
        (("--recipient", "[bob]@example.net"), set()),
        (("--stream", "marketing"), {carl}),
        (("--older", "1d"), {carl, null, came}),
        (("--older", "2d", "--use", "outbound"), {carl}),
        (("--newer", "2d"), {bob, null}),
        (("--older", "1d", "--newer", "2d"), {null}),
        (("--reply", "greylisted"), {bob}),
        (("--state", "due"), {carl}),
        (("--state", "waiting", "--use", "outbound", "--stream", "normal"), {bob, null}),
    ):
        assert ids(ctl, *words) == found, words
    assert len(ids(ctl, "--limit", "1", "--recipient", "*@example.net")) == 1
    assert ctl.run("queue", "list", "--older", "a while").status == 2


def test_one_is_shown_with_what_is_asked_of_it(ctl: Mailctl) -> None:
    id = leaving(
        ctl, notify=("FAILURE", "SUCCESS"), envelope_id="e1", trail=((1_700_000_000.0, "450 4.2.0 later"),), requiretls=True,
        deliver_by=1_700_000_000.0, warned=True,
    )  # fmt: skip
    shown = ctl.json("queue", "show", id)
    assert (shown["use"], shown["stream"], shown["message_id"]) == ("outbound", "normal", "1@example.org")
    assert (shown["login"], shown["notify"], shown["envelope_id"]) == ("ann@example.org", ["FAILURE", "SUCCESS"], "e1")
    assert shown["replies"] == ["2023-11-14T22:13:20Z 450 4.2.0 later"]
    assert shown["requiretls"] and shown["sender_was_warned"] and shown["deliver_by"] == "2023-11-14T22:13:20Z"
    assert shown["body"].endswith("in the blob store")
    assert "recipient: bob@example.net" in ctl.good("queue", "show", id).out


def test_verbs_take_what_matches(ctl: Mailctl) -> None:
    bob, carl = leaving(ctl), leaving(ctl, "carl@other.example")
    assert ctl.run("queue", "hold").status == 2
    assert ctl.run("queue", "hold", bob, "--domain", "example.net").status == 2
    assert ctl.json("queue", "hold", "--domain", "example.net")["items"] == [bob]
    assert ctl.json("queue", "retry", "--state", "held")["count"] == 0
    assert ctl.json("queue", "retry", "--recipient", "*")["items"] == [carl]
    assert ids(ctl, "--state", "due") == {carl}
    assert ctl.json("queue", "release", "--sender", "ann@*")["items"] == [bob]


def test_a_destination_is_flushed(ctl: Mailctl) -> None:
    bob, carl, came = leaving(ctl), leaving(ctl, "carl@other.example"), inbound(ctl, "x@example.net")
    assert ctl.json("queue", "flush", "Example.net")["items"] == [bob]
    assert ids(ctl, "--state", "due") == {bob} and ids(ctl, "--state", "waiting") == {carl, came}


def test_what_is_deleted_takes_its_body_along(ctl: Mailctl) -> None:
    id = leaving(ctl)
    assert holders(ctl) == [f"q/{id}"]
    ctl.good("queue", "delete", id, "--yes")
    assert holders(ctl) == [] and ids(ctl) == set()


def reports(ctl: Mailctl) -> list[bytes]:
    """Messages of the server's own in the queue."""

    async def read(store: Store) -> list[bytes]:
        found = []
        for status in await store.backend.queue.list(QueueFilter()):
            body = body_of(status.item)
            if not status.item.sender and body is not None:
                found.append(b"".join([chunk async for chunk in bodies_of(store).open(body)]))
        return found

    return ctl.inside(read)


def test_what_is_given_up_is_told_to_who_sent_it_and_to_nobody_else(ctl: Mailctl) -> None:
    bob = leaving(ctl, reply="451 4.4.1 no answer")
    null = leaving(ctl, "dora@example.net", sender="", login="")
    came = inbound(ctl)
    assert ctl.run("queue", "bounce", bob).status == 2, "not without being asked"
    done = ctl.json("queue", "bounce", "--all", "--yes")
    assert sorted(done["items"]) == sorted([bob, null])
    assert done["told"] == {"told": 1, "there is no sender to tell": 1}
    (octets,) = reports(ctl)
    (each,) = read_delivery_report(octets[octets.index(b"From: Mail") :]).recipients
    assert (each.recipient, each.status) == ("bob@example.net", "5.4.7")
    assert each.diagnostic == "554 5.4.7 given up by the administrator: 451 4.4.1 no answer"
    (row,) = [row for row in ctl.json("queue", "list") if row["id"] != came]
    assert (row["use"], row["recipient"]) == ("inbound", "ann@example.org"), "its sender is a user of ours"
    assert holders(ctl) == [f"q/{came}"], "a small body lies in the queue's own store"
    steps = ctl.json("queue", "trace", "<1@example.org>")
    assert {(step["what"], step["id"]) for step in steps} == {("bounced", bob), ("bounced", null)}


def test_a_reason_is_told(ctl: Mailctl) -> None:
    id = leaving(ctl, sender="x@other.example", login="ann@example.org", reply="451 later")
    ctl.good("queue", "bounce", id, "--reason", "the domain is gone", "--yes")
    (octets,) = reports(ctl)
    assert b"554 5.4.7 given up by the administrator: the domain is gone" in octets
    assert ids(ctl, "--use", "outbound", "--sender", "<>", "--recipient", "x@other.example")


def test_mail_that_came_is_not_given_up(ctl: Mailctl) -> None:
    came = inbound(ctl)
    assert ctl.json("queue", "bounce", came, "--yes")["count"] == 0
    assert ids(ctl) == {came}


def test_a_way_is_told_like_a_story(ctl: Mailctl) -> None:
    bob, other = leaving(ctl), leaving(ctl, "carl@other.example")

    async def write(store: Store) -> None:
        journal = Journal(store.backend.records, "node1")
        first = Step(at=1_700_000_000.0, what="queued", id=bob, address="bob@example.net", sender="ann@example.org", stream="normal")
        await journal.note("1@example.org", first)
        second = Step(
            at=1_700_000_060.0, what="deferred", id=bob, address="bob@example.net", attempt=1, reply="451 4.7.1 later",
            host="mx.example.net[192.0.2.1]", source="192.0.2.10", tls="TLS1.3", next=1_700_000_360.0, stage="rcpt",
        )  # fmt: skip
        await journal.note("1@example.org", second)
        await journal.note("1@example.org", replace_step(first, id=other, address="carl@other.example"))

    ctl.inside(write)
    lines = ctl.good("queue", "trace", "1@example.org").out.splitlines()
    assert len(lines) == 3
    assert "2023-11-14T22:13:20Z  bob@example.net: queued from <ann@example.org>, stream normal" in lines[:2]
    assert lines[-1] == (
        "2023-11-14T22:14:20Z  bob@example.net: deferred (attempt 1) by mx.example.net[192.0.2.1] from 192.0.2.10 over TLS1.3: "
        "451 4.7.1 later; next attempt 2023-11-14T22:19:20Z"
    )
    assert [step["what"] for step in ctl.json("queue", "trace", bob)] == ["queued", "deferred"]
    assert ctl.json("queue", "trace", bob)[1]["next_attempt"] == "2023-11-14T22:19:20Z"
    assert ctl.run("queue", "trace", "unknown@example.org").status == 3
    assert ctl.run("queue", "trace", "0" * 32).status == 3
    assert ctl.run("queue", "trace", inbound(ctl)).status == 3


def replace_step(step: Step, **changes: Any) -> Step:
    return Step(**{**{name: getattr(step, name) for name in step.__struct_fields__}, **changes})


def test_items_are_counted_by_what_they_have_in_common(ctl: Mailctl) -> None:
    for address in ("bob@example.net", "carl@example.net", "dora@other.example"):
        leaving(ctl, address, reply="451 4.7.1 later")
    inbound(ctl)
    rows = ctl.json("queue", "count", "--by", "domain", "--use", "outbound")
    assert [(row["domain"], row["count"]) for row in rows] == [("example.net", 2), ("other.example", 1)]
    assert ctl.json("queue", "count", "--by", "domain", "--top", "1")[0]["count"] == 2
    for by in ("state", "use", "stream", "sender", "recipient", "reply"):
        assert sum(row["count"] for row in ctl.json("queue", "count", "--by", by)) == 4


def test_many_items_go_page_by_page(ctl: Mailctl) -> None:
    count = PAGE * 2 + 7

    async def fill(store: Store) -> None:
        async def put(number: int) -> None:
            outbound = Outbound(address=f"u{number}@example.net", sender="ann@example.org")
            item = outbound_item(DeliveryId.new(), outbound, None, domain="example.net", created=0.0)  # type: ignore[arg-type]
            await store.backend.queue.put(item, delay=3600.0)

        await some_at_a_time([put(number) for number in range(count)])

    ctl.inside(fill)
    assert len(ctl.json("queue", "list", "--limit", "5000")) == count
    assert len(ctl.json("queue", "list", "--recipient", "u1*@example.net", "--limit", "5000")) == sum(
        str(number).startswith("1") for number in range(count)
    )
    done = ctl.json("queue", "hold", "--all")
    assert (done["count"], len(done["items"])) == (count, 1000)
    assert ctl.json("queue", "release", "--all")["count"] == count
    assert ctl.json("queue", "delete", "--domain", "example.net", "--yes")["count"] == count
