"""Message ids and the base subject (RFC 5322 section 3.6.4, RFC 5256 section 2.1)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted_mail.mime import base_subject, message_ids


@pytest.mark.parametrize(
    ("raw", "ids"),
    [
        (b"<a@b>", ("a@b",)),
        (b"<a@b>\r\n <c@d> (comment)\t<e@f>", ("a@b", "c@d", "e@f")),
        (b"<a@b><a@b>", ("a@b",)),
        (b"< a@b >", ("a@b",)),
        (b"<a\r\n b@c>", ("ab@c",)),
        (b"a@b", ("a@b",)),
        (b"Your message of Friday <a@b>", ("a@b",)),
        (b"Your message of Friday", ()),
        (b"<no-at-sign>", ("no-at-sign",)),
        (b"<\xff@b>", ("\ufffd@b",)),
        (b"<>", ()),
        (b"", ()),
        (b"<open@b", ()),
    ],
)
def test_ids(raw: bytes, ids: tuple[str, ...]) -> None:
    assert message_ids(raw) == ids


@pytest.mark.parametrize(
    ("subject", "base"),
    [
        ("hello", "hello"),
        ("Re: hello", "hello"),
        ("RE:hello", "hello"),
        ("Fwd: Re: fw: hello", "hello"),
        ("Re[2]: hello", "hello"),
        ("re [x] : hello", "hello"),
        ("[list] hello", "hello"),
        ("[list] Re: [other] hello", "hello"),
        ("Re: [list] hello (fwd)", "hello"),
        ("hello (fwd) (FWD)", "hello"),
        ("[fwd: hello]", "hello"),
        ("[Fwd: [fwd: Re: hello]]", "hello"),
        ("[list]", "[list]"),
        ("Re: [list]", "[list]"),
        ("[a][b]", "[b]"),
        ("  a \t  b\r\n c ", "a b c"),
        ("Regards", "Regards"),
        ("Re:", ""),
        ("(fwd)", ""),
        ("", ""),
    ],
)
def test_base_subjects(subject: str, base: str) -> None:
    assert base_subject(subject) == base


@given(st.text(alphabet="[]()re:fwdFW 1x", max_size=40))
@settings(max_examples=300, deadline=None)
def test_a_base_subject_is_its_own(subject: str) -> None:
    assert base_subject(base_subject(subject)) == base_subject(subject)
