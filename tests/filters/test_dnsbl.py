"""Lists in the DNS (RFC 5782)."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.dns.fakes import Asked, Scripted, TableDNS
from tests.filters.asking import ann, client, mail, now, started
from twisted_mail.dns.resolver import Resolver
from twisted_mail.dns.servers import NameServer
from twisted_mail.dns.values import Answer, DNSFailure
from twisted_mail.filters.dnsbl import DNSBL, Listings, reversed_name, zones_from
from twisted_mail.filters.stages import AtConnect, AtMail, Visits
from twisted_mail.filters.values import ACCEPTED, Action, Client, FilterDown, Mail, Verdict

PEER = "8.8.4.4"
HERE = "4.4.8.8"


def lists(
    table: dict[tuple[str, str], Any], zones: dict[str, Any], domains: dict[str, Any] | None = None, **more: Any
) -> DNSBL:
    return DNSBL(TableDNS(table), Clock(), zones_from(zones), zones_from(domains or {}), **more)


def visit(stage: DNSBL, peer: Client | None = None, sender: str = "bob@example.net") -> tuple[Verdict, Mail]:
    peer = peer or client(PEER)
    assert now(stage.connect(peer)) == ACCEPTED
    transaction = mail(sender, peer)
    return now(stage.mail(transaction)), transaction


def test_names_in_lists_are_those_of_the_rfc() -> None:
    """RFC 5782 sections 2.1 and 2.4."""
    assert reversed_name("192.0.2.99") == "99.2.0.192"
    assert (
        reversed_name("2001:db8:1:2:3:4:567:89ab") == "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2"
    )
    assert reversed_name("::ffff:192.0.2.99") == "99.2.0.192"
    with pytest.raises(ValueError, match="no IP address"):
        reversed_name("nobody")


def test_a_listed_peer_gets_the_points_of_the_list() -> None:
    stage = lists({(f"{HERE}.bl.example", "A"): ["127.0.0.2"]}, {"bl.example": 4.0, "other.example": 2.0})
    assert isinstance(stage, AtConnect) and isinstance(stage, AtMail) and isinstance(stage, Visits)
    verdict, transaction = visit(stage)
    assert (verdict.action, verdict.score) == (Action.ACCEPT, 4.0)
    assert verdict.reason == "8.8.4.4 is listed by bl.example"
    noted = transaction.noted(Listings)
    assert noted is not None and [listing.zone for listing in noted.found] == ["bl.example"] and noted.asked == 2


def test_a_peer_that_no_list_knows_is_accepted() -> None:
    assert visit(lists({}, {"bl.example": 4.0}))[0] == ACCEPTED


def test_ipv6_is_looked_up_by_its_nibbles() -> None:
    name = reversed_name("2a00:1450::7") + ".bl.example"
    assert visit(lists({(name, "A"): ["127.0.0.2"]}, {"bl.example": 4.0}), client("2a00:1450::7"))[0].score == 4.0


def test_answers_weigh_by_their_most_exact_pattern_each_once() -> None:
    zones = {"bl.example": {"127.0.0.2": 1.0, "127.0.0.*": 3.0, "127.0.*.9": 0.5}}
    table: dict[tuple[str, str], Any] = {
        (f"{HERE}.bl.example", "A"): ["127.0.0.2", "127.0.0.4", "127.0.0.5", "127.0.7.9"]
    }
    assert visit(lists(table, zones))[0].score == 4.5
    table[f"{HERE}.bl.example", "A"] = ["127.1.0.2"]
    assert visit(lists(table, zones))[0] == ACCEPTED


def test_a_list_can_speak_for_a_peer() -> None:
    table = {(f"{HERE}.wl.example", "A"): ["127.0.10.3"], (f"{HERE}.bl.example", "A"): ["127.0.0.2"]}
    verdict, transaction = visit(lists(table, {"wl.example": {"127.0.*.3": -5.0}, "bl.example": 2.0}))
    assert verdict.score == -3.0
    assert verdict.reason == "8.8.4.4 is listed by bl.example; wl.example speaks for 8.8.4.4"
    noted = transaction.noted(Listings)
    assert noted is not None and noted.welcome


@pytest.mark.parametrize("answer", ["203.0.113.5", "127.255.255.254", "127.255.255.252"])
def test_answers_that_are_none_are_ignored(answer: str) -> None:
    assert visit(lists({(f"{HERE}.bl.example", "A"): [answer]}, {"bl.example": 4.0}))[0] == ACCEPTED


def test_a_list_that_lists_everybody_is_not_believed() -> None:
    table = {(f"{HERE}.bl.example", "A"): ["127.0.0.2"], ("1.0.0.127.bl.example", "A"): ["127.0.0.2"]}
    assert visit(lists(table, {"bl.example": 4.0}))[0] == ACCEPTED
    table = {("example.net.dbl.example", "A"): ["127.0.0.2"], ("invalid.dbl.example", "A"): ["127.0.0.2"]}
    assert visit(lists(table, {}, {"dbl.example": 4.0}))[0] == ACCEPTED


def test_domains_of_the_sender_and_of_helo_are_looked_up_in_lists_of_domains() -> None:
    table = {("spam.example.dbl.example", "A"): ["127.0.1.2"], ("mx.example.net.dbl.example", "A"): ["127.0.1.2"]}
    stage = lists(table, {}, {"dbl.example": 2.0})
    assert visit(stage, sender="x@spam.example")[0].score == 4.0
    assert visit(stage, client(PEER, "[8.8.4.4]"), sender="x@spam.example")[0].score == 2.0
    assert visit(stage, client(PEER, "localhost"), sender="")[0] == ACCEPTED


def test_above_the_threshold_mail_is_refused() -> None:
    table = {(f"{HERE}.a.example", "A"): ["127.0.0.2"], (f"{HERE}.b.example", "A"): ["127.0.0.2"]}
    assert visit(lists(table, {"a.example": 4.0}, reject_points=6.0))[0].action is Action.ACCEPT
    verdict, _ = visit(lists(table, {"a.example": 4.0, "b.example": 3.0}, reject_points=6.0))
    assert verdict.action is Action.REJECT and verdict.answer is not None
    assert verdict.answer.text == "Service refused: 8.8.4.4 is listed by a.example"


def test_a_list_that_fails_is_passed_over_and_if_all_do_the_filter_is_down() -> None:
    table = {(f"{HERE}.a.example", "A"): DNSFailure("SERVFAIL"), (f"{HERE}.b.example", "A"): ["127.0.0.2"]}
    assert visit(lists(table, {"a.example": 4.0, "b.example": 3.0}))[0].score == 3.0
    with pytest.raises(FilterDown):
        visit(lists(table, {"a.example": 4.0}))


def test_users_trusted_peers_and_private_addresses_are_not_looked_up() -> None:
    dns = TableDNS({})
    stage = DNSBL(dns, Clock(), zones_from({"bl.example": 4.0}))
    for peer in (client(PEER, trusted=True), client("127.0.0.1"), client("10.1.2.3"), client("fe80::1"), client("")):
        assert visit(stage, peer, sender="")[0] == ACCEPTED
    assert dns.asked == []
    user = client(PEER)
    now(stage.connect(user))
    user.identity = ann()
    assert now(stage.mail(mail(peer=user))) == ACCEPTED


class Slow(TableDNS):
    """Answers when the test says so."""

    def __init__(self) -> None:
        super().__init__({})
        self.waiting: dict[str, Deferred[Any]] = {}

    async def a(self, name: str) -> Answer[str]:
        self.asked.append((name, "A"))
        return await self.waiting.setdefault(name, Deferred())  # type: ignore[no-any-return]


async def _of(deferred: Deferred[Verdict]) -> Verdict:
    return await deferred


def test_lists_are_asked_side_by_side_beside_the_greeting_and_waited_for_at_mail() -> None:
    dns, clock = Slow(), Clock()
    stage = DNSBL(dns, clock, zones_from({"a.example": 4.0, "b.example": 3.0}), seconds=3)
    peer = client(PEER)
    assert now(stage.connect(peer)) == ACCEPTED
    assert dns.asked == [(f"{HERE}.a.example", "A"), (f"{HERE}.b.example", "A")]
    verdict = started(stage.mail(mail(peer=peer)))
    again = started(stage.mail(mail(peer=peer)))
    dns.waiting["1.0.0.127.b.example"] = Deferred()
    dns.waiting["1.0.0.127.b.example"].callback(Answer((), 60.0))
    dns.waiting[f"{HERE}.b.example"].callback(Answer(("127.0.0.2",), 60.0))
    assert not verdict.called
    clock.advance(3)
    assert [now(_of(verdict)).score, now(_of(again)).score] == [3.0, 3.0]
    assert len([name for name, _ in dns.asked if name.startswith(HERE)]) == 2, "one round of questions for a connection"


def test_one_transaction_that_is_over_takes_the_answer_from_no_other() -> None:
    dns, clock = Slow(), Clock()
    stage = DNSBL(dns, clock, zones_from({"a.example": 4.0}), seconds=3)
    peer = client(PEER)
    now(stage.connect(peer))
    first, second = started(stage.mail(mail(peer=peer))), started(stage.mail(mail(peer=peer)))
    first.addErrback(lambda failure: None)
    first.cancel()
    dns.waiting[f"{HERE}.a.example"].callback(Answer((), 60.0))
    assert second.result == ACCEPTED


def test_a_connection_that_goes_takes_its_questions_with_it() -> None:
    dns, clock = Slow(), Clock()
    stage = DNSBL(dns, clock, zones_from({"a.example": 4.0}))
    peer = client(PEER)
    now(stage.connect(peer))
    now(stage.closed(peer))
    assert clock.getDelayedCalls() == []
    now(stage.closed(client(PEER)))


def test_a_client_told_by_a_proxy_later_is_looked_up_anew() -> None:
    stage = lists({("1.1.1.1.bl.example", "A"): ["127.0.0.2"]}, {"bl.example": 4.0})
    peer = client(PEER)
    now(stage.connect(peer))
    peer.address = "1.1.1.1"
    assert now(stage.mail(mail(peer=peer))).score == 4.0


def test_the_real_resolver_remembers_what_lists_said() -> None:
    clock = Clock()
    network = Scripted(clock)

    def answer(asked: Asked) -> None:
        if asked.question.startswith(f"{HERE}.bl.example"):
            asked.reply(f"{HERE}.bl.example. 300 IN A 127.0.0.2")
        else:
            asked.reply(authority=("bl.example. 300 IN SOA a. b. 1 2 3 4 300",), rcode="NXDOMAIN")

    network.answering = answer
    stage = DNSBL(Resolver(network, (NameServer("127.0.0.1", 53),), clock), clock, zones_from({"bl.example": 4.0}))
    for _ in range(3):
        assert visit(stage)[0].score == 4.0
    assert [asked.question for asked in network.asked] == [f"{HERE}.bl.example A", "1.0.0.127.bl.example A"]


def test_the_test_entries_tell_what_is_wrong_with_a_list() -> None:
    """RFC 5782 section 5."""
    good: dict[tuple[str, str], Any] = {("2.0.0.127.bl.example", "A"): ["127.0.0.2"]}
    (zone,) = zones_from({"bl.example": 1.0})

    def wrong(table: dict[tuple[str, str], Any]) -> str:
        return now(DNSBL(TableDNS(table), Clock(), [zone]).examine(zone))

    assert wrong(good) == ""
    assert "lists everybody" in wrong({**good, ("1.0.0.127.bl.example", "A"): ["127.0.0.2"]})
    assert "does not hold 127.0.0.2" in wrong({})
    assert "does not answer" in wrong({("2.0.0.127.bl.example", "A"): DNSFailure("SERVFAIL")})
    assert "127.255.255.254" in wrong({("2.0.0.127.bl.example", "A"): ["127.255.255.254"]})


@pytest.mark.parametrize(
    "table",
    [
        {"no dots": 1},
        {"bl.example": "five"},
        {"bl.example": True},
        {"bl.example": {}},
        {"bl.example": {"10.0.0.1": 1}},
        {"bl.example": {"127.0.0.256": 1}},
        {"bl.example": {"127.0.0": 1}},
        {"bl.example": {"127.0.0.2": None}},
        {"bl.example": float("nan")},
        {"bl..example": 1},
    ],
)
def test_settings_that_mean_nothing_are_named(table: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(table)).replace(".", r"\.")):
        zones_from(table)
