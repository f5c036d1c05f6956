"""The suite of `References`."""

from __future__ import annotations

from hashlib import sha256

from twisted_mail.storage.interfaces import References
from twisted_mail.storage.testing.base import Suite, collect, fails, together
from twisted_mail.values import BlobRef

__all__ = ["ReferencesContract"]


def _blob(text: str, generation: int = 0) -> BlobRef:
    return BlobRef(sha256(text.encode()).hexdigest(), len(text), generation)


class ReferencesContract(Suite):
    """An engine is a `References` if it passes. It may be one that others use at the same time."""

    async def build(self) -> References:
        """A started store; clean up by `addCleanup`."""
        raise NotImplementedError

    async def now(self) -> float:
        """The time by the store's clock, seconds since 1970, no earlier than anything done so far."""
        raise NotImplementedError

    async def advance(self, seconds: float) -> None:
        """Let time pass."""
        raise NotImplementedError

    def name(self, text: str) -> str:
        """*text* as content that no other run of this suite uses; override where the store outlives a test."""
        return text

    async def _lost(self, references: References, until: float, *among: BlobRef) -> list[BlobRef]:
        """What of *among* is listed, in the order of *among*."""
        listed = {(ref.hash, ref.generation, ref.size) for ref in await collect(references.lost(until))}
        return [ref for ref in among if (ref.hash, ref.generation, ref.size) in listed]

    async def test_a_holder_is_found_until_it_is_removed(self) -> None:
        references = await self.build()
        one = _blob(self.name("one"))
        self.assertEqual(list(await references.holders(one)), [])
        await references.add(one, "m/1")
        await references.add(one, "m/1")
        await references.add(one, "q/2")
        self.assertEqual(sorted(await references.holders(one, 10)), ["m/1", "q/2"])
        self.assertEqual(len(await references.holders(one)), 1)
        await references.remove([one], "m/1")
        self.assertEqual(list(await references.holders(one, 10)), ["q/2"])
        await references.remove([one], "q/2")
        self.assertEqual(list(await references.holders(one)), [])

    async def test_generations_are_held_apart(self) -> None:
        references = await self.build()
        content = self.name("twice")
        await references.add(_blob(content), "m/1")
        await references.add(_blob(content, 1), "m/2")
        self.assertEqual(list(await references.holders(_blob(content), 9)), ["m/1"])
        self.assertEqual(list(await references.holders(_blob(content, 1), 9)), ["m/2"])
        self.assertEqual(list(await references.holders(_blob(content, 2), 9)), [])

    async def test_what_lost_a_reference_is_listed_until_it_is_settled(self) -> None:
        references = await self.build()
        one, two, kept = _blob(self.name("1")), _blob(self.name("2"), 3), _blob(self.name("3"))
        for ref in (one, two, kept):
            await references.add(ref, "m/1")
        before = await self.now()
        await self.advance(2)
        await references.remove([one, two], "m/1")
        after = await self.now()
        self.assertEqual(await self._lost(references, after, one, two, kept), [one, two])
        self.assertEqual(await self._lost(references, before, one, two, kept), [])
        await references.settled(one, after)
        self.assertEqual(await self._lost(references, after, one, two, kept), [two])

    async def test_what_is_lost_again_is_listed_again(self) -> None:
        references = await self.build()
        one = _blob(self.name("again"))
        await references.add(one, "m/1")
        await references.remove([one], "m/1")
        first = await self.now()
        await self.advance(2)
        await references.remove([one], "m/never")
        second = await self.now()
        await references.settled(one, first)
        self.assertEqual(await self._lost(references, first, one), [])
        self.assertEqual(await self._lost(references, second, one), [one])
        await references.settled(one, second)
        self.assertEqual(await self._lost(references, second, one), [])

    async def test_a_condemned_generation_gives_way_to_the_next(self) -> None:
        references = await self.build()
        content = self.name("condemned")
        self.assertEqual(await references.condemned(_blob(content).hash), 0)
        await references.condemn(_blob(content))
        await references.condemn(_blob(content))
        self.assertEqual(await references.condemned(_blob(content).hash), 1)
        await references.condemn(_blob(content, 4))
        await references.condemn(_blob(content, 2))
        self.assertEqual(await references.condemned(_blob(content).hash), 5)
        self.assertEqual(await references.condemned(_blob(self.name("other")).hash), 0)

    async def test_one_of_who_needs_and_who_sweeps_sees_the_other(self) -> None:
        references = await self.build()
        for number in range(20):
            ref = _blob(self.name(f"race {number}"))

            async def needs(ref: BlobRef = ref) -> bool:
                await references.add(ref, "m/1")
                return await references.condemned(ref.hash) == 0

            async def sweeps(ref: BlobRef = ref) -> bool:
                await references.condemn(ref)
                return not await references.holders(ref)

            uses, deletes = await together(needs(), sweeps())
            self.assertFalse(uses is True and deletes is True, "it would be used and deleted")

    async def test_every_reference_can_be_walked_through(self) -> None:
        references = await self.build()
        wanted = {(_blob(self.name(f"{n}")).hash, n % 3, f"m/{n}") for n in range(30)}
        for hash, generation, holder in wanted:
            await references.add(BlobRef(hash, 7, generation), holder)
        found = {(ref.hash, ref.generation, holder) async for ref, holder in references.iterate()}
        self.assertEqual(wanted - found, set())

    async def test_a_holder_has_a_short_name(self) -> None:
        references = await self.build()
        for holder in ("", "x" * 129, "ü"):
            await fails(ValueError, references.add(_blob(self.name("x")), holder))
