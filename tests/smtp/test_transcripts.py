"""Every transcript, fed by blocks, octet by octet, and all at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.smtp.transcripts import ROOT, Feeding, load, play

FILES = sorted((*ROOT.glob("smtp/*.txt"), *ROOT.glob("lmtp/*.txt")))


def test_there_are_transcripts() -> None:
    assert len(FILES) > 20


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
@pytest.mark.parametrize("feeding", ["blocks", "octets", "at once"])
def test_transcript(path: Path, feeding: Feeding) -> None:
    play(load(path), feeding)
