"""The suites of the small interfaces: notices, cache, leases, allowances, members, search."""

from __future__ import annotations

from twisted_mail.storage.interfaces import (
    Allowances,
    Bus,
    Cache,
    Conflict,
    Leases,
    Member,
    Members,
    Record,
    Records,
    Refused,
    SearchDocument,
    SearchShards,
    Unavailable,
)
from twisted_mail.storage.testing.base import Suite, fails, together
from twisted_mail.values import AccountId, MessageId, ModSeq

__all__ = [
    "AllowancesContract",
    "BusContract",
    "CacheContract",
    "LeasesContract",
    "MembersContract",
    "RecordsContract",
    "SearchShardsContract",
]


class BusContract(Suite):
    """An engine is a `Bus` if it passes."""

    async def build(self) -> Bus:
        """A started store; clean up by `addCleanup`."""
        raise NotImplementedError

    async def deliver(self) -> None:
        """Wait until the notices that were published so far have come."""
        raise NotImplementedError

    async def test_a_notice_comes_to_those_who_watch_the_account(self) -> None:
        bus, account, other = await self.build(), AccountId.new(), AccountId.new()
        one: list[int] = []
        two: list[int] = []
        elsewhere: list[int] = []
        for subscriber, watched in ((one, account), (two, account), (elsewhere, other)):
            bus.subscribe(watched, subscriber.append)
        bus.publish(account, ModSeq(7))
        self.assertEqual((one, two), ([], []), "never within publish")
        await self.deliver()
        self.assertEqual((one, two, elsewhere), ([7], [7], []))

    async def test_nothing_comes_after_the_end_of_a_subscription(self) -> None:
        bus, account = await self.build(), AccountId.new()
        heard: list[int] = []
        kept: list[int] = []
        end = bus.subscribe(account, heard.append)
        bus.subscribe(account, kept.append)
        bus.publish(account, ModSeq(1))
        await self.deliver()
        end()
        end()
        bus.publish(account, ModSeq(2))
        await self.deliver()
        self.assertEqual((heard, kept[-1]), ([1], 2))

    async def test_the_newest_of_many_notices_comes(self) -> None:
        bus, account = await self.build(), AccountId.new()
        heard: list[int] = []
        bus.subscribe(account, heard.append)
        for number in range(1, 50):
            bus.publish(account, ModSeq(number))
        await self.deliver()
        self.assertEqual(heard[-1], 49)
        self.assertEqual(heard, sorted(heard))

    async def test_a_subscriber_that_fails_does_not_keep_the_notice_from_others(self) -> None:
        bus, account = await self.build(), AccountId.new()
        heard: list[int] = []

        def broken(modseq: ModSeq) -> None:
            raise ZeroDivisionError

        bus.subscribe(account, broken)
        bus.subscribe(account, heard.append)
        bus.publish(account, ModSeq(3))
        await self.deliver()
        self.assertEqual(heard, [3])
        # trial's way to say that an error in the log was meant
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)  # type: ignore[attr-defined]


