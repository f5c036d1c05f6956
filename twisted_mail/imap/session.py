"""A session: the states of a connection, one command after the other, and what each answer ends with.

Octets come in by `receive`, answers go out through a `Sink`; `run` is the whole life of the connection. Nothing here
knows of sockets, timers or Twisted. Commands are carried out by the modules in `execute`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from twisted_mail.account.errors import OutcomeUnknown
from twisted_mail.account.state import Mailbox
from twisted_mail.imap import codes, registry, replies
from twisted_mail.imap.enabled import Enabled
from twisted_mail.imap.ended import Ended
from twisted_mail.imap.execute import EXECUTE, STREAMED, capabilities
from twisted_mail.imap.execute.types import sentence
from twisted_mail.imap.recent import Recents
from twisted_mail.imap.replies import Condition, bad, bye, no
from twisted_mail.imap.selected import Selected
from twisted_mail.imap.settings import Settings
from twisted_mail.imap.sink import Sink
from twisted_mail.imap.syntax import BadCommand, BadSyntax, State, Tagged
from twisted_mail.imap.wire import Wire
from twisted_mail.imap.wire_events import (
    CommandReceived,
    Event,
    Limits,
    Line,
    LineTooLong,
    LiteralAnnounced,
    Refused,
)
from twisted_mail.services import Account, Accounts, Authentication, Identity, Peer

__all__ = ["Session"]

NO_EXPUNGE: Final = frozenset((b"FETCH", b"STORE", b"SEARCH"))
"""Commands during which no EXPUNGE may be sent (RFC 9051 section 7.5.1)."""
LINE_BEFORE_LOGIN: Final = 8192
LITERAL_BEFORE_LOGIN: Final = 4096


class Session:
    """One connection's session (RFC 9051 section 3)."""

    def __init__(
        self,
        accounts: Accounts,
        authentication: Authentication,
        peer: Peer,
        sink: Sink,
        settings: Settings,
        recents: Recents,
        *,
        clock: Callable[[], float],
        hostname: str = "",
        tls_available: bool = False,
        log: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        """*clock*: seconds since 1970. *log* gets what is a defect of ours."""
        self.accounts = accounts
        self.authentication = authentication
        self.peer = peer
        self.sink = sink
        self.write = sink.write
        self.settings = settings
        self.recents = recents
        self.clock = clock
        self.hostname = hostname
        self.tls_available = tls_available
        self.log = log
        self.compressing = False
        self.state = State.NOT_AUTHENTICATED
        self.identity: Identity | None = None
        self.enabled = Enabled()
        self.modes = self.enabled.modes()
        self.view: Selected | None = None
        self.wire = Wire(Limits(line=LINE_BEFORE_LOGIN, literal=LITERAL_BEFORE_LOGIN))
        self.lost = False
        """The connection is gone: whatever fails from here on fails because of that."""
        self._account: Account | None = None
        self._unwatch: Callable[[], None] | None = None
        self._ending: Condition | None = None
        self._at_once = False
        self._refusal = bad("Refused")
        self._bad_in_a_row = 0

    # --- for the server

    def receive(self, data: bytes) -> None:
        """Take octets from the peer."""
        self.wire.receive(data)

    @property
    def buffered(self) -> int:
        """Octets received and not asked for yet."""
        return self.wire.buffered

    def end(self, condition: Condition, *, at_once: bool = False) -> None:
        """Say *condition* and end, when the command being carried out is finished; *at_once*: inside one, too, if it
        waits for the client."""
        self._ending = condition
        self._at_once = self._at_once or at_once
        self.sink.wake()

    async def run(self) -> None:
        """Greet, and carry out commands until the connection is to be closed."""
        try:
            self._greet()
            while self.state is not State.LOGOUT:
                await self._next_command()
                await self.sink.drained()
        except Ended as ended:
            if ended.condition is not None:
                self.write(ended.condition.untagged())
        finally:
            self.state = State.LOGOUT
            self.leave_account()

    # --- what commands use

    @property
    def account(self) -> Account:
        """The account that has logged in."""
        if self._account is None:
            raise RuntimeError("nobody has logged in")
        return self._account

    @property
    def selected(self) -> Selected:
        """The view of the selected mailbox."""
        if self.view is None:
            raise RuntimeError("no mailbox is selected")
        return self.view

    def capabilities(self) -> list[str]:
        """What CAPABILITY says in this state (RFC 9051 section 7.2.2)."""
        return capabilities(self)

    @property
    def quota_bytes(self) -> int | None:
        """What the account that is logged in may hold; None: no limit."""
        return self.identity.quota_bytes if self.identity is not None else None

    def enter_account(self, identity: Identity, account: Account) -> None:
        """Somebody has logged in."""
        self.identity, self._account = identity, account
        self.state = State.AUTHENTICATED
        self._unwatch = account.watch(self._changed)
        settings = self.settings
        self.wire.limits = Limits(
            line=settings.line_bytes,
            literal=settings.literal_bytes,
            command=max(settings.literal_bytes * 4, 1024 * 1024),
        )

    def leave_account(self) -> None:
        """Nobody is logged in any more: LOGOUT, UNAUTHENTICATE, or the connection has gone."""
        self.leave_mailbox()
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
        account, self._account = self._account, None
        if account is not None:
            self.accounts.release(account)
        self.identity = None
        self.enabled = Enabled()
        self.modes = self.enabled.modes()
        self.wire.limits = Limits(line=LINE_BEFORE_LOGIN, literal=LITERAL_BEFORE_LOGIN)

    def enter_mailbox(self, view: Selected) -> None:
        """A mailbox has been selected."""
        self.view = view
        self.state = State.SELECTED

    def leave_mailbox(self) -> None:
        """No mailbox is selected any more."""
        if self.view is not None:
            self.view.close()
            self.view = None
        if self.state is State.SELECTED:
            self.state = State.AUTHENTICATED

    def _changed(self, modseq: object) -> None:
        """The account has moved on: who waits in IDLE looks what it means."""
        view = self.view
        if view is not None and view.news:
            self.sink.wake()

    def enable_condstore(self) -> None:
        """By ENABLE or by using it (RFC 7162 section 3.1)."""
        self.enabled.condstore = True

    def name_in(self, name: str) -> str:
        """A mailbox name from the client, in the account's form. With ``.`` between levels the two separators change
        places, so that every name has one on either side."""
        return name if self.settings.separator == "/" else name.translate(_SWAP)

    def name_out(self, name: str) -> str:
        """The inverse of `name_in`."""
        return name if self.settings.separator == "/" else name.translate(_SWAP)

    def mailbox(self, name: str) -> Mailbox:
        """By the client's name for it. Raises NoSuchMailbox."""
        return self.account.state.mailbox(self.name_in(name))

    async def refresh(self) -> bool:
        """See what other nodes have done; False if the store does not answer."""
        try:
            await self.account.refresh()
        except Exception as error:
            if self.lost or not getattr(error, "temporary", False):
                raise
            return False
        return True

    async def tell_news(self, *, expunges: bool = True) -> None:
        """Unsolicited responses about the selected mailbox, if there are any."""
        view = self.view
        if view is None:
            return
        if expunges and view.superseded:
            try:
                await view.rebase(self.write, self.enabled)
            except Exception as error:
                if self.lost or not getattr(error, "temporary", False):
                    raise  # else the news wait until the store answers
        view.announce(self.write, self.enabled, expunges=expunges)

    # --- input

    async def wait(self) -> None:
        """Wait for the client, or for what `Sink.wake` means. Raises Ended."""
        await self.sink.wait()
        if self._ending is not None and self._at_once:
            raise Ended(self._ending)

    @property
    def ending(self) -> bool:
        """A command that waits for the client should come to its end."""
        return self._ending is not None

    async def next_event(self) -> Event:
        """The next thing the client says. Raises Ended."""
        while True:
            if self._ending is not None and self.wire.between_commands:
                raise Ended(self._ending)
            event = self.wire.next_event()
            if event is not None:
                return event
            await self.wait()

    async def next_line(self) -> bytes | None:
        """The next line that is not a command, None for one that is too long (AUTHENTICATE). Raises Ended."""
        while True:
            line = self.wire.next_line()
            if line is not None:
                return line.octets if isinstance(line, Line) else None
            if self._ending is not None:
                raise Ended(self._ending)
            await self.wait()

    def refuse_literal(self, condition: Condition) -> None:
        """Do not take the literal that was announced; *condition* is the command's answer."""
        self._refusal = condition
        self.wire.refuse_literal()

    def abort_literal(self, condition: Condition) -> None:
        """Let the rest of a streamed literal go past; *condition* is the command's answer."""
        self._refusal = condition
        self.wire.abort_literal()

    # --- commands

    def _greet(self) -> None:
        code = codes.capability(self.capabilities())
        self.write(replies.ok(f"{self.hostname} IMAP4 server ready".lstrip(), code).untagged())

    async def _next_command(self) -> None:
        event = await self.next_event()
        match event:
            case CommandReceived(line):
                await self.carry_out(registry.parse(line, self.modes))
            case LiteralAnnounced():
                await self._literal(event)
            case Refused(line):
                await self.finish(Tagged(registry.tag_of(line.text), b"", BadCommand(None, "")), self._refusal)
            case LineTooLong(start):
                await self.finish(Tagged(registry.tag_of(start), b"", BadCommand(None, "")), bad("Line too long"))
            case _:
                raise RuntimeError(f"unexpected {type(event).__name__}")

    async def _literal(self, event: LiteralAnnounced) -> None:
        tagged = registry.announced(event.line, event.size, self.modes)
        command = tagged.command
        stream = STREAMED.get(type(command))
        if isinstance(command, BadCommand):
            self.refuse_literal(bad(sentence(command.why)))
        elif self.state not in tagged.states:
            self.refuse_literal(bad("Not in this state"))
        elif stream is not None:
            await self._guarded(tagged, stream(self, tagged, event))
        elif event.allowed and event.fits:
            self.write(self.wire.accept_literal())
        else:
            self.refuse_literal(bad("The literal is too large", codes.TOOBIG))

    async def carry_out(self, tagged: Tagged) -> None:
        """One whole command, with its answer."""
        command = tagged.command
        if isinstance(command, BadCommand):
            await self.finish(tagged, bad(sentence(command.why)))
        elif self.state not in tagged.states:
            await self.finish(tagged, bad("Not in this state"))
        else:
            await self._guarded(tagged, EXECUTE[type(command)](self, tagged.tag or b"*", command))

    async def _guarded(self, tagged: Tagged, work: Awaitable[Condition | None]) -> None:
        """Await *work* and give its condition as the answer; errors by the one table (RFC 5530).

        *work* may give None: then the answer has been or will be given otherwise.
        """
        try:
            condition = await work
        except (Ended, OutcomeUnknown) as error:
            raise error if isinstance(error, Ended) else Ended(None)  # rule 7: no answer is better than a wrong one
        except BadSyntax as error:
            condition = bad(sentence(error.text))
        except Exception as error:
            if self.lost:
                raise
            condition = self.condition_for(error)
        if condition is not None:
            await self.finish(tagged, condition)

    def condition_for(self, error: Exception, *, target: bool = False) -> Condition:
        """How *error* is answered; what has no answer of its own is temporary, or a defect of ours, which is logged."""
        found = replies.condition_for(error, target=target)
        if found is not None:
            return found
        if getattr(error, "temporary", False):
            return no("The store does not answer, try again later", codes.UNAVAILABLE)
        self.log(error)
        return no("Internal error", codes.SERVERBUG)

    async def finish(self, tagged: Tagged, condition: Condition) -> None:
        """News of the selected mailbox, then the tagged answer."""
        view = self.view
        if view is not None:
            # of a command that could not be read it is not known whether it was one of those
            expunges = bool(tagged.name) and tagged.name not in NO_EXPUNGE
            await self.tell_news(expunges=expunges)
        self.write(condition.tagged(tagged.tag))
        if view is not None and view.gone and view is self.view:
            raise Ended(bye("The selected mailbox has been deleted"))
        if condition.kind != "BAD":
            self._bad_in_a_row = 0
            return
        self._bad_in_a_row += 1
        if 0 < self.settings.bad_commands <= self._bad_in_a_row:
            raise Ended(bye("Too many bad commands"))


_SWAP: Final = str.maketrans("/.", "./")
