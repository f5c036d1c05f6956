"""All that a configuration says of where mail leaves from, read together: pools, streams, providers, warm-up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from twisted_mail.relay.blocks import Blocks
from twisted_mail.relay.plans import Plans
from twisted_mail.relay.pools import Pool, Pools, Providers, check, read_pools, read_providers
from twisted_mail.relay.streams import NORMAL, Stream, Streams
from twisted_mail.relay.tables import Wrong
from twisted_mail.relay.warm_up import WarmUpSettings
from twisted_mail.storage.interfaces import Allowances, Records

__all__ = ["Leaving"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Leaving:
    """Checked: streams name pools that exist, and an address is in one pool only."""

    pools: tuple[Pool, ...]
    streams: Streams
    providers: Providers
    warm_up: WarmUpSettings

    @classmethod
    def read(cls, relay: Mapping[str, object]) -> Leaving:
        """Of ``[relay]`` the tables ``pools``, ``streams``, ``providers`` and ``warm_up``, each of which may be missing; other
        keys are not looked at. Without streams, `normal` leaves by the first pool.

        Raises: Wrong, with all that is wrong.
        """
        problems: list[tuple[str, str]] = []

        def part(read: Callable[[object], T], name: str, default: T) -> T:
            try:
                return read(relay.get(name, {}))
            except Wrong as wrong:
                problems.extend(wrong.problems)
                return default

        none: list[Pool] = []
        pools = part(read_pools, "pools", none)
        providers = part(read_providers, "providers", Providers())
        warm_up = part(WarmUpSettings.read, "warm_up", WarmUpSettings())
        streams = Streams([Stream(NORMAL, (), suppress=False)])
        if pools:  # else every stream would name a pool that could not be read
            names = [pool.name for pool in pools]
            streams = part(lambda tables: Streams.read(tables, names, names[:1]), "streams", streams)
        if not problems:
            problems = check(pools, streams)
        if problems:
            raise Wrong(problems)
        return cls(tuple(pools), streams, providers, warm_up)

    def over(self, records: Records, allowances: Allowances) -> Pools:
        """What chooses addresses, on these stores."""
        plans = Plans(records, allowances, self.warm_up)
        return Pools(self.pools, self.streams, plans, Blocks(allowances), self.providers)
