"""MAIL and RCPT as they are sent (RFC 5321 section 4.1.1) with what the server has offered to understand, and what is
refused before it is sent because the server has not."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from typing import Final, Protocol

import idna

from twisted_mail.smtp.client.offers import Offers
from twisted_mail.smtp.client.replies import Heard, Reply, Stage

__all__ = ["Addressee", "Envelope", "encode_xtext", "mail_line", "portion", "rcpt_line", "refused"]

RECIPIENTS: Final = 100
"""Of one transaction, where the server has not said how many it takes (RFC 5321 section 4.5.3.1.8)."""
ENVELOPE_ID_BYTES: Final = 100
"""RFC 3461 section 4.4."""
ORIGINAL_RECIPIENT_BYTES: Final = 500
"""RFC 3461 section 4.2."""

_control = re.compile("[\x00-\x1f\x7f-\x9f]")
_xtext = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")
_not_xchar = re.compile(rb"[^!-*,-<>-~]")
_original = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*;(?:[^\x00-\x20+=\x7f-\x9f]|\+[0-9A-F]{2})+")


class Addressee(Protocol):
    """One recipient."""

    @property
    def address(self) -> str:
        """Without angle brackets."""

    @property
    def notify(self) -> Set[str]:
        """NOTIFY (RFC 3461 section 4.1); empty: not given."""

    @property
    def original(self) -> str:
        """ORCPT with its type, in xtext; empty: not given."""


class Envelope(Protocol):
    """One message, without its recipients."""

    @property
    def sender(self) -> str:
        """Empty: the null reverse-path."""

    @property
    def size(self) -> int:
        """Octets."""

    @property
    def eight_bit(self) -> bool:
        """Octets above 127 are in it."""

    @property
    def smtputf8(self) -> bool:
        """An address or the header needs RFC 6531."""

    @property
    def envelope_id(self) -> str:
        """ENVID (RFC 3461) in xtext, or empty."""

    @property
    def dsn_return(self) -> str:
        """RET: FULL, HDRS or empty."""

    @property
    def deliver_by(self) -> tuple[float, str] | None:
        """Seconds left, and ``R`` or ``N`` with or without ``T`` (RFC 2852)."""

    @property
    def priority(self) -> int | None:
        """MT-PRIORITY (RFC 6710)."""

    @property
    def requiretls(self) -> bool:
        """RFC 8689."""


def encode_xtext(text: str) -> str:
    """RFC 3461 section 4."""
    return _not_xchar.sub(lambda match: b"+%02X" % match[0][0], text.encode()).decode("ascii")


def in_ascii(address: str) -> str | None:
    """*address* with its domain as A-labels; None: the local part is not ASCII, so RFC 6531 is needed for it."""
    if address.isascii():
        return address
    local, _, domain = address.rpartition("@")
    if not local.isascii():
        return None
    try:
        return f"{local}@{idna.encode(domain, uts46=True).decode('ascii')}"
    except idna.IDNAError:
        return None


def _own(code: int, enhanced: str, text: str, stage: Stage, *, about_connection: bool = False) -> Heard:
    return Heard(Reply(code, enhanced, text, remote=False), stage, about_connection)


def refused(message: Envelope, offers: Offers) -> Heard | None:
    """Why the message cannot go to a server with these *offers*, whoever its recipients are."""
    if _control.search(message.sender):
        return _own(553, "5.1.7", "The sender's address has control characters in it", Stage.MAIL)
    if offers.size and message.size > offers.size:
        text = f"The message has {message.size} octets, and the server takes {offers.size} at most"
        return _own(552, "5.3.4", text, Stage.MAIL)
    if message.requiretls and not offers.requiretls:
        # RFC 8689 section 4.2.1; another server of the domain may
        return _own(550, "5.7.30", "The server does not offer REQUIRETLS", Stage.MAIL, about_connection=True)
    if message.eight_bit and not offers.eight_bit:
        return _own(554, "5.6.3", "The message has 8-bit data, and the server does not offer 8BITMIME", Stage.MAIL)
    if not message.sender.isascii() and not offers.smtputf8 and in_ascii(message.sender) is None:
        return _own(553, "5.6.7", "The sender's address needs SMTPUTF8, and the server does not offer it", Stage.MAIL)
    if message.deliver_by is not None and message.deliver_by[1][:1] == "R":
        seconds = message.deliver_by[0]
        if seconds <= 0:
            return _own(550, "5.4.7", "The time by which it was to be delivered has passed", Stage.MAIL)
        if offers.deliver_by is None:  # RFC 2852 section 4.1.5
            return _own(550, "5.4.7", "The server does not offer DELIVERBY", Stage.MAIL)
        if seconds < offers.deliver_by:
            text = f"The server wants {offers.deliver_by} seconds at least to deliver by"
            return _own(550, "5.4.7", text, Stage.MAIL)
    return None


def mail_line(message: Envelope, offers: Offers, *, utf8: bool) -> str:
    """MAIL with its parameters and CRLF. Parameters that the server has not offered are left out.

    *utf8*: the message or one of its recipients needs SMTPUTF8.
    """
    sender = message.sender
    words = [f"MAIL FROM:<{sender if offers.smtputf8 else in_ascii(sender) or sender}>"]
    if offers.size is not None:
        words.append(f"SIZE={message.size}")
    if message.eight_bit and offers.eight_bit:
        words.append("BODY=8BITMIME")
    if utf8 and offers.smtputf8:
        words.append("SMTPUTF8")
    if offers.dsn:
        if message.dsn_return:
            words.append(f"RET={message.dsn_return}")
        if message.envelope_id:
            known = message.envelope_id
            words.append(f"ENVID={(known if _xtext.fullmatch(known) else encode_xtext(known))[:ENVELOPE_ID_BYTES]}")
    if message.deliver_by is not None and offers.deliver_by is not None:
        seconds, mode = message.deliver_by
        if offers.deliver_by <= seconds or mode[:1] == "N":
            words.append(f"BY={max(min(int(seconds), 999_999_999), -999_999_999)};{mode}")
    if message.priority is not None and offers.priority:
        words.append(f"MT-PRIORITY={message.priority}")
    if message.requiretls:
        words.append("REQUIRETLS")
    return " ".join(words) + "\r\n"


def rcpt_line(addressee: Addressee, offers: Offers) -> str | Heard:
    """RCPT with its parameters and CRLF; or why this recipient cannot be given to the server."""
    address = addressee.address
    if not address.isascii() and not offers.smtputf8:
        converted = in_ascii(address)
        if converted is None:
            return _own(553, "5.6.7", "The address needs SMTPUTF8, and the server does not offer it", Stage.RCPT)
        address = converted
    if _control.search(address):
        return _own(553, "5.1.3", "The address has control characters in it", Stage.RCPT)
    line = f"RCPT TO:<{address}>"
    if offers.dsn:
        if addressee.notify:
            line += f" NOTIFY={','.join(sorted(addressee.notify))}"
        original = addressee.original
        if (
            original
            and (offers.smtputf8 or original.isascii())
            and len(original.encode()) <= ORIGINAL_RECIPIENT_BYTES
            and _original.fullmatch(original)
        ):
            line += f" ORCPT={original}"
    return line + "\r\n"


def portion(addressees: Sequence[Addressee], offers: Offers) -> int:
    """How many of *addressees*, from the first, may go into one transaction (RFC 9422); at least 1."""
    most = min(len(addressees), offers.most_recipients or RECIPIENTS)
    if offers.most_domains and most > 1:
        domains: set[str] = set()
        for count in range(most):
            domains.add(addressees[count].address.rpartition("@")[2].lower())
            if len(domains) > offers.most_domains:
                return max(count, 1)
    return most
