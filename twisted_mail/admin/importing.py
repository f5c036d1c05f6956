"""Putting messages from files into an account, so that a run that was cut off can simply be done again.

What a mailbox has already, octet for octet and of the same date, is passed over: each message of the mailbox stands for
at most one message of the source. So a second run adds what the first did not, and duplicates within the source are
kept. A batch of messages is one entry: it is in the mailbox whole or not at all.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from twisted_mail.account.columns import SYSTEM_FLAGS
from twisted_mail.account.errors import MailboxExists
from twisted_mail.account.intents import AddMessages, NewMessage, new_message
from twisted_mail.account.rows import MAX_UNWRITTEN
from twisted_mail.account.state import Mailbox, check_mailbox_name
from twisted_mail.account.tree import CreateMailbox, Subscribe
from twisted_mail.services import Account, Accounts, PreparedMessage
from twisted_mail.values import MessageKey

__all__ = ["BATCH_BYTES", "BATCH_MESSAGES", "Importer", "Report", "SourceMessage", "ensure_mailbox", "usable_flags"]

T = TypeVar("T")

BATCH_MESSAGES = MAX_UNWRITTEN
"""A batch is committed at so many messages: an account writes so many rows together with the entry that names them."""
BATCH_BYTES: Final = 16 * 1024 * 1024
"""Or at so many octets of messages."""


MAX_KEYWORD: Final = 100
"""Characters of a keyword."""


class SourceMessage(Protocol):
    """A message in a file; its octets can be read more than once."""

    @property
    def name(self) -> str:
        """Where it lies, for messages to people."""

    @property
    def received(self) -> int:
        """Seconds since 1970."""

    @property
    def flags(self) -> tuple[str, ...]: ...

    @property
    def end(self) -> int:
        """Octets of the source that this message takes, for progress."""

    def octets(self) -> Iterator[bytes]:
        """With CRLF. Raises OSError."""


@dataclass(slots=True)
class Report:
    """What a run did."""

    imported: int = 0
    present: int = 0
    """Messages that the account had already."""
    octets: int = 0
    mailboxes: dict[str, int] = field(default_factory=dict)
    """Imported messages by mailbox; those with none are there too."""
    failed: list[dict[str, str]] = field(default_factory=list)
    """What could not be read or stored: ``source`` and ``reason``."""


class _Present:
    """The messages that a mailbox had when the run began, by date and size, each to be matched once."""

    def __init__(self, account: Account, mailbox: Mailbox) -> None:
        self._account = account
        self._keys: dict[tuple[int, int], list[MessageKey]] = {}
        self._dates: set[int] = set()
        columns = mailbox.columns
        if columns is not None:
            for slot in columns.live:
                received = columns.received[slot]
                self._dates.add(received)
                self._keys.setdefault((received, columns.sizes[slot]), []).append(columns.key(slot))

    async def take(self, message: SourceMessage) -> bool:
        """Whether *message* is one of them; that one is used up then. Raises OSError, StorageError."""
        if message.received not in self._dates:
            return False
        digest, size = hashlib.sha256(), 0
        for chunk in message.octets():
            digest.update(chunk)
            size += len(chunk)
        candidates = self._keys.get((message.received, size), [])
        for key in candidates:
            stored = hashlib.sha256()
            async for chunk in self._account.octets(key):
                stored.update(chunk)
            if stored.digest() == digest.digest():
                candidates.remove(key)
                return True
        return False


_NO_ATOM: Final = re.compile(r"[^!#$&'+,\-./0-9:;<=>?@A-Z\[^_`a-z|}~]")


def usable_flags(flags: Iterable[str]) -> tuple[str, ...]:
    """System flags, and keywords as IMAP can say them: what cannot be in an atom becomes ``_`` (RFC 9051 section 9)."""
    kept: dict[str, None] = {}
    for flag in flags:
        if flag.lower() in SYSTEM_FLAGS:
            kept[SYSTEM_FLAGS[flag.lower()]] = None
        elif keyword := _NO_ATOM.sub("_", flag.lstrip("\\"))[:MAX_KEYWORD]:
            kept[keyword] = None
    return tuple(kept)


async def ensure_mailbox(account: Account, name: str) -> Mailbox:
    """The mailbox *name*, created and subscribed where it is not there. Raises AccountError."""
    name = check_mailbox_name(name)
    if name not in account.state.by_name:
        try:
            await account.commit(CreateMailbox.of(name, int(time.time())))
        except MailboxExists:
            pass
        await account.commit(Subscribe(name=name))
    return account.state.mailbox(name)


class Importer:
    """One run into one account."""

    def __init__(
        self,
        accounts: Accounts,
        account: Account,
        *,
        quota_bytes: int | None = None,
        advanced: Callable[[int], None] = lambda octets: None,
    ) -> None:
        """*advanced* is told how many octets of the source are done."""
        self._accounts = accounts
        self._account = account
        self._quota = quota_bytes
        self._advanced = advanced
        self.report = Report()

    async def run(self, name: str, messages: Iterable[SourceMessage]) -> None:
        """Import *messages* into the mailbox *name*. What cannot be read is reported and passed over.

        Raises AccountError, StorageError: what was committed before stays.
        """
        mailbox = await ensure_mailbox(self._account, name)
        await self._account.columns(mailbox)
        self.report.mailboxes.setdefault(mailbox.name, 0)
        present = _Present(self._account, mailbox)
        batch: list[tuple[SourceMessage, tuple[str, ...], PreparedMessage]] = []
        size = 0
        for message in messages:
            try:
                if await present.take(message):
                    self.report.present += 1
                    self._advanced(message.end)
                    continue
                prepared = await self._prepare(message)
                batch.append((message, usable_flags(message.flags), prepared))
            except OSError as error:
                self.failed(message.name, str(error.strerror or error))
                self._advanced(message.end)
                continue
            size += prepared.size
            if len(batch) >= BATCH_MESSAGES or size >= BATCH_BYTES:
                await self._commit(mailbox, batch)
                batch, size = [], 0
        if batch:
            await self._commit(mailbox, batch)

    def failed(self, source: str, reason: str) -> None:
        """*source* could not be imported."""
        self.report.failed.append({"source": source, "reason": reason})

    async def _prepare(self, message: SourceMessage) -> PreparedMessage:
        writer = self._accounts.writer(self._account.id)
        try:
            for chunk in message.octets():
                await writer.write(chunk)
            return await writer.finish()
        except BaseException:
            await writer.abort()
            raise

    async def _commit(
        self, mailbox: Mailbox, batch: Sequence[tuple[SourceMessage, tuple[str, ...], PreparedMessage]]
    ) -> None:
        async def put(message: SourceMessage, flags: tuple[str, ...], prepared: PreparedMessage) -> NewMessage:
            return new_message(await self._account.store(prepared), message.received, 0, flags)

        # side by side, so that the rows share the store's commits; ids ascend in the batch's order all the same
        added = await _together([Deferred.fromCoroutine(put(*each)) for each in batch])
        await self._account.commit(
            AddMessages(mailbox=mailbox.id, messages=tuple(added), quota_bytes=self._quota)
        )
        for message, _, prepared in batch:
            self.report.imported += 1
            self.report.octets += prepared.size
            self.report.mailboxes[mailbox.name] += 1
            self._advanced(message.end)


async def _together(running: Sequence[Deferred[T]]) -> list[T]:
    """The results of all; when one fails, the others are waited for first. Raises what the first failure raises."""
    results: list[T] = []
    for _, value in await DeferredList(running, consumeErrors=True):
        if isinstance(value, Failure):
            value.raiseException()
        results.append(value)
    return results
