"""The filters iprev, spf, dkim and arc: what they note, what they say, and what they pass over."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.dns.fakes import TableDNS
from tests.filters.asking import Message, client, mail, now, started
from tests.signatures.support import DOMAIN, KEYS, MESSAGE, NOW, RSA_1024, RSA_SHORT, published, sign
from tests.signatures.test_arc import DNS as SEALERS
from tests.signatures.test_arc import HOPS, seal
from twisted_mail.dns.values import DNSFailure
from twisted_mail.filters.arc_stage import ARCStage, TrustedSealers
from twisted_mail.filters.dkim_stage import DKIMStage
from twisted_mail.filters.iprev_stage import IPRevStage
from twisted_mail.filters.origins import SPF, ARCResult, DKIMResults, ReverseName, SPFHelo, SPFResult
from twisted_mail.filters.signed import SharedReading
from twisted_mail.filters.spf import CheckHost
from twisted_mail.filters.spf_stage import SPFStage
from twisted_mail.filters.stages import AtConnect, AtMail, AtMessage, Stage
from twisted_mail.filters.values import Action, Mail, Verdict
from twisted_mail.signatures import Chain, SigningKey


def results(verdict: Verdict) -> list[str]:
    return [f"{each.method}={each.value}" for each in verdict.results]


# --- iprev

PEER = "192.0.2.7"


def look_up(table: dict[tuple[str, str], Any], address: str = PEER) -> tuple[ReverseName | None, Verdict]:
    stage: Any = IPRevStage(TableDNS(table), Clock())
    peer = client(address)
    now(stage.connect(peer))
    return peer.noted(ReverseName), now(stage.mail(mail(peer=peer)))


def test_a_name_that_leads_back_is_the_clients() -> None:
    found, verdict = look_up({
        (PEER, "PTR"): ["other.example", "mail.example.net"],
        ("other.example", "A"): ["192.0.2.8"],
        ("mail.example.net", "A"): ["192.0.2.9", PEER],
    })  # fmt: skip
    assert found == ReverseName("pass", "mail.example.net", ("other.example", "mail.example.net"))
    assert verdict.reason == "192.0.2.7 is mail.example.net"
    assert verdict.results[0].properties == (("policy.iprev", PEER),)


@pytest.mark.parametrize(
    ("table", "result"),
    [
        ({}, "permerror"),
        ({(PEER, "PTR"): []}, "permerror"),
        ({(PEER, "PTR"): DNSFailure("down")}, "temperror"),
        ({(PEER, "PTR"): ["mail.example.net"]}, "fail"),
        ({(PEER, "PTR"): ["mail.example.net"], ("mail.example.net", "A"): ["192.0.2.8"]}, "fail"),
        ({(PEER, "PTR"): ["mail.example.net"], ("mail.example.net", "A"): DNSFailure("down")}, "temperror"),
    ],
)
def test_a_name_that_does_not(table: dict[tuple[str, str], Any], result: str) -> None:
    found, verdict = look_up(table)
    assert found is not None
    assert (found.result, found.name) == (result, "")
    assert results(verdict) == [f"iprev={result}"]
    assert verdict.action is Action.ACCEPT


def test_an_ipv6_client_has_its_name_by_aaaa() -> None:
    table = {("2001:db8::7", "PTR"): ["mail.example.net"], ("mail.example.net", "AAAA"): ["2001:db8:0::7"]}
    found, _ = look_up(table, "2001:db8:0:0::7")
    assert found is not None
    assert found.result == "pass"


def test_a_unix_socket_has_no_name() -> None:
    found, verdict = look_up({}, "")
    assert (found, verdict) == (None, Verdict())


def test_ten_names_are_looked_at() -> None:
    dns = TableDNS({(PEER, "PTR"): [f"n{number}.example" for number in range(50)]})
    now(IPRevStage(dns, Clock()).connect(client(PEER)))
    assert len(dns.asked) == 1 + 10


def test_names_are_remembered_for_a_while() -> None:
    clock = Clock()
    dns = TableDNS({(PEER, "PTR"): ["mail.example.net"], ("mail.example.net", "A"): [PEER], ("192.0.2.8", "PTR"): DNSFailure("down")})
    stage = IPRevStage(dns, clock)
    for _ in range(3):
        peer = client(PEER)
        now(stage.connect(peer))
        assert peer.noted(ReverseName) == ReverseName("pass", "mail.example.net", ("mail.example.net",))
    assert len(dns.asked) == 2
    clock.advance(301)
    now(stage.connect(client(PEER)))
    assert len(dns.asked) == 4
    for _ in range(2):
        now(stage.connect(client("192.0.2.8")))
    assert len(dns.asked) == 6


class Slow(TableDNS):
    """Answers when the test says so."""

    def __init__(self, table: dict[tuple[str, str], Any]) -> None:
        super().__init__(table)
        self.waiting: list[Deferred[None]] = []

    async def _ask(self, name: str, type: str) -> Any:
        mine: Deferred[None] = Deferred()
        self.waiting.append(mine)
        await mine
        return await super()._ask(name, type)

    def answer(self) -> None:
        for waiting in self.waiting:
            if not waiting.called:
                waiting.callback(None)


def test_a_slow_dns_holds_back_a_greeting_for_a_second_and_helo_for_two() -> None:
    dns, clock = Slow({}), Clock()
    stage, peer = IPRevStage(dns, clock), client(PEER)
    greeted = started(stage.connect(peer))
    clock.advance(0.9)
    assert not greeted.called
    clock.advance(0.2)
    assert greeted.called
    said = started(stage.helo(peer))
    clock.advance(1.9)
    assert not said.called
    clock.advance(0.2)
    assert said.called
    assert peer.noted(ReverseName) == ReverseName("temperror")
    assert results(now(stage.mail(mail(peer=peer)))) == ["iprev=temperror"]
    dns.answer()
    assert peer.noted(ReverseName) == ReverseName("permerror")


def test_an_answer_that_comes_late_is_there_at_helo() -> None:
    dns, clock = Slow({}), Clock()
    stage, peer = IPRevStage(dns, clock), client(PEER)
    started(stage.connect(peer))
    clock.advance(1.1)
    said = started(stage.helo(peer))
    dns.answer()
    assert said.called
    assert peer.noted(ReverseName) == ReverseName("permerror")
    assert clock.getDelayedCalls() == []


def test_who_hangs_up_is_not_looked_for_any_more() -> None:
    dns, clock = Slow({}), Clock()
    stage, peer = IPRevStage(dns, clock), client(PEER)
    waiting = started(stage.connect(peer))
    now(stage.closed(peer))
    assert waiting.called
    assert peer.noted(ReverseName) is None
    assert dns.waiting[0].called


# --- spf


def spf(
    table: dict[tuple[str, str], Any], sender: str = "bob@example.net", helo: str = "mx.example.net", **actions: Action
) -> tuple[Mail, Verdict]:
    stage = SPFStage(CheckHost(TableDNS(table), Clock()), **actions)
    asked = mail(sender, client(PEER, helo))
    return asked, now(stage.mail(asked))


POLICY = {("example.net", "TXT"): [b"v=spf1 ip4:192.0.2.0/24 -all"], ("mx.example.net", "TXT"): [b"v=spf1 a -all"], ("mx.example.net", "A"): [PEER]}


def test_both_identities_are_checked() -> None:
    asked, verdict = spf(POLICY)
    assert asked.noted(SPFResult) == SPFResult(SPF.PASS, "example.net", "mailfrom", "ip4:192.0.2.0/24")
    assert asked.client.noted(SPFHelo) == SPFHelo(SPF.PASS, "mx.example.net", "a")
    assert results(verdict) == ["spf=pass", "spf=pass"]
    assert [each.properties[0] for each in verdict.results] == [("smtp.mailfrom", "bob@example.net"), ("smtp.helo", "mx.example.net")]
    assert verdict.reason == "192.0.2.7 may send for example.net (SPF)"


def test_of_the_null_reverse_path_helo_counts() -> None:
    asked, verdict = spf(POLICY, "")
    assert asked.noted(SPFResult) == SPFResult(SPF.PASS, "mx.example.net", "helo", "a")
    assert results(verdict) == ["spf=pass"]
    asked, _ = spf(POLICY, "", "[192.0.2.7]")
    found = asked.noted(SPFResult)
    assert found is not None
    assert found.result is SPF.NONE


def test_a_name_said_once_is_checked_once() -> None:
    dns = TableDNS(dict(POLICY))
    stage = SPFStage(CheckHost(dns, Clock()))
    peer = client(PEER)
    now(stage.mail(mail("a@example.net", peer)))
    now(stage.mail(mail("", peer)))
    assert [name for name, _ in dns.asked].count("mx.example.net") == 2  # TXT and A
    peer.helo = "other.example"
    now(stage.mail(mail("", peer)))
    assert peer.noted(SPFHelo) == SPFHelo(SPF.NONE, "other.example", "other.example has no SPF record")


def test_by_default_a_fail_refuses_nothing() -> None:
    table = {("example.net", "TXT"): [b"v=spf1 -all exp=why.example.net"], ("why.example.net", "TXT"): [b"%{i} is not ours"]}
    _, verdict = spf(table)
    assert verdict.action is Action.ACCEPT
    assert verdict.answer is None
    assert results(verdict)[0] == "spf=fail"
    _, verdict = spf(table, fail=Action.REJECT)
    assert verdict.action is Action.REJECT
    assert verdict.answer is not None
    assert (verdict.answer.code, verdict.answer.enhanced) == (550, "5.7.23")
    assert verdict.answer.text == "SPF fail; example.net explains: 192.0.2.7 is not ours"


def test_a_dns_that_is_down_may_defer() -> None:
    _, verdict = spf({("example.net", "TXT"): DNSFailure("down")}, temperror=Action.DEFER)
    assert verdict.answer is not None
    assert (verdict.action, verdict.answer.code, verdict.answer.enhanced) == (Action.DEFER, 451, "4.7.24")


# --- dkim and arc


def show(stages: list[Any], message: bytes, peer: Mail | None = None, step: int = 7) -> tuple[Mail, list[Verdict]]:
    """Fed in turns, as the gauntlet does it."""
    asked = peer or mail()
    readers = [stage.read(asked) for stage in stages]
    for at in range(0, len(message), step):
        for reader in readers:
            now(reader.write(message[at : at + step]))
    arrived = Message(message, asked)
    return asked, [now(reader.finish(arrived)) for reader in readers]


def dkim(dns: Any) -> DKIMStage:
    return DKIMStage(dns, wall=lambda: NOW)


def test_who_has_signed_is_noted() -> None:
    asked, [verdict] = show([dkim(published(*KEYS))], sign(MESSAGE))
    found = asked.noted(DKIMResults)
    assert found is not None
    assert found.passed == (DOMAIN,)
    assert results(verdict) == ["dkim=pass", "dkim=pass"]
    properties = dict(verdict.results[0].properties)
    assert (properties["header.d"], properties["header.s"], properties["header.a"]) == (DOMAIN, "r1", "rsa-sha256")
    assert len(properties["header.b"]) == 8
    assert verdict.reason == "signed by example.org (DKIM)"


def test_a_changed_message_is_said_to_be_changed_and_goes_on() -> None:
    _, [verdict] = show([dkim(published(*KEYS))], sign(MESSAGE).replace(b"Hello Bob", b"Hello Eve"))
    assert results(verdict) == ["dkim=fail", "dkim=fail"]
    assert verdict.action is Action.ACCEPT
    assert verdict.reason == "the signature of example.org is not accepted: body hash did not verify (DKIM)"


def test_no_signature_no_result() -> None:
    asked, [verdict] = show([dkim(published())], MESSAGE)
    assert results(verdict) == ["dkim=none"]
    assert asked.noted(DKIMResults) == DKIMResults()


def test_a_short_key_is_not_accepted() -> None:
    # The library refuses to sign with less; a record of 512 bits over a signature of 1024 is refused before it is looked at.
    key = SigningKey(DOMAIN, "short", RSA_1024)
    dns = published(SigningKey(DOMAIN, "short", RSA_SHORT))
    asked, [verdict] = show([dkim(dns)], sign(MESSAGE, key))
    assert results(verdict) == ["dkim=policy"]
    assert verdict.results[0].reason == "key of 512 bits is too short"
    assert asked.noted(DKIMResults) is not None


def test_a_key_of_sixteen_kilobytes_is_an_error_at_once() -> None:
    dns = published(*KEYS)
    dns.texts["r1._domainkey.example.org"] = "v=DKIM1; k=rsa; p=" + "A" * 16_384
    _, [verdict] = show([dkim(dns)], sign(MESSAGE))
    assert results(verdict) == ["dkim=permerror", "dkim=pass"]
    assert verdict.results[0].reason == "key record too long"


def test_a_key_that_takes_long_to_verify_is_refused() -> None:
    dns = published(*KEYS)
    modulus = (1 << 16_000) + 1
    public = rsa.RSAPublicNumbers(65537, modulus).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    dns.texts["r1._domainkey.example.org"] = "k=rsa; p=" + base64.b64encode(public).decode()
    _, [verdict] = show([dkim(dns)], sign(MESSAGE))
    assert (results(verdict)[0], verdict.results[0].reason) == ("dkim=permerror", "key too large")


def test_ten_signatures_are_looked_at() -> None:
    key = KEYS[1]
    message = MESSAGE
    for _ in range(12):
        message = sign(message, key)
    _, [verdict] = show([dkim(published(*KEYS))], message)
    assert results(verdict) == ["dkim=pass"] * 10 + ["dkim=policy"] * 2


def test_a_header_without_an_end_is_not_held_for_ever() -> None:
    asked = mail()
    reader = dkim(published()).read(asked)
    for _ in range(40):
        now(reader.write(b"X-Long: " + b"x" * 65_000 + b"\r\n"))
    verdict = now(reader.finish(Message(b"\r\n", asked)))
    assert results(verdict) == ["dkim=policy"]


def test_a_dns_that_is_down_is_no_fault_of_the_signature() -> None:
    dns = published(*KEYS)
    dns.down.add("r1._domainkey.example.org")
    _, [verdict] = show([dkim(dns)], sign(MESSAGE, KEYS[0]))
    assert results(verdict) == ["dkim=temperror"]
    assert "cannot be checked now" in verdict.reason


SAW = "mx.hop.example; spf=fail smtp.mailfrom=a.example; dkim=pass header.d=example.org; dmarc=pass header.from=example.org"


def arc(*trusted: str, dns: Any = SEALERS) -> ARCStage:
    return ARCStage(dns, trusted, wall=lambda: NOW)


def hops(count: int, message: bytes = MESSAGE) -> bytes:
    for number in range(count):
        message = seal(message, HOPS[number], SEALERS, SAW)
    return message


def test_without_seals_there_is_no_chain() -> None:
    asked, [verdict] = show([arc()], MESSAGE)
    assert results(verdict) == ["arc=none"]
    found = asked.noted(ARCResult)
    assert found is not None
    assert (found.chain.chain, found.trusted) == (Chain.NONE, "")


def test_a_chain_says_something_only_if_its_sealers_are_trusted() -> None:
    for trusted, domain, dmarc in [
        ((), "", ""),
        (("hop0.example",), "", ""),
        (("hop2.example",), "hop2.example", "pass"),
        (("hop1.example", "hop2.example"), "hop1.example", "pass"),
        (("hop0.example", "hop2.example"), "hop2.example", "pass"),
        (("hop0.example", "HOP1.example", "hop2.example."), "hop0.example", "pass"),
    ]:
        asked, [verdict] = show([arc(*trusted)], hops(3))
        found = asked.noted(ARCResult)
        assert found is not None
        assert results(verdict) == ["arc=pass"]
        assert (found.trusted, found.dmarc) == (domain, dmarc), trusted


def test_a_broken_chain_is_trusted_by_nobody() -> None:
    asked, [verdict] = show([arc("hop0.example", "hop1.example")], hops(2).replace(b"Hello Bob", b"Hello Eve"))
    found = asked.noted(ARCResult)
    assert found is not None
    assert results(verdict) == ["arc=fail"]
    assert (found.trusted, found.seen) == ("", ())
    assert verdict.reason.startswith("the chain of seals on its way does not hold: ")


def test_names_of_sealers() -> None:
    names = TrustedSealers(["Example.org", ".bücher.example"])
    assert "example.org" in names
    assert "a.example.org" not in names
    assert "a.b.xn--bcher-kva.example" in names
    assert "xn--bcher-kva.example" not in names
    with pytest.raises(ValueError, match="no domain"):
        TrustedSealers(["a..b"])


@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_dkim_and_arc_hash_a_body_once(step: int) -> None:
    dns = published(*KEYS)
    dns.texts.update(SEALERS.texts)
    asked, verdicts = show([dkim(dns), arc(dns=dns)], hops(2, sign(MESSAGE)), step=step)
    assert [results(each) for each in verdicts] == [["dkim=pass", "dkim=pass"], ["arc=pass"]]
    shared = asked.noted(SharedReading)
    assert shared is not None
    assert shared.close().ways == 1


def test_one_that_is_not_fed_any_more_takes_nothing_from_the_other() -> None:
    dns = published(*KEYS)
    asked, message = mail(), sign(MESSAGE)
    first, second = dkim(dns).read(asked), arc().read(asked)
    now(second.write(message[:50]))
    now(second.abort())
    now(first.write(message))
    assert results(now(first.finish(Message(message, asked)))) == ["dkim=pass", "dkim=pass"]


def test_a_second_message_of_a_transaction_is_read_anew() -> None:
    asked = mail()
    for _ in range(2):
        _, [verdict] = show([dkim(published(*KEYS))], sign(MESSAGE), asked)
        assert results(verdict) == ["dkim=pass", "dkim=pass"]


def test_they_are_what_the_gauntlet_asks() -> None:
    iprev: Stage = IPRevStage(TableDNS({}), Clock())
    by_spf: Stage = SPFStage(CheckHost(TableDNS({}), Clock()))
    by_dkim: Stage = dkim(published())
    by_arc: Stage = arc()
    assert isinstance(iprev, AtConnect)
    assert isinstance(by_spf, AtMail)
    assert isinstance(by_dkim, AtMessage)
    assert isinstance(by_arc, AtMessage)
    assert [stage.name for stage in (iprev, by_spf, by_dkim, by_arc)] == ["iprev", "spf", "dkim", "arc"]
