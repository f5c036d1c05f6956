"""Messages as rows and blobs: in as a stream, out octet for octet; and the order of writes (rule 5)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.account.house import House, now, put
from tests.mime.generate import generate
from twisted_mail.account.errors import AccountUnavailable
from twisted_mail.account.intents import AddMessages, new_message
from twisted_mail.account.manifests import runs_of
from twisted_mail.account.messages import decode_facts
from twisted_mail.account.splitting import INLINE_BYTES
from twisted_mail.services import Account
from twisted_mail.storage.interfaces import Corrupt, NotFound, Refused
from twisted_mail.values import MessageId, MessageKey


def read(account: Account, key: MessageKey, start: int = 0, end: int | None = None) -> bytes:
    async def all_of_it() -> bytes:
        return b"".join([chunk async for chunk in account.octets(key, start, end)])

    return now(all_of_it())


def cells(account: Account, key: MessageKey, *columns: str) -> tuple[bytes, ...]:
    async def first() -> tuple[bytes, ...] | None:
        async for batch in account.rows([key], columns):
            for row in batch:
                return row
        return None

    found = now(first())
    assert found is not None
    return found


@pytest.mark.parametrize("chunk", [1, 7, 8192, 10**9])
def test_generated_messages_come_back_octet_for_octet(chunk: int) -> None:
    house = House()
    account = house.open()
    for seed in range(60 if chunk > 7 else 6):
        octets = generate(seed)
        stored = put(house, account, octets, chunk)
        assert (stored.size, read(account, stored.key)) == (len(octets), octets)


@pytest.mark.parametrize("size", [INLINE_BYTES - 1, INLINE_BYTES, INLINE_BYTES + 1, 300_000])
def test_ranges_across_the_row_and_the_blob(size: int) -> None:
    house = House()
    account = house.open()
    octets = (b"Subject: big\r\n\r\n" + bytes(range(256)) * (size // 256 + 1))[:size]
    stored = put(house, account, octets)
    for start, end in [(0, None), (0, 10), (10, 20), (INLINE_BYTES - 5, INLINE_BYTES + 5), (size - 3, size + 9), (size, None)]:
        assert read(account, stored.key, start, end) == octets[start:end]
    places = [run.place for run in runs_of(cells(account, stored.key, "manifest")[0])]
    assert places == ["header", "inline"] + ["blob"] * (size > INLINE_BYTES)


def test_what_protocols_ask_for_in_bulk_is_rendered_once() -> None:
    house = House()
    account = house.open()
    stored = put(
        house,
        account,
        b"From: Ann <ann@example.org>\r\nX-Long: 1\r\nSubject: Re: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n"
        b"Message-ID: <1@x>\r\nReferences: <0@x>\r\n\r\nHello  there\r\n",
    )
    common, envelope, preview, facts = cells(account, stored.key, "common_header", "envelope", "preview", "facts")
    assert b"X-Long" not in common and common.startswith(b"From: Ann") and common.endswith(b"\r\n\r\n")
    assert envelope.startswith(b"(") and preview == b"Hello there"
    known = decode_facts(facts)
    assert (known.subject, known.message_id, known.references) == ("Re: Grüße", "1@x", ("0@x",))
    assert known.sender


def test_a_message_without_a_date_is_of_the_day_it_came() -> None:
    house = House()
    account = house.open()
    assert put(house, account, b"\r\n").sent_days == 1_700_000_000 // 86_400
    assert put(house, account, b"Date: Fri, 2 Jan 1970 23:00:00 -0500\r\n\r\n").sent_days == 1


def test_nothing_of_an_aborted_message_stays() -> None:
    house = House()
    account = house.open()

    async def begin_and_stop() -> None:
        writer = house.service.writer()
        await writer.write(b"x" * 200_000)
        await writer.abort()

    now(begin_and_stop())

    async def blobs() -> list[Any]:
        return [ref async for ref in house.engine.blobs.iterate()]

    assert now(blobs()) == []
    assert account.state.messages == 0


def test_a_row_that_is_gone_and_a_manifest_that_is_none() -> None:
    account = House().open()
    with pytest.raises(NotFound):
        read(account, MessageKey(0, MessageId.new()))
    with pytest.raises(Corrupt):
        runs_of(b"\xc1")


def test_rule_5_blob_then_row_then_entry_and_a_failure_between_leaves_no_reference() -> None:
    order: list[str] = []
    house = House()

    def noting(store: Any, name: str, method: str, broken: list[bool]) -> Any:
        class Wrapped:
            def __getattr__(self, asked: str) -> Any:
                found = getattr(store, asked)
                if asked != method:
                    return found

                def call(*arguments: Any) -> Any:
                    order.append(name)
                    if broken[0]:
                        raise Refused("down")
                    return found(*arguments)

                return call

        return Wrapped()

    broken = {name: [False] for name in ("blob", "row", "entry")}
    service = house.node(
        blobs=noting(house.engine.blobs, "blob", "writer", broken["blob"]),
        messages=noting(house.engine.messages, "row", "put", broken["row"]),
        log=noting(house.engine.account_log, "entry", "append", broken["entry"]),
    )
    account = now(service.open(house.open().id))

    async def deliver() -> None:
        writer = service.writer()
        await writer.write(b"Subject: x\r\n\r\n" + b"y" * 100_000)
        stored = await account.store(await writer.finish())
        await account.commit(AddMessages(mailbox=account.state.inbox.id, messages=(new_message(stored, 1),)))

    now(deliver())
    assert order == ["blob", "row", "entry"]
    for name in broken:
        broken[name][0] = True
        with pytest.raises((AccountUnavailable, Refused)):
            now(deliver())
        broken[name][0] = False
        assert account.state.messages == 1
    now(deliver())
    assert account.state.messages == 2


def test_a_blob_that_cannot_be_read_is_noticed_before_the_first_octet_comes() -> None:
    """Whoever has announced a size can only break off."""
    house = House()
    account = house.open()
    stored = put(house, account, b"Subject: big\r\n\r\n" + bytes(range(256)) * 2000)

    async def first_octets(end: int | None) -> bytes:
        async for chunk in account.octets(stored.key, 0, end):
            return chunk
        return b""

    house.engine.blobs._contents.clear()
    assert now(first_octets(100)).startswith(b"Subject: big"), "what lies in the row can be read"
    with pytest.raises(NotFound):
        now(first_octets(None))
