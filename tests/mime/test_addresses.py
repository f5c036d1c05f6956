"""Addresses: the examples of RFC 5322 appendix A and RFC 6532, and what is met outside the grammar."""

from __future__ import annotations

import email.utils
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mime.generate import PROPER, SHAPES, generate, shape_of
from twisted_mail.mime import Address, Group, Mailbox, all_values, mailboxes_of, parse_addresses

M = Mailbox


@pytest.mark.parametrize(
    ("raw", "addresses"),
    [
        # RFC 5322 appendix A.1.1, A.1.2
        (b"John Doe <jdoe@machine.example>", [M(b"John Doe", None, b"jdoe", b"machine.example")]),
        (b'"Joe Q. Public" <john.q.public@example.com>', [M(b"Joe Q. Public", None, b"john.q.public", b"example.com")]),
        (b"Mary Smith <mary@x.test>, jdoe@example.org, Who? <one@y.test>",
         [M(b"Mary Smith", None, b"mary", b"x.test"), M(None, None, b"jdoe", b"example.org"), M(b"Who?", None, b"one", b"y.test")]),
        (b'<boss@nil.test>, "Giant; \\"Big\\" Box" <sysservices@example.net>',
         [M(None, None, b"boss", b"nil.test"), M(b'Giant; "Big" Box', None, b"sysservices", b"example.net")]),
        # A.1.3: groups
        (b"A Group:Ed Jones <c@a.test>,joe@where.test,John <jdoe@one.test>;",
         [Group(b"A Group", (M(b"Ed Jones", None, b"c", b"a.test"), M(None, None, b"joe", b"where.test"),
                             M(b"John", None, b"jdoe", b"one.test")))]),
        (b"Undisclosed recipients:;", [Group(b"Undisclosed recipients", ())]),
        (b"a@b, g: c@d;, e@f", [M(None, None, b"a", b"b"), Group(b"g", (M(None, None, b"c", b"d"),)), M(None, None, b"e", b"f")]),
        # A.5: comments and white space everywhere
        (b"Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>", [M(b"Pete", None, b"pete", b"silly.test")]),
        (b"A Group(Some people)\r\n     :Chris Jones <c@(Chris's host.)public.example>,\r\n"
         b"         joe@example.org,\r\n  John <jdoe@one.test> (my dear friend); (the end of the group)",
         [Group(b"A Group", (M(b"Chris Jones", None, b"c", b"public.example"), M(None, None, b"joe", b"example.org"),
                             M(b"John", None, b"jdoe", b"one.test")))]),
        # A.6.1: obsolete forms
        (b"Joe Q. Public <john.q.public@example.com>", [M(b"Joe Q. Public", None, b"john.q.public", b"example.com")]),
        (b"Mary Smith <@node.test:mary@example.net>, , jdoe@test  . example",
         [M(b"Mary Smith", b"@node.test", b"mary", b"example.net"), M(None, None, b"jdoe", b"test.example")]),
        (b"<@a.test,@b.test:joe@c.test>", [M(None, b"@a.test,@b.test", b"joe", b"c.test")]),
        (b"John Doe <jdoe@machine(comment).  example>", [M(b"John Doe", None, b"jdoe", b"machine.example")]),
        (b"first . last @ example . org", [M(None, None, b"first.last", b"example.org")]),
        # quoting, literals, names in comments
        (b'"joe@home"@example.org', [M(None, None, b"joe@home", b"example.org")]),
        (b'"a b".c@example.org', [M(None, None, b"a b.c", b"example.org")]),
        (b"joe@[IPv6:2001:db8::1]", [M(None, None, b"joe", b"[IPv6:2001:db8::1]")]),
        (b"joe@[192.0.2.1] (Joe)", [M(b"Joe", None, b"joe", b"[192.0.2.1]")]),
        (b"joe@example.org (Joe (the) Public)", [M(b"Joe (the) Public", None, b"joe", b"example.org")]),
        (b'"Doe, John" <j@d>', [M(b"Doe, John", None, b"j", b"d")]),
        (b'"un\\"quoted\\\\" <j@d>', [M(b'un"quoted\\', None, b"j", b"d")]),
        (b"=?utf-8?q?J=C3=B6rg?= <j@d>", [M(b"=?utf-8?q?J=C3=B6rg?=", None, b"j", b"d")]),
        # RFC 6532
        ("Jörg <jörg@bücher.example>".encode(), [M("Jörg".encode(), None, "jörg".encode(), "bücher.example".encode())]),
        # garbage
        (b"", []),
        (b" ,, ,", []),
        (b"(nobody)", []),
        (b"<>", [M(None, None, b"", b"")]),
        (b"joe", [M(None, None, b"joe", b"")]),
        (b"Joe Public", [M(None, None, b"Joe Public", b"")]),
        (b"Joe <joe>", [M(b"Joe", None, b"joe", b"")]),
        (b"joe@a@b", [M(None, None, b"joe@a", b"b")]),
        (b"Joe <joe@a", [M(b"Joe", None, b"joe", b"a")]),
        (b"Joe joe@a>", [M(None, None, b"Joe joe", b"a")]),
        (b'"Joe <joe@a>', [M(None, None, b"Joe <joe@a>", b"")]),
        (b"Joe (open <joe@a>", [M(b"open <joe@a>", None, b"Joe", b"")]),
        (b"a@b; c@d", [M(None, None, b"a", b"b"), M(None, None, b"c", b"d")]),
        (b"Joe <joe@a> <joe@b>", [M(b"Joe joe@a", None, b"joe", b"b")]),
        (b"g: a@b", [Group(b"g", (M(None, None, b"a", b"b"),))]),
        (b"mailto:joe@a", [Group(b"mailto", (M(None, None, b"joe", b"a"),))]),
    ],
)  # fmt: skip
def test_addresses(raw: bytes, addresses: list[Address]) -> None:
    assert list(parse_addresses(raw)) == addresses


