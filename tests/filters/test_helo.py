"""What peers say of themselves."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.dns.fakes import TableDNS
from tests.filters.asking import ann, client, now, started
from twisted_mail.dns.values import MX, DNSFailure
from twisted_mail.filters.helo import CHECKS, DEFAULTS, Helo, HeloFindings, checks_from
from twisted_mail.filters.origins import ReverseName
from twisted_mail.filters.values import ACCEPTED, Action, Client

TABLE: dict[tuple[str, str], Any] = {
    ("mx.example.net", "A"): ["198.51.100.7"],
    ("mx6.example.net", "AAAA"): ["2001:db8::7"],
    ("elsewhere.example.net", "A"): ["203.0.113.1"],
    ("only-mail.example.net", "MX"): [MX(10, "mx.example.net")],
    ("empty.example.net", "TXT"): [b"nothing else"],
    ("broken.example.net", "A"): DNSFailure("SERVFAIL"),
}

# The documentation networks are "private" to Python's ipaddress; peers here come from public ones.
PUBLIC, PUBLIC6 = "8.8.4.4", "2a00:1450::7"
TABLE["mx.public.example", "A"] = [PUBLIC]
TABLE["mx6.public.example", "AAAA"] = [PUBLIC6]


def stage(**more: Any) -> Helo:
    return Helo(
        TableDNS(TABLE), Clock(), own_names=["mail.example.org"], own_addresses=["192.0.2.25", "2001:db8::25"], **more
    )


def found(peer: Client) -> tuple[str, ...]:
    now(stage().helo(peer))
    noted = peer.noted(HeloFindings)
    assert noted is not None
    return noted.found


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("mx.public.example", ()),
        ("MX.Public.Example.", ()),
        ("[8.8.4.4]", ()),
        ("[198.51.100.1]", ("literal",)),
        ("[192.0.2.25]", ("own_address",)),
        ("[IPv6:2001:db8::25]", ("own_address",)),
        ("192.0.2.25", ("own_address",)),
        ("8.8.4.4", ("bare_address",)),
        ("[8.8.4]", ("syntax",)),
        ("[300.1.1.1]", ("syntax",)),
        ("[IPv6:zz::1]", ("syntax",)),
        ("", ("syntax",)),
        ("-bad-.example", ("syntax",)),
        ("a..b", ("syntax",)),
        ("a b.example", ("syntax",)),
        ("x" * 64 + ".example", ("syntax",)),
        ("mail.example.org", ("own_name",)),
        ("localhost", ("unqualified",)),
        ("WIN-4711", ("unqualified",)),
        ("gone.example.com", ("unresolvable",)),
        ("empty.example.net", ("unresolvable",)),
        ("only-mail.example.net", ()),
        ("elsewhere.example.net", ("mismatch",)),
        ("broken.example.net", ()),
    ],
)
def test_what_is_found_in_a_name(said: str, expected: tuple[str, ...]) -> None:
    assert found(client(PUBLIC, said)) == expected


def test_a_literal_of_ipv6_is_compared_as_an_address() -> None:
    assert found(client(PUBLIC6, "[IPv6:2A00:1450:0:0:0:0:0:7]")) == ()
    assert found(client(PUBLIC6, "mx6.public.example")) == ()


def test_the_reverse_name_is_looked_at() -> None:
    def at(
        result: str, name: str = "", *claimed: str, helo: str = "mx.public.example", address: str = PUBLIC
    ) -> tuple[str, ...]:
        peer = client(address, helo)
        peer.note(ReverseName(result, name, claimed or ((name,) if name else ())))
        return found(peer)

    assert at("pass", "mx.public.example") == ()
    assert at("permerror") == ("no_reverse",)
    assert at("temperror") == ()
    assert at("fail", "", "mx.liar.example") == ("unconfirmed_reverse",)
    assert at("pass", "dyn-4-4.pool.isp.example") == ("dynamic",)
    assert at("pass", "8-8-4-4.isp.example") == ("dynamic",)
    assert at("pass", "static.4.4.8.8.hoster.example") == ()
    assert at("pass", "mail3.customers.isp.example") == ()
    # its own name needs no question
    assert at("pass", "unknown.example", helo="unknown.example") == ()


def test_addresses_of_a_private_network_have_no_public_names() -> None:
    peer = client("10.0.0.5", "printer.example.net")
    peer.note(ReverseName("permerror"))
    assert found(peer) == ("unresolvable",)


def test_by_default_nothing_is_refused_and_nothing_alone_makes_junk() -> None:
    assert set(DEFAULTS) == set(CHECKS)
    assert all(isinstance(points, float) and 0 <= points <= 3 for points in DEFAULTS.values())


def test_points_are_added_and_the_trace_says_why() -> None:
    peer = client(PUBLIC, "localhost")
    peer.note(ReverseName("permerror"))
    verdict = now(stage().helo(peer))
    assert (verdict.action, verdict.score) == (Action.ACCEPT, 2.5)
    assert verdict.reason == (
        "The peer said 'localhost' of itself: it has no dot, so it names no host on the Internet; "
        "the peer's address has no name in the DNS"
    )
    peer = client(PUBLIC, "mx.public.example")
    peer.note(ReverseName("permerror"))
    assert now(stage().helo(peer)).reason == "The peer's address has no name in the DNS"


def test_a_check_can_refuse() -> None:
    verdict = now(stage(checks=checks_from({"own_name": "reject"})).helo(client(PUBLIC, "mail.example.org")))
    assert verdict.action is Action.REJECT
    assert verdict.answer is not None and verdict.answer.code == 550
    assert "mail.example.org" not in verdict.answer.text


def test_a_check_can_be_left_out() -> None:
    assert now(stage(checks=checks_from({"unqualified": 0})).helo(client(PUBLIC, "localhost"))) == ACCEPTED


@pytest.mark.parametrize(
    ("table", "what"), [({"nope": 1}, "nope"), ({"syntax": "deny"}, "syntax"), ({"syntax": True}, "syntax"), ({"syntax": 1e9}, "syntax")]
)  # fmt: skip
def test_settings_that_mean_nothing_are_named(table: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        checks_from(table)


def test_users_and_trusted_peers_are_not_asked() -> None:
    assert now(stage().helo(client(PUBLIC, "localhost", trusted=True))) == ACCEPTED
    assert now(stage().helo(client(PUBLIC, "localhost", identity=ann()))) == ACCEPTED


def test_a_name_server_that_does_not_answer_is_held_against_nobody() -> None:
    class Silent(TableDNS):
        async def a(self, name: str) -> Any:
            return await Deferred[Any]()

    clock = Clock()
    verdict = started(Helo(Silent({}), clock, seconds=5).helo(client(PUBLIC, "slow.example.net")))
    clock.advance(4)
    assert not verdict.called
    clock.advance(2)
    assert verdict.result == ACCEPTED


def test_a_peer_that_comes_again_is_remembered_for_five_minutes() -> None:
    clock, dns = Clock(), TableDNS(dict(TABLE))
    clock.advance(1000)
    filter = Helo(dns, clock)
    first = client(PUBLIC, "gone.example.com")
    assert now(filter.helo(first)).score == 1.0
    asked = len(dns.asked)
    again = client(PUBLIC, "gone.example.com")
    assert now(filter.helo(again)).score == 1.0
    assert again.noted(HeloFindings) == first.noted(HeloFindings) and len(dns.asked) == asked
    assert now(filter.helo(client(PUBLIC6, "gone.example.com"))).score == 1.0 and len(dns.asked) > asked
    dns.table["gone.example.com", "A"] = [PUBLIC]
    clock.advance(301)
    assert now(filter.helo(client(PUBLIC, "gone.example.com"))) == ACCEPTED


def test_a_name_server_that_did_not_answer_is_asked_again() -> None:
    clock, dns = Clock(), TableDNS({("x.example", "A"): DNSFailure("SERVFAIL")})
    filter = Helo(dns, clock)
    assert now(filter.helo(client(PUBLIC, "x.example"))) == ACCEPTED
    dns.table["x.example", "A"] = ["8.8.8.8"]
    assert now(filter.helo(client(PUBLIC, "x.example"))).score == 0.2


def test_while_the_dns_is_silent_peers_do_not_wait_for_it_one_by_one() -> None:
    class Silent(TableDNS):
        async def a(self, name: str) -> Any:
            self.asked.append((name, "A"))
            return await Deferred[Any]()

    clock, dns = Clock(), Silent({})
    filter = Helo(dns, clock, seconds=3)
    for number in range(3):
        waiting = started(filter.helo(client(PUBLIC, f"x{number}.example")))
        assert not waiting.called
        clock.advance(3)
        assert waiting.result == ACCEPTED
    assert now(filter.helo(client(PUBLIC, "y.example"))) == ACCEPTED
    assert len(dns.asked) == 3
    clock.advance(61)
    assert not started(filter.helo(client(PUBLIC, "z.example"))).called
