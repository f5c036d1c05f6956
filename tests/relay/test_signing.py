"""Keys of domains: made, rotated, compared with the DNS; and which of them signs what."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.signatures.support import Table, check_chain, run, verify
from twisted_mail.relay.dkim_keys import DKIMKeys, KeyExists, KeySettings, Publication, State, zone_line
from twisted_mail.relay.signing import Signing, SigningSettings, author_domain, domains_to_try
from twisted_mail.signatures import BodyHash, Canon, Chain, PrivateKey, Result, SigningKey
from twisted_mail.storage.interfaces import Corrupt, Record, Unavailable
from twisted_mail.storage.memory.records import MemoryRecords

DAY = 86_400.0
BODY = b"Hello,\r\n\r\nhow are you?\r\n"


def header(author: str = "ann@example.org") -> bytes:
    return f"From: Ann <{author}>\r\nTo: bob@example.net\r\nSubject: Hello\r\n".encode()


def hashed(body: bytes = BODY) -> bytes:
    made = BodyHash(Canon.RELAXED)
    made.update(body)
    return made.digest()


class House:
    """Keys in memory, a clock, and the DNS that has what is published."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.records = MemoryRecords(self.clock)
        self.keys = DKIMKeys(self.records, KeySettings(rsa_bits=1024), wall=self.clock.seconds)
        self.dns = Table()
        self.signing = self.signer()

    def signer(self, **options: Any) -> Signing:
        return Signing(self.keys, SigningSettings(**options), dns=self.dns, wall=self.clock.seconds)

    def publish(self, domain: str = "example.org") -> None:
        self.dns.texts.update({key.name: key.text for key in run(self.keys.of(domain))})

    def states(self, domain: str = "example.org") -> dict[str, State]:
        return {key.selector: key.state(self.clock.seconds()) for key in run(self.keys.of(domain))}

    def sent(self, author: str = "ann@example.org", sender: str | None = None) -> bytes:
        fields = run(
            self.signing.fields(header(author), hashed(), sender=author if sender is None else sender, at=self.clock.seconds())
        )
        return fields + header(author) + b"\r\n" + BODY


@pytest.fixture
def house() -> House:
    return House()


def test_a_new_domain_has_two_keys_that_sign_and_verify(house: House) -> None:
    assert house.sent() == header() + b"\r\n" + BODY
    house.clock.advance(61)
    made = run(house.keys.begin("example.org"))
    assert [key.selector for key in made] == ["r20231114", "e20231114"]
    assert run(house.keys.begin("example.org")) == ()
    house.publish()
    found = verify(house.sent(), house.dns, now=house.clock.seconds())
    assert [(each.result, each.algorithm, each.domain) for each in found] == [
        (Result.PASS, "rsa-sha256", "example.org"),
        (Result.PASS, "ed25519-sha256", "example.org"),
    ]


def test_a_rotation_publishes_first_signs_then_and_keeps_the_old_record(house: House) -> None:
    run(house.keys.begin("example.org"))
    house.clock.advance(90 * DAY)
    new = run(house.keys.rotate("example.org"))
    assert [key.selector for key in new] == ["r20240212", "e20240212"]
    assert set(run(house.keys.rotate("example.org"))) == set(new), "a rotation is under way"
    assert set(house.states().values()) == {State.SIGNING, State.PENDING}
    assert b"s=r20231114;" in house.sent()
    house.publish()
    house.clock.advance(2.9 * DAY)
    waiting = house.sent()
    assert b"s=r20231114;" in waiting
    house.clock.advance(0.2 * DAY)
    assert b"s=r20240212;" in house.sent() and b"s=e20240212;" in house.sent()
    assert house.states() == {
        "r20231114": State.OLD, "e20231114": State.OLD, "r20240212": State.SIGNING, "e20240212": State.SIGNING,
    }  # fmt: skip
    house.clock.advance(10 * DAY)
    assert [each.result for each in verify(waiting, house.dns, now=house.clock.seconds())] == [Result.PASS] * 2
    house.clock.advance(21 * DAY)
    assert set(house.states()) == {"r20240212", "e20240212"}, "what is spent is forgotten"


def test_a_retired_key_signs_no_more_and_a_deleted_one_is_gone(house: House) -> None:
    run(house.keys.begin("example.org"))
    assert run(house.keys.retire("example.org", "nothing")) is None
    retired = run(house.keys.retire("example.org", "r20231114"))
    assert retired is not None and retired.state(house.clock.seconds()) is State.OLD
    assert b"a=rsa" not in house.sent() and b"a=ed25519" in house.sent()
    run(house.keys.delete("example.org", "r20231114"))
    assert set(house.states()) == {"e20231114"}


