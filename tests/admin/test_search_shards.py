"""What mailctl does to search shards: the words of a user who is deleted go with his mail."""

from __future__ import annotations

import os
from pathlib import Path

from tests.admin.calling import Mailctl
from tests.admin.objects import on_objects
from twisted_mail.admin.opening import Store
from twisted_mail.storage.interfaces import SearchDocument
from twisted_mail.storage.objects import KeepsObjects
from twisted_mail.values import MessageId, ModSeq


async def fill(store: Store) -> None:
    assert store.backend.search is not None
    for record in await store.directory.accounts():
        document = SearchDocument(MessageId.new(), {"subject": "words"}, 1)
        await store.backend.search.add(record.id, [document], ModSeq(1))


def test_a_shard_in_the_data_folder_goes_with_its_user(tmp_path: Path) -> None:
    ctl = Mailctl(tmp_path).with_user()
    ctl.inside(fill)
    shards = list(tmp_path.rglob("search/*/??/*"))
    assert len(shards) == 1
    ctl.good("user", "delete", "ann@example.org", "--yes")
    assert not shards[0].exists()


def test_a_shard_in_the_object_store_goes_with_its_user(tmp_path: Path) -> None:
    ctl = on_objects(tmp_path, f"shards-{os.urandom(8).hex()}").with_user()

    async def names(store: Store) -> list[str]:
        (objects,) = (engine.objects for engine in store.backend.engines if isinstance(engine, KeepsObjects))
        return [name async for name, _ in objects.list("search/")]

    ctl.inside(fill)
    assert len(ctl.inside(names)) == 2
    ctl.good("user", "delete", "ann@example.org", "--yes")
    assert ctl.inside(names) == []