class CacheContract(Suite):
    """An engine is a `Cache` if it passes. (It may lose things at any time, but not for sport.)"""

    async def build(self) -> Cache:
        """A started, empty store whose clock `advance` moves; clean up by `addCleanup`."""
        raise NotImplementedError

    async def advance(self, seconds: float) -> None:
        """Let *seconds* go by on the store's clock."""
        raise NotImplementedError

    async def test_a_value_lives_as_long_as_it_was_given(self) -> None:
        cache = await self.build()
        self.assertIsNone(await cache.get("k"))
        await cache.set("k", b"\x00value", 10)
        self.assertEqual(await cache.get("k"), b"\x00value")
        await self.advance(9)
        self.assertEqual(await cache.get("k"), b"\x00value")
        await self.advance(2)
        self.assertIsNone(await cache.get("k"))

    async def test_setting_again_replaces_value_and_time(self) -> None:
        cache = await self.build()
        await cache.set("k", b"one", 10)
        await self.advance(8)
        await cache.set("k", b"two", 10)
        await self.advance(8)
        self.assertEqual(await cache.get("k"), b"two")

    async def test_a_value_has_a_limit(self) -> None:
        cache = await self.build()
        await cache.set("k", bytes(65_536), 10)
        await fails(ValueError, cache.set("k", bytes(65_537), 10))

    async def test_a_counter_adds_up_and_ends_after_its_first_increment(self) -> None:
        cache = await self.build()
        self.assertEqual(await cache.increment("n", 10), 1)
        await self.advance(6)
        self.assertEqual(await cache.increment("n", 10, 5), 6)
        self.assertEqual(await cache.increment("m", 10), 1)
        await self.advance(6)
        self.assertEqual(await cache.increment("n", 10), 1)

    async def test_increments_at_once_all_count(self) -> None:
        cache = await self.build()
        sums = await together(*(cache.increment("n", 60) for _ in range(25)))
        self.assertEqual(sorted(s for s in sums if isinstance(s, int)), list(range(1, 26)))


class LeasesContract(Suite):
    """An engine is a `Leases` if it passes."""

    async def build(self) -> Leases:
        """A started, empty store whose clock `advance` moves; clean up by `addCleanup`."""
        raise NotImplementedError

    async def advance(self, seconds: float) -> None:
        """Let *seconds* go by on the store's clock."""
        raise NotImplementedError

    async def test_one_at_a_time_holds_a_name(self) -> None:
        leases = await self.build()
        first = await leases.acquire("pop3/ann", 30)
        assert first is not None
        self.assertIsNone(await leases.acquire("pop3/ann", 30))
        self.assertTrue(await leases.acquire("pop3/bob", 30))
        await leases.release("pop3/ann", first)
        second = await leases.acquire("pop3/ann", 30)
        self.assertGreater(second, first)

    async def test_of_many_who_want_a_name_one_gets_it(self) -> None:
        leases = await self.build()
        numbers = await together(*(leases.acquire("n", 30) for _ in range(10)))
        self.assertEqual(sum(number is not None for number in numbers), 1)

    async def test_a_lease_that_runs_out_goes_to_the_next_with_a_higher_number(self) -> None:
        leases = await self.build()
        first = await leases.acquire("n", 30)
        assert first is not None
        await self.advance(29)
        self.assertIsNone(await leases.acquire("n", 30))
        await self.advance(2)
        second = await leases.acquire("n", 30)
        self.assertGreater(second, first)
        self.assertFalse(await leases.renew("n", first, 30))
        await leases.release("n", first)
        self.assertIsNone(await leases.acquire("n", 30), "the old number releases nothing")

    async def test_a_lease_is_renewed_from_now(self) -> None:
        leases = await self.build()
        number = await leases.acquire("n", 30)
        assert number is not None
        await self.advance(20)
        self.assertTrue(await leases.renew("n", number, 30))
        await self.advance(20)
        self.assertIsNone(await leases.acquire("n", 30))
        await self.advance(11)
        self.assertFalse(await leases.renew("n", number, 30), "it has run out")
        self.assertFalse(await leases.renew("other", 1, 30))

    async def test_numbers_ascend_however_leases_end(self) -> None:
        leases = await self.build()
        numbers = []
        for turn in range(6):
            number = await leases.acquire("n", 10)
            assert number is not None
            numbers.append(number)
            if turn % 2:
                await leases.release("n", number)
            else:
                await self.advance(11)
        self.assertEqual(numbers, sorted(set(numbers)))


