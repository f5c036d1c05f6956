"""A word index per account in memory."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from twisted_mail.storage.interfaces import NOWHERE, Conflict, SearchDocument
from twisted_mail.values import AccountId, MessageId, ModSeq

__all__ = ["MemorySearchShards", "words_of"]

_WORD = re.compile(r"\w+")


def words_of(text: str) -> set[str]:
    """The words of *text*, case-folded."""
    return set(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


class MemorySearchShards:
    """Implements `SearchShards`."""

    def __init__(self) -> None:
        self._documents: dict[AccountId, dict[MessageId, tuple[int, dict[str, set[str]]]]] = {}
        self._reached: dict[AccountId, ModSeq] = {}

    async def add(
        self, account: AccountId, documents: Sequence[SearchDocument], modseq: ModSeq, after: ModSeq = NOWHERE
    ) -> None:
        if not self._takes(account, modseq, after):
            return
        shard = self._documents.setdefault(account, {})
        for document in documents:
            fields = {name: words_of(text) for name, text in document.fields.items()}
            shard[document.message] = (document.received, fields)
        self._reached[account] = modseq

    async def remove(
        self, account: AccountId, messages: Sequence[MessageId], modseq: ModSeq, after: ModSeq = NOWHERE
    ) -> None:
        if not self._takes(account, modseq, after):
            return
        shard = self._documents.get(account, {})
        for message in messages:
            shard.pop(message, None)
        self._reached[account] = modseq

    def _takes(self, account: AccountId, modseq: ModSeq, after: ModSeq) -> bool:
        reached = self._reached.get(account, NOWHERE)
        if reached < after:
            raise Conflict(f"the search shard has reached {reached}, and not {after}")
        return modseq >= reached

    async def query(
        self, account: AccountId, words: str, fields: Sequence[str] = (), limit: int = 1000
    ) -> Sequence[MessageId]:
        wanted = words_of(words)
        found = []
        for message, (received, indexed) in self._documents.get(account, {}).items():
            names = fields or tuple(indexed)
            if all(any(word in indexed.get(name, ()) for name in names) for word in wanted):
                found.append((received, message))
        return [message for _, message in sorted(found, reverse=True)[:limit]]

    async def reached(self, account: AccountId) -> ModSeq:
        return self._reached.get(account, ModSeq(0))

    async def drop(self, account: AccountId) -> None:
        self._documents.pop(account, None)
        self._reached.pop(account, None)
