"""Engines on a real server, each test with streams of its own, and a way to let time go by there."""

from __future__ import annotations

import asyncio
from os import urandom
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.services import running
from tests.storage.engines import EngineCase
from twisted_mail.storage.interfaces import USES, EngineContext
from twisted_mail.storage.nats import NATSEngine
from twisted_mail.storage.nats.items import DUE, WAIT, Entry, Place, scheduled
from twisted_mail.storage.nats.settings import Settings

__all__ = ["NATSCase"]


class NATSCase(EngineCase):
    """Builds engines on the server and removes what they made there."""

    timeout = 30

    def setUp(self) -> None:
        super().setUp()
        self.prefix = f"test{urandom(6).hex()}"
        self.engines: list[NATSEngine] = []

    async def nats(self, url: str | None = None, **options: object) -> NATSEngine:
        """A started engine; those of one test share their streams."""
        given = {"shards": 2, "replicas": 1, **options}
        settings = Settings.parse(
            url or running.nats().url(self.prefix), {name: str(value) for name, value in given.items()}
        )
        engine = NATSEngine(settings, EngineContext(self.reactor, self.folder()), wall=self.reactor.wall)
        await engine.start()
        self.engines.append(engine)
        if len(self.engines) == 1:
            self.addCleanup(lambda: Deferred.fromCoroutine(self._put_away()))
        return engine

    async def _put_away(self) -> None:
        first, *others = self.engines
        for engine in others:
            await engine.stop()
        if first.health() is None:
            await first._link.run(self._remove_streams(first))
        await first.stop()

    async def _remove_streams(self, engine: NATSEngine) -> None:
        for name in (*USES, "cache", "bodies"):
            await engine.jetstream.api(f"STREAM.DELETE.{self.prefix}-{name}")

    async def advance(self, seconds: float) -> None:
        """The clocks of the engines go forward, and what waits on the server becomes due so much earlier."""
        await super().advance(seconds)
        if self.engines:
            await self.engines[0]._link.run(self._hasten(self.engines[0]))

    async def _hasten(self, engine: NATSEngine) -> None:
        """A server has no clock that could be put forward: its schedules are written anew, in the order of their times."""
        js, now = engine.jetstream, engine._link.now()
        for use in USES:
            stream = f"{self.prefix}-{use}"
            subjects = await js.subjects(stream, f"{self.prefix}.{use}.{WAIT}.>")
            stored = await js.last_of_many(stream, subjects)
            waiting = sorted(((Entry.decode(each.data), subject) for subject, each in stored.items()), key=_due)
            for entry, subject in waiting:
                place = Place.parse(subject)
                await js.write(subject, entry.encode(), scheduled(place, entry.due - self.reactor.offset))
            fired = [Place.parse(subject).moved(DUE).subject for entry, subject in waiting if entry.due <= now]
            while set(fired) - set(await js.subjects(stream, f"{self.prefix}.{use}.{DUE}.>")):  # noqa: ASYNC110  # the server tells nobody
                await asyncio.sleep(0.02)

    async def turn(self, seconds: float = 0.0) -> None:
        await deferLater(self.reactor, seconds, lambda: None)


def _due(pair: tuple[Entry, Any]) -> float:
    return pair[0].due
