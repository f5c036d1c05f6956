"""Dead domains and a campaign among others' mail: neither delays what can be delivered. The clock is the test's own, so that times
are exact; `benchmarks.queue_million` does the same on a real queue."""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.relay.house import DEAD, MESSAGE, Node, RelayHouse
from twisted_mail.relay.destinations import Destinations, DestinationSettings
from twisted_mail.relay.streams import NORMAL, Match, Stream, Streams

STEP = 0.25
CONNECT_SECONDS = 30.0


def p99(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)]


def delays(folder: Path, dead: int, *, domains: int = 300, items: int = 1600, rate: int = 40) -> list[float]:
    """Seconds that each message to a domain that lives took; *rate* a second are put in, over all domains, of which *dead* do not
    answer. A transaction takes half a second: so a third of the node's conversations are busy with those that live."""
    folder.mkdir()
    house = RelayHouse(folder)
    node = Node(house, concurrent=60, slow=600)
    random = Random(9)
    for number in range(domains):
        house.world.seconds[f"d{number}.test"] = CONNECT_SECONDS if number < dead else 0.5
        if number < dead:
            house.world.answers[f"d{number}.test"] = lambda address: DEAD
    node.worker.start()
    put: dict[str, float] = {}
    for number in range(items):
        domain = random.randrange(domains)
        address = f"u{number}@d{domain}.test"
        put[address] = house.clock.seconds()
        node.give(address, message=MESSAGE + b"%d\r\n" % number)
        if number % int(rate * STEP) == 0:
            house.clock.advance(STEP)
    house.go_on(20, STEP)
    done = {address: attempt.at for attempt in house.world.attempts for address in attempt.addresses}
    live = [address for address in put if address.partition("@")[2] not in house.world.answers]
    assert all(address in done for address in live)
    return [done[address] - put[address] for address in live]


def test_dead_domains_do_not_delay_those_that_live(tmp_path: Path) -> None:
    without, among = delays(tmp_path / "without", 0), delays(tmp_path / "with", 30)
    assert p99(among) <= p99(without) * 1.2
    assert max(among) <= max(without) * 1.2


def test_a_campaign_delays_no_normal_mail_not_to_the_same_domain_either(tmp_path: Path) -> None:
    house = RelayHouse(tmp_path)
    node = Node(house, concurrent=20)
    marketing = Stream("marketing", ("bulk",), Match(sender=("news@example.org",)), bulk=True)
    node.outgoing.streams = Streams([marketing, Stream(NORMAL, ("main",))])
    for number in range(600):
        domain = "big.test" if number % 2 else f"d{number}.test"
        house.world.seconds[domain] = 5.0
        node.give(f"reader{number}@{domain}", sender="news@example.org")
    node.worker.start()
    house.go_on(10, STEP)
    for number in range(6):
        began = house.clock.seconds()
        house.world.seconds[f"f{number}.test"] = 0.25
        house.world.seconds["big.test"] = 0.25
        node.give(f"friend{number}@f{number}.test")
        node.give(f"friend{number}@big.test")
        house.world.seconds["big.test"] = 5.0 if number % 2 else 0.25
        house.go_on(6, STEP)
        for address in (f"friend{number}@f{number}.test", f"friend{number}@big.test"):
            [at] = [attempt.at for attempt in house.world.attempts if attempt.addresses == (address,)]
            assert at - began <= house.world.seconds[address.partition("@")[2]] + 2 * STEP
    assert len(house.items()) > 200, "the campaign is not over: it was there all the time"


def test_that_a_destination_is_down_is_remembered_when_others_are_forgotten(tmp_path: Path) -> None:
    clock = RelayHouse(tmp_path).clock
    destinations = Destinations(DestinationSettings(remembered=100), clock, lambda destination, jobs: None)  # type: ignore[arg-type,return-value]
    destinations.of("dead.test").heard([DEAD])
    alive = destinations.of("live.test")
    for number in range(1000):
        destinations.of(f"d{number}.test")
    assert destinations.of("dead.test").down_until > clock.seconds()
    assert destinations.of("live.test") is not alive
    for number in range(1000):
        destinations.of(f"gone{number}.test").heard([DEAD])
    assert len(destinations.all()) <= 201, "but not without end"
