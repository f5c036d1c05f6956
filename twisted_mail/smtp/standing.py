"""Whose mail a connection brings: that of who has logged in, of the account that its network submits as, or a stranger's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from twisted_mail.services import Authentication, Identity, Intake, Peer, Submitters
from twisted_mail.smtp.profiles import Profile
from twisted_mail.smtp.replies import Reply
from twisted_mail.smtp.visiting import Visiting

__all__ = ["LOG_IN", "Standing"]

LOG_IN: Final = Reply(530, "5.7.0", "Log in first")  # RFC 4954 section 6
NOT_YOURS: Final = Reply(550, "5.7.1", "This sender address is not yours")  # RFC 6409 section 6.1


class Standing:
    """The rules of one connection.

    On a submission listener a listed peer is asked for no login, and held to the sender addresses of its account. On SMTP it
    submits what it sends from such an address; anything else that it brings is a stranger's mail, and judged as such: other
    servers may live in the same network.
    """

    def __init__(
        self,
        profile: Profile,
        authentication: Authentication | None,
        submitters: Submitters | None,
        intake: Intake,
        failed: Callable[[BaseException], bool],
    ) -> None:
        self._profile = profile
        self._authentication = authentication
        self._submitters = submitters if not profile.lmtp else None
        self._intake = intake
        self._failed = failed
        self._visits_as = ""
        """As whose client the peer is looked at: ``submission`` or ``smtp``; empty: it is not known yet."""

    def listed(self, peer: Peer) -> bool:
        """It may submit without a login."""
        return self._submitters is not None and self._submitters.login_of(peer) is not None

    async def author(self, login: Identity | None, peer: Peer, address: str) -> Identity | Reply | None:
        """Whose mail it is that comes from *address* (empty: the null path), a refusal, or None: a stranger's."""
        if login is not None:
            return login if await self.may_send_as(login, address) else NOT_YOURS
        submits = self._profile.submission
        identity = await self._submitters.identity(peer) if self._submitters is not None else None
        if identity is None:
            return LOG_IN if submits else None
        if await self.may_send_as(identity, address):
            return identity
        return NOT_YOURS if submits else None

    async def may_send_as(self, identity: Identity, address: str) -> bool:
        """See `services.Authentication`."""
        rules = self._authentication or self._submitters
        return rules is not None and await rules.may_send_as(identity, address)

    def arrived(self, peer: Peer) -> Visiting:
        """*peer* has come. A listed one on SMTP is not looked at before it has said whose mail it brings."""
        self._visits_as = ""
        undecided = not self._profile.submission and self.listed(peer)
        return Visiting(None if undecided else self._intake.visit(peer), self._failed)

    async def visiting(
        self, visiting: Visiting, author: Identity | None, peer: Peer, helo: str, *, extended: bool
    ) -> tuple[Visiting, Reply | None]:
        """MAIL by *author*: who a listed peer on SMTP visits as is known now, and *visiting* may have to give way to another
        visit; with what that was refused for."""
        wanted = "submission" if author is not None else "smtp"
        if self._profile.submission or self._visits_as == wanted or not self.listed(peer):
            return visiting, None
        await visiting.closed()
        self._visits_as = ""
        made = Visiting(self._intake.visit(replace(peer, service=wanted)), self._failed)
        refusal = await made.connected()
        if refusal is None:
            refusal = await made.greeted(helo, peer, extended=extended)
        if refusal is None:
            self._visits_as = wanted
        return made, refusal
