"""The protocol itself: octets in, octets out, effects awaited; no socket, no clock, no Twisted.

Whoever drives it calls `receive` with what came, awaits `advance` (one at a time), and sends `take_output`. What is
long goes through *push* meanwhile, which waits while the peer does not read. When `tls_requested` is set after that,
the handshake follows, then `tls_started`, whose output is sent too; when `closing`, the connection ends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from twisted_mail.managesieve.login import SASLExchange
from twisted_mail.managesieve.parser import SCRIPT_COMMANDS, BadCommand, Command, parse_command, parse_string
from twisted_mail.managesieve.replies import bye, login_failed, no, ok, refused, string
from twisted_mail.managesieve.settings import Settings
from twisted_mail.managesieve.states import VALID, State
from twisted_mail.managesieve.wire import Input, LineFault, Raw
from twisted_mail.services import Authentication, AuthenticationFailed, Identity, Peer, ScriptRefused, Scripts
from twisted_mail.values import AccountId

__all__ = ["Session"]

_OUTPUT_BYTES: Final = 65_536
"""What is gathered before it is written although more is to come."""
_STRANGER_DISCARD_BYTES: Final = 65_536
"""What is thrown away of too long a literal from somebody who has not logged in."""


class Session:
    """One connection. *bounded* gives work on one command a time limit (it then raises whatever it likes). *log* is told of
    failures that the peer only learns as TRYLATER."""

    def __init__(
        self,
        scripts: Scripts,
        authentication: Authentication,
        peer: Peer,
        settings: Settings,
        push: Callable[[bytes], Awaitable[None]],
        *,
        bounded: Callable[[Coroutine[Any, Any, None]], Awaitable[None]] = lambda work: work,
        implementation: str = "twisted-mail-suite",
        tls_available: bool = False,
        log: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self._scripts = scripts
        self._authentication = authentication
        self._peer = peer
        self._settings = settings
        self._push = push
        self._bounded = bounded
        self._implementation = implementation
        self._tls_available = tls_available
        self._log = log
        self._input = Input()
        self._output = bytearray()
        self._sasl: SASLExchange | None = None
        self._bad = 0
        self._failed_logins = 0
        self._left = False
        self.identity: Identity | None = None
        """Who has logged in."""
        self.tls_requested = False
        self.closing = False

    # --- driven from outside

    @property
    def waiting(self) -> int:
        """Octets of input that were not used yet."""
        return len(self._input)

    def greet(self) -> None:
        """The capabilities (section 1.7)."""
        self._output += self._capabilities() + ok("ready")

    def receive(self, data: bytes) -> None:
        """Take octets. What comes behind STARTTLS before the handshake, or behind LOGOUT, is thrown away."""
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
            raw = self._next()
            if raw is None:
                return
            if raw.fault is LineFault.ENDLESS:
                self._end("more comes than can be taken")
                return
            try:
                await self._bounded(self._command(raw) if self._sasl is None else self._answer(self._sasl, raw))
            except Exception as error:
                if self._left:
                    raise
                self._sasl = None
                self._log(error)
                self._output += no("something failed here", "TRYLATER")
            if len(self._output) >= _OUTPUT_BYTES:
                await self._push(self.take_output())

    def _next(self) -> Raw | None:
        settings = self._settings
        if self._sasl is not None:
            return self._input.command(settings.auth_bytes, settings.auth_bytes, _STRANGER_DISCARD_BYTES)
        if self.identity is None:
            # a literal may be the initial response
            return self._input.command(settings.auth_bytes, settings.auth_bytes, _STRANGER_DISCARD_BYTES)
        script = self._input.first_word in SCRIPT_COMMANDS
        literal_bytes = self._scripts.max_bytes if script else settings.short_bytes
        return self._input.command(settings.line_bytes, literal_bytes, settings.discard_bytes)

    def tls_started(self, peer: Peer) -> None:
        """The handshake is done: everything that was said before is forgotten, and the capabilities are sent again
        (section 2.2)."""
        self._peer = peer
        self._input.clear()
        if self.tls_requested:
            self.tls_requested = False
            self.greet()

    def leave(self) -> None:
        """The connection has gone, or is to go: whatever is interrupted now is no failure."""
        self._left = True

    def drain(self) -> None:
        """The server is to end; nothing is lost between two commands."""
        if not self.closing:
            self._end("the server is shutting down", "TRYLATER")

    def time_out(self) -> None:
        """Nothing has come for too long."""
        if not self.closing:
            self._end("nothing has come for too long" if self.identity is not None else "log in sooner")

    async def abandon(self) -> None:
        """There is nothing to give back."""
        self.leave()

    def _end(self, text: str, code: str = "") -> None:
        self._output += bye(text, code)
        self.closing = True

    # --- commands

    @property
    def _state(self) -> State:
        return State.NON_AUTHENTICATED if self.identity is None else State.AUTHENTICATED

    async def _command(self, raw: Raw) -> None:
        command = parse_command(raw)
        if command.verb and self._state not in VALID[command.verb]:
            self._refuse(no(self._state.value))
        elif isinstance(command, BadCommand):
            self._refuse(self._bad_reply(command))
        else:
            self._bad = 0
            try:
                await _COMMANDS[command.verb](self, command)
            except ScriptRefused as error:
                self._output += refused(error)

    def _bad_reply(self, command: BadCommand) -> bytes:
        if command.fault is LineFault.LITERAL_TOO_LONG and command.verb.encode() in SCRIPT_COMMANDS:
            return no(f"a script has at most {self._scripts.max_bytes} octets", "QUOTA/MAXSIZE")
        return no(command.why)

    def _refuse(self, reply: bytes) -> None:
        """What is no command; too many of them, and the peer speaks something else."""
        self._bad += 1
        if self._settings.bad_commands and self._bad >= self._settings.bad_commands:
            self._end("too many bad commands")
        else:
            self._output += reply

    @property
    def _account(self) -> AccountId:
        if self.identity is None:
            raise RuntimeError("nobody has logged in")
        return self.identity.account

    def _capabilities(self) -> bytes:
        """Section 1.7. What may not be used now is not listed."""
        scripts = self._scripts
        listed: list[tuple[str, str | None]] = [
            ("IMPLEMENTATION", self._implementation),
            ("VERSION", "1.0"),
            ("SASL", " ".join(self._authentication.mechanisms(self._peer))),
            ("SIEVE", " ".join(scripts.extensions)),
        ]
        if "enotify" in scripts.extensions:
            listed.append(("NOTIFY", "mailto"))
        listed += [("MAXREDIRECTS", str(scripts.max_redirects)), ("LANGUAGE", "en"), ("UNAUTHENTICATE", None)]
        if self.identity is not None:
            listed.append(("OWNER", self.identity.login))
        elif self._tls_available and not self._peer.secure:
            listed.append(("STARTTLS", None))
        return b"".join(
            string(name) + (b"" if value is None else b" " + string(value)) + b"\r\n" for name, value in listed
        )

    async def _capability(self, command: Command) -> None:
        self._output += self._capabilities() + ok()

    async def _noop(self, command: Command) -> None:
        if command.text is None:
            self._output += ok("NOOP completed")
        else:
            self._output += ok("NOOP completed", b"TAG " + string(command.text))

    async def _logout(self, command: Command) -> None:
        self._output += ok("goodbye")
        self._input.clear()
        self.closing = True

    async def _starttls(self, command: Command) -> None:
        """Section 2.2. What was pipelined behind it must not be taken for something that came through TLS."""
        if self._peer.secure:
            self._output += no("TLS is active already")
        elif not self._tls_available:
            self._output += no("TLS is not available")
        else:
            self._input.clear()
            self._output += ok("begin the TLS negotiation")
            self.tls_requested = True

    # --- logging in

    async def _authenticate(self, command: Command) -> None:
        exchange = SASLExchange(self._authentication, self._peer)
        self._sasl = exchange
        await self._sasl_step(exchange, exchange.begin(command.name, command.text))

    async def _answer(self, exchange: SASLExchange, raw: Raw) -> None:
        response = parse_string(raw)
        if isinstance(response, BadCommand):
            self._sasl = None
            self._login_failed(AuthenticationFailed("malformed", response.why))
        else:
            await self._sasl_step(exchange, exchange.respond(response))

    async def _sasl_step(self, exchange: SASLExchange, step: Awaitable[bytes | Identity]) -> None:
        try:
            result = await step
        except AuthenticationFailed as error:
            self._sasl = None
            self._login_failed(error)
            return
        if isinstance(result, Identity):
            self._sasl = None
            self._failed_logins = 0
            self.identity = result
            # with a code there is no text: sieve-connect looks for exactly the line of the example in section 2.1
            self._output += ok(code=b"SASL " + string(exchange.last)) if exchange.last else ok("logged in")
        else:
            self._output += string(result) + b"\r\n"

    def _login_failed(self, error: AuthenticationFailed) -> None:
        self._failed_logins += 1
        if self._settings.failed_logins and self._failed_logins >= self._settings.failed_logins:
            self._end("too many failed logins")
        else:
            self._output += login_failed(error)

    async def _unauthenticate(self, command: Command) -> None:
        """Section 2.14.1."""
        self.identity = None
        self._output += ok()

    # --- scripts

    async def _have_space(self, command: Command) -> None:
        await self._scripts.space(self._account, command.name, command.size)
        self._output += ok()

    async def _put_script(self, command: Command) -> None:
        warnings = await self._scripts.put(self._account, command.name, command.text or "")
        self._checked(warnings)

    async def _check_script(self, command: Command) -> None:
        self._checked(await self._scripts.check(self._account, command.text or ""))

    def _checked(self, warnings: Sequence[str]) -> None:
        self._output += ok("\r\n".join(warnings), "WARNINGS") if warnings else ok()

    async def _list_scripts(self, command: Command) -> None:
        for name, active in (await self._scripts.names(self._account)).items():
            self._output += string(name) + (b" ACTIVE\r\n" if active else b"\r\n")
        self._output += ok()

    async def _set_active(self, command: Command) -> None:
        await self._scripts.activate(self._account, command.name or None)
        self._output += ok()

    async def _get_script(self, command: Command) -> None:
        text = await self._scripts.get(self._account, command.name)
        self._output += string(text, literal=True) + b"\r\n" + ok()

    async def _delete_script(self, command: Command) -> None:
        await self._scripts.delete(self._account, command.name)
        self._output += ok()

    async def _rename_script(self, command: Command) -> None:
        await self._scripts.rename(self._account, command.name, command.new_name)
        self._output += ok()


_COMMANDS: Final[Mapping[str, Callable[[Session, Command], Awaitable[None]]]] = {
    "AUTHENTICATE": Session._authenticate,
    "STARTTLS": Session._starttls,
    "LOGOUT": Session._logout,
    "CAPABILITY": Session._capability,
    "HAVESPACE": Session._have_space,
    "PUTSCRIPT": Session._put_script,
    "LISTSCRIPTS": Session._list_scripts,
    "SETACTIVE": Session._set_active,
    "GETSCRIPT": Session._get_script,
    "DELETESCRIPT": Session._delete_script,
    "RENAMESCRIPT": Session._rename_script,
    "CHECKSCRIPT": Session._check_script,
    "NOOP": Session._noop,
    "UNAUTHENTICATE": Session._unauthenticate,
}
