"""Why an account did not do what was asked. Protocols put these into their own codes."""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AccountError",
    "AccountUnavailable",
    "CannotChange",
    "InvalidMailboxName",
    "LimitReached",
    "MailboxExists",
    "MailboxHasChildren",
    "NoSuchMailbox",
    "NoSuchMessage",
    "OutcomeUnknown",
    "OverQuota",
    "Refused",
    "UseTaken",
]


class AccountError(Exception):
    """Base of everything that `Account` raises; `temporary` means that a later retry can succeed."""

    temporary: ClassVar[bool] = False


class Refused(AccountError):
    """The intent cannot be carried out on the newest state. Nothing was written."""


class NoSuchMailbox(Refused):
    """No mailbox of that name or id (RFC 5530 NONEXISTENT; TRYCREATE for targets)."""


class NoSuchMessage(Refused):
    """The message is not (or no longer) in the mailbox."""


class MailboxExists(Refused):
    """A mailbox of that name exists (RFC 5530 ALREADYEXISTS)."""


class MailboxHasChildren(Refused):
    """The mailbox has inferior names (RFC 5530 HASCHILDREN)."""


class InvalidMailboxName(Refused):
    """The name cannot be a mailbox's (RFC 5530 CANNOT)."""


class CannotChange(Refused):
    """What was asked can never be done to this mailbox (RFC 5530 CANNOT)."""


class UseTaken(Refused):
    """Another mailbox has that special use (RFC 6154 USEATTR)."""


class LimitReached(Refused):
    """One more would be too many (RFC 5530 LIMIT)."""


class OverQuota(Refused):
    """The account would exceed its quota (RFC 5530 OVERQUOTA)."""


class AccountUnavailable(AccountError):
    """The store does not answer; nothing was written, and nothing of this will be."""

    temporary: ClassVar[bool] = True


class OutcomeUnknown(AccountError):
    """An entry was proposed and could not be settled within the time limit: it may still come to stand.

    Whoever gets this must not say that it failed: SMTP queues or says 451, IMAP ends the connection.
    """

    temporary: ClassVar[bool] = True
