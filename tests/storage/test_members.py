"""Members of one machine: two engines in one process, two processes, and one that is killed."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol

from tests.storage.engines import EngineCase
from tests.storage.test_processes import ProcessCase, Stranger
from twisted_mail.storage.interfaces import Member, Refused, Unavailable
from twisted_mail.storage.memory.small import preferred
from twisted_mail.storage.sqlite import SQLiteEngine
from twisted_mail.storage.sqlite.members import MAX_OCTETS, MAX_UNANSWERED
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
        self.held: dict[bytes, Deferred[bytes]] = {}
        self.came: list[tuple[AccountId, bytes]] = []

    async def __call__(self, account: AccountId, request: bytes) -> bytes:
        self.came.append((account, request))
        if request.startswith(b"hold"):
            self.held[request] = Deferred()
            if len(self.held) == 3:
                self.three.callback(None)
            return await self.held[request]
        if request == b"refuse":
            raise Refused("not now")
        if request == b"fail":
            raise KeyError("a mistake")
        if request == b"too much":
            return bytes(MAX_OCTETS + 1)
        return self._name + b":" + request

    three: Deferred[None]


class MembersCase(EngineCase):
    async def two(self, **options: Any) -> tuple[Path, SQLiteEngine, SQLiteEngine, Served, Served]:
        """Nodes a and b, in one process."""
        folder = self.folder()
        a, b = await self.sqlite(folder, **options), await self.sqlite(folder, **options)
        at_a, at_b = Served(b"a"), Served(b"b")
        at_b.three = Deferred()
        await a.members.join("a", frozenset({"smtp"}), at_a)
        await b.members.join("b", frozenset({"imap", "pop3"}), at_b)
        await self.advance(2)  # a list that was made before b was there is out of date now
        return folder, a, b, at_a, at_b


class TwoMemberTests(MembersCase):
    async def test_both_see_both_and_agree_on_the_owner(self) -> None:
        _, a, b, _, _ = await self.two()
        everybody = [Member("a", frozenset({"smtp"})), Member("b", frozenset({"imap", "pop3"}))]
        self.assertEqual(list(await a.members.alive()), everybody)
        self.assertEqual(list(await b.members.alive()), everybody)
        accounts = [AccountId.new() for _ in range(64)]
        owners = [await a.members.owner(account) for account in accounts]
        self.assertEqual(owners, [await b.members.owner(account) for account in accounts])
        self.assertEqual(set(owners), {"a", "b"})

    async def test_a_request_comes_to_the_owner_from_either(self) -> None:
        _, a, b, at_a, at_b = await self.two()
        of_a, of_b = account_of("a", "b"), account_of("b", "a")
        for engine in (a, b):
            self.assertEqual(await engine.members.forward(of_a, b"x"), b"a:x")
            self.assertEqual(await engine.members.forward(of_b, b"y"), b"b:y")
        self.assertEqual(at_a.came, [(of_a, b"x")] * 2)
        self.assertEqual(at_b.came, [(of_b, b"y")] * 2)

    async def test_requests_share_a_connection_and_are_answered_in_any_order(self) -> None:
        _, a, b, _, at_b = await self.two()
        account = account_of("b", "a")
        requests = [b"hold 1", b"hold 2", b"hold 3"]
        answers = [Deferred.fromCoroutine(a.members.forward(account, request)) for request in requests]
        await at_b.three
        assert b.members._serving is not None
        self.assertEqual(len(b.members._serving.connections), 1)
        for request in reversed(requests):
            at_b.held[request].callback(request[-1:])
            self.assertEqual(await answers[requests.index(request)], request[-1:])

    async def test_what_goes_wrong_at_the_owner_is_unavailable_here(self) -> None:
        _, a, b, _, _ = await self.two()
        account = account_of("b", "a")
        for request, text in ((b"refuse", "not now"), (b"fail", "a mistake"), (b"too much", "too many")):
            for engine in (a, b):  # over the socket, and by a plain call
                error = await fails(Unavailable, engine.members.forward(account, request))
                self.assertTrue(text in str(error), str(error))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 2)  # type: ignore[no-untyped-call]  # of trial
        self.assertEqual(await a.members.forward(account, b"x"), b"b:x")

    async def test_an_owner_that_does_not_answer_is_given_up_in_time(self) -> None:
        _, a, b, _, at_b = await self.two(patience=0.2)
        account = account_of("b", "a")
        for engine, request in ((a, b"hold 1"), (b, b"hold 2")):
            error = await fails(Unavailable, engine.members.forward(account, request))
            self.assertTrue("has not answered" in str(error), str(error))
            self.assertFalse(at_b.held[request].called)  # the work goes on
            at_b.held[request].callback(b"late")
        self.assertEqual(await a.members.forward(account, b"x"), b"b:x")

    async def test_requests_have_bounds_in_size_and_number(self) -> None:
        _, a, _, _, at_b = await self.two()
        account = account_of("b", "a")
        await fails(Refused, a.members.forward(account, bytes(MAX_OCTETS + 1)))
        self.assertEqual(len(await a.members.forward(account, bytes(MAX_OCTETS - 2))), MAX_OCTETS)
        held = [Deferred.fromCoroutine(a.members.forward(account, b"hold %d" % n)) for n in range(MAX_UNANSWERED)]
        await fails(Refused, a.members.forward(account, b"x"))
        await at_b.three
        while len(at_b.held) < MAX_UNANSWERED:
            await self.turn()
        for each in at_b.held.values():
            each.callback(b"done")
        self.assertEqual(await gatherResults(held), [b"done"] * MAX_UNANSWERED)
        self.assertEqual(await a.members.forward(account, b"x"), b"b:x")

    async def turn(self) -> None:
        done: Deferred[None] = Deferred()
        self.reactor.callLater(0, done.callback, None)
        await done

    async def test_who_leaves_is_seen_no_more_and_leaves_nothing(self) -> None:
        folder, a, b, _, at_b = await self.two()
        account = account_of("b", "a")
        pending = Deferred.fromCoroutine(a.members.forward(account, b"hold 1"))
        while not at_b.held:
            await self.turn()
        await b.members.leave()
        await fails(Unavailable, pending)
        # the connection has ended, so a knows without waiting for its list to run out
        self.assertEqual(await a.members.owner(account), "a")
        self.assertEqual(await a.members.forward(account, b"x"), b"a:x")
        self.assertEqual(await b.members.forward(account, b"x"), b"a:x")
        self.assertEqual([member.node for member in await b.members.alive()], ["a"])
        await a.stop()
        self.assertEqual(os.listdir(folder / "members"), [])
        await fails(Refused, a.members.forward(account, b"x"))
        await fails(Refused, a.members.join("a", frozenset(), at_b))

    async def test_who_joins_later_is_seen_within_a_second(self) -> None:
        folder = self.folder()
        a, b = await self.sqlite(folder), await self.sqlite(folder)
        account = account_of("b", "a")
        await a.members.join("a", frozenset(), Served(b"a"))
        self.assertEqual(await a.members.owner(account), "a")
        await b.members.join("b", frozenset(), Served(b"b"))
        await self.advance(1)
        self.assertEqual(await a.members.owner(account), "b")

    async def test_of_two_with_one_name_the_later_one_is_asked(self) -> None:
        _, a, b, _, _ = await self.two()
        await a.members.join("b", frozenset({"late"}), Served(b"other"))
        for engine in (a, b):
            self.assertEqual(list(await engine.members.alive()), [Member("b", frozenset({"late"}))])
            self.assertEqual(await engine.members.forward(AccountId.new(), b"x"), b"other:x")

    async def test_sockets_and_cards_are_their_owners_alone_and_paths_may_be_long(self) -> None:
        folder = self.folder() / ("long" * 30)
        a, b = await self.sqlite(folder), await self.sqlite(folder)
        await a.members.join("a", frozenset(), Served(b"a"))
        self.assertEqual(await b.members.forward(AccountId.new(), b"x"), b"a:x")
        self.assertEqual((folder / "members").stat().st_mode & 0o777, 0o700)
        modes = {path.suffix: path.stat().st_mode & 0o777 for path in (folder / "members").iterdir()}
        self.assertEqual(modes, {".card": 0o600, ".sock": 0o600})
        await a.members.leave()
        self.assertEqual(os.listdir(folder / "members"), [])

    async def test_what_is_no_frame_ends_that_connection_only(self) -> None:
        folder, a, b, _, _ = await self.two()
        assert b.members._serving is not None
        socket = folder / "members" / f"{b.members._serving.token}.sock"
        too_long = (1024 * 1024 + 1).to_bytes(4, "big")
        for noise in (
            b"GET / HTTP/1.1\r\n\r\n",
            too_long,
            b"\x00\x00\x00\x02ab",
            b"\x00\x00\x00\x05\x94\x01\x01\x01\x01",
        ):
            gone: Deferred[None] = Deferred()
            stranger = Stranger(gone)
            await connectProtocol(UNIXClientEndpoint(self.reactor, str(socket)), stranger)
            assert stranger.transport is not None
            stranger.transport.write(noise)
            await gone
        self.assertEqual(await a.members.forward(account_of("b", "a"), b"x"), b"b:x")

    async def test_cards_of_the_dead_of_strangers_and_half_made_ones_are_not_members(self) -> None:
        folder, a, _, _, _ = await self.two()
        members = folder / "members"
        good = next(path for path in members.iterdir() if path.suffix == ".card").read_bytes()
        for name in ("dead.card", "dead.sock", "old.new", "old.sock", "young.new"):
            (members / name).write_bytes(good)
        os.utime(members / "old.new", (1, 1))
        # held by a process of another version, and by one that writes nonsense
        for name, content in (("other.card", good.replace(b'"version":1', b'"version":2')), ("none.card", b"{")):
            (members / name).write_bytes(content)
            held = os.open(members / name, os.O_RDWR)
            self.addCleanup(os.close, held)
            fcntl.flock(held, fcntl.LOCK_EX)
        self.assertEqual([member.node for member in await a.members.alive()], ["a", "b"])
        there = set(os.listdir(members))
        self.assertEqual(there & {"dead.card", "dead.sock", "old.new", "old.sock"}, set())
        self.assertEqual(there & {"young.new", "other.card", "none.card"}, {"young.new", "other.card", "none.card"})

    async def test_a_folder_that_cannot_be_made_is_said(self) -> None:
        folder = self.folder()
        a = await self.sqlite(folder)
        (folder / "members").write_bytes(b"")
        await fails(Unavailable, a.members.alive())
        error = await fails(Exception, a.members.join("a", frozenset(), Served(b"a")))
        self.assertTrue("no member can be added" in str(error), str(error))


class KilledMemberTests(ProcessCase):
    async def test_when_a_process_is_killed_the_others_know(self) -> None:
        folder = self.folder()
        one, two = (self.spawn("tests.storage.second_member", folder, node) for node in ("one", "two"))
        await gatherResults([one.said(1), two.said(1)])
        engine = await self.sqlite(folder)
        members = engine.members
        self.assertEqual(list(await members.alive()), [Member(node, frozenset({"imap"})) for node in ("one", "two")])
        first, second = account_of("one", "two"), account_of("two", "one")
        self.assertEqual(await members.forward(first, b"x"), b"one:x")
        self.assertEqual(await members.forward(second, b"y"), b"two:y")

        pending = Deferred.fromCoroutine(members.forward(first, b"wait"))
        await one.said(2)
        assert one.transport is not None
        one.transport.signalProcess("KILL")
        error = await fails(Unavailable, pending)  # the patience is 5 s; this is the end of the connection
        self.assertTrue("has gone" in str(error), str(error))
        await one.ended
        self.assertEqual(list(await members.alive()), [Member("two", frozenset({"imap"}))])
        self.assertEqual(await members.owner(first), "two")
        self.assertEqual(await members.forward(first, b"z"), b"two:z")
        self.assertEqual(len(os.listdir(folder / "members")), 2)  # of the dead nothing is left

    async def test_an_owner_that_died_unseen_is_unavailable_once(self) -> None:
        folder = self.folder()
        one = self.spawn("tests.storage.second_member", folder, "one")
        await one.said(1)
        engine = await self.sqlite(folder)
        account = account_of("one", "here")
        await engine.members.join("here", frozenset(), Served(b"here"))
        self.assertEqual(await engine.members.owner(account), "one")
        engine.members._list_ends = float("inf")  # however slow this machine is, the list is not made anew
        assert one.transport is not None
        one.transport.signalProcess("KILL")
        await one.ended
        # nothing was connected that could have told: the dead one is still the owner
        started = self.reactor.seconds()
        error = await fails(Unavailable, engine.members.forward(account, b"x"))
        self.assertTrue("one has gone" in str(error), str(error))
        self.assertGreater(2.5, self.reactor.seconds() - started)
        self.assertEqual(await engine.members.owner(account), "here")
        self.assertEqual(await engine.members.forward(account, b"x"), b"here:x")
