"""The protocol itself: octets in, octets out, effects awaited; no socket, no clock, no Twisted.

Whoever drives it calls `receive` with what came, awaits `advance` (one at a time), and sends `take_output`, once per
batch (RFC 2920 section 3.2). When `tls_requested` is set after that, the handshake follows, then `tls_started`; when
`closing`, the connection ends.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from twisted_mail.services import (
    Authentication,
    AuthenticationFailed,
    Envelope,
    Identity,
    Intake,
    MailRefused,
    Peer,
    Recipient,
    Refusal,
    Submitters,
    Vouching,
)
from twisted_mail.smtp import commands as c
from twisted_mail.smtp import replies as r
from twisted_mail.smtp.body import FAILED, Body
from twisted_mail.smtp.completion import HeaderCompletion, author_of
from twisted_mail.smtp.extensions import extensions, hold_until, protocol_keyword, unmet
from twisted_mail.smtp.login import Login
from twisted_mail.smtp.parser import parse_command
from twisted_mail.smtp.profiles import Limits, Profile
from twisted_mail.smtp.reception import ChunkDropped, ChunkTaken, MessageEnded, Reception
from twisted_mail.smtp.replies import Reply, refused
from twisted_mail.smtp.standing import LOG_IN, Standing
from twisted_mail.smtp.states import ANYTIME, NEXT, State
from twisted_mail.smtp.wire import Input, LineEnds, LineFault
from twisted_mail.smtp.xclient import named

__all__ = ["Session"]

class Session:
    """One connection. *log* is told of failures that the peer only learns as 451; *trusted*: XCLIENT is believed; *submitters*
    need not log in."""

    def __init__(
        self,
        profile: Profile,
        limits: Limits,
        intake: Intake,
        authentication: Authentication | None,
        peer: Peer,
        hostname: str,
        *,
        tls_available: bool = False,
        trusted: bool = False,
        submitters: Submitters | None = None,
        now: Callable[[], float] = time.time,
        log: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self._profile = profile
        self._limits = limits
        self._intake = intake
        self._authentication = authentication if profile.submission else None
        self._peer = peer
        self._hostname = hostname
        self._tls_available = tls_available
        self._trusted = trusted and not profile.lmtp
        self._named: c.Xclient | None = None
        self._now = now
        self._log = log

        self._input = Input()
        self._output: list[bytes] = []
        self._state = State.CONNECTED
        self._extended = False
        self._helo = ""
        self._login: Login | None = None
        self._errors = 0
        self._refused_recipients = 0
        self._messages = 0
        self._draining = False
        self._gone = False

        self._mail: c.Mail | None = None
        self._author: Identity | None = None
        """Whose mail the transaction brings; None: a stranger's."""
        self._recipients: list[Recipient] = []
        self._reception = Reception(self._input)

        self._standing = Standing(profile, self._authentication, submitters, intake, self._give_up)
        self._visiting = self._standing.arrived(peer)

        self.identity: Identity | None = None
        """Who has logged in."""
        self.closing = False
        """The connection is to be ended once the output is sent."""
        self.tls_requested = False
        """After the output is sent, the TLS handshake comes."""
        self.finishing = False
        """A whole message is being made durable: not to be interrupted."""

    # --- what the driver uses

    def greet(self) -> None:
        """Say the first words (RFC 5321 section 4.3.1); where somebody has to be asked before, `advance` does it."""
        if self._visiting.welcomed:
            self._say(Reply(220, "", f"{self._hostname} {self._profile.banner}"))

    def receive(self, data: bytes) -> None:
        """Take octets; nothing is done with them before `advance`."""
        if data:
            self._visiting.spoken()
        if not self.closing:
            self._input.feed(data)

    @property
    def waiting(self) -> int:
        """Octets that were received and not used yet."""
        return len(self._input)

    @property
    def welcoming(self) -> bool:
        """The greeting is still to come, by `advance`."""
        return not self._visiting.welcomed

    @property
    def anonymous(self) -> bool:
        """Nobody has logged in, who would have to."""
        return self._profile.submission and self.identity is None and not self._standing.listed(self._peer)

    @property
    def in_body(self) -> bool:
        """Octets of a message are what comes next."""
        return self._reception.active

    def take_output(self) -> bytes:
        """What is to be sent, which is forgotten here."""
        if not self._output:
            return b""
        output = b"".join(self._output)
        self._output.clear()
        return output

    async def advance(self) -> None:
        """Carry out everything that has come whole, in order."""
        if self.welcoming:
            await self._welcome()
        reception = self._reception
        while not (self.closing or self.tls_requested or self._gone):
            if reception.active:
                if reception.starved:
                    return
                await self._message(reception)
            elif self._draining and self._between_transactions:
                self._close(r.SHUTTING_DOWN)
            else:
                long = self._login is not None or self._input.starts_with(b"AUTH ")
                line = self._input.line(self._limits.auth_line_bytes if long else self._limits.line_bytes)
                if line is None:
                    return
                await self._line(line)

    def tls_started(self, peer: Peer) -> None:
        """The handshake is done: *peer* is who the other end is now. Everything that was said before is forgotten
        (RFC 3207 section 4.2)."""
        self._peer = peer if self._named is None else named(peer, self._named)
        self._input.clear()
        self.tls_requested = False
        self._state = State.CONNECTED
        self._helo = ""
        self.identity = None

    def drain(self) -> None:
        """Leave after the transaction that is going on, if one is; seen by the next `advance`."""
        self._draining = True

    def timed_out(self) -> None:
        """Nothing came for too long (RFC 5321 section 4.5.3.2)."""
        self._close(r.IDLE)

    def leave(self) -> None:
        """The connection is gone: whatever fails from now on fails because of that."""
        self._gone = True

    async def abandon(self) -> None:
        """After `leave`: nothing of a message that had not come whole stays."""
        await self._reception.abort()
        await self._visiting.closed()

    async def _welcome(self) -> None:
        refusal = await self._visiting.connected()
        if refusal is not None:
            return self._close(refusal)
        return self.greet()

    def _refuse(self, reply: Reply) -> None:
        """Say it; 421 and 521 end the connection (RFC 5321 section 3.8, RFC 7504)."""
        if reply.code in (421, 521):
            self._close(reply)
        else:
            self._say(reply)

    # --- lines

    def _say(self, reply: Reply) -> None:
        self._output.append(reply.encode())

    def _close(self, reply: Reply) -> None:
        self._say(reply)
        self.closing = True
        self._input.clear()

    @property
    def _between_transactions(self) -> bool:
        return self._state in (State.CONNECTED, State.GREETED) and self._login is None

    async def _line(self, line: bytes | LineFault) -> None:
        if self._login is not None:
            return await self._login_line(self._login, line)
        if isinstance(line, LineFault):
            if line is LineFault.ENDLESS:
                return self._close(r.LINE_FAULTS[line])
            return self._bad(r.LINE_FAULTS[line])
        command = parse_command(line)
        if isinstance(command, c.BadCommand):
            if command.loses_sync:
                return self._close(Reply(421, "4.5.0", f"{command.text}; closing, as what follows is not known"))
            reply = Reply(command.code, command.enhanced, command.text)
            if command.code in (500, 502):
                reply = await self._visiting.strange(line) or reply
            return self._close(reply) if reply.code in (421, 521) else self._bad(reply)
        kind = type(command)
        if kind not in ANYTIME and (self._state, kind) not in NEXT:
            if isinstance(command, c.Bdat):
                # RFC 3030 section 2: its octets come all the same
                return self._reception.drop_chunk(command.size, self._out_of_order(command))
            return self._bad(self._out_of_order(command))
        try:
            await _CARRY_OUT[kind](self, command)
        except Exception as error:
            if self._give_up(error):
                raise
            self._say(FAILED)

    def _out_of_order(self, command: c.Command) -> Reply:
        return r.out_of_order(self._state, command, lmtp=self._profile.lmtp)

    def _bad(self, reply: Reply) -> None:
        self._errors += 1
        if self._limits.bad_commands and self._errors > self._limits.bad_commands:
            self._close(r.TOO_MANY_ERRORS)
        else:
            self._say(reply)

    def _give_up(self, error: BaseException) -> bool:
        if not self._gone:
            self._log(error)
        return self._gone

    # --- greetings and what may be said at any time

    async def _ehlo(self, command: c.Ehlo) -> None:
        if self._profile.lmtp:
            return self._bad(Reply(500, "5.5.1", "This is LMTP: send LHLO"))  # RFC 2033 section 4.1
        await self._greeted(command.domain, extended=True)
        return None

    async def _lhlo(self, command: c.Lhlo) -> None:
        if not self._profile.lmtp:
            return self._bad(Reply(500, "5.5.1", "This is not LMTP: send EHLO"))
        await self._greeted(command.domain, extended=True)
        return None

    async def _helo_command(self, command: c.Helo) -> None:
        if self._profile.lmtp:
            return self._bad(Reply(500, "5.5.1", "This is LMTP: send LHLO"))
        await self._greeted(command.domain, extended=False)
        return None

    async def _greeted(self, domain: str, *, extended: bool) -> None:
        self._errors = 0
        await self._end_transaction()
        await self._reception.abort()  # a message that has begun by BDAT
        if (refusal := await self._visiting.greeted(domain, self._peer, extended=extended)) is not None:
            return self._refuse(refusal)
        self._state = State.GREETED
        self._helo = domain
        self._extended = extended
        if extended:
            offered = extensions(
                self._profile,
                self._limits,
                self._peer,
                tls_available=self._tls_available,
                authentication=self._authentication if self.identity is None else None,
                now=self._now(),
                trusted=self._trusted,
            )
            self._output.append(r.lines(250, [self._hostname, *offered]))
        else:
            self._say(Reply(250, "", self._hostname))
        return None

    async def _rset(self, command: c.Rset) -> None:
        self._errors = 0
        if self._state is not State.CONNECTED:
            await self._end_transaction()
            await self._reception.abort()
        self._output.append(r.OK)

    async def _noop(self, command: c.Noop) -> None:
        self._errors = 0
        self._output.append(r.OK)

    async def _quit(self, command: c.Quit) -> None:
        self._output.append(r.GOODBYE)
        self.closing = True
        self._input.clear()
        await self._reception.abort()

    async def _vrfy(self, command: c.Vrfy | c.Expn) -> None:
        # RFC 5321 section 7.3: who does not want to tell says 252, and nothing that may be taken for an answer
        self._say(Reply(252, "2.5.0", "Send some mail: it is looked at then"))

    async def _help(self, command: c.Help) -> None:
        self._output.append(r.help_text(lmtp=self._profile.lmtp))

    async def _starttls(self, command: c.StartTLS) -> None:
        if self._peer.secure:
            return self._bad(Reply(503, "5.5.1", "TLS is active"))
        if not self._tls_available:
            return self._bad(Reply(502, "5.5.1", "TLS is not available"))
        self._errors = 0
        self._say(Reply(220, "2.0.0", "Ready to start TLS"))
        self._input.clear()  # nothing that was sent behind it in the clear may be believed
        self.tls_requested = True
        return None

    async def _xclient(self, command: c.Xclient) -> None:
        """The session begins anew, for the client that the server in front names (Postfix's XCLIENT_README)."""
        if not self._trusted:
            return self._bad(Reply(550, "5.7.0", "You are not believed when you say for whom you come"))
        identity = None
        if command.login:
            if not isinstance(self._authentication, Vouching):
                return self._bad(Reply(501, "5.5.4", "There is no login here"))
            try:
                identity = await self._authentication.vouched(command.login, self._peer)
            except AuthenticationFailed as error:
                return self._bad(r.authentication_failed(error))
        await self.abandon()
        self._named, self._peer, self.identity = command, named(self._peer, command), identity
        self._state, self._helo = State.CONNECTED, ""
        self._errors = self._refused_recipients = self._messages = 0
        self._visiting = self._standing.arrived(self._peer)
        return await self._welcome()

    # --- logging in

    async def _auth(self, command: c.Auth) -> None:
        if self._authentication is None:
            return self._bad(Reply(502, "5.5.1", "There is no login here"))
        if self.identity is not None:
            return self._bad(Reply(503, "5.5.1", "Logged in already"))  # RFC 4954 section 4
        login = Login(self._authentication, self._peer)
        await self._login_step(login, login.begin(command.mechanism, command.initial))
        return None

    async def _login_line(self, login: Login, line: bytes | LineFault) -> None:
        self._login = None
        if line is LineFault.ENDLESS:
            return self._close(r.LINE_FAULTS[line])
        await self._login_step(login, login.respond(line))
        return None

    async def _login_step(self, login: Login, step: Awaitable[Reply | Identity]) -> None:
        try:
            result = await step
        except Exception as error:
            if self._give_up(error):
                raise
            return self._say(Reply(454, "4.7.0", "Logging in is not possible now"))
        if isinstance(result, Identity):
            self._errors = 0
            self.identity = result
            self._say(Reply(235, "2.7.0", "Logged in"))
        elif result.code == 334:
            self._login = login
            self._say(result)
        else:
            self._bad(result)
        return None

    # --- the envelope

    async def _mail_command(self, command: c.Mail) -> None:
        limits = self._limits
        if self.anonymous:
            return self._bad(LOG_IN)
        if limits.messages and self._messages >= limits.messages:
            return self._close(Reply(421, "4.7.0", "Too many messages on one connection"))
        if (refusal := unmet(command, self._profile, limits, self._peer, self._now())) is not None:
            return self._bad(refusal)
        if command.size is not None and command.size > limits.message_bytes:
            return self._say(Reply(552, "5.3.4", f"At most {limits.message_bytes} octets are taken"))
        if command.sender is not None and not command.smtputf8 and not command.sender.text.isascii():
            return self._say(r.UTF8_NEEDED)
        address = command.sender.plain if command.sender is not None else ""
        author = await self._standing.author(self.identity, self._peer, address)
        if isinstance(author, Reply):
            return self._say(author)
        self._visiting, refusal = await self._standing.visiting(
            self._visiting, author, self._peer, self._helo, extended=self._extended
        )
        if (refusal := refusal or await self._visiting.sender(command, author)) is not None:
            return self._refuse(refusal)
        self._author = author
        self._errors = 0
        self._messages += 1
        self._mail = command
        self._state = NEXT[self._state, c.Mail]
        self._output.append(r.SENDER_OK)
        return None

    async def _rcpt(self, command: c.Rcpt) -> None:
        if len(self._recipients) >= self._limits.recipients:
            return self._say(Reply(452, "4.5.3", "Too many recipients"))
        if self._mail is not None and not self._mail.smtputf8 and not command.text.isascii():
            return self._say(r.UTF8_NEEDED)
        try:
            recipient = await self._intake.recipient(
                command.text, identity=self._author, original=command.original, notify=command.notify
            )
        except MailRefused as error:
            if error.reason is Refusal.NO_SUCH_RECIPIENT:
                await self._visiting.unknown(command.text)
            self._refused_recipients += 1
            most = 0 if self._profile.lmtp else self._limits.refused_recipients
            if most and self._refused_recipients > most:
                return self._close(r.TOO_MANY_ERRORS)
            return self._refuse(refused(error))
        if (refusal := await self._visiting.recipient(recipient)) is not None:
            return self._refuse(refusal)
        self._errors = 0
        self._refused_recipients = 0
        self._recipients.append(recipient)
        self._state = NEXT[self._state, c.Rcpt]
        self._output.append(r.RECIPIENT_OK)
        return None

    async def _end_transaction(self) -> None:
        await self._visiting.ended()
        self._mail = self._author = None
        self._recipients = []
        if self._state is not State.CONNECTED:
            self._state = State.GREETED

    # --- the message

    async def _begin(self, mail: c.Mail) -> Reply | None:
        """Start the message; what to refuse it with, if that is not possible."""
        envelope = Envelope(
            sender=mail.sender.text if mail.sender is not None else "",
            recipients=tuple(self._recipients),
            peer=self._peer,
            helo=self._helo,
            protocol=protocol_keyword(
                self._profile,
                self._peer,
                extended=self._extended,
                authenticated=self.identity is not None,
                smtputf8=mail.smtputf8,
            ),
            identity=self._author,
            size=mail.size,
            body=mail.body,
            smtputf8=mail.smtputf8,
            envelope_id=mail.envelope_id,
            dsn_return=mail.dsn_return,
            hold_until=hold_until(mail, self._now()),
            deliver_by=mail.deliver_by,
            priority=mail.priority,
            requiretls=mail.requiretls,
            visit=self._visiting.visit,
        )
        try:
            incoming = await self._intake.begin(envelope)
        except MailRefused as error:
            return refused(error)
        strict = self._limits.strict_line_ends and mail.body != "BINARYMIME"
        completion = None
        if self._author is not None:
            author = author_of(self._standing.may_send_as, self._author, envelope.sender)
            completion = HeaderCompletion(author, self._hostname, self._now, self._limits.header_bytes)
        self._reception.body = Body(
            incoming,
            limit=self._limits.message_bytes,
            line_ends=LineEnds() if strict else None,
            completion=completion,
            give_up=self._give_up,
        )
        return None

    async def _data(self, command: c.Data) -> None:
        if self._mail is None:
            return self._bad(r.ORDER)
        if self._mail.body == "BINARYMIME":
            return self._bad(Reply(503, "5.5.1", "BINARYMIME needs BDAT"))  # RFC 3030 section 3
        refusal = await self._begin(self._mail)
        if refusal is not None:
            await self._end_transaction()
            return self._refuse(refusal)
        self._errors = 0
        self._state = NEXT[self._state, c.Data]
        self._reception.begin_data(look_for_lone_dots=not self._limits.strict_line_ends)
        self._output.append(r.GO_ON)
        return None

    async def _bdat(self, command: c.Bdat) -> None:
        refusal = None
        if self._state is State.RCPT and self._mail is not None:
            try:
                refusal = await self._begin(self._mail)
            except Exception as error:
                if self._give_up(error):
                    raise
                refusal = FAILED
        if refusal is None:
            self._errors = 0
            self._state = NEXT[self._state, c.Bdat]
            self._reception.begin_chunk(command.size, last=command.last)
        else:
            # LMTP: a last chunk has a reply for each recipient (RFC 2033 section 4.3)
            replies = len(self._recipients) if self._profile.lmtp and command.last else 1
            self._reception.drop_chunk(command.size, refusal, replies)
            await self._end_transaction()

    async def _message(self, reception: Reception) -> None:
        """Take octets of a message, and answer what is complete with them."""
        match await reception.step():
            case MessageEnded(body):
                await self._end_of_message(body)
            case ChunkTaken(size, body) if body.refusal is None:
                self._say(Reply(250, "2.0.0", f"{size} octets received"))
            case ChunkTaken(_, body) if body.refusal is not None:
                # the client is told now, not after the last chunk; more of them get 503
                reception.body = None
                await self._end_transaction()
                self._refuse(body.refusal)
            case ChunkDropped(refusal, 0):
                self._bad(refusal)
            case ChunkDropped(refusal, replies):
                for _ in range(replies):
                    self._say(refusal)

    async def _end_of_message(self, body: Body) -> None:
        recipients = self._recipients
        self.finishing = True
        try:
            result = await body.finish()
        finally:
            self.finishing = False
            self._reception.body = None
            await self._end_transaction()
        if isinstance(result, Reply):
            for _ in recipients[1:] if self._profile.lmtp else ():
                self._say(result)
            self._refuse(result)
        elif self._profile.lmtp:
            for outcome in result:
                self._say(r.for_one(outcome))
        else:
            self._say(r.for_all(result))


_CARRY_OUT: Final[Mapping[type[c.Command], Callable[[Session, Any], Awaitable[None]]]] = {
    c.Ehlo: Session._ehlo,
    c.Helo: Session._helo_command,
    c.Lhlo: Session._lhlo,
    c.Mail: Session._mail_command,
    c.Rcpt: Session._rcpt,
    c.Data: Session._data,
    c.Bdat: Session._bdat,
    c.Rset: Session._rset,
    c.Noop: Session._noop,
    c.Quit: Session._quit,
    c.Vrfy: Session._vrfy,
    c.Expn: Session._vrfy,
    c.Help: Session._help,
    c.StartTLS: Session._starttls,
    c.Auth: Session._auth,
    c.Xclient: Session._xclient,
}
"""Every command with what carries it out."""
