"""What is planted among the blobs is found, and nothing where nothing is wrong."""

from __future__ import annotations

import random

import pytest

from tests.faults.blobs import check_blobs, check_presence
from tests.faults.holdings import Holdings
from tests.faults.messages import attachment_of, make
from tests.faults.records import Arrived, Moved, Outcome, Recorder, Shown
from tests.faults.warehouse import Presence

ANN = "ann@demo.example"
A, B = "a" * 64, "b" * 64


def codes(holdings: Holdings, taken: set[str]) -> set[str]:
    return {violation.code for violation in check_blobs(holdings, taken)}


def test_what_is_needed_held_and_there_is_well_and_garbage_may_be_taken() -> None:
    assert not codes(Holdings({"x.0": ["m/1"]}, {"x.0": ["m/1", "q/1"], "y.0": ["m/dead"]}, ["x.0", "z.1"]), {"w.0"})
    assert not codes(Holdings({"x.1": ["m/1"]}, {"x.1": ["m/1"], "x.0": ["m/claimed-too-late"]}, ["x.1"]), {"x.0"})


@pytest.mark.parametrize(
    ("found", "holdings", "taken"),
    [
        ("blob-missing", Holdings({"x.0": ["m/1"]}, {"x.0": ["m/1"]}, []), set()),
        ("blob-missing", Holdings({"x.1": ["m/1"]}, {"x.1": ["m/1"]}, ["x.0"]), set()),
        ("blob-taken", Holdings({"x.0": ["q/1"]}, {"x.0": ["q/1"]}, []), {"x.0"}),
        ("blob-unheld", Holdings({"x.0": ["m/1"]}, {}, ["x.0"]), set()),
        ("blob-unheld", Holdings({"x.0": ["m/1", "m/2"]}, {"x.0": ["m/2"]}, ["x.0"]), set()),
    ],
)
def test_what_is_planted_in_the_stores_is_found(found: str, holdings: Holdings, taken: set[str]) -> None:
    assert codes(holdings, taken) == {found}


def presence(*looks: set[str]) -> Presence:
    """One look a second, each of a tenth."""
    found = Presence()
    for second, names in enumerate(looks):
        found.look(float(second), second + 0.1, names)
    return found


def recorder(shown_at: float | None = 1.0, expunged_at: float | None = None, *, uid: int = 0) -> Recorder:
    found = Recorder()
    found.keep(
        Arrived(
            token="t", account=ANN, mailbox="INBOX", outcome=Outcome.ANSWERED, digest="d", reply="", began=0.0, ended=0.5,
            uid=uid, validity=7 if uid else 0, attached=A,
        )
    )  # fmt: skip
    if shown_at is not None:
        found.keep(Shown(session="s", account=ANN, mailbox="INBOX", validity=7, uid=1, token="t", at=shown_at))
    if expunged_at is not None:
        found.keep(
            Moved(
                token="t", account=ANN, source="INBOX", to=None, outcome=Outcome.UNKNOWN, reported=False,
                began=expunged_at, ended=expunged_at + 1,
            )
        )  # fmt: skip
    return found


def test_a_content_may_change_its_generation_and_go_with_its_message() -> None:
    seen = presence(set(), {f"{A}.0"}, {f"{A}.0", f"{A}.1"}, {f"{A}.1"}, set())
    assert not check_presence(recorder(1.0, 3.5), seen)
    assert seen.taken() == {f"{A}.0", f"{A}.1"}
    assert not check_presence(recorder(None), presence(set(), set()))  # it may wait in the queue


@pytest.mark.parametrize(
    ("recorded", "looks"),
    [
        (recorder(1.0), [{f"{A}.0"}, {f"{A}.0"}, set(), {f"{A}.0"}]),
        (recorder(1.0), [{f"{A}.0"}, {f"{A}.0"}, {f"{B}.0"}, {f"{A}.1"}]),
        (recorder(1.0, 3.5), [{f"{A}.0"}, {f"{A}.0"}, set(), set()]),
        (recorder(None, uid=1), [set(), set()]),
    ],
)
def test_an_attachment_that_is_away_while_its_message_is_alive_is_found(recorded: Recorder, looks: list[set[str]]) -> None:
    assert [violation.code for violation in check_presence(recorded, presence(*looks))] == ["blob-early"]


def test_attachments_are_known_by_their_octets() -> None:
    chance = random.Random(1)
    attachments = {attachment_of(make("t", 150_000, chance)) for _ in range(20)}
    assert "" not in attachments and 3 < len(attachments) < 20  # some are shared
    assert attachment_of(make("t", 20_000, chance)) == ""
