"""What can go wrong in a command: one line for the operator, a code for programs, and an exit status."""

from __future__ import annotations

import enum
from typing import Any

import click
from twisted.internet.defer import CancelledError

from twisted_mail.account.errors import AccountError, OverQuota
from twisted_mail.storage.interfaces import AlreadyExists, Conflict, Corrupt, NotFound, StorageError
from twisted_mail.tap.configuration import ConfigurationError
from twisted_mail.tap.listeners import StartError

__all__ = ["Problem", "Status", "problem_of"]


class Status(enum.IntEnum):
    """Exit statuses; 75 is EX_TEMPFAIL of sysexits.h: the same command may succeed later."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    TEMPORARY = 75
    INTERRUPTED = 130


class Problem(Exception):
    """A command ends here. *text* is one line without a final stop; *facts* go into the JSON error object."""

    def __init__(self, status: Status, code: str, text: str, **facts: Any) -> None:
        # the facts are whatever JSON can hold, hence Any
        super().__init__(text)
        self.status = status
        self.code = code
        self.text = text
        self.facts = facts

    def as_json(self) -> dict[str, Any]:
        """The error object that ``--json`` prints on stderr."""
        return {"error": {"code": self.code, "text": self.text, "exit": int(self.status), **self.facts}}


def problem_of(error: BaseException) -> Problem | None:
    """*error* as a Problem; None for what is a defect of ours and deserves its traceback."""
    match error:
        case Problem():
            return error
        case click.UsageError():
            return Problem(Status.USAGE, "usage", error.format_message())
        case click.exceptions.Abort() | CancelledError() | KeyboardInterrupt():
            return Problem(Status.INTERRUPTED, "interrupted", "interrupted")
        case click.ClickException():
            return Problem(Status.FAILED, "failed", error.format_message())
        case ConfigurationError():
            problems = [
                {"key": each.key, "text": each.text, "source": each.source, "line": each.line} for each in error.problems
            ]
            return Problem(Status.FAILED, "configuration", str(error), problems=problems)
        case NotFound():
            return Problem(Status.NOT_FOUND, "not-found", str(error))
        case AlreadyExists():
            return Problem(Status.CONFLICT, "exists", str(error))
        case Conflict():
            return Problem(Status.CONFLICT, "conflict", str(error))
        case Corrupt():
            return Problem(Status.FAILED, "corrupt", str(error))
        case StorageError():
            status = Status.TEMPORARY if error.temporary else Status.FAILED
            return Problem(status, "unavailable" if error.temporary else "storage", str(error))
        case OverQuota():
            return Problem(Status.FAILED, "over-quota", str(error))
        case AccountError():
            cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
            status = Status.TEMPORARY if error.temporary else Status.FAILED
            return Problem(status, "unavailable" if error.temporary else "refused", f"{error}{cause}")
        case StartError():
            return Problem(Status.FAILED, "start", str(error))
        case OSError():
            named = f"{error.filename}: " if error.filename else ""
            return Problem(Status.FAILED, "system", f"{named}{error.strerror or error}")
    return None
