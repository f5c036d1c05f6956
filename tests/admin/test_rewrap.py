"""mailctl storage rewrap on a real object store: an old key is retired."""

from __future__ import annotations

import os
from pathlib import Path

from tests.admin.calling import Mailctl
from tests.admin.objects import on_objects
from tests.storage.s3.support import KEYS
from twisted_mail.admin.opening import Store
from twisted_mail.storage.objects import KeepsObjects
from twisted_mail.storage.s3.sealing import Keyring

OLD, NEW = KEYS
IDS = [Keyring.parse(key).ids[0] for key in KEYS]


def test_an_old_key_is_retired(tmp_path: Path) -> None:
    prefix = f"rewrap-{os.urandom(8).hex()}"
    contents = [os.urandom(size) for size in (0, 10, 200_000)]

    async def fill(store: Store) -> None:
        for content in contents:
            writer = store.backend.blobs.writer()
            await writer.write(content)
            await writer.finish()

    async def read(store: Store) -> list[bytes]:
        found = []
        async for ref in store.backend.blobs.iterate():
            found.append(b"".join([chunk async for chunk in store.backend.blobs.open(ref)]))
        return sorted(found, key=len)

    async def fill_shard(store: Store) -> None:
        await fill(store)
        (objects,) = (engine.objects for engine in store.backend.engines if isinstance(engine, KeepsObjects))
        await objects.put("search/part", b"words")

    async def read_shard(store: Store) -> bytes:
        (objects,) = (engine.objects for engine in store.backend.engines if isinstance(engine, KeepsObjects))
        stored = await objects.get("search/part")
        assert stored is not None
        return stored.data

    on_objects(tmp_path, prefix, encryption=f"keys:{OLD}").inside(fill_shard)
    ctl = on_objects(tmp_path, prefix, encryption=f"keys:{NEW},{OLD}")
    counted = ctl.json("storage", "rewrap", "--count")
    assert (counted["left"], counted["under"], counted["first"]) == (3, {IDS[1]: 0, IDS[0]: 3}, IDS[1])
    changed = ctl.json("storage", "rewrap")
    assert (changed["changed"], changed["left"], changed["whole"], changed["shards"]) == (3, 0, True, 1)
    line = ctl.good("storage", "rewrap").out
    assert "0 changed" in line and f"under the key {IDS[0]} (an old one): 0" in line
    assert on_objects(tmp_path, prefix, encryption=f"keys:{NEW}").inside(read) == contents
    assert on_objects(tmp_path, prefix, encryption=f"keys:{NEW}").inside(read_shard) == b"words"

    ctl = on_objects(tmp_path, prefix, encryption=f"keys:{OLD}")  # the wrong one was taken away
    refused = ctl.run("storage", "rewrap", "--json")
    assert (refused.status, refused.error()["left"]) == (1, 3)


def test_where_there_are_no_keys_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    files = Mailctl(tmp_path / "files").with_user()
    assert files.run("storage", "rewrap", "--json").error()["code"] == "no-keys"
    plain = on_objects(tmp_path / "objects").with_user()
    assert "`encryption` is off" in plain.run("storage", "rewrap").err
    assert plain.run("storage", "rewrap", "--after", "x").status == 2
