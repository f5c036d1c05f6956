"""Every transcript, on the memory and the SQLite engine, fed in pieces of a command and octet by octet."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from tests.pop3.support import HouseCase
from tests.pop3.transcripts import ROOT, Feeding, load, play

FILES = sorted(ROOT.glob("*.txt"))


class TranscriptsTests(HouseCase):
    def test_there_are_transcripts(self) -> None:
        assert len(FILES) > 15


def _test(path: Path, engine: str, feeding: Feeding) -> Callable[[Any], Coroutine[Any, Any, None]]:
    async def test(self: Any) -> None:  # a HouseCase
        await play(load(path), await getattr(self, engine)(), feeding)

    return test


feedings: tuple[Feeding, ...] = ("whole", "octets")
for _path in FILES:
    for _engine in ("memory", "sqlite"):
        for _feeding in feedings:
            _name = f"test_{_path.stem.replace('-', '_')}_{_engine}_{_feeding}"
            setattr(TranscriptsTests, _name, _test(_path, _engine, _feeding))
