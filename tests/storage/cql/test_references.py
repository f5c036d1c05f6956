"""References of blobs in CQL: the contract on a real cluster, and that no clock decides."""

from __future__ import annotations

import hashlib
import time
from uuid import uuid4

from tests.storage.cql.cluster import ClusterCase
from twisted_mail.storage import testing
from twisted_mail.storage.cql.references import SLICE_ENDED_SECONDS, SLICE_SECONDS, CQLReferences
from twisted_mail.storage.interfaces import References
from twisted_mail.storage.testing.base import collect
from twisted_mail.values import BlobRef


class CQLReferencesTests(testing.ReferencesContract, ClusterCase):
    def setUp(self) -> None:
        self.offset = 0.0
        self.run_id = uuid4().hex

    def wall(self) -> float:
        return time.time() + self.offset

    def name(self, text: str) -> str:
        return self.run_id + text

    async def build(self) -> References:
        return CQLReferences(await self.session(), self.wall)

    async def now(self) -> float:
        return self.wall()

    async def advance(self, seconds: float) -> None:
        self.offset += seconds

    def blob(self, text: str) -> BlobRef:
        return BlobRef(hashlib.sha256(self.name(text).encode()).hexdigest(), 0)

    async def test_a_reference_that_is_added_again_is_there_whatever_the_clocks_say(self) -> None:
        references, one = await self.build(), self.blob("x")
        for _ in range(3):
            await references.add(one, "m/1")
            await references.remove([one], "m/1")
            self.assertEqual(list(await references.holders(one)), [])
            self.offset -= 300  # the next node's clock is five minutes behind
        await references.add(one, "m/1")
        self.assertEqual(list(await references.holders(one, 5)), ["m/1"])

    async def test_many_rows_of_one_holder_do_not_hide_the_others(self) -> None:
        references, one = await self.build(), self.blob("x")
        names = [f"m/{number}" for number in range(20)]
        for holder in [*(["m/0"] * 6), *names]:
            await references.add(one, holder)
        for limit in (1, 3, 7, 20, 50):
            found = await references.holders(one, limit)
            self.assertEqual((len(found), len(set(found))), (min(limit, 20),) * 2)

    async def test_the_list_is_in_order_over_slices_and_shards_and_ended_slices_are_forgotten(self) -> None:
        session = await self.session()
        references = CQLReferences(session, self.wall)
        await self.advance(SLICE_SECONDS * 1.5 - await self.now() % SLICE_SECONDS)  # to the middle of a slice
        start = await self.now()
        blobs = [self.blob(str(number)) for number in range(30)]
        for ref in blobs:
            await references.remove([ref], "m/1")
            await self.advance(SLICE_SECONDS / 10)
        end = await self.now()
        listed = [ref for ref in await collect(references.lost(end)) if ref in blobs]
        self.assertEqual(listed, blobs)
        for ref in blobs:
            await references.settled(ref, end)
        self.assertEqual([ref for ref in await collect(references.lost(end)) if ref in blobs], [])
        first, last = int(start) // SLICE_SECONDS, int(end) // SLICE_SECONDS
        slices = "SELECT slice FROM blob_lost_slice WHERE part = 0 AND slice > %s AND slice <= %s"
        self.assertEqual(len(await session.run(slices, (first, last))), 3)
        await self.advance(SLICE_ENDED_SECONDS + 2 * SLICE_SECONDS)
        await collect(references.lost(end))
        self.assertEqual(await session.run(slices, (first, last)), [])
        for table in ("blob_lost_at", "blob_lost"):
            left = {row["hash"].hex() for row in await session.run(f"SELECT hash FROM {table}")}
            self.assertEqual(left & {ref.hash for ref in blobs}, set())
