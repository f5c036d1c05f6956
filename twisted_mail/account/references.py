"""Who needs a blob, as names of holders, and how a message comes to hold one.

A message row holds its blobs as ``m/<account>/<message id>``, a queue item as ``q/<delivery id>`` (all in hexadecimal).
Whoever needs a blob writes the reference first and then asks whether that generation is condemned; see `References`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from twisted_mail.storage.interfaces import References, Unavailable
from twisted_mail.values import AccountId, BlobRef, MessageId

__all__ = ["Claims", "claim", "hold", "holding_message", "message_holder"]


def message_holder(account: AccountId, message: MessageId) -> str:
    """The name under which a message row holds its blobs."""
    return f"m/{account}/{message}"


def holding_message(holder: str) -> tuple[AccountId, MessageId] | None:
    """Inverse of `message_holder`; None for a holder of another kind."""
    kind, _, rest = holder.partition("/")
    account, slash, message = rest.partition("/")
    if kind != "m" or not slash:
        return None
    try:
        return AccountId.parse(account), MessageId.parse(message)
    except ValueError:
        return None


async def claim(references: References, ref: BlobRef, holder: str) -> int:
    """Have *holder* need the content of *ref*; the generation under which it is to be stored. Raises StorageError.

    After a failure the reference may be there: `References.remove` belongs to what undoes it.
    """
    while True:
        await references.add(ref, holder)
        usable = await references.condemned(ref.hash)
        if usable <= ref.generation:
            return ref.generation
        await references.remove([ref], holder)
        ref = replace(ref, generation=usable)


async def hold(references: References, refs: Sequence[BlobRef], holder: str) -> None:
    """Have *holder* too need objects that are there. Raises StorageError; then nothing is held.

    Unavailable: one of them is on its way out, so that only storing the content again helps.
    """
    try:
        for ref in refs:
            await references.add(ref, holder)
            if await references.condemned(ref.hash) > ref.generation:
                raise Unavailable("a part of the message has been swept away while it waited")
    except BaseException:
        await references.remove(refs, holder)
        raise


class Claims:
    """The blobs of one message that is coming in, held in the name of the row that it will be.

    Without a holder nothing is held until the message is put somewhere (`hold` then finds out whether it still can be).
    """

    def __init__(self, references: References | None, holder: str | None) -> None:
        self._references = references
        self._holder = holder
        self._refs: dict[BlobRef, None] = {}

    async def generation(self, ref: BlobRef) -> int:
        """A `ChooseGeneration` for the writers of the message's blobs."""
        if self._references is None:
            return 0
        self._refs[ref] = None
        if self._holder is None:
            generation = await self._references.condemned(ref.hash)
        else:
            generation = await claim(self._references, ref, self._holder)
        if generation != ref.generation:
            del self._refs[ref]
            self._refs[replace(ref, generation=generation)] = None
        return generation

    async def give_back(self) -> None:
        """The message is given up: what was stored of it is listed as lost. Raises StorageError."""
        refs, self._refs = tuple(self._refs), {}
        if self._references is not None and refs:
            await self._references.remove(refs, self._holder or "m/aborted")
