"""One Whoosh index in a folder. Everything here blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from whoosh import index, query
from whoosh.fields import ID, NUMERIC, TEXT, Schema

from twisted_mail.storage.interfaces import Corrupt, SearchDocument, StorageError, Unavailable
from twisted_mail.storage.shards.indexing import FIELDS, indexed
from twisted_mail.storage.whoosh.pickles import confine
from twisted_mail.storage.whoosh.words import SplitWords
from twisted_mail.values import MessageId

__all__ = ["change", "files", "search"]

_LOCK: Final = "MAIN_WRITELOCK"

confine()


def _schema() -> Schema:
    words = {name: TEXT(analyzer=SplitWords(), phrase=False) for name in FIELDS}
    return Schema(
        message=ID(unique=True, stored=True),
        received=NUMERIC(int, bits=64, signed=True, sortable=True),
        **words,
    )


@contextmanager
def _reading() -> Iterator[None]:
    """Raises: Corrupt for whatever Whoosh comes across: it checks nothing, so a damaged file may lead to any error."""
    try:
        yield
    except index.LockError:
        raise Unavailable("another process writes this search shard") from None
    except (OSError, StorageError, MemoryError):
        raise
    except Exception as error:
        raise Corrupt(f"the index cannot be read: {type(error).__name__}: {error}") from error


def change(folder: Path, documents: Sequence[SearchDocument], removed: Sequence[MessageId]) -> None:
    """See `WordIndex.change`."""
    with _reading():
        made = index.exists_in(folder)
        writer: Any = (index.open_dir(folder) if made else index.create_in(folder, _schema())).writer()
        with writer:
            # what one writer adds it does not find again: neither to replace nor to remove it
            last = {document.message: document for document in documents if document.message not in removed}
            for document in last.values():
                writer.update_document(message=str(document.message), received=document.received, **indexed(document))
            for message in removed:
                writer.delete_by_term("message", str(message))


def search(folder: Path, words: Sequence[str], fields: Sequence[str], limit: int) -> list[MessageId]:
    """See `WordIndex.query`."""
    names = [name for name in fields or FIELDS if name in FIELDS]
    wanted = query.And([query.Or([query.Term(name, word) for name in names]) for word in words])
    with _reading(), index.open_dir(folder).searcher() as searcher:
        asked = wanted.normalize() if len(wanted.subqueries) else query.Every()
        hits = searcher.search(asked, limit=limit, sortedby="received", reverse=True)
        return [MessageId.parse(hit["message"]) for hit in hits]


def files(folder: Path) -> list[str]:
    """See `WordIndex.files`: all there are, since Whoosh removes what its newest table of contents does not name."""
    return sorted(
        path.name for path in folder.iterdir() if path.is_file() and "MAIN_" in path.name and path.name != _LOCK
    )
