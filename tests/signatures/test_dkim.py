"""DKIM: what we sign passes, what is done to it is found, and what is wrong with a signature or a key is said."""

from __future__ import annotations

import itertools
import re
from base64 import b64encode
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.signatures.support import (
    DOMAIN,
    ED25519,
    KEYS,
    MESSAGE,
    NOW,
    RSA,
    RSA_1024,
    RSA_SHORT,
    Table,
    messages,
    published,
    read,
    run,
    sign,
    verify,
)
from twisted_mail.signatures import DKIMSigner, DKIMVerifier, HeaderTooLong, Limits, Reading, Result, SigningKey
from twisted_mail.signatures.canonical import BodyHash, Canon
from twisted_mail.signatures.fields import Fields, split_header
from twisted_mail.signatures.signing import names_to_sign
from twisted_mail.signatures.statement import without_signature
from twisted_mail.signatures.tags import BadTags, parse_tags
from twisted_mail.signatures.verifying import header_digest

E1 = KEYS[1]


def outcome(message: bytes, dns: Table | None = None, **options: float) -> tuple[Result, str]:
    (found,) = verify(message, dns or published(*KEYS), **options)  # type: ignore[arg-type]
    return found.result, found.reason


def _length(tags: dict[str, str | None]) -> int | None:
    length = tags.get("l") or ""
    return int(length) if length.isdigit() else None


def _body_hash(message: bytes, tags: dict[str, str | None]) -> bytes:
    canon = Canon.RELAXED if (tags["c"] or "").endswith("/relaxed") else Canon.SIMPLE
    hashes: list[BodyHash] = []
    read(message, lambda reading: hashes.append(reading.want(canon, _length(tags))))
    return hashes[0].digest()


def resigned(tags: dict[str, str | None], message: bytes = MESSAGE, key: SigningKey = E1) -> bytes:
    """*message* with a signature that is right, but has other tags than we would make."""
    signer = DKIMSigner(now=NOW)
    reading = read(message, signer.at_body)
    wanted: dict[str, str | None] = {
        "v": "1", "a": key.key.algorithm, "c": "relaxed/relaxed", "d": key.domain, "s": key.selector,
        "h": "from:to:subject", "bh": "", **tags,
    }  # fmt: skip
    if wanted["bh"] == "":
        wanted["bh"] = b64encode(_body_hash(message, wanted)).decode()
    text = "DKIM-Signature: " + "; ".join(f"{name}={value}" for name, value in wanted.items() if value is not None) + "; b="
    (own,) = split_header(text.encode() + b"\r\n")
    names = [name.strip().lower() for name in (wanted["h"] or "").split(":")]
    canon = Canon.SIMPLE if (wanted["c"] or "").startswith("simple") else Canon.RELAXED
    digest = header_digest(own, names, canon, reading.fields)
    return text.encode() + b64encode(key.key.sign(digest)) + b"\r\n" + message


@settings(max_examples=40, deadline=None)
@given(messages, st.integers(1, 50))
def test_what_is_signed_passes_however_it_is_cut(message: bytes, step: int) -> None:
    signed = sign(message, step=step)
    assert signed.endswith(message)
    assert [each.result for each in verify(signed, published(*KEYS), step=step)] == [Result.PASS, Result.PASS]
    assert all(len(line) <= 78 for line in signed[: -len(message)].split(b"\r\n"))


@pytest.mark.parametrize("name", ["From", "To", "Subject", "Date", "Message-ID", "Cc", "Reply-To", "Content-Type"])
def test_no_field_that_people_see_can_be_added(name: str) -> None:
    signed = sign(MESSAGE)
    for message in (f"{name}: x\r\n".encode() + signed, signed.replace(b"\r\n\r\n", f"\r\n{name}: x\r\n\r\n".encode(), 1)):
        assert {each.result for each in verify(message, published(*KEYS))} == {Result.FAIL}


def test_an_author_who_is_not_signed_is_not_accepted() -> None:
    """Others may sign From once only; what stands above it is what people see."""
    signed = resigned({"h": "from:to:subject"})
    assert outcome(signed) == (Result.PASS, "")
    assert outcome(b"From: boss@example.org\r\n" + signed) == (Result.POLICY, "a From field is not signed")


