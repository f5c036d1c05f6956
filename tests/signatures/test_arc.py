"""ARC: chains that we seal hold, with dkimpy's seals among them; broken ones fail and say why."""

from __future__ import annotations

import re

import dkim
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.signatures.support import ED25519, MESSAGE, NOW, RSA, Table, check_chain, published, read, run, sign, verify
from tests.signatures.test_against_dkimpy import proper
from twisted_mail.signatures import ARCSealer, ARCVerifier, CannotSeal, Chain, Limits, Result, SigningKey

HOPS = tuple(SigningKey(f"hop{number}.example", "s", ED25519 if number % 2 else RSA) for number in range(6))
RSA_HOPS = tuple(SigningKey(f"hop{number}.example", "s", RSA) for number in range(6))
DNS = published(*HOPS)
RSA_DNS = published(*RSA_HOPS)
RESULTS = "mx.hop.example; spf=pass smtp.mailfrom=a.example; dkim=pass header.d=example.org"


def seal(message: bytes, key: SigningKey, dns: Table = DNS, results: str = RESULTS) -> bytes:
    """*message* with one more set in front, which says what we find of those there are."""
    verifier, sealer = ARCVerifier(), ARCSealer(now=NOW)
    read(message, verifier.at_body, sealer.at_body)
    found = run(verifier.result(dns, NOW))
    return sealer.unsealed(key, verifier, found, results).seal() + message


def chain(count: int, message: bytes = MESSAGE, hops: tuple[SigningKey, ...] = HOPS, dns: Table = DNS) -> bytes:
    for number in range(count):
        message = seal(message, hops[number % len(hops)], dns)
    return message


def their_seal(message: bytes, key: SigningKey, found: str) -> bytes:
    """A set by dkimpy in front."""
    header = f"Authentication-Results: mx.hop.example; arc={found}; spf=pass smtp.mailfrom=a.example\r\n".encode()
    sealer = dkim.ARC(header + message)
    fields = sealer.sign(key.selector.encode(), key.domain.encode(), key.key.pem(), b"mx.hop.example", timestamp=NOW)
    return b"".join(fields) + message


def their_word(message: bytes, dns: Table) -> str:
    word, _, _ = dkim.ARC(message).verify(dnsfunc=lambda name, timeout=5: dns.texts.get(_text(name).rstrip("."), "").encode())  # type: ignore[union-attr]
    return word.decode() if word else "ended"


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


def test_a_message_without_sets_has_no_chain() -> None:
    assert check_chain(MESSAGE, DNS).chain is Chain.NONE


def test_a_chain_of_five_holds_and_says_what_each_saw() -> None:
    found = check_chain(chain(5), DNS)
    assert (found.chain, found.reason, found.oldest_pass, found.instances) == (Chain.PASS, "", 0, 5)
    assert [each.domain for each in found.sets] == [key.domain for key in HOPS[:5]]
    assert [each.chain for each in found.sets] == [Chain.NONE] + [Chain.PASS] * 4
    assert re.sub(r"\s+", " ", found.sets[2].results) == RESULTS


def test_fifty_sets_are_the_most() -> None:
    message = chain(50)
    assert check_chain(message, DNS).chain is Chain.PASS
    with pytest.raises(CannotSeal):
        seal(message, HOPS[0])
    found = check_chain(message.replace(b"i=50;", b"i=51;"), DNS)
    assert (found.chain, found.reason) == (Chain.FAIL, "more than 50 sets")


def test_a_message_changed_between_hops_passes_from_there_on() -> None:
    """What a list does: the chain holds, and says who saw the message as it is now."""
    changed = chain(2).replace(b"Subject: Lunch", b"Subject: [list] Lunch")
    found = check_chain(seal(changed, HOPS[2]), DNS)
    assert (found.chain, found.reason) == (Chain.FAIL, "instance 3 says that the chain was broken")
    # A list seals with what it found before it changed the message.
    verifier, sealer = ARCVerifier(), ARCSealer(now=NOW)
    before = chain(2)
    read(before, verifier.at_body)
    read(changed, sealer.at_body)
    message = sealer.unsealed(HOPS[2], verifier, run(verifier.result(DNS, NOW)), RESULTS).seal() + changed
    found = check_chain(message, DNS)
    assert (found.chain, found.oldest_pass) == (Chain.PASS, 3)


