"""Members over a real server: two nodes, one that is silent, one that leaves, one that does not answer."""

from __future__ import annotations

from typing import Any

from nats.errors import NoRespondersError
from twisted.internet.defer import Deferred

from tests.storage.nats.engines import NATSCase
from twisted_mail.storage.interfaces import Member, Refused, Unavailable
from twisted_mail.storage.memory.small import preferred
from twisted_mail.storage.nats import NATSEngine
from twisted_mail.storage.nats.members import ALIVE_SECONDS, MAX_UNANSWERED, OVERHEAD, NATSMembers
from twisted_mail.storage.testing.base import fails
from twisted_mail.values import AccountId


def account_of(node: str, *others: str) -> AccountId:
    """An account that prefers *node* to *others*."""
    while preferred(account := AccountId.new(), (node, *others)) != node:
        pass
    return account


class Served:
    """Answers at once, or when the test says so."""

    def __init__(self, name: bytes) -> None:
        self._name = name
        self.held: list[Deferred[bytes]] = []

    async def __call__(self, account: AccountId, request: bytes) -> bytes:
        if request == b"hold":
            self.held.append(Deferred())
            return await self.held[-1]
        if request == b"refuse":
            raise Refused("not now")
        if request == b"fail":
            raise KeyError("a mistake")
        if request == b"too much":
            return bytes(1024 * 1024)
        return self._name + b":" + request


class MembersTests(NATSCase):
    async def two(self, patience: float = 5.0) -> tuple[NATSEngine, NATSEngine, Served, Served]:
        """Nodes a and b, which have heard of each other."""
        a, b = await self.nats(), await self.nats()
        at_a, at_b = Served(b"a"), Served(b"b")
        for engine in (a, b):
            engine.members._patience = patience
        await a.members.join("a", frozenset({"smtp"}), at_a, "dc1")
        await b.members.join("b", frozenset({"imap"}), at_b, "dc2")
        for engine in (a, b):
            await self.see(engine.members, "a", "b")
        return a, b, at_a, at_b

    async def see(self, members: NATSMembers, *nodes: str) -> None:
        """Wait until *members* sees just those."""
        while [member.node for member in await members.alive()] != list(nodes):
            await self.turn(0.01)

    async def test_both_see_both_and_requests_come_to_the_owner(self) -> None:
        a, b, _, _ = await self.two()
        everybody = [Member("a", frozenset({"smtp"}), "dc1"), Member("b", frozenset({"imap"}), "dc2")]
        of_a, of_b = account_of("a", "b"), account_of("b", "a")
        for engine in (a, b):
            self.assertEqual(list(await engine.members.alive()), everybody)
            self.assertEqual(await engine.members.owner(of_a), "a")
            self.assertEqual(await engine.members.forward(of_a, b"x"), b"a:x")
            self.assertEqual(await engine.members.forward(of_b, b"y"), b"b:y")
            self.assertEqual(await engine.members.owner(of_a, "dc2"), "b")
            self.assertEqual(await engine.members.forward(of_a, b"z", "dc2"), b"b:z")

    async def test_who_comes_later_is_greeted_and_who_leaves_is_known_at_once(self) -> None:
        a, b, _, _ = await self.two()
        late = await self.nats()
        self.assertEqual([member.node for member in await late.members.alive()], ["a", "b"])
        await b.members.leave()
        for engine in (a, late):
            await self.see(engine.members, "a")
        self.assertEqual(await late.members.forward(account_of("b", "a"), b"x"), b"a:x")

    async def test_who_is_silent_is_gone_after_a_while(self) -> None:
        a, b, _, _ = await self.two()
        assert b.members._beating is not None
        b.members._beating.cancel()
        started, real = a._link.loop_time(), a._link.loop_time
        self.patch(a._link, "loop_time", lambda: real() + ALIVE_SECONDS - 1)  # type: ignore[no-untyped-call]  # of trial
        self.assertEqual(await a.members.owner(account_of("b", "a")), "b")
        self.patch(a._link, "loop_time", lambda: started + ALIVE_SECONDS + 1)  # type: ignore[no-untyped-call]
        self.assertEqual([member.node for member in await a.members.alive()], ["a"])

    async def test_what_goes_wrong_at_the_owner_is_unavailable_here(self) -> None:
        a, b, _, _ = await self.two()
        account = account_of("b", "a")
        for request, text in ((b"refuse", "not now"), (b"fail", "a mistake"), (b"too much", "too many")):
            for engine in (a, b):
                error = await fails(Unavailable, engine.members.forward(account, request))
                self.assertTrue(text in str(error), str(error))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 2)  # type: ignore[no-untyped-call]  # of trial
        self.assertEqual(await a.members.forward(account, b"x"), b"b:x")

    async def test_an_owner_that_does_not_answer_is_given_up_in_time(self) -> None:
        a, b, _, at_b = await self.two(patience=0.2)
        account = account_of("b", "a")
        for engine in (a, b):
            error = await fails(Unavailable, engine.members.forward(account, b"hold"))
            self.assertTrue("has not answered" in str(error), str(error))
        self.assertEqual([held.called for held in at_b.held], [False, False], "the work goes on")
        for held in at_b.held:
            held.callback(b"late")
        self.assertEqual(await a.members.forward(account, b"x"), b"b:x")

    async def test_an_owner_that_is_not_there_any_more_is_known_by_the_first_request(self) -> None:
        a, b, _, _ = await self.two()
        end, b.members._end_serving = b.members._end_serving, None
        me, b.members._self = b.members._self, None
        assert end is not None and me is not None
        await b._link.run(_ended(end))
        await a._link.run(_nobody_listens(a._link._ready, f"{a.members._prefix}.ask.{me.token}"))
        account = account_of("b", "a")
        error = await fails(Refused, a.members.forward(account, b"x"))
        self.assertTrue("b has gone" in str(error), str(error))
        self.assertEqual(await a.members.forward(account, b"x"), b"a:x")

    async def test_requests_have_bounds_in_size_and_number(self) -> None:
        a, _, _, at_b = await self.two()
        account = account_of("b", "a")
        most = a._link.max_payload - OVERHEAD
        await fails(Refused, a.members.forward(account, bytes(most + 1)))
        self.assertEqual(len(await a.members.forward(account, bytes(most - 2))), most)
        held = [Deferred.fromCoroutine(a.members.forward(account, b"hold")) for _ in range(MAX_UNANSWERED)]
        await fails(Refused, a.members.forward(account, b"x"))
        while len(at_b.held) < MAX_UNANSWERED:
            await self.turn(0.01)
        for each in at_b.held:
            each.callback(b"done")
        for waiting in held:
            self.assertEqual(await waiting, b"done")

    async def test_of_two_with_one_name_the_later_one_is_asked(self) -> None:
        a, b, _, _ = await self.two()
        await a.members.join("b", frozenset({"late"}), Served(b"other"))
        for engine in (a, b):
            while Member("b", frozenset({"late"})) not in await engine.members.alive():
                await self.turn(0.01)
            self.assertEqual(await engine.members.forward(AccountId.new(), b"x"), b"other:x")


async def _ended(end: Any) -> None:
    await end()


async def _nobody_listens(client: Any, subject: str) -> None:
    """Servers of a cluster tell each other a moment later that an interest has ended."""
    while True:
        try:
            await client.request(subject, b"", timeout=1)
        except NoRespondersError:
            return
        except TimeoutError:
            continue