class AllowancesContract(Suite):
    """An engine is an `Allowances` if it passes."""

    async def build(self) -> Allowances:
        """A started, empty store; clean up by `addCleanup`."""
        raise NotImplementedError

    async def test_no_more_than_the_limit_is_given(self) -> None:
        allowances = await self.build()
        self.assertEqual(await allowances.take("ip1", 20_000, 40, 100), 40)
        self.assertEqual(await allowances.take("ip1", 20_000, 50, 100), 50)
        self.assertEqual(await allowances.take("ip1", 20_000, 50, 100), 10)
        self.assertEqual(await allowances.take("ip1", 20_000, 1, 100), 0)
        self.assertEqual(await allowances.taken("ip1", 20_000), 100)

    async def test_names_and_days_are_apart(self) -> None:
        allowances = await self.build()
        await allowances.take("ip1", 1, 10, 10)
        self.assertEqual(await allowances.take("ip1", 2, 10, 10), 10)
        self.assertEqual(await allowances.take("ip2", 1, 7, 10), 7)
        self.assertEqual(await allowances.taken("ip2", 1), 7)
        self.assertEqual(await allowances.taken("ip2", 2), 0)

    async def test_a_limit_that_is_raised_gives_more_and_one_that_is_lowered_nothing(self) -> None:
        allowances = await self.build()
        await allowances.take("ip1", 1, 10, 10)
        self.assertEqual(await allowances.take("ip1", 1, 10, 15), 5)
        self.assertEqual(await allowances.take("ip1", 1, 10, 5), 0)
        self.assertEqual(await allowances.taken("ip1", 1), 15)

    async def test_takers_at_once_never_get_more_than_the_limit(self) -> None:
        allowances = await self.build()
        got = await together(*(allowances.take("ip1", 1, 7, 50) for _ in range(12)))
        self.assertEqual(sum(n for n in got if isinstance(n, int)), 50)


class MembersContract(Suite):
    """An engine is a `Members` if it passes (as the only node; more nodes are the engine's own tests)."""

    async def build(self) -> Members:
        """A started store of a node that has not joined; clean up by `addCleanup`."""
        raise NotImplementedError

    async def test_who_has_joined_is_alive_and_owns_every_account(self) -> None:
        members, account = await self.build(), AccountId.new()
        self.assertEqual(list(await members.alive()), [])
        self.assertIsNone(await members.owner(account))

        async def serve(account: AccountId, request: bytes) -> bytes:
            return request.upper()

        await members.join("node-1", frozenset({"imap", "smtp"}), serve)
        self.assertEqual(list(await members.alive()), [Member("node-1", frozenset({"imap", "smtp"}))])
        self.assertEqual(await members.owner(account), "node-1")
        self.assertEqual(await members.forward(account, b"intent"), b"INTENT")

    async def test_who_is_asked_may_be_kept_to_one_data_centre(self) -> None:
        members, account = await self.build(), AccountId.new()

        async def serve(account: AccountId, request: bytes) -> bytes:
            return request.upper()

        await members.join("node-1", frozenset(), serve, "dc1")
        self.assertEqual([member.datacenter for member in await members.alive()], ["dc1"])
        self.assertEqual(await members.owner(account, "dc1"), "node-1")
        self.assertEqual(await members.forward(account, b"intent", "dc1"), b"INTENT")
        self.assertIsNone(await members.owner(account, "dc2"))
        await fails(Refused, members.forward(account, b"intent", "dc2"))

    async def test_who_has_left_is_not_reached(self) -> None:
        members, account = await self.build(), AccountId.new()

        async def serve(account: AccountId, request: bytes) -> bytes:
            return b""

        await members.join("node-1", frozenset(), serve)
        await members.leave()
        self.assertEqual(list(await members.alive()), [])
        await fails(Unavailable, members.forward(account, b""))


