"""Fields as they stand: offsets, unfolding, filtering (RFC 5322 section 2.2)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mime.generate import SHAPES, generate
from twisted_mail.mime import (
    COMMON_FIELDS,
    all_values,
    common_header,
    filter_fields,
    first_value,
    iterate_fields,
    unfold,
)

HEADER = (
    b"From mary@example.org Fri Jul  8 12:08:34 2011\r\n"
    b"Received: from a\r\n\tby b;\r\n Fri, 8 Jul 2011\r\n"
    b"Subject: one\r\n  two\r\n"
    b"garbage without a colon\r\n"
    b"TO : joe@example.net\r\n"
    b"X-Empty:\r\n"
    b"From: mary@example.org\n"
    b"subject: again\r\n"
    b"\r\n"
)


def test_fields_with_their_offsets() -> None:
    fields = list(iterate_fields(HEADER))
    assert [field.name for field in fields] == [b"received", b"subject", b"to", b"x-empty", b"from", b"subject"]
    assert fields[1].value == b" one\r\n  two"
    assert HEADER[fields[1].start : fields[1].end] == b"Subject: one\r\n  two\r\n"
    assert HEADER[fields[2].start : fields[2].end] == b"TO : joe@example.net\r\n"
    assert HEADER[fields[4].start : fields[4].end] == b"From: mary@example.org\n"
    for field in fields:
        assert HEADER[field.value_start :].startswith(field.value)
        assert HEADER[field.value_start - 1 : field.value_start] == b":"


def test_a_value_unfolds_to_one_line() -> None:
    assert unfold(b" a\r\n\t b\n c \r") == b"a\t b c"
    assert first_value(HEADER, b"subject") == b"one  two"
    assert first_value(HEADER, b"cc") is None
    assert all_values(HEADER, b"subject") == [b"one  two", b"again"]


def test_header_fields_are_taken_raw_in_the_order_of_the_message() -> None:
    kept = filter_fields(HEADER, (b"SUBJECT", b"received", b"from"))
    assert kept == (
        b"Received: from a\r\n\tby b;\r\n Fri, 8 Jul 2011\r\nSubject: one\r\n  two\r\nFrom: mary@example.org\n"
        b"subject: again\r\n\r\n"
    )
    assert filter_fields(HEADER, (b"to",)) == b"TO : joe@example.net\r\n\r\n"
    assert filter_fields(HEADER, (b"x-empty",)) == b"X-Empty:\r\n\r\n"


def test_header_fields_not_are_the_others() -> None:
    kept = filter_fields(HEADER, (b"Subject", b"Received", b"To"), invert=True)
    assert kept == b"X-Empty:\r\nFrom: mary@example.org\n\r\n"


def test_no_field_leaves_the_blank_line() -> None:
    assert filter_fields(HEADER, (b"x-none",)) == b"\r\n"
    assert filter_fields(b"", (b"from",)) == b"\r\n"
    assert filter_fields(HEADER, ()) == b"\r\n"


def test_a_name_is_matched_whole_and_is_no_expression() -> None:
    header = b"X-From: a\r\nFrom-X: b\r\nFr.m: c\r\n\r\n"
    assert filter_fields(header, (b"From",)) == b"\r\n"
    assert filter_fields(header, (b"Fr.m",)) == b"Fr.m: c\r\n\r\n"
    assert filter_fields(b"Fram: c\r\n", (b"Fr.m",)) == b"\r\n"


def test_a_last_field_without_line_end_gets_one() -> None:
    assert filter_fields(b"A: 1\r\nB: 2", (b"a", b"b")) == b"A: 1\r\nB: 2\r\n\r\n"
    assert filter_fields(b"A: 1\r\nB: 2\r", (b"b",)) == b"B: 2\r\n\r\n"
    assert filter_fields(b"A: 1\nB: 2", (b"a",)) == b"A: 1\n\r\n"


def test_the_common_header_serves_subsets_as_the_whole_header_does() -> None:
    names = [(b"From", b"Subject"), (b"Date", b"To", b"Cc", b"Message-ID"), (b"References",), (b"X-Priority", b"Bcc")]
    for seed in range(len(SHAPES)):
        header = generate(seed).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        common = common_header(header)
        assert common.endswith(b"\r\n")
        for wanted in names:
            assert filter_fields(common, wanted) == filter_fields(header, wanted)


def test_the_common_fields_leave_out_what_is_long_and_seldom_asked_for() -> None:
    assert {b"from", b"subject", b"date", b"message-id", b"references", b"in-reply-to", b"list-id"} <= COMMON_FIELDS
    assert not {b"received", b"dkim-signature", b"arc-seal"} & COMMON_FIELDS
    assert all(name == name.lower() for name in COMMON_FIELDS)


PIECES = st.lists(
    st.sampled_from([b"From", b"To", b":", b" ", b"\r\n", b"\n", b"\r", b"\t", b"x", b"\x00", b"\xff", b"From: a\r\n"]), max_size=40
)


@given(PIECES)
@settings(max_examples=150, deadline=None)
def test_filtering_agrees_with_iterating_on_any_octets(pieces: list[bytes]) -> None:
    header = b"".join(pieces)
    names = (b"from", b"tox")
    for invert in (False, True):
        wanted = [field for field in iterate_fields(header) if (field.name in names) != invert]
        expected = b"".join(header[field.start : field.end] for field in wanted)
        kept = filter_fields(header, names, invert)
        many = names + tuple(b"x-%d" % number for number in range(500))
        assert filter_fields(header, many, invert) == kept
        assert kept.endswith(b"\r\n")
        assert kept[:-2].removesuffix(b"\r\n").removesuffix(b"\n") == expected.removesuffix(b"\n").removesuffix(b"\r")
