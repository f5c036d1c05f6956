"""A stream that was made a moment ago, and a server of the cluster that has not heard of it yet."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from twisted_mail.storage.nats import streams
from twisted_mail.storage.nats.jetstream import NO_STREAM, JetStreamError
from twisted_mail.storage.nats.settings import Settings


class LateJetStream:
    """Does not know the stream the first *times*."""

    def __init__(self, times: int) -> None:
        self.link = SimpleNamespace(settings=Settings(("127.0.0.1:4222",), shards=1))
        self.asked = 0
        self._times = times

    async def api(self, what: str, body: object = None) -> dict[str, Any]:
        self.asked += 1
        if self.asked <= self._times:
            raise JetStreamError(NO_STREAM, 404, "stream not found")
        return {"consumers": [], "total": 0}


def test_a_new_stream_may_be_unknown_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "KNOWN_SECONDS", 0.0)
    late: Any = LateJetStream(3)
    asyncio.run(streams.QueueStreams(late)._make_consumers("bulk"))
    assert late.asked == 5
    never: Any = LateJetStream(10_000)
    with pytest.raises(JetStreamError):
        asyncio.run(streams.QueueStreams(never)._make_consumers("bulk"))
