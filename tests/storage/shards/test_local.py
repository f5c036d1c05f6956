"""Search shards in local folders: what outlives a process, what was cut off or damaged, what a URL says."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from twisted.internet.defer import Deferred

from tests.storage.shards.support import ShardsCase, documents, tantivy_index
from twisted_mail.storage import compose, open_engine
from twisted_mail.storage.interfaces import Conflict, SearchDocument, Unavailable
from twisted_mail.storage.shards import LocalShards, SharedShards, WordIndex, words_of
from twisted_mail.storage.testing.base import fails
from twisted_mail.values import AccountId, MessageId, ModSeq


def test_words_are_alike_whatever_their_case_and_form() -> None:
    assert words_of("Ｇrüße, from STRASSE-7!") == ["grüsse", "from", "strasse", "7"]
    assert words_of(" … ") == []
    assert words_of("x" * 1000) == ["x" * 200]


class LocalShardsTests(ShardsCase):
    def place(self, folder: Path, account: AccountId) -> Path:
        return folder / self.index().kind / str(account)[:2] / str(account)

    async def test_a_shard_outlives_its_process(self) -> None:
        folder = self.folder()
        document = SearchDocument(MessageId.new(), {"body": "Ｇrüße from STRASSE"}, 7)
        await (await self.local(folder)).add(self.account, [document], ModSeq(3))
        again = await self.local(folder)
        for words in ("grüße", "straße", "from", ""):
            self.assertEqual(await self.found(again, words), [document.message])
        self.assertEqual(await again.reached(self.account), 3)

    async def test_a_shard_whose_making_was_cut_off_is_made_anew(self) -> None:
        folder = self.folder()
        place = self.place(folder, self.account)
        place.mkdir(parents=True)
        (place / "half").write_bytes(b"")
        shards = await self.local(folder)
        self.assertEqual(await self.found(shards, "x"), [])
        added = await self.filled(shards, "x")
        self.assertEqual(await self.found(shards, "x"), added)

    async def test_a_message_that_comes_twice_at_once_is_there_once_and_as_it_came_last(self) -> None:
        shards = await self.local()
        one, other = documents("first", "second")
        await shards.add(self.account, [one, other, SearchDocument(one.message, {"subject": "third"}, 9)], ModSeq(1))
        self.assertEqual(await self.found(shards, ""), [one.message, other.message])
        self.assertEqual(await self.found(shards, "first"), [])
        self.assertEqual(await self.found(shards, "third"), [one.message])

    async def test_fields_and_words_that_no_index_has_are_no_error(self) -> None:
        shards = await self.local()
        document = SearchDocument(MessageId.new(), {"subject": "word " + "x" * 100_000, "colour": "red"}, -5)
        await shards.add(self.account, [document], ModSeq(1))
        self.assertEqual(await self.found(shards, "word"), [document.message])
        self.assertEqual(await self.found(shards, "red"), [])
        self.assertEqual(await self.found(shards, "x" * 100_000), [document.message])
        self.assertEqual(list(await shards.query(self.account, "word", ["colour"])), [])
        self.assertEqual(list(await shards.query(self.account, "word", limit=0)), [])

    async def test_a_damaged_shard_is_made_anew_and_is_known_to_be_behind(self) -> None:
        folder = self.folder()
        for damage in ("cut", "garbage", "gone", "all gone"):
            account = self.account = AccountId.new()
            shards = await self.local(folder)
            await self.filled(shards, "one two", modseq=5)
            self.assertEqual(await shards.reached(account), 5)
            await shards.stop()
            for file in self.place(folder, account).iterdir():
                if file.name == "reached":
                    continue
                match damage:
                    case "cut":
                        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
                    case "garbage":
                        file.write_bytes(bytes(reversed(file.read_bytes())))
                    case "gone" if "toc" not in file.name and "meta" not in file.name:
                        file.unlink()
                    case "all gone":
                        file.unlink()
            again = await self.local(folder)
            self.assertEqual(await again.reached(account), 5, damage)
            await fails(Unavailable, self.found(again, "two"))
            await fails(Conflict, again.add(account, documents("three"), ModSeq(6), ModSeq(5)))
            self.assertEqual(await again.reached(account), 0)
            self.assertEqual(await self.found(again, "two"), [])
            added = await self.filled(again, "one two", "three two", modseq=6)
            self.assertEqual((await again.reached(account), len(await self.found(again, "two"))), (6, len(added)))

    async def test_two_that_write_one_shard_do_not_meet(self) -> None:
        folder = self.folder()
        one, other = await self.local(folder), await self.local(folder)
        await self.filled(one, "one", modseq=1)
        with self.writing(self.place(folder, self.account)):
            await fails(Unavailable, other.add(self.account, documents("two"), ModSeq(2)))
            self.assertEqual(len(await self.found(one, "one")), 1)
        await self.filled(other, "two", modseq=2)
        self.assertEqual(len(await self.found(one, "two")), 1)

    def writing(self, place: Path) -> Any:
        """A context in which another process writes the index."""
        from whoosh import index

        return index.open_dir(place).writer()


class LocalTantivyShardsTests(LocalShardsTests):
    def index(self) -> WordIndex:
        return tantivy_index()

    def writing(self, place: Path) -> Any:
        import tantivy

        return tantivy.Index.open(str(place)).writer(15_000_000, 1)


class UnpicklingTests(ShardsCase):
    async def test_what_an_index_names_is_not_run(self) -> None:
        folder, trace = self.folder(), self.folder() / "run"
        shards = await self.local(folder)
        await self.filled(shards, "one")
        (place,) = folder.glob("*/*/*")
        (contents,) = place.glob("*.toc")
        data = contents.read_bytes()

        class Run:
            def __reduce__(self) -> Any:
                return os.mkdir, (str(trace),)

        at = data.index(b"\x80\x02")  # where the schema begins
        size = data[at - 4 : at]
        contents.write_bytes(data[: at - 4] + size + pickle.dumps(Run(), 2).ljust(int.from_bytes(size, "big"), b"."))
        await fails(Unavailable, self.found(shards, "one"))
        self.assertFalse(trace.exists())


class EngineTests(ShardsCase):
    async def engine(self, url: str) -> Any:
        engine = open_engine(url, self.context(self.folder()))
        await engine.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(engine.stop()))
        self.assertIsNone(engine.health())
        return engine

    async def test_a_url_names_a_folder_or_nothing_and_few_options(self) -> None:
        for scheme in ("whoosh", "tantivy"):
            if scheme == "tantivy":
                tantivy_index()
            for wrong in ("//host/x", "?a=b", "?shards=there", "?cache=1", "?cache=many", "#x"):
                with pytest.raises(ValueError):
                    open_engine(f"{scheme}:{wrong}", self.context(self.folder()))
            for url in (scheme, f"{scheme}:", f"{scheme}:{self.folder()}?cache=2000000&shards=local"):
                engine = await self.engine(url)
                self.assertTrue(isinstance(engine.search, LocalShards))
                self.assertEqual(await engine.search.reached(self.account), 0)

    async def test_shards_are_kept_beside_the_blobs_where_those_are_objects(self) -> None:
        metadata, blobs = (
            open_engine("memory:", self.context(self.folder())),
            open_engine("memory:", self.context(self.folder())),
        )
        kept = []
        for url, form in (("whoosh:", SharedShards), ("whoosh:?shards=local", LocalShards)):
            with patch.object(blobs, "objects", self.objects, create=True):
                backend = compose(metadata, blobs=blobs, search=open_engine(url, self.context(self.folder())))
            self.assertTrue(isinstance(backend.search, form))
            assert backend.search is not None
            kept.append(backend)
            await backend.start()
            await self.filled(backend.search, "one")
            self.assertEqual(len(await self.found(backend.search, "one")), 1)
            await backend.stop()
        names = [name async for name, _ in self.objects.list("search/whoosh-1/")]
        self.assertEqual(len(names), 2, "the manifest and a part")
        backend = compose(metadata, blobs=blobs, search=open_engine("whoosh:", self.context(self.folder())))
        self.assertTrue(isinstance(backend.search, LocalShards))

    def test_whoosh_is_imported_by_who_first_needs_it(self) -> None:
        code = (
            "import sys; from pathlib import Path; from twisted.internet import reactor; "
            "from twisted_mail.storage import open_engine; from twisted_mail.storage.interfaces import EngineContext; "
            "open_engine('whoosh:', EngineContext(reactor, Path('/nonexistent'))); "
            "assert 'whoosh' not in sys.modules, 'it takes a second'"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=Path(__file__).parents[3])
