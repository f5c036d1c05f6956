"""Allowances in blocks: never more than the limit over all nodes, few writes, nothing stranded for long."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no types)

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from twisted_mail.relay.blocks import Blocks
from twisted_mail.storage.interfaces import Unavailable
from twisted_mail.storage.memory import MemoryAllowances


class Counted(MemoryAllowances):
    """Knows how often it was written to; may be down."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.down = False

    async def take(self, name: str, day: int, n: int, limit: int) -> int:
        if self.down:
            raise Unavailable("down")
        self.writes += 1
        return await super().take(name, day, n, limit)


class BlocksTests(TestCase):
    async def test_one_node_gets_the_limit_to_the_message(self) -> None:
        store = Counted()
        blocks = Blocks(store)
        got = [await blocks.take("a", 1, 1, 50_000) for _ in range(50_001)]
        self.assertEqual(sum(got), 50_000)
        self.assertEqual(got[-1], 0)
        self.assertLess(store.writes, 400)

    async def test_three_nodes_share_it_and_nothing_is_left_in_blocks_at_the_end(self) -> None:
        store = Counted()
        nodes = [Blocks(store) for _ in range(3)]
        got: Counter[int] = Counter()
        for turn in range(3_000):
            got[turn % 3] += await nodes[turn % 3].take("a", 1, 1, 1_000)
        self.assertEqual(got.total(), 1_000)
        self.assertGreater(min(got.values()), 250)
        self.assertEqual([node.held("a", 1) for node in nodes], [0, 0, 0])

    async def test_once_it_is_used_up_the_store_is_left_alone(self) -> None:
        store = Counted()
        blocks = Blocks(store)
        self.assertEqual(await blocks.take("a", 1, 10, 10), 10)
        await blocks.take("a", 1, 1, 10)
        writes = store.writes
        for _ in range(100):
            self.assertEqual(await blocks.take("a", 1, 1, 10), 0)
        self.assertEqual(store.writes, writes)
        self.assertEqual(await blocks.take("a", 1, 2, 12), 2, "a limit that grew is asked for again")

    async def test_several_at_once_get_what_is_there(self) -> None:
        blocks = Blocks(Counted())
        self.assertEqual(await blocks.take("a", 1, 30, 50), 30)
        self.assertEqual(await blocks.take("a", 1, 30, 50), 20)

    async def test_a_crash_forfeits_a_block_and_a_new_day_begins_anew(self) -> None:
        store = Counted()
        first = Blocks(store)
        self.assertEqual(await first.take("a", 1, 1, 1_600), 1)
        self.assertEqual(first.held("a", 1), 99)
        again = Blocks(store)
        got = 0
        while n := await again.take("a", 1, 1, 1_600):
            got += n
        self.assertEqual(got, 1_500)
        self.assertEqual(await first.take("a", 2, 1, 1_600), 1)
        self.assertEqual(first.held("a", 1), 0)
        self.assertEqual(await store.taken("a", 2), 100)

    async def test_a_plan_that_was_stepped_back_takes_back_what_was_ahead(self) -> None:
        store = Counted()
        blocks = Blocks(store)
        self.assertEqual(await blocks.take("a", 1, 100, 1_600), 100)
        await blocks.take("a", 1, 1, 1_600)
        self.assertGreater(blocks.held("a", 1), 0)
        self.assertEqual(await blocks.take("a", 1, 1, 120), 0)
        self.assertEqual(blocks.held("a", 1), 0)

    async def test_what_was_not_used_comes_back_on_its_day(self) -> None:
        blocks = Blocks(Counted())
        self.assertEqual(await blocks.take("a", 1, 10, 10), 10)
        blocks.give_back("a", 1, 4)
        self.assertEqual(await blocks.take("a", 1, 10, 10), 4)
        blocks.give_back("a", 0, 4)
        self.assertEqual(await blocks.take("a", 1, 1, 10), 0)
        await blocks.take("b", 3, 1, 10)
        blocks.forget(3)
        self.assertEqual((blocks.held("a", 1), blocks.held("b", 3)), (0, 0))

    async def test_a_store_that_is_down_gives_nothing_and_is_asked_again(self) -> None:
        store = Counted()
        store.down = True
        blocks = Blocks(store)
        with self.assertRaises(Unavailable):
            await blocks.take("a", 1, 1, 10)
        store.down = False
        self.assertEqual(await blocks.take("a", 1, 1, 10), 1)

    async def test_many_at_once_in_one_node_never_get_more(self) -> None:
        blocks = Blocks(Counted())
        got = await gatherResults([Deferred.fromCoroutine(blocks.take("a", 1, 3, 100)) for _ in range(60)])
        self.assertEqual(sum(got), 100)


@settings(max_examples=60, deadline=None)
@given(
    limit=st.integers(1, 400),
    takes=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 30), st.booleans()), max_size=80),
)
def test_never_more_than_the_limit_whoever_dies(limit: int, takes: list[tuple[int, int, bool]]) -> None:
    store = MemoryAllowances()
    nodes = [Blocks(store) for _ in range(3)]
    total = 0

    async def run() -> None:
        nonlocal total
        for node, n, dies in takes:
            if dies:
                nodes[node] = Blocks(store)
            got = await nodes[node].take("a", 1, n, limit)
            assert 0 <= got <= n
            total += got
        assert total + sum(node.held("a", 1) for node in nodes) <= await store.taken("a", 1) <= limit

    done: list[None] = []
    Deferred.fromCoroutine(run()).addCallback(done.append)
    assert done == [None]
