"""Other nodes hear of a changed script by the bus, and no delivery pays for that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.delivery.sorting_house import ANN, BOB, SortingHouse, SortingNode
from tests.delivery.support import run
from twisted_mail.delivery.script_news import hear_of_scripts, tag_of, tell_of_scripts
from twisted_mail.delivery.script_store import ScriptStore
from twisted_mail.delivery.scripts import ActiveScripts
from twisted_mail.sieve import compile_script


@pytest.fixture
def house(tmp_path: Path) -> SortingHouse:
    return SortingHouse(tmp_path)


def listening(house: SortingHouse) -> SortingNode:
    node = SortingNode(house)
    hear_of_scripts(house.engine.bus, node.scripts.forget_tagged)
    return node


def test_a_script_that_is_uploaded_counts_at_once_on_every_node(house: SortingHouse) -> None:
    nodes = [listening(house), listening(house)]
    for node in nodes:
        house.give(node, ANN)
        house.give(node, BOB)
    asked = [node.directory._death.operations for node in nodes]
    store = ScriptStore(
        house.engine.directory, compile_script, (), changed=lambda account: tell_of_scripts(house.engine.bus, account)
    )
    run(store.put(house.people[ANN], "rules", "discard;"))
    run(store.activate(house.people[ANN], "rules"))
    house.clock.advance(0)
    before = [calls.count("scripts") for calls in asked]
    for node in nodes:
        house.give(node, ANN)
        house.give(node, BOB)
        house.give(node, ANN)
    assert house.boxes(nodes[0], ANN) == {"INBOX": 2}, "what came before"
    after = [calls.count("scripts") for calls in asked]
    assert after == [count + 1 for count in before], "nobody asks but for the one whose scripts have changed, and once"


def test_a_node_that_has_stopped_hears_nothing(house: SortingHouse) -> None:
    heard: list[int] = []
    end = hear_of_scripts(house.engine.bus, heard.append)
    tell_of_scripts(house.engine.bus, house.people[ANN])
    house.clock.advance(0)
    assert heard == [tag_of(house.people[ANN])]
    end()
    tell_of_scripts(house.engine.bus, house.people[ANN])
    house.clock.advance(0)
    assert len(heard) == 1


def test_what_was_looked_up_while_it_changed_is_not_remembered(house: SortingHouse) -> None:
    class Slow:
        """Answers with what there was when it was asked."""

        def __init__(self) -> None:
            self.waiting: list[Deferred[None]] = []

        def __getattr__(self, name: str) -> Any:
            async def call(*arguments: Any) -> Any:
                answer = await getattr(house.engine.directory, name)(*arguments)
                if name == "scripts" and not self.waiting:
                    self.waiting.append(Deferred())
                    await self.waiting[0]
                return answer

            return call

    slow, ann = Slow(), house.people[ANN]
    scripts = ActiveScripts(slow, house.clock, compile_script)
    early = Deferred.fromCoroutine(scripts.active(ann))
    house.script(ANN, "discard;")
    scripts.forget_tagged(tag_of(ann))
    slow.waiting[0].callback(None)
    found: list[Any] = []
    early.addCallback(found.append)
    assert found == [None]
    active = run(scripts.active(ann))
    assert active is not None and active.name


def test_what_is_forgotten_for_want_of_room_leaves_nothing(house: SortingHouse) -> None:
    scripts = ActiveScripts(house.engine.directory, house.clock, compile_script, accounts=1)
    for name in (ANN, BOB):
        run(scripts.active(house.people[name]))
    assert len(scripts._accounts) == len(scripts._tags) == 1
    scripts.forget_tagged(tag_of(house.people[ANN]))
    scripts.forget(house.people[BOB])
    assert len(scripts._accounts) == len(scripts._tags) == 0
