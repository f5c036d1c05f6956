"""DMARC: which policy it is, whose name counts, and what is done."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from tests.dns.fakes import TableDNS
from tests.filters.asking import Message, client, mail, now
from twisted_mail.dns.values import MX, DNSFailure
from twisted_mail.filters.dmarc import PolicyFinder, authors, steps
from twisted_mail.filters.dmarc_record import BadPolicy, DMARCRecord, ReportAddress, parse_policy, select_policy
from twisted_mail.filters.dmarc_stage import DMARCStage, Judged
from twisted_mail.filters.origins import SPF, ARCResult, Disposition, DKIMResults, DMARCResult, SPFResult
from twisted_mail.filters.stages import AtEnd, Stage
from twisted_mail.filters.values import Action, Mail, Verdict
from twisted_mail.signatures import Chain, ChainResult, Result, Verification

NONE, QUARANTINE, REJECT = Disposition.NONE, Disposition.QUARANTINE, Disposition.REJECT


def table(**records: str) -> TableDNS:
    """``_dmarc.`` records by domain, with ``__`` for dots."""
    return TableDNS({(f"_dmarc.{name.replace('__', '.')}", "TXT"): [text.encode()] for name, text in records.items()})


def org(dns: TableDNS, domain: str) -> str:
    return now(PolicyFinder(dns).organization(domain))


def policy(dns: TableDNS, domain: str, **more: Any) -> tuple[str, Disposition] | None:
    found, _ = now(PolicyFinder(dns, **more).find(domain))
    return (found.policy_domain, found.wanted) if found is not None else None


# --- records


def test_a_record_with_everything() -> None:
    record = parse_policy(
        b"v=DMARC1; p=reject; sp=quarantine ; np = none;adkim=s; aspf=s; psd=n; t=y; fo=1:d; "
        b"rua=mailto:a@example.org!10m, mailto:b%2Bc@example.net,https://example.org/x,mailto:nobody; ruf=mailto:x@y.z; unknown=1"
    )
    assert record == DMARCRecord(
        REJECT, QUARANTINE, NONE, True, True, "n", True,
        (ReportAddress("a@example.org", 10 << 20), ReportAddress("b+c@example.net")), "1:d",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "record"),
    [
        ("v=DMARC1", DMARCRecord()),
        ("v=DMARC1;", DMARCRecord()),
        (" v = DMARC1 ;p=REJECT;", DMARCRecord(REJECT)),
        ("v=DMARC1; adkim=x; aspf=; psd=maybe; t=2; fo=?; garbage; =; p=none", DMARCRecord()),
        ("v=DMARC1; p=reject; pct=50", DMARCRecord(REJECT)),
        ("v=DMARC1; p=reject; pct=0", DMARCRecord(REJECT, testing=True)),
        ("v=DMARC1; p=refuse; rua=mailto:a@example.org", DMARCRecord(reports=(ReportAddress("a@example.org"),))),
        ("v=DMARC1; p=reject; sp=x; rua=mailto:a@example.org", DMARCRecord(reports=(ReportAddress("a@example.org"),))),
    ],
)
def test_what_is_not_known_is_passed_over(text: str, record: DMARCRecord) -> None:
    assert parse_policy(text.encode()) == record


@pytest.mark.parametrize("text", ["v=DMARC1; p=refuse", "v=DMARC1; p=none; p=reject", "v=DMARC1; p=none; np=z", "v=DMARC1; " + "x" * 5000])
def test_a_record_that_contradicts_itself_is_none(text: str) -> None:
    with pytest.raises(BadPolicy):
        parse_policy(text.encode())


def test_which_record_it_is() -> None:
    assert select_policy([b"v=dmarc1; p=reject", b"v=DMARC10; p=reject", b"p=reject; v=DMARC1", b"v=spf1 -all"]) is None
    assert select_policy([b"v=spf1", b"v=DMARC1; p=reject"]) == DMARCRecord(REJECT)
    with pytest.raises(BadPolicy, match="several"):
        select_policy([b"v=DMARC1; p=none", b"v=DMARC1; p=reject"])


@settings(max_examples=60)
@given(st.text(alphabet="vDMARC1=;p rejctnoneuaml:to,!@.km5", max_size=60))
def test_any_record_is_read_or_refused(text: str) -> None:
    try:
        parse_policy(b"v=DMARC1;" + text.encode())
    except BadPolicy:
        pass


# --- the walk (RFC 9989 section 4.10 and its examples)


def test_a_long_name_is_asked_for_eight_times() -> None:
    dns = TableDNS({})
    assert org(dns, "a.b.c.d.e.f.g.h.i.j.mail.example.com") == "a.b.c.d.e.f.g.h.i.j.mail.example.com"
    assert [name for name, _ in dns.asked] == [
        "_dmarc.a.b.c.d.e.f.g.h.i.j.mail.example.com", "_dmarc.g.h.i.j.mail.example.com", "_dmarc.h.i.j.mail.example.com",
        "_dmarc.i.j.mail.example.com", "_dmarc.j.mail.example.com", "_dmarc.mail.example.com", "_dmarc.example.com", "_dmarc.com",
    ]  # fmt: skip
    assert steps("mail.a.b.c.d.e.f.g.example.com")[1] == "c.d.e.f.g.example.com"
    assert steps("a.mail.example.com") == ("a.mail.example.com", "mail.example.com", "example.com", "com")
    assert steps("b.c.d.e.f.g.example.com")[1] == "c.d.e.f.g.example.com"
    assert len(steps(".".join("x" * 100))) == 8


def test_the_organizational_domain_of_the_examples() -> None:
    assert org(table(mail__example__com="v=DMARC1", example__com="v=DMARC1"), "a.mail.example.com") == "example.com"
    assert org(table(mail__example__com="v=DMARC1; psd=n", example__com="v=DMARC1"), "a.mail.example.com") == "mail.example.com"
    assert org(table(com="v=DMARC1; psd=y"), "a.mail.example.com") == "example.com"
    assert org(table(example__com="v=DMARC1; psd=y"), "mail.example.com") == "mail.example.com"
    assert org(table(example__com="v=DMARC1; psd=y"), "example.com") == "example.com"
    assert org(table(), "a.mail.example.com") == "a.mail.example.com"


def test_the_walk_ends_at_a_domain_that_says_what_it_is() -> None:
    dns = table(mail__example__com="v=DMARC1; psd=n", example__com="v=DMARC1")
    assert org(dns, "a.mail.example.com") == "mail.example.com"
    assert ("_dmarc.example.com", "TXT") not in dns.asked


def test_the_authors_own_record_goes_before_all_others() -> None:
    dns = table(mail__example__com="v=DMARC1; p=none; sp=reject", example__com="v=DMARC1; p=reject")
    assert policy(dns, "mail.example.com") == ("mail.example.com", NONE)
    assert dns.asked == [("_dmarc.mail.example.com", "TXT")]


def test_of_those_above_it_the_organizations_counts() -> None:
    dns = table(mail__example__com="v=DMARC1; p=none; sp=none", example__com="v=DMARC1; p=reject; sp=quarantine", com="v=DMARC1; p=none; psd=y")
    assert policy(dns, "a.mail.example.com") == ("example.com", QUARANTINE)
    assert policy(table(com="v=DMARC1; p=reject; psd=y"), "a.example.com") == ("com", REJECT)
    assert policy(table(), "a.example.com") is None


def test_names_that_do_not_exist_have_a_policy_of_their_own() -> None:
    dns = table(example__com="v=DMARC1; p=none; sp=quarantine; np=reject")
    assert policy(dns, "nowhere.example.com") == ("example.com", REJECT)
    for type, value in [("A", ["192.0.2.1"]), ("MX", [MX(1, "x.example")]), ("AAAA", ["::1"])]:
        dns.table["here.example.com", type] = value
        assert policy(dns, "here.example.com") == ("example.com", QUARANTINE), type
        del dns.table["here.example.com", type]
    dns.table["text.example.com", "TXT"] = [b"it has no A, AAAA or MX"]
    assert policy(dns, "text.example.com") == ("example.com", REJECT)


def test_with_the_public_suffix_list() -> None:
    dns = table(mail__example__co__uk="v=DMARC1; p=none", example__co__uk="v=DMARC1; p=reject", co__uk="v=DMARC1; p=none")
    assert policy(dns, "a.mail.example.co.uk", discovery="psl") == ("example.co.uk", REJECT)
    assert policy(dns, "other.co.uk", discovery="psl") is None
    assert [name for name, _ in dns.asked] == ["_dmarc.a.mail.example.co.uk", "_dmarc.example.co.uk", "_dmarc.other.co.uk"]
    finder = PolicyFinder(table(), discovery="psl")
    assert now(finder.aligned("a.example.co.uk", "b.example.co.uk", strict=False))
    assert not now(finder.aligned("example.co.uk", "other.co.uk", strict=False))
    assert not now(finder.aligned("a.github.io", "b.github.io", strict=False))


def test_an_error_on_the_way_is_told_and_counts_as_no_record() -> None:
    dns = table(example__com="v=DMARC1; p=reject")
    dns.table["_dmarc.a.example.com", "TXT"] = [b"v=DMARC1; p=none", b"v=DMARC1; p=reject"]
    found, wrong = now(PolicyFinder(dns).find("a.example.com"))
    assert found is not None
    assert (found.policy_domain, found.wanted) == ("example.com", REJECT)
    assert wrong == "several DMARC records at _dmarc.a.example.com"


def test_what_was_found_is_remembered_for_a_minute() -> None:
    dns, clock = table(example__com="v=DMARC1; p=reject"), Clock()
    finder = PolicyFinder(dns, clock)
    for _ in range(2):
        found, _ = now(finder.find("mail.example.com"))
        assert found is not None
        assert now(finder.organization("other.example.com")) == "example.com"
    asked = len(dns.asked)
    assert asked == len({name for name, _ in dns.asked}) + 3  # the two walks share what is above, and the first asks for the author twice
    dns.table["_dmarc.example.com", "TXT"] = [b"v=DMARC1; p=none"]
    clock.advance(61)
    found, _ = now(finder.find("mail.example.com"))
    assert found is not None
    assert found.wanted is NONE
    dns.table["_dmarc.example.net", "TXT"] = DNSFailure("down")
    for _ in range(2):
        with pytest.raises(DNSFailure):
            now(finder.find("example.net"))


@pytest.mark.parametrize(
    ("author", "identifier", "relaxed", "strict"),
    [
        ("example.com", "example.com", True, True),
        ("example.com", "child.example.com", True, False),
        ("child.example.com", "example.com", True, False),
        ("child.example.com", "other.example.com", True, False),
        ("child.example.com", "example.net", False, False),
        ("child.example.com", "sample.net", False, False),
        ("example.com", "com", False, False),
        ("example.com", "", False, False),
    ],
)
def test_the_examples_of_alignment(author: str, identifier: str, relaxed: bool, strict: bool) -> None:
    """RFC 9989 appendix B.1."""
    finder = PolicyFinder(table(example__com="v=DMARC1; p=none", example__net="v=DMARC1; p=none", sample__net="v=DMARC1"))
    assert now(finder.aligned(author, identifier, strict=False)) is relaxed
    assert now(finder.aligned(author, identifier, strict=True)) is strict


# --- the author


@pytest.mark.parametrize(
    ("header", "domains", "wrong"),
    [
        (b"From: Ann <ann@Example.ORG>\r\n", ("example.org",), ""),
        (b'From: "bank@bank.example" <ann@example.org>\r\n', ("example.org",), ""),
        (b"From: ann@example.org, bob@example.org\r\n", ("example.org",), ""),
        (b"From: ann@example.org, bob@bank.example\r\n", ("example.org", "bank.example"), "several domains"),
        (b"From: ann@example.org\r\nFROM: bob@bank.example\r\n", ("example.org", "bank.example"), "several From"),
        (b"From : ann@example.org\r\n", ("example.org",), ""),
        (b"From: A group: ann@example.org;\r\n", ("example.org",), ""),
        (b"From: undisclosed:;\r\n", (), "no domain"),
        (b"From: ann\r\n", (), "no domain"),
        (b"From:\r\n", (), "no domain"),
        (b"Subject: x\r\n", (), "no From"),
        ("From: jörg@bücher.example\r\n".encode(), ("xn--bcher-kva.example",), ""),
        (b"From: ann@[192.0.2.1]\r\n", (), "no domain"),
        (b"From: =?utf-8?q?ann=40bank.example?= <ann@example.org>\r\n", ("example.org",), ""),
    ],
)
def test_who_the_author_is(header: bytes, domains: tuple[str, ...], wrong: str) -> None:
    found = authors(Message(header + b"\r\n").named.get(b"from", ()))
    assert found.domains == domains
    assert wrong in found.wrong
    assert bool(wrong) == bool(found.wrong)


# --- the filter

AUTHOR = b"From: Ann <ann@example.org>\r\nSubject: hi\r\n\r\nhello\r\n"
RECORD = "v=DMARC1; p=reject; rua=mailto:reports@example.org"


def signature(domain: str, result: Result = Result.PASS) -> Verification:
    return Verification(result, domain=domain, selector="s")


def judge(
    dns: TableDNS,
    message: bytes = AUTHOR,
    *,
    spf: tuple[str, SPF] | None = None,
    dkim: tuple[Verification, ...] = (),
    arc: ARCResult | None = None,
    trusted: bool = False,
    told: list[Judged] | None = None,
    **options: Any,
) -> tuple[Verdict, DMARCResult]:
    asked: Mail = mail("bounce@example.net", client(trusted=trusted))
    if spf is not None:
        asked.note(SPFResult(spf[1], spf[0]))
    asked.note(DKIMResults(dkim))
    if arc is not None:
        asked.note(arc)
    stage = DMARCStage(dns, judged=told.append if told is not None else None, wall=lambda: 1000.0, **options)
    verdict = now(stage.end(Message(message, asked)))
    found = asked.noted(DMARCResult)
    assert found is not None
    return verdict, found


def test_a_signature_of_the_authors_domain_passes() -> None:
    verdict, found = judge(table(example__org=RECORD), dkim=(signature("other.example"), signature("mail.example.org")))
    assert (found.result, found.dkim_aligned, found.spf_aligned) == ("pass", True, False)
    assert verdict.action is Action.ACCEPT
    assert verdict.reason == "it is from example.org, says its signature (DMARC)"
    assert (verdict.results[0].method, verdict.results[0].value, verdict.results[0].properties) == ("dmarc", "pass", (("header.from", "example.org"),))


def test_spf_of_the_authors_domain_passes() -> None:
    verdict, found = judge(table(example__org=RECORD), spf=("bounce.example.org", SPF.PASS))
    assert (found.result, found.spf_aligned) == ("pass", True)
    assert verdict.reason == "it is from example.org, says SPF (DMARC)"


@pytest.mark.parametrize(
    ("record", "spf", "dkim"),
    [
        (RECORD, ("example.net", SPF.PASS), (signature("example.net"),)),
        (RECORD, ("example.org", SPF.SOFTFAIL), (signature("example.org", Result.FAIL),)),
        (RECORD, ("example.org", SPF.NEUTRAL), (signature("example.org", Result.POLICY),)),
        (RECORD, None, (signature("org"),)),
        (RECORD, None, (signature("notexample.org"),)),
        (RECORD + "; aspf=s; adkim=s", ("bounce.example.org", SPF.PASS), (signature("mail.example.org"),)),
    ],
)
def test_what_does_not_speak_for_the_author_is_refused(record: str, spf: tuple[str, SPF] | None, dkim: tuple[Verification, ...]) -> None:
    verdict, found = judge(table(example__org=record), spf=spf, dkim=dkim)
    assert (found.result, found.policy, found.applied, found.override) == ("fail", REJECT, REJECT, "")
    assert verdict.action is Action.REJECT
    assert verdict.answer is not None
    assert (verdict.answer.code, verdict.answer.enhanced) == (550, "5.7.1")
    assert "DMARC" in verdict.answer.text
    assert verdict.reason == "it is not shown to be from example.org, and example.org wants such mail refused (DMARC)"


def test_strict_alignment_takes_the_very_domain() -> None:
    _, found = judge(table(example__org=RECORD + "; adkim=s"), dkim=(signature("example.org"),))
    assert found.result == "pass"


def test_quarantine_is_junk_and_none_is_nothing() -> None:
    verdict, _ = judge(table(example__org="v=DMARC1; p=quarantine"))
    assert (verdict.action, verdict.answer) == (Action.JUNK, None)
    verdict, found = judge(table(example__org="v=DMARC1; p=none"))
    assert verdict.action is Action.ACCEPT
    assert found.result == "fail"
    verdict, found = judge(table())
    assert (verdict.action, found.result) == (Action.ACCEPT, "none")


def test_test_mode_is_one_step_less() -> None:
    verdict, found = judge(table(example__org=RECORD + "; t=y"))
    assert (verdict.action, found.applied, found.override) == (Action.JUNK, QUARANTINE, "policy_test_mode")
    verdict, found = judge(table(example__org="v=DMARC1; p=quarantine; t=y"))
    assert (verdict.action, found.applied, found.override) == (Action.MARK, NONE, "policy_test_mode")


def test_an_operator_may_do_less() -> None:
    verdict, found = judge(table(example__org=RECORD), reject=Action.JUNK)
    assert (verdict.action, found.applied, found.override) == (Action.JUNK, QUARANTINE, "local_policy")
    verdict, found = judge(table(example__org=RECORD), enforce=False)
    assert (verdict.action, verdict.answer, found.applied, found.override) == (Action.MARK, None, NONE, "local_policy")
    verdict, found = judge(table(example__org=RECORD + "; t=y"), enforce=False)
    assert (verdict.action, found.applied) == (Action.MARK, NONE)


def passed_at(dmarc: str, trusted: str = "list.example") -> ARCResult:
    return ARCResult(ChainResult(Chain.PASS), trusted, dmarc)


def test_a_trusted_sealers_word_counts() -> None:
    verdict, found = judge(table(example__org=RECORD), arc=passed_at("pass"))
    assert (verdict.action, found.result, found.applied, found.override) == (Action.MARK, "fail", NONE, "trusted_forwarder")
    assert "a server that is trusted has seen that it was" in verdict.reason
    for arc in (passed_at("fail"), passed_at(""), passed_at("pass", trusted="")):
        verdict, _ = judge(table(example__org=RECORD), arc=arc)
        assert verdict.action is Action.REJECT


def test_what_the_dns_does_not_say_is_no_failure() -> None:
    dns = TableDNS({("_dmarc.example.org", "TXT"): DNSFailure("down")})
    verdict, found = judge(dns)
    assert (verdict.action, found.result) == (Action.ACCEPT, "temperror")
    verdict, _ = judge(dns, temperror=Action.DEFER)
    assert verdict.answer is not None
    assert (verdict.action, verdict.answer.code) == (Action.DEFER, 451)
    _, found = judge(table(example__org=RECORD), dkim=(signature("example.org", Result.TEMPERROR),))
    assert found.result == "temperror"
    _, found = judge(table(example__org=RECORD), spf=("example.org", SPF.TEMPERROR))
    assert found.result == "temperror"
    _, found = judge(table(example__org=RECORD), spf=("example.net", SPF.TEMPERROR))
    assert found.result == "fail"


def test_records_that_contradict_each_other_are_an_error() -> None:
    dns = TableDNS({("_dmarc.example.org", "TXT"): [b"v=DMARC1; p=none", b"v=DMARC1; p=reject"]})
    verdict, found = judge(dns)
    assert (verdict.action, found.result) == (Action.ACCEPT, "permerror")
    assert verdict.results[0].reason == "several DMARC records at _dmarc.example.org"
    _, found = judge(table(example__org="v=DMARC1; p=none; p=reject"))
    assert found.result == "permerror"


TWO = b"From: ann@example.org, evil@example.net\r\n\r\n"


def test_of_several_authors_each_ones_policy_counts() -> None:
    dns = table(example__org=RECORD, example__net="v=DMARC1; p=none")
    verdict, found = judge(dns, TWO, dkim=(signature("example.net"),))
    assert (verdict.action, found.result, found.domain, found.policy) == (Action.REJECT, "permerror", "example.org", REJECT)
    assert found.domains == ("example.org", "example.net")
    verdict, found = judge(dns, TWO, dkim=(signature("example.net"), signature("example.org")))
    assert (verdict.action, found.result) == (Action.ACCEPT, "pass")
    verdict, found = judge(table(), TWO)
    assert (verdict.action, found.result) == (Action.ACCEPT, "permerror")
    second = b"From: ann@example.org\r\nFrom: evil@example.net\r\n\r\n"
    verdict, found = judge(dns, second, dkim=(signature("example.net"),))
    assert (verdict.action, found.result) == (Action.REJECT, "permerror")


def test_without_an_author_there_is_nothing_to_ask() -> None:
    verdict, found = judge(table(), b"Subject: hi\r\n\r\n")
    assert (verdict.action, found.result, found.reason) == (Action.ACCEPT, "permerror", "there is no From field")
    assert verdict.results[0].properties == (("header.from", ""),)


def test_from_a_server_of_ours_a_missing_signature_says_nothing() -> None:
    verdict, found = judge(table(example__org=RECORD), trusted=True)
    assert (verdict.action, found.result) == (Action.ACCEPT, "none")
    _, found = judge(table(example__org=RECORD), trusted=True, dkim=(signature("example.org"),))
    assert found.result == "pass"


def test_whoever_writes_reports_is_told() -> None:
    told: list[Judged] = []
    dns = table(example__org=RECORD)
    judge(dns, dkim=(signature("example.org"),), told=told)
    judge(dns, arc=passed_at("pass"), told=told)
    judge(table(), told=told)
    judge(TableDNS({("_dmarc.example.org", "TXT"): DNSFailure("down")}), told=told)
    assert [(each.result.result, each.result.override, each.comment) for each in told] == [
        ("pass", "", ""), ("fail", "trusted_forwarder", "ARC pass of list.example"),
    ]  # fmt: skip
    assert told[0].found.record.reports == (ReportAddress("reports@example.org"),)
    assert (told[0].moment, told[0].address) == (1000.0, "198.51.100.7")


def test_it_is_asked_after_the_others() -> None:
    stage: Stage = DMARCStage(table())
    assert isinstance(stage, AtEnd)
    assert stage.needs == {"spf", "dkim", "arc"}
