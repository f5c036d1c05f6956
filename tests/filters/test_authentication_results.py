"""Authentication-Results: what is made can be read by others, what others wrote is read, forged ones are found."""

from __future__ import annotations

import authres  # type: ignore[import-untyped]  # it has no types
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted_mail.filters.authentication_results import BadResults, forged, parse, render
from twisted_mail.filters.values import AuthenticationResult as Result

RESULTS = (
    Result("iprev", "pass", properties=(("policy.iprev", "2001:db8::1"),), comment="mail.example.net"),
    Result("spf", "fail", "-all", (("smtp.mailfrom", "user+tag@example.org"),)),
    Result("spf", "pass", properties=(("smtp.helo", "mail.example.net"),)),
    Result("dkim", "pass", properties=(("header.d", "example.org"), ("header.s", "s1"), ("header.b", "abc/+d=="))),
    Result("dkim", "fail", 'the "body" hash\\did not verify', (("header.d", "example.org"), ("header.i", "@example.org"))),
    Result("arc", "pass", comment="i=2 (trusted)"),
    Result("dmarc", "fail", properties=(("header.from", "example.org"),), comment="p=reject"),
)


def test_what_is_made_can_be_read_again() -> None:
    value = render("mx.example.com", RESULTS)
    read = parse(value)
    assert read.authserv_id == "mx.example.com"
    assert read.results == RESULTS
    assert all(len(line) <= 78 for line in value.replace("\t", " " * 8).split("\r\n"))


def test_others_read_it_too() -> None:
    field = "Authentication-Results: " + render("mx.example.com", RESULTS).replace("\r\n", "")
    read = authres.AuthenticationResultsHeader.parse(field)
    assert read.authserv_id == "mx.example.com"
    assert [(each.method, each.result) for each in read.results] == [(each.method, each.value) for each in RESULTS]
    assert read.results[1].smtp_mailfrom == "user+tag@example.org"
    assert read.results[1].reason == "-all"
    assert read.results[4].reason == r'the \"body\" hash\\did not verify'  # authres leaves the backslashes
    assert read.results[6].properties[0].value == "example.org"


def test_without_results_it_says_none() -> None:
    value = render("mx.example.com", [])
    assert value == "mx.example.com;\r\n\tnone"
    assert parse(value).results == ()
    assert isinstance(authres.AuthenticationResultsHeader.parse("Authentication-Results: mx.example.com; none").results, list)


def test_addresses_in_other_scripts_stay() -> None:
    value = render("mx.example.com", [Result("spf", "pass", properties=(("smtp.mailfrom", "jörg@bücher.example"),))])
    assert "smtp.mailfrom=jörg@bücher.example" in value
    assert dict(parse(value).results[0].properties) == {"smtp.mailfrom": "jörg@bücher.example"}


@pytest.mark.parametrize(
    "words", ["a\r\nBcc: x@example.org", "x; dkim=pass header.d=bank.example", "(", ")", "\\", '"', "a" * 5000, "\x00", "\u2028", "; ; ;"]
)
def test_words_of_strangers_do_nothing_but_stand_there(words: str) -> None:
    value = render("mx.example.com", [Result("spf", "fail", words, (("smtp.mailfrom", words), ("x y.z", "1")), words)])
    read = parse(value)
    assert [each.method for each in read.results] == ["spf"]
    assert "\r\n" not in value.replace("\r\n\t", "")
    assert all(len(line) <= 998 for line in value.split("\r\n"))
    parsed = authres.AuthenticationResultsHeader.parse("Authentication-Results: " + value.replace("\r\n", ""))
    assert len(parsed.results) == 1


def test_a_result_that_is_no_keyword_is_left_out() -> None:
    value = render("mx.example.com", [Result("spf; dkim", "pass"), Result("spf", "pass reason=x"), Result("iprev", "fail")])
    assert [(each.method, each.value) for each in parse(value).results] == [("iprev", "fail")]


# The examples of RFC 8601 appendix B.

