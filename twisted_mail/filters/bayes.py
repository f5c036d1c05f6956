"""A learner for each account: what its owner moved into Junk and out of it says what the next message is.

What is learned lies in `Records`: a table of words in eight shards, and what each message was learned as, so that teaching it
twice counts once, and teaching the opposite takes the first back. Two nodes that learn for one account in the same instant
may lose one of the two messages: that moves a probability by little, and is not worth an agreement.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import zstandard
from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from twisted_mail.filters.values import FilterDown
from twisted_mail.filters.word_table import SHARDS, WordTable
from twisted_mail.filters.words import Words, words_in
from twisted_mail.storage.interfaces import Records, StorageError

__all__ = ["Bayes", "BayesSettings", "forget_learned"]

_SHARD_OCTETS: Final = 32_768
_REMEMBERED_SECONDS: Final = 180 * 86_400.0
_LEVEL: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class BayesSettings:
    """How much the learner counts, and from when on."""

    least: int = 30
    """So many messages of each kind must have been learned before it says anything."""
    spam_points: float = 3.5
    """For what is certainly spam: less than makes junk, unless something else speaks against it too."""
    ham_points: float = -2.5
    """For what is certainly wanted."""
    unsure: float = 0.1
    """Probabilities nearer to 0.5 than this are worth nothing."""
    kept_seconds: float = 60.0
    """For so long a table is not read again: what was taught at another node counts here as late as that."""
    tables: int = 64
    """Kept in memory, of 256 KiB each."""


class Bayes:
    """Learns and judges; whose mail it is says a text, such as the id of the account."""

    _log = Logger()

    def __init__(self, records: Records, now: Callable[[], float], settings: BayesSettings | None = None) -> None:
        """*now*: seconds of a clock that only goes forward."""
        self._records = records
        self._now = now
        self.settings = settings or BayesSettings()
        self._tables: OrderedDict[str, tuple[WordTable | None, float]] = OrderedDict()
        """With the time when it was read; None: nothing was ever taught."""
        self._teaching = DeferredLock()

    # --- judging

    async def score(self, user: str, message: bytes | Words) -> float | None:
        """The probability that it is spam; None while too little was learned. Give `Words` where several recipients have
        the message. Raises: FilterDown."""
        table = await self._telling(user)
        if table is None:
            return None
        return table.probability(words_in(message) if isinstance(message, bytes) else message)

    async def learned(self, user: str) -> tuple[int, int]:
        """How many messages were learned as spam, and as wanted. Raises: FilterDown."""
        try:
            table = await self._table(user)
        except StorageError as error:
            raise FilterDown(f"what was learned cannot be read: {error}") from error
        return (table.spam, table.ham) if table is not None else (0, 0)

    async def knows(self, user: str) -> bool:
        """Whether enough was learned to say anything. Raises: FilterDown."""
        return await self._telling(user) is not None

    async def _telling(self, user: str) -> WordTable | None:
        try:
            table = await self._table(user)
        except StorageError as error:
            raise FilterDown(f"what was learned cannot be read: {error}") from error
        return table if table is not None and min(table.spam, table.ham) >= self.settings.least else None

    async def points(self, user: str, message: bytes | Words) -> float:
        """Points of spam, from `ham_points` over 0 to `spam_points`. Raises: FilterDown."""
        settings = self.settings
        probability = await self.score(user, message)
        if probability is None or abs(probability - 0.5) < settings.unsure:
            return 0.0
        certainty = abs(probability - 0.5) * 2
        return round(certainty * (settings.spam_points if probability > 0.5 else settings.ham_points), 2)

    # --- learning

    async def learn(self, octets: bytes, *, spam: bool, user: str) -> bool:
        """The owner says what that message is. False: it was learned so already. Raises: FilterDown."""
        return await self._teach(octets, user, b"spam" if spam else b"ham")

    async def unlearn(self, octets: bytes, *, user: str) -> bool:
        """As if it had never been taught. False: it was not. Raises: FilterDown."""
        return await self._teach(octets, user, None)

    async def forget(self, user: str) -> None:
        """All that was learned for an account. Raises: FilterDown."""
        self._tables.pop(user, None)
        try:
            await forget_learned(self._records, user)
        except StorageError as error:
            raise FilterDown(f"what was learned cannot be forgotten: {error}") from error

    async def _teach(self, octets: bytes, user: str, kind: bytes | None) -> bool:
        words = words_in(octets)
        space, key = _place(user, words)
        await self._teaching.acquire()
        try:
            before = await self._records.get(space, key)
            if before == kind:
                return False
            table = await self._read(user) or WordTable()
            if before is not None:
                table.unlearn(words, spam=before == b"spam")
            if kind is not None:
                table.learn(words, spam=kind == b"spam")
                await self._records.put(space, key, kind, _REMEMBERED_SECONDS)
            else:
                await self._records.delete(space, key)
            await self._write(user, table)
        except StorageError as error:
            self._tables.pop(user, None)
            raise FilterDown(f"what was taught cannot be kept: {error}") from error
        finally:
            self._teaching.release()
        self._keep(user, table)
        return True

    # --- keeping

    async def _table(self, user: str) -> WordTable | None:
        kept = self._tables.get(user)
        if kept is not None and self._now() - kept[1] < self.settings.kept_seconds:
            self._tables.move_to_end(user)
            return kept[0]
        table = await self._read(user)
        self._keep(user, table)
        return table

    def _keep(self, user: str, table: WordTable | None) -> None:
        self._tables[user] = (table, self._now())
        self._tables.move_to_end(user)
        while len(self._tables) > self.settings.tables:
            self._tables.popitem(last=False)

    async def _read(self, user: str) -> WordTable | None:
        """Raises: StorageError."""
        found = {record.key: record.value for record in await self._records.list(_space(user), limit=SHARDS + 1)}
        totals = found.get("totals")
        if totals is None:
            return None
        try:
            shards = {}
            unpack = zstandard.ZstdDecompressor()
            for number in range(SHARDS):
                if (packed := found.get(f"words/{number}")) is not None:
                    shards[number] = unpack.decompress(packed, max_output_size=_SHARD_OCTETS)
            return WordTable.of(totals, shards)
        except (ValueError, zstandard.ZstdError) as error:
            self._log.warn("what was learned for {user} is spoiled, and begins anew: {why}", user=user, why=str(error))
            return None

    async def _write(self, user: str, table: WordTable) -> None:
        """Raises: StorageError."""
        pack = zstandard.ZstdCompressor(level=_LEVEL)
        for number in sorted(table.changed):
            await self._records.put(_space(user), f"words/{number}", pack.compress(table.shard(number)))
        await self._records.put(_space(user), "totals", table.totals())
        table.changed.clear()


async def forget_learned(records: Records, user: str) -> None:
    """Delete what any process has learned for *user*. Raises: StorageError."""
    for space in (_space(user), *(_taught(user, digit) for digit in "0123456789abcdef")):
        while found := await records.list(space):
            for record in found:
                await records.delete(space, record.key)


def _space(user: str) -> str:
    return f"bayes/{user}"


def _place(user: str, words: Words) -> tuple[str, str]:
    """Where is kept what a message was learned as; its words are its name, for its first fields change on its way."""
    name = hashlib.blake2b(b"".join([word.to_bytes(4, "big") for word in sorted(words)]), digest_size=16).hexdigest()
    return _taught(user, name[0]), name


def _taught(user: str, digit: str) -> str:
    return f"bayes-taught/{user}/{digit}"
