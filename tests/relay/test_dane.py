"""TLSA records against certificates, and where the records are looked for."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no types)

from __future__ import annotations

import hashlib
import random
import time

import pytest
from cryptography import x509
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.dns.fakes import TableDNS
from tests.relay.authority import Certified, authority, server
from twisted_mail.dns.values import MX, TLSA, DNSFailure
from twisted_mail.relay.dane import DANE, Found, Standing, host_matches, matches, usable
from twisted_mail.relay.values import Host, Route

MX1 = "mx1.example.org"
ROOT = authority()
MIDDLE = authority("middle", ROOT)
LEAF = server(MX1, issuer=MIDDLE)
CHAIN = [LEAF.der, MIDDLE.der, ROOT.der]


def tlsa(usage: int, selector: int, matching: int, of: Certified) -> TLSA:
    octets = of.der if selector == 0 else of.spki
    data = {0: lambda: octets, 1: hashlib.sha256(octets).digest, 2: hashlib.sha512(octets).digest}[matching]()
    return TLSA(usage, selector, matching, data)


@pytest.mark.parametrize("matching", [0, 1, 2])
@pytest.mark.parametrize("selector", [0, 1])
def test_dane_ee_is_the_servers_own_certificate_or_key(selector: int, matching: int) -> None:
    assert matches([LEAF.der], [], [tlsa(3, selector, matching, LEAF)])
    assert not matches([LEAF.der], [MX1], [tlsa(3, selector, matching, server(MX1))])
    assert not matches(CHAIN, [MX1], [tlsa(3, selector, matching, MIDDLE)])


def test_dane_ee_asks_for_neither_names_nor_dates() -> None:
    old = server("other.example", days=(-30, -10))
    assert matches([old.der], [MX1], [tlsa(3, 1, 1, old)])


@pytest.mark.parametrize("matching", [0, 1, 2])
@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("anchor", [MIDDLE, ROOT])
def test_dane_ta_is_an_authority_of_the_chain(anchor: Certified, selector: int, matching: int) -> None:
    record = tlsa(2, selector, matching, anchor)
    assert matches(CHAIN, [MX1], [record])
    assert matches([LEAF.der, ROOT.der, MIDDLE.der], ["example.org", MX1], [record])  # in whatever order
    assert not matches(CHAIN, ["mx2.example.org"], [record])
    assert not matches(CHAIN, [], [record])
    assert not matches([server(MX1).der, MIDDLE.der, ROOT.der], [MX1], [record])  # that authority did not sign it


def test_an_authority_in_full_need_not_be_sent() -> None:
    for selector in (0, 1):
        assert matches([LEAF.der, MIDDLE.der], [MX1], [tlsa(2, selector, 0, ROOT)])
        assert matches([LEAF.der], [MX1], [tlsa(2, selector, 0, MIDDLE)])
        assert not matches([LEAF.der], [MX1], [tlsa(2, selector, 0, ROOT)])  # the one between is missing
        assert not matches([LEAF.der], [MX1], [tlsa(2, selector, 1, MIDDLE)])


def test_dane_ta_asks_for_dates() -> None:
    record = tlsa(2, 0, 1, ROOT)
    day = 86_400
    assert matches(CHAIN, [MX1], [record], now=time.time() + 29 * day)
    assert not matches(CHAIN, [MX1], [record], now=time.time() + 31 * day)
    assert not matches(CHAIN, [MX1], [record], now=time.time() - 2 * day)
    ended = authority("ended", ROOT, days=(-20, -10))
    assert not matches([server(MX1, issuer=ended).der, ended.der, ROOT.der], [MX1], [record])


def test_who_signs_must_be_allowed_to() -> None:
    record = tlsa(2, 0, 1, ROOT)
    for between in (
        authority("not one", ROOT, ca=False),
        server("middle.example", issuer=ROOT),
        authority("names", ROOT, more=[(x509.NameConstraints([x509.DNSName("example.net")], None), True)]),
        authority("signs nothing", ROOT, more=[(x509.KeyUsage(True, False, False, False, False, False, False, False, False), True)]),
    ):
        assert not matches([server(MX1, issuer=between).der, between.der, ROOT.der], [MX1], [record])
    short = authority("short", path_length=0)
    below = authority("below", short)
    assert matches([server(MX1, issuer=short).der, short.der], [MX1], [tlsa(2, 0, 1, short)])
    assert not matches([server(MX1, issuer=below).der, below.der, short.der], [MX1], [tlsa(2, 0, 1, short)])


def test_the_authority_itself_is_no_server_of_that_name() -> None:
    itself = server(MX1)
    assert not matches([itself.der], [MX1], [tlsa(2, 0, 1, itself)])


def test_wildcards_stand_for_one_label() -> None:
    leaf = server("*.example.org", issuer=ROOT)
    assert matches([leaf.der, ROOT.der], [MX1], [tlsa(2, 1, 1, ROOT)])
    assert not matches([leaf.der, ROOT.der], ["a.mx.example.org", "example.org"], [tlsa(2, 1, 1, ROOT)])
    assert host_matches("*.Example.org", "MX.example.org.")
    assert not host_matches("*.org", "example.org") and not host_matches("m*.example.org", MX1) and not host_matches("", "")


def test_other_usages_and_broken_records_say_nothing() -> None:
    good = tlsa(3, 1, 1, LEAF)
    broken = [
        TLSA(0, 0, 1, good.data), TLSA(1, 1, 1, good.data), TLSA(255, 0, 0, LEAF.der), TLSA(3, 2, 1, good.data),
        TLSA(3, 1, 3, good.data), TLSA(3, 1, 1, good.data[:31]), TLSA(3, 1, 2, good.data), TLSA(2, 0, 0, b"no certificate"),
        TLSA(3, 1, 0, b""), TLSA(2, 1, 0, LEAF.der),
    ]  # fmt: skip
    assert usable(broken) == ()
    assert not matches(CHAIN, [MX1], broken)
    assert usable([*broken, good]) == (good,)
    assert matches(CHAIN, [MX1], [*broken, good])
    assert not matches([], [MX1], [good])
    assert not matches([b"nonsense"], [MX1], [good])


def test_of_two_digests_the_stronger_counts() -> None:
    stale = tlsa(3, 1, 2, server(MX1))
    assert not matches([LEAF.der], [MX1], [tlsa(3, 1, 1, LEAF), stale])  # RFC 7671 section 9
    assert matches([LEAF.der], [MX1], [tlsa(3, 0, 1, LEAF), stale])


def test_spoiled_certificates_never_raise() -> None:
    rng = random.Random(5)
    records = [tlsa(2, 0, 0, ROOT), tlsa(2, 1, 0, ROOT), tlsa(3, 1, 1, MIDDLE)]
    for _ in range(150):
        spoiled = [bytearray(der) for der in CHAIN]
        for der in spoiled:
            for _ in range(rng.randrange(3)):
                der[rng.randrange(len(der))] = rng.randrange(256)
        matches([bytes(der) for der in spoiled], [MX1], records)


class LookupTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.dns = TableDNS({("example.org", "MX"): [MX(10, MX1)]}, secure=("example.org",))
        self.record = tlsa(3, 1, 1, LEAF)
        self.route = Route("example.org", "example.org", (Host(MX1, ("192.0.2.1",), secure=True),), secure=True)

    def find(self, route: Route | None = None) -> Found:
        route = route or self.route
        return self.successResultOf(Deferred.fromCoroutine(DANE(self.dns).find(route, route.hosts[0])))

    def with_host(self, host: Host, *, secure: bool = True) -> Route:
        return Route("example.org", "example.org", (host,), secure=secure)

    def test_records_at_the_hosts_port(self) -> None:
        self.dns.table[f"_25._tcp.{MX1}", "TLSA"] = [self.record]
        self.assertEqual(self.find(), Found(Standing.USABLE, MX1, (self.record,), (MX1, "example.org")))
        self.assertEqual(self.find(self.with_host(Host(MX1, ("192.0.2.1",), 2525, secure=True))).standing, Standing.NONE)

    def test_nothing_published(self) -> None:
        self.assertEqual(self.find().standing, Standing.NONE)

    def test_only_a_way_that_is_signed_throughout(self) -> None:
        self.dns.table[f"_25._tcp.{MX1}", "TLSA"] = [self.record]
        self.assertEqual(self.find(self.with_host(self.route.hosts[0], secure=False)).standing, Standing.NONE)
        self.assertEqual(self.find(self.with_host(Host(MX1, ("192.0.2.1",)))).standing, Standing.NONE)
        self.assertEqual([type for _, type in self.dns.asked], [])
        self.dns.secure = ()
        self.assertEqual(self.find().standing, Standing.NONE)

    def test_a_lookup_that_fails_is_not_the_same_as_nothing(self) -> None:
        self.dns.table[f"_25._tcp.{MX1}", "TLSA"] = DNSFailure("SERVFAIL")
        self.assertEqual(self.find(), Found(Standing.FAILED, MX1))

    def test_records_of_other_kinds_only(self) -> None:
        self.dns.table[f"_25._tcp.{MX1}", "TLSA"] = [TLSA(1, 1, 1, bytes(32))]
        self.assertEqual(self.find().standing, Standing.UNUSABLE)

    def test_behind_a_signed_alias_first_then_at_the_name(self) -> None:
        route = self.with_host(Host("mail.example.org", ("192.0.2.1",), secure=True, alias=MX1))
        self.dns.table[f"_25._tcp.{MX1}", "TLSA"] = [self.record]
        self.assertEqual(self.find(route).names, (MX1, "mail.example.org", "example.org"))
        del self.dns.table[f"_25._tcp.{MX1}", "TLSA"]
        self.dns.table["_25._tcp.mail.example.org", "TLSA"] = [self.record]
        self.assertEqual(self.find(route).base, "mail.example.org")

    def test_an_alias_that_leads_out_of_what_is_signed(self) -> None:
        route = self.with_host(Host("mail.example.org", ("192.0.2.1",), alias="mx.example.net"))
        self.dns.table["mail.example.org", "CNAME"] = ["mx.example.net"]
        self.dns.table["_25._tcp.mail.example.org", "TLSA"] = [self.record]
        self.dns.table["_25._tcp.mx.example.net", "TLSA"] = [tlsa(3, 1, 1, server(MX1))]
        self.assertEqual((self.find(route).base, self.find(route).records), ("mail.example.org", (self.record,)))

    def test_the_domain_behind_an_alias_is_a_name_too(self) -> None:
        self.dns.table["alias.example.org", "CNAME"] = ["example.org"]
        self.dns.table[f"_25._tcp.{MX1}", "TLSA"] = [self.record]
        route = Route("alias.example.org", "example.org", self.route.hosts, secure=True)
        self.assertEqual(self.find(route).names, (MX1, "alias.example.org", "example.org"))

    def test_an_address_has_no_records(self) -> None:
        self.assertEqual(self.find(self.with_host(Host("192.0.2.1", ("192.0.2.1",), secure=True))).standing, Standing.NONE)
