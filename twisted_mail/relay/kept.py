"""Connections that wait for their next message."""

from __future__ import annotations

from collections.abc import Hashable

from twisted_mail.relay.connections import Client

__all__ = ["Kept"]


class Kept:
    """At most *most* idle connections by where they lead; each for *seconds*, then it leaves."""

    def __init__(self, most: int, seconds: float, leave_seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._leave_seconds = leave_seconds
        self._by_key: dict[Hashable, list[Client]] = {}
        self._keys: dict[Client, Hashable] = {}
        """In the order in which they were put here."""

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._by_key

    def take(self, key: Hashable) -> Client | None:
        """The one that was put here last, so that those that are too many run out of time."""
        clients = self._by_key.get(key)
        if not clients:
            return None
        client = clients[-1]
        self._forget(client)
        client.use()
        return client

    def put(self, key: Hashable, client: Client) -> None:
        """*client* has nothing to do; the oldest leaves, if there are too many now."""
        if not self._most:
            return client.leave(self._leave_seconds)
        if len(self._keys) >= self._most:
            oldest = next(iter(self._keys))
            self._forget(oldest)
            oldest.leave(self._leave_seconds)
        self._keys[client] = key
        clients = self._by_key.get(key)
        if clients is None:
            self._by_key[key] = [client]
        else:
            clients.append(client)
        client.keep(self._seconds, self._forget)
        return None

    def close(self) -> None:
        """All leave."""
        for client in list(self._keys):
            self._forget(client)
            client.leave(self._leave_seconds)

    def _forget(self, client: Client) -> None:
        key = self._keys.pop(client, None)
        clients = self._by_key.get(key)
        if clients is not None:
            clients.remove(client)
            if not clients:
                del self._by_key[key]
