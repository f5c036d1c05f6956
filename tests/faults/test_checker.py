"""The checker finds what is planted, and nothing where nothing is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.faults.checker import check, missing
from tests.faults.records import Arrived, Kept, Moved, Outcome, Picture, Recorder, Shown, Stored, Vanished

ANN = "ann@demo.example"
ANSWERED, REFUSED, UNKNOWN = Outcome.ANSWERED, Outcome.REFUSED, Outcome.UNKNOWN


def arrived(token: str, outcome: Outcome = ANSWERED, at: float = 0.0, uid: int = 0, mailbox: str = "INBOX") -> Arrived:
    return Arrived(
        token=token, account=ANN, mailbox=mailbox, outcome=outcome, digest=f"d-{token}", reply="", began=at, ended=at + 1,
        uid=uid, validity=7 if uid else 0,
    )  # fmt: skip


def stored(token: str, on: bool, outcome: Outcome = ANSWERED, reported: bool = True) -> Stored:
    return Stored(token=token, account=ANN, flag="$e", on=on, outcome=outcome, reported=reported, began=0, ended=1)


def moved(token: str, to: str | None, outcome: Outcome = ANSWERED, reported: bool = True, uid: int = 0) -> Moved:
    return Moved(
        token=token, account=ANN, source="INBOX", to=to, outcome=outcome, reported=reported, began=3, ended=4,
        uid=uid, validity=7 if uid else 0,
    )  # fmt: skip


def kept(token: str, uid: int, mailbox: str = "INBOX", flags: tuple[str, ...] = ()) -> Kept:
    return Kept(mailbox=mailbox, validity=7, uid=uid, token=token, flags=frozenset(flags), digest=f"d-{token}")


def shown(token: str, uid: int, at: float = 0.0, session: str = "s") -> Shown:
    return Shown(session=session, account=ANN, mailbox="INBOX", validity=7, uid=uid, token=token, at=at)


def vanished(uid: int, at: float = 0.0) -> Vanished:
    return Vanished(session="s", account=ANN, mailbox="INBOX", validity=7, uid=uid, at=at)


Record = Arrived | Stored | Moved | Shown | Vanished


def codes(records: list[Record], *messages: Kept) -> set[str]:
    recorder = Recorder()
    for record in records:
        recorder.keep(record)
    return {violation.code for violation in check(recorder, [Picture(ANN, messages)])}


def test_all_is_well() -> None:
    assert not codes(
        [arrived("a"), arrived("b", UNKNOWN), arrived("c", UNKNOWN), arrived("d", REFUSED), arrived("e"), arrived("f"),
         stored("a", True), stored("a", False, REFUSED), moved("e", "Archive", uid=1), moved("f", None),
         shown("a", 1), shown("b", 2), shown("f", 3), vanished(3, 1.0)],
        kept("a", 1, flags=("$e", "\\Seen")), kept("b", 2), kept("e", 1, "Archive"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("found", "records", "messages"),
    [
        ("lost", [arrived("a")], []),
        ("double", [arrived("a")], [kept("a", 1), kept("a", 2)]),
        ("double", [arrived("a", UNKNOWN)], [kept("a", 1), kept("a", 2)]),
        ("double", [arrived("a"), moved("a", "Archive", UNKNOWN)], [kept("a", 1), kept("a", 1, "Archive")]),
        ("refused-appeared", [arrived("a", REFUSED)], [kept("a", 1)]),
        ("unasked", [], [kept("a", 1)]),
        ("misplaced", [arrived("a"), moved("a", "Archive")], [kept("a", 1)]),
        ("misplaced", [arrived("a"), moved("a", None)], [kept("a", 1)]),
        ("misplaced", [arrived("a"), moved("a", "Archive", REFUSED)], [kept("a", 1, "Archive")]),
        ("lost", [arrived("a"), moved("a", None, REFUSED)], []),
        ("lost", [arrived("a"), moved("a", "Archive", UNKNOWN)], []),
        ("flag", [arrived("a"), stored("a", True)], [kept("a", 1)]),
        ("flag", [arrived("a"), stored("a", True, REFUSED)], [kept("a", 1, flags=("$e",))]),
        ("flag", [arrived("a"), stored("a", True), stored("a", False)], [kept("a", 1, flags=("$e",))]),
        ("flag", [arrived("a"), stored("a", True, reported=False)], [kept("a", 1)]),
        ("octets", [arrived("a")], [replace(kept("a", 1), digest="other")]),
        ("uid-reused", [arrived("a"), arrived("b"), moved("a", None), shown("a", 1)], [kept("b", 1)]),
        ("uid-reused", [arrived("a", uid=5), shown("b", 5), arrived("b")], [kept("a", 5), kept("b", 6)]),
        ("uid-order", [arrived("a"), arrived("b"), shown("a", 2), shown("b", 1)], [kept("a", 2), kept("b", 1)]),
        ("uid-order", [arrived("a", at=0, uid=9), arrived("b", at=5, uid=8)], [kept("a", 9), kept("b", 8)]),
        ("validity", [arrived("a"), shown("a", 1)], [replace(kept("a", 1), validity=8)]),
        ("live-vanished", [arrived("a"), shown("a", 1), vanished(1)], [kept("a", 1)]),
    ],
)
def test_what_is_planted_is_found(found: str, records: list[Record], messages: list[Kept]) -> None:
    assert found in codes(records, *messages)


def test_an_unknown_change_may_have_been_made_or_not_and_also_later() -> None:
    for flags in ((), ("$e",)):
        assert not codes([arrived("a"), stored("a", True, UNKNOWN), stored("a", False)], kept("a", 1, flags=flags))
    for where in ("INBOX", "Archive"):
        assert not codes([arrived("a"), moved("a", "Archive", UNKNOWN)], kept("a", 1, where))
    assert not codes([arrived("a"), moved("a", None, UNKNOWN)])
    assert not codes([arrived("a", UNKNOWN), moved("a", "Archive", UNKNOWN)])


def test_a_flag_that_was_not_reported_may_have_met_a_message_on_its_way() -> None:
    records: list[Record] = [arrived("a"), stored("a", True, reported=False), moved("a", "Archive")]
    for flags in ((), ("$e",)):
        assert not codes(records, kept("a", 1, "Archive", flags))


def test_operations_at_the_same_time_have_no_order() -> None:
    assert not codes([arrived("a", at=0, uid=9), arrived("b", at=0.5, uid=8)], kept("a", 9), kept("b", 8))


def test_what_is_still_under_way_is_named() -> None:
    recorder = Recorder()
    for record in (arrived("a"), arrived("b"), arrived("c", UNKNOWN), moved("b", None)):
        recorder.keep(record)
    assert missing(recorder, [Picture(ANN, ())]) == {(ANN, "a")}
