"""Intents that travel: how they are written for another node, how that node carries them out, and what it answers.

Why forward at all. *Between data centres*: because only nodes of an account's home may append (`homes`). *Within one*:
because writers that contend for one account's head waste each other's rounds (sixteen of them, blindly: 33 rounds a
second, many of them ambiguous), while one committer that has company puts hundreds of entries into a round. Without
contention a local append is cheaper than a hop and an append elsewhere. So an intent goes to the account's owner when a
local append for that account met a conflict in the last `CONTENTION_SECONDS`, or others have appended since, and when the
owner is another node that is alive; after that many seconds of calm it is committed locally again.

**Exactly once.** An intent that is sent has an id, which its entry bears, and says where the log stood. Whoever is about to append
it first looks for that id above there; the append succeeds only on top of what was looked at. So the same intent may be under
way at two nodes (the answer was lost; the owner hangs, or has died half-way), and becomes one entry: who gave up waiting for
the owner commits it itself, or finds it in the log.

A request is one octet of version, then MessagePack. A node that does not understand it says so, and nothing was done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any, Final

import msgspec
import zstandard
from pyroaring import BitMap
from twisted.internet.task import deferLater
from twisted.logger import Logger

from twisted_mail.account import errors
from twisted_mail.account.buckets import ReserveBuckets, SwitchBuckets, TidyBuckets
from twisted_mail.account.delivering import Delivered, DeliverMessage
from twisted_mail.account.entries import pack_uids, unpack_uids
from twisted_mail.account.errors import AccountError, AccountUnavailable, OutcomeUnknown
from twisted_mail.account.homes import ClaimHome, MoveHome, NotHome
from twisted_mail.account.intents import (
    Added,
    AddMessages,
    ChangeFlags,
    Copied,
    CopyMessages,
    Expunge,
    FlagsChanged,
    Intent,
    Replaced,
    ReplaceMessage,
    SetSetting,
)
from twisted_mail.account.tree import (
    CreateMailbox,
    DeleteMailbox,
    Initialise,
    RenameMailbox,
    Subscribe,
)
from twisted_mail.storage.interfaces import Members, StorageError
from twisted_mail.storage.interfaces import Refused as StoreRefused
from twisted_mail.values import AccountId, MailboxId, ModSeq

if TYPE_CHECKING:
    from twisted_mail.account.service import AccountService

__all__ = [
    "CONTENTION_SECONDS",
    "MAX_REQUEST_BYTES",
    "RESULTS",
    "AlreadyStands",
    "Answer",
    "Done",
    "Elsewhere",
    "Forwarding",
    "NotDone",
    "NotUnderstood",
    "Standing",
    "TooLarge",
    "TurnedDown",
    "decode_result",
    "encode_result",
    "refusal_of",
]

VERSION: Final = 1
"""Of requests and answers. Goes up whenever an intent comes to mean something else."""
MAX_REQUEST_BYTES: Final = 1024 * 1024 - 4096
"""Of a request or an answer: what every engine of `Members` carries."""
CONTENTION_SECONDS: Final = 10.0
"""So long after a conflict an account counts as contended."""
ROWS_SECONDS: Final = 3.0
"""How long a forwarded delivery waits for its message's row to arrive from the other data centre."""

RESULTS: Final[dict[type[Intent[Any]], Any]] = {
    AddMessages: Added,
    ChangeFlags: FlagsChanged,
    ClaimHome: None,
    CopyMessages: Copied,
    CreateMailbox: MailboxId,
    DeleteMailbox: None,
    DeliverMessage: Delivered,
    Expunge: BitMap,
    Initialise: None,
    MoveHome: None,
    RenameMailbox: None,
    ReplaceMessage: Replaced,
    ReserveBuckets: tuple[int, ...],
    SetSetting: None,
    Subscribe: None,
    SwitchBuckets: bool,
    TidyBuckets: None,
}
"""Every intent that can travel, with the type of its result (a type to msgspec, hence Any)."""


class AlreadyStands(Exception):
    """The entry of a forwarded intent is in the log."""

    def __init__(self, modseq: ModSeq) -> None:
        super().__init__(f"it is entry {modseq}")
        self.modseq = modseq


class TooLarge(StoreRefused):
    """The intent is too large to be forwarded. Nothing was sent."""


# --- what goes over the wire --------------------------------------------------------------------------------------


