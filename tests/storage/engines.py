"""Engines for the tests: in temporary folders, on the real reactor, with a clock that can be put forward."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from twisted_mail.storage.files import FileBlobs
from twisted_mail.storage.interfaces import EngineContext
from twisted_mail.storage.sqlite import SQLiteEngine
from twisted_mail.storage.testing.base import Suite

__all__ = ["EngineCase", "ShiftedReactor"]


class ShiftedReactor:
    """The real reactor, whose clock runs ahead by `offset` seconds."""

    def __init__(self) -> None:
        from twisted.internet import reactor  # not before trial has installed it

        self._reactor: Any = reactor
        self.offset = 0.0

    def seconds(self) -> float:
        return float(self._reactor.seconds()) + self.offset

    def wall(self) -> float:
        return time.time() + self.offset

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


class EngineCase(Suite, TestCase):
    """Builds engines and puts them away."""

    timeout = 60

    def setUp(self) -> None:
        self.reactor: Any = ShiftedReactor()

    def folder(self) -> Path:
        """A new folder that goes with the test."""
        path = Path(tempfile.mkdtemp(prefix="storage-"))
        self.addCleanup(shutil.rmtree, path, True)
        return path

    async def advance(self, seconds: float) -> None:
        self.reactor.offset += seconds

    def context(self, folder: Path) -> EngineContext:
        return EngineContext(self.reactor, folder)

    async def sqlite(self, folder: Path | None = None, **options: Any) -> SQLiteEngine:
        """A started engine; the first in a folder writes, others hand it their writes."""
        folder = folder or self.folder()
        engine = SQLiteEngine(folder / "mail.sqlite", self.context(folder), wall=self.reactor.wall, **options)
        await engine.start()
        self.addCleanup(self.stop, engine)
        return engine

    async def linked(self) -> SQLiteEngine:
        """A started engine that hands its writes to another one."""
        folder = self.folder()
        await self.sqlite(folder)
        engine = await self.sqlite(folder)
        assert engine.writers.local is None
        return engine

    def stop(self, engine: SQLiteEngine) -> Any:
        from twisted.internet.defer import Deferred

        return Deferred.fromCoroutine(engine.stop())

    async def files(self, folder: Path | None = None, **options: Any) -> FileBlobs:
        folder = folder or self.folder()
        blobs = FileBlobs(folder / "blobs", self.reactor, **options)
        await blobs.start()
        self.addCleanup(blobs.close)
        return blobs
