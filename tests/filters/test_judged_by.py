"""Who judged a message stands in its header under a seal, which nobody else can write."""

from __future__ import annotations

import pytest

from tests.filters.milters import drive
from twisted_mail.filters.findings import Finding
from twisted_mail.filters.judged_by import FIELD, JudgedBy, judges_in, without_field
from twisted_mail.filters.values import Moment, Verdict
from twisted_mail.storage.interfaces import Unavailable

HEADER = b"From: Carl <carl@far.example>\r\nDate: Tue, 24 Nov 2026 22:00:00 +0000\r\nMessage-ID: <1@far.example>\r\nSubject: x\r\n"
ENGINES = frozenset({"rspamd", "spamassassin"})


def judged_by(secret: bytes = b"k" * 32) -> JudgedBy:
    async def shared() -> bytes:
        return secret

    return JudgedBy(ENGINES, shared)


def sealed(*names: str, header: bytes = HEADER) -> bytes:
    """A message as it is stored."""
    field = drive(judged_by().field(frozenset(names), header))
    return b"Return-Path: <carl@far.example>\r\n%s: %s\r\n" % (field[0].encode(), field[1].encode()) + header + b"\r\ntext\r\n"


def judges(octets: bytes, secret: bytes = b"k" * 32) -> frozenset[str]:
    found = drive(judged_by(secret).judges_of(octets))
    assert isinstance(found, frozenset)
    return found


@pytest.mark.parametrize("names", [("rspamd",), ("spamassassin",), ("spamassassin", "rspamd")])
def test_what_was_written_is_read(names: tuple[str, ...]) -> None:
    assert judges(sealed(*names)) == frozenset(names)


def test_where_nobody_judged_nothing_is_written_or_read() -> None:
    assert drive(judged_by().field(frozenset(), HEADER)) is None
    assert judges(HEADER + b"\r\n" + sealed("rspamd")) == frozenset(), "in the body it says nothing"
    assert judges(b"") == frozenset()


def test_folding_and_other_fields_break_no_seal() -> None:
    octets = sealed("rspamd").replace(b"From: Carl <", b"from:\r\n Carl\r\n\t<").replace(b"Subject: x", b"Subject: [list] x")
    assert judges(octets) == {"rspamd"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"rspamd;", b"spamassassin;"),
        (b"rspamd;", b"rspamd spamassassin;"),
        (b"<1@far", b"<2@far"),
        (b"carl@far.example>\r\nDate", b"eve@far.example>\r\nDate"),
        (b"22:00:00", b"22:00:01"),
        (b"; ", b"; A"),
    ],
)
def test_a_seal_that_was_moved_or_changed_does_not_hold(old: bytes, new: bytes) -> None:
    octets = sealed("rspamd")
    assert old in octets
    assert judges(octets.replace(old, new, 1)) == frozenset()


def test_a_seal_of_another_installation_does_not_hold() -> None:
    assert judges(sealed("rspamd"), b"q" * 32) == frozenset()


def test_a_forged_one_in_front_hides_no_true_one() -> None:
    forged = f"{FIELD}: spamassassin; {'A' * 20}\r\n".encode()
    assert judges(forged + sealed("rspamd")) == {"rspamd"}


def test_while_the_secret_is_out_of_reach_nothing_is_written() -> None:
    async def away() -> bytes:
        raise Unavailable("no store")

    assert drive(JudgedBy(ENGINES, away).field(frozenset({"rspamd"}), HEADER)) is None
    with pytest.raises(Unavailable):
        drive(JudgedBy(ENGINES, away).judges_of(sealed("rspamd")))
    assert drive(JudgedBy(ENGINES, away).judges_of(HEADER + b"\r\n")) == frozenset(), "where there is nothing to prove"


def test_an_engine_learns_what_it_was_shown() -> None:
    octets = sealed("rspamd")
    assert FIELD.encode() not in without_field(octets) and without_field(octets).endswith(HEADER + b"\r\ntext\r\n")
    body = HEADER + b"\r\nX-Spam-Judged-By: me; " + b"A" * 20 + b"\r\n"
    assert without_field(body) == body


def test_a_judge_is_who_has_given_points() -> None:
    facts = {"score": "0.0"}
    findings = [
        Finding(Moment.MESSAGE, "spamassassin", Verdict(reason="not asked about messages of more than 512 KiB"), 0.0),
        Finding(Moment.MESSAGE, "rspamd", Verdict(facts=facts), 0.0),
        Finding(Moment.MESSAGE, "clamav", Verdict(facts=facts), 0.0),
    ]
    assert judges_in(findings, ENGINES) == {"rspamd"}
    assert judges_in([Finding(Moment.MESSAGE, "rspamd", Verdict(facts=facts), 0.0, True)], ENGINES) == frozenset()
