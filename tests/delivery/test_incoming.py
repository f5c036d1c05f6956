"""From octets to messages in mailboxes."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.delivery.support import NOW, PEER, FakeOutbound, House, run
from twisted_mail.account.delivering import DeliverMessage
from twisted_mail.account.errors import AccountUnavailable, OutcomeUnknown
from twisted_mail.account.tree import DeleteMailbox
from twisted_mail.delivery.trace import FIRST_FIELD, HopCount, received_field, separator
from twisted_mail.services import Envelope, Identity, MailRefused, Peer, Recipient, Refusal
from twisted_mail.storage.interfaces import Unavailable
from twisted_mail.values import AccountId

ANN, BOB = "ann@example.org", "bob@example.org"
MESSAGE = b"Subject: x\r\n\r\ntext\r\n"


@pytest.fixture
def house() -> House:
    house = House()
    house.user(ANN)
    house.user(BOB)
    return house


def test_a_message_comes_with_its_trace_in_front(house: House) -> None:
    outcome = house.deliver(ANN)[0]
    assert outcome.refused is None and outcome.delivery is not None
    message = house.mailbox(ANN)[0]
    assert message.endswith(MESSAGE)
    trace = message[: -len(MESSAGE)].decode()
    assert re.fullmatch(
        r"Return-Path: <a@b\.example>\r\n"
        r"Received: from client\.example \(\[192\.0\.2\.7\]\)\r\n"
        r"\tby mx\.example\.org with ESMTP id [0-9a-f]{16}\r\n"
        r"\tfor <ann@example\.org>;\r\n"
        r"\t[A-Z][a-z]{2}, 1[45] Nov 2023 \d\d:\d\d:20 [+-]\d{4}\r\n",
        trace,
    ), trace


@pytest.mark.parametrize(
    ("message", "between"),
    [
        (b"the UPS runs on battery\r\n", b"\r\n"),
        (b"hello\r\n\r\nNot: a field\r\n", b"\r\n"),
        (b" indented\r\nlines\r\n", b"\r\n"),
        (b"word " * FIRST_FIELD + b"\r\n", b"\r\n"),
        (b"\r\nhello\r\n", b""),
        (b"", b""),
        (b"Subject: x\r\n", b""),
        (b"subject : x\r\n\r\n", b""),
        (b"From someone Tue Nov 14 22:13:20 2023\r\nSubject: x\r\n\r\ntext\r\n", b""),
        (b"not a field\r\nSubject: x\r\n\r\ntext\r\n", b""),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_text_without_a_header_becomes_a_body_and_no_part_of_the_trace(
    house: House, message: bytes, between: bytes, size: int
) -> None:
    incoming = run(house.intake.begin(house.envelope(ANN)))
    for at in range(0, len(message), size):
        run(incoming.write(message[at : at + size]))
    assert [outcome.refused for outcome in run(incoming.finish())] == [None]
    got = house.mailbox(ANN)[0]
    assert got.endswith(message)
    trace = got[: len(got) - len(message)]
    assert re.search(rb" [+-]\d{4}\r\n" + between + rb"\Z", trace), trace


def test_little_is_held_back_to_find_the_first_field() -> None:
    assert separator(b"x" * (FIRST_FIELD - 1), ended=False) is None
    assert separator(b"x" * FIRST_FIELD, ended=False) == b"\r\n"
    assert separator(b"Received: ", ended=False) == b""


def _field(**more: Any) -> str:
    recipient = Recipient(ANN, ())
    envelope = replace(Envelope("a@b.example", (recipient,), PEER, "client", "ESMTP"), **more)
    return received_field(envelope, hostname="mx.example.org", id="1", seconds=NOW).decode()


def test_received_says_how_it_came() -> None:
    secure = Peer("2001:db8::1", secure=True, tls_description="TLS1.3 with cipher TLS_AES_256_GCM_SHA384")
    field = _field(peer=secure, protocol="ESMTPSA")
    assert field.startswith("Received: from client ([IPv6:2001:db8::1])\r\n\t(using TLS1.3 with cipher TLS_AES_256")
    assert "\r\n\tby mx.example.org with ESMTPSA id 1\r\n" in field
    assert _field(peer=Peer(""), protocol="LMTP").startswith("Received: from client\r\n\tby mx.example.org with LMTP id 1\r\n")


def test_recipients_do_not_learn_of_each_other() -> None:
    assert "for <" not in _field(recipients=(Recipient(ANN, ()), Recipient(BOB, ())))
    assert "for <" not in _field(recipients=(Recipient("postmaster", ()),))


def test_a_client_cannot_write_into_the_trace() -> None:
    field = _field(helo="x)\r\nEvil: yes;")
    assert "\r\nEvil" not in field
    assert field.startswith("Received: from x???Evil:?yes? (")


def test_every_recipient_has_an_id_and_every_account_one_copy(house: House) -> None:
    house.alias("team@example.org", ANN, BOB)
    outcomes = house.deliver(ANN, "team@example.org", "ann+x@example.org")
    assert [outcome.refused for outcome in outcomes] == [None] * 3
    assert len(house.mailbox(ANN)) == len(house.mailbox(BOB)) == 1
    account = run(house.accounts.open(house.people[ANN]))
    assert outcomes[0].delivery is not None
    assert outcomes[0].delivery.octets in account.state.delivered


def test_sub_addresses_may_name_mailboxes() -> None:
    house = House(detail_mailboxes=True)
    house.user(ANN)
    house.create(ANN, "lists")
    house.deliver("ann+lists@example.org", "ann+nowhere@example.org", "ann+../x@example.org")
    assert len(house.mailbox(ANN, "lists")) == 1
    assert len(house.mailbox(ANN)) == 2
    plain = House()
    plain.user(ANN)
    plain.create(ANN, "lists")
    plain.deliver("ann+lists@example.org")
    assert len(plain.mailbox(ANN)) == 1


def test_a_failure_for_one_recipient_does_not_touch_the_others(house: House) -> None:
    house.user("small@example.org")
    house.breaks("small@example.org")
    house.alias("both@example.org", BOB, "small@example.org")
    outcomes = house.deliver(ANN, "small@example.org", "both@example.org")
    reasons = [outcome.refused and outcome.refused.reason for outcome in outcomes]
    assert reasons == [None, Refusal.UNAVAILABLE, Refusal.UNAVAILABLE]
    assert [outcome.delivery is None for outcome in outcomes] == [False, True, True]
    assert len(house.mailbox(ANN)) == len(house.mailbox(BOB)) == 1


@pytest.mark.parametrize("error", [OutcomeUnknown("?"), AccountUnavailable("down"), Unavailable("down"), ValueError("a bug")])
def test_what_fails_in_an_account_is_a_failure_for_now(house: House, error: Exception) -> None:
    incoming = run(house.intake.begin(house.envelope(ANN, BOB)))
    run(incoming.write(MESSAGE))
    account = run(house.accounts.open(house.people[ANN]))
    commit = account.commit

    async def failing(intent: Any) -> Any:
        raise error

    account.commit = failing  # type: ignore[method-assign]
    outcomes = run(incoming.finish())
    account.commit = commit  # type: ignore[method-assign]
    refused = outcomes[0].refused
    assert refused is not None and refused.temporary and refused.reason is Refusal.UNAVAILABLE
    assert outcomes[1].refused is None
    assert len(house.mailbox(BOB)) == 1


class RowsWithEntries:
    """A log that writes rows together with the entries that name them, as the embedded one does."""

    def __init__(self, house: House) -> None:
        self.log, self.messages = house.engine.account_log, house.engine.messages

    async def append_with_rows(self, account: Any, expected: Any, entries: Any, rows: Any) -> Any:
        head = await self.log.append(account, expected, entries)
        await self.messages.put(account, rows)
        return head


@pytest.mark.parametrize("together", [False, True])
def test_a_mailbox_that_was_just_deleted_leaves_inbox(together: bool) -> None:
    house = House(detail_mailboxes=True)
    if together:
        house.accounts.appends_rows = RowsWithEntries(house)
    house.user(ANN)
    house.create(ANN, "lists")
    account = run(house.accounts.open(house.people[ANN]))
    commit = account.commit
    seen: list[DeliverMessage] = []

    async def deleting(intent: Any) -> Any:
        if isinstance(intent, DeliverMessage) and not seen:
            seen.append(intent)
            await commit(DeleteMailbox(name="lists"))
        return await commit(intent)

    account.commit = deleting  # type: ignore[method-assign]
    outcomes = house.deliver("ann+lists@example.org")
    assert outcomes[0].refused is None
    assert len(house.mailbox(ANN)) == 1


def test_many_recipients_at_once(house: House) -> None:
    names = [f"user{number}@example.org" for number in range(100)]
    for name in names:
        house.user(name)
    outcomes = house.deliver(*names)
    assert [outcome.recipient.address for outcome in outcomes] == names
    assert len({outcome.delivery for outcome in outcomes}) == 100
    assert all(len(house.mailbox(name)) == 1 for name in names)


def test_an_empty_message_has_trace_fields(house: House) -> None:
    incoming = run(house.intake.begin(house.envelope(ANN)))
    run(incoming.finish())
    assert house.mailbox(ANN)[0].startswith(b"Return-Path: <a@b.example>\r\nReceived: ")


def test_the_null_sender_and_utf8(house: House) -> None:
    house.deliver(ANN, sender="")
    house.deliver(ANN, sender="аня@пример.example")
    first, second = house.mailbox(ANN)
    assert first.startswith(b"Return-Path: <>\r\n")
    assert second.startswith("Return-Path: <аня@пример.example>\r\n".encode())


def test_what_is_aborted_leaves_nothing(house: House) -> None:
    incoming = run(house.intake.begin(house.envelope(ANN)))
    run(incoming.write(MESSAGE * 10_000))
    run(incoming.abort())
    assert house.mailbox(ANN) == []

    async def blobs() -> list[Any]:
        return [ref async for ref in house.engine.blobs.iterate()]

    assert run(blobs()) == []


def test_a_loop_is_refused() -> None:
    house = House(hops=50)
    house.user(ANN)
    hop = b"Received: by x; Thu, 1 Jan 1970 00:00:00 +0000\r\n"
    house.deliver(ANN, message=hop * 49 + b"\r\n" + hop * 100)
    assert len(house.mailbox(ANN)) == 1
    with pytest.raises(MailRefused) as caught:
        house.deliver(ANN, message=hop * 50 + b"\r\n")
    assert caught.value.reason is Refusal.LOOP
    assert not caught.value.temporary


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [b"Received: x\r\n", b"RECEIVED : y\r\n\tfold\r\n", b"X: " + b"y" * 70 + b"\r\n", b"\r\n", b"Received: " + b"z" * 80 + b"\r\n", b"Not-Received: x\r\n"]
        ),
        max_size=12,
    ).map(b"".join),
    st.lists(st.integers(0, 600), max_size=8),
)
def test_hops_are_counted_however_the_header_is_cut(message: bytes, places: list[int]) -> None:
    header = b"" if message.startswith(b"\r\n") else message.partition(b"\r\n\r\n")[0]
    count = HopCount()
    cuts = sorted({min(place, len(message)) for place in places})
    for low, high in zip([0, *cuts], [*cuts, len(message)], strict=True):
        if low != high:
            count.feed(message[low:high])
    assert count.count == len(re.findall(rb"(?im)^received ?:", header))


def test_mail_for_other_domains_goes_to_the_queue() -> None:
    queue = FakeOutbound()
    house = House(outbound=queue)
    ann = house.user(ANN)
    house.alias("both@example.org", ANN, "x@elsewhere.example")
    identity = Identity(ann, ANN)
    outcomes = house.deliver("both@example.org", "y@elsewhere.example", sender=ANN, identity=identity)
    assert [outcome.refused for outcome in outcomes] == [None, None]
    assert len(house.mailbox(ANN)) == 1
    targets, octets = queue.queued[0]
    assert targets == [("x@elsewhere.example", "both@example.org"), ("y@elsewhere.example", "y@elsewhere.example")]
    # Return-Path is for final delivery (RFC 5321 section 4.4)
    assert octets.startswith(b"Received: ") and octets.endswith(MESSAGE)
    queue.fail = OSError("full")
    outcomes = house.deliver(ANN, "y@elsewhere.example", sender=ANN, identity=identity)
    assert [outcome.refused and outcome.refused.temporary for outcome in outcomes] == [None, True]
    incoming = run(house.intake.begin(house.envelope("y@elsewhere.example", identity=identity)))
    run(incoming.write(MESSAGE))
    run(incoming.abort())
    assert queue.aborted == 1


def test_a_store_that_does_not_answer_is_a_failure_for_now(house: House) -> None:
    async def down(*args: Any) -> Any:
        raise Unavailable("down")

    house.directory.domain = down  # type: ignore[method-assign,assignment]
    with pytest.raises(MailRefused) as caught:
        house.recipient(ANN)
    assert caught.value.temporary
    assert house.people[ANN] != AccountId(bytes(16))