def test_for_people() -> None:
    (mailbox,) = mailboxes_of(parse_addresses(b'=?utf-8?q?J=C3=B6rg?= <"a b"@example.org>'))
    assert (mailbox.display, mailbox.address) == ("Jörg", '"a b"@example.org')
    (plain,) = mailboxes_of(parse_addresses("dürst@bücher.example".encode()))
    assert (plain.display, plain.address) == ("", "dürst@bücher.example")
    (group,) = parse_addresses(b"=?utf-8?q?B=C3=BCro?=: a@b, c@d;")
    assert isinstance(group, Group)
    assert group.display == "Büro"
    assert [member.address for member in mailboxes_of([group])] == ["a@b", "c@d"]


LENIENT: dict[str, Any] = {"strict": False} if getattr(email.utils, "supports_strict_parsing", False) else {}
"""Newer releases are strict unless told otherwise; older ones have no such argument."""


def test_agreement_with_the_standard_library() -> None:
    """`email.utils.getaddresses` (not strict) on what correct senders write; it joins comments to names."""
    compared = 0
    for seed in range(len(SHAPES) * 10):
        if shape_of(seed) not in PROPER:
            continue
        header = generate(seed).partition(b"\r\n\r\n")[0] + b"\r\n"
        for name in (b"from", b"to", b"cc", b"reply-to"):
            for value in all_values(header, name):
                text = value.decode()
                if "(" in text:
                    continue  # it puts the comment behind the phrase: "Name (comment)"
                expected = email.utils.getaddresses([text], **LENIENT)
                found = [
                    ((item.name or b"").decode(), f"{_local(item)}@{item.host.decode()}")
                    for item in mailboxes_of(parse_addresses(value))
                ]
                if not found:
                    assert expected == [("", "")]  # an empty group
                else:
                    assert found == expected
                compared += 1
    assert compared > 100


def _local(mailbox: Mailbox) -> str:
    local = mailbox.local.decode()
    return f'"{local}"' if " " in local else local


@given(st.lists(st.sampled_from([bytes([c]) for c in b'<>@,;:()[]".\\ ab\r\n\x00\xff'] + [b"a@b", b"=?"]), max_size=40))
@settings(max_examples=300, deadline=None)
def test_no_octets_raise_and_nothing_is_none_that_must_not_be(pieces: list[bytes]) -> None:
    for mailbox in mailboxes_of(parse_addresses(b"".join(pieces))):
        assert isinstance(mailbox.address, str)
        assert isinstance(mailbox.display, str)


def test_a_field_of_many_addresses_is_read_whole() -> None:
    raw = b", ".join(b'"N %d" <a%d@example.org>' % (number, number) for number in range(5000))
    found = parse_addresses(raw)
    assert len(found) == 5000
    assert found[-1] == M(b"N 4999", None, b"a4999", b"example.org")