def test_trace_fields_and_folding_may_change() -> None:
    signed = sign(MESSAGE).replace(b"Subject: Lunch  on\r\n\tFriday?", b"subject: Lunch on Friday? ")
    message = b"Received: from c.example\r\nX-Spam: no\r\n" + signed.replace(b"DKIM-Signature: v=1;", b"DKIM-Signature:  v=1;\r\n ")
    assert {each.result for each in verify(message, published(*KEYS))} == {Result.PASS}


def test_lists_are_signed_where_they_are() -> None:
    marketing = b"List-Unsubscribe: <https://example.org/u>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" + MESSAGE
    (found,) = verify(sign(marketing, E1), published(E1))
    assert found.covered.count("list-unsubscribe") == found.covered.count("list-unsubscribe-post") == 2
    assert outcome(b"List-Unsubscribe: <https://evil.example/>\r\n" + sign(marketing, E1))[0] is Result.FAIL
    assert "list-unsubscribe" not in names_to_sign(Fields(split_header(MESSAGE)))


def test_no_length_is_ever_made_and_a_shorter_one_is_not_accepted() -> None:
    assert b" l=" not in sign(MESSAGE)
    body = len(b"Hello Bob,\r\n\r\nare you there?\r\n")
    assert outcome(resigned({"l": str(body)})) == (Result.PASS, "")
    for message in (resigned({"l": str(body)}) + b"and this\r\n", resigned({"l": "5"}), resigned({"l": str(body + 1)})):
        assert outcome(message)[0] is Result.POLICY
    assert outcome(resigned({"l": "0"}).replace(b"Hello", b"Jello"))[0] is Result.POLICY


@pytest.mark.parametrize("canon", ["simple/simple", "simple/relaxed", "relaxed/simple", "relaxed", "simple"])
def test_every_canonicalization_is_read(canon: str) -> None:
    assert outcome(resigned({"c": canon})) == (Result.PASS, "")


@pytest.mark.parametrize(
    ("tags", "result", "reason"),
    [
        ({"v": "2"}, Result.NEUTRAL, "unknown version"),
        ({"v": None}, Result.NEUTRAL, "v= is missing"),
        ({"a": None}, Result.NEUTRAL, "a= is missing"),
        ({"bh": None}, Result.NEUTRAL, "bh= is missing"),
        ({"d": None}, Result.NEUTRAL, "d= is missing"),
        ({"s": None}, Result.NEUTRAL, "s= is missing"),
        ({"a": "rsa-sha1"}, Result.PERMERROR, "rsa-sha1 is not accepted any more (RFC 8301)"),
        ({"a": "rsa-md5"}, Result.NEUTRAL, "unknown algorithm"),
        ({"c": "nofws"}, Result.NEUTRAL, "unknown canonicalization"),
        ({"h": "to:subject"}, Result.PERMERROR, "From field not signed"),
        ({"i": "@example.com"}, Result.PERMERROR, "i= is not of the domain d="),
        ({"i": "@badexample.org"}, Result.PERMERROR, "i= is not of the domain d="),
        ({"i": "joe@sub.example.org"}, Result.PASS, ""),
        ({"q": "dns/other"}, Result.PERMERROR, "no way to fetch the key that is known"),
        ({"q": "dns/other:dns/txt"}, Result.PASS, ""),
        ({"d": "example..org"}, Result.NEUTRAL, "malformed domain"),
        ({"d": "exa mple.org"}, Result.NEUTRAL, "malformed domain"),
        ({"s": "a/b"}, Result.NEUTRAL, "malformed selector"),
        ({"t": "soon"}, Result.NEUTRAL, "t= is no number"),
        ({"t": str(NOW), "x": str(NOW)}, Result.NEUTRAL, "x= is not later than t="),
        ({"x": str(NOW - 601)}, Result.FAIL, "signature expired"),
        ({"x": str(NOW - 599)}, Result.PASS, ""),
        ({"t": str(NOW + 601)}, Result.FAIL, "signed in the future"),
        ({"t": str(NOW + 599)}, Result.PASS, ""),
        ({"l": "-1"}, Result.NEUTRAL, "l= is no number"),
        ({"bh": "???"}, Result.NEUTRAL, "bh= is not base64"),
        ({"bh": "AAAA"}, Result.FAIL, "body hash did not verify"),
        ({"z": "From:a|To:b", "r": "y", "unknown_tag": "x"}, Result.PASS, ""),
        ({"h": "From: TO :subject:x-not-there:from"}, Result.PASS, ""),
        ({"h": ":".join(["from"] * 501)}, Result.NEUTRAL, "too many names in h="),
    ],
)
def test_what_a_signature_says_of_itself_is_judged(tags: dict[str, str | None], result: Result, reason: str) -> None:
    assert outcome(resigned(tags)) == (result, reason)


