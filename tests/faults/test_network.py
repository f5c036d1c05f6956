"""A mail node is cut off from its stores, all of them or Cassandra alone, by a network of its own; nobody else notices."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.faults.cluster import AWAY, House
from tests.faults.house import ACCOUNTS, PASSWORD
from tests.faults.plan import Victim, at_random
from tests.faults.probes import Probe
from tests.faults.records import Outcome
from tests.faults.test_outages import REFUSAL_SECONDS, SLACK_SECONDS, paused, until_answered, until_there
from tests.faults.wire import Cut, IMAPClient
from tests.services.mail import MailNode

ANN = ACCOUNTS[0]


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["network", "network to Cassandra"])
def test_what_clients_were_answered_holds_when_mail_nodes_are_cut_off_again_and_again(tmp_path: Path, kind: str) -> None:
    house = House(tmp_path, isolated=AWAY)
    counts = house.run(at_random({kind: house.of(kind)}, 9), 90, 9)
    assert counts["arrived answered"] > 20 and counts["stored answered"] > 20, counts


async def until_logged_in(probe: Probe, node: MailNode, seconds: float) -> IMAPClient:
    """A session, once *node* takes one. Raises Cut."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while True:
        try:
            return await probe.session(node)
        except Cut:
            if loop.time() > end:
                raise
        await asyncio.sleep(0.5)


async def _cut_off(house: House, kind: str) -> None:
    probe = Probe(house.recorder, ANN, PASSWORD, 21)
    nodes = house.cluster.nodes
    first = await until_answered(probe, nodes["mx2"], 60)
    inside, outside = await probe.session(nodes["imap2"]), await probe.session(nodes["imap1"])
    early = await probe.session(nodes["imap2"], seconds=3)
    await until_there(probe, early, first.token, 60)
    uid = await until_there(probe, inside, first.token, 60)
    await until_there(probe, outside, first.token, 60)
    cut: list[Victim] = [house.of(kind)[AWAY.index(name)] for name in ("mx2", "imap2")]
    async with paused(house, f"the {kind} of mx2 and imap2", cut):
        # the first change may have been proposed before anybody knew: it waits without an answer, and its client leaves
        proposed = await probe.store(early, uid, first.token, "$early")
        assert proposed.outcome is not Outcome.ANSWERED, proposed
        changes = [await probe.store(inside, uid, first.token, f"$cut{number}") for number in range(3)]
        assert [change.outcome for change in changes] == [Outcome.REFUSED] * 3, changes
        for change in changes[1:]:
            assert change.seconds < REFUSAL_SECONDS + SLACK_SECONDS and "UNAVAILABLE" in change.text, change
        mail = await probe.deliver(nodes["mx2"], seconds=120)
        if kind == "network":
            assert mail.outcome is Outcome.REFUSED and (mail.text.startswith("4") or "cut" in mail.text), mail
        # the others go on as if nothing were the matter
        assert (await probe.store(outside, uid, first.token, "$outside")).outcome is Outcome.ANSWERED
        other = await probe.deliver(nodes["mx1"])
        assert other.outcome is Outcome.ANSWERED, other
        await until_there(probe, outside, other.token, 60)
    again = await until_answered(probe, nodes["mx2"], 60)
    back = await until_logged_in(probe, nodes["imap2"], 60)
    for answer in (other, again):
        await until_there(probe, back, answer.token, 60)
    assert (await probe.store(back, uid, first.token, "$back")).outcome is Outcome.ANSWERED


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["network", "network to Cassandra"])
def test_a_node_that_is_cut_off_promises_nothing_and_comes_back(tmp_path: Path, kind: str) -> None:
    house = House(tmp_path, isolated=AWAY)
    house.live(lambda: _cut_off(house, kind))
