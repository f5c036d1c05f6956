"""Trace fields (RFC 5321 section 4.4), and seeing a message that goes round in circles (section 6.3)."""

from __future__ import annotations

import re
from email.utils import formatdate
from functools import lru_cache
from typing import Final

from twisted_mail.services import Envelope, Peer

__all__ = ["HopCount", "received_field", "return_path_field", "separator"]

_unsafe = re.compile(r"[\x00-\x20\x7f()<>\\;,\"]")
_received = re.compile(rb"^received[ \t]*:", re.MULTILINE | re.IGNORECASE)
_field = re.compile(rb"^[!-9;-~]+[ \t]*:", re.MULTILINE)
FIRST_FIELD: Final = 4096
"""Octets within which a message that has a header shows a field of it."""
ENOUGH: Final = 64
"""Octets of a line in which its field name has surely come."""


def return_path_field(sender: str) -> bytes:
    """``Return-Path`` for final delivery."""
    return f"Return-Path: <{sender}>\r\n".encode()


def _literal(peer: Peer) -> str:
    """The peer's address as an address-literal (RFC 5321 section 4.1.3)."""
    if ":" in peer.address:
        return f"[IPv6:{peer.address.partition('%')[0]}]"
    return f"[{peer.address}]"


def received_field(envelope: Envelope, *, hostname: str, id: str, seconds: float) -> bytes:
    """The ``Received`` field of one message, folded; *seconds* since 1970 is when it came.

    ``for`` is there only with a single recipient, so that nobody learns of another one (section 7.2).
    """
    helo = _unsafe.sub("?", envelope.helo) or "unknown"
    peer = envelope.peer
    lines = [f"Received: from {helo}" + (f" ({_literal(peer)})" if peer.address else "")]
    if peer.secure and peer.tls_description:
        lines.append(f"(using {_unsafe_comment(peer.tls_description)})")
    lines.append(f"by {hostname} with {envelope.protocol} id {id}")
    if len(envelope.recipients) == 1 and "@" in envelope.recipients[0].address:
        lines.append(f"for <{envelope.recipients[0].address}>")
    lines[-1] += ";"
    lines.append(_date(int(seconds)))
    return ("\r\n\t".join(lines) + "\r\n").encode()


@lru_cache(4)
def _date(seconds: int) -> str:
    """RFC 5322 section 3.3; many messages come in one second."""
    return formatdate(seconds, localtime=True)


def _unsafe_comment(text: str) -> str:
    return re.sub(r"[^ -'*-\[\]-~]", "?", text)


def separator(start: bytes, *, ended: bool) -> bytes | None:
    """What has to stand between trace fields and a message that begins with *start*; None: it takes more to say.

    Devices and scripts send text without any header field. Behind a trace field it would become part of the header,
    and nobody would be shown it; so it gets the blank line that makes it a body (RFC 5322 section 2.1). A message that
    has a field anywhere in its header, whatever the first line is, goes on as it is.
    """
    end = start.find(b"\r\n\r\n")
    if start.startswith(b"\r\n") or _field.search(start if end < 0 else start[:end]) is not None:
        return b""
    if ended:
        return b"\r\n" if start else b""
    return None if end < 0 and len(start) < FIRST_FIELD else b"\r\n"


class HopCount:
    """Counts the Received fields of a header as it comes."""

    __slots__ = ("_done", "_line", "count")

    def __init__(self) -> None:
        self.count = 0
        self._line = b""
        """The line that has begun; of one that was looked at already only a stand-in."""
        self._done = False

    def feed(self, chunk: bytes) -> None:
        """The next octets of the message."""
        if self._done:
            return
        text = self._line + chunk
        if text.startswith(b"\r\n"):
            self._done = True
            return
        end = text.find(b"\r\n\r\n")
        if end >= 0:
            self._done = True
            text = text[:end]
        else:
            end = text.rfind(b"\n") + 1
            self._line = text[end:]
            text = text[:end]
            if len(self._line) > ENOUGH:
                self.count += len(_received.findall(self._line))
                self._line = b"x\r" if self._line.endswith(b"\r") else b"x"
        self.count += len(_received.findall(text))
