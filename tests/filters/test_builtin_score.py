"""The built-in score: ordinary mail keeps clear of Junk, and what nobody wants lands there."""

from __future__ import annotations

import base64
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.filters.asking import Message, mail, now
from tests.filters.letters import HAM, NOW, SPAM, Letter, arrived
from twisted_mail.filters.builtin_score import RULES, BuiltinScore, rules_from
from twisted_mail.filters.origins import SPF, ARCResult, Disposition, DKIMResults, DMARCResult, SPFResult
from twisted_mail.filters.phrases import GROUPS, talk_of
from twisted_mail.filters.signs import GTUBE, alike
from twisted_mail.filters.stages import AtEnd
from twisted_mail.filters.values import ACCEPTED, Verdict
from twisted_mail.signatures import Chain, ChainResult

PLAIN = b"From: bob@example.net\nTo: ann@example.org\nSubject: Hi\nDate: Wed, 18 Nov 2026 11:01:00 +0000\nMessage-ID: <1@example.net>\n"


def judge(message: Message, **points: float) -> Verdict:
    return now(BuiltinScore(lambda: NOW, rules_from(points)).end(message))


def signs(octets: bytes, of: Any = None) -> set[str]:
    verdict = judge(Message(octets, of))
    return {rule.partition("=")[0] for rule in verdict.facts.get("rules", "").split()}


@pytest.mark.parametrize("letter", HAM, ids=lambda letter: letter.name)
def test_ordinary_mail_has_less_than_three_points(letter: Letter) -> None:
    verdict = judge(arrived(letter))
    assert verdict.score < 3.0, verdict.facts


@pytest.mark.parametrize("letter", SPAM, ids=lambda letter: letter.name)
def test_what_nobody_wants_has_five_points(letter: Letter) -> None:
    verdict = judge(arrived(letter))
    assert verdict.score >= 5.0, verdict.facts


@pytest.mark.parametrize("letter", HAM, ids=lambda letter: letter.name)
def test_ordinary_mail_is_not_junk_even_where_no_origin_was_looked_at(letter: Letter) -> None:
    message = arrived(letter)
    bare = Message(letter.octets, mail(letter.sender, recipients=letter.recipients))
    assert judge(bare).score < 3.0 and message.size == bare.size


def test_a_plain_message_has_no_points_at_all() -> None:
    assert isinstance(BuiltinScore(lambda: NOW), AtEnd)
    assert judge(Message(PLAIN + b"\nHello\n")) == ACCEPTED


@pytest.mark.parametrize(
    "octets",
    [
        PLAIN + b"\n" + GTUBE + b"\n",
        PLAIN + b"Content-Transfer-Encoding: base64\n\n" + base64.encodebytes(b"This is it:\r\n" + GTUBE + b"\r\n"),
        PLAIN + b"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\nContent-Transfer-Encoding: base64\n\n"
        + base64.encodebytes(GTUBE) + b"--b--\n",
    ],
    ids=["plain", "base64", "in a part"],
)  # fmt: skip
def test_the_test_message_for_spam_filters_is_known(octets: bytes) -> None:
    assert judge(Message(octets)).score >= 1000


@pytest.mark.parametrize(
    ("sign", "octets"),
    [
        ("no_date", PLAIN.replace(b"Date:", b"X-Date:")),
        ("odd_date", PLAIN.replace(b"Wed, 18 Nov 2026", b"one day")),
        ("date_in_future", PLAIN.replace(b"18 Nov", b"20 Nov")),
        ("date_in_past", PLAIN.replace(b"18 Nov", b"18 Sep")),
        ("no_message_id", PLAIN.replace(b"Message-ID", b"X-ID")),
        ("odd_message_id", PLAIN.replace(b"<1@example.net>", b"<1>")),
        ("no_from", PLAIN.replace(b"From:", b"X-From:")),
        ("no_from", PLAIN.replace(b"From: bob@example.net", b"From:")),
        ("odd_from", PLAIN.replace(b"bob@example.net\n", b"Bob\n", 1)),
        ("many_froms", PLAIN + b"From: joe@example.com\n"),
        ("from_shows_another", PLAIN.replace(b"From: ", b'From: "ceo@example.org" <x@evil.example>, ')),
        ("from_shows_another", PLAIN.replace(b"From: ", b"From: =?utf-8?q?ceo=40example=2Eorg?= <x@evil.example>, ")),
        ("reply_to_free_mail", PLAIN + b"Reply-To: bob4711@gmail.com\n"),
        ("reply_to_another", PLAIN.replace(b"bob@example.net", b"bob@gmail.com", 1) + b"Reply-To: joe@gmail.com\n"),
        ("no_to", PLAIN.replace(b"To:", b"X-To:")),
        ("undisclosed", PLAIN.replace(b"To: ann@example.org", b"To: undisclosed-recipients:;")),
        ("undisclosed", PLAIN.replace(b"To: ann@example.org", b"To: ")),
        ("no_subject", PLAIN.replace(b"Subject", b"X-Subject")),
        ("many_subjects", PLAIN + b"subject: again\n"),
        ("subject_capitals", PLAIN.replace(b"Subject: Hi", b"Subject: URGENT NEWS FOR YOU")),
        ("only_html", PLAIN + b"Content-Type: text/html\n\n<html><body>Hi</body></html>"),
        ("picture_only", PLAIN + b"Content-Type: text/html\n\n<html><style>" + b"x " * 50 + b"</style><img src=x></html>"),
        ("disguised_text", PLAIN + b"Content-Transfer-Encoding: base64\n\n" + base64.encodebytes(b"hello " * 20)),
        ("link_to_address", PLAIN + b"Content-Type: text/html\n\n<a class=x href='http://10.0.0.1:80/x'>x</a>"),
        ("link_shows_another", PLAIN + b'Content-Type: text/html\n\n<a href="https://evil.example/?bank.example">www.bank.example</a>'),
        ("link_shows_another", PLAIN + b"Content-Type: text/html\nContent-Transfer-Encoding: quoted-printable\n\n"
         b'<a href=3D"https://evil.example/">https://ban=\nk.example/</a>'),
    ],
)  # fmt: skip
def test_each_sign_is_seen_and_a_plain_message_lacks_it(sign: str, octets: bytes) -> None:
    assert sign in signs(octets if b"\n\n" in octets else octets + b"\nHello\n")
    assert sign not in signs(PLAIN + b"\nHello\n")


