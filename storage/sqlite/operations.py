"""The register of what the writer can do: named operations, so that they can come from another process.

An operation is a function of a `Transaction` and of arguments that msgpack can carry, and so is its result. It runs
inside a savepoint of a transaction that it shares with others; it may raise any StorageError.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Final, TypeVar

from twisted_mail.storage import interfaces
from twisted_mail.storage.interfaces import StorageError

__all__ = ["OPERATIONS", "REPEATABLE", "Transaction", "error_from_wire", "error_to_wire", "operation"]

# arguments and results differ by operation, hence Any
F = TypeVar("F", bound=Callable[..., Any])

OPERATIONS: Final[dict[str, Callable[..., Any]]] = {}
REPEATABLE: Final[set[str]] = set()
"""Operations that may be sent again when nobody knows whether they were carried out."""


class Transaction:
    """What an operation works with."""

    __slots__ = ("db", "now")

    def __init__(self, db: sqlite3.Connection, now: Callable[[], float]) -> None:
        self.db = db
        self.now = now
        """Seconds since 1970, of the process that writes."""


def operation(name: str, *, repeatable: bool = False) -> Callable[[F], F]:
    """Register the function as operation *name*. Raises: ValueError when there is one."""

    def register(function: F) -> F:
        if name in OPERATIONS:
            raise ValueError(f"two operations are called {name}")
        OPERATIONS[name] = function
        if repeatable:
            REPEATABLE.add(name)
        return function

    return register


def error_to_wire(error: Exception) -> tuple[str, str]:
    """Name and text of *error* for another process."""
    return (type(error).__name__ if isinstance(error, StorageError) else "StorageError", str(error))


def error_from_wire(name: str, text: str) -> StorageError:
    """The error that `error_to_wire` described."""
    kind = getattr(interfaces, name, None)
    if isinstance(kind, type) and issubclass(kind, StorageError):
        return kind(text)
    return StorageError(text)