APPENDIX_B = {
    "example.org 1; none": [],
    "example.com;\r\n          spf=pass smtp.mailfrom=example.net": ["spf=pass"],
    "example.com;\r\n         auth=pass (cram-md5) smtp.auth=sender@example.net;\r\n         spf=pass smtp.mailfrom=example.net": ["auth=pass", "spf=pass"],
    "example.com; iprev=pass\r\n            policy.iprev=192.0.2.200": ["iprev=pass"],
    "example.com;\r\n          dkim=pass (good signature) header.d=example.com": ["dkim=pass"],
    "example.com;\r\n           auth=pass (cram-md5) smtp.auth=sender@example.com;\r\n           spf=fail smtp.mailfrom=example.com": ["auth=pass", "spf=fail"],
    "example.com;\r\n       dkim=fail reason=\"bad signature\"\r\n         header.i=@mail-router.example.net": ["dkim=fail"],
    "foo.example.net (foobar) 1 (baz);\r\n        dkim (Because I like it) / 1 (One yay) = (wait for it) fail\r\n          policy (A dot can go here) . (like that) expired\r\n          (this surprised me) = (as I wasn't expecting it) 1362471462": ["dkim=fail"],
}  # fmt: skip


@pytest.mark.parametrize(("value", "results"), APPENDIX_B.items())
def test_the_examples_of_the_rfc(value: str, results: list[str]) -> None:
    read = parse(value)
    assert [f"{each.method}={each.value}" for each in read.results] == results


def test_the_hard_example_has_its_property() -> None:
    read = parse(list(APPENDIX_B)[-1])
    assert (read.authserv_id, read.version) == ("foo.example.net", 1)
    assert read.results[0].properties == (("policy.expired", "1362471462"),)


@pytest.mark.parametrize(
    "value", ["", ";", "a b c; spf=pass", "a; spf", "a; spf=", "a; spf=pass x", "a; spf=pass x.y", "a; spf=pass x.y=", "(a", 'a"', "a; =b", "a" * 70_000]
)
def test_what_is_no_such_field(value: str) -> None:
    with pytest.raises(BadResults):
        parse(value)


def test_many_parentheses_are_no_deep_recursion() -> None:
    assert parse("(" * 20_000 + ")" * 20_000 + "a; none").authserv_id == "a"
    with pytest.raises(BadResults):
        parse("(" * 60_000)


@settings(max_examples=80)
@given(st.text(alphabet='ab.;=()"\\ \t\r\n/@1', max_size=60))
def test_whatever_comes_is_read_or_refused(value: str) -> None:
    try:
        parse(value)
    except BadResults:
        pass
    assert forged([(b"Authentication-Results", value.encode())], "mx.example.com") in ([], [0])


def test_forged_ones_are_those_with_our_name() -> None:
    fields = [
        (b"Received", b" from x by mx.example.com"),
        (b"Authentication-Results", b" mx.example.com; dmarc=pass header.from=bank.example"),
        (b"Authentication-Results", b" mx.example.net; spf=pass"),
        (b"AUTHENTICATION-results", b"\r\n (really)\r\n\tMX.Example.COM. (ours) 1;\r\n none"),
        (b"Authentication-Results ", b' "mx.example.com"; dkim=pass'),
        (b"Authentication-Results", b" (mx.example.com; dkim=pass"),
        (b"ARC-Authentication-Results", b" i=1; mx.example.com; dkim=pass"),
        (b"Authentication-Results", b' "mx.exam\\ple.com"; dkim=pass'),
        (b"Authentication-Results", b" other.example; dkim=pass"),
    ]
    assert forged(fields, "mx.example.com") == [1, 3, 4, 5, 7]
    assert forged(fields, "mx.example.com", "other.example") == [1, 3, 4, 5, 7, 8]


def test_our_name_in_another_spelling_is_ours() -> None:
    fields = [(b"Authentication-Results", " mx.bücher.example; dkim=pass".encode()), (b"Authentication-Results", b" mx.xn--bcher-kva.example; none")]
    assert forged(fields, "mx.bücher.example") == [0, 1]