def test_dkim_holds_under_seals() -> None:
    key = SigningKey("example.org", "e1", ED25519)
    assert [each.result for each in verify(chain(3, sign(MESSAGE, key)), published(key))] == [Result.PASS]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"\r\n\r\nHello", b"\r\n\r\nJello", "ARC-Message-Signature 3: body hash did not verify"),
        (b"Subject: Lunch", b"Subject: Dinner", "ARC-Message-Signature 3: signature did not verify"),
        (b"i=1; mx.hop.example", b"i=1; my.hop.example", "ARC-Seal 3 did not verify"),
        (b"ARC-Authentication-Results: i=2;", b"X-Other: i=2;", "instance 2 of arc-authentication-results is missing"),
        (b"ARC-Authentication-Results: i=2;", b"ARC-Authentication-Results: i=1;", "instance 1 of arc-authentication-results comes twice"),
        (b"ARC-Authentication-Results: i=2;", b"ARC-Authentication-Results: x=2;", "arc-authentication-results without a proper instance"),
        (b"ARC-Seal: i=2;", b"ARC-Seal: i=0;", "arc-seal without a proper instance"),
        (b"ARC-Seal: i=2;", b"ARC-Seal: i=two;", "arc-seal without a proper instance"),
        (b"cv=none;", b"cv=pass;", "instance 1 says cv=pass"),
        (b"cv=pass;", b"cv=none;", "instance 3 says cv=none"),
        (b"cv=pass;", b"cv=fail;", "instance 3 says that the chain was broken"),
        (b"cv=pass;", b"cv=maybe;", "instance 3: unknown cv="),
        (b"cv=pass;", b"cv=pass; h=from;", "instance 3: ARC-Seal with h="),
        (b"h=from:", b"h=arc-seal:from:", "instance 3: ARC-Message-Signature covers an ARC-Seal"),
        (b"a=ed25519-sha256", b"a=rsa-sha1", "instance 3: rsa-sha1 is not accepted any more (RFC 8301)"),
        (b"d=hop2.example", b"d=nowhere.example", "ARC-Seal 3: no key"),
    ],
)
def test_a_broken_chain_fails_and_says_why(old: bytes, new: bytes, reason: str) -> None:
    message = chain(3, hops=RSA_HOPS[:2] + HOPS[1:2], dns=Table({**RSA_DNS.texts, **DNS.texts}))
    message = chain(3) if b"rsa" not in old else message
    if old.startswith(b"a=ed"):
        message = chain(3, hops=(HOPS[1],) * 3)
    assert old in message
    found = check_chain(message.replace(old, new, 1), DNS)
    assert (found.chain, found.reason) == (Chain.FAIL, reason)


def test_a_dns_that_is_down_is_said_to_be_temporary() -> None:
    found = check_chain(chain(2), Table(DNS.texts, down=("s._domainkey.hop0.example",)))
    assert (found.chain, found.temporary) == (Chain.FAIL, True)


def test_what_is_broken_is_sealed_once_as_broken_and_then_no_more() -> None:
    broken = chain(2).replace(b"Hello", b"Jello")
    sealed = seal(broken, HOPS[2])
    assert b"cv=fail" in sealed
    assert their_word(seal(chain(2, hops=RSA_HOPS, dns=RSA_DNS).replace(b"Hello", b"Jello"), RSA_HOPS[2], RSA_DNS), RSA_DNS) != "pass"
    with pytest.raises(CannotSeal):
        seal(sealed, HOPS[3])


def test_an_incomplete_chain_is_sealed_as_broken_with_the_next_number() -> None:
    broken = chain(3).replace(b"ARC-Seal: i=2;", b"X-Seal: i=2;")
    sealed = seal(broken, HOPS[3])
    assert sealed.startswith(b"ARC-Seal: i=4;")
    assert b"cv=fail" in sealed[:200]


def test_keys_are_asked_for_once() -> None:
    table = Table(DNS.texts)
    check_chain(chain(12), table)
    assert sorted(table.asked) == sorted(DNS.texts)


def test_the_body_is_not_hashed_in_any_number_of_ways() -> None:
    assert check_chain(chain(1), DNS, limits=Limits(body_hashes=0)).reason == "too many ways to hash the body"


def test_dkimpy_believes_our_chain() -> None:
    for count in (1, 2, 4):
        assert their_word(chain(count, hops=RSA_HOPS, dns=RSA_DNS), RSA_DNS) == "pass"
    assert their_word(chain(3, hops=RSA_HOPS, dns=RSA_DNS).replace(b"Hello", b"Jello"), RSA_DNS) == "fail"


@settings(max_examples=12, deadline=None)
@given(proper, st.lists(st.booleans(), min_size=1, max_size=4))
def test_chains_made_by_both_hold_for_both(message: bytes, ours: list[bool]) -> None:
    for number, own in enumerate(ours):
        key = RSA_HOPS[number]
        message = seal(message, key, RSA_DNS) if own else their_seal(message, key, "pass" if number else "none")
    found = check_chain(message, RSA_DNS)
    assert (found.chain, found.reason) == (Chain.PASS, "")
    assert their_word(message, RSA_DNS) == "pass"


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_garbage_never_passes_and_never_raises(data: st.DataObject) -> None:
    message = _TWO
    at = data.draw(st.integers(0, message.index(b"Received:") - 1))
    changed = message[:at] + data.draw(st.binary(min_size=1, max_size=5)) + message[at + data.draw(st.integers(1, 9)) :]
    found = check_chain(changed, DNS)
    if found.chain is Chain.PASS:
        assert re.sub(rb"\s", b"", changed) == re.sub(rb"\s", b"", message)


_TWO = chain(2)