def test_a_signature_that_is_no_tag_list_is_neutral() -> None:
    for value in (b"garbage", b"=", b"v=1; v=1", b"v=1;;a=b", b"\xff=1", b"", b"v=1; a=" + b"x" * 70_000):
        (found,) = verify(b"DKIM-Signature: " + value + b"\r\n" + MESSAGE, Table())
        assert found.result is Result.NEUTRAL


@pytest.mark.parametrize(
    ("record", "result", "reason"),
    [
        (ED25519.record().replace("v=DKIM1; ", ""), Result.PASS, ""),
        (ED25519.record() + ";", Result.PASS, ""),
        (ED25519.record() + "; n=a note; t=s; s=email; h=sha1 : sha256", Result.PASS, ""),
        (ED25519.record() + "; t=s", Result.PASS, ""),
        (ED25519.record() + "; s=other", Result.PERMERROR, "the key is not for mail"),
        (ED25519.record() + "; h=sha1", Result.PERMERROR, "the key is not for sha256"),
        (RSA.record(), Result.PERMERROR, "key of another type than the signature"),
        ("v=DKIM1; k=ed25519; p=", Result.PERMERROR, "key revoked"),
        ("v=DKIM1; k=ed25519", Result.PERMERROR, "key record without a key"),
        ("v=DKIM2; " + ED25519.record().removeprefix("v=DKIM1; "), Result.PERMERROR, "unknown version of the key record"),
        ("k=ed25519; v=DKIM1; p=x", Result.PERMERROR, "unknown version of the key record"),
        ("v=DKIM1; k=ed25519; p=AAAA", Result.PERMERROR, "malformed key"),
        ("v=DKIM1; k=ed25519; p=!!!", Result.PERMERROR, "malformed key record"),
        ("v=DKIM1; k=rsa; p=AAAA", Result.PERMERROR, "malformed key"),
        ("v=DKIM1; k=dsa; p=AAAA", Result.PERMERROR, "unknown type of key"),
        ("v=spf1 -all", Result.PERMERROR, "unknown version of the key record"),
        (b"\xff", Result.PERMERROR, "malformed key record"),
        ("v=DKIM1; p=" + "A" * 16_000, Result.PERMERROR, "key record too long"),
        ((), Result.PERMERROR, "no key"),
        ((b"v=spf1 -all", ED25519.record().encode()), Result.PASS, ""),
        (tuple([b"nothing"] * 100), Result.PERMERROR, "malformed key record"),
    ],
    ids=map(str, itertools.count()),  # the keys are others in every process
)
def test_what_a_key_record_says_is_judged(record: str | bytes | tuple[bytes, ...], result: Result, reason: str) -> None:
    assert outcome(sign(MESSAGE, E1), Table({"e1._domainkey.example.org": record})) == (result, reason)


def test_a_strict_key_is_not_for_subdomains() -> None:
    table = Table({"e1._domainkey.example.org": ED25519.record() + "; t=s:y"})
    (found,) = verify(resigned({"i": "joe@sub.example.org"}), table)
    assert (found.result, found.reason) == (Result.PERMERROR, "the key is not for subdomains")
    (found,) = verify(sign(MESSAGE, E1), table)
    assert (found.result, found.testing) == (Result.PASS, True)


def test_keys_below_1024_bits_are_refused_and_those_of_1024_not() -> None:
    short, enough = SigningKey(DOMAIN, "short", RSA_SHORT), SigningKey(DOMAIN, "old", RSA_1024)
    assert outcome(sign(MESSAGE, short), published(short)) == (Result.POLICY, "key of 512 bits is too short")
    assert outcome(sign(MESSAGE, enough), published(enough)) == (Result.PASS, "")


