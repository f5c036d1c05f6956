"""mailctl queue: mail that waits is seen, held, let go and deleted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.admin.calling import Mailctl
from twisted_mail.admin.opening import Store
from twisted_mail.delivery import Bodies
from twisted_mail.delivery.items import Copy, queue_item
from twisted_mail.storage.interfaces import QueueItem
from twisted_mail.values import AccountId, DeliveryId

BODY = b"Subject: waiting\r\n\r\ntext\r\n"


async def octets() -> AsyncIterator[bytes]:
    yield BODY


def waiting(ctl: Mailctl, address: str = "ann@example.org", sender: str = "a@b.example", delay: float = 3600.0) -> str:
    """Put an item for *address* into the queue; its id."""

    async def put(store: Store) -> str:
        record = await store.directory.account_by_address(address)
        id = DeliveryId.new()
        bodies = Bodies(store.backend.blobs, store.backend.references, store.reactor)
        kept = await bodies.keep(octets, [id])
        copy = Copy(delivery=id, account=record.id if record else AccountId.new(), address=address)
        item = queue_item(
            copy, kept[id].ref, sender=sender, received=1_700_000_000, repeated=False, place="blobs", created=1_700_000_000.0
        )
        await store.backend.queue.put(item, delay=delay)
        return str(id)

    return ctl.inside(put)


def holders(ctl: Mailctl) -> list[str]:
    async def look(store: Store) -> list[str]:
        return [holder async for _, holder in store.backend.references.iterate() if holder.startswith("q/")]

    return ctl.inside(look)


@pytest.fixture
def ctl(tmp_path: Path) -> Mailctl:
    return Mailctl(tmp_path).with_user()


def states(ctl: Mailctl) -> dict[str, str]:
    return {row["id"]: row["state"] for row in ctl.json("queue", "list")}


def test_an_empty_queue_is_an_empty_list(ctl: Mailctl) -> None:
    assert ctl.json("queue", "list") == []
    assert ctl.good("queue", "list").out == ""


def test_items_are_listed_and_shown(ctl: Mailctl) -> None:
    id, other = waiting(ctl), waiting(ctl, "x@other.example", "", 0.0)
    rows = {row["id"]: row for row in ctl.json("queue", "list")}
    assert rows[id]["state"] == "waiting" and rows[other]["state"] == "due"
    assert (rows[id]["sender"], rows[id]["recipient"], rows[id]["size"]) == ("<a@b.example>", "ann@example.org", len(BODY))
    assert [row["id"] for row in ctl.json("queue", "list", "--domain", "Other.example")] == [other]
    assert [row["id"] for row in ctl.json("queue", "list", "--sender", "<>")] == [other]
    assert [row["id"] for row in ctl.json("queue", "list", "--state", "waiting")] == [id]
    shown = ctl.json("queue", "show", id)
    assert shown["user"] == "ann@example.org" and shown["received"] == "2023-11-14T22:13:20Z"
    assert shown["next_attempt"] is not None and not shown["may_be_delivered_already"]
    assert ctl.json("queue", "show", other)["user"] is None


def test_hold_release_retry(ctl: Mailctl) -> None:
    id, other = waiting(ctl), waiting(ctl)
    assert ctl.json("queue", "hold", id)["items"] == [id]
    assert states(ctl) == {id: "held", other: "waiting"}
    assert ctl.json("queue", "retry", "--all")["items"] == [other], "what is held stays held"
    assert states(ctl) == {id: "held", other: "due"}
    assert ctl.json("queue", "release", "--all")["items"] == [id]
    assert states(ctl) == {id: "due", other: "due"}


def test_delete_takes_the_body_along(ctl: Mailctl) -> None:
    id, other = waiting(ctl), waiting(ctl, sender="spam@b.example")
    assert sorted(holders(ctl)) == sorted([f"q/{id}", f"q/{other}"])
    refused = ctl.run("queue", "delete", id)
    assert refused.status == 2 and len(states(ctl)) == 2, "not without being asked"
    ctl.good("queue", "delete", "--all", "--sender", "spam@b.example", "--yes")
    assert list(states(ctl)) == [id] and holders(ctl) == [f"q/{id}"]
    ctl.good("queue", "delete", id, "--yes")
    assert states(ctl) == {} and holders(ctl) == []


def test_an_item_that_cannot_be_read_is_listed_all_the_same(ctl: Mailctl) -> None:
    async def put(store: Store) -> str:
        item = QueueItem(DeliveryId.new(), "inbound", b"\xff", None, "example.org", "a@b.example")
        await store.backend.queue.put(item)
        return str(item.id)

    id = ctl.inside(put)
    assert ctl.json("queue", "show", id)["recipient"] == "example.org"
    ctl.good("queue", "delete", id, "--yes")


def test_wrong_words(ctl: Mailctl) -> None:
    assert ctl.run("queue", "show", "x").status == 2
    missing = ctl.run("queue", "show", "ab" * 16, "--json")
    assert (missing.status, missing.error()["code"]) == (3, "not-found")
    assert ctl.run("queue", "hold").status == 2
    assert ctl.run("queue", "hold", "ab" * 16, "--all").status == 2
    assert ctl.run("queue", "hold", "ab" * 16, "--domain", "x.example").status == 2
