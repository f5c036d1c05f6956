"""Engines by URL, and backends composed of several."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from twisted_mail.storage import EngineUnknown, compose, known_schemes, open_backend, open_engine, registry
from twisted_mail.storage.interfaces import EngineContext, StorageError
from twisted_mail.storage.memory import MemoryEngine


def context(folder: Path = Path("/nonexistent")) -> EngineContext:
    return EngineContext(Clock(), folder)


def run(coroutine: Any) -> Any:
    """Drive a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it suspended")


def test_our_engines_are_there_whatever_the_metadata_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: [])
    assert known_schemes() == ["cql", "file", "memory", "nats", "s3", "sqlite", "tantivy", "whoosh"]
    assert isinstance(open_engine("memory:", context()), MemoryEngine)
    assert isinstance(open_engine("memory", context()), MemoryEngine)


def test_an_engine_of_another_package_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("tape", "twisted_mail.storage.memory:MemoryEngineOnTape", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    built = object()
    from twisted_mail.storage import memory

    monkeypatch.setattr(memory, "MemoryEngineOnTape", lambda url, context: (built, url), raising=False)
    found: object = open_engine("tape://drive/1", context())
    assert found == (built, "tape://drive/1")


def test_two_engines_of_one_scheme_are_refused_and_one_that_is_declared_twice_is_not() -> None:
    same = EntryPoint("sqlite", "twisted_mail.storage.sqlite:engine", registry.GROUP)
    assert registry.table([same, same])["sqlite"] == same.value
    with pytest.raises(EngineUnknown, match="two storage engines claim sqlite"):
        registry.table([EntryPoint("sqlite", "other:engine", registry.GROUP)])


def test_a_scheme_that_nobody_has_is_answered_with_those_there_are() -> None:
    with pytest.raises(EngineUnknown, match=r"'tape'.*memory"):
        open_engine("tape://x", context())
    with pytest.raises(ValueError, match="nothing may follow"):
        open_engine("memory://somewhere", context())


def test_an_engine_is_imported_only_when_it_is_chosen() -> None:
    code = (
        "import sys; from twisted_mail.storage import open_engine, known_schemes; known_schemes(); "
        "assert not [m for m in sys.modules if m.startswith(('twisted_mail.storage.sqlite', 'sqlite3', "
        "'twisted_mail.storage.memory', 'twisted_mail.storage.files', 'twisted.internet.reactor'))], sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=Path(__file__).parents[2])


def test_a_backend_is_composed_of_several_engines_and_starts_each_once() -> None:
    calls: list[tuple[str, str]] = []

    class Engine(MemoryEngine):
        def __init__(self, name: str, fails: bool = False) -> None:
            super().__init__(context())
            self.name, self.fails = name, fails

        async def start(self) -> None:
            if self.fails:
                raise StorageError("no")
            calls.append(("start", self.name))

        async def stop(self) -> None:
            calls.append(("stop", self.name))

    one, two, three = Engine("one"), Engine("two"), Engine("three")
    backend = compose(one, blobs=two, messaging=three, cache=two)
    assert (backend.account_log, backend.blobs) == (one.account_log, two.blobs)
    assert (backend.queue, backend.bus, backend.cache) == (three.queue, three.bus, two.cache)
    assert (backend.leases, backend.search, backend.members) == (one.leases, one.search, three.members)
    run(backend.start())
    run(backend.stop())
    assert [name for call, name in calls if call == "start"] == ["one", "two", "three"]
    assert [name for call, name in calls if call == "stop"] == ["three", "two", "one"]
    calls.clear()
    with pytest.raises(StorageError):
        run(compose(one, blobs=Engine("bad", fails=True)).start())
    assert calls == [("start", "one"), ("stop", "one")]


def test_a_store_that_no_engine_has_is_named(tmp_path: Path) -> None:
    files = open_engine("file:", context(tmp_path))
    with pytest.raises(ValueError, match="account log"):
        compose(files)
    with pytest.raises(ValueError, match="colour"):
        compose(open_engine("memory:", context()), colour=files)


def test_the_embedded_backend_needs_no_configuration(tmp_path: Path) -> None:
    backend = open_backend({}, context(tmp_path))
    assert [type(engine).__name__ for engine in backend.engines] == ["SQLiteEngine", "FileEngine"]
    assert backend.search is None
    assert len(open_backend({"metadata": "memory:"}, context()).engines) == 1
    assert len(open_backend({"metadata": "memory:", "cache": "memory:"}, context()).engines) == 1
    assert not list(tmp_path.iterdir()), "nothing is opened before it is started"
