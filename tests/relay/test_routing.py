"""From a domain to servers, with the DNS out of a table."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no types)

from __future__ import annotations

import random
from collections.abc import Coroutine
from ipaddress import ip_network
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.dns.fakes import Scripted, TableDNS
from twisted_mail.dns.resolver import Resolver
from twisted_mail.dns.servers import NameServer
from twisted_mail.dns.values import MX, DNSFailure
from twisted_mail.relay.own_addresses import OwnAddresses
from twisted_mail.relay.providers import provider_of, registered_domain
from twisted_mail.relay.routing import Router, RoutingSettings
from twisted_mail.relay.static_routes import StaticRoute, StaticRoutes, parse_static_route
from twisted_mail.relay.values import Host, Login, Route, RouteFailure

BROKEN = DNSFailure("time-out")


class RoutingCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.dns = TableDNS({})

    def build(self, static: dict[str, str] | None = None, *, seed: int = 1, own: tuple[str, ...] = (), **settings: Any) -> Router:
        routes = StaticRoutes({key: parse_static_route(url) for key, url in (static or {}).items()})
        return Router(
            self.dns,
            routes,
            own_names=frozenset({"me.example.net"}),
            is_own=lambda address: address in own,
            settings=RoutingSettings(**settings),
            rng=random.Random(seed),
        )

    def route(self, domain: str, router: Router | None = None, **more: Any) -> Route:
        return self.get((router or self.build(**more)).route(domain))

    def get(self, route: Coroutine[Any, Any, Route]) -> Route:
        return self.successResultOf(Deferred.fromCoroutine(route))

    def refused(self, domain: str, router: Router | None = None, **more: Any) -> RouteFailure:
        waiting = Deferred.fromCoroutine((router or self.build(**more)).route(domain))
        failure: RouteFailure = self.failureResultOf(waiting, RouteFailure).value
        return failure

    def hosts(self, **addresses: tuple[str, ...]) -> None:
        """``mx1="192.0.2.1"`` as ``mx1.example.org``."""
        for name, both in addresses.items():
            for address in both:
                type = "AAAA" if ":" in address else "A"
                self.dns.table.setdefault((f"{name}.example.org", type), []).append(address)

    def exchangers(self, *records: tuple[int, str], domain: str = "example.org") -> None:
        self.dns.table[domain, "MX"] = [MX(preference, host) for preference, host in records]


class MXTests(RoutingCase):
    def test_by_preference_and_equal_ones_shuffled(self) -> None:
        self.exchangers((20, "mx3.example.org"), (10, "mx1.example.org"), (10, "mx2.example.org"))
        self.hosts(mx1=("192.0.2.1",), mx2=("192.0.2.2",), mx3=("192.0.2.3",))
        seen = set()
        for seed in range(20):
            hosts = self.route("Example.ORG.", seed=seed).hosts
            self.assertEqual([host.preference for host in hosts], [10, 10, 20])
            seen.add(hosts[0].name)
        self.assertEqual(seen, {"mx1.example.org", "mx2.example.org"})

    def test_both_families_in_turn_ipv6_first(self) -> None:
        self.exchangers((10, "mx1.example.org"))
        self.hosts(mx1=("192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2"))
        (host,) = self.route("example.org").hosts
        self.assertEqual([":" in address for address in host.addresses], [True, False, True, False, False])
        self.assertEqual(len(set(host.addresses)), 5)
        (host,) = self.route("example.org", ipv6=False).hosts
        self.assertEqual(sorted(host.addresses), ["192.0.2.1", "192.0.2.2", "192.0.2.3"])
        self.assertEqual(len(self.route("example.org", addresses=2).hosts[0].addresses), 2)

    def test_a_domain_without_mx_is_its_own_exchanger(self) -> None:
        self.dns.table["example.org", "A"] = ["192.0.2.1"]
        route = self.route("example.org")
        self.assertEqual(route.hosts, (Host("example.org", ("192.0.2.1",)),))
        self.assertEqual(route.destination, "example.org")

    def test_a_null_mx_takes_no_mail(self) -> None:
        self.exchangers((0, ""))
        self.dns.table["example.org", "A"] = ["192.0.2.1"]
        refusal = self.refused("example.org")
        self.assertEqual((refusal.reply[:10], refusal.permanent), ("556 5.1.10", True))
        self.exchangers((0, ""), (10, "mx1.example.org"))  # not a null MX then (RFC 7505 section 3)
        self.hosts(mx1=("192.0.2.1",))
        self.assertEqual(self.route("example.org").hosts[0].name, "mx1.example.org")

    def test_an_exchanger_that_is_an_alias_is_tolerated(self) -> None:
        self.exchangers((10, "mail.example.org"))
        self.dns.table["mail.example.org", "CNAME"] = ["mx1.example.org"]
        self.hosts(mx1=("192.0.2.1",))
        self.assertEqual(
            self.route("example.org").hosts, (Host("mail.example.org", ("192.0.2.1",), 25, 10, alias="mx1.example.org"),)
        )

    def test_a_domain_that_is_an_alias(self) -> None:
        self.dns.table["alias.example.net", "CNAME"] = ["example.org"]
        self.exchangers((10, "mx1.example.org"))
        self.hosts(mx1=("192.0.2.1",))
        route = self.route("alias.example.net")
        self.assertEqual((route.domain, route.hosts[0].name), ("alias.example.net", "mx1.example.org"))

    def test_an_address_in_place_of_a_name_is_passed_over(self) -> None:
        self.exchangers((5, "192.0.2.9"), (10, "mx1.example.org"), (20, "bad_name.example.org"))
        self.hosts(mx1=("192.0.2.1",))
        self.assertEqual([host.name for host in self.route("example.org").hosts], ["mx1.example.org"])
        self.exchangers((5, "192.0.2.9"))
        self.assertEqual(self.refused("example.org").reply[:9], "550 5.4.4")

    def test_five_hundred_exchangers(self) -> None:
        self.exchangers(*((10 + n, f"mx{n}.example.org") for n in range(500)))
        self.hosts(**{f"mx{n}": (f"192.0.2.{n % 250 + 1}",) for n in range(500)})
        route = self.route("example.org")
        self.assertEqual([host.name for host in route.hosts], [f"mx{n}.example.org" for n in range(10)])
        self.assertLess(len(self.dns.asked), 40)

    def test_one_host_named_twice_counts_once(self) -> None:
        self.exchangers((20, "mx1.example.org"), (10, "mx1.example.org"))
        self.hosts(mx1=("192.0.2.1",))
        self.assertEqual([host.preference for host in self.route("example.org").hosts], [10])

    def test_what_was_validated_is_said(self) -> None:
        self.dns.secure = ("example.org",)
        self.exchangers((10, "mx1.example.org"), (20, "mx.example.net"))
        self.hosts(mx1=("192.0.2.1",))
        self.dns.table["mx.example.net", "A"] = ["192.0.2.2"]
        route = self.route("example.org")
        self.assertEqual((route.secure, [host.secure for host in route.hosts]), (True, [True, False]))
        self.dns.table["plain.example", "A"] = ["192.0.2.3"]
        self.assertFalse(self.route("plain.example").secure)

    def test_a_route_holds_as_long_as_its_records(self) -> None:
        self.exchangers((10, "mx1.example.org"))
        self.hosts(mx1=("192.0.2.1",))
        for ttl, wanted in ((300.0, 300.0), (0.0, 1.0), (86400.0, 3600.0)):
            self.dns.ttl = ttl
            self.assertEqual(self.route("example.org").ttl, wanted)

    def test_a_route_is_kept_while_it_holds_and_mixes_its_hosts_anew(self) -> None:
        self.exchangers(*((10, f"mx{n}.example.org") for n in range(4)), (20, "mx9.example.org"))
        self.hosts(**{f"mx{n}": (f"192.0.2.{n + 1}",) for n in range(10)})
        clock = Clock()
        router = Router(self.dns, rng=random.Random(3), clock=clock.seconds)
        first = self.route("example.org", router)
        asked = len(self.dns.asked)
        clock.advance(100)
        routes = [self.route("example.org", router) for _ in range(30)]
        self.assertEqual(len(self.dns.asked), asked)
        self.assertEqual({route.ttl for route in routes}, {200.0})
        self.assertEqual({route.hosts[-1].name for route in routes}, {"mx9.example.org"})
        self.assertEqual({route.hosts[0].name for route in routes}, {f"mx{n}.example.org" for n in range(4)})
        self.assertEqual(set(routes[0].hosts), set(first.hosts))
        clock.advance(201)
        self.route("example.org", router)
        self.assertEqual(len(self.dns.asked), 2 * asked)
        router.flush("example.org")
        self.route("example.org", router)
        self.assertEqual(len(self.dns.asked), 3 * asked)

    def test_addresses_that_nobody_has(self) -> None:
        self.exchangers((10, "mx1.example.org"))
        self.hosts(mx1=("0.0.0.0", "255.255.255.255", "224.0.0.1", "::", "ff02::1", "::ffff:127.0.0.1", "127.0.0.1", "192.0.2.1"))
        self.assertEqual(sorted(self.route("example.org").hosts[0].addresses), ["127.0.0.1", "192.0.2.1"])
        self.assertEqual(self.route("example.org", refused=(ip_network("127.0.0.0/8"),)).hosts[0].addresses, ("192.0.2.1",))


class TroubleTests(RoutingCase):
    def test_no_such_domain(self) -> None:
        for domain in ("nowhere.example", "a..b", "x" * 64 + ".org", ""):
            refusal = self.refused(domain)
            self.assertEqual((refusal.reply[:9], refusal.permanent), ("550 5.1.2", True), domain)

    def test_a_domain_with_nothing_for_mail(self) -> None:
        self.dns.table["example.org", "TXT"] = [b"x"]
        refusal = self.refused("example.org")
        self.assertEqual((refusal.reply[:9], refusal.permanent), ("550 5.1.2", True))

    def test_a_dns_that_does_not_answer_is_temporary(self) -> None:
        self.dns.table["example.org", "MX"] = BROKEN
        refusal = self.refused("example.org")
        self.assertEqual((refusal.reply[:9], refusal.permanent), ("451 4.4.3", False))
        self.dns.table["example.org", "MX"] = []
        self.dns.table["example.org", "A"] = BROKEN
        self.assertFalse(self.refused("example.org").permanent)

    def test_exchangers_without_addresses_are_permanent_unless_the_dns_failed_for_one(self) -> None:
        self.exchangers((10, "mx1.example.org"), (20, "mx2.example.org"))
        refusal = self.refused("example.org")
        self.assertEqual((refusal.reply[:9], refusal.permanent), ("550 5.4.4", True))
        self.dns.table["mx2.example.org", "A"] = BROKEN
        refusal = self.refused("example.org")
        self.assertEqual((refusal.reply[:9], refusal.permanent), ("451 4.4.3", False))

    def test_a_failure_for_some_hosts_leaves_the_others(self) -> None:
        self.exchangers((10, "mx1.example.org"), (20, "mx2.example.org"))
        self.dns.table["mx1.example.org", "A"] = BROKEN
        self.dns.table["mx1.example.org", "AAAA"] = BROKEN
        self.hosts(mx2=("192.0.2.2",))
        route = self.route("example.org")
        self.assertEqual([host.name for host in route.hosts], ["mx2.example.org"])
        self.assertEqual(route.ttl, 60.0)  # the better one is asked for again soon

    def test_a_failure_for_one_family_leaves_the_other(self) -> None:
        self.exchangers((10, "mx1.example.org"))
        self.dns.table["mx1.example.org", "AAAA"] = BROKEN
        self.hosts(mx1=("192.0.2.1",))
        self.assertEqual(self.route("example.org").hosts[0].addresses, ("192.0.2.1",))

    def test_aliases_in_a_circle_are_temporary(self) -> None:
        clock = Clock()
        net = Scripted(clock)
        net.answering = lambda asked: asked.reply("a.org. 60 IN CNAME b.org.", "b.org. 60 IN CNAME a.org.")
        router = Router(Resolver(net, (NameServer("192.0.2.1"),), clock))
        self.assertEqual(self.refused("a.org", router).reply[:9], "451 4.4.3")

    def test_a_dns_that_hangs_ends_within_the_resolvers_limit(self) -> None:
        clock = Clock()
        router = Router(Resolver(Scripted(clock), (NameServer("192.0.2.1"),), clock))
        waiting = Deferred.fromCoroutine(router.route("a.org"))
        clock.pump([1.0] * 21)
        self.assertFalse(self.failureResultOf(waiting, RouteFailure).value.permanent)

    def test_one_dead_name_server_for_one_exchanger_does_not_lose_the_other(self) -> None:
        clock = Clock()
        net = Scripted(clock)
        replies = {
            "a.org MX": ["a.org. 60 IN MX 10 dead.a.org.", "a.org. 60 IN MX 20 mx.a.org."],
            "mx.a.org A": ["mx.a.org. 60 IN A 192.0.2.1"],
            "mx.a.org AAAA": [],
        }
        net.answering = lambda asked: asked.reply(*replies[asked.question]) if asked.question in replies else None
        router = Router(Resolver(net, (NameServer("192.0.2.1"),), clock))
        waiting = Deferred.fromCoroutine(router.route("a.org"))
        clock.pump([1.0] * 21)
        self.assertEqual([host.name for host in self.successResultOf(waiting).hosts], ["mx.a.org"])

    def test_cancelled_it_leaves_nothing_behind(self) -> None:
        clock = Clock()
        net = Scripted(clock)
        net.answering = lambda asked: asked.reply("a.org. 60 IN MX 10 mx.a.org.") if "MX" in asked.question else None
        waiting = Deferred.fromCoroutine(Router(Resolver(net, (NameServer("192.0.2.1"),), clock)).route("a.org"))
        waiting.cancel()
        self.failureResultOf(waiting)
        clock.pump([1.0] * 30)
        self.assertEqual(clock.getDelayedCalls(), [])


class LoopTests(RoutingCase):
    def setUp(self) -> None:
        super().setUp()
        self.hosts(mx1=("192.0.2.1",), mx2=("192.0.2.2",), mx3=("192.0.2.3",))

    def test_only_what_is_nearer_than_we_are_is_tried(self) -> None:
        self.exchangers((10, "mx1.example.org"), (20, "mx2.example.org"), (20, "me.example.net"), (30, "mx3.example.org"))
        self.dns.table["me.example.net", "A"] = ["192.0.2.77"]
        self.assertEqual([host.name for host in self.route("example.org").hosts], ["mx1.example.org"])

    def test_own_addresses_count_as_own_names_do(self) -> None:
        self.exchangers((10, "mx1.example.org"), (20, "mx2.example.org"), (30, "mx3.example.org"))
        router = self.build(own=("192.0.2.2",))
        self.assertEqual([host.name for host in self.route("example.org", router).hosts], ["mx1.example.org"])

    def test_nothing_left_is_a_loop(self) -> None:
        self.exchangers((10, "mx1.example.org"), (10, "mx2.example.org"))
        refusal = self.refused("example.org", own=("192.0.2.2",))
        self.assertEqual((refusal.reply[:9], refusal.permanent), ("554 5.4.6", True))
        self.exchangers((10, "me.example.net"))  # by its name alone, without an address
        self.assertEqual(self.refused("example.org").reply[:9], "554 5.4.6")

    def test_own_literals_and_implicit_exchangers_are_loops_too(self) -> None:
        self.dns.table["example.com", "A"] = ["192.0.2.2"]
        self.assertEqual(self.refused("example.com", own=("192.0.2.2",)).reply[:9], "554 5.4.6")
        self.assertEqual(self.refused("[192.0.2.2]", own=("192.0.2.2",)).reply[:9], "554 5.4.6")

    def test_what_is_nearer_but_cannot_be_looked_up_is_waited_for(self) -> None:
        self.exchangers((10, "away.example.org"), (20, "me.example.net"))
        self.dns.table["away.example.org", "A"] = BROKEN
        self.assertFalse(self.refused("example.org").permanent)


class OwnAddressTests(SynchronousTestCase):
    def test_where_it_listens_is_its_own(self) -> None:
        is_own = OwnAddresses(["127.0.0.1", "::1"])
        self.assertTrue(is_own("127.0.0.1") and is_own("::1") and is_own("0:0:0:0:0:0:0:1"))
        self.assertFalse(is_own("127.0.0.2") or is_own("192.0.2.1") or is_own("nonsense"))

    def test_who_listens_everywhere_owns_what_the_machine_has(self) -> None:
        is_own = OwnAddresses(["0.0.0.0"])
        self.assertTrue(is_own("127.0.0.1") and is_own("127.1.2.3"))
        self.assertFalse(is_own("192.0.2.1"))
        self.assertFalse(is_own("2001:db8::1"))
        self.assertTrue(OwnAddresses(["::"])("127.0.0.1"))  # both families (the default of Linux)

    def test_addresses_in_front_of_the_machine_can_be_named(self) -> None:
        is_own = OwnAddresses(["127.0.0.1"], also=["192.0.2.0/28", "2001:db8::25"])
        self.assertTrue(is_own("192.0.2.1") and is_own("2001:db8::25"))
        self.assertFalse(is_own("192.0.2.16"))


class LiteralTests(RoutingCase):
    def test_both_families(self) -> None:
        self.assertEqual(self.route("[192.0.2.1]").hosts, (Host("192.0.2.1", ("192.0.2.1",)),))
        self.assertEqual(self.route("[IPv6:2001:DB8::1]").hosts, (Host("2001:db8::1", ("2001:db8::1",)),))
        self.assertEqual(self.dns.asked, [])

    def test_others_are_refused_for_good(self) -> None:
        for literal, code in {
            "[192.0.2]": "550 5.1.3", "[X:1]": "550 5.1.3", "[": "550 5.1.3", "[::1]": "550 5.1.3", "[IPv6:fe80::1%eth0]": "550 5.1.3",
            "[0.0.0.0]": "550 5.1.2", "[IPv6:ff02::1]": "550 5.1.2",
        }.items():  # fmt: skip
            refusal = self.refused(literal)
            self.assertEqual((refusal.reply[:9], refusal.permanent), (code, True), literal)


class StaticTests(RoutingCase):
    def test_the_nearest_entry_counts(self) -> None:
        static = {
            "example.org": "smtp://192.0.2.1",
            ".example.org": "smtp://192.0.2.2",
            ".deep.example.org": "smtp://192.0.2.3",
            "*": "smtp://192.0.2.4",
            "[192.0.2.9]": "smtp://192.0.2.5",
        }
        for domain, address in {
            "example.org": "192.0.2.1", "EXAMPLE.org.": "192.0.2.1", "a.example.org": "192.0.2.2", "deep.example.org": "192.0.2.2",
            "x.y.deep.example.org": "192.0.2.3", "notexample.org": "192.0.2.4", "[192.0.2.9]": "192.0.2.5", "[192.0.2.10]": "192.0.2.4",
        }.items():  # fmt: skip
            self.assertEqual(self.route(domain, static=static).hosts[0].addresses, (address,), domain)
        self.assertEqual(self.dns.asked, [])

    def test_a_name_has_its_addresses_and_no_mx(self) -> None:
        self.exchangers((10, "mx1.example.org"), domain="relay.example.org")
        self.hosts(relay=("192.0.2.8", "2001:db8::8"), mx1=("192.0.2.1",))
        route = self.route("partner.example", static={"partner.example": "smtps://user:p%40ss@relay.example.org"})
        self.assertEqual(
            route,
            Route(
                "partner.example", "relay.example.org:465", (Host("relay.example.org", ("2001:db8::8", "192.0.2.8"), 465),),
                login=Login("user", "p@ss"), implicit_tls=True, smart_host=True, secure=True, ttl=300.0,
            ),
        )  # fmt: skip

    def test_lmtp_by_port_and_by_socket(self) -> None:
        static = {"a.example": "lmtp://[::1]:2424", "b.example": "lmtp+unix:///run/my%20lmtp"}
        self.assertEqual(self.route("a.example", static=static).hosts, (Host("::1", ("::1",), 2424, secure=True),))
        route = self.route("b.example", static=static)
        self.assertEqual((route.hosts[0].addresses, route.lmtp, route.destination), (("/run/my lmtp",), True, "/run/my lmtp"))

    def test_a_smart_host_may_be_on_this_machine(self) -> None:
        self.assertEqual(self.route("a.example", static={"*": "smtp://127.0.0.1:10026"}, own=("127.0.0.1",)).hosts[0].port, 10026)

    def test_a_smart_host_that_cannot_be_found_is_no_reason_to_bounce(self) -> None:
        for broken in ({}, {("relay.example.org", "A"): BROKEN}, {("relay.example.org", "TXT"): [b""]}):
            self.dns.table = dict(broken)
            self.assertFalse(self.refused("a.example", static={"*": "smtp://relay.example.org"}).permanent)

    def test_urls_that_are_refused_show_no_password(self) -> None:
        for url in (
            "relay.example.org", "http://h", "smtp://", "smtp://h:0", "smtp://h:99999", "smtp://h/path", "smtp://secret@h", "smtp://:secret@h",
            "smtp://u:se%cret@h", "smtp://h?tls=no", "lmtp+unix://path", "lmtp+unix:///", "smtp://u:secret@under_score", "smtp://u:secret#@h",
            "smtp://u:secret@[::1",
        ):  # fmt: skip
            with self.assertRaises(ValueError) as caught:
                parse_static_route(url)
            self.assertNotIn("secret", str(caught.exception).replace("USER:PASSWORD", ""))
        with self.assertRaises(ValueError):
            StaticRoutes({"a b": StaticRoute("192.0.2.1")})


class ProviderTests(SynchronousTestCase):
    def test_domains_at_one_provider_are_one_destination(self) -> None:
        for hosts, provider in {
            ("aspmx.l.google.com", "alt1.aspmx.l.google.com"): "google.com",
            ("gmail-smtp-in.l.google.com",): "google.com",
            ("aspmx2.googlemail.com",): "google.com",
            ("example-org.mail.protection.outlook.com",): "outlook.com",
            ("example-org.k-v1.mx.microsoft",): "outlook.com",
            ("hotmail-com.olc.protection.outlook.com",): "outlook.com",
            ("mta5.am0.yahoodns.net",): "yahoo.com",
            ("mx01.mail.icloud.com",): "icloud.com",
            ("mx00.kundenserver.de",): "ionos.com",
            ("mx1.example.co.uk", "mx2.example.co.uk"): "example.co.uk",
            ("mx.a.example.org",): "example.org",
            ("localhost",): "localhost",
            ("b.org", "a.org"): "a.org",
            ("b.org", "a.org", "mx.b.org"): "b.org",
        }.items():
            self.assertEqual(provider_of(hosts), provider)
            self.assertEqual(provider_of(reversed(hosts)), provider)
        self.assertEqual(registered_domain("a.b.com.au"), "b.com.au")
        self.assertEqual(registered_domain("com.au"), "com.au")
