"""Compares blobs that are needed with blobs that are there: the sweeper takes garbage, and nothing else, at any time.

Pure, as `checker` is. Two views: what the stores say of themselves at the end, and what was seen of the object store while
clients worked, beside when their messages were certainly alive.
"""

from __future__ import annotations

from collections.abc import Collection

from tests.faults.checker import Violation
from tests.faults.holdings import Holdings
from tests.faults.records import Outcome, Recorder
from tests.faults.warehouse import Presence

__all__ = ["check_blobs", "check_presence"]


def check_blobs(holdings: Holdings, taken: Collection[str]) -> list[Violation]:
    """What is needed is there, and its needer is written down, so that it stays. *taken*: objects that were there once.

    Codes: ``blob-missing``, ``blob-taken`` (it was there), ``blob-unheld``.
    """
    found = []
    there = set(holdings.there)
    for name, needers in holdings.needed.items():
        if name not in there:
            code = "blob-taken" if name in taken else "blob-missing"
            found.append(Violation(code, f"{name} is needed by {', '.join(needers[:3])}"))
        for needer in set(needers) - set(holdings.held.get(name, ())):
            found.append(Violation("blob-unheld", f"{name} is needed by {needer}, which does not hold it"))
    return found


def check_presence(recorder: Recorder, presence: Presence) -> list[Violation]:
    """While a message with an attachment was certainly alive, that attachment lay in the object store, in some generation.

    Alive: from when a client was shown it, or was answered its UID, until somebody began to expunge it. Code:
    ``blob-early``.
    """
    since: dict[tuple[str, str], float] = {}
    for shown in recorder.shown:
        since.setdefault((shown.account, shown.token), shown.at)
    until: dict[tuple[str, str], float] = {}
    for moved in recorder.moved:
        if moved.to is None:
            until.setdefault((moved.account, moved.token), moved.began)
    found = []
    for arrived in recorder.arrived:
        place = (arrived.account, arrived.token)
        begins = since.get(place)
        if arrived.outcome is Outcome.ANSWERED and arrived.uid:
            begins = min(arrived.ended, begins if begins is not None else arrived.ended)
        if not arrived.attached or begins is None:
            continue
        missed = presence.missed(arrived.attached, begins, until.get(place, float("inf")))
        if missed is not None:
            found.append(
                Violation(
                    "blob-early",
                    f"the attachment {arrived.attached} of {arrived.token} in {arrived.account} was not there"
                    f" at {missed[0]:.2f}, and the message was alive since {begins:.2f}",
                )
            )
    return found
