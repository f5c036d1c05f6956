"""The protocol itself: octets in, octets out, effects awaited; no socket, no clock, no Twisted.

Whoever drives it calls `receive` with what came, awaits `advance` (one at a time), and sends `take_output`. What is
long goes through *push* meanwhile, which waits while the peer does not read. When `tls_requested` is set after that,
the handshake follows, then `tls_started`; when `closing`, the connection ends. `abandon` comes last, always.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Final

from twisted_mail.account.errors import AccountError, OutcomeUnknown
from twisted_mail.pop3.login import LastLogins, SASLExchange
from twisted_mail.pop3.maildrop import Maildrop
from twisted_mail.pop3.parser import BadCommand, Command, parse_command
from twisted_mail.pop3.replies import IN_USE, LOGIN_DELAY, SYSTEM, err, login_failed, ok
from twisted_mail.pop3.settings import Settings
from twisted_mail.pop3.states import VALID, State
from twisted_mail.pop3.wire import END, Head, Input, LineFault, Stuffed
from twisted_mail.services import (
    Account,
    Accounts,
    Authentication,
    AuthenticationFailed,
    Exclusive,
    Identity,
    Peer,
    Reading,
)

__all__ = ["Session"]

_NO_MESSAGE: Final = err("there is no such message")


class Session:
    """One connection. *log* is told of failures that the peer only learns as [SYS/TEMP]."""

    def __init__(
        self,
        accounts: Accounts,
        authentication: Authentication,
        peer: Peer,
        settings: Settings,
        hostname: str,
        push: Callable[[bytes], Awaitable[None]],
        *,
        last_logins: LastLogins,
        tls_available: bool = False,
        log: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self._accounts = accounts
        self._authentication = authentication
        self._peer = peer
        self._settings = settings
        self._hostname = hostname
        self._push = push
        self._last_logins = last_logins
        self._tls_available = tls_available
        self._log = log
        self._input = Input()
        self._output = bytearray()
        self._state = State.AUTHORIZATION
        self._user = ""
        self._sasl: SASLExchange | None = None
        self._bad = 0
        self._failed_logins = 0
        self._left = False
        self._lock: Exclusive | None = None
        self._account: Account | None = None
        self._maildrop: Maildrop | None = None
        self.identity: Identity | None = None
        """Who has logged in."""
        self.tls_requested = False
        self.closing = False
        self.updating = False
        """QUIT is removing messages: this is not to be interrupted."""

    # --- driven from outside

    @property
    def waiting(self) -> int:
        """Octets of input that were not used yet."""
        return len(self._input)

    def greet(self) -> None:
        """The first line. It has no timestamp in angle brackets: APOP is not offered (RFC 1939 section 7)."""
        self._output += ok(f"{self._hostname} POP3 server ready")

    def receive(self, data: bytes) -> None:
        """Take octets. What comes behind STLS before the handshake, or behind QUIT, is thrown away."""
        if not (self.tls_requested or self.closing):
            self._input.feed(data)

    def take_output(self) -> bytes:
        """What is to be sent."""
        output = bytes(self._output)
        self._output.clear()
        return output

    async def advance(self) -> None:
        """Carry out every command that has come whole, in order."""
        while not (self.closing or self.tls_requested or self._left):
            sasl = self._sasl is not None
            line = self._input.line(self._settings.auth_line_bytes if sasl else self._settings.line_bytes)
            if line is None:
                return
            if isinstance(line, LineFault):
                self._too_long(line)
            elif sasl:
                await self._sasl_line(line)
            else:
                await self._line(line)
            if len(self._output) >= self._settings.output_bytes:
                await self._push(self.take_output())

    def tls_started(self, peer: Peer) -> None:
        """The handshake is done; everything that was said before is forgotten (RFC 2595 section 4)."""
        self._peer = peer
        self._input.clear()
        self._user = ""
        self.tls_requested = False

    def leave(self) -> None:
        """The connection has gone, or is to go: whatever is interrupted now is no failure."""
        self._left = True

    def drain(self) -> bool:
        """The server is to end. Says whether the session ends at once: whoever has logged in may finish."""
        if self._state is State.TRANSACTION or self.closing:
            return self.closing
        self._output += err("the server is shutting down", SYSTEM)
        self.closing = True
        return True

    async def abandon(self) -> None:
        """Give everything back. Without QUIT nothing is deleted (RFC 1939 section 6)."""
        self.leave()
        maildrop, self._maildrop = self._maildrop, None
        if maildrop is not None:
            maildrop.close()
        account, self._account = self._account, None
        if account is not None:
            self._accounts.release(account)
        lock, self._lock = self._lock, None
        if lock is not None:
            await lock.release()

    # --- lines

    def _too_long(self, fault: LineFault) -> None:
        self._sasl = None
        if fault is LineFault.ENDLESS:
            self.closing = True
            return
        self._refuse(err("the line is too long"))

    def _refuse(self, reply: bytes) -> None:
        """A line that is no command; too many of them, and the peer speaks something else."""
        self._output += reply
        self._bad += 1
        if self._settings.bad_commands and self._bad >= self._settings.bad_commands:
            self._output += err("too many bad commands")
            self.closing = True

    async def _line(self, line: bytes) -> None:
        command = parse_command(line)
        if command.verb and self._state not in VALID[command.verb]:
            self._refuse(err(self._state.value))
        elif isinstance(command, BadCommand):
            self._refuse(err(command.why))
        else:
            self._bad = 0
            await _COMMANDS[command.verb](self, command)

    # --- AUTHORIZATION

    async def _user_command(self, command: Command) -> None:
        """Says nothing about whether there is such a user."""
        if not self._authentication.cleartext_allowed(self._peer):
            return self._privacy()
        self._user = command.text
        self._output += ok("send the password")
        return None

    async def _pass(self, command: Command) -> None:
        user, self._user = self._user, ""
        if not self._authentication.cleartext_allowed(self._peer):
            return self._privacy()
        if not user:
            self._output += err("USER comes first")
            return None
        try:
            identity = await self._authentication.login(user, command.text, self._peer)
        except AuthenticationFailed as error:
            return self._login_failed(error)
        return await self._enter(identity)

    def _privacy(self) -> None:
        how = "use STLS" if self._tls_available and not self._peer.secure else "use TLS"
        self._output += err(f"a password needs TLS here: {how}", "AUTH")

    async def _auth(self, command: Command) -> None:
        """RFC 5034; without a mechanism it lists them, as clients from before that RFC expect."""
        if not command.text:
            self._output += ok("mechanisms follow")
            self._output += "".join(f"{name}\r\n" for name in self._authentication.mechanisms(self._peer)).encode()
            self._output += END
            return
        self._user = ""
        exchange = SASLExchange(self._authentication, self._peer)
        self._sasl = exchange
        await self._sasl_step(exchange.begin(command.text, command.initial))

    async def _sasl_line(self, line: bytes) -> None:
        if self._sasl is not None:
            await self._sasl_step(self._sasl.respond(line))

    async def _sasl_step(self, step: Awaitable[bytes | Identity]) -> None:
        try:
            result = await step
        except AuthenticationFailed as error:
            self._sasl = None
            return self._login_failed(error)
        if isinstance(result, Identity):
            self._sasl = None
            return await self._enter(result)
        self._output += result
        return None

    def _login_failed(self, error: AuthenticationFailed) -> None:
        self._output += login_failed(error)
        self._failed_logins += 1
        if self._settings.failed_logins and self._failed_logins >= self._settings.failed_logins:
            self._output += err("too many failed logins")
            self.closing = True

    async def _enter(self, identity: Identity) -> None:
        """Lock the maildrop and open it (RFC 1939 section 4)."""
        if self._last_logins.too_soon(identity.account):
            self._output += err("wait before you look for mail again", LOGIN_DELAY)
            return
        try:
            self._lock = await self._accounts.lock(identity.account, "pop3")
            if self._lock is None:
                self._output += err("another session has the maildrop", IN_USE)
                return
            self._account = await self._accounts.open(identity.account)
            self._maildrop = maildrop = await Maildrop.open(self._account)
        except Exception as error:
            await self._give_back(error)
            self._output += err("the maildrop cannot be opened at the moment", SYSTEM)
            return
        if self._left:
            return
        self._last_logins.note(identity.account)
        self.identity = identity
        self._state = State.TRANSACTION
        self._output += ok(f"maildrop has {maildrop.count} messages ({maildrop.octets} octets)")

    async def _give_back(self, error: Exception) -> None:
        """Something went wrong on the way in. An interruption is passed on."""
        if self._left:
            raise error
        self._log(error)
        await self.abandon()
        self._left = False

    async def _stls(self, command: Command) -> None:
        """RFC 2595 section 4. What was pipelined behind it must not be taken for something that came through TLS."""
        if self._peer.secure:
            self._output += err("TLS is active already")
        elif not self._tls_available:
            self._output += err("TLS is not available")
        else:
            self._input.clear()
            self._output += ok("begin the TLS negotiation")
            self.tls_requested = True

    async def _utf8(self, command: Command) -> None:
        """RFC 6856 section 2. Messages are sent as they are in any case: nothing is converted."""
        self._output += ok("UTF8 enabled")

    async def _lang(self, command: Command) -> None:
        """RFC 6856 section 3: English is what there is."""
        tag = command.text.lower()
        if not tag:
            self._output += ok("languages follow") + b"en English\r\n" + END
        elif tag in ("*", "en", "i-default") or tag.startswith("en-"):
            self._output += ok("en English it is")
        else:
            self._output += err("that language is not available")

    async def _capa(self, command: Command) -> None:
        """RFC 2449 section 5. What may not be used now is not listed."""
        lines = ["TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "EXPIRE NEVER", "UTF8 USER", "LANG"]
        if self._settings.login_delay_seconds:
            lines.append(f"LOGIN-DELAY {math.ceil(self._settings.login_delay_seconds)}")
        if self._state is State.AUTHORIZATION:
            if self._authentication.cleartext_allowed(self._peer):
                lines.append("USER")
            if names := self._authentication.mechanisms(self._peer):
                lines.append("SASL " + " ".join(names))
            if self._tls_available and not self._peer.secure:
                lines.append("STLS")
        lines.append("IMPLEMENTATION twisted-mail-suite")
        self._output += ok("capabilities follow") + "".join(f"{line}\r\n" for line in lines).encode() + END

    # --- TRANSACTION

    @property
    def _drop(self) -> Maildrop:
        if self._maildrop is None:
            raise RuntimeError("there is no maildrop before TRANSACTION")
        return self._maildrop

    async def _noop(self, command: Command) -> None:
        self._output += ok()

    async def _stat(self, command: Command) -> None:
        self._output += ok(f"{self._drop.count} {self._drop.octets}")

    async def _list(self, command: Command) -> None:
        drop, number = self._drop, command.message
        if number is None:
            await self._listing(f"{drop.count} messages ({drop.octets} octets)", drop.sizes())
        else:
            self._output += ok(f"{number} {drop.size(number)}") if drop.has(number) else _NO_MESSAGE

    async def _uidl(self, command: Command) -> None:
        drop, number = self._drop, command.message
        if number is None:
            await self._listing("unique ids follow", drop.unique_ids())
        else:
            self._output += ok(f"{number} {drop.unique_id(number)}") if drop.has(number) else _NO_MESSAGE

    async def _listing(self, text: str, lines: Iterator[bytes]) -> None:
        self._output += ok(text)
        for batch in lines:
            self._output += batch
            if len(self._output) >= self._settings.output_bytes:
                await self._push(self.take_output())
        self._output += END

    async def _retr(self, command: Command) -> None:
        number = command.message or 0
        if not self._drop.has(number):
            self._output += _NO_MESSAGE
            return
        await self._send(number, f"{self._drop.size(number)} octets", None, self._drop.source(number))

    async def _top(self, command: Command) -> None:
        number = command.message or 0
        if not self._drop.has(number):
            self._output += _NO_MESSAGE
            return
        await self._send(number, "the top follows", Head(command.lines), self._drop.account)

    async def _send(self, number: int, text: str, head: Head | None, source: Reading) -> None:
        """Message *number*, whole or its *head*, as it is read. A message that breaks off has no honest end: then the
        connection ends."""
        begun = False
        octets: AsyncIterator[bytes] = source.octets(self._drop.key(number))
        stuffed = Stuffed()
        try:
            async for chunk in octets:
                if not begun:
                    begun = True
                    self._output += ok(text)
                self._output += stuffed.feed(head.feed(chunk) if head is not None else chunk)
                if len(self._output) >= self._settings.output_bytes:
                    await self._push(self.take_output())
                if head is not None and head.done:
                    break
            if not begun:
                self._output += ok(text)
            self._output += stuffed.finish()
        except Exception as error:
            if self._left:
                raise
            self._log(error)
            if begun:
                self.closing = True
            else:
                self._output += err("the message cannot be read at the moment", SYSTEM)
        finally:
            if isinstance(octets, AsyncGenerator):
                await octets.aclose()

    async def _dele(self, command: Command) -> None:
        number = command.message or 0
        if not self._drop.has(number):
            self._output += _NO_MESSAGE
            return
        self._drop.mark(number)
        self._output += ok(f"message {number} is marked")

    async def _rset(self, command: Command) -> None:
        self._drop.unmark_all()
        self._output += ok(f"maildrop has {self._drop.count} messages ({self._drop.octets} octets)")

    # --- UPDATE

    async def _quit(self, command: Command) -> None:
        """RFC 1939 section 6: what is marked is removed, all of it or nothing."""
        reply: bytes = ok("goodbye")
        if self._maildrop is not None:
            reply = await self._update(self._maildrop)
        self._state = State.UPDATE
        await self.abandon()  # before the reply: whoever has it may come again at once
        self._output += reply
        self._input.clear()
        self.closing = True

    async def _update(self, maildrop: Maildrop) -> bytes:
        removal = maildrop.removal()
        if removal is None:
            return ok("goodbye")
        if self._lock is None or not self._lock.still_held() or not maildrop.intact:
            return err("the maildrop was lost meanwhile; nothing was deleted", SYSTEM)
        self.updating = True
        try:
            await maildrop.account.commit(removal)
        except OutcomeUnknown as error:
            self._log(error)
            return b""  # neither yes nor no would be true
        except AccountError as error:
            self._log(error)
            return err("nothing was deleted", SYSTEM)
        finally:
            self.updating = False
        return ok("goodbye, the marked messages are deleted")


_COMMANDS: Final[Mapping[str, Callable[[Session, Command], Awaitable[None]]]] = {
    "USER": Session._user_command,
    "PASS": Session._pass,
    "AUTH": Session._auth,
    "STLS": Session._stls,
    "UTF8": Session._utf8,
    "LANG": Session._lang,
    "CAPA": Session._capa,
    "QUIT": Session._quit,
    "NOOP": Session._noop,
    "STAT": Session._stat,
    "LIST": Session._list,
    "UIDL": Session._uidl,
    "RETR": Session._retr,
    "TOP": Session._top,
    "DELE": Session._dele,
    "RSET": Session._rset,
}