class RecordsContract(Suite):
    """An engine is a `Records` if it passes."""

    async def build(self) -> Records:
        """A started, empty store whose clock `advance` moves; clean up by `addCleanup`."""
        raise NotImplementedError

    async def advance(self, seconds: float) -> None:
        """Let *seconds* go by on the store's clock."""
        raise NotImplementedError

    async def test_a_record_stays_until_it_is_replaced_or_deleted(self) -> None:
        records = await self.build()
        self.assertIsNone(await records.get("a", "zoë"))
        await records.put("a", "zoë", b"one")
        await records.put("a", "zoë", bytes(range(256)) * 256)
        self.assertEqual(await records.get("a", "zoë"), bytes(range(256)) * 256)
        self.assertIsNone(await records.get("b", "zoë"))
        await records.delete("b", "zoë")
        await records.delete("a", "zoë")
        await records.delete("a", "zoë")
        self.assertIsNone(await records.get("a", "zoë"))

    async def test_a_space_is_listed_by_key_in_pages(self) -> None:
        records = await self.build()
        for key in ("d", "a", "c", "b"):
            await records.put("space", key, key.upper().encode())
        await records.put("spacious", "e", b"")
        self.assertEqual(
            list(await records.list("space", limit=3)), [Record("a", b"A"), Record("b", b"B"), Record("c", b"C")]
        )
        self.assertEqual(list(await records.list("space", after="c")), [Record("d", b"D")])
        self.assertEqual(list(await records.list("space", after="d")), [])
        self.assertEqual(list(await records.list("nothing")), [])

    async def test_what_ran_out_is_not_seen_and_what_is_put_again_lives_anew(self) -> None:
        records = await self.build()
        await records.put("s", "brief", b"1", ttl=30)
        await records.put("s", "renewed", b"2", ttl=30)
        await records.put("s", "kept", b"3", ttl=30)
        await records.put("s", "kept", b"3")
        await self.advance(20)
        await records.put("s", "renewed", b"4", ttl=30)
        self.assertEqual(await records.get("s", "brief"), b"1")
        await self.advance(11)
        self.assertIsNone(await records.get("s", "brief"))
        self.assertEqual(list(await records.list("s")), [Record("kept", b"3"), Record("renewed", b"4")])
        await records.put("s", "brief", b"5", ttl=30)
        self.assertEqual(await records.get("s", "brief"), b"5")

    async def test_what_is_too_large_is_refused(self) -> None:
        records = await self.build()
        await fails(ValueError, records.put("s", "k", bytes(64 * 1024 + 1)))
        await fails(ValueError, records.put("s", "k" * 513, b""))
        await fails(ValueError, records.put("s", "", b""))
        self.assertEqual(list(await records.list("s")), [])


