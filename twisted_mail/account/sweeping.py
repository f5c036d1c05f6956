"""The sweeper: takes blobs that lost their last reference out of the object store, in proportion to how many there are.

An object that is listed as lost and that nobody holds is condemned: nobody new may use that generation. How long ago
says a mark, a holder ``s/<seconds since 1970>`` that is written after the condemnation. Once every deadline of a commit
has passed since, the holders are read again; if there are still none but marks, the object goes. All there is to know
lies in the store, so a sweeper may be stopped anywhere, and two at once do no harm; the lease only saves work.

Why nothing goes that is needed: who needs an object writes a reference and *then* asks whether it is condemned. Was it
not, the reference is older than the condemnation, and the second look at the holders sees it. Was it, they take the
next generation. A condemned generation that turns out to be held is kept for those who hold it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from twisted.logger import Logger

from twisted_mail.account.errors import AccountError
from twisted_mail.storage.interfaces import Blobs, Leases, References, StorageError
from twisted_mail.values import AccountId, BlobRef

if TYPE_CHECKING:
    from twisted_mail.account.service import AccountService

__all__ = ["SweepSettings", "Sweeper", "Swept", "is_mark", "sweep_accounts"]

LEASE: Final = "sweep:blobs"
_HOLDERS: Final = 64
"""Holders that are looked at; there are never that many marks."""
_IN_A_ROW: Final = 10
"""Failures in a row after which the store is taken to be down."""


@dataclass(frozen=True, slots=True)
class SweepSettings:
    """How careful the sweeper is."""

    wait_seconds: float = 3600.0
    """Between condemning an object and deleting it: longer than any commit may take."""
    margin_seconds: float = 600.0
    """What was listed later than this ago is left for another time: clocks of nodes may disagree by less than that."""
    lease_seconds: float = 120.0


@dataclass(slots=True)
class Swept:
    """What one pass did, in objects."""

    listed: int = 0
    kept: int = 0
    """Somebody holds them after all."""
    condemned: int = 0
    waiting: int = 0
    """Condemned not long enough ago."""
    deleted: int = 0
    deleted_bytes: int = 0
    failed: int = 0


def _mark(now: float) -> str:
    return f"s/{int(now)}"


def is_mark(holder: str) -> bool:
    """Whether *holder* is no holder, but says when the sweeper condemned the object."""
    return holder.startswith("s/") and holder[2:].isdigit()


class Sweeper:
    """Goes through what has lost references. `run_once` is one pass; call it every half hour or so."""

    _log = Logger()

    def __init__(
        self,
        references: References,
        blobs: Blobs,
        leases: Leases,
        *,
        clock: Any,
        wall: Callable[[], float],
        settings: SweepSettings | None = None,
    ) -> None:
        # clock provides IReactorTime: seconds() ascends whatever happens to the wall clock
        self._references = references
        self._blobs = blobs
        self._leases = leases
        self._clock = clock
        self._wall = wall
        self._settings = settings or SweepSettings()

    async def run_once(self, progress: Callable[[Swept], None] | None = None) -> Swept | None:
        """One pass over what is listed; None if another sweeper is at work. Raises StorageError when the store is down.

        *progress* is told after each object.
        """
        ttl = self._settings.lease_seconds
        asked = self._clock.seconds()
        number = await self._leases.acquire(LEASE, ttl)
        if number is None:
            return None
        swept, in_a_row = Swept(), 0
        until = self._wall() - self._settings.margin_seconds
        before: BlobRef | None = None
        try:
            async for ref in self._references.lost(until):
                if ref == before:
                    continue
                before = ref
                now = self._clock.seconds()
                if now > asked + ttl / 3:
                    if now > asked + ttl * 0.9 or not await self._leases.renew(LEASE, number, ttl):
                        break
                    asked = now
                swept.listed += 1
                try:
                    await self._look_at(ref, until, swept)
                    in_a_row = 0
                except StorageError as error:
                    swept.failed += 1
                    in_a_row += 1
                    if in_a_row >= _IN_A_ROW:
                        raise
                    self._log.warn("sweeping {ref}: {why}", ref=ref, why=error)
                if progress is not None:
                    progress(swept)
        finally:
            try:
                await self._leases.release(LEASE, number)
            except StorageError:
                self._log.warn("the lease of the sweeper could not be released")
        return swept

    async def _look_at(self, ref: BlobRef, until: float, swept: Swept) -> None:
        references = self._references
        condemned = await references.condemned(ref.hash) > ref.generation
        # after that question: who was not told that it is condemned is among these
        holders = await references.holders(ref, _HOLDERS)
        marks = [holder for holder in holders if is_mark(holder)]
        if len(marks) < len(holders) or len(holders) >= _HOLDERS:
            # a mark stays, if there is one: when the last holder goes it has waited long enough
            await references.settled(ref, until)
            swept.kept += 1
        elif not condemned or not marks:
            await references.condemn(ref)
            await references.add(ref, _mark(self._wall()))
            swept.condemned += 1
        elif max(int(mark[2:]) for mark in marks) + self._settings.wait_seconds > self._wall():
            swept.waiting += 1
        else:
            await self._blobs.delete(ref)
            for mark in marks:
                await references.remove([ref], mark)
            # which has listed it again; nobody can have begun to use it meanwhile
            await references.settled(ref, self._wall() + self._settings.margin_seconds)
            swept.deleted += 1
            swept.deleted_bytes += ref.size


async def sweep_accounts(
    service: AccountService, accounts: AsyncIterator[AccountId]
) -> AsyncIterator[tuple[AccountId, int, str]]:
    """Sweep the rows of *accounts*, also of those that nobody opens any more, before the sweeper of blobs: for each how
    many rows went, and what went wrong (empty: nothing). An account that is at home elsewhere is swept there."""
    async for id in accounts:
        removed, trouble = 0, ""
        try:
            account = await service.open(id)
            try:
                if account.elsewhere() is None:
                    await account.checkpoint()
                    removed = await account.sweep()
            finally:
                service.release(account)
        except (AccountError, StorageError) as error:
            trouble = str(error)
        yield id, removed, trouble
