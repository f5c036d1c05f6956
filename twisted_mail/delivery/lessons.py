"""Lessons: who moves a message into Junk, or out of it, teaches the engines that judge mail, whatever the protocol.

The node that commits such a change notices it (`AccountService.notice`), writes a lesson down among the `Records`, where it
stays until it is learned, and teaches it; a lesson that a node left behind is found by the others. A message has one lesson
at a time, the last: who moves it back before it was taught has taught that. To teach twice is harmless, so nobody is locked
out. Between the change and the record lies a moment in which a crash loses the lesson, and nothing else.

What teaches: MOVE and COPY into the mailbox with \\Junk (spam) and out of it, but not into \\Trash (not spam); and the
keywords $Junk and $NotJunk (RFC 9051 section 2.3.2), or as clients spelt them before there was a standard, `SIGNS`. What a
delivery or APPEND puts into Junk does not. A client that marks a message and moves it too gives one lesson.

Who is taught: the engines that judged the message (`filters.judged_by`); all of them, where none did: what was APPENDed or
imported, what our own users sent, what came while they were all down. Our own learner hears every lesson.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_mail.account.entries import Entry, FlagChanged, MessagesAdded, unpack_uids
from twisted_mail.account.intents import ChangeFlags, CopyMessages, Intent
from twisted_mail.account.state import AccountState, Mailbox
from twisted_mail.filters.judged_by import JudgedBy, without_field
from twisted_mail.filters.teaching import LESSON_BYTES, Teacher
from twisted_mail.filters.values import FilterDown
from twisted_mail.queueing.limits import TooSlow, within
from twisted_mail.services import Accounts
from twisted_mail.storage.interfaces import Directory, Records, StorageError
from twisted_mail.values import AccountId, MailboxId, MessageId, MessageKey

__all__ = ["SIGNS", "Lesson", "Lessons", "lessons_of"]

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
SIGNS: Final[Mapping[str, bool]] = {
    "$junk": True,
    "$notjunk": False,
    "junk": True,
    "nonjunk": False,
    "notjunk": False,
}
"""Keywords (lower case), and whether they say spam: RFC 9051's two, Thunderbird's ``Junk`` and ``NonJunk``, and ``NotJunk``."""
SAME_SECONDS: Final = 60.0
"""Within which the same word about the same message is the same lesson: clients mark it and move it. (Each node knows only of
its own: who takes it back on another node, and then says it again here, within that time, is not heard.)"""


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
            found += _marked(account, state, entry)
    return found


def _marked(account: AccountId, state: AccountState, entry: Entry) -> Iterator[Lesson]:
    """Lessons of keywords that were changed.

    A message that has signs of both kinds is said nothing of (RFC 9051 section 2.3.2), until one of them goes: Thunderbird sets
    one and takes the other back with its next command.
    """
    signs = [each for each in entry.changes if isinstance(each, FlagChanged) and each.flag.lower() in SIGNS]
    mailbox = state.mailboxes.get(MailboxId(signs[0].mailbox)) if signs else None
    if mailbox is None or mailbox.columns is None:
        return
    columns = mailbox.columns
    changed = [(each.flag, set(unpack_uids(each.set)) | set(unpack_uids(each.cleared))) for each in signs]
    for uid in sorted(set().union(*(uids for _, uids in changed)))[:AT_ONCE]:
        slot = columns.slot_of(uid)
        if slot is None:
            continue
        after = {name for name, slots in columns.flags.items() if slot in slots and name.lower() in SIGNS}
        before = after.symmetric_difference(name for name, uids in changed if uid in uids)
        spam = _said(after)
        if spam is not None and spam != _said(before):
            yield Lesson(account, columns.key(slot), spam)


def _said(flags: Iterable[str]) -> bool | None:
    """What keywords say of a message; None: nothing, or both."""
    kinds = {SIGNS[flag.lower()] for flag in flags}
    return kinds.pop() if len(kinds) == 1 else None


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
        engines: Mapping[str, Teacher] | None = None,
        judged_by: JudgedBy | None = None,
        keywords: bool = True,
    ) -> None:
        """*clock* provides IReactorTime. *daemons* know their users by address, *learners* (ours) by account: both hear every
        lesson. *engines*, by the names that *judged_by* reads from a message, hear those about what they judged.
        *keywords*: whether they teach, or moves only."""
        self._keywords = keywords
        self._engines = dict(engines or {})
        self._judged_by = judged_by
        self._recent: OrderedDict[tuple[str, str], tuple[bool, float]] = OrderedDict()
        """What was taught a moment ago, and when (by the clock); the oldest first."""
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
        if isinstance(intent, ChangeFlags) and not self._keywords:
            return
        for lesson in lessons_of(account, state, intent, entry):
            place = _place(lesson)
            if self._known(place, lesson):
                continue
            written = _Written(account.octets, lesson.key.bucket, lesson.key.id.octets, lesson.spam, self._wall())
            self._waiting[place] = _Waiting(lesson, _encoder.encode(written), False)
            self._waiting.move_to_end(place)
            if len(self._waiting) > WAITING:
                self._waiting.popitem(last=False)
                self.dropped += 1
        if self._waiting:
            self._work_soon()

    def _known(self, place: tuple[str, str], lesson: Lesson) -> bool:
        """Whether the same was said a moment ago."""
        waiting = self._waiting.get(place)
        if waiting is not None:
            return waiting.lesson == lesson
        limit = self._clock.seconds() - SAME_SECONDS
        while self._recent and next(iter(self._recent.values()))[1] < limit:
            self._recent.popitem(last=False)
        recent = self._recent.get(place)
        return recent is not None and recent[0] is lesson.spam

    def _remember(self, place: tuple[str, str], spam: bool) -> None:
        self._recent[place] = (spam, self._clock.seconds())
        self._recent.move_to_end(place)
        if len(self._recent) > WAITING:
            self._recent.popitem(last=False)

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
                self._remember(place, waiting.lesson.spam)
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
        judges = await self._judged_by.judges_of(octets) if self._judged_by is not None else frozenset()
        octets = without_field(octets)
        judging = [each for name, each in self._engines.items() if not judges or name in judges]
        for teacher, user in (
            *((each, str(lesson.account)) for each in self._learners),
            *((each, record.address) for each in (*self._daemons, *judging)),
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
