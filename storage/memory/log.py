"""The accounts' logs and checkpoints in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from twisted_mail.storage.interfaces import Checkpoint, Conflict, Corrupt, LogEntry, NewEntry, Trimmed
from twisted_mail.values import AccountId, EntryId, ModSeq

__all__ = ["MemoryAccountLog"]


@dataclass(slots=True)
class _Account:
    """What is kept of one account."""

    entries: list[LogEntry] = field(default_factory=list)
    trimmed: int = 0
    """Entries up to this one are gone; ``entries[0]`` is the next."""
    manifests: dict[int, dict[str, ModSeq]] = field(default_factory=dict)
    chunks: dict[tuple[str, int], bytes] = field(default_factory=dict)

    @property
    def head(self) -> int:
        return self.trimmed + len(self.entries)


class MemoryAccountLog:
    """Implements `AccountLog`."""

    def __init__(self) -> None:
        self._accounts: dict[AccountId, _Account] = {}

    def _account(self, account: AccountId) -> _Account:
        """For reading: an account that nobody wrote to is not remembered."""
        return self._accounts.get(account) or _Account()

    async def head(self, account: AccountId) -> ModSeq:
        return ModSeq(self._account(account).head)

    async def read(self, account: AccountId, after: ModSeq, limit: int | None = None) -> Sequence[LogEntry]:
        found = self._account(account)
        if after < found.trimmed:
            raise Trimmed(f"entries up to {found.trimmed} are gone")
        start = after - found.trimmed
        return found.entries[start : None if limit is None else start + limit]

    async def append(self, account: AccountId, expected: ModSeq, entries: Sequence[NewEntry]) -> ModSeq:
        found = self._accounts.setdefault(account, _Account())
        if found.head != expected:
            raise Conflict(f"the account stands at {found.head}")
        for number, entry in enumerate(entries, expected + 1):
            found.entries.append(LogEntry(ModSeq(number), entry.id, entry.data))
        return ModSeq(found.head)

    async def settle(self, account: AccountId, expected: ModSeq, ids: Sequence[EntryId]) -> bool:
        found = self._account(account)
        if expected < found.trimmed:
            raise Trimmed(f"entries up to {found.trimmed} are gone")
        start = expected - found.trimmed
        return [entry.id for entry in found.entries[start : start + len(ids)]] == list(ids)

    async def load_checkpoint(self, account: AccountId, chunks: Collection[str] | None) -> Checkpoint | None:
        found = self._account(account)
        if not found.manifests:
            return None
        modseq = max(found.manifests)
        manifest = found.manifests[modseq]
        wanted = manifest if chunks is None else [name for name in chunks if name in manifest]
        try:
            read = {name: found.chunks[name, manifest[name]] for name in wanted}
        except KeyError as error:
            raise Corrupt(f"checkpoint {modseq} names a chunk that is not there: {error}") from error
        return Checkpoint(ModSeq(modseq), dict(manifest), read)

    async def save_checkpoint(
        self,
        account: AccountId,
        previous: ModSeq,
        modseq: ModSeq,
        changed: Mapping[str, bytes],
        kept: Mapping[str, ModSeq],
    ) -> None:
        found = self._accounts.setdefault(account, _Account())
        newest = max(found.manifests, default=0)
        if newest != previous or modseq <= previous:
            raise Conflict(f"the newest checkpoint is {newest}")
        found.manifests[modseq] = {**kept, **dict.fromkeys(changed, modseq)}
        for name, data in changed.items():
            found.chunks[name, modseq] = data
        while len(found.manifests) > 2:
            del found.manifests[min(found.manifests)]
        named = {item for manifest in found.manifests.values() for item in manifest.items()}
        found.chunks = {key: data for key, data in found.chunks.items() if key in named}

    async def trim(self, account: AccountId, through: ModSeq) -> None:
        found = self._account(account)
        through = min(through, ModSeq(min(found.manifests, default=0)), ModSeq(found.head))
        if through > found.trimmed:
            del found.entries[: through - found.trimmed]
            found.trimmed = through

    async def start_at(self, account: AccountId, modseq: ModSeq, chunks: Mapping[str, bytes]) -> None:
        if self._account(account).head:
            raise Conflict(f"the account stands at {self._account(account).head}")
        begun = _Account(trimmed=modseq, manifests={modseq: dict.fromkeys(chunks, modseq)})
        begun.chunks = {(name, int(modseq)): data for name, data in chunks.items()}
        self._accounts[account] = begun

    async def erase(self, account: AccountId) -> None:
        self._accounts.pop(account, None)
