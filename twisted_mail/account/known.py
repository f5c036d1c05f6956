"""Which intents that travelled between nodes have become entries: what is asked before such a one is appended."""

from __future__ import annotations

from typing import Final

from twisted_mail.values import ModSeq

__all__ = ["KnownIntents"]

KEPT: Final = 1024
"""Ids that are remembered of one account; older ones are looked up in its log."""


class KnownIntents:
    """The ids that the newest entries of an account bear."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, ModSeq] = {}
        self.since = ModSeq(0)
        """Every entry above this, up to the state, has been seen."""

    def begin(self, modseq: ModSeq) -> None:
        """The state starts anew at *modseq*."""
        self._numbers.clear()
        self.since = modseq

    def add(self, id: bytes, modseq: ModSeq) -> None:
        """Entry *modseq* bears *id*."""
        self._numbers[id] = modseq
        if len(self._numbers) > KEPT:
            self.since = self._numbers.pop(next(iter(self._numbers)))

    def number(self, id: bytes) -> ModSeq | None:
        """Of the entry that bears *id*, if that is above `since`."""
        return self._numbers.get(id)
