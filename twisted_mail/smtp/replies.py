"""Replies (RFC 5321 section 4.2) with enhanced status codes (RFC 2034, RFC 3463), and how refusals are put."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from twisted_mail.services import AuthenticationFailed, MailRefused, Outcome, Refusal
from twisted_mail.smtp import commands as c
from twisted_mail.smtp.states import State
from twisted_mail.smtp.wire import LineFault

__all__ = [
    "AUTHENTICATION",
    "GOODBYE",
    "GO_ON",
    "IDLE",
    "LINE_FAULTS",
    "OK",
    "ORDER",
    "RECIPIENT_OK",
    "REFUSALS",
    "SENDER_OK",
    "SHUTTING_DOWN",
    "TOO_MANY_ERRORS",
    "UTF8_NEEDED",
    "Reply",
    "authentication_failed",
    "for_all",
    "for_one",
    "help_text",
    "lines",
    "out_of_order",
    "refused",
]

TEXT_BYTES: Final = 400
"""A reply line has at most 512 octets (section 4.5.3.1.5); texts may quote an address, so they are cut."""
MOST_LINES: Final = 50
"""Of a text; somebody's own reason for a refusal may have as many as it likes."""
_unprintable = re.compile(r"[^\t -~]+")


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply, mostly of one line."""

    code: int
    enhanced: str
    """``class.subject.detail``; empty for greetings and 3yz (RFC 2034 section 4)."""
    text: str
    several: bool = False
    """Line ends in `text` make more lines (RFC 5321 section 4.2.1)."""

    @property
    def temporary(self) -> bool:
        """4yz: the client may come back."""
        return self.code < 500

    def encode(self) -> bytes:
        """The octets, CRLF included. What is not printable ASCII becomes question marks."""
        if self.several and "\n" in self.text.strip():
            texts = [_unprintable.sub("?", line)[:TEXT_BYTES] for line in self.text.strip().splitlines()[:MOST_LINES]]
            return lines(self.code, texts, self.enhanced)
        text = _unprintable.sub("?", self.text)[:TEXT_BYTES]
        enhanced = f"{self.enhanced} " if self.enhanced else ""
        return f"{self.code} {enhanced}{text}\r\n".encode("ascii")


def lines(code: int, texts: list[str], enhanced: str = "") -> bytes:
    """A reply of several lines (section 4.2.1); RFC 2034 section 4: the enhanced code stands on each."""
    last = len(texts) - 1
    prefix = f"{enhanced} " if enhanced else ""
    return "".join(
        f"{code}{' ' if at == last else '-'}{prefix}{text}\r\n" for at, text in enumerate(texts)
    ).encode("ascii", "replace")


def help_text(*, lmtp: bool) -> bytes:
    """What HELP tells."""
    hello = "LHLO" if lmtp else "HELO EHLO"
    return lines(214, [f"{hello} MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY EXPN HELP", "STARTTLS AUTH: see EHLO"], "2.0.0")


def out_of_order(state: State, command: c.Command, *, lmtp: bool) -> Reply:
    """What is said to a command that may not come in *state*."""
    if state is State.CONNECTED:
        return Reply(503, "5.5.1", f"Send {'LHLO' if lmtp else 'EHLO'} first")
    if state is State.MAIL and isinstance(command, (c.Data, c.Bdat)):
        return Reply(503, "5.5.1", "No valid recipients")  # RFC 2033 section 4.2
    return ORDER


OK: Final = Reply(250, "2.0.0", "Ok").encode()
SENDER_OK: Final = Reply(250, "2.1.0", "Sender ok").encode()
RECIPIENT_OK: Final = Reply(250, "2.1.5", "Recipient ok").encode()
GO_ON: Final = Reply(354, "", "End the message with <CRLF>.<CRLF>").encode()
GOODBYE: Final = Reply(221, "2.0.0", "Goodbye").encode()
ORDER: Final = Reply(503, "5.5.1", "Bad sequence of commands")
UTF8_NEEDED: Final = Reply(553, "5.6.7", "An address that is not ASCII needs SMTPUTF8")
TOO_MANY_ERRORS: Final = Reply(421, "4.7.0", "Too many errors, closing the connection")
SHUTTING_DOWN: Final = Reply(421, "4.3.2", "The server is shutting down, try again later")
IDLE: Final = Reply(421, "4.4.2", "Nothing came for too long, closing the connection")
LINE_FAULTS: Final = {
    LineFault.TOO_LONG: Reply(500, "5.5.2", "Line too long"),
    LineFault.BARE: Reply(500, "5.5.2", "Lines must end with CR LF, and have neither alone"),
    LineFault.ENDLESS: Reply(421, "4.5.0", "Line without an end, closing the connection"),
}

# The permanent and the temporary form of each refusal.
REFUSALS: Final[Mapping[Refusal, tuple[tuple[int, str], tuple[int, str]]]] = {
    Refusal.NO_SUCH_RECIPIENT: ((550, "5.1.1"), (450, "4.1.1")),
    # section 3.6.2: "a 550 reply code" for relaying that is not wanted
    Refusal.RELAY_DENIED: ((550, "5.7.1"), (450, "4.7.1")),
    # permanent, so that the sender learns of it now and not after days of retries; X.3.2: "system not accepting
    # network messages" is the code that says the fault is in this server and not in the address
    Refusal.NO_QUEUE: ((550, "5.3.2"), (450, "4.3.2")),
    Refusal.RECIPIENT_DISABLED: ((550, "5.2.1"), (450, "4.2.1")),
    Refusal.MAILBOX_FULL: ((552, "5.2.2"), (452, "4.2.2")),
    Refusal.TOO_LARGE: ((552, "5.3.4"), (452, "4.3.4")),
    Refusal.BAD_ADDRESS: ((553, "5.1.3"), (450, "4.1.3")),
    Refusal.LOOP: ((554, "5.4.6"), (450, "4.4.6")),
    Refusal.SENDER_NOT_ALLOWED: ((550, "5.7.1"), (450, "4.7.1")),
    Refusal.UNAVAILABLE: ((554, "5.3.0"), (451, "4.3.0")),
    # X.3.1: "mail system storage has been exceeded"
    Refusal.NO_ROOM: ((552, "5.3.1"), (452, "4.3.1")),
    Refusal.POLICY: ((550, "5.7.1"), (451, "4.7.1")),
}

# RFC 4954 section 6 and RFC 5248; by `AuthenticationFailed.reason`.
AUTHENTICATION: Final[Mapping[str, tuple[int, str]]] = {
    "credentials": (535, "5.7.8"),
    "privacy": (538, "5.7.11"),
    "disabled": (525, "5.7.13"),
    "throttled": (454, "4.7.0"),
    "malformed": (501, "5.5.2"),
    "cancelled": (501, "5.7.0"),
    "unavailable": (454, "4.7.0"),
}


def refused(error: MailRefused) -> Reply:
    """What *error* is to the peer."""
    permanent, temporary = REFUSALS[error.reason]
    code, enhanced = temporary if error.temporary else permanent
    if error.code:
        code, enhanced = error.code, error.enhanced
    # a policy may be somebody's own words (RFC 5429 section 2.5)
    return Reply(code, enhanced, error.text, several=error.reason is Refusal.POLICY)


def authentication_failed(error: AuthenticationFailed) -> Reply:
    """What *error* is to the peer."""
    code, enhanced = AUTHENTICATION.get(error.reason, AUTHENTICATION["credentials"])
    if error.temporary and code >= 500:
        code, enhanced = AUTHENTICATION["unavailable"]
    return Reply(code, enhanced, error.text)


def for_one(outcome: Outcome) -> Reply:
    """LMTP: the reply for one recipient (RFC 2033 section 4.2)."""
    if outcome.refused is not None:
        return refused(outcome.refused)
    return Reply(250, "2.1.5", f"<{outcome.recipient.address}> delivered")


def for_all(outcomes: Sequence[Outcome]) -> Reply:
    """SMTP: one reply for all recipients, and 250 only if each has the message.

    If some failed for now, the client is to come back with all: those that have it get it twice, which is better than
    mail that is lost. If some failed for ever and none for now, the sender is told that it failed.
    """
    failed = [refused(outcome.refused) for outcome in outcomes if outcome.refused is not None]
    if not failed:
        first = outcomes[0].delivery
        return Reply(250, "2.0.0", f"Accepted as {first}" if first is not None else "Accepted")
    return next((reply for reply in failed if reply.temporary), failed[0])
