"""Connections that wait for their next message."""

from __future__ import annotations

from collections.abc import Hashable

from twisted_mail.relay.connections import Client

__all__ = ["Kept", "Key"]


class Key:
    """Where a connection leads, and how. It is looked up some times for each message, so its hash is worked out once."""

    __slots__ = ("_hash", "_parts")

    def __init__(self, *parts: Hashable) -> None:
        self._parts = parts
        self._hash = hash(parts)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and self._parts == other._parts


class Kept:
    """At most *most* idle connections by where they lead; each for *seconds*, then it leaves."""

    def __init__(self, most: int, seconds: float, leave_seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._leave_seconds = leave_seconds
        self._by_key: dict[Key, list[Client]] = {}
        self._keys: dict[Client, Key] = {}
        """In the order in which they were put here."""

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: Key) -> bool:
        return key in self._by_key

    def take(self, key: Key) -> Client | None:
        """The one that was put here last, so that those that are too many run out of time."""
        clients = self._by_key.get(key)
        if not clients:
            return None
        client = clients[-1]
        self._forget(client)
        client.use()
        return client

    def put(self, key: Key, client: Client) -> None:
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
        if key is None:
            return
        clients = self._by_key[key]
        if len(clients) == 1:
            del self._by_key[key]
        else:
            clients.remove(client)