def test_keys_of_ones_own_are_taken_under_their_selectors(house: House) -> None:
    key = PrivateKey.generate("ed25519")
    made = run(house.keys.add("example.org", "ed25519", selector="mail", key=key))
    assert made.text == key.record()
    with pytest.raises(KeyExists):
        run(house.keys.add("example.org", "ed25519", selector="mail"))
    for selector in ("-", "a b", "A", "x" * 64):
        with pytest.raises(ValueError, match="selector"):
            run(house.keys.add("example.org", "ed25519", selector=selector))
    assert run(house.keys.add("example.org", "ed25519")).selector == "e20231114"
    assert run(house.keys.add("example.org", "ed25519")).selector == "e20231114-2"


def test_keys_are_made_in_a_thread(house: House) -> None:
    called: list[Callable[..., Any]] = []

    async def defer(call: Callable[..., Any], *arguments: Any) -> Any:
        called.append(call)
        return call(*arguments)

    house.keys = DKIMKeys(house.records, KeySettings(rsa_bits=1024), wall=house.clock.seconds, defer=defer)
    run(house.keys.begin("example.org"))
    assert len(called) == 2
    house.signing = Signing(house.keys, wall=house.clock.seconds, defer=defer)
    assert b"DKIM-Signature" in house.sent()
    assert len(called) == 3


def test_the_dns_is_compared_with_the_keys(house: House) -> None:
    run(house.keys.begin("example.org"))
    (rsa, ed25519) = run(house.keys.check("example.org", house.dns))[::-1]
    assert rsa.found is ed25519.found is Publication.MISSING and rsa.wrong
    house.publish()
    found = run(house.keys.check("example.org", house.dns))
    assert [each.found for each in found] == [Publication.PUBLISHED] * 2 and not any(each.wrong for each in found)
    house.dns.texts["e20231114._domainkey.example.org"] = PrivateKey.generate("ed25519").record()
    house.dns.texts["r20231114._domainkey.example.org"] = (b"v=spf1 -all", rsa.key.text.replace("; ", " ;").encode())
    found = run(house.keys.check("example.org", house.dns))
    assert {each.key.selector: each.found for each in found} == {
        "e20231114": Publication.DIFFERENT,
        "r20231114": Publication.PUBLISHED,
    }
    house.dns.down.update(key.key.name for key in found)
    assert {each.found for each in run(house.keys.check("example.org", house.dns))} == {Publication.UNKNOWN}


def test_a_record_for_a_zone_file_is_in_strings_that_the_dns_takes() -> None:
    text = PrivateKey.generate("rsa").record()
    line = zone_line("s._domainkey.example.org", text)
    pieces = line.partition("( ")[2].removesuffix(" )").split(" \"")
    strings = [piece.strip('"') for piece in pieces]
    assert "".join(strings) == text
    assert all(len(each) <= 255 for each in strings)


@pytest.mark.parametrize(
    ("author", "sender", "domains"),
    [
        ("example.org", "example.org", ["example.org"]),
        ("news.example.org", "news.example.org", ["news.example.org", "example.org"]),
        ("news.example.org", "example.org", ["news.example.org", "example.org"]),
        ("example.org", "bounces.example.org", ["bounces.example.org"]),
        ("a.example.org", "b.example.org", ["b.example.org"]),
        ("other.example", "example.org", ["example.org"]),
        ("badexample.org", "example.org", ["example.org"]),
        ("example.org", "", ["example.org"]),
        ("mx1.example.org", "", ["mx1.example.org", "example.org"]),
        ("", "example.org", ["example.org"]),
        ("", "", []),
        ("localhost", "localhost", ["localhost"]),
    ],
)
def test_nobody_gets_a_signature_in_a_neighbours_name(author: str, sender: str, domains: list[str]) -> None:
    assert domains_to_try(author, sender) == domains


