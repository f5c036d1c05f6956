"""The intent of a delivery: several mailboxes at once, and what is remembered with it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from twisted.internet.defer import Deferred

from tests.account.house import START, House, now, put
from tests.account.test_forwarding import EAGER, Pair
from twisted_mail.account.checkpoint import decode_head
from twisted_mail.account.delivering import (
    ANSWERED,
    MOST,
    SEEN,
    Delivered,
    DeliverMessage,
    Place,
    Remember,
    Seen,
    memory_key,
)
from twisted_mail.account.intents import new_message
from twisted_mail.account.service import AccountSettings
from twisted_mail.account.tree import CreateMailbox, DeleteMailbox
from twisted_mail.services import Account
from twisted_mail.values import DeliveryId

NOW = int(START)
WEEK = 7 * 86_400


@pytest.fixture
def house() -> House:
    return House()


def deliver(house: House, account: Account, *places: Place, id: DeliveryId | None = None, **more: Any) -> Delivered:
    message = new_message(put(house, account, b"Subject: x\r\n\r\nx\r\n"), NOW) if places else None
    id = id or DeliveryId.new()
    return now(account.commit(DeliverMessage(delivery=id.octets, message=message, places=places, now=NOW, **more)))


def answer(key: str = "k", until: int = NOW + WEEK) -> tuple[Remember, ...]:
    return (Remember(key, until),)


def counts(account: Account) -> dict[str, int]:
    return {mailbox.name: mailbox.messages for mailbox in account.state.in_order() if mailbox.messages}


def make(name: str, *uses: str) -> Place:
    return Place(create=CreateMailbox.of(name, NOW, uses))


def test_a_message_goes_into_several_mailboxes_in_one_entry(house: House) -> None:
    account = house.open()
    before = account.state.modseq
    archive = account.state.mailbox("Archive")
    found = deliver(house, account, Place(flags=("\\Seen",)), Place(archive.id, ("$Work",)), make("Lists/Python"))
    assert counts(account) == {"INBOX": 1, "Archive": 1, "Lists/Python": 1}
    assert account.state.modseq == before + 1 == found.modseq
    assert len(found.mailboxes) == 3 and "Lists" in account.state.by_name
    assert {"Lists", "Lists/Python"} <= account.state.subscriptions
    columns = now(account.columns(archive))
    assert columns.flags_of(0) == ["$Work"]
    keys = {now(account.columns(mailbox)).key(0) for mailbox in account.state.in_order() if mailbox.messages}
    assert len(keys) == 1, "one row for all"


def test_two_places_that_are_one_mailbox_get_one_message_with_the_flags_of_both(house: House) -> None:
    account = house.open()
    deliver(house, account, Place(flags=("a",)), Place(account.state.inbox.id, ("b",)))
    columns = now(account.columns(account.state.inbox))
    assert (len(columns.live), sorted(columns.flags_of(0))) == (1, ["a", "b"])


def test_a_repeated_delivery_does_nothing_and_says_so(house: House) -> None:
    account, id = house.open(), DeliveryId.new()
    deliver(house, account, Place(), id=id)
    again = deliver(house, account, Place(), make("New"), id=id, repeated=True)
    assert counts(account) == {"INBOX": 1} and again.modseq == 0 and "New" not in account.state.by_name


def test_a_repeated_delivery_is_found_in_an_older_checkpoint_by_another_node() -> None:
    house = House(AccountSettings(checkpoint_entries=2))
    account, id = house.open(), DeliveryId.new()
    deliver(house, account, Place(), id=id, answers=answer())
    for _ in range(5):
        deliver(house, account, Place())
    other = house.open(account.id, house.node())
    assert id.octets not in other.state.delivered
    again = deliver(house, other, Place(), id=id, repeated=True, answers=answer())
    assert (again.modseq, again.answers) == (0, ("k",)), "the answer is still this delivery's to give"


def test_the_mailbox_of_a_special_use_is_found_or_made_once(house: House) -> None:
    account = house.open()
    deliver(house, account, make("Spam", "\\Junk"))
    assert counts(account) == {"Junk": 1}
    now(account.commit(DeleteMailbox(name="Junk")))
    deliver(house, account, make("Spam", "\\Junk"), make("Other", "\\Junk"))
    assert counts(account) == {"Spam": 1}
    assert account.state.mailbox("Spam").special_use == ("\\Junk",)


def test_what_cannot_be_made_or_is_gone_means_inbox(house: House) -> None:
    account = house.open()
    gone = account.state.mailbox("Archive").id
    now(account.commit(DeleteMailbox(name="Archive")))
    deliver(house, account, Place(gone))
    bad = CreateMailbox(name="a//b", ids=CreateMailbox.of("a/b", NOW).ids, uid_validity=NOW)
    deliver(house, account, Place(create=bad))
    assert counts(account) == {"INBOX": 2}


def test_mailboxes_made_together_share_what_is_above_them_and_have_numbers_of_their_own(house: House) -> None:
    account = house.open()
    deliver(house, account, make("a/b"), make("a/c"), make("a"))
    made = [account.state.mailbox(name) for name in ("a", "a/b", "a/c")]
    assert [mailbox.messages for mailbox in made] == [1, 1, 1]
    assert len({mailbox.uid_validity for mailbox in made}) == 3
    assert account.state.uid_validity == max(mailbox.uid_validity for mailbox in made)
    deliver(house, account, make("d"))
    assert account.state.mailbox("d").uid_validity > max(mailbox.uid_validity for mailbox in made)


def test_too_many_keywords_lose_the_keyword_and_not_the_message(house: House) -> None:
    account = house.open()
    now(account.columns(account.state.inbox))
    deliver(house, account, Place(flags=tuple(f"k{number}" for number in range(500))))
    deliver(house, account, Place(flags=("\\Flagged", "one-more")))
    assert now(account.columns(account.state.inbox)).flags_of(1) == ["\\Flagged"]


# --- whom was answered


def test_a_sender_is_answered_once_within_the_time_and_again_after_it(house: House) -> None:
    account = house.open()
    assert deliver(house, account, Place(), answers=answer()).answers == ("k",)
    assert deliver(house, account, Place(), answers=answer()).answers == ()
    assert deliver(house, account, Place(), answers=answer("other")).answers == ("other",)
    later = DeliverMessage(
        delivery=DeliveryId.new().octets, now=NOW + WEEK, answers=answer(until=NOW + 2 * WEEK)
    )
    assert now(account.commit(later)).answers == ("k",)
    assert ANSWERED + "other" not in account.state.settings, "what has expired went with it"


def test_a_delivery_into_no_mailbox_answers_once_too(house: House) -> None:
    account, id = house.open(), DeliveryId.new()
    assert deliver(house, account, id=id, answers=answer()).answers == ("k",)
    assert deliver(house, account, id=id, answers=answer(), repeated=True).answers == ("k",)
    assert deliver(house, account, answers=answer()).answers == ()


def test_two_nodes_that_deliver_two_messages_at_once_answer_once(house: House) -> None:
    first = house.open()
    second = house.open(first.id, house.node())
    gate: Deferred[None] = Deferred()
    append = house.engine.account_log.append

    async def slow(*arguments: Any) -> Any:
        await gate
        return await append(*arguments)

    house.engine.account_log.append = slow  # type: ignore[method-assign, assignment]
    results: list[Delivered] = []
    for account in (first, second):
        message = new_message(put(house, account, b"x\r\n"), NOW)
        intent = DeliverMessage(
            delivery=DeliveryId.new().octets, message=message, places=(Place(),), now=NOW, answers=answer()
        )
        Deferred.fromCoroutine(account.commit(intent)).addCallback(results.append)
    assert results == []
    gate.callback(None)
    for _ in range(100):
        house.clock.advance(0.1)
    assert sorted(found.answers for found in results) == [(), ("k",)]
    now(first.refresh())
    assert counts(first) == {"INBOX": 2}


def test_two_deliveries_in_one_append_answer_once(house: House) -> None:
    account = house.open()
    gate: Deferred[None] = Deferred()
    append = house.engine.account_log.append

    async def slow(*arguments: Any) -> Any:
        await gate
        return await append(*arguments)

    house.engine.account_log.append = slow  # type: ignore[method-assign, assignment]
    results: list[Delivered] = []
    for wanted in ((), answer(), answer()):  # the first is under way; the others wait, and could go together
        message = new_message(put(house, account, b"x\r\n"), NOW)
        intent = DeliverMessage(
            delivery=DeliveryId.new().octets, message=message, places=(Place(),), now=NOW, answers=wanted
        )
        Deferred.fromCoroutine(account.commit(intent)).addCallback(results.append)
    gate.callback(None)
    for _ in range(10):
        house.clock.advance(0.1)
    assert sorted(found.answers for found in results) == [(), (), ("k",)]


def test_what_is_remembered_has_a_bound_and_the_head_stays_small(house: House) -> None:
    house = House(AccountSettings(checkpoint_entries=50))
    account = house.open()
    for number in range(MOST[ANSWERED] + 60):
        deliver(house, account, answers=(Remember(memory_key(str(number)), NOW + WEEK + number),))
    for number in range(0, MOST[SEEN] + 100, 50):
        deliver(house, account, seen=tuple(Remember(memory_key(str(n)), NOW + WEEK) for n in range(number, number + 50)))
    remembered = [name for name in account.state.settings if name.startswith("~")]
    assert len(remembered) == MOST[ANSWERED] + MOST[SEEN]
    assert ANSWERED + memory_key("0") not in remembered, "what expires first goes"
    assert ANSWERED + memory_key(str(MOST[ANSWERED] + 59)) in remembered
    checkpoint = now(house.engine.account_log.load_checkpoint(account.id, ("head",)))
    assert checkpoint is not None and len(checkpoint.chunks["head"]) < 32 * 1024
    decode_head(checkpoint.chunks["head"])


def test_ids_are_seen_by_later_deliveries_and_not_by_the_one_that_saw_them(house: House) -> None:
    account, id = house.open(), DeliveryId.new()
    deliver(house, account, Place(), id=id, seen=(Remember(memory_key("<a@b>"), NOW + 60),))
    own, other = (Seen(account.state, each.octets, NOW) for each in (id, DeliveryId.new()))
    assert "<a@b>" not in own and other.get("<a@b>") == NOW and "<b@b>" not in other
    assert "<a@b>" not in Seen(account.state, DeliveryId.new().octets, NOW + 60)


def test_of_a_script_that_fails_its_owner_is_told_once_for_each_version(house: House) -> None:
    account, id = house.open(), DeliveryId.new()
    assert deliver(house, account, Place(), id=id, told="one").tell
    assert deliver(house, account, Place(), id=id, told="one", repeated=True).tell
    assert not deliver(house, account, Place(), told="one").tell
    assert deliver(house, account, Place(), told="two").tell


# --- by another node


@pytest.mark.parametrize("fate", ["ok", "refused", "lost", "hidden", "late"])
def test_who_answers_is_told_so_whatever_becomes_of_what_was_sent_to_the_owner(fate: str) -> None:
    pair = Pair(EAGER)
    pair.contend()
    pair.network.fate = lambda sender, receiver: fate
    message = new_message(put(pair, pair.sender, b"x\r\n"), NOW)
    sent = DeliverMessage(
        delivery=DeliveryId.new().octets, message=message, places=(Place(), make("New")), now=NOW, answers=answer()
    )
    assert now(pair.sender.commit(sent)).answers == ("k",)
    assert len(pair.network.sent) == (fate != "refused")
    other = DeliverMessage(delivery=DeliveryId.new().octets, now=NOW, answers=answer())
    assert now(pair.owner.commit(other)).answers == ()
    now(pair.network.arrive())
    again = now(pair.sender.commit(replace(sent, repeated=True, message=new_message(put(pair, pair.sender, b"x\r\n"), NOW))))
    assert again.answers == ("k",) and again.modseq == 0
    now(pair.owner.refresh())
    assert counts(pair.owner) == {"INBOX": 3, "New": 1}, "two are from before"
