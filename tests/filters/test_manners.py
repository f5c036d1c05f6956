"""A stranger on its way through all manners, run by the real gauntlet."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from tests.dns.fakes import TableDNS
from tests.filters.asking import DownCache, DownRecords, Message, ann, client, mail, now, recipient, started
from tests.filters.letters import NOW, SPAM
from twisted_mail.dns.values import DNSFailure
from twisted_mail.filters.builtin_score import BuiltinScore
from twisted_mail.filters.dnsbl import DNSBL, zones_from
from twisted_mail.filters.early_talkers import EarlyTalkers
from twisted_mail.filters.gauntlet import Gauntlet, Post
from twisted_mail.filters.greylisting import Greylisting
from twisted_mail.filters.helo import Helo
from twisted_mail.filters.iprev_stage import IPRevStage
from twisted_mail.filters.passage import Passage
from twisted_mail.filters.rates import DEFAULT_LIMITS, Rates, limits_from
from twisted_mail.filters.stages import Stage
from twisted_mail.filters.values import Action, Client, Mail
from twisted_mail.storage.memory import MemoryAllowances, MemoryCache, MemoryRecords

PEER = "8.8.4.4"


class House:
    def __init__(self, table: dict[tuple[str, str], Any], cache: Any = None, records: Any = None) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        dns = TableDNS(table)
        cache = cache or MemoryCache(self.clock)
        records = records or MemoryRecords(self.clock)
        stages: list[Stage] = [
            Rates(cache, MemoryAllowances(), self.clock.seconds, limits_from(DEFAULT_LIMITS)),
            EarlyTalkers(self.clock, greeting_seconds=1.0),
            IPRevStage(dns, self.clock),
            Helo(dns, self.clock, own_names=["mail.example.org"]),
            DNSBL(dns, self.clock, zones_from({"bl.example": 2.0})),
            Greylisting(cache, records, self.clock.seconds),
            BuiltinScore(self.clock.seconds),
        ]
        self.gauntlet = Gauntlet([Post(stage=stage) for stage in stages], self.clock)

    def visit(self, peer: Client) -> tuple[Passage, Mail]:
        """Up to MAIL."""
        passage = self.gauntlet.enter(peer)
        connecting = started(passage.connect())
        self.clock.advance(1)
        assert connecting.called
        for _ in range(2):  # EHLO is said again behind STARTTLS
            now(passage.helo())
        transaction = mail(peer=peer)
        now(passage.begin(transaction))
        return passage, transaction


def points(passage: Passage) -> dict[str, float]:
    found: dict[str, float] = {}
    for finding in passage.findings():
        if finding.verdict.score:
            found[finding.stage] = found.get(finding.stage, 0.0) + finding.verdict.score
    return found


def test_a_rude_stranger_collects_points_once_and_is_put_off() -> None:
    house = House({("4.4.8.8.bl.example", "A"): ["127.0.0.2"]})
    passage, transaction = house.visit(client(PEER, "localhost", early=True))
    assert points(passage) == {"early_talkers": 3.0, "helo": 2.5, "dnsbl": 2.0}
    worst = now(passage.recipient(recipient()))
    assert worst is not None and worst.stage == "greylisting" and worst.verdict.action is Action.DEFER
    house.clock.advance(301)
    assert now(passage.recipient(recipient())) is None
    assert [each.address for each in transaction.recipients] == ["ann@example.org"]
    found = now(passage.read().finish(Message(SPAM[0].octets, transaction)))
    assert [finding.stage for finding in found if finding.verdict.score >= 5.0] == ["builtin_score"]
    now(passage.close())
    assert house.clock.getDelayedCalls() == []


def test_an_honest_server_has_no_points() -> None:
    house = House(
        {
            (PEER, "PTR"): ["mx.public.example"],
            ("mx.public.example", "A"): [PEER],
            ("1.1.bl.example", "A"): ["127.0.0.2"],
        }
    )
    passage, _ = house.visit(client(PEER, "mx.public.example"))
    assert points(passage) == {}
    assert all(finding.verdict.action is Action.ACCEPT for finding in passage.findings())


def test_with_dns_cache_and_records_down_mail_is_marked_and_goes_on() -> None:
    broken = {
        (name, kind): DNSFailure("down")
        for name in (PEER, "mx.public.example", "4.4.8.8.bl.example")
        for kind in ("A", "AAAA", "PTR")
    }
    house = House(broken, DownCache(), DownRecords())
    passage, transaction = house.visit(client(PEER, "mx.public.example"))
    worst = now(passage.recipient(recipient()))
    assert worst is not None and worst.verdict.action is Action.MARK
    assert len(transaction.recipients) == 1
    down = {finding.stage for finding in passage.findings() if finding.down}
    assert down == {"rates", "dnsbl", "greylisting"}
    assert points(passage) == {}


def test_who_guesses_recipients_is_held_up_by_the_gauntlet() -> None:
    house = House({})
    passage, _ = house.visit(client(PEER))
    for _ in range(10):
        now(passage.unknown("nobody@example.org"))
    held = started(passage.unknown("nobody@example.org"))
    assert not held.called
    house.clock.advance(2.1)
    assert held.called


def test_where_users_come_nothing_is_asked_before_they_have_logged_in() -> None:
    house = House({("4.4.8.8.bl.example", "A"): ["127.0.0.2"]})
    peer = client(PEER, "localhost", early=True, service="submission")
    passage = house.gauntlet.enter(peer)
    assert now(passage.connect()) is None and now(passage.helo()) is None
    peer.identity = ann()
    assert now(passage.begin(mail("ann@example.org", peer))) is None
    assert now(passage.recipient(recipient("bob@example.net"))) is None
    assert points(passage) == {}
