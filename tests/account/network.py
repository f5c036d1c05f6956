"""Members between simulated nodes: what is forwarded arrives, or does not, as the test says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted_mail.storage.interfaces import Member, Refused, Unavailable
from twisted_mail.storage.memory.small import preferred
from twisted_mail.values import AccountId


class Network:
    """Everybody who has joined, over all data centres."""

    def __init__(self) -> None:
        self.joined: dict[str, tuple[Member, Callable[[AccountId, bytes], Any]]] = {}
        self.fate: Callable[[str, str], str] = lambda sender, receiver: "ok"
        """ok; refused (not sent); lost (never arrives); hidden (carried out, the answer is lost); late (carried out
        after it was given up: see `arrive`)."""
        self.sent: list[tuple[str, str, bytes]] = []
        self.late: list[tuple[str, AccountId, bytes]] = []
        self.rewrite: Callable[[bytes], bytes] = lambda request: request
        self.owner: str | None = None
        """Who owns every account, instead of by hash."""

    def end(self, node: str) -> NetworkMembers:
        """The members as *node* sees them."""
        return NetworkMembers(self, node)

    async def arrive(self) -> list[bytes]:
        """What was under way when its sender gave up is carried out now."""
        late, self.late = self.late, []
        return [await self.joined[receiver][1](account, request) for receiver, account, request in late]


class NetworkMembers:
    """Implements `Members`."""

    def __init__(self, network: Network, node: str) -> None:
        self.network, self.node = network, node

    async def join(
        self, node: str, roles: frozenset[str], serve: Callable[[AccountId, bytes], Any], datacenter: str = ""
    ) -> None:
        self.network.joined[node] = (Member(node, roles, datacenter), serve)

    async def leave(self) -> None:
        self.network.joined.pop(self.node, None)

    async def alive(self) -> Sequence[Member]:
        return [self.network.joined[node][0] for node in sorted(self.network.joined)]

    async def owner(self, account: AccountId, datacenter: str | None = None) -> str | None:
        nodes = [member.node for member in await self.alive() if datacenter in (None, member.datacenter)]
        return self.network.owner if self.network.owner in nodes else preferred(account, nodes)

    async def forward(self, account: AccountId, request: bytes, datacenter: str | None = None) -> bytes:
        network = self.network
        receiver = await self.owner(account, datacenter)
        if receiver is None:
            raise Refused("no node is alive")
        request = network.rewrite(request)
        fate = network.fate(self.node, receiver)
        if fate == "refused":
            raise Refused("too many requests are waiting")
        network.sent.append((self.node, receiver, request))
        if fate == "late":
            network.late.append((receiver, account, request))
        if fate in ("lost", "late"):
            raise Unavailable("no answer")
        answer: bytes = await network.joined[receiver][1](account, request)
        if fate == "hidden":
            raise Unavailable("no answer")
        return answer
