"""A kind of server is gone altogether: what is answered meanwhile, how soon, and that all of it holds afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.faults.cluster import House
from tests.faults.house import ACCOUNTS, PASSWORD
from tests.faults.plan import Victim
from tests.faults.probes import Answer, Probe
from tests.faults.records import Outcome
from tests.faults.wire import Cut, IMAPClient
from tests.services.mail import MailNode

REFUSAL_SECONDS = 5.0
SLACK_SECONDS = 3.0
"""The machine is shared with a dozen servers."""
ANN = ACCOUNTS[0]


@asynccontextmanager
async def paused(house: House, what: str, victims: Sequence[Victim]) -> AsyncIterator[None]:
    """None of them answers, and none closes anything."""
    house.recorder.note(f"pause {what}")
    for victim in victims:
        victim.pause()
    try:
        yield
    finally:
        for victim in victims:
            victim.resume()
        house.recorder.note(f"{what} is back")


async def until_answered(probe: Probe, node: MailNode, seconds: float, service: str = "smtp") -> Answer:
    """Deliveries until one is answered 250. Raises AssertionError."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while (answer := await probe.deliver(node, service=service)).outcome is not Outcome.ANSWERED:
        assert loop.time() < end, answer
        await asyncio.sleep(0.5)
    return answer


async def until_there(probe: Probe, client: IMAPClient, token: str, seconds: float) -> int:
    """The UID of a message in INBOX, once it is there. Raises AssertionError."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while True:
        try:
            if (uid := (await probe.there(client)).get(token)) is not None:
                return uid
        except Cut as cut:  # also a SELECT that is refused for now
            assert loop.time() < end, cut
        assert loop.time() < end, f"{token} has not arrived"
        await asyncio.sleep(0.5)


async def _quorum_lost(house: House) -> None:
    probe = Probe(house.recorder, ANN, PASSWORD, 11)
    mx, imap = house.cluster.nodes["mx1"], house.cluster.nodes["imap1"]
    first = await until_answered(probe, mx, 60)
    client = await probe.session(imap)
    uid = await until_there(probe, client, first.token, 60)
    impatient = await probe.session(imap, seconds=3)
    await probe.there(impatient)
    readers = [await probe.session(house.cluster.nodes[name]) for name in ("imap1", "imap2")]
    async with paused(house, "two of three Cassandra nodes", house.of("cassandra")[1:]):
        # the first change may have been proposed before anybody knew: it waits without an answer, and its client leaves
        await probe.store(impatient, uid, first.token, "$early")
        impatient.abort()
        answers = []
        for _ in range(3):
            answers.append(await probe.store(client, uid, first.token))
            if answers[-1].outcome is Outcome.UNKNOWN:
                client = await probe.session(imap)
        refused = [answer for answer in answers if answer.outcome is Outcome.REFUSED]
        assert refused, answers
        for answer in refused[1:]:
            assert answer.seconds < REFUSAL_SECONDS + SLACK_SECONDS, answer
            assert "UNAVAILABLE" in answer.text, answer
        # reads go on, and say that they may be old
        for reader in readers:
            reply = await reader.command("SELECT INBOX")
            assert reply.ok and "[READ-ONLY]" in reply.text, reply
            assert reply.code("HIGHESTMODSEQ") is None, reply
            assert first.token in await probe.there(reader)
        waiting = [await probe.deliver(mx) for _ in range(3)]
        assert [answer.outcome for answer in waiting] == [Outcome.ANSWERED] * 3, waiting
    for answer in waiting:
        await until_there(probe, readers[1], answer.token, 90)


async def _nats_lost(house: House) -> None:
    probe = Probe(house.recorder, ANN, PASSWORD, 12)
    nodes = house.cluster.nodes
    await until_answered(probe, nodes["mx1"], 60)
    writer, watcher = await probe.session(nodes["imap1"]), await probe.session(nodes["imap2"])
    before = len(await probe.there(watcher))
    async with paused(house, "all of NATS", house.of("nats")):
        answer = await probe.deliver(nodes["mx1"], seconds=120)
        assert answer.outcome is Outcome.REFUSED and answer.text.startswith("4"), answer
        # a node that may deliver does so
        straight = await probe.deliver(nodes["worker1"], service="lmtp", seconds=120)
        assert straight.outcome is Outcome.ANSWERED, straight
        # what changes is seen without notifications
        appended = await probe.append(writer, nodes["imap1"])
        assert appended.outcome is Outcome.ANSWERED, appended
        heard = False
        async with watcher.idle():
            for _ in range(20):
                response = await watcher.untagged(1.0)
                count = response.number("EXISTS") if response is not None else None
                heard = heard or (count is not None and count > before)
                if heard:
                    break
        assert heard, "nothing was heard in 20 s"
    again = await until_answered(probe, nodes["mx1"], 60)
    await until_there(probe, writer, again.token, 90)


async def _objects_lost(house: House) -> None:
    probe = Probe(house.recorder, ANN, PASSWORD, 13)
    nodes = house.cluster.nodes
    small, large = await until_answered(probe, nodes["mx1"], 60), await probe.deliver(nodes["mx1"], 200_000)
    client = await probe.session(nodes["imap1"])
    uids = [await until_there(probe, client, answer.token, 60) for answer in (small, large)]
    async with paused(house, "VersityGW", house.of("versity")):
        reply = await client.command(f"UID FETCH {uids[0]} (BODY.PEEK[])")
        assert reply.ok and any(small.token.encode() in r.literals[0] for r in reply.untagged if r.literals), reply
        reply = await client.command(f"UID FETCH {uids[1]} (BODY.PEEK[1])")
        assert reply.ok and any(r.literals for r in reply.untagged), reply
        for section in ("2", ""):
            reply = await client.command(f"UID FETCH {uids[1]} (BODY.PEEK[{section}])")
            assert not reply.ok and "UNAVAILABLE" in reply.text, (section, reply)
        waiting = [await probe.deliver(nodes["mx1"], size, seconds=120) for size in (2_000, 200_000)]
        assert [answer.outcome for answer in waiting] == [Outcome.ANSWERED] * 2, waiting
    for answer in waiting:
        await until_there(probe, client, answer.token, 90)


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_without_a_quorum_changes_are_refused_and_mail_waits(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.live(lambda: _quorum_lost(house))


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_without_nats_mail_that_would_have_to_wait_is_refused_for_now_and_the_rest_goes_on(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.live(lambda: _nats_lost(house))


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_without_the_object_store_text_is_read_and_new_mail_waits(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.live(lambda: _objects_lost(house))
