"""The conversation itself: octets in, octets out; no socket, no clock, no Twisted.

Whoever drives it calls `receive` with what came, looks at the `Event` that it gives, if any, and sends `take_output`, once
per batch (RFC 2920 section 3.1). Between two transactions it asks for the next thing: `start_tls`, `log_in`, `send`,
`quit`. After `Event.BODY` the message is given to `chunk`. Every recipient of `send` has its `outcomes` at `Event.DONE`.

A transaction in the order of RFC 5321 section 3.3, with PIPELINING (those in one line are one batch)::

    [RSET] MAIL RCPT … RCPT DATA     replies     message "."     reply (LMTP: one for each recipient that was taken)
    [RSET] MAIL RCPT … RCPT          replies     BDAT … BDAT LAST     replies       (with CHUNKING, RFC 3030)
"""

from __future__ import annotations

import base64
import binascii
import enum
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from twisted_mail.smtp.client.body import DotStuffing
from twisted_mail.smtp.client.envelope import Addressee, Envelope, mail_line, rcpt_line, refused
from twisted_mail.smtp.client.login import BadChallenge, Exchange
from twisted_mail.smtp.client.offers import NOTHING, Offers
from twisted_mail.smtp.client.replies import Heard, Replies, Reply, ReplyFault, Stage

__all__ = ["Conversation", "Event"]


class Event(enum.Enum):
    """What the driver is to know."""

    READY = "ready"
    """The next thing may be asked for."""
    TLS = "tls"
    """Once the output is sent, the handshake comes; then `tls_started`."""
    BODY = "body"
    """The message is wanted."""
    DONE = "done"
    """The transaction is over; `outcomes` has what came of it. `ended` may be set as well."""
    ENDED = "ended"
    """There is nothing more to be had; `ended` says why."""


class _Awaited(enum.Enum):
    """A reply that is to come."""

    GREETING = enum.auto()
    EHLO = enum.auto()
    HELO = enum.auto()
    STARTTLS = enum.auto()
    AUTH = enum.auto()
    RSET = enum.auto()
    MAIL = enum.auto()
    RCPT = enum.auto()
    DATA = enum.auto()
    CHUNK = enum.auto()
    END = enum.auto()
    NOTHING = enum.auto()
    """For a message that has no recipients any more: whatever it says."""
    QUIT = enum.auto()


_STAGES: Final[Mapping[_Awaited, Stage]] = {
    _Awaited.GREETING: Stage.GREETING,
    _Awaited.EHLO: Stage.HELLO,
    _Awaited.HELO: Stage.HELLO,
    _Awaited.STARTTLS: Stage.TLS,
    _Awaited.AUTH: Stage.LOGIN,
    _Awaited.RSET: Stage.MAIL,
    _Awaited.MAIL: Stage.MAIL,
    _Awaited.RCPT: Stage.RCPT,
    _Awaited.DATA: Stage.DATA,
    _Awaited.CHUNK: Stage.BODY,
    _Awaited.END: Stage.END,
    _Awaited.NOTHING: Stage.DATA,
    _Awaited.QUIT: Stage.END,
}
_NO_SUCH_COMMAND: Final = (500, 501, 502, 503, 504, 550, 554)
"""Answers to EHLO after which HELO is tried (RFC 5321 section 3.2: 500 to 502; what else servers without it say)."""
_ALL: Final = -1


def _own(code: int, enhanced: str, text: str) -> Reply:
    return Reply(code, enhanced, text, remote=False)