@pytest.mark.parametrize(
    ("field", "domain"),
    [
        (b"From: ann@Example.ORG\r\n", "example.org"),
        (b"From: \"x@evil.example\" <ann@example.org>, bob@example.net\r\n", "example.org"),
        (b"From: team: ann@example.org;\r\n", "example.org"),
        ("From: ann@bücher.example\r\n".encode(), "xn--bcher-kva.example"),
        (b"From: nobody\r\nFrom: ann@example.org\r\n", ""),
        (b"Subject: x\r\n", ""),
    ],
)
def test_the_author_is_who_is_shown(field: bytes, domain: str) -> None:
    assert author_domain(field) == domain


def test_a_subdomain_without_keys_is_signed_for_by_the_domain_above(house: House) -> None:
    run(house.keys.begin("example.org"))
    house.publish()
    found = verify(house.sent("ann@lists.example.org"), house.dns, now=house.clock.seconds())
    assert {(each.result, each.domain) for each in found} == {(Result.PASS, "example.org")}
    assert b"DKIM-Signature" not in house.sent("ann@example.org", sender="eve@example.net")


def test_a_store_that_is_down_does_not_make_mail_leave_unsigned(house: House) -> None:
    run(house.keys.begin("example.org"))
    assert b"DKIM-Signature" in house.sent()

    async def down(space: str, after: str = "", limit: int = 1000) -> list[Record]:
        raise Unavailable("down")

    house.records.list = down  # type: ignore[method-assign]
    house.clock.advance(3600)
    assert b"DKIM-Signature" in house.sent(), "keys that are known are good for a day"
    house.clock.advance(DAY)
    with pytest.raises(Unavailable):
        house.sent()
    with pytest.raises(Unavailable):
        run(house.signing.fields(header("x@other.example"), hashed(), sender="x@other.example", at=0.0))


def test_the_store_is_asked_once_a_minute_for_a_domain_whether_or_not_it_has_keys(house: House) -> None:
    asked: list[str] = []
    really = house.records.list

    async def counted(space: str, after: str = "", limit: int = 1000) -> Any:
        asked.append(space)
        return await really(space, after, limit)

    house.records.list = counted  # type: ignore[method-assign]
    for _ in range(5):
        house.sent()
        house.sent("x@other.example")
    assert asked == ["dkim/example.org", "dkim/other.example"]
    run(house.keys.begin("example.org"))
    house.signing.forget("example.org")
    assert b"DKIM-Signature" in house.sent()


def test_a_spoiled_record_is_said_to_be_so(house: House) -> None:
    run(house.records.put("dkim/example.org", "x", b"garbage"))
    with pytest.raises(Corrupt):
        run(house.keys.of("example.org"))


def test_what_is_forwarded_is_sealed_on_top_of_what_there_is(house: House) -> None:
    results = "mx.example.org; spf=pass smtp.mailfrom=a.example; arc=none"
    run(house.keys.begin("example.org"))
    house.publish()
    signing = house.signer(seal_domain="example.org")
    now = house.clock.seconds()
    message = header("ann@a.example") + b"\r\n" + BODY
    for number in (1, 2, 3):
        block = message[: message.index(b"\r\n\r\n") + 2]
        fields = run(signing.seal(block, hashed(), results, at=now))
        assert fields.startswith(f"ARC-Seal: i={number}; a=rsa-sha256;".encode())
        message = fields + message
    found = check_chain(message, house.dns, now=now)
    assert (found.chain, found.reason, found.instances) == (Chain.PASS, "", 3)
    changed = message.replace(b"Subject: Hello", b"Subject: [x] Hello")
    block = changed[: changed.index(b"\r\n\r\n") + 2]
    assert b"cv=fail" in run(signing.seal(block, hashed(), results, at=now))
    assert b"cv=pass" in run(signing.seal(block, hashed(), results, at=now, chain=Chain.PASS))
    house.dns.down.update(house.dns.texts)
    assert run(signing.seal(block, hashed(), results, at=now)) == b"", "a chain that cannot be checked now is left alone"


def test_nothing_is_sealed_without_a_key(house: House) -> None:
    assert run(house.signing.seal(header(), hashed(), "mx.example.org; none", at=0.0)) == b""
    assert run(house.signer(seal_domain="example.org").seal(header(), hashed(), "mx; none", at=0.0)) == b""


def test_a_private_key_is_not_shown(house: House) -> None:
    (key, _) = run(house.keys.begin("example.org"))
    assert "PRIVATE" not in repr(key) and "PrivateKey" not in repr(key)
    assert "object at" in repr(SigningKey("x", "y", key.key))
    assert hashlib.sha256(key.key.dump()).hexdigest() not in repr(Failure(ValueError(key)).value)
