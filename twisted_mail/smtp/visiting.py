"""What is asked about a connection at each step, and the replies that come of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted_mail.services import Identity, MailRefused, Peer, Recipient, Visit
from twisted_mail.smtp import commands as c
from twisted_mail.smtp.replies import Reply, refused

__all__ = ["Visiting"]


class Visiting:
    """A `Visit`, if there is one. Each step gives the reply to refuse with, or None.

    A visit that fails is a defect of ours: it costs the peer nothing but what *failed* makes of it, and mail goes on.
    """

    def __init__(self, visit: Visit | None, failed: Callable[[BaseException], bool]) -> None:
        self.visit = visit
        self.welcomed = visit is None
        """The greeting may be, or was, said."""
        self._failed = failed

    async def _refusal(self, step: Awaitable[None]) -> Reply | None:
        try:
            await step
        except MailRefused as error:
            return refused(error)
        except Exception as error:
            if self._failed(error):
                raise
        return None

    def spoken(self) -> None:
        """Octets came."""
        if not self.welcomed and self.visit is not None:
            self.visit.early()

    async def connected(self) -> Reply | None:
        """What is said instead of the greeting: 554 (RFC 5321 section 3.1) or 521 (RFC 7504); 421 to who may come back."""
        refusal = None if self.visit is None else await self._refusal(self.visit.connected())
        self.welcomed = True
        if refusal is not None and refusal.code not in (421, 521, 554):
            refusal = Reply(421 if refusal.temporary else 554, refusal.enhanced, refusal.text)
        return refusal

    async def greeted(self, helo: str, peer: Peer, *, extended: bool) -> Reply | None:
        """HELO, EHLO or LHLO."""
        return None if self.visit is None else await self._refusal(self.visit.greeted(helo, peer, extended=extended))

    async def sender(self, mail: c.Mail, identity: Identity | None) -> Reply | None:
        """MAIL."""
        if self.visit is None:
            return None
        return await self._refusal(
            self.visit.sender(
                mail.sender.text if mail.sender is not None else "",
                identity=identity,
                size=mail.size,
                body=mail.body,
                smtputf8=mail.smtputf8,
            )
        )

    async def recipient(self, recipient: Recipient) -> Reply | None:
        """RCPT that was accepted."""
        return None if self.visit is None else await self._refusal(self.visit.recipient(recipient))

    async def unknown(self, address: str) -> None:
        """RCPT for somebody who is not here."""
        if self.visit is not None:
            await self._refusal(self.visit.unknown(address))

    async def strange(self, line: bytes) -> Reply | None:
        """A command that is none."""
        return None if self.visit is None else await self._refusal(self.visit.strange(line.decode("utf-8", "replace")))

    async def ended(self) -> None:
        """The transaction is over."""
        if self.visit is not None:
            await self._refusal(self.visit.ended())

    async def closed(self) -> None:
        """The connection is gone."""
        visit, self.visit = self.visit, None
        if visit is not None:
            await self._refusal(visit.closed())