def test_a_dns_that_does_not_answer_is_temporary_and_one_that_knows_nothing_is_not() -> None:
    table = published(E1)
    table.down.add("r1._domainkey.example.org")
    found = verify(sign(MESSAGE), table)
    assert [each.result for each in found] == [Result.TEMPERROR, Result.PASS]
    assert outcome(sign(MESSAGE, E1), Table()) == (Result.PERMERROR, "no key")


def test_no_more_than_the_limit_of_signatures_is_looked_at() -> None:
    message = MESSAGE
    for _ in range(12):
        message = sign(message, E1)
    table = published(E1)
    results = [each.result for each in verify(message, table)]
    assert results == [Result.PASS] * 10 + [Result.POLICY] * 2
    assert table.asked == ["e1._domainkey.example.org"]


def test_the_body_is_not_hashed_in_any_number_of_ways() -> None:
    message = MESSAGE
    for length in range(6):
        message = resigned({"l": str(length)}, message)
    reasons = [each.reason for each in verify(message, published(E1), limits=Limits(body_hashes=4))]
    assert reasons.count("too many ways to hash the body") == 2


def test_a_header_above_the_limit_is_not_read() -> None:
    verifier, signer = DKIMVerifier(), DKIMSigner(now=NOW)
    reading = Reading(verifier.at_body, signer.at_body, header_bytes=1000)
    for _ in range(50):
        reading.feed(b"X-Long: " + b"x" * 60 + b"\r\n")
    reading.feed(b"\r\nbody\r\n")
    reading.close()
    assert reading.too_long
    assert run(verifier.results(Table(), NOW)) == ()
    with pytest.raises(RuntimeError):
        signer.unsigned(KEYS)
    with pytest.raises(HeaderTooLong):
        _ = reading.fields


def test_a_domain_beyond_ascii_is_asked_for_by_its_a_labels() -> None:
    key = replace(E1, domain="bücher.example")
    table = Table({"e1._domainkey.xn--bcher-kva.example": ED25519.record()})
    assert outcome(sign(MESSAGE, key), table) == (Result.PASS, "")


def test_a_header_ends_where_mime_says_that_it_does() -> None:
    """Else an attacker could put a letter of his own above a signed one, joined by bare LFs."""
    signed = resigned({})
    for forged in (b"From: boss@example.org\n\nPay now.\r\n" + signed, b"Pay now.\r\n" + signed):
        assert verify(forged, published(E1)) == ()


def test_the_signature_is_taken_out_as_it_was_put_in() -> None:
    assert without_signature(b"A: b=x; bh=b=;\r\n b = abc\r\n def; c=d") == b"A: b=; bh=b=;\r\n b = abc\r\n def; c=d"
    assert without_signature(b"A: bh=b=;\r\n b = abc\r\n def; c=d") == b"A: bh=b=;\r\n b =; c=d"


def test_a_message_that_is_only_a_header_or_nothing_is_signed_too() -> None:
    for message in (b"From: ann@example.org\r\n", b"From: ann@example.org", b"\r\nbody\r\n", b"", b"no header\r\n"):
        signed = sign(message, E1)
        assert signed.count(b"DKIM-Signature") == 1


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_garbage_is_a_typed_error(text: str) -> None:
    try:
        parse_tags(text)
    except BadTags:
        pass


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=60))
def test_garbage_never_raises(value: bytes, record: bytes) -> None:
    for field in (b"DKIM-Signature: " + value, b"DKIM-Signature: v=1; a=rsa-sha256; d=x.org; s=s; h=from; bh=AA==; b=AA==;" + value):
        for each in verify(field + b"\r\n" + MESSAGE, Table({"s._domainkey.x.org": record})):
            assert each.result is not Result.PASS


def test_mutations_of_a_signed_message_never_pass_but_where_nothing_is_signed() -> None:
    signed = sign(MESSAGE, E1)
    for match in re.finditer(rb"[A-Za-z0-9]", signed):
        at = match.start()
        changed = signed[:at] + bytes([signed[at] ^ 1]) + signed[at + 1 :]
        if signed.index(b"Received:") <= at < signed.index(b"From:"):
            continue
        assert all(each.result is not Result.PASS for each in verify(changed, published(E1))), (at, changed[at - 5 : at + 5])
