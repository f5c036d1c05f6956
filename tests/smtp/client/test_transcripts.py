"""The conversations of the RFCs, and some that go wrong, whole and cut everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.smtp.client.talking import ROOT, by_octet, play

FILES = sorted(ROOT.glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_transcript(path: Path) -> None:
    play(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_transcript_an_octet_at_a_time(path: Path) -> None:
    if path.stem == "rfc3207-injection":
        pytest.skip("what comes behind the answer to STARTTLS goes to the handshake then, and breaks it")
    play(path, by_octet)


@given(path=st.sampled_from([path for path in FILES if path.stem != "rfc3207-injection"]), cuts=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_chunking_changes_nothing(path: Path, cuts: st.DataObject) -> None:
    def cut(data: bytes) -> list[bytes]:
        places = sorted({0, len(data), *cuts.draw(st.lists(st.integers(0, len(data)), max_size=6))})
        return [data[a:b] for a, b in zip(places, places[1:])]

    play(path, cut)
