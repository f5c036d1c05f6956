"""Search shards on a real object store: two nodes on one bucket, answers that are lost, a store that is away."""

from __future__ import annotations

from itertools import cycle

from tests.services.s3_proxy import Fault, in_turn
from tests.storage.s3.support import S3Case
from tests.storage.shards.support import ShardsCase, documents
from twisted_mail.storage.interfaces import Unavailable
from twisted_mail.storage.shards import SharedShards
from twisted_mail.storage.shards.manifest import decode, folder_of
from twisted_mail.storage.shards.states import FRESH_SECONDS
from twisted_mail.storage.testing.base import collect, fails, together
from twisted_mail.values import MessageId, ModSeq


class EverybodysLeases:
    """Gives the same name and number to everybody, so that only the store's conditions decide."""

    async def acquire(self, name: str, ttl: float) -> int | None:
        return 1

    async def renew(self, name: str, number: int, ttl: float) -> bool:
        return True

    async def release(self, name: str, number: int) -> None:
        pass


class ShardsOnObjectStoreTests(S3Case, ShardsCase):
    def setUp(self) -> None:
        S3Case.setUp(self)
        ShardsCase.setUp(self)

    async def test_two_nodes_whose_leases_do_not_hold_lose_nothing(self) -> None:
        self.leases = EverybodysLeases()
        nodes = [await self.node(objects=(await self.engine()).objects) for _ in range(2)]
        added: list[MessageId] = []

        async def write(node: SharedShards) -> None:
            document = documents("word")[0]
            for _ in range(20):
                try:
                    await node.add(self.account, [document], ModSeq(1))
                except Unavailable:
                    continue
                added.append(document.message)
                return

        await together(*(write(node) for node in nodes * 3))
        self.assertEqual(len(added), 6)
        for node in nodes:
            await node.reached(self.account)
            self.assertEqual(set(await self.found(node, "word")), set(added))
        objects = (await self.engine()).objects
        prefix = folder_of(self.account, self.index().kind)
        stored = await objects.get(prefix + "manifest")
        assert stored is not None
        manifest = decode(stored.data, self.account, self.index().kind)
        lying = {name.removeprefix(prefix) for name, _ in await collect(objects.list(prefix))}
        named = {"manifest", *manifest.parts, *(each.part for each in manifest.dropped)}
        self.assertEqual(lying, named, "who came second has taken his parts away")

    async def test_whatever_passes_on_the_way_does_not_show(self) -> None:
        straight, proxy = await self.node(objects=(await self.engine()).objects), await self.proxy()
        engine = await self.engine(through=proxy, timeout=5)
        engine.objects._calls._draw = lambda: 0.1
        node = await self.node(objects=engine.objects)
        added = []
        for modseq, fault in enumerate((Fault.ERROR, Fault.LOST, Fault.HIDDEN), 1):
            # every other request, so that each put and each swap has its turn
            proxy.choose = in_turn(cycle([fault, Fault.NONE]), "PUT GET")
            added += await self.filled(node, "word", modseq=modseq)
            proxy.choose = lambda method, path: Fault.NONE
            self.assertEqual(await straight.reached(self.account), modseq)
            self.assertEqual(await self.found(straight, "word"), added[::-1], fault)
        self.assertEqual(await node.reached(self.account), 3)

    async def test_a_store_that_is_away(self) -> None:
        straight, proxy = await self.node(objects=(await self.engine()).objects), await self.proxy()
        engine = await self.engine(through=proxy, timeout=0.5)
        node = await self.node(objects=engine.objects)
        added = await self.filled(straight, "word", modseq=1)
        self.assertEqual(await self.found(node, "word"), added)
        await proxy.stop()
        await self.advance(FRESH_SECONDS + 1)
        self.assertEqual((await node.reached(self.account), await self.found(node, "word")), (1, added))
        await fails(Unavailable, node.add(self.account, documents("word"), ModSeq(2)))
        await fails(Unavailable, (await self.node(objects=engine.objects)).reached(self.account))
        await proxy.start()
        await self.advance(FRESH_SECONDS + 1)
        added += await self.filled(node, "word", modseq=2)
        self.assertEqual(await straight.reached(self.account), 2)
        self.assertEqual(await self.found(straight, "word"), added[::-1])
