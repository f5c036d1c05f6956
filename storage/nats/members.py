"""Members by heartbeats: each node says once a second that it is there; who is silent for five has gone.

Nobody keeps a list but for oneself. While the servers are away everybody else seems to have gone, and each node works
alone: that costs company in commits, never correctness.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from os import urandom
from typing import Any, Final

from msgspec import MsgspecError, Struct, msgpack
from nats.aio.msg import Msg
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_mail.storage.interfaces import Member, Refused, Unavailable
from twisted_mail.storage.memory.small import preferred
from twisted_mail.storage.nats.link import Link, NobodyAnswers, ended
from twisted_mail.values import AccountId

__all__ = ["ALIVE_SECONDS", "BEAT_SECONDS", "MAX_UNANSWERED", "NATSMembers"]

BEAT_SECONDS: Final = 1.0
ALIVE_SECONDS: Final = 5.0
"""After its last heartbeat a node counts as alive for so long."""
GREETING_SECONDS: Final = 0.25
"""After its start a node waits so long for the others' answers to its greeting."""
MAX_UNANSWERED: Final = 256
"""Requests to one node from one other, and requests that one node works on."""
OVERHEAD: Final = 4096
"""Octets of a message that a request and an answer leave free."""

VERSION: Final = 1
GOOD, BAD = b"+", b"-"

Serve = Callable[[AccountId, bytes], Any]
"""Answers with an awaitable of octets."""


class _Beat(Struct, array_like=True, frozen=True):
    version: int
    token: str
    node: str
    roles: list[str]
    datacenter: str
    since: float
    leaves: bool = False


@dataclass(slots=True)
class _Heard:
    """A node, and when it was last heard of by asyncio's clock."""

    beat: _Beat
    at: float


