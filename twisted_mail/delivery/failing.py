"""What happens to an item of the inbound queue whose attempt has failed.

`decide` is the one place that says so. Today there are two ends: another attempt later, or held, a dead letter that an
operator sees (`mailctl queue`) and lets go or deletes.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from twisted_mail.delivery.items import NewerVersion
from twisted_mail.delivery.judgement import Quarantined
from twisted_mail.filters.values import FilterDown
from twisted_mail.queueing.limits import TooSlow
from twisted_mail.storage.interfaces import Corrupt, NotFound, QueueItem, StorageError

__all__ = ["QUARANTINED", "Again", "Failure", "Hold", "Kind", "RetrySettings", "decide", "failure_of"]

QUARANTINED: Final = "550 5.7.1 quarantined: "
"""How the reply of an item begins that is held for what a filter says; the reason follows."""


class Kind(enum.Enum):
    """Why an attempt failed, as far as it matters for what comes next."""

    UNAVAILABLE = "the store does not answer"
    QUARANTINED = "it may get into no mailbox"
    GONE = "there is no such account any more"
    BROKEN = "it cannot be delivered as it is"


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that failed."""

    kind: Kind
    reply: str
    """What a peer would have been told: code, enhanced code (RFC 3463), text."""


@dataclass(frozen=True, slots=True)
class Again:
    """It is tried again in `delay` seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class Hold:
    """It waits for an operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySettings:
    """When a failed item is tried again, and how long."""

    first_seconds: float = 5.0
    most_seconds: float = 600.0
    """While the store is down: soon after it is back, without a crowd."""
    expire_seconds: float = 5 * 86_400.0
    crashes: int = 5
    """Attempts of which nothing was heard again, or that found the item broken, before it is held."""


def failure_of(error: Exception) -> Failure:
    """What *error* means for the item."""
    match error:
        case Quarantined():
            return Failure(Kind.QUARANTINED, f"{QUARANTINED}{error}")
        case FilterDown():
            return Failure(Kind.UNAVAILABLE, f"451 4.7.1 {error}")
        case Corrupt() | NotFound():
            return Failure(Kind.BROKEN, f"451 4.3.0 the message cannot be read: {error}")
        case NewerVersion():
            return Failure(Kind.UNAVAILABLE, f"451 4.3.0 {error}")
        case TooSlow():
            return Failure(Kind.UNAVAILABLE, "451 4.3.0 the store is slow")
        case StorageError():
            return Failure(Kind.UNAVAILABLE, f"451 4.3.0 {error}")
    temporary = getattr(error, "temporary", False)  # of an AccountError
    if temporary:
        return Failure(Kind.UNAVAILABLE, f"451 4.3.0 {error}")
    return Failure(Kind.BROKEN, f"451 4.3.0 {type(error).__name__}: {error}")


def decide(
    item: QueueItem, failure: Failure, now: float, settings: RetrySettings, random: Callable[[], float]
) -> Again | Hold:
    """What becomes of *item* at *now* (seconds since 1970); *random* gives 0 up to 1."""
    if failure.kind in (Kind.GONE, Kind.QUARANTINED) or now - item.created >= settings.expire_seconds:
        return Hold()
    if failure.kind is Kind.BROKEN and item.attempts >= settings.crashes:
        return Hold()
    delay = min(settings.first_seconds * 2.0 ** min(max(item.attempts - 1, 0), 30), settings.most_seconds)
    return Again(delay * (0.75 + random() / 2))
