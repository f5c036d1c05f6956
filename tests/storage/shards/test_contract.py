"""The suite of search shards on each index: in local folders, on objects in memory, and on a real object store."""

from __future__ import annotations

from typing import Any

import pytest

from tests.storage.s3.support import KEYS, S3Case
from tests.storage.shards.support import ShardsCase, tantivy_index
from twisted_mail.storage import testing
from twisted_mail.storage.interfaces import SearchShards
from twisted_mail.storage.shards import WordIndex


class LocalWhooshTests(testing.SearchShardsContract, ShardsCase):
    async def build(self) -> SearchShards:
        return await self.local()


class LocalTantivyTests(LocalWhooshTests):
    def index(self) -> WordIndex:
        return tantivy_index()


class SharedWhooshTests(testing.SearchShardsContract, ShardsCase):
    async def build(self) -> SearchShards:
        return await self.node()


class SharedTantivyTests(SharedWhooshTests):
    def index(self) -> WordIndex:
        return tantivy_index()


@pytest.mark.cluster
class WhooshOnObjectStoreTests(testing.SearchShardsContract, S3Case, ShardsCase):
    def setUp(self) -> None:
        S3Case.setUp(self)
        ShardsCase.setUp(self)

    options: dict[str, Any] = {}

    async def build(self) -> SearchShards:
        return await self.node(objects=(await self.engine(**self.options)).objects)


class TantivyOnEncryptedObjectStoreTests(WhooshOnObjectStoreTests):
    options = {"encryption": f"keys:{KEYS[0]}"}

    def index(self) -> WordIndex:
        return tantivy_index()
