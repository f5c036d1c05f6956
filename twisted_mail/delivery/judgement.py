"""What was found out about a message when it came, as far as its delivery needs it; it travels in the queue's item too."""

from __future__ import annotations

from typing import Final

import msgspec

from twisted_mail.filters.values import Action

__all__ = ["TRACE_BYTES", "Judgement", "Quarantined", "deliver_by_text", "read_deliver_by", "shortened", "with_envelope"]

TRACE_BYTES: Final = 2048
"""Of all trace lines, in an item of the queue, whose envelope has 8 KiB."""
MOST_PENDING: Final = 16
_LINE: Final = 400
_EXTRA: Final = 400


class Quarantined(Exception):
    """The message may get into no mailbox; an operator decides about it."""


class Judgement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The verdict over a message, the same for all its recipients but for what their accounts make of it."""

    action: Action = Action.ACCEPT
    score: float = 0.0
    """Points of spam."""
    by_score: bool = False
    """`action` is JUNK for the score alone: an account with a threshold of its own decides by that instead."""
    percent: int | None = None
    """0 to 100, for spamtest (RFC 5235); None: not tested."""
    virus: int = 0
    """0 to 5, for virustest: 0 not tested, 1 clean, 5 infected."""
    author_domain: str | None = None
    """The From field's domain if DMARC, DKIM or SPF vouch for it; empty: nothing does; None: it was not looked at."""
    peer: str = ""
    """The IP address that the message came from."""
    helo: str = ""
    host: str = ""
    """The peer's name as DNS confirms it (iprev); empty: not known."""
    verified: bool = False
    """The reverse-path is its sender's own: SPF or an aligned signature says so, or who logged in may use it."""
    login: str = ""
    """Who had logged in."""
    trace: tuple[str, ...] = ()
    """What was found, a sentence each; the owner of the message reads them."""
    pending: tuple[str, ...] = ()
    """Names of filters that did not answer, and are to be asked before it is delivered."""
    envelope: dict[str, str] = {}
    """More of the envelope as it was given, for RFC 6009: ``notify``, ``orcpt``, ``ret``, ``envid``, ``by``
    (see `deliver_by_text`)."""


def shortened(judgement: Judgement, most: int = TRACE_BYTES) -> Judgement:
    """The same with no more text than an item of the queue has room for."""
    kept: list[str] = []
    left = most
    for line in judgement.trace:
        line = line[:_LINE]
        left -= len(line.encode("utf-8", "replace")) + 4
        if left < 0:
            kept.append("…")
            break
        kept.append(line)
    return msgspec.structs.replace(
        judgement,
        trace=tuple(kept),
        helo=judgement.helo[:255],
        host=judgement.host[:255],
        login=judgement.login[:320],
        author_domain=judgement.author_domain[:255] if judgement.author_domain else judgement.author_domain,
        pending=judgement.pending[:MOST_PENDING],
        envelope={name[:32]: value[:_EXTRA] for name, value in list(judgement.envelope.items())[:8]},
    )


def with_envelope(judgement: Judgement | None, **given: str) -> Judgement | None:
    """The same with more of the envelope: what is empty was not given."""
    new = {name: value for name, value in given.items() if value}
    if not new:
        return judgement
    judgement = judgement or Judgement()
    return msgspec.structs.replace(judgement, envelope={**judgement.envelope, **new})


def deliver_by_text(deliver_by: tuple[int, str] | None, now: float) -> str:
    """BY (RFC 2852) as it is written down: until when, seconds since 1970, and the mode; empty where it was not given."""
    return "" if deliver_by is None else f"{int(now) + deliver_by[0]};{deliver_by[1]}"


def read_deliver_by(text: str) -> tuple[float, str] | None:
    """What `deliver_by_text` has written."""
    until, _, mode = text.partition(";")
    try:
        return (float(int(until)), mode) if mode else None
    except ValueError:
        return None
