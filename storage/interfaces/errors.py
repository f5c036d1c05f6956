"""What an engine may raise."""

from __future__ import annotations

from typing import ClassVar

__all__ = ["AlreadyExists", "Conflict", "Corrupt", "NotFound", "Refused", "StorageError", "Trimmed", "Unavailable"]


class StorageError(Exception):
    """Base of everything an engine may raise; `temporary` means that a later retry can succeed."""

    temporary: ClassVar[bool] = False


class Conflict(StorageError):
    """A compare-and-set found something else than expected. Nothing was written."""


class Unavailable(StorageError):
    """The store does not answer. For an `append`: the outcome is not known and must be settled."""

    temporary: ClassVar[bool] = True


class Refused(Unavailable):
    """The store cannot do it now, and it is certain that nothing was or will be written."""


class Trimmed(StorageError):
    """Entries that were asked for have been trimmed: start from the checkpoint."""


class NotFound(StorageError):
    """What was named does not exist."""


class AlreadyExists(StorageError):
    """What was to be made exists."""


class Corrupt(StorageError):
    """What was read is not what was written."""