@pytest.mark.parametrize(
    "octets",
    [
        PLAIN.replace(b"From: ", b'From: "bob@mail.example.net" <bob@example.net>, '),
        PLAIN + b"Reply-To: other@example.com\n",
        PLAIN.replace(b"Subject: Hi", b"Subject: RE: FAQ"),
        PLAIN.replace(b"Subject: Hi", "Subject: 今日は世界のみなさん".encode()),
        PLAIN + b'Content-Type: multipart/alternative; boundary=b\n\n--b\nContent-Type: text/plain\n\nHi\n--b\nContent-Type: text/html\n\n'
        b'<a href="https://www.shop.example/x">shop.example</a> <a href="https://shop.example">Our shop</a>\n--b--\n',
        PLAIN + b"Content-Transfer-Encoding: base64\n\n" + base64.encodebytes("Schöne Grüße aus Köln und Umgebung, bis bald, Ann".encode()),
        PLAIN + b"\nPlease ask a specialist; she lives in Middlesex.\n",
    ],
)  # fmt: skip
def test_what_looks_alike_but_is_honest_has_no_points(octets: bytes) -> None:
    assert signs(octets if b"\n\n" in octets else octets + b"\nHello\n") <= set()


def test_a_link_of_a_newsletter_is_no_sign_when_its_author_vouches_for_it() -> None:
    (newsletter,) = [letter for letter in HAM if letter.name == "a newsletter"]
    assert "link_shows_another" not in judge(arrived(newsletter)).facts["rules"]
    assert "link_shows_another" in judge(arrived(replace(newsletter, dmarc="fail"))).facts["rules"]


def test_a_trusted_forwarder_that_saw_it_whole_takes_the_place_of_spf_dkim_and_dmarc() -> None:
    broken = arrived(replace(HAM[0], spf="fail", dkim="fail", dmarc="fail", policy="reject"))
    assert judge(broken).score > 4
    broken.mail.note(ARCResult(ChainResult(Chain.PASS), trusted="forwarder.example", dmarc="pass"))
    assert judge(broken) == ACCEPTED


def test_temporary_failures_are_held_against_nobody() -> None:
    letter = mail(recipients=["ann@example.org"])
    letter.note(SPFResult(SPF.TEMPERROR, "example.net"))
    letter.note(DKIMResults())
    letter.note(DMARCResult(result="temperror", policy=Disposition.REJECT))
    assert signs(PLAIN + b"\nHello\n", letter) == {"unsigned"}


def test_the_trace_says_what_was_found_the_heaviest_first() -> None:
    verdict = judge(Message(PLAIN.replace(b"Date", b"X-Date").replace(b"Message-ID", b"X-ID") + b"\nHello\n"))
    assert verdict.reason == "As it looks, it has no Date; it has no Message-ID"
    assert verdict.facts == {"rules": "no_date=1 no_message_id=0.5"}
    assert verdict.score == 1.5


def test_points_can_be_changed_and_taken_away() -> None:
    message = Message(PLAIN.replace(b"Date", b"X-Date") + b"\nHello\n")
    assert judge(message, no_date=4.0).score == 4.0
    assert judge(message, no_date=0) == ACCEPTED


@pytest.mark.parametrize("table", [{"nope": 1}, {"no_date": "much"}, {"no_date": True}, {"no_date": 1e9}])
def test_settings_that_mean_nothing_are_named(table: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(table))):
        rules_from(table)


def test_every_group_of_phrases_is_a_rule_and_each_phrase_is_found() -> None:
    for name, group in GROUPS.items():
        assert name in RULES
        for phrase in group.phrases.splitlines():
            assert name in talk_of(f"So, {phrase.strip().title()}!".encode()) or not phrase.isascii(), phrase
    assert "phishing" in talk_of("Ihr Konto wurde eingeschränkt".encode())
    assert talk_of(b"nothing of that kind") == {}


def test_domains_of_one_owner_are_alike() -> None:
    assert alike("mail.example.org", "www.example.org") and alike("example.org", "example.org")
    assert alike("www.shop.co.uk", "shop.co.uk") and not alike("one.co.uk", "other.co.uk")
    assert not alike("example.org", "example.com")


@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=600),
    st.sampled_from([b"", PLAIN, b"Content-Type: text/html\n\n", b"Content-Transfer-Encoding: base64\n\n"]),
)
def test_garbage_is_judged_without_a_fault(octets: bytes, before: bytes) -> None:
    judge(Message(before + octets))


@pytest.mark.parametrize(
    "piece",
    [b"<a ", b"<a href=http://x ", b"<", b"<style", b"content-transfer-encoding: base64\r\n", b"\r\n--", b"1", b"a@"],
)
def test_no_text_takes_long(piece: bytes) -> None:
    header = PLAIN + b"Content-Type: multipart/x; html\n\n<html>text/html"
    message = Message(header + piece * (40_000 // len(piece)))
    began = time.process_time()
    judge(message)
    assert time.process_time() - began < 0.2
