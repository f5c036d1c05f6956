"""The resolver above scripted servers and a fake clock."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no types)

from __future__ import annotations

import random
from collections.abc import Coroutine
from typing import Any

import dns.message
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.dns.fakes import Asked, Scripted, reply_to
from twisted_mail.dns.resolver import Resolver, ResolverSettings
from twisted_mail.dns.servers import NameServer
from twisted_mail.dns.values import MX, TLSA, Answer, DNSFailure, NoSuchName

ONE, TWO = NameServer("192.0.2.1"), NameServer("192.0.2.2")
SOA = "example.org. 900 IN SOA ns.example.org. hostmaster.example.org. 1 3600 900 86400 300"


class ResolverCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.net = Scripted(self.clock)
        self.resolver = self.build()

    def build(self, **settings: Any) -> Resolver:
        return Resolver(self.net, (ONE, TWO), self.clock, ResolverSettings(**settings), rng=random.Random(7))

    def ask(self, question: Coroutine[Any, Any, Answer[Any]]) -> Deferred[Answer[Any]]:
        return Deferred.fromCoroutine(question)

    def answer(self, *records: str, **more: Any) -> None:
        """Every question from now on is answered so."""
        self.net.answering = lambda asked: asked.reply(*records, **more)

    def get(self, question: Coroutine[Any, Any, Answer[Any]]) -> Answer[Any]:
        return self.successResultOf(self.ask(question))


class AnswerTests(ResolverCase):
    def test_every_type_becomes_a_value(self) -> None:
        self.net.answering = lambda asked: asked.reply(*{
            "MX": ["Example.org. 60 IN MX 10 MX1.Example.org.", "example.org. 60 IN MX 0 ."],
            "A": ["example.org. 60 IN A 192.0.2.7"],
            "AAAA": ["example.org. 60 IN AAAA 2001:DB8:0::7"],
            "TXT": ['example.org. 60 IN TXT "v=STSv1; " "id=1"'],
            "TLSA": [f"_25._tcp.example.org. 60 IN TLSA 3 1 1 {'ab' * 32}"],
            "PTR": ["7.2.0.192.in-addr.arpa. 60 IN PTR Mail.example.org."],
            "CNAME": ["example.org. 60 IN CNAME other.example.net."],
        }[asked.question.split()[1]])  # fmt: skip
        self.assertEqual(self.get(self.resolver.mx("EXAMPLE.org.")).records, (MX(0, ""), MX(10, "mx1.example.org")))
        self.assertEqual(self.get(self.resolver.a("example.org")), Answer(("192.0.2.7",), 60.0, False, "example.org"))
        self.assertEqual(self.get(self.resolver.aaaa("example.org")).records, ("2001:db8::7",))
        self.assertEqual(self.get(self.resolver.txt("example.org")).records, (b"v=STSv1; id=1",))
        self.assertEqual(
            self.get(self.resolver.tlsa("_25._tcp.example.org")).records, (TLSA(3, 1, 1, bytes.fromhex("ab" * 32)),)
        )
        self.assertEqual(self.get(self.resolver.ptr("192.0.2.7")).records, ("mail.example.org",))
        self.assertEqual(self.get(self.resolver.cname("example.org")).records, ("other.example.net",))

    def test_names_are_asked_in_a_labels(self) -> None:
        self.answer()
        self.get(self.resolver.a("Bücher.EXAMPLE"))
        self.assertEqual(self.net.asked[0].question, "xn--bcher-kva.example A")

    def test_what_cannot_be_a_name_is_not_asked(self) -> None:
        for name in ("", "a..b", "x" * 64 + ".org", "a b.org", "x." * 130 + "org", "\u2024.org", "[192.0.2.1]"):
            self.failureResultOf(self.ask(self.resolver.mx(name)), NoSuchName)
        self.failureResultOf(self.ask(self.resolver.ptr("nonsense")), DNSFailure)
        self.assertEqual(self.net.asked, [])

    def test_a_question_has_edns_and_with_dnssec_do_and_ad(self) -> None:
        self.answer()
        self.get(self.resolver.a("one.org"))
        self.get(self.build(dnssec=True).a("one.org"))
        plain, secure = (dns.message.from_wire(asked.octets) for asked in self.net.asked)
        self.assertEqual((plain.payload, plain.ednsflags), (1232, 0))
        self.assertEqual(secure.ednsflags & 0x8000, 0x8000)
        self.assertTrue(secure.flags & 0x20)

    def test_five_hundred_mail_exchangers_are_cut_to_the_most_preferred(self) -> None:
        self.answer(*(f"example.org. 60 IN MX {900 - n} mx{n}.example.org." for n in range(500)))
        records = self.get(self.resolver.mx("example.org")).records
        self.assertEqual(len(records), 100)
        self.assertEqual([records[0].host, records[99].host], ["mx499.example.org", "mx400.example.org"])

    def test_texts_are_cut_by_their_octets(self) -> None:
        self.answer(*(f'example.org. 60 IN TXT "{"x" * 250}{n:03}"' for n in range(90)))
        self.assertEqual(len(self.get(self.build(octets=1000).txt("example.org")).records), 3)

    def test_records_of_other_names_mean_nothing(self) -> None:
        self.answer(
            "evil.example. 60 IN A 203.0.113.9",
            "example.org. 60 IN A 192.0.2.7",
            "mx.example.org. 60 IN A 203.0.113.9",
            authority=("example.org. 60 IN NS evil.example.",),
        )
        self.assertEqual(self.get(self.resolver.a("example.org")).records, ("192.0.2.7",))
        self.get(self.resolver.a("mx.example.org"))
        self.assertEqual(len(self.net.asked), 2)  # nothing of the first reply was kept for it


class DenialTests(ResolverCase):
    def test_nodata_and_nxdomain_are_two_things(self) -> None:
        self.answer(authority=(SOA,))
        self.assertEqual(self.get(self.resolver.mx("example.org")), Answer((), 300.0, False, "example.org"))
        self.answer(authority=(SOA,), rcode="NXDOMAIN")
        failure = self.failureResultOf(self.ask(self.resolver.mx("no.example.org")), NoSuchName)
        self.assertEqual(failure.value.name, "no.example.org")

    def test_a_denied_name_is_denied_for_every_type_until_the_minimum_of_its_zone(self) -> None:
        self.answer(authority=(SOA,), rcode="NXDOMAIN")
        for question in (self.resolver.mx, self.resolver.a, self.resolver.txt):
            self.failureResultOf(self.ask(question("no.example.org")), NoSuchName)
        self.assertEqual(len(self.net.asked), 1)
        self.clock.advance(301)
        self.failureResultOf(self.ask(self.resolver.mx("no.example.org")), NoSuchName)
        self.assertEqual(len(self.net.asked), 2)

    def test_a_denial_without_the_zones_own_soa_is_not_kept(self) -> None:
        for authority in ((), (SOA.replace("example.org. 900", "evil.example. 900"),)):
            self.answer(authority=authority, rcode="NXDOMAIN")
            before = len(self.net.asked)
            for _ in range(2):
                self.failureResultOf(self.ask(self.resolver.mx("no.example.org")), NoSuchName)
            self.assertEqual(len(self.net.asked), before + 2)

    def test_a_denial_is_kept_an_hour_at_most(self) -> None:
        self.answer(authority=(SOA.replace(" 900 IN", " 99999 IN").replace(" 300", " 99999"),))
        self.assertEqual(self.get(self.resolver.mx("example.org")).ttl, 3600.0)

    def test_a_referral_is_no_denial(self) -> None:
        self.answer(authority=("org. 60 IN NS a.nic.example.",))
        self.failureResultOf(self.ask(self.resolver.mx("example.org")), DNSFailure)


class CacheTests(ResolverCase):
    def test_an_answer_is_kept_for_its_ttl_and_says_what_is_left(self) -> None:
        self.answer("example.org. 60 IN A 192.0.2.7")
        self.get(self.resolver.a("example.org"))
        self.clock.advance(40)
        self.assertEqual(self.get(self.resolver.a("example.org")).ttl, 20.0)
        self.assertEqual(len(self.net.asked), 1)
        self.clock.advance(20)
        self.get(self.resolver.a("example.org"))
        self.assertEqual(len(self.net.asked), 2)

    def test_a_ttl_of_zero_is_used_once_and_a_month_is_a_day(self) -> None:
        self.answer("example.org. 0 IN A 192.0.2.7")
        self.get(self.resolver.a("example.org"))
        self.get(self.resolver.a("example.org"))
        self.assertEqual(len(self.net.asked), 2)
        self.answer("month.org. 2592000 IN A 192.0.2.7")
        self.assertEqual(self.get(self.resolver.a("month.org")).ttl, 86400.0)

    def test_the_cache_is_bounded_by_entries(self) -> None:
        self.net.answering = lambda asked: asked.reply(f"{asked.question.split()[0]}. 60 IN A 192.0.2.7")
        resolver = self.build(entries=3)
        for name in ("a.org", "b.org", "c.org", "a.org", "d.org", "a.org", "b.org"):
            self.get(resolver.a(name))
        self.assertEqual([asked.question[:5] for asked in self.net.asked], ["a.org", "b.org", "c.org", "d.org", "b.org"])

    def test_flush_forgets_a_domain_and_what_is_below_it(self) -> None:
        self.net.answering = lambda asked: asked.reply(f"{asked.question.split()[0]}. 60 IN A 192.0.2.7")
        names = ("example.org", "mx.example.org", "notexample.org")
        for name in names:
            self.get(self.resolver.a(name))
        self.resolver.flush("Example.org")
        for name in names:
            self.get(self.resolver.a(name))
        self.assertEqual(len(self.net.asked), 5)
        self.resolver.flush()
        self.get(self.resolver.a("notexample.org"))
        self.assertEqual(len(self.net.asked), 6)

    def test_who_asks_what_is_being_asked_waits_for_the_same_answer(self) -> None:
        first, second, third = (self.ask(self.resolver.a("example.org")) for _ in range(3))
        self.assertEqual(len(self.net.asked), 1)
        first.cancel()  # takes nothing away from the others
        self.net.asked[0].reply("example.org. 0 IN A 192.0.2.7")
        self.failureResultOf(first)
        self.assertEqual(self.successResultOf(second).records, ("192.0.2.7",))
        self.assertEqual(self.successResultOf(third).records, ("192.0.2.7",))
        self.ask(self.resolver.a("example.org"))
        self.assertEqual(len(self.net.asked), 2)

    def test_a_failure_is_kept_for_seconds(self) -> None:
        self.answer(rcode="SERVFAIL")
        for _ in range(5):
            self.failureResultOf(self.ask(self.resolver.a("example.org")), DNSFailure)
        self.assertEqual(len(self.net.asked), 2)  # each server once
        self.clock.advance(6)
        self.answer("example.org. 60 IN A 192.0.2.7")
        self.get(self.resolver.a("example.org"))


class AliasTests(ResolverCase):
    def test_a_chain_in_one_reply(self) -> None:
        self.answer(
            "www.example.org. 60 IN CNAME a.example.org.",
            "a.example.org. 30 IN CNAME b.example.net.",
            "b.example.net. 90 IN A 192.0.2.7",
        )
        self.assertEqual(
            self.get(self.resolver.a("www.example.org")), Answer(("192.0.2.7",), 30.0, False, "b.example.net")
        )

    def test_a_chain_that_leads_out_of_the_reply_is_followed(self) -> None:
        replies = {"www.example.org A": "www.example.org. 60 IN CNAME b.example.net.", "b.example.net A": "b.example.net. 90 IN A 192.0.2.7"}
        self.net.answering = lambda asked: asked.reply(replies[asked.question])
        self.assertEqual(self.get(self.resolver.a("www.example.org")), Answer(("192.0.2.7",), 60.0, False, "b.example.net"))

    def test_a_chain_to_a_name_that_does_not_exist(self) -> None:
        self.answer("www.example.org. 60 IN CNAME gone.example.org.", authority=(SOA,), rcode="NXDOMAIN")
        failure = self.failureResultOf(self.ask(self.resolver.a("www.example.org")), NoSuchName)
        self.assertEqual(failure.value.name, "gone.example.org")
        # The alias itself exists.
        self.answer("www.example.org. 60 IN CNAME gone.example.org.")
        self.assertEqual(self.get(self.resolver.cname("www.example.org")).records, ("gone.example.org",))

    def test_circles_end(self) -> None:
        self.answer("a.example.org. 60 IN CNAME b.example.org.", "b.example.org. 60 IN CNAME A.example.org.")
        self.failureResultOf(self.ask(self.resolver.a("a.example.org")), DNSFailure)
        hops = {"c.example.org": "d.example.org", "d.example.org": "c.example.org"}

        def hop(asked: Asked) -> None:
            name = asked.question.split()[0]
            asked.reply(f"{name}. 60 IN CNAME {hops[name]}.")

        self.net.answering = hop
        before = len(self.net.asked)
        failure = self.failureResultOf(self.ask(self.resolver.a("c.example.org")), DNSFailure)
        self.assertIn("circle", str(failure.value))
        self.assertEqual(len(self.net.asked), before + 2)

    def test_a_chain_has_eight_links_at_most(self) -> None:
        def hop(asked: Asked) -> None:
            number = int(asked.question.split(".")[0][1:])
            asked.reply(f"n{number}.example.org. 60 IN CNAME n{number + 1}.example.org.")

        self.net.answering = hop
        failure = self.failureResultOf(self.ask(self.resolver.a("n0.example.org")), DNSFailure)
        self.assertIn("too many CNAMEs", str(failure.value))
        self.assertEqual(len(self.net.asked), 9 * 2 - 8)  # the last reply is one link too long, from both servers
        self.answer(*(f"m{n}.example.org. 60 IN CNAME m{n + 1}.example.org." for n in range(400)))
        self.failureResultOf(self.ask(self.resolver.a("m0.example.org")), DNSFailure)


class SecurityTests(ResolverCase):
    def test_the_ad_bit_is_believed_only_from_servers_that_validate(self) -> None:
        self.answer("example.org. 60 IN A 192.0.2.7", authentic=True)
        self.assertFalse(self.get(self.resolver.a("example.org")).secure)
        trusting = self.build(dnssec=True)
        self.assertTrue(self.get(trusting.a("example.org")).secure)
        self.assertTrue(self.get(trusting.a("example.org")).secure)  # from the cache
        self.answer("example.net. 60 IN A 192.0.2.7")
        self.assertFalse(self.get(trusting.a("example.net")).secure)

    def test_one_insecure_link_makes_the_chain_insecure(self) -> None:
        def hop(asked: Asked) -> None:
            if asked.question.startswith("www"):
                asked.reply("www.example.org. 60 IN CNAME b.example.net.", authentic=False)
            else:
                asked.reply("b.example.net. 90 IN A 192.0.2.7", authentic=True)

        self.net.answering = hop
        self.assertFalse(self.get(self.build(dnssec=True).a("www.example.org")).secure)

    def test_a_validated_denial_says_so(self) -> None:
        self.answer(authority=(SOA,), rcode="NXDOMAIN", authentic=True)
        failure = self.failureResultOf(self.ask(self.build(dnssec=True).mx("no.example.org")), NoSuchName)
        self.assertTrue(failure.value.secure)

    def test_lies_are_not_heard(self) -> None:
        waiting = self.ask(self.resolver.a("example.org"))
        asked = self.net.asked[0]
        good = reply_to(asked.octets, "example.org. 60 IN A 192.0.2.7")
        other = Scripted(self.clock)
        self.ask(Resolver(other, (ONE,), self.clock, rng=random.Random(8)).a("evil.example"))
        for lie in (
            bytes([good[0] ^ 1]) + good[1:],  # another number
            reply_to(other.asked[0].octets, "evil.example. 60 IN A 203.0.113.9"),
            good[:2] + reply_to(other.asked[0].octets, "evil.example. 60 IN A 203.0.113.9")[2:],  # another question
            asked.octets,  # no reply at all
            good[:2] + bytes([good[2] | 0x28]) + good[3:],  # an UPDATE
            good[:11],
            good[:4] + b"\0\0" + good[6:],  # no question
            b"",
        ):
            asked.receive(lie)
            self.assertNoResult(waiting)
        asked.receive(good)
        self.assertEqual(self.successResultOf(waiting).records, ("192.0.2.7",))

    def test_in_mixed_case_the_spelling_has_to_come_back(self) -> None:
        resolver = self.build(mix_case=True)
        waiting = self.ask(resolver.a("mail.example.org"))
        asked = self.net.asked[0]
        self.assertNotEqual(asked.question, asked.question.lower())
        good = reply_to(asked.octets, "mail.example.org. 60 IN A 192.0.2.7")
        asked.receive(good[:13] + good[13:17].swapcase() + good[17:])
        self.assertNoResult(waiting)
        asked.receive(good)
        self.assertEqual(self.successResultOf(waiting).name, "mail.example.org")

    def test_a_flood_of_lies_is_answered_by_tcp(self) -> None:
        self.net.answering = lambda asked: asked.reply("example.org. 60 IN A 192.0.2.7") if asked.tcp else self.net.flood(asked)
        self.assertEqual(self.get(self.resolver.a("example.org")).records, ("192.0.2.7",))

    def test_octets_that_cannot_be_read_are_a_failure_and_nothing_else(self) -> None:
        rng = random.Random(1)

        def spoil(asked: Asked) -> None:
            good = bytearray(
                reply_to(
                    asked.octets,
                    "example.org. 60 IN MX 10 mx.example.org.",
                    "example.org. 60 IN MX 20 mx.example.net.",
                    authority=(SOA,),
                )
            )
            for _ in range(rng.randrange(1, 6)):
                good[rng.randrange(29, len(good))] = rng.randrange(256)
            asked.receive(bytes(good[: rng.randrange(30, len(good) + 1)]))

        self.net.answering = spoil
        for number in range(60):
            resolver = self.build(rounds=1)
            waiting = self.ask(resolver.mx("example.org"))
            self.clock.advance(60)
            self.assertTrue(waiting.called, number)
            waiting.addErrback(lambda failure: failure.trap(DNSFailure, NoSuchName))
            self.successResultOf(waiting)


class TroubleTests(ResolverCase):
    def test_a_silent_server_is_passed_over_and_then_avoided(self) -> None:
        self.net.silent = {ONE.address}
        self.net.answering = lambda asked: asked.reply(f"{asked.question.split()[0]}. 60 IN A 192.0.2.7")
        waiting = self.ask(self.resolver.a("example.org"))
        self.assertNoResult(waiting)
        self.clock.advance(2)
        self.assertEqual(self.successResultOf(waiting).records, ("192.0.2.7",))
        self.get(self.resolver.a("example.net"))
        self.assertEqual([asked.server for asked in self.net.asked], [ONE, TWO, TWO])
        self.clock.advance(60)
        self.net.silent.clear()
        self.get(self.resolver.a("example.com"))
        self.assertEqual(self.net.asked[-1].server, ONE)

    def test_silence_everywhere_ends_within_the_limit(self) -> None:
        waiting = self.ask(self.build(limit_seconds=10.0).a("example.org"))
        self.clock.pump([0.5] * 19)
        self.assertNoResult(waiting)
        self.clock.pump([0.5] * 2)
        self.failureResultOf(waiting, DNSFailure)
        self.assertGreaterEqual(len(self.net.asked), 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_answer_that_comes_late_is_taken_from_nobody(self) -> None:
        waiting = self.ask(self.resolver.a("example.org"))
        self.clock.advance(2)
        self.net.asked[0].reply("example.org. 60 IN A 203.0.113.9")
        self.assertNoResult(waiting)
        self.net.asked[1].reply("example.org. 60 IN A 192.0.2.7")
        self.assertEqual(self.successResultOf(waiting).records, ("192.0.2.7",))

    def test_servfail_and_refused_lead_to_the_next_server(self) -> None:
        for code in ("SERVFAIL", "REFUSED", "NOTIMP"):
            resolver = self.build()

            def answering(asked: Asked, code: str = code) -> None:
                if asked.server == ONE:
                    asked.reply(rcode=code)
                else:
                    asked.reply("example.org. 60 IN A 192.0.2.7")

            self.net.answering = answering
            self.assertEqual(self.get(resolver.a("example.org")).records, ("192.0.2.7",), code)

    def test_truncated_answers_are_fetched_by_tcp(self) -> None:
        records = [f"example.org. 60 IN A 192.0.2.{n}" for n in range(1, 90)]
        self.net.answering = lambda asked: asked.reply(*records[: None if asked.tcp else 3], truncated=not asked.tcp)
        self.assertEqual(len(self.get(self.resolver.a("example.org")).records), 89)
        self.assertEqual([asked.tcp for asked in self.net.asked], [False, True])

    def test_an_old_server_is_asked_without_edns_from_then_on(self) -> None:
        def answering(asked: Asked) -> None:
            if dns.message.from_wire(asked.octets).edns >= 0:
                asked.receive(asked.octets[:2] + bytes([0x81, 0x81]) + asked.octets[4:10] + b"\0\0" + asked.octets[12:-11])
            else:
                asked.reply(f"{asked.question.split()[0]}. 60 IN A 192.0.2.7")

        self.net.answering = answering
        self.get(self.resolver.a("example.org"))
        self.get(self.resolver.a("example.net"))
        self.assertEqual(len(self.net.asked), 3)

    def test_a_ttl_with_its_highest_bit_set_is_zero(self) -> None:
        def answering(asked: Asked) -> None:  # RFC 2181 section 8
            asked.receive(
                reply_to(asked.octets, "example.org. 60 IN A 192.0.2.7").replace(b"\0\0\0\x3c\0\4", b"\x80\0\0\x3c\0\4")
            )

        self.net.answering = answering
        self.assertEqual(self.get(self.resolver.a("example.org")).ttl, 0.0)
