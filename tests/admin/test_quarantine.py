"""mailctl quarantine: what filters keep from recipients is seen, let go, and thrown away."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.admin.calling import Mailctl
from twisted_mail.admin.opening import Store
from twisted_mail.delivery import Bodies
from twisted_mail.delivery.items import Copy, queue_item
from twisted_mail.delivery.judgement import Judgement
from twisted_mail.filters.values import Action
from twisted_mail.values import DeliveryId

BODY = b"Subject: a bill\r\nMessage-ID: <1@b.example>\r\n\r\ntext\r\n"
FOUND = Judgement(
    action=Action.QUARANTINE, score=7.5, peer="192.0.2.7", trace=("spf: it may not send", "clamav: it cannot be looked into")
)


@pytest.fixture
def ctl(tmp_path: Path) -> Mailctl:
    return Mailctl(tmp_path).with_user()


def kept(ctl: Mailctl, judgement: Judgement | None = FOUND, reply: str = "") -> str:
    """Put an item for Ann into the queue, held; its id."""

    async def octets() -> AsyncIterator[bytes]:
        yield BODY

    async def put(store: Store) -> str:
        record = await store.directory.account_by_address("ann@example.org")
        assert record is not None
        id = DeliveryId.new()
        bodies = Bodies(store.backend.blobs, store.backend.references, store.reactor)
        blob = await bodies.keep(octets, [id])
        copy = Copy(delivery=id, account=record.id, address="ann@example.org", judgement=judgement)
        item = queue_item(
            copy, blob[id].ref, sender="a@b.example", received=1_700_000_000, repeated=False, place="blobs", created=time.time()
        )
        await store.backend.queue.put(replace(item, last_reply=reply), delay=3600.0)
        assert await store.backend.queue.hold(id)
        return str(id)

    return ctl.inside(put)


def mailboxes(ctl: Mailctl) -> dict[str, int]:
    """Messages by mailbox, of those that have some."""

    async def look(store: Store) -> dict[str, int]:
        async with store.account(await store.user("ann@example.org")) as account:
            return {box.name: box.messages for box in account.state.mailboxes.values() if box.messages}

    return ctl.inside(look)


def test_what_is_kept_is_listed_with_the_reason_and_other_held_mail_is_not(ctl: Mailctl) -> None:
    id, other = kept(ctl), kept(ctl, None)
    (row,) = ctl.json("quarantine", "list")
    assert (row["id"], row["recipient"], row["why"]) == (id, "ann@example.org", "clamav: it cannot be looked into")
    shown = ctl.json("quarantine", "show", id)
    assert (shown["client"], shown["score"], len(shown["lines"])) == ("192.0.2.7", 7.5, 2)
    assert "clamav: it cannot be looked into" in ctl.good("quarantine", "list").out
    assert ctl.run("quarantine", "show", other).status == 3


def test_what_a_filter_said_only_when_it_was_asked_again_is_listed_too(ctl: Mailctl) -> None:
    waited = Judgement(peer="192.0.2.7", trace=("clamav: no answer",), pending=("clamav",))
    id = kept(ctl, waited, "attempt 2: 550 5.7.1 quarantined: clamav: it has a virus")
    kept(ctl, waited, "attempt 9: 451 4.7.1 no answer from clamav")
    (row,) = ctl.json("quarantine", "list")
    assert (row["id"], row["why"]) == (id, "clamav: it has a virus")
    ctl.good("quarantine", "release", id)
    assert mailboxes(ctl) == {"INBOX": 1}


@pytest.mark.parametrize(("words", "mailbox"), [((), "INBOX"), (("--junk",), "Junk")])
def test_what_is_let_go_is_delivered_once_and_leaves_the_queue(ctl: Mailctl, words: tuple[str, ...], mailbox: str) -> None:
    id = kept(ctl)
    ctl.good("quarantine", "release", id, *words)
    assert mailboxes(ctl) == {mailbox: 1}
    assert ctl.json("queue", "list") == []
    assert ctl.run("quarantine", "release", id).status == 3
    assert mailboxes(ctl) == {mailbox: 1}


def test_what_is_thrown_away_is_gone_with_its_octets(ctl: Mailctl) -> None:
    id = kept(ctl)
    assert ctl.run("quarantine", "delete", id).status == 2, "it is asked first"
    ctl.good("quarantine", "delete", "--yes", id)
    assert ctl.json("queue", "list") == [] and mailboxes(ctl) == {}

    async def holders(store: Store) -> list[str]:
        return [holder async for _, holder in store.backend.references.iterate() if holder.startswith("q/")]

    assert ctl.inside(holders) == []


def test_other_held_mail_cannot_be_let_go_by_this_door(ctl: Mailctl) -> None:
    assert ctl.run("quarantine", "release", kept(ctl, None)).status == 3