class Conversation:
    """One connection to one server. *name* is what EHLO says."""

    def __init__(self, name: str, *, lmtp: bool = False, chunking: bool = True, pipelining: bool = True) -> None:
        self._name = name
        self._lmtp = lmtp
        self._may_chunk = chunking
        self._may_pipeline = pipelining
        self._replies = Replies()
        self._output: list[bytes] = []
        self._awaited: deque[tuple[_Awaited, int]] = deque([(_Awaited.GREETING, _ALL)])
        self._queue: deque[tuple[bytes, _Awaited, int]] = deque()
        """Commands that were not sent yet, because a reply is to come first."""
        self._event: Event | None = None
        self._exchange: Exchange | None = None
        self._pipelining = self._chunking = False
        self._reset_needed = False
        self._mail_taken = False
        self._end_was_sent = False

        self._stuffing: DotStuffing | None = None
        self._accepted: list[int] = []
        self._open = False
        """A transaction is going on."""

        self.offers: Offers = NOTHING
        self.ended: Heard | None = None
        """Why there is nothing more to be had here."""
        self.broken = False
        """`ended`, and not even QUIT makes sense."""
        self.outcomes: list[Heard | None] = []
        """What was heard about each recipient of the transaction."""
        self.wants_body = False
        """More of the message is to be given."""
        self.answered = False
        """Something was heard in this transaction: the connection had not died before it."""
        self.tls_refusal: Reply | None = None
        """What the server said instead of going on with STARTTLS."""
        self.transactions = 0
        self.heard = 0
        """Whole replies so far: how a slow server is told from one that does not get on."""

    # --- what the driver uses

    @property
    def stage(self) -> Stage:
        """What is being waited for."""
        if self._end_was_sent:
            return Stage.END  # whatever replies are to come before the last one
        if self.wants_body:
            return Stage.BODY
        return _STAGES[self._awaited[0][0]] if self._awaited else Stage.MAIL

    @property
    def idle(self) -> bool:
        """Nothing is going on: the next thing may be asked for."""
        return not self._awaited and not self._queue and not self._open and self.ended is None

    def take_output(self) -> bytes:
        """What is to be sent, which is forgotten here."""
        output = self._output
        if not output:
            return b""
        taken = output[0] if len(output) == 1 else b"".join(output)
        output.clear()
        return taken

    def receive(self, data: bytes) -> Event | None:
        """Take octets; what is whole among them is looked at."""
        if self.broken:
            return None
        replies = self._replies
        replies.feed(data)
        while (reply := replies.next()) is not None:
            if isinstance(reply, ReplyFault):
                self._break(_own(451, "4.5.0", f"What the server says is no SMTP reply: {reply.value}"))
                break
            self._hear(reply)
            if self.broken:
                break
        return self._take_event()

    def closed(self, why: str = "The server closed the connection") -> Event | None:
        """The connection is gone."""
        if not self.broken:
            self._break(_own(421, "4.4.2", why))
        return self._take_event()

    def timed_out(self) -> Event | None:
        """Nothing was heard for too long."""
        if not self.broken:
            self._break(_own(421, "4.4.2", "The server did not answer within the time limit"))
        return self._take_event()

    def give_up(self, reply: Reply) -> Event | None:
        """End it here, for a reason of the driver's."""
        if not self.broken:
            self._break(reply)
        return self._take_event()

    def start_tls(self) -> None:
        """Ask for TLS (RFC 3207)."""
        self._say(b"STARTTLS\r\n", _Awaited.STARTTLS)

    def tls_started(self) -> None:
        """The handshake is done. Everything that was said before is forgotten (RFC 3207 section 4.2).

        Also to be called when TLS comes first (RFC 8314); the greeting is to come then.
        """
        self._replies.clear()
        self.offers = NOTHING
        if self._awaited and self._awaited[0][0] is _Awaited.GREETING:
            return
        self._awaited.clear()
        self._hello()

    def log_in(self, exchange: Exchange) -> None:
        """See `login.choose`."""
        self._exchange = exchange
        initial = exchange.initial()
        # RFC 4954 section 4: no initial response is an empty line, an empty one would be "="
        word = b" " + base64.b64encode(initial) if initial and len(initial) < 8000 else b""
        self._say(b"AUTH " + exchange.name.encode("ascii") + word + b"\r\n", _Awaited.AUTH)

    def send(self, message: Envelope, addressees: Sequence[Addressee]) -> Event | None:
        """Begin a transaction. DONE at once, if none of it may be sent to this server."""
        offers = self.offers
        outcomes: list[Heard | None] = [None] * len(addressees)
        self.outcomes = outcomes
        self.answered = self._mail_taken = self._end_was_sent = False
        if self.ended is not None:
            refusal: Heard | None = Heard(_own(421, "4.4.2", "The connection had ended before"), Stage.MAIL, True)
        else:
            refusal = refused(message, offers)
        if refusal is not None:
            self.outcomes = [refusal] * len(addressees)
            return Event.DONE
        lines: list[tuple[str, int]] = []
        utf8 = message.smtputf8 or not message.sender.isascii()
        for at, addressee in enumerate(addressees):
            line = rcpt_line(addressee, offers)
            if isinstance(line, str):
                lines.append((line, at))
                utf8 = utf8 or not line.isascii()
            else:
                outcomes[at] = line
        if not lines:
            return Event.DONE
        self.transactions += 1
        self._open = True
        self._accepted = []
        mail = mail_line(message, offers, utf8=utf8)
        awaited = self._awaited
        if self._pipelining:
            parts = [mail, *(line for line, _ in lines)]
            if self._reset_needed:
                parts.insert(0, "RSET\r\n")
                awaited.append((_Awaited.RSET, _ALL))
            awaited.append((_Awaited.MAIL, _ALL))
            awaited.extend((_Awaited.RCPT, at) for _, at in lines)
            if not self._chunking:
                parts.append("DATA\r\n")
                awaited.append((_Awaited.DATA, _ALL))
            self._output.append("".join(parts).encode())
        else:
            if self._reset_needed:
                self._queue.append((b"RSET\r\n", _Awaited.RSET, _ALL))
            self._queue.append((mail.encode(), _Awaited.MAIL, _ALL))
            self._queue.extend((line.encode(), _Awaited.RCPT, at) for line, at in lines)
            self._queue.append((b"DATA\r\n", _Awaited.DATA, _ALL))
            self._send_next()
        self._reset_needed = False
        return None

    def chunk(self, data: bytes, *, last: bool = False) -> bytes:
        """The next octets of the message as they are to be sent, its end with the *last* ones; nothing if it is not
        wanted any more (see `wants_body`)."""
        if not self.wants_body:
            return b""
        if self._stuffing is None:
            self._awaited.append((_Awaited.CHUNK, len(data)))
            head = b"BDAT %d LAST\r\n" % len(data) if last else b"BDAT %d\r\n" % len(data)
            if last:
                self._awaited.pop()
                self._end_sent()
            return head + data
        out = self._stuffing.feed(data)
        if last:
            out += self._stuffing.end()
        if self._stuffing.unsafe:
            self._break(_own(554, "5.6.0", "The message has line ends that are not safe to send by DATA"), ours=True)
            return b""
        if last:
            self._end_sent()
        return out

    def quit(self) -> None:
        """Say goodbye; ENDED when it was heard."""
        self._queue.clear()
        self._say(b"QUIT\r\n", _Awaited.QUIT)

    # --- what was heard

    def _take_event(self) -> Event | None:
        event, self._event = self._event, None
        if self.ended is not None and event is not Event.DONE:
            return Event.ENDED
        return event

    def _say(self, line: bytes, awaited: _Awaited, at: int = _ALL) -> None:
        self._output.append(line)
        self._awaited.append((awaited, at))

    def _send_next(self) -> None:
        if self._queue and not self._awaited:
            self._say(*self._queue.popleft())

    def _hear(self, reply: Reply) -> None:
        awaited = self._awaited
        self.heard += 1
        if reply.code == 421:
            if awaited and awaited[0][0] is _Awaited.QUIT:
                awaited.clear()
            return self._break(reply)
        if not awaited:
            if self.wants_body and reply.code >= 400:
                return self._break(reply, ours=True)  # it has seen enough of the message
            return self._break(_own(451, "4.5.0", f"The server says more than it was asked: {reply.line}"))
        kind, at = awaited.popleft()
        self.answered = self.answered or kind is not _Awaited.RSET
        if 300 <= reply.code < 400 and kind not in _MAY_GO_ON:
            awaited.appendleft((kind, at))
            return self._break(_own(451, "4.5.0", f"The server's answer is out of place: {reply.line}"))
        _HEARD[kind](self, reply, at)
        if self._queue:
            self._send_next()
        return None

    def _end(self, heard: Heard) -> None:
        """Nothing more is asked here; the connection is in order."""
        self.ended = heard
        self._event = Event.ENDED

    def _break(self, reply: Reply, *, stage: Stage | None = None, ours: bool = False) -> None:
        """The connection is of no use any more. *stage*: of the reply that was just heard, if it is because of that;
        *ours*: it is because of the message."""
        heard = Heard(reply, stage or self.stage, not ours)
        self.broken = True
        if self.ended is None:
            self.ended = heard
        self._queue.clear()
        self._awaited.clear()
        if self._open:
            self._fill(heard)
            self._done()
        elif self._event is None:
            self._event = Event.ENDED

    def _greeting(self, reply: Reply, at: int) -> None:
        if reply.code >= 300:
            return self._end(Heard(reply, Stage.GREETING, True))
        self._hello()
        return None

    def _hello(self) -> None:
        verb = "LHLO" if self._lmtp else "EHLO"
        self._say(f"{verb} {self._name}\r\n".encode(), _Awaited.EHLO)

    def _ehlo(self, reply: Reply, at: int) -> None:
        if reply.code < 300:
            self.offers = offers = Offers.parse(reply.lines)
            self._pipelining = offers.pipelining and self._may_pipeline
            # chunks are sent without waiting for each reply
            self._chunking = offers.chunking and self._pipelining and self._may_chunk
            self._event = Event.READY
        elif reply.code in _NO_SUCH_COMMAND and not self._lmtp:
            self._say(f"HELO {self._name}\r\n".encode(), _Awaited.HELO)
        else:
            self._end(Heard(reply, Stage.HELLO, True))

    def _helo(self, reply: Reply, at: int) -> None:
        if reply.code >= 300:
            return self._end(Heard(reply, Stage.HELLO, True))
        self.offers = NOTHING
        self._pipelining = self._chunking = False
        self._event = Event.READY
        return None

    def _starttls(self, reply: Reply, at: int) -> None:
        if reply.code >= 300:
            # it is not there after all; whether that may be, the driver knows
            self.tls_refusal = reply
            self._event = Event.READY
            return None
        if not self._replies.empty:
            # said in the clear, to be taken for what was said under TLS
            text = "The server said more behind its answer to STARTTLS: somebody may be in between"
            return self._break(_own(451, "4.7.0", text), stage=Stage.TLS)
        self._event = Event.TLS
        return None

    def _auth(self, reply: Reply, at: int) -> None:
        exchange = self._exchange
        if exchange is None:
            raise RuntimeError("an answer to AUTH without a mechanism")
        try:
            if 300 <= reply.code < 400:
                challenge = binascii.a2b_base64(reply.text.encode("ascii"), strict_mode=True) if reply.text else b""
                response = base64.b64encode(exchange.respond(challenge)) + b"\r\n"
                return self._say(response, _Awaited.AUTH)
            if reply.code < 300:
                exchange.finish()
        except (BadChallenge, ValueError) as error:
            return self._break(_own(454, "4.7.0", f"Logging in failed: {error}"), stage=Stage.LOGIN)
        self._exchange = None
        if reply.code >= 400:
            return self._end(Heard(reply, Stage.LOGIN, True))
        self._event = Event.READY
        return None

    def _rset(self, reply: Reply, at: int) -> None:
        """If it was refused, MAIL will be."""

    def _mail(self, reply: Reply, at: int) -> None:
        self._mail_taken = reply.code < 300
        if not self._mail_taken:
            self._fill(Heard(reply, Stage.MAIL))
            self._queue.clear()
            self._perhaps_done()

    def _rcpt(self, reply: Reply, at: int) -> None:
        if self.outcomes[at] is None:
            if reply.code < 300:
                self._accepted.append(at)
            else:
                self.outcomes[at] = Heard(reply, Stage.RCPT)
        if not self._awaited:
            if not self._accepted:
                if self._queue and self._queue[0][1] is _Awaited.RCPT:
                    return  # without PIPELINING they come one by one
                self._queue.clear()
                self._reset_needed = self._mail_taken
                self._done()
            elif not self._queue:
                self._begin_body(None)

    def _data(self, reply: Reply, at: int) -> None:
        if 300 <= reply.code < 400:
            if self._accepted:
                return self._begin_body(DotStuffing())
            # RFC 2920 section 3.1: it has begun a message that nobody is to have
            return self._say(b".\r\n", _Awaited.NOTHING)
        if reply.code < 300:
            self._awaited.appendleft((_Awaited.DATA, at))
            return self._break(_own(451, "4.5.0", f"The server's answer is out of place: {reply.line}"))
        self._fill(Heard(reply, Stage.DATA))
        self._reset_needed = self._mail_taken
        return self._perhaps_done()

    def _begin_body(self, stuffing: DotStuffing | None) -> None:
        self._stuffing = stuffing
        self.wants_body = True
        self._event = Event.BODY

    def _end_sent(self) -> None:
        self.wants_body = False
        self._end_was_sent = True
        if self._lmtp:
            self._awaited.extend((_Awaited.END, at) for at in self._accepted)
        else:
            self._awaited.append((_Awaited.END, _ALL))

    def _chunk(self, reply: Reply, at: int) -> None:
        if reply.code >= 400:
            self._fill(Heard(reply, Stage.BODY))
            self._reset_needed = True  # RFC 3030 section 2
            if self._end_was_sent and self._lmtp:
                return self._break(reply, ours=True)  # how often the last chunk is refused then, nobody says
            self.wants_body = False
        if not (self._awaited or self.wants_body):
            self._done()
        return None

    def _end_heard(self, reply: Reply, at: int) -> None:
        heard = Heard(reply, Stage.END)
        if at == _ALL:
            self._fill(heard)
        elif self.outcomes[at] is None:
            self.outcomes[at] = heard
        self._perhaps_done()

    def _nothing(self, reply: Reply, at: int) -> None:
        self._perhaps_done()

    def _quit(self, reply: Reply, at: int) -> None:
        self._break(reply)

    # --- the end of a transaction

    def _fill(self, heard: Heard) -> None:
        """For every recipient that has nothing yet."""
        outcomes = self.outcomes
        for at, outcome in enumerate(outcomes):
            if outcome is None:
                outcomes[at] = heard
        self._accepted = []

    def _perhaps_done(self) -> None:
        if not self._awaited and not self._queue:
            self._done()

    def _done(self) -> None:
        self._open = self.wants_body = self._end_was_sent = False
        self._stuffing = None
        self._event = Event.DONE


_MAY_GO_ON: Final = frozenset({_Awaited.AUTH, _Awaited.DATA, _Awaited.NOTHING, _Awaited.QUIT})
"""To what 3yz is an answer, or makes no difference."""

_HEARD: Final[Mapping[_Awaited, Callable[[Conversation, Reply, int], None]]] = {
    _Awaited.GREETING: Conversation._greeting,
    _Awaited.EHLO: Conversation._ehlo,
    _Awaited.HELO: Conversation._helo,
    _Awaited.STARTTLS: Conversation._starttls,
    _Awaited.AUTH: Conversation._auth,
    _Awaited.RSET: Conversation._rset,
    _Awaited.MAIL: Conversation._mail,
    _Awaited.RCPT: Conversation._rcpt,
    _Awaited.DATA: Conversation._data,
    _Awaited.CHUNK: Conversation._chunk,
    _Awaited.END: Conversation._end_heard,
    _Awaited.NOTHING: Conversation._nothing,
    _Awaited.QUIT: Conversation._quit,
}
"""What each reply that was awaited leads to."""