class Commit(msgspec.Struct, frozen=True, array_like=True, tag="commit"):
    """Carry out an intent, here."""

    intent: msgspec.Raw
    since: int
    """Where the account stood when the intent was first sent: its delivery is not among the entries up to there."""
    datacenter: str
    """Where the message rows were written."""
    id: bytes
    """Of the intent; its entry is to bear it."""


class Reach(msgspec.Struct, frozen=True, array_like=True, tag="reach"):
    """Say how far you see the account's log."""


class Done(msgspec.Struct, frozen=True, array_like=True, tag="done"):
    """The entry stands (or there was nothing to do); `result` is the intent's."""

    modseq: int
    result: bytes


class Standing(msgspec.Struct, frozen=True, array_like=True, tag="standing"):
    """An earlier attempt has become the entry `modseq`. What came of it is for the asker to see, who has the intent."""

    modseq: int


class TurnedDown(msgspec.Struct, frozen=True, array_like=True, tag="refused"):
    """A `Refused` of `errors`: nothing was written."""

    modseq: int
    error: str
    text: str


class NotDone(msgspec.Struct, frozen=True, array_like=True, tag="not-done"):
    """The store did not answer; `unknown`: the entry was proposed, and may come to stand."""

    unknown: bool
    text: str


class Elsewhere(msgspec.Struct, frozen=True, array_like=True, tag="elsewhere"):
    """The account is at home in another data centre, as of entry `modseq`. Nothing was written."""

    modseq: int
    home: str


class NotUnderstood(msgspec.Struct, frozen=True, array_like=True, tag="not-understood"):
    """A request of another version. Nothing was done."""

    text: str


Answer = Done | Standing | TurnedDown | NotDone | Elsewhere | NotUnderstood


def _to_wire(value: Any) -> Any:
    """What msgspec does not know by itself; values of many types, hence Any."""
    if isinstance(value, BitMap):
        return pack_uids(value)
    if isinstance(value, range):
        return (value.start, value.stop)
    if isinstance(value, int):
        return int(value)
    raise NotImplementedError(type(value).__name__)


def _from_wire(kind: type, value: Any) -> Any:
    if kind is BitMap:
        return unpack_uids(value)
    if kind is range:
        return range(*value)
    if issubclass(kind, int):
        return kind(value)
    raise NotImplementedError(kind.__name__)


_encoder = msgspec.msgpack.Encoder(enc_hook=_to_wire)
_requests = msgspec.msgpack.Decoder(Commit | Reach)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)
_intents: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(reduce(or_, RESULTS), dec_hook=_from_wire)


def _sealed(message: msgspec.Struct) -> bytes:
    data = _encoder.encode(message)
    if len(data) > 65_536:
        return bytes((VERSION, 1)) + zstandard.ZstdCompressor(level=1).compress(data)
    return bytes((VERSION, 0)) + data


def _opened(data: bytes) -> bytes:
    """Raises ValueError."""
    if len(data) < 2 or data[0] != VERSION or data[1] > 1:
        raise ValueError(f"version {data[0] if data else 'none'}")
    if not data[1]:
        return data[2:]
    try:
        return zstandard.ZstdDecompressor().decompress(data[2:], max_output_size=64 * MAX_REQUEST_BYTES)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error


def encode_result(result: Any) -> bytes:
    """The result of any intent, hence Any."""
    return _encoder.encode(result)


def decode_result(intent: Intent[Any], data: bytes) -> Any:
    """Inverse of `encode_result`, for *intent*. Raises ValueError."""
    return msgspec.msgpack.decode(data, type=RESULTS[type(intent)], dec_hook=_from_wire)


def refusal_of(answer: TurnedDown) -> AccountError:
    """The same exception here; of a name that is not known here, a `Refused` with the text."""
    kind: Any = getattr(errors, answer.error, None) if answer.error in errors.__all__ else None
    if not isinstance(kind, type) or not issubclass(kind, errors.Refused):
        kind = errors.Refused
    refusal: AccountError = kind(answer.text)
    return refusal


