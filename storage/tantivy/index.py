"""One Tantivy index in a folder. Everything here blocks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import tantivy

from twisted_mail.storage.interfaces import Corrupt, SearchDocument, StorageError, Unavailable
from twisted_mail.storage.shards.indexing import FIELDS, indexed
from twisted_mail.values import MessageId

__all__ = ["TantivyIndex"]

HEAP_BYTES: Final = 15_000_000
"""What a writer may gather before it writes a segment: the least that Tantivy takes."""
ZERO: Final = 1 << 62
"""Added to times, since only numbers without a sign can be sorted by."""
CONTENTS: Final = "meta.json"

_SEGMENT_FILE: Final = re.compile(r"([0-9a-f]{32})(?:\.(\d+))?\.[a-z]+")


def _schema() -> Any:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("message", stored=True, tokenizer_name="raw", index_option="basic")
    builder.add_unsigned_field("received", fast=True)
    for name in FIELDS:
        builder.add_text_field(name, tokenizer_name="whitespace", index_option="basic")
    return builder.build()


@contextmanager
def _reading() -> Iterator[None]:
    """Raises: Corrupt, Unavailable: the library has one kind of error for nearly everything."""
    try:
        yield
    except (OSError, StorageError, MemoryError):
        raise
    except Exception as error:
        text = str(error)
        if "LockBusy" in text or "lock" in text.lower():
            raise Unavailable("another process writes this search shard") from None
        raise Corrupt(f"the index cannot be read: {text[:300]}") from error


class TantivyIndex:
    """Implements `WordIndex`."""

    kind: Final = "tantivy-1"

    def exists(self, folder: Path) -> bool:
        return (folder / CONTENTS).exists()

    def change(self, folder: Path, documents: Sequence[SearchDocument], removed: Sequence[MessageId]) -> None:
        with _reading():
            index = tantivy.Index(_schema(), path=str(folder))
            writer = index.writer(heap_size=HEAP_BYTES, num_threads=1)
            for document in documents:
                writer.delete_documents_by_term("message", str(document.message))
                entry = tantivy.Document()
                entry.add_text("message", str(document.message))
                entry.add_unsigned("received", document.received + ZERO)
                for name, text in indexed(document).items():
                    entry.add_text(name, text)
                writer.add_document(entry)
            for message in removed:
                writer.delete_documents_by_term("message", str(message))
            writer.commit()
            # merges go on in the writer's threads; what they write is to be complete before the files are named
            writer.wait_merging_threads()

    def query(self, folder: Path, words: Sequence[str], fields: Sequence[str], limit: int) -> list[MessageId]:
        if limit < 1:
            return []
        names = [name for name in fields or FIELDS if name in FIELDS]
        with _reading():
            index = tantivy.Index.open(str(folder))
            wanted = [(tantivy.Occur.Must, self._somewhere(index.schema, names, word)) for word in dict.fromkeys(words)]
            asked = tantivy.Query.boolean_query(wanted) if wanted else tantivy.Query.all_query()
            searcher = index.searcher()
            found = searcher.search(asked, limit, count=False, order_by_field="received", order=tantivy.Order.Desc)
            return [MessageId.parse(searcher.doc(address)["message"][0]) for _, address in found.hits]

    def _somewhere(self, schema: Any, names: Sequence[str], word: str) -> Any:
        """A query for *word* in any of the fields *names*."""
        each = [(tantivy.Occur.Should, tantivy.Query.term_query(schema, name, word, "basic")) for name in names]
        return tantivy.Query.boolean_query(each) if each else tantivy.Query.empty_query()

    def files(self, folder: Path) -> list[str]:
        try:
            segments = json.loads((folder / CONTENTS).read_text("utf-8"))["segments"]
            deletes = {
                segment["segment_id"].replace("-", ""): (segment["deletes"] or {}).get("opstamp")
                for segment in segments
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Corrupt("the index's table of contents cannot be read") from error
        named = [CONTENTS]
        for path in folder.iterdir():
            match = _SEGMENT_FILE.fullmatch(path.name)
            if match is None or match[1] not in deletes:
                continue
            if match[2] is None or int(match[2]) == deletes[match[1]]:
                named.append(path.name)
        return sorted(named)
