"""Lessons: who moves a message into Junk, or out of it, teaches the engines that judge mail, whatever the protocol.

The node that commits such a change notices it (`AccountService.notice`), writes a lesson down among the `Records`, where it
stays until it is learned, and teaches it; a lesson that a node left behind is found by the others. A message has one lesson
at a time, the last: who moves it back before it was taught has taught that. To teach twice is harmless, so nobody is locked
out. Between the change and the record lies a moment in which a crash loses the lesson, and nothing else.

What teaches: MOVE and COPY into the mailbox with \\Junk (spam) and out of it, but not into \\Trash (not spam); and the
keywords $Junk and $NotJunk (RFC 9051 section 2.3.2). What a delivery or APPEND puts into Junk does not.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_mail.account.columns import canonical_flag
from twisted_mail.account.entries import Entry, FlagChanged, MessagesAdded, unpack_uids
from twisted_mail.account.intents import ChangeFlags, CopyMessages, Intent
from twisted_mail.account.state import AccountState, Mailbox
from twisted_mail.filters.teaching import LESSON_BYTES, Teacher
from twisted_mail.filters.values import FilterDown
from twisted_mail.queueing.limits import TooSlow, within
from twisted_mail.services import Accounts
from twisted_mail.storage.interfaces import Directory, Records, StorageError
from twisted_mail.values import AccountId, MailboxId, MessageId, MessageKey

__all__ = ["Lesson", "Lessons", "lessons_of"]

SPACES: Final = 16
KEPT_SECONDS: Final = 7 * 86_400.0
"""After that a lesson that could not be taught is forgotten."""
SWEEP_SECONDS: Final = 60.0
OTHERS_SECONDS: Final = 300.0
"""A lesson older than that is taught by whoever finds it."""
AT_ONCE: Final = 200
"""Messages of one change that are taught: who moves a whole mailbox has said enough by then."""
WAITING: Final = 10_000
"""Lessons in memory; the oldest are left to what the records say."""
LESSON_SECONDS: Final = 120.0
_FLAGS: Final = {"$junk": True, "$notjunk": False}


@dataclass(frozen=True, slots=True)
class Lesson:
    """What was said about one message."""

    account: AccountId
    key: MessageKey
    spam: bool


class _Written(msgspec.Struct, frozen=True, array_like=True):
    account: bytes
    bucket: int
    message: bytes
    spam: bool
    noted: float
    """Seconds since 1970."""

    def lesson(self) -> Lesson:
        return Lesson(AccountId(self.account), MessageKey(self.bucket, MessageId(self.message)), self.spam)


@dataclass(slots=True)
class _Waiting:
    lesson: Lesson
    record: bytes
    written: bool


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(_Written)


def _is(mailbox: Mailbox | None, use: str) -> bool:
    return mailbox is not None and any(each.lower() == use for each in mailbox.special_use)


def lessons_of(account: AccountId, state: AccountState, intent: Intent[Any], entry: Entry) -> list[Lesson]:
    """What the change that *intent* made (*entry*, which *state* has applied) teaches."""
    found: list[Lesson] = []
    match intent:
        case CopyMessages():
            source, target = state.mailboxes.get(intent.mailbox), state.mailboxes.get(intent.target)
            into, out = _is(target, "\\junk"), _is(source, "\\junk")
            if into == out or (out and _is(target, "\\trash")):
                return []
            for change in entry.changes:
                if isinstance(change, MessagesAdded):
                    found += [
                        Lesson(account, MessageKey(each.bucket, MessageId(each.message)), into)
                        for each in change.messages[:AT_ONCE]
                    ]
        case ChangeFlags():
            for change in entry.changes:
                if (
                    isinstance(change, FlagChanged)
                    and (spam := _FLAGS.get(canonical_flag(change.flag).lower())) is not None
                ):
                    found += [Lesson(account, key, spam) for key in _flagged(state, change)]
    return found


def _flagged(state: AccountState, change: FlagChanged) -> Iterator[MessageKey]:
    mailbox = state.mailboxes.get(MailboxId(change.mailbox))
    if mailbox is None or mailbox.columns is None:
        return
    for uid in list(unpack_uids(change.set))[:AT_ONCE]:
        slot = mailbox.columns.slot_of(uid)
        if slot is not None:
            yield mailbox.columns.key(slot)


class Lessons:
    """Notices, remembers, and has lessons taught, one after the other."""

    _log = Logger()

    def __init__(
        self,
        records: Records,
        accounts: Accounts,
        directory: Directory,
        clock: Any,
        wall: Callable[[], float],
        *,
        daemons: Sequence[Teacher] = (),
        learners: Sequence[Teacher] = (),
    ) -> None:
        """*clock* provides IReactorTime. *daemons* know their users by address, *learners* (ours) by account."""
        self._records, self._accounts, self._directory = records, accounts, directory
        self._clock, self._wall = clock, wall
        self._daemons, self._learners = tuple(daemons), tuple(learners)
        self._waiting: OrderedDict[tuple[str, str], _Waiting] = OrderedDict()
        """By place among the records (space, key)."""
        self._idle: list[Deferred[None]] = []
        self._working: Deferred[None] | None = None
        self._timer: Any = None
        self._running = False
        self.taught = 0
        self.dropped = 0
        """Lessons about messages that are gone, and those that there was no room for."""
        self.failures = 0

    # --- what is noticed

    def notice(self, account: AccountId, state: AccountState, intent: Intent[Any], entry: Entry) -> None:
        """This node has committed *entry* (`AccountService.notice`)."""
        for lesson in lessons_of(account, state, intent, entry):
            place = _place(lesson)
            written = _Written(account.octets, lesson.key.bucket, lesson.key.id.octets, lesson.spam, self._wall())
            self._waiting[place] = _Waiting(lesson, _encoder.encode(written), False)
            self._waiting.move_to_end(place)
            if len(self._waiting) > WAITING:
                self._waiting.popitem(last=False)
                self.dropped += 1
        if self._waiting:
            self._work_soon()

    # --- its life

    def start(self) -> None:
        """From now on lessons are taught, those first that were left from before."""
        self._running = True
        self._timer = self._clock.callLater(1.0, self._sweep_soon, 0.0)
        self._work_soon()

    async def stop(self) -> None:
        """What was noticed is written down; the rest waits among the records."""
        self._running = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._working is not None:
            self._working.cancel()
        try:
            await self._write_all()
        except StorageError as error:
            self._log.warn("lessons could not be written down: {why}", why=str(error))

    async def idle(self) -> None:
        """Until nothing is being taught."""
        if self._working is not None:
            waiting: Deferred[None] = Deferred()
            self._idle.append(waiting)
            await waiting

    def _sweep_soon(self, older_seconds: float) -> None:
        self._work_soon(lambda: self._find(older_seconds))
        if self._running:
            self._timer = self._clock.callLater(SWEEP_SECONDS, self._sweep_soon, OTHERS_SECONDS)

    def _work_soon(self, first: Callable[[], Any] | None = None) -> None:
        """*first*: a coroutine function that is carried out before."""
        if self._running and self._working is None:
            self._working = working = Deferred.fromCoroutine(self._work(first))
            working.addBoth(self._ended)

    def _ended(self, result: object) -> None:
        self._working = None
        if isinstance(result, Failure) and not result.check(CancelledError):
            self._log.failure("teaching failed", result)
        idle, self._idle = self._idle, []
        for waiting in idle:
            waiting.callback(None)

    async def _work(self, first: Callable[[], Any] | None) -> None:
        await deferLater(self._clock, 0, lambda: None)  # not in the middle of a commit
        try:
            if first is not None:
                await first()
            await self._write_all()
            while self._waiting and self._running:
                place, waiting = next(iter(self._waiting.items()))
                self._waiting.move_to_end(place)  # one that always fails keeps nobody from learning
                await within(self._clock, LESSON_SECONDS, self._teach(waiting.lesson))
                if self._waiting.get(place) is waiting:
                    del self._waiting[place]
                    if await self._records.get(*place) == waiting.record:
                        await self._records.delete(*place)
                await self._write_all()
        except (StorageError, FilterDown, TooSlow) as error:
            # All wait for the next sweep: what is down for one lesson is for the next.
            self.failures += 1
            self._log.warn("lessons wait: {why}", why=str(error) or type(error).__name__)

    async def _find(self, older_seconds: float) -> None:
        """Lessons that were written down longer ago, by whomever, wait here from now on."""
        limit = self._wall() - older_seconds
        for number in range(SPACES):
            space = f"lessons/{number}"
            for record in await self._records.list(space):
                try:
                    written = _decoder.decode(record.value)
                    lesson = written.lesson()
                except (msgspec.MsgspecError, ValueError):
                    await self._records.delete(space, record.key)
                    continue
                if written.noted <= limit and (space, record.key) not in self._waiting and len(self._waiting) < WAITING:
                    self._waiting[space, record.key] = _Waiting(lesson, record.value, True)

    async def _write_all(self) -> None:
        for place, waiting in list(self._waiting.items()):
            if not waiting.written:
                await self._records.put(*place, waiting.record, KEPT_SECONDS)
                waiting.written = True

    async def _teach(self, lesson: Lesson) -> None:
        record = await self._directory.account(lesson.account)
        # (to open an account that was erased would make it anew)
        octets = await self._octets(lesson) if record is not None else None
        if record is None or octets is None:
            self.dropped += 1
            return
        for teacher, user in (
            *((each, str(lesson.account)) for each in self._learners),
            *((each, record.address) for each in self._daemons),
        ):
            await teacher.learn(octets, spam=lesson.spam, user=user)
        self.taught += 1
        self._log.debug(
            "{account} has taught that {message} {what} spam",
            account=lesson.account,
            message=lesson.key.id,
            what="is" if lesson.spam else "is not",
        )

    async def _octets(self, lesson: Lesson) -> bytes | None:
        """The beginning of the message; None: it is gone. Raises StorageError."""
        account = await self._accounts.open(lesson.account)
        try:
            async for rows in account.rows([lesson.key], ["preview"]):
                if rows and rows[0] is None:
                    return None
            return b"".join([chunk async for chunk in account.octets(lesson.key, 0, LESSON_BYTES)])
        finally:
            self._accounts.release(account)


def _place(lesson: Lesson) -> tuple[str, str]:
    number = hashlib.blake2b(lesson.account.octets, digest_size=1).digest()[0] % SPACES
    return f"lessons/{number}", f"{lesson.account}/{lesson.key.id}"
