"""What a word index offers, and what all of them take for a word."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from twisted_mail.storage.interfaces import Refused, SearchDocument, Unavailable
from twisted_mail.values import MessageId

__all__ = ["FIELDS", "LONGEST_WORD", "IndexThreads", "WordIndex", "indexed", "words_of"]

T = TypeVar("T")

FIELDS: Final = ("subject", "from", "to", "cc", "bcc", "body", "attachment")
"""`SearchDocument.fields` that are indexed; others are left out."""
LONGEST_WORD: Final = 200
"""Characters of a word that count; what is longer is no word of a language, and indexes have limits of their own."""

_WORD: Final = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """The words of *text* in their order; compatibility forms and case do not matter.

    Used for what is indexed and for what is asked, so that both are alike, whatever index it is.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return [word[:LONGEST_WORD] for word in _WORD.findall(folded)]


def indexed(document: SearchDocument) -> dict[str, str]:
    """Each field of *document* that is indexed: its words, parted by single spaces."""
    return {name: " ".join(words_of(text)) for name, text in document.fields.items() if name in FIELDS}


class WordIndex(Protocol):
    """One account's index in a folder. Blocks: call it in a thread.

    Files never change once a `change` is over, but for those that `files` does not name: so they may be linked into
    another folder, and kept elsewhere. What it cannot read, for whatever reason but the system's, raises Corrupt.
    """

    @property
    def kind(self) -> str:
        """Which index and format: ``whoosh-1``. Others read another kind's files not at all."""

    def exists(self, folder: Path) -> bool:
        """Whether there is an index, as far as can be told without reading it."""

    def change(self, folder: Path, documents: Sequence[SearchDocument], removed: Sequence[MessageId]) -> None:
        """Add *documents* (replacing those of the same message), then remove; makes the index if there is none.

        All of it or nothing is there afterwards. Raises: Corrupt, Unavailable (another writes it), OSError.
        """

    def query(self, folder: Path, words: Sequence[str], fields: Sequence[str], limit: int) -> list[MessageId]:
        """As `SearchShards.query`; *words* as `words_of` gives them. Raises: Corrupt, OSError."""

    def files(self, folder: Path) -> list[str]:
        """Names of the files that make up the index as it stands. Raises: Corrupt, OSError."""


class IndexThreads:
    """Threads for work on indexes: it takes processor and disk for milliseconds to seconds."""

    def __init__(self, reactor: Any, size: int, name: str) -> None:
        # reactor provides IReactorFromThreads; Any, as Twisted's module object is untyped
        self._reactor = reactor
        self._pool = ThreadPool(minthreads=0, maxthreads=size, name=name)

    def start(self) -> None:
        self._pool.start()

    def stop(self) -> None:
        """Wait for what runs, and end the threads."""
        if self._pool.started:
            self._pool.stop()

    async def run(self, call: Callable[..., T], *arguments: Any) -> T:
        """Raises: what *call* raises; an OSError becomes Unavailable, but for a missing file."""
        if not self._pool.started or self._pool.joined:
            raise Refused("the search shards are closed")
        done: Deferred[T] = deferToThreadPool(self._reactor, self._pool, call, *arguments)
        try:
            return await done
        except FileNotFoundError:
            raise
        except OSError as error:
            raise Unavailable(f"the disk of the search shards reports: {error.strerror or error}") from error
