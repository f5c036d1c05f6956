"""``python -m benchmarks.inside WORK JSON``: work on accounts without a protocol, in a process of its own.

Started by `Distributed.inside`; prints one line of JSON. Its CPU is ours alone: there are no clients in it but coroutines.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Literal

from pyroaring import BitMap
from twisted.internet import asyncioreactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from benchmarks.figures import Cost
from benchmarks.scenarios import message
from benchmarks.servers import user
from benchmarks.stores import cpu_seconds
from twisted_mail.account.entries import pack_uids
from twisted_mail.account.intents import AddMessages, ChangeFlags, NewMessage, new_message
from twisted_mail.account.service import AccountService
from twisted_mail.storage import Backend, open_backend
from twisted_mail.storage.interfaces import AccountRecord, EngineContext, MessageRow
from twisted_mail.values import AccountId, MessageId, MessageKey

WIDTH: Final = 64
"""Producers side by side, where it is not said."""


class Inside:
    """The stores, the accounts on top, and the works."""

    def __init__(self, reactor: Any, backend: Backend, accounts: AccountService, given: dict[str, Any]) -> None:
        # reactor: Any, as everywhere where several of its interfaces are meant
        self.reactor, self.backend, self.accounts, self.given = reactor, backend, accounts, given

    def _stores(self) -> float:
        return sum(map(cpu_seconds, self.given["stores"]))

    async def cost(self, operations: int, work: Coroutine[Any, Any, object]) -> dict[str, float]:
        """Await *work*; a `Cost` as JSON takes it."""
        # reading the stores' clocks costs this process more than many a delivery does
        stores = self._stores()
        ours, start = time.process_time(), time.perf_counter()
        await work
        seconds, ours = time.perf_counter() - start, time.process_time() - ours
        return asdict(Cost(operations, seconds, ours, self._stores() - stores))

    async def side_by_side(self, count: int, width: int, one: Callable[[int], Coroutine[Any, Any, object]]) -> None:
        """Await *one* of 0 to *count*, *width* at a time."""
        numbers = iter(range(count))

        async def producer() -> None:
            for number in numbers:
                await one(number)

        await gatherResults([Deferred.fromCoroutine(producer()) for _ in range(min(width, count))], consumeErrors=True)

    # --- works

    async def people(self, first: int, count: int) -> dict[str, Any]:
        """Users *first* and on, with the password of user 0."""
        directory = self.backend.directory
        pattern = await directory.account_by_address(user())
        assert pattern is not None

        async def one(number: int) -> None:
            account = AccountId.new()
            self.accounts.release(await self.accounts.open(account))
            await directory.add_account(AccountRecord(account, user(first + number), pattern.credentials, created=1))

        await self.side_by_side(count, 16, one)
        return {"count": count}

    async def _deliver(self, account: Any, octets: bytes) -> None:
        writer = self.accounts.writer(account.id)
        await writer.write(octets)
        stored = await account.store(await writer.finish())
        await account.commit(AddMessages(mailbox=account.state.inbox.id, messages=(new_message(stored, 1_750_000_000),)))

    async def warm(self, seconds: float, width: int = WIDTH, size: int = 4000) -> dict[str, Any]:
        """Deliver to an account of its own for so long: servers that compile what they run are slow at first."""
        account, count = await self.accounts.open(AccountId.new()), 0
        prepared = [message(number, size) for number in range(200)]
        until = time.perf_counter() + seconds

        async def producer() -> None:
            nonlocal count
            while time.perf_counter() < until:
                count += 1
                await self._deliver(account, prepared[count % 200])

        await gatherResults([Deferred.fromCoroutine(producer()) for _ in range(width)], consumeErrors=True)
        return {"count": count}

    async def deliveries(self, accounts: int, count: int, width: int = WIDTH, size: int = 4000) -> dict[str, Any]:
        """*count* messages of *size* octets, from *width* producers, to *accounts* new accounts in turn."""
        prepared = [message(number, size) for number in range(200)]
        opened: list[Any] = [None] * accounts

        async def begin(number: int) -> None:
            opened[number] = await self.accounts.open(AccountId.new())

        await self.side_by_side(accounts, 32, begin)

        async def one(number: int) -> None:
            await self._deliver(opened[number % accounts], prepared[number % 200])

        await self.side_by_side(min(count // 5 + 1, 500), width, one)  # statements are prepared, code is warm
        heads = sum(each.state.modseq for each in opened)
        whole = await self.cost(count, self.side_by_side(count, width, one))
        assert sum(each.state.modseq for each in opened) == heads + count
        return {"whole": whole, "commits": await self._commits(opened, count, width, size)}

    async def _commits(self, opened: list[Any], count: int, width: int, size: int) -> dict[str, float]:
        """The same with rows that lie there already: what the log and its committer take."""
        stored: dict[Any, NewMessage] = {}
        for account in opened:
            writer = self.accounts.writer(account.id)
            await writer.write(message(1, size))
            stored[account.id] = new_message(await account.store(await writer.finish()), 1_750_000_000)

        async def one(number: int) -> None:
            account = opened[number % len(opened)]
            await account.commit(AddMessages(mailbox=account.state.inbox.id, messages=(stored[account.id],)))

        return await self.cost(count, self.side_by_side(count, width, one))

    async def _account_of(self, address: str) -> Any:
        record = await self.backend.directory.account_by_address(address)
        assert record is not None
        return await self.accounts.open(record.id)

    async def fill(self, address: str, count: int, rows: int, size: int = 1000, entry: int = 500) -> dict[str, Any]:
        """Bring the INBOX of *address* to *count* messages; the log names each of *rows* message rows many times."""
        account = await self._account_of(address)
        inbox, before = account.state.inbox.id, time.perf_counter()
        cells = [await self._prepared(number, size) for number in range(min(rows, 500))]
        octets, bucket_bytes, named = 0, 0, list[NewMessage]()
        largest: dict[int, int] = {}
        bucket = account.state.bucket
        waiting: list[MessageRow] = []
        for number in range(rows):
            columns, length, days = cells[number % len(cells)]
            key = MessageKey(bucket, MessageId.new())
            waiting.append(MessageRow(key, columns))
            stored = sum(map(len, columns.values()))
            largest[bucket] = largest.get(bucket, 0) + stored
            octets += stored
            named.append(NewMessage(key.id.octets, bucket, length, days, 1_700_000_000 + number, 0, ()))
            bucket_bytes += length
            if bucket_bytes >= 64 * 1024 * 1024:
                bucket, bucket_bytes = bucket + 1, 0
            if len(waiting) == 2000 or number == rows - 1:
                await self.accounts.store.put(account.id, waiting)
                waiting = []
        starts = range(account.state.inbox.messages, count, entry)
        entries = 0
        log: Any = self.accounts.log
        append = log.append

        async def counted(account: AccountId, expected: Any, new: Any) -> Any:
            nonlocal entries
            entries += sum(len(each.data) for each in new)
            return await append(account, expected, new)

        log.append = counted  # only to see how large the log becomes

        async def one(number: int) -> None:
            at = starts[number]
            some = tuple(named[place % rows] for place in range(at, min(at + entry, count)))
            await account.commit(AddMessages(mailbox=inbox, messages=some))

        await self.side_by_side(len(starts), 4, one)
        await account.checkpoint()
        return {
            "seconds": time.perf_counter() - before,
            "row_octets": octets,
            "largest_bucket": max(largest.values(), default=0),
            "log_octets": entries,
            "account": account.id.octets.hex(),
        }

    async def _prepared(self, number: int, size: int) -> tuple[dict[str, bytes], int, int]:
        writer = self.accounts.writer()
        await writer.write(message(number, size))
        prepared = await writer.finish()
        return prepared.cells, prepared.size, prepared.sent_days or 0

    async def flagging(self, address: str, count: int) -> dict[str, Any]:
        """*count* changes of one flag of one message, one after the other; what each tenth of them took."""
        account = await self._account_of(address)
        inbox, columns = account.state.inbox.id, await account.columns(account.state.inbox)
        uids = pack_uids(BitMap([next(columns.uids[slot] for _, slot in columns.iterate())]))
        tenths = []
        for tenth in range(10):

            async def some(tenth: int = tenth) -> None:
                for number in range(tenth * (count // 10), (tenth + 1) * (count // 10)):
                    mode: Literal["add", "remove"] = "remove" if number % 2 else "add"
                    await account.commit(ChangeFlags(mailbox=inbox, uids=uids, mode=mode, flags=("\\Flagged",)))

            tenths.append(await self.cost(count // 10, some()))
        return {"tenths": tenths, "account": account.id.octets.hex()}


async def _main(reactor: Any, work: str, given: dict[str, Any]) -> None:
    urls = {role: url for role, url in given.pop("storage").items() if url}
    with tempfile.TemporaryDirectory() as data:
        backend = open_backend(urls, EngineContext(reactor=reactor, data=Path(data)))
        await backend.start()
        try:
            accounts = AccountService(
                log=backend.account_log,
                messages=backend.messages,
                blobs=backend.blobs,
                references=backend.references,
                leases=backend.leases,
                bus=backend.bus,
                clock=reactor,
            )
            inside = Inside(reactor, backend, accounts, given)
            parameters = {name: value for name, value in given.items() if name != "stores"}
            found = await getattr(inside, work)(**parameters)
            await accounts.stop()
        finally:
            await backend.stop()
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    asyncioreactor.install()
    os.environ.pop("PYTHONPROFILE", None)
    _work, _given = sys.argv[1], json.loads(sys.argv[2])
    react(lambda reactor: Deferred.fromCoroutine(_main(reactor, _work, _given)))
