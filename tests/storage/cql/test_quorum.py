"""Three nodes of which two hang: what is refused, what is not known, and what one replica still says."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.services import running
from twisted_mail.storage.cql import CQLEngine
from twisted_mail.storage.cql.options import parse_url
from twisted_mail.storage.interfaces import Refused, Unavailable
from twisted_mail.storage.testing.base import Suite, collect, fails
from twisted_mail.storage.testing.log import new_entries
from twisted_mail.storage.testing.messages import message_row
from twisted_mail.values import AccountId, ModSeq

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


class LostQuorumTests(Suite, TestCase):
    timeout = 240

    async def test_a_lost_quorum_is_refused_read_around_and_settled(self) -> None:
        from twisted.internet import reactor

        running.ours("CQL")
        servers: Any = running.cassandra(3)
        engine = CQLEngine(parse_url(servers.url(f"quorum_{uuid4().hex[:8]}")), reactor)
        await engine.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(engine.stop()))
        log, messages, account = engine.account_log, engine.messages, AccountId.new()
        await log.append(account, ModSeq(0), new_entries(5))
        await log.save_checkpoint(account, ModSeq(0), ModSeq(3), {"head": b"3", "far": b"away"}, {})
        row = message_row()
        await messages.put(account, [row])
        for node in servers.nodes[1:]:
            node.pause()
        try:
            unsettled = new_entries(1)
            error = await fails(Unavailable, log.append(account, ModSeq(5), unsettled))
            proposed = not isinstance(error, Refused)
            for _ in range(3):
                began = time.monotonic()
                await fails(Refused, log.append(account, ModSeq(5), new_entries(1)))
                assert time.monotonic() - began < 5, "what is not proposed is refused within 5 seconds"
            assert engine.health() is not None
            await fails(Unavailable, log.load_checkpoint(account, None))
            checkpoint = await self._patiently(lambda: log.load_checkpoint_stale(account, None))
            self.assertEqual(dict(checkpoint.chunks), {"head": b"3", "far": b"away"})
            entries = await self._patiently(lambda: log.read_stale(account, ModSeq(3)))
            self.assertEqual([entry.modseq for entry in entries], [4, 5])
            found = await self._patiently(lambda: collect(messages.get_many(account, [row.key], ["envelope"])))
            self.assertEqual(found, [[(row.cells["envelope"],)]])
        finally:
            for node in servers.nodes[1:]:
                node.resume()
        head = 5
        if proposed:
            head += await self._patiently(lambda: log.settle(account, ModSeq(5), [unsettled[0].id]))
        self.assertEqual(await self._patiently(lambda: log.head(account)), head)
        await self._patiently(lambda: log.append(account, ModSeq(head), new_entries(1)))

    async def _patiently(self, ask: Any) -> Any:
        """Its answer, once there is one."""
        from twisted.internet import reactor

        for _ in range(40):
            try:
                return await ask()
            except Unavailable:
                await deferLater(reactor, 0.5, lambda: None)
        raise AssertionError("it never answered")