class NATSMembers:
    """Implements `Members`."""

    _log = Logger()

    def __init__(self, link: Link, *, patience: float = 5.0) -> None:
        self._link = link
        self._prefix = f"{link.settings.prefix}.members"
        self._patience = patience
        """Seconds until a request that was not answered is given up."""
        self._heard: dict[str, _Heard] = {}
        """By token, without ourselves."""
        self._self: _Beat | None = None
        self._serve: Serve | None = None
        self._end_serving: Callable[[], Awaitable[None]] | None = None
        self._beating: asyncio.Task[None] | None = None
        self._greeted: asyncio.Event = asyncio.Event()
        self._answering: set[asyncio.Task[None]] = set()
        self._unanswered: dict[str, int] = {}

    async def start(self) -> None:
        """Within asyncio: listen, and ask who is there."""
        await self._link.subscribe(f"{self._prefix}.beat", self._beat_came)
        await self._link.subscribe(f"{self._prefix}.hello", self._hello_came)
        self._beating = self._link.spawn(self._beat())

    async def stop(self) -> None:
        """Within asyncio."""
        await self._leave()
        beating, self._beating = self._beating, None
        await ended(beating)

    async def join(self, node: str, roles: frozenset[str], serve: Serve, datacenter: str = "") -> None:
        await self._link.run(self._join(node, roles, serve, datacenter))

    async def _join(self, node: str, roles: frozenset[str], serve: Serve, datacenter: str) -> None:
        await self._leave()
        token = urandom(8).hex()
        self._serve = serve
        self._end_serving = await self._link.subscribe(f"{self._prefix}.ask.{token}", self._asked, gently=True)
        self._self = _Beat(VERSION, token, node, sorted(roles), datacenter, self._link.now())
        await self._say(self._self)

    async def leave(self) -> None:
        await self._link.run(self._leave())

    async def _leave(self) -> None:
        me, self._self = self._self, None
        end, self._end_serving = self._end_serving, None
        self._serve = None
        if me is not None:
            await self._say(_Beat(me.version, me.token, me.node, me.roles, me.datacenter, me.since, True))
        if end is not None:
            await end()
        answering = list(self._answering)
        if answering:
            await asyncio.wait(answering, timeout=1.0)

    # --- who is there

    async def alive(self) -> Sequence[Member]:
        await self._link.run(self._greeted.wait())
        beats = self._nodes().values()
        return sorted((Member(beat.node, frozenset(beat.roles), beat.datacenter) for beat in beats), key=_name)

    async def owner(self, account: AccountId, datacenter: str | None = None) -> str | None:
        if not self._greeted.is_set():
            await self._link.run(self._greeted.wait())
        return preferred(account, self._of(datacenter))

    def present(self, role: str) -> tuple[str | None, Sequence[str]]:
        """The node that this process is, and the nodes of its data centre that have *role*, by name. Never waits."""
        if self._self is None:
            return None, []
        beats = self._of(self._self.datacenter).values()
        return self._self.node, sorted(beat.node for beat in beats if role in beat.roles)

    def _of(self, datacenter: str | None) -> Mapping[str, _Beat]:
        nodes = self._nodes()
        if datacenter is None:
            return nodes
        return {node: beat for node, beat in nodes.items() if beat.datacenter == datacenter}

    def _nodes(self) -> Mapping[str, _Beat]:
        """By name; of two that go by one name it is the later one."""
        now = self._link.loop_time()
        for token in [token for token, heard in self._heard.items() if now - heard.at > ALIVE_SECONDS]:
            del self._heard[token]
        beats = [heard.beat for heard in self._heard.values()]
        if self._self is not None:
            beats.append(self._self)
        return {beat.node: beat for beat in sorted(beats, key=lambda beat: (beat.since, beat.token))}

    async def _beat(self) -> None:
        await self._link.publish(f"{self._prefix}.hello", b"")
        await asyncio.sleep(GREETING_SECONDS)
        self._greeted.set()
        while True:
            if self._self is not None:
                await self._say(self._self)
            await asyncio.sleep(BEAT_SECONDS)

    async def _say(self, beat: _Beat) -> None:
        await self._link.publish(f"{self._prefix}.beat", msgpack.encode(beat))

    async def _hello_came(self, message: Msg) -> None:
        if self._self is not None:
            await self._say(self._self)

    async def _beat_came(self, message: Msg) -> None:
        try:
            beat = msgpack.decode(message.data, type=_Beat)
        except MsgspecError:
            self._log.warn("a heartbeat is not understood")
            return
        if beat.version != VERSION or (self._self is not None and beat.token == self._self.token):
            return
        if beat.leaves:
            self._heard.pop(beat.token, None)
        else:
            self._heard[beat.token] = _Heard(beat, self._link.loop_time())

    # --- asking

    async def forward(self, account: AccountId, request: bytes, datacenter: str | None = None) -> bytes:
        """Have the owner serve *request*: this process by a plain call, another one over NATS.

        Raises: Refused (it was not received), Unavailable (whether it was carried out is not known).
        """
        if not self._greeted.is_set():
            await self._link.run(self._greeted.wait())
        if len(request) > self._link.max_payload - OVERHEAD:
            raise Refused(f"{len(request)} octets are too many for one request")
        nodes = self._of(datacenter)
        node = preferred(account, nodes)
        if node is None:
            raise Refused("no node is alive")
        beat = nodes[node]
        if self._self is not None and beat.token == self._self.token:
            answer = await self._link.run(self._by_ourselves(account, request, node))
        else:
            answer = await self._link.run(self._ask(beat, account, request))
        if answer[:1] != GOOD:
            raise Unavailable(answer[1:].decode("utf-8", "replace"))
        return answer[1:]

    async def _by_ourselves(self, account: AccountId, request: bytes, node: str) -> bytes:
        work = asyncio.ensure_future(self._answer(account, request))
        try:
            # who waits gives up, the work goes on
            return await asyncio.wait_for(asyncio.shield(work), self._patience)
        except TimeoutError:
            raise self._late(node) from None

    async def _ask(self, beat: _Beat, account: AccountId, request: bytes) -> bytes:
        if self._unanswered.get(beat.token, 0) >= MAX_UNANSWERED:
            raise Refused("too many requests are waiting")
        self._unanswered[beat.token] = self._unanswered.get(beat.token, 0) + 1
        try:
            where = f"{self._prefix}.ask.{beat.token}"
            answer = await self._link.ask(where, account.octets + request, self._patience)
        except NobodyAnswers as error:
            self._heard.pop(beat.token, None)
            raise Refused(f"{beat.node} has gone: {error}") from error
        except TimeoutError:
            raise self._late(beat.node) from None
        finally:
            self._unanswered[beat.token] -= 1
            if not self._unanswered[beat.token]:
                del self._unanswered[beat.token]
        return bytes(answer.data)

    def _late(self, node: str) -> Unavailable:
        return Unavailable(f"{node} has not answered within {self._patience:g} seconds")

    # --- answering

    async def _asked(self, message: Msg) -> None:
        """Started at once, answered in any order."""
        if len(self._answering) >= MAX_UNANSWERED:
            await self._link.publish(message.reply, BAD + b"too many requests are waiting")
            return
        task = self._link.spawn(self._reply(message))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _reply(self, message: Msg) -> None:
        try:
            answer = await self._answer(AccountId(message.data[:16]), message.data[16:])
        except ValueError as error:
            answer = BAD + str(error).encode()
        await self._link.publish(message.reply, answer)

    async def _answer(self, account: AccountId, request: bytes) -> bytes:
        serve = self._serve
        if serve is None:
            return BAD + b"the node is leaving"

        async def served() -> Any:
            return await serve(account, request)

        try:
            answer = await Deferred.fromCoroutine(served()).asFuture(asyncio.get_running_loop())
        except Unavailable as error:
            return BAD + str(error).encode()[:500]
        except Exception as error:
            self._log.failure("a request that was forwarded failed")
            return BAD + f"{type(error).__name__}: {error}".encode()[:500]
        if not isinstance(answer, bytes) or len(answer) > self._link.max_payload - OVERHEAD:
            return BAD + b"the answer has no octets or too many"
        return GOOD + answer


def _name(member: Member) -> str:
    return member.node
