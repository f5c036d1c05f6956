"""Deliveries among everything else that two nodes do at once: each stands once, and of a key one delivery answers."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule
from twisted.internet.defer import Deferred

from tests.account.test_machine import THEN, AccountMachine
from twisted_mail.account.delivering import ANSWERED, Delivered, DeliverMessage, Place, Remember
from twisted_mail.account.entries import decode_entry
from twisted_mail.account.errors import AccountUnavailable, OutcomeUnknown
from twisted_mail.account.intents import NewMessage
from twisted_mail.account.tree import CreateMailbox

FAR = 10**10
"""Nothing that is remembered runs out."""


class DeliveryMachine(AccountMachine):
    def __init__(self) -> None:
        super().__init__()
        self.tried: set[int] = set()
        self.answerers: dict[str, set[int]] = {"a": set(), "b": set()}
        self.defects: list[str] = []

    @rule(
        which=st.integers(0, 1),
        number=st.integers(0, 5),
        pick=st.integers(0, 3),
        make=st.booleans(),
        then=THEN,
    )
    def deliver(self, which: int, number: int, pick: int, make: bool, then: str) -> None:
        """A delivery, or a repetition of it, anywhere."""
        node = self.nodes[which]
        if not node.loaded:
            return
        key = "ab"[number % 2]
        places = (Place(self._box(which, pick)), Place(create=CreateMailbox.of("Made/here", 1))) if make else (Place(),)
        message = NewMessage(b"delivered" + self._next().to_bytes(7, "big"), 0, 10, 19_000, 1000)
        intent = DeliverMessage(
            delivery=bytes((number,)) * 16,
            message=message,
            places=places,
            repeated=number in self.tried,
            now=1,
            answers=(Remember(key, FAR),),
        )
        self.tried.add(number)

        def done(result: Delivered) -> None:
            if key in result.answers:
                self.answerers[key].add(number)

        def failed(failure: Any) -> None:
            if failure.check(AccountUnavailable, OutcomeUnknown) is None:
                self.defects.append(failure.getTraceback())

        Deferred.fromCoroutine(node.account.commit(intent)).addCallbacks(done, failed)
        for _ in range(0 if then == "queue" else 30):
            if not node.log.steps:
                break
            step = node.log.steps[0]
            if then != "go" and step.name == "append":
                step.go(then)
                break
            step.go()

    def teardown(self) -> None:
        super().teardown()
        assert self.defects == []
        standing: dict[bytes, int] = {}
        writers: dict[str, set[bytes]] = {"a": set(), "b": set()}
        for logged in self.shared.entries:
            entry = decode_entry(logged.data)
            if entry.delivery:
                standing[entry.delivery] = standing.get(entry.delivery, 0) + 1
                for change in entry.changes:
                    name = getattr(change, "name", "")
                    if name.startswith(ANSWERED):
                        writers[name.removeprefix(ANSWERED)].add(entry.delivery)
        assert set(standing.values()) <= {1}, "a delivery stands once"
        for key, who in self.answerers.items():
            assert len(writers[key]) <= 1, "one delivery writes that it answers"
            assert {bytes((number,)) * 16 for number in who} <= writers[key], "and only that one does"


DeliveryMachine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
DeliveryMachineTests = DeliveryMachine.TestCase