class SearchShardsContract(Suite):
    """An engine is a `SearchShards` if it passes."""

    async def build(self) -> SearchShards:
        """A started, empty store; clean up by `addCleanup`."""
        raise NotImplementedError

    def _document(self, received: int, **fields: str) -> SearchDocument:
        names = {"from_": "from"}
        return SearchDocument(MessageId.new(), {names.get(k, k): v for k, v in fields.items()}, received)

    async def test_messages_with_every_word_are_found_newest_first(self) -> None:
        shards, account = await self.build(), AccountId.new()
        one = self._document(1, subject="Quarterly report", body="numbers for Q3")
        two = self._document(2, subject="Lunch", body="the report is late")
        three = self._document(3, subject="Holiday", body="nothing here")
        await shards.add(account, [one, two, three], ModSeq(3))
        self.assertEqual(list(await shards.query(account, "report")), [two.message, one.message])
        self.assertEqual(list(await shards.query(account, "REPORT numbers")), [one.message])
        self.assertEqual(list(await shards.query(account, "report holiday")), [])
        self.assertEqual(list(await shards.query(account, "report", limit=1)), [two.message])
        self.assertEqual(list(await shards.query(AccountId.new(), "report")), [])

    async def test_a_search_can_be_kept_to_some_fields(self) -> None:
        shards, account = await self.build(), AccountId.new()
        one = self._document(1, subject="report", from_="ann")
        two = self._document(2, body="report by ann")
        await shards.add(account, [one, two], ModSeq(1))
        self.assertEqual(list(await shards.query(account, "report", ["subject"])), [one.message])
        self.assertEqual(list(await shards.query(account, "report ann", ["subject", "from"])), [one.message])
        self.assertEqual(list(await shards.query(account, "ann", ["subject"])), [])

    async def test_what_was_removed_is_not_found_and_adding_again_replaces(self) -> None:
        shards, account = await self.build(), AccountId.new()
        document = self._document(1, subject="first words")
        await shards.add(account, [document], ModSeq(1))
        await shards.add(account, [SearchDocument(document.message, {"subject": "other words"}, 1)], ModSeq(2))
        self.assertEqual(list(await shards.query(account, "first")), [])
        self.assertEqual(list(await shards.query(account, "words")), [document.message])
        await shards.remove(account, [document.message, MessageId.new()], ModSeq(3))
        self.assertEqual(list(await shards.query(account, "words")), [])

    async def test_a_shard_knows_how_far_it_has_come(self) -> None:
        shards, account = await self.build(), AccountId.new()
        self.assertEqual(await shards.reached(account), 0)
        await shards.add(account, [], ModSeq(5))
        await shards.remove(account, [], ModSeq(4))
        self.assertEqual(await shards.reached(account), 5)
        self.assertEqual(await shards.reached(AccountId.new()), 0)

    async def test_who_comes_late_with_what_was_there_brings_nothing_back(self) -> None:
        shards, account = await self.build(), AccountId.new()
        one, two = self._document(1, subject="words"), self._document(2, subject="words")
        await shards.add(account, [one], ModSeq(1))
        await shards.remove(account, [one.message], ModSeq(2))
        await shards.add(account, [one], ModSeq(1))
        await shards.add(account, [two], ModSeq(2))
        await shards.remove(account, [two.message], ModSeq(1))
        self.assertEqual(list(await shards.query(account, "words")), [two.message])
        self.assertEqual(await shards.reached(account), 2)

    async def test_who_goes_on_from_what_is_not_there_is_told(self) -> None:
        shards, account = await self.build(), AccountId.new()
        document = self._document(1, subject="words")
        await fails(Conflict, shards.add(account, [document], ModSeq(6), ModSeq(5)))
        await fails(Conflict, shards.remove(account, [document.message], ModSeq(6), ModSeq(1)))
        self.assertEqual((await shards.reached(account), list(await shards.query(account, "words"))), (0, []))
        await shards.add(account, [document], ModSeq(5), ModSeq(0))
        await shards.add(account, [self._document(2, subject="words")], ModSeq(6), ModSeq(5))
        await shards.add(account, [], ModSeq(6), ModSeq(5))
        await fails(Conflict, shards.add(account, [], ModSeq(8), ModSeq(7)))
        self.assertEqual((await shards.reached(account), len(await shards.query(account, "words"))), (6, 2))

    async def test_many_messages_that_come_in_parts_are_all_found(self) -> None:
        shards, account, other = await self.build(), AccountId.new(), AccountId.new()
        documents = [self._document(number, subject=f"part {number}", body="Grüße " * 20) for number in range(60)]
        for at in range(0, 60, 20):
            await shards.add(account, documents[at : at + 20], ModSeq(at + 20))
            await shards.add(other, [self._document(1, subject="part")], ModSeq(at + 1))
        await shards.remove(account, [document.message for document in documents[10:30]], ModSeq(61))
        newest_first = [document.message for document in (*documents[:29:-1], *documents[9::-1])]
        for words in ("part", "GRÜSSE", "grüße part", ""):
            self.assertEqual(list(await shards.query(account, words)), newest_first, words)
        self.assertEqual(list(await shards.query(account, "31")), [documents[31].message])
        self.assertEqual(list(await shards.query(account, "11")), [])
        self.assertEqual(len(await shards.query(other, "part")), 3)

    async def test_a_shard_that_was_dropped_is_an_empty_one(self) -> None:
        shards, account = await self.build(), AccountId.new()
        await shards.drop(account)
        await shards.add(account, [self._document(1, subject="words")], ModSeq(7))
        await shards.reached(account)
        await shards.drop(account)
        self.assertEqual((await shards.reached(account), list(await shards.query(account, "words"))), (0, []))
        document = self._document(1, subject="words")
        await shards.add(account, [document], ModSeq(2))
        self.assertEqual(await shards.reached(account), 2)
        self.assertEqual(list(await shards.query(account, "words")), [document.message])
