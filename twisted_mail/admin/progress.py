"""A progress bar on a terminal's stderr; nothing anywhere else."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

__all__ = ["Bar"]


class Bar:
    """How far a run through *total* octets is."""

    def __init__(self, title: str, total: int, *, shown: bool) -> None:
        self._title, self._total = title, total
        self._task = TaskID(0)
        self._progress: Progress | None = None
        if shown and sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
            self._task = self._progress.add_task(self._title, total=self._total)
        return self

    def advance(self, octets: int) -> None:
        """So much more is done."""
        if self._progress is not None:
            self._progress.advance(self._task, octets)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