# --- asking and serving -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Forwarding:
    """Both ends of forwarding, for one node."""

    service: AccountService
    members: Members
    node: str
    datacenter: str
    """Empty: there is only one."""

    _log = Logger()

    async def owner_elsewhere(self, account: AccountId) -> bool:
        """Whether another node of this data centre is the one that commits for *account*."""
        try:
            owner = await self.members.owner(account, self.datacenter or None)
        except StorageError:
            return False
        return owner is not None and owner != self.node

    async def ask(
        self, account: AccountId, intent: Intent[Any], id: bytes, since: int, datacenter: str | None
    ) -> Answer:
        """Have the owner in *datacenter* (None: there is only one) carry *intent* out. No entry up to *since* bears its *id*.

        Raises StoreRefused (it was not sent; `TooLarge` among them), Unavailable (the outcome is not known).
        """
        if type(intent) not in RESULTS:
            raise TooLarge(f"{type(intent).__name__} does not travel")
        request = Commit(msgspec.Raw(_encoder.encode(intent)), since, self.datacenter, id)
        return await self._ask(account, request, datacenter)

    async def reached(self, account: AccountId, datacenter: str) -> Answer:
        """How far a node of *datacenter* sees the log: `Done`, or `Elsewhere` while it does not take it for its own."""
        return await self._ask(account, Reach(), datacenter)

    async def _ask(self, account: AccountId, message: Commit | Reach, datacenter: str | None) -> Answer:
        request = _sealed(message)
        if len(request) > MAX_REQUEST_BYTES:
            raise TooLarge(f"{len(request)} octets are too many to be forwarded")
        answer = await self.members.forward(account, request, datacenter)
        try:
            return _answers.decode(_opened(answer))
        except (ValueError, msgspec.MsgspecError) as error:
            if len(answer) > 1 and answer[0] != VERSION:
                # another version answers everything that it does not understand in its own; it did nothing
                return NotUnderstood(str(error))
            return NotDone(unknown=True, text=f"the answer was not understood: {error}")

    async def serve(self, account: AccountId, data: bytes) -> bytes:
        """What another node forwarded. Never raises: whatever happens has an answer."""
        answer: Answer
        try:
            request = _requests.decode(_opened(data))
            intent = _intents.decode(request.intent) if isinstance(request, Commit) else None
        except (ValueError, msgspec.MsgspecError) as error:
            return _sealed(NotUnderstood(str(error)))
        try:
            opened = await self.service.open(account)
        except AccountError as error:
            return _sealed(NotDone(unknown=False, text=str(error)))
        try:
            if isinstance(request, Commit) and intent is not None:
                if request.datacenter != self.datacenter and not await self._rows_are_here(account, intent):
                    return _sealed(NotDone(unknown=False, text="the message has not arrived in this data centre yet"))
                result = encode_result(await opened.commit_here(intent, ModSeq(request.since), request.id))
                answer = Done(int(opened.state.modseq), result)
            else:
                modseq = int(await opened.refresh())
                home = opened.home
                answer = Done(modseq, b"") if home == self.datacenter else Elsewhere(modseq, home)
        except NotHome as moved:
            answer = Elsewhere(int(opened.state.modseq), moved.home)
        except AlreadyStands as found:
            answer = Standing(int(found.modseq))
        except errors.Refused as refused:
            answer = TurnedDown(int(opened.state.modseq), type(refused).__name__, str(refused))
        except AccountUnavailable as error:
            answer = NotDone(unknown=False, text=str(error))
        except OutcomeUnknown as error:
            answer = NotDone(unknown=True, text=str(error))
        except Exception as error:  # a defect: what it left behind is not known
            self._log.failure("a forwarded intent failed")
            answer = NotDone(unknown=True, text=f"{type(error).__name__}: {error}")
        finally:
            self.service.release(opened)
        sealed = _sealed(answer)
        if len(sealed) > MAX_REQUEST_BYTES:
            sealed = _sealed(NotDone(unknown=True, text="it was carried out, but what came of it is too long to tell"))
        return sealed

    async def _rows_are_here(self, account: AccountId, intent: Intent[Any]) -> bool:
        """Rows before entries holds over data centres too: those that were written in another one have arrived."""
        keys = list(intent.new_keys())
        ends = self.service.clock.seconds() + ROWS_SECONDS
        wait = 0.02
        while keys:
            missing = []
            try:
                at = iter(keys)
                async for batch in self.service.store.rows(account, keys, ("facts",)):
                    missing += [key for cells in batch if (key := next(at)) and cells is None]
            except StorageError:
                missing = keys
            if missing and self.service.clock.seconds() >= ends:
                return False
            keys = missing
            if keys:
                nothing: Callable[[], None] = lambda: None  # noqa: E731  # what deferLater calls
                await deferLater(self.service.clock, wait, nothing)
                wait = min(wait * 2, 0.5)
        return True
