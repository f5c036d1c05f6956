"""SPF beyond the test suites: what a check may cost, what a record may be, and the examples of RFC 7208."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.filters.asking import now as run
from tests.filters.zones import zone
from twisted_mail.dns.values import MX, Answer
from twisted_mail.filters.origins import SPF
from twisted_mail.filters.spf import Checked, CheckHost, SPFLimits
from twisted_mail.filters.spf_macros import Values, parse_macros
from twisted_mail.filters.spf_record import BadRecord, parse_record, select_record


def check(
    data: dict[str, list[Any]], address: str = "192.0.2.1", sender: str = "user@example.org", **limits: Any
) -> Checked:
    checker = CheckHost(zone(data), Clock(), limits=SPFLimits(**limits))
    return run(checker.check(address, sender.rpartition("@")[2], sender, "mail.example.org"))


# --- what it may cost


def test_a_record_that_includes_itself_ends_at_ten_lookups() -> None:
    found = check({"example.org": [{"TXT": "v=spf1 include:example.org -all"}]})
    assert found.result is SPF.PERMERROR
    assert found.lookups == 11
    assert "more than 10" in found.reason


def test_records_that_include_and_redirect_each_other_end_too() -> None:
    data = {
        "example.org": [{"TXT": "v=spf1 include:a.example.org redirect=b.example.org"}],
        "a.example.org": [{"TXT": "v=spf1 redirect=b.example.org"}],
        "b.example.org": [{"TXT": "v=spf1 include:example.org -all"}],
    }
    assert check(data).result is SPF.PERMERROR
    assert check({"example.org": [{"TXT": "v=spf1 redirect=example.org"}]}).result is SPF.PERMERROR


def nested(depth: int, last: str) -> dict[str, list[Any]]:
    data: dict[str, list[Any]] = {"example.org": [{"TXT": "v=spf1 include:n1.example.org -all"}]}
    for number in range(1, depth):
        data[f"n{number}.example.org"] = [{"TXT": f"v=spf1 include:n{number + 1}.example.org -all"}]
    data[f"n{depth}.example.org"] = [{"TXT": last}]
    return data


def test_ten_includes_inside_each_other_are_followed() -> None:
    found = check(nested(10, "v=spf1 ip4:192.0.2.0/24 -all"))
    assert (found.result, found.lookups) == (SPF.PASS, 10)
    assert check(nested(10, "v=spf1 ip4:198.51.100.0/24 -all")).result is SPF.FAIL


def test_eleven_are_not() -> None:
    assert check(nested(11, "v=spf1 ip4:192.0.2.0/24 -all")).result is SPF.PERMERROR


def test_a_third_lookup_that_finds_nothing_is_an_error() -> None:
    two = "v=spf1 a:no1.example.org exists:no2.example.org ip4:192.0.2.1 -all"
    three = "v=spf1 a:no1.example.org exists:no2.example.org mx:no3.example.org ip4:192.0.2.1 -all"
    assert check({"example.org": [{"TXT": two}]}).result is SPF.PASS
    assert check({"example.org": [{"TXT": three}]}).result is SPF.PERMERROR


def test_exchangers_without_an_address_of_the_clients_kind_are_no_error() -> None:
    data: dict[str, list[Any]] = {
        "example.org": [{"TXT": "v=spf1 mx -all"}, *({"MX": [10, f"mx{n}.example.org"]} for n in range(5))],
        **{f"mx{n}.example.org": [{"A": f"192.0.2.{n}"}] for n in range(5)},
    }
    assert check(data, "2001:db8::1").result is SPF.FAIL
    assert check(data, "192.0.2.4").result is SPF.PASS


def test_a_dns_that_is_silent_costs_twenty_seconds_and_no_more() -> None:
    class Silent:
        def __getattr__(self, name: str) -> Any:
            async def ask(name: str) -> Answer[Any]:
                await Deferred()
                raise AssertionError

            return ask

    clock = Clock()
    outcome: list[Checked] = []
    checker = CheckHost(Silent(), clock)
    Deferred.fromCoroutine(checker.check("192.0.2.1", "example.org", "user@example.org")).addCallback(outcome.append)
    clock.advance(19.9)
    assert outcome == []
    clock.advance(0.2)
    assert outcome[0].result is SPF.TEMPERROR
    assert clock.getDelayedCalls() == []


def test_all_questions_of_the_worst_record_are_bounded() -> None:
    """Ten ``mx`` with ten hosts each: a hundred addresses (RFC 7208 section 11.1)."""
    terms = " ".join(f"mx:m{n}.example.org" for n in range(10))
    data: dict[str, list[Any]] = {"example.org": [{"TXT": f"v=spf1 {terms} -all"}]}
    for m in range(10):
        data[f"m{m}.example.org"] = [{"MX": [1, f"h{h}.m{m}.example.org"]} for h in range(10)]
        data |= {f"h{h}.m{m}.example.org": [{"A": "198.51.100.1"}] for h in range(10)}
    dns = zone(data)
    found = run(CheckHost(dns, Clock()).check("192.0.2.1", "example.org", "user@example.org"))
    assert found.result is SPF.FAIL
    assert len(dns.asked) == 1 + 10 + 100


# --- what is remembered


def ask(checker: CheckHost, sender: str, address: str = "192.0.2.1") -> SPF:
    return run(checker.check(address, sender.rpartition("@")[2], sender, "mail.example.org")).result


def test_what_holds_for_all_senders_is_asked_once() -> None:
    dns, clock = zone({"example.org": [{"TXT": "v=spf1 include:more.example.org -all"}], "more.example.org": [{"TXT": "v=spf1 ip4:192.0.2.1"}]}), Clock()
    checker = CheckHost(dns, clock)
    assert checker.known("192.0.2.1", "example.org") is None
    for sender in ("a@example.org", "b@example.org", "c@Example.ORG."):
        assert ask(checker, sender) is SPF.PASS
    assert len(dns.asked) == 2
    assert ask(checker, "a@example.org", "192.0.2.2") is SPF.FAIL
    assert len(dns.asked) == 4
    clock.advance(301)
    ask(checker, "a@example.org")
    assert len(dns.asked) == 6


def test_nothing_is_remembered_longer_than_its_records() -> None:
    dns, clock = zone({"example.org": [{"TXT": "v=spf1 -all"}]}), Clock()
    dns.ttl = 10.0
    checker = CheckHost(dns, clock)
    ask(checker, "a@example.org")
    clock.advance(9)
    ask(checker, "a@example.org")
    assert len(dns.asked) == 1
    clock.advance(2)
    ask(checker, "a@example.org")
    assert len(dns.asked) == 2


@pytest.mark.parametrize("term", ["exists:%{l}.users.example.org", "exists:%{S}.example.org", "exists:%{h}.example.org"])
def test_what_depends_on_the_sender_is_not_remembered(term: str) -> None:
    checker = CheckHost(zone({"example.org": [{"TXT": f"v=spf1 {term} -all"}], "ann.users.example.org": [{"A": "127.0.0.2"}]}), Clock())
    ask(checker, "bob@example.org")
    assert checker.known("192.0.2.1", "example.org") is None
    if "users" in term:
        assert ask(checker, "ann@example.org") is SPF.PASS


def test_an_explanation_of_one_sender_is_not_given_to_another() -> None:
    data = {"example.org": [{"TXT": "v=spf1 -all exp=why.example.org"}], "why.example.org": [{"TXT": "%{l} may not"}]}
    checker = CheckHost(zone(data), Clock())
    for name in ("ann", "bob"):
        assert run(checker.check("192.0.2.1", "example.org", f"{name}@example.org")).explanation == f"{name} may not"


def test_that_the_dns_is_down_is_not_remembered() -> None:
    dns = zone({"example.org": ["TIMEOUT"]})
    checker = CheckHost(dns, Clock())
    assert ask(checker, "a@example.org") is SPF.TEMPERROR
    dns.timeouts.clear()
    assert ask(checker, "a@example.org") is SPF.NONE


# --- what is asked about


def test_an_ipv4_address_inside_an_ipv6_one_is_that() -> None:
    assert check({"example.org": [{"TXT": "v=spf1 ip4:192.0.2.1 -all"}]}, "::ffff:192.0.2.1").result is SPF.PASS


@pytest.mark.parametrize("domain", ["", "localhost", "[192.0.2.1]", "a..b", "192.0.2.1", "x" * 64 + ".org"])
def test_what_is_no_domain_has_no_policy(domain: str) -> None:
    checker = CheckHost(zone({}), Clock())
    assert run(checker.check("192.0.2.1", domain, f"user@{domain}")).result is SPF.NONE


def test_no_client_address_no_policy() -> None:
    assert check({"example.org": [{"TXT": "v=spf1 -all"}]}, "").result is SPF.NONE


def test_a_domain_in_another_script_is_asked_in_a_labels() -> None:
    data = {"xn--bcher-kva.example": [{"TXT": "v=spf1 ip4:192.0.2.1 -all"}]}
    assert check(data, sender="jörg@bücher.example").result is SPF.PASS


def test_a_local_part_that_is_not_ascii_matches_no_macro() -> None:
    """RFC 8616 section 4."""
    data = {"example.org": [{"TXT": "v=spf1 exists:%{l}.users.example.org ?all"}], "users.example.org": [{"A": "127.0.0.2"}]}
    assert check(data, sender="jörg@example.org").result is SPF.NEUTRAL


def test_the_reason_is_the_term_that_matched() -> None:
    data = {"example.org": [{"TXT": "v=spf1 ip4:198.51.100.0/24 ~all"}]}
    assert check(data).reason == "~all"
    assert check(data, "198.51.100.77").reason == "ip4:198.51.100.0/24"


def test_an_explanation_with_a_line_end_is_none() -> None:
    data = {
        "example.org": [{"TXT": "v=spf1 -all exp=why.example.org"}],
        "why.example.org": [{"TXT": "no\r\n250 2.0.0 OK"}],
    }
    assert check(data) == Checked(SPF.FAIL, "-all", "", 0)


# --- records


@pytest.mark.parametrize(
    "text",
    [
        "v=spf1 ip4:192.0.2.1/33", "v=spf1 ip4:192.0.2.1/08", "v=spf1 ip4:192.0.2", "v=spf1 ip6:2001:db8::1%eth0",
        "v=spf1 ip6:192.0.2.1", "v=spf1 a/33", "v=spf1 a//129", "v=spf1 a:", "v=spf1 include", "v=spf1 all:x.org",
        "v=spf1 ptr/24", "v=spf1 redirect=a.org redirect=b.org", "v=spf1 redirect=", "v=spf1 foo", "v=spf1 -",
        "v=spf1 exists:%{x}.org", "v=spf1 exists:%(d}.org", "v=spf1 exists:%{d0}.org", "v=spf1 exists:%{d", "v=spf1 a:%",
        "v=spf1 moo=%{", "v=spf1 =x", "v=spf1 a:example.123", "v=spf1 include:org", "v=spf1 mx:example.org:25",
        "v=spf1 a\tb", "v=spf1 ip4:192.0.2.1/", "v=spf1 a:example.org/", "v=spf1 a:example.org//",
    ],
)  # fmt: skip
def test_a_record_with_an_error_anywhere_is_one(text: str) -> None:
    with pytest.raises(BadRecord):
        parse_record(text.encode())


@pytest.mark.parametrize("term", ["a:%{\r\nBcc:x", "\r\n250 OK", "moo=%\n", "a:\x00.org"])
def test_what_is_said_of_an_error_is_one_printable_line(term: str) -> None:
    found = check({"example.org": [{"TXT": f"v=spf1 {term} -all"}]})
    assert found.result is SPF.PERMERROR
    assert found.reason.isprintable()


def test_which_record_it_is() -> None:
    assert select_record([b"v=spf1", b"v=spf10 all", b"spf1", b"google-site"]) == b"v=spf1"
    assert select_record([b"v=spf2.0/pra ?all"]) is None
    assert select_record([b"V=SPF1 all"]) == b"V=SPF1 all"
    with pytest.raises(BadRecord):
        select_record([b"v=spf1 a", b"v=spf1 mx"])


@settings(max_examples=60)
@given(st.binary(max_size=200))
def test_any_record_is_read_or_refused(octets: bytes) -> None:
    try:
        parse_record(b"v=spf1 " + octets)
    except BadRecord:
        pass


@settings(max_examples=60)
@given(st.lists(st.sampled_from(["a", "mx", "ptr", "all", "ip4:1.2.3.4/7", "exists:%{ir}.%{v}.x.y", "exp=%{d}", "/", ":", "//64", " ", "%", "-", "."])))
def test_pieces_of_records_give_a_result(pieces: list[str]) -> None:
    data: dict[str, list[Any]] = {"example.org": [{"TXT": "v=spf1 " + "".join(pieces)}, {"MX": [1, "a.b"]}]}
    assert isinstance(check(data, "2001:db8::7").result, SPF)


# --- the examples of RFC 7208 section 7.4


SENDER = "strong-bad@email.example.com"


@pytest.mark.parametrize(
    ("macros", "expanded"),
    [
        ("%{s}", "strong-bad@email.example.com"),
        ("%{o}", "email.example.com"),
        ("%{d}", "email.example.com"),
        ("%{d4}", "email.example.com"),
        ("%{d3}", "email.example.com"),
        ("%{d2}", "example.com"),
        ("%{d1}", "com"),
        ("%{dr}", "com.example.email"),
        ("%{d2r}", "example.email"),
        ("%{l}", "strong-bad"),
        ("%{l-}", "strong.bad"),
        ("%{lr}", "strong-bad"),
        ("%{lr-}", "bad.strong"),
        ("%{l1r-}", "strong"),
        ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
        ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
        ("%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", "bad.strong.lp.3.2.0.192.in-addr._spf.example.com"),
        ("%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}", "3.2.0.192.in-addr.strong.lp._spf.example.com"),
        ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
        ("%%%_%-", "% %20"),
        ("%{S}", "strong-bad%40email.example.com"),
    ],
)
def test_macros_expand_as_the_rfc_says(macros: str, expanded: str) -> None:
    values = Values(ipaddress.ip_address("192.0.2.3"), SENDER, "email.example.com", "mx.example.com", "us.example", 0)
    assert parse_macros(macros).expand(values) == expanded


def test_an_ipv6_address_is_its_nibbles() -> None:
    values = Values(ipaddress.ip_address("2001:db8::cb01"), SENDER, "email.example.com", "", "", 0)
    assert parse_macros("%{ir}.%{v}._spf.%{d2}").expand(values) == (
        "1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6._spf.example.com"
    )


# --- RFC 7208 appendix A

ZONE: dict[str, list[Any]] = {
    "example.com": [{"A": "192.0.2.10"}, {"A": "192.0.2.11"}, {"MX": [10, "mail-a.example.com"]}, {"MX": [20, "mail-b.example.com"]}],
    "amy.example.com": [{"A": "192.0.2.65"}],
    "bob.example.com": [{"A": "192.0.2.66"}],
    "mail-a.example.com": [{"A": "192.0.2.129"}],
    "mail-b.example.com": [{"A": "192.0.2.130"}],
    "example.org": [{"MX": [10, "mail-c.example.org"]}],
    "mail-c.example.org": [{"A": "192.0.2.140"}],
    "10.2.0.192.in-addr.arpa": [{"PTR": "example.com"}],
    "11.2.0.192.in-addr.arpa": [{"PTR": "example.com"}],
    "65.2.0.192.in-addr.arpa": [{"PTR": "amy.example.com"}],
    "66.2.0.192.in-addr.arpa": [{"PTR": "bob.example.com"}],
    "140.2.0.192.in-addr.arpa": [{"PTR": "mail-c.example.org"}],
    "4.0.0.10.in-addr.arpa": [{"PTR": "bob.example.com"}],
}


@pytest.mark.parametrize(
    ("record", "passing"),
    [
        ("+all", "192.0.2.10 192.0.2.140 10.0.0.4"),
        ("a -all", "192.0.2.10 192.0.2.11"),
        ("a:example.org -all", ""),
        ("mx -all", "192.0.2.129 192.0.2.130"),
        ("mx:example.org -all", "192.0.2.140"),
        ("mx mx:example.org -all", "192.0.2.129 192.0.2.130 192.0.2.140"),
        ("mx/30 mx:example.org/30 -all", "192.0.2.128 192.0.2.131 192.0.2.140 192.0.2.143"),
        ("ptr -all", "192.0.2.10 192.0.2.11 192.0.2.65 192.0.2.66"),
        ("ip4:192.0.2.128/28 -all", "192.0.2.129 192.0.2.140"),
    ],
)
def test_the_simple_examples_of_the_rfc(record: str, passing: str) -> None:
    data = {**ZONE, "example.com": [*ZONE["example.com"], {"TXT": f"v=spf1 {record}"}]}
    addresses = "192.0.2.10 192.0.2.11 192.0.2.65 192.0.2.66 192.0.2.128 192.0.2.129 192.0.2.130 192.0.2.131 192.0.2.140 192.0.2.143 10.0.0.4"
    passed = {each for each in addresses.split() if check(data, each, "user@example.com").result is SPF.PASS}
    if record == "+all":
        assert passed == set(addresses.split())
    elif record == "ip4:192.0.2.128/28 -all":
        assert passed == set("192.0.2.128 192.0.2.129 192.0.2.130 192.0.2.131 192.0.2.140 192.0.2.143".split())
    elif record == "mx/30 mx:example.org/30 -all":
        assert passed == set("192.0.2.128 192.0.2.129 192.0.2.130 192.0.2.131 192.0.2.140 192.0.2.143".split())
    else:
        assert passed == set(passing.split())


def test_a_black_list_made_of_exists() -> None:
    """Appendix A.3 and A.4: mobile users by name, and a DNSBL."""
    data: dict[str, list[Any]] = {
        "example.org": [{"TXT": "v=spf1 mx include:mobile-users._spf.%{d} include:remote-users._spf.%{d} -all"}, {"MX": [1, "mx.example.org"]}],
        "mx.example.org": [{"A": "192.0.2.200"}],
        "mobile-users._spf.example.org": [{"TXT": "v=spf1 exists:%{l1r+}.%{d}"}],
        "mary.mobile-users._spf.example.org": [{"A": "127.0.0.2"}],
        "remote-users._spf.example.org": [{"TXT": "v=spf1 exists:%{ir}.%{l1r+}.%{d}"}],
        "1.2.0.192.joel.remote-users._spf.example.org": [{"A": "127.0.0.2"}],
    }
    assert check(data, "203.0.113.9", "mary+shop@example.org").result is SPF.PASS
    assert check(data, "203.0.113.9", "fred@example.org").result is SPF.FAIL
    assert check(data, "192.0.2.1", "joel@example.org").result is SPF.PASS
    assert MX(1, "mx.example.org") in run(zone(data).mx("example.org")).records
