"""One message on its way through a session: counted, checked, completed, handed on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from twisted_mail.services import Incoming, MailRefused, Outcome
from twisted_mail.smtp.completion import HeaderCompletion
from twisted_mail.smtp.replies import Reply, refused
from twisted_mail.smtp.wire import LineEnds

__all__ = ["BARE_LINE_ENDS", "FAILED", "Body"]

T = TypeVar("T")

FAILED = Reply(451, "4.3.0", "Local error, try again later")
TOO_LARGE = Reply(552, "5.3.4", "The message is larger than this server takes")
BARE_LINE_ENDS = Reply(550, "5.6.11", "Lines must end with CR LF; a CR or LF alone is not accepted")


class Body:
    """The message of one transaction.

    Once it is refused the rest is read and dropped, so that the connection stays in sync.
    """

    def __init__(
        self,
        incoming: Incoming,
        *,
        limit: int,
        line_ends: LineEnds | None,
        completion: HeaderCompletion | None,
        give_up: Callable[[BaseException], bool],
    ) -> None:
        self._incoming: Incoming | None = incoming
        self._limit = limit
        self._line_ends = line_ends
        self._completion = completion
        self._give_up = give_up
        self.size = 0
        """Octets that came."""
        self.refusal: Reply | None = None

    async def take(self, chunk: bytes) -> None:
        """The next octets of the message."""
        if not chunk or self.refusal is not None:
            return
        self.size += len(chunk)
        if self.size > self._limit:
            return await self.refuse(TOO_LARGE)
        if self._line_ends is not None:
            self._line_ends.feed(chunk)
            if self._line_ends.bare:
                return await self.refuse(BARE_LINE_ENDS)
        if self._completion is not None:
            await self._guarded(self._complete_and_write(self._completion, chunk))
        elif self._incoming is not None:
            await self._guarded(self._incoming.write(chunk))

    async def _complete_and_write(self, completion: HeaderCompletion, chunk: bytes) -> None:
        out = await completion.feed(chunk)
        if out and self._incoming is not None:
            await self._incoming.write(out)

    async def finish(self) -> Sequence[Outcome] | Reply:
        """The message has ended: what became of it, by recipient, or the one reply for all."""
        if self._line_ends is not None and self.refusal is None:
            self._line_ends.close()
            if self._line_ends.bare:
                await self.refuse(BARE_LINE_ENDS)
        if self._completion is not None and self.refusal is None:
            await self._guarded(self._write_rest(self._completion))
        if self.refusal is not None:
            return self.refusal
        incoming, self._incoming = self._incoming, None
        if incoming is None:
            return FAILED
        outcomes = await self._guarded(incoming.finish())
        return self.refusal if self.refusal is not None else outcomes or FAILED

    async def _write_rest(self, completion: HeaderCompletion) -> None:
        out = await completion.close()
        if out and self._incoming is not None:
            await self._incoming.write(out)

    async def refuse(self, reply: Reply) -> None:
        """Nothing of the message is wanted any more; *reply* is for its end."""
        self.refusal = reply
        await self.abort()

    async def abort(self) -> None:
        """Nothing of it stays."""
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            try:
                await incoming.abort()
            except Exception as error:
                if self._give_up(error):
                    raise

    async def _guarded(self, work: Awaitable[T]) -> T | None:
        """Do *work*; what goes wrong becomes the message's refusal."""
        try:
            return await work
        except MailRefused as error:
            await self.refuse(refused(error))
        except Exception as error:
            if self._give_up(error):
                raise
            await self.refuse(FAILED)
        return None
