"""Which objects lay in the object store, and when: its folder is looked through several times a second while clients work."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = ["Presence", "Warehouse", "content_of"]

LOOK_SECONDS: Final = 0.3
_NAME: Final = re.compile(r"([0-9a-f]{64})-\d{1,18}(?:\.(\d{1,9}))?")


def content_of(name: str) -> str:
    """The content's hash in the name of an object (``hash.generation``)."""
    return name.partition(".")[0]


@dataclass(slots=True)
class Presence:
    """What was seen. Pure: a test may make one up."""

    looks: list[tuple[float, float]] = field(default_factory=list)
    """When each look began and ended, by the recorder's clock."""
    spans: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """By object (``hash.generation``): from which look to which it was there without a gap."""

    def look(self, began: float, ended: float, names: Iterable[str]) -> None:
        """One look, at which these were there."""
        number = len(self.looks)
        self.looks.append((began, ended))
        for name in names:
            spans = self.spans.setdefault(name, [])
            if spans and spans[-1][1] == number - 1:
                spans[-1] = (spans[-1][0], number)
            else:
                spans.append((number, number))

    def taken(self) -> set[str]:
        """Objects that were there, and are not there at the end."""
        return {name for name, spans in self.spans.items() if spans[-1][1] < len(self.looks) - 1}

    def missed(self, content: str, since: float, until: float) -> tuple[float, float] | None:
        """The first look between these times at which no generation of *content* was there; None: it always was."""
        spans = [span for name, those in self.spans.items() if content_of(name) == content for span in those]
        for number, (began, ended) in enumerate(self.looks):
            if began >= since and ended <= until and not any(low <= number <= high for low, high in spans):
                return began, ended
        return None


class Warehouse:
    """Looks through *folder*, the bucket of a gateway over local files, in a thread of its own."""

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self.presence = Presence()
        self._folder, self._clock = folder, clock
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="warehouse", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """After one last look. Again is harmless."""
        if not self._ended.is_set():
            self._ended.set()
            if self._thread.is_alive():
                self._thread.join()
            self._look()

    def paths(self) -> dict[str, Path]:
        """Where each object's file is."""
        found = {}
        for folder, _, files in os.walk(self._folder):
            for file in files:
                if match := _NAME.fullmatch(file):
                    found[f"{match[1]}.{match[2] or 0}"] = Path(folder) / file
        return found

    def _look(self) -> None:
        began = self._clock()
        names = self.paths()
        self.presence.look(began, self._clock(), names)

    def _watch(self) -> None:
        while not self._ended.is_set():
            begun = time.monotonic()
            self._look()
            self._ended.wait(max(LOOK_SECONDS, 3 * (time.monotonic() - begun)))
