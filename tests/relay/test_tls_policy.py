"""What a connection to a host must have: configuration, MTA-STS, DANE and REQUIRETLS together."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no types)

from __future__ import annotations

from dataclasses import replace

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.dns.fakes import TableDNS
from twisted_mail.dns.values import TLSA, DNSFailure
from twisted_mail.relay.dane import DANE
from twisted_mail.relay.mta_sts import Policy
from twisted_mail.relay.tls_policy import Level, TLSPolicy
from twisted_mail.relay.values import Host, Login, Protection, Route, RouteFailure, TLSFailure, TLSMode

MX1 = Host("mx1.example.org", ("192.0.2.1",))
SIGNED = Host("mx1.signed.example", ("192.0.2.2",), secure=True)
PLAIN = Route("example.org", "example.org", (MX1,))
SECURE = Route("signed.example", "signed.example", (SIGNED,), secure=True)
SMART = Route("example.org", "relay:587", (Host("relay.example.net", ("192.0.2.3",), 587),), smart_host=True, secure=True)
RECORD = TLSA(3, 1, 1, bytes(32))
ENFORCE = Policy("enforce", ("mx1.example.org", "*.signed.example"), 86400, ("version: STSv1",))


class FakeSTS:
    def __init__(self) -> None:
        self.policies: dict[str, Policy] = {}
        self.asked: list[str] = []

    async def policy(self, domain: str) -> Policy | None:
        self.asked.append(domain)
        return self.policies.get(domain)


class PolicyCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.dns = TableDNS({}, secure=("signed.example",))
        self.sts = FakeSTS()
        self.noted: list[tuple[str, str, TLSFailure | None]] = []

    def decide(
        self, route: Route, host: Host | None = None, *, level: Level = Level.OPPORTUNISTIC, requiretls: bool = False, relaxed: bool = False
    ) -> Protection | RouteFailure:
        policy = TLSPolicy(
            DANE(self.dns),
            self.sts,  # type: ignore[arg-type]  # as much of it as is used
            level,
            noted=lambda protection, host, failure, source, remote, detail: self.noted.append((protection.why, host.name, failure)),
        )
        decided = self.successResultOf(
            Deferred.fromCoroutine(policy.protections(route, requiretls=requiretls, relaxed=relaxed))
        )
        answer: Protection | RouteFailure = decided(host or route.hosts[0])
        return answer

    def protection(self, route: Route, **more: object) -> Protection:
        decided = self.decide(route, **more)  # type: ignore[arg-type]
        assert isinstance(decided, Protection), decided
        return decided

    def refusal(self, route: Route, **more: object) -> RouteFailure:
        decided = self.decide(route, **more)  # type: ignore[arg-type]
        assert isinstance(decided, RouteFailure), decided
        return decided

    def tlsa(self, *records: TLSA) -> None:
        self.dns.table["_25._tcp.mx1.signed.example", "TLSA"] = list(records)


class ConfigurationTests(PolicyCase):
    def test_the_level_is_what_there_is_at_least(self) -> None:
        for level, mode, why in (
            (Level.OFF, TLSMode.OFF, "configuration"),
            (Level.OPPORTUNISTIC, TLSMode.OPPORTUNISTIC, ""),
            (Level.REQUIRE, TLSMode.ENCRYPTED, "configuration"),
        ):
            for route in (PLAIN, SECURE):
                decided = self.protection(route, level=level)
                self.assertEqual((decided.mode, decided.why), (mode, why))
                assert decided.policy is not None
                self.assertEqual((decided.policy.kind, decided.policy.recipients), ("no-policy-found", route.domain))

    def test_what_domains_publish_raises_every_level(self) -> None:
        self.tlsa(RECORD)
        self.sts.policies["example.org"] = ENFORCE
        for level in Level:
            self.assertEqual(self.protection(SECURE, level=level).mode, TLSMode.DANE)
            self.assertEqual(self.protection(PLAIN, level=level).mode, TLSMode.VERIFIED)

    def test_a_password_goes_to_another_machine_under_tls_only(self) -> None:
        login = replace(SMART, login=Login("user", "secret"))
        self.assertEqual(self.protection(login).mode, TLSMode.ENCRYPTED)
        self.assertEqual(self.protection(login, level=Level.OFF).mode, TLSMode.OFF)
        self.assertEqual(self.protection(SMART).mode, TLSMode.OPPORTUNISTIC)
        here = replace(login, hosts=(Host("127.0.0.1", ("127.0.0.1",), 587),))
        self.assertEqual(self.protection(here).mode, TLSMode.OPPORTUNISTIC)

    def test_a_socket_of_this_machine_needs_nothing(self) -> None:
        route = Route("example.org", "/run/lmtp", (Host("/run/lmtp", ("/run/lmtp",), 0, secure=True),), lmtp=True, smart_host=True, secure=True)
        for requiretls in (False, True):
            self.assertEqual(self.protection(route, requiretls=requiretls, level=Level.REQUIRE).mode, TLSMode.OFF)

    def test_a_smart_host_is_not_reported_on_and_has_no_mta_sts(self) -> None:
        self.sts.policies["example.org"] = ENFORCE
        self.assertIsNone(self.protection(SMART).policy)
        self.assertEqual(self.sts.asked, [])

    def test_a_literal_has_no_policy(self) -> None:
        route = Route("[192.0.2.1]", "192.0.2.1", (Host("192.0.2.1", ("192.0.2.1",)),))
        self.assertEqual(self.protection(route).mode, TLSMode.OPPORTUNISTIC)
        self.assertEqual(self.sts.asked, [])


class KeepingTests(PolicyCase):
    def test_what_was_decided_holds_for_seconds(self) -> None:
        clock = Clock()
        policy = TLSPolicy(DANE(self.dns), self.sts, keep_seconds=15.0, clock=clock.seconds)  # type: ignore[arg-type]

        def mode(route: Route, **more: bool) -> TLSMode:
            decided = self.successResultOf(Deferred.fromCoroutine(policy.protections(route, **more)))(route.hosts[0])
            assert isinstance(decided, Protection)
            return decided.mode

        self.assertEqual(mode(SECURE), TLSMode.OPPORTUNISTIC)
        self.tlsa(RECORD)
        clock.advance(14)
        self.assertEqual(mode(SECURE), TLSMode.OPPORTUNISTIC)
        self.assertEqual(mode(SECURE, requiretls=True), TLSMode.DANE)
        clock.advance(1)
        self.assertEqual(mode(SECURE), TLSMode.DANE)
        self.assertEqual(mode(replace(SECURE, secure=False)), TLSMode.OPPORTUNISTIC)
        new = replace(SECURE, hosts=(Host("mx2.signed.example", ("192.0.2.9",), secure=True), SIGNED))
        self.assertEqual(mode(new), TLSMode.OPPORTUNISTIC)  # a host that was not known then


class STSTests(PolicyCase):
    def test_enforced(self) -> None:
        self.sts.policies["example.org"] = ENFORCE
        decided = self.protection(PLAIN)
        self.assertEqual((decided.mode, decided.why, decided.names), (TLSMode.VERIFIED, "mta-sts", ("mx1.example.org",)))
        assert decided.policy is not None
        self.assertEqual((decided.policy.kind, decided.policy.domain, decided.policy.mx), ("sts", "example.org", ENFORCE.mx))

    def test_a_host_that_the_policy_does_not_name_is_not_used(self) -> None:
        self.sts.policies["example.org"] = ENFORCE
        evil = Host("mx.evil.example", ("203.0.113.9",))
        route = replace(PLAIN, hosts=(evil, MX1))
        refusal = self.refusal(route, host=evil)
        self.assertEqual((refusal.reply[:9], refusal.permanent), ("451 4.7.5", False))
        self.assertEqual(self.protection(route, host=MX1).mode, TLSMode.VERIFIED)
        self.assertIn(("mta-sts", "mx.evil.example", TLSFailure.VALIDATION_FAILURE), self.noted)

    def test_testing_looks_and_lets_pass(self) -> None:
        self.sts.policies["example.org"] = replace(ENFORCE, mode="testing")
        decided = self.protection(PLAIN)
        self.assertEqual((decided.mode, decided.testing, decided.names), (TLSMode.OPPORTUNISTIC, True, ("mx1.example.org",)))
        evil = replace(PLAIN, hosts=(Host("mx.evil.example", ("203.0.113.9",)),))
        self.assertEqual(self.protection(evil).mode, TLSMode.OPPORTUNISTIC)
        self.assertEqual(self.noted, [("mta-sts testing", "mx.evil.example", TLSFailure.VALIDATION_FAILURE)])

    def test_none_is_none(self) -> None:
        self.sts.policies["example.org"] = replace(ENFORCE, mode="none")
        decided = self.protection(PLAIN)
        self.assertEqual((decided.mode, decided.policy and decided.policy.kind), (TLSMode.OPPORTUNISTIC, "no-policy-found"))


class DANETests(PolicyCase):
    def test_usable_records(self) -> None:
        self.tlsa(RECORD)
        decided = self.protection(SECURE)
        self.assertEqual((decided.mode, decided.why, decided.tlsa), (TLSMode.DANE, "dane", (RECORD,)))
        self.assertEqual(decided.names, ("mx1.signed.example", "signed.example"))
        assert decided.policy is not None
        self.assertEqual(
            (decided.policy.kind, decided.policy.domain, decided.policy.strings),
            ("tlsa", "mx1.signed.example", (f"3 1 1 {'00' * 32}",)),
        )

    def test_dane_goes_before_mta_sts(self) -> None:
        self.tlsa(RECORD)
        for policy in (ENFORCE, replace(ENFORCE, mx=("other.example",)), replace(ENFORCE, mode="testing")):
            self.sts.policies["signed.example"] = policy
            self.assertEqual(self.protection(SECURE).mode, TLSMode.DANE)
        self.assertEqual(self.noted, [])

    def test_records_that_say_nothing_ask_for_tls_and_leave_the_rest_to_mta_sts(self) -> None:
        self.tlsa(TLSA(1, 1, 1, bytes(32)))
        self.assertEqual(self.protection(SECURE, level=Level.OFF).mode, TLSMode.ENCRYPTED)
        self.sts.policies["signed.example"] = ENFORCE
        self.assertEqual(self.protection(SECURE).mode, TLSMode.VERIFIED)

    def test_a_lookup_that_fails_takes_the_host_out_whatever_mta_sts_says(self) -> None:
        self.dns.table["_25._tcp.mx1.signed.example", "TLSA"] = DNSFailure("bogus")
        self.sts.policies["signed.example"] = ENFORCE
        refusal = self.refusal(SECURE)
        self.assertEqual((refusal.reply[:9], refusal.permanent), ("451 4.7.5", False))
        self.assertEqual(self.noted, [("dane", "mx1.signed.example", TLSFailure.DNSSEC_INVALID)])

    def test_each_host_by_itself(self) -> None:
        self.tlsa(RECORD)
        other = Host("mx2.signed.example", ("192.0.2.4",), secure=True)
        route = replace(SECURE, hosts=(SIGNED, other))
        self.assertEqual(self.protection(route, host=SIGNED).mode, TLSMode.DANE)
        self.assertEqual(self.protection(route, host=other).mode, TLSMode.OPPORTUNISTIC)

    def test_a_smart_host_may_have_it_too(self) -> None:
        self.dns.secure = ("relay.example.net",)
        self.dns.table["_587._tcp.relay.example.net", "TLSA"] = [RECORD]
        route = replace(SMART, hosts=(replace(SMART.hosts[0], secure=True),))
        decided = self.protection(route)
        self.assertEqual((decided.mode, decided.names, decided.policy), (TLSMode.DANE, ("relay.example.net",), None))


class RequireTLSTests(PolicyCase):
    def test_nothing_vouches_for_the_host(self) -> None:
        refusal = self.refusal(PLAIN, requiretls=True)
        self.assertEqual((refusal.reply[:10], refusal.permanent), ("550 5.7.30", True))
        literal = Route("[192.0.2.1]", "192.0.2.1", (Host("192.0.2.1", ("192.0.2.1",)),))
        self.assertTrue(self.refusal(literal, requiretls=True).permanent)

    def test_signed_mx_and_a_verified_certificate(self) -> None:
        for level in Level:
            decided = self.protection(SECURE, requiretls=True, level=level)
            self.assertEqual(
                (decided.mode, decided.why, decided.names, decided.requiretls),
                (TLSMode.VERIFIED, "requiretls", ("mx1.signed.example",), True),
            )

    def test_dane(self) -> None:
        self.tlsa(RECORD)
        decided = self.protection(SECURE, requiretls=True)
        self.assertEqual((decided.mode, decided.requiretls), (TLSMode.DANE, True))
        self.tlsa(TLSA(1, 1, 1, bytes(32)))
        decided = self.protection(SECURE, requiretls=True)
        self.assertEqual((decided.mode, decided.requiretls), (TLSMode.VERIFIED, True))

    def test_mta_sts_even_in_testing_mode(self) -> None:
        for mode in ("enforce", "testing"):
            self.sts.policies["example.org"] = replace(ENFORCE, mode=mode)
            decided = self.protection(PLAIN, requiretls=True)
            self.assertEqual((decided.mode, decided.requiretls, decided.testing), (TLSMode.VERIFIED, True, False))
            evil = replace(PLAIN, hosts=(Host("mx.evil.example", ("203.0.113.9",)),))
            self.refusal(evil, requiretls=True)

    def test_an_operators_route(self) -> None:
        decided = self.protection(SMART, requiretls=True)
        self.assertEqual((decided.mode, decided.requiretls), (TLSMode.VERIFIED, True))

    def test_tls_required_no_passes_over_what_is_published_but_not_over_what_is_configured(self) -> None:
        self.tlsa(RECORD)
        self.sts.policies["example.org"] = ENFORCE
        self.assertEqual(self.protection(SECURE, relaxed=True).mode, TLSMode.OPPORTUNISTIC)
        self.assertEqual(self.protection(PLAIN, relaxed=True).mode, TLSMode.OPPORTUNISTIC)
        self.assertEqual(self.protection(PLAIN, relaxed=True, level=Level.REQUIRE).mode, TLSMode.ENCRYPTED)
        self.assertEqual(self.protection(PLAIN, relaxed=True, requiretls=True).mode, TLSMode.VERIFIED)
