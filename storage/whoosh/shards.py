"""Search shards as Whoosh indexes, worked on in a thread of their own."""

from __future__ import annotations

import os
import re
import shutil
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from whoosh import index, query
from whoosh.analysis import RegexTokenizer
from whoosh.fields import ID, NUMERIC, TEXT, Schema

from twisted_mail.storage.interfaces import Corrupt, SearchDocument, Unavailable
from twisted_mail.values import AccountId, MessageId, ModSeq

__all__ = ["FIELDS", "WhooshSearchShards"]

R = TypeVar("R")
FIELDS: Final = ("subject", "from", "to", "cc", "bcc", "body", "attachment")
_WORD: Final = re.compile(r"\w+")


def _plain(text: str) -> str:
    """What is indexed and what is asked for, alike: compatibility forms and case do not matter."""
    return unicodedata.normalize("NFKC", text).casefold()


def _schema() -> Schema:
    words = {name: TEXT(analyzer=RegexTokenizer(_WORD), phrase=False) for name in FIELDS}
    return Schema(
        message=ID(unique=True, stored=True),
        received=NUMERIC(int, bits=64, signed=True, sortable=True),
        **words,
    )


class WhooshSearchShards:
    """Implements `SearchShards`. `reached` is written after the index: a crash between them means adding again."""

    def __init__(self, folder: Path, reactor: Any) -> None:
        # reactor provides IReactorFromThreads; Any, as Twisted's module object is untyped
        self._folder = folder
        self._reactor = reactor
        self._threads = ThreadPool(minthreads=0, maxthreads=1, name="search")

    def start(self) -> None:
        """Begin to take work."""
        self._threads.start()

    def stop(self) -> None:
        """Wait for what runs, and end the thread."""
        self._threads.stop()

    async def add(self, account: AccountId, documents: Sequence[SearchDocument], modseq: ModSeq) -> None:
        await self._in_thread(self._add, account, documents, int(modseq))

    async def remove(self, account: AccountId, messages: Sequence[MessageId], modseq: ModSeq) -> None:
        await self._in_thread(self._remove, account, messages, int(modseq))

    async def query(
        self, account: AccountId, words: str, fields: Sequence[str] = (), limit: int = 1000
    ) -> Sequence[MessageId]:
        return await self._in_thread(self._query, account, words, fields, limit)

    async def reached(self, account: AccountId) -> ModSeq:
        return ModSeq(await self._in_thread(self._reached, account))

    async def _in_thread(self, call: Callable[..., R], *arguments: object) -> R:
        try:
            result: R = await deferToThreadPool(self._reactor, self._threads, call, *arguments)
            return result
        except index.LockError:
            raise Unavailable("another process writes this search shard") from None
        except (index.IndexError, index.EmptyIndexError) as error:
            raise Corrupt(f"the search shard cannot be read: {error}") from error
        except OSError as error:
            raise Unavailable(f"the search shard cannot be reached: {error.strerror or error}") from error

    # --- in the thread

    def _place(self, account: AccountId) -> Path:
        name = str(account)
        return self._folder / name[:2] / name

    def _writer(self, place: Path) -> Any:
        if not index.exists_in(place):
            if place.exists():
                shutil.rmtree(place)  # what a crash left of a shard that was being made
            place.mkdir(parents=True, mode=0o700)
            return index.create_in(place, _schema()).writer()
        return index.open_dir(place).writer()

    def _add(self, account: AccountId, documents: Sequence[SearchDocument], modseq: int) -> None:
        place = self._place(account)
        with self._writer(place) as writer:
            for document in documents:
                text = {name: _plain(value) for name, value in document.fields.items() if name in FIELDS}
                writer.update_document(message=str(document.message), received=document.received, **text)
        self._move(place, modseq)

    def _remove(self, account: AccountId, messages: Sequence[MessageId], modseq: int) -> None:
        place = self._place(account)
        with self._writer(place) as writer:
            for message in messages:
                writer.delete_by_term("message", str(message))
        self._move(place, modseq)

    def _query(self, account: AccountId, words: str, fields: Sequence[str], limit: int) -> list[MessageId]:
        place = self._place(account)
        if not index.exists_in(place):
            return []
        names = [name for name in fields or FIELDS if name in FIELDS]
        wanted = query.And(
            [query.Or([query.Term(name, word) for name in names]) for word in _WORD.findall(_plain(words))]
        )
        with index.open_dir(place).searcher() as searcher:
            asked = wanted.normalize() if len(wanted.subqueries) else query.Every()
            hits = searcher.search(asked, limit=limit, sortedby="received", reverse=True)
            return [MessageId.parse(hit["message"]) for hit in hits]

    def _reached(self, account: AccountId) -> int:
        try:
            return int((self._place(account) / "reached").read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def _move(self, place: Path, modseq: int) -> None:
        file, fresh = place / "reached", place / "reached.new"
        try:
            modseq = max(modseq, int(file.read_text()))
        except (FileNotFoundError, ValueError):
            pass
        fresh.write_text(str(modseq))
        os.replace(fresh, file)
