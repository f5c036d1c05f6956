"""SCRAM against the server's side; the choice of a mechanism; servers that lie."""

from __future__ import annotations

import pytest

from tests.auth.support import BINDINGS, PASSWORD, SECURE, Town, now
from twisted_mail.services import Challenge, Identity
from twisted_mail.smtp.client.login import BadChallenge, LoginMechanism, Plain, Scram, choose

FIRST = b"r=%s,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=%s"


def log_in(client: Scram, mechanism: str) -> bool:
    exchange = Town().service.begin(mechanism, SECURE)
    response = client.initial()
    while True:
        result = now(exchange.step(response))
        if not isinstance(result, Challenge):
            return isinstance(result, Identity)
        response = client.respond(result.data)


@pytest.mark.parametrize("kind", ["tls-exporter", "tls-server-end-point"])
def test_scram_is_what_our_own_server_speaks(kind: str) -> None:
    assert log_in(Scram("ann@example.org", PASSWORD), "SCRAM-SHA-256")
    assert log_in(Scram("ann@example.org", PASSWORD, binding=(kind, BINDINGS[kind])), "SCRAM-SHA-256-PLUS")


def test_the_best_mechanism_is_taken_and_none_that_shows_the_password() -> None:
    def name(*offered: str, private: bool = True, bindings: dict[str, bytes] | None = None) -> str | None:
        exchange = choose(offered, "u", "p", private=private, bindings=bindings)
        return exchange.name if exchange is not None else None

    every = ("LOGIN", "PLAIN", "CRAM-MD5", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS")
    assert name(*every, bindings=BINDINGS) == "SCRAM-SHA-256-PLUS"
    assert name(*every) == "SCRAM-SHA-256"
    assert name(*every[:3]) == "PLAIN"
    assert name("LOGIN") == "LOGIN"
    assert name("LOGIN", "PLAIN", private=False) is None
    assert name("GSSAPI") is None


def test_a_client_that_could_bind_says_so_where_it_is_not_offered() -> None:
    exchange = choose(["SCRAM-SHA-256"], "u", "p", private=True, bindings=BINDINGS)
    assert exchange is not None and exchange.initial().startswith(b"y,,n=u,r=")


def test_names_are_escaped_and_prepared() -> None:
    assert Scram("a=b,c", "p", nonce=lambda: "n").initial() == b"n,,n=a=3Db=2Cc,r=n"
    assert Scram("\u2168", "p", nonce=lambda: "n").initial() == b"n,,n=IX,r=n"  # RFC 4013 section 3


@pytest.mark.parametrize(
    "challenge",
    [b"", b"x", b"\xff", FIRST % (b"other", b"4096"), FIRST % (b"n", b"4096"), FIRST % (b"nx", b"1"),
     FIRST % (b"nx", b"99999999"), FIRST % (b"nx", b"-4096"), b"r=nx,s=!,i=4096", b"m=x,r=nx,s=QQ==,i=4096"],
)  # fmt: skip
def test_a_server_that_lies_is_found_out(challenge: bytes) -> None:
    scram = Scram("u", "p", nonce=lambda: "n")
    scram.initial()
    if challenge:
        with pytest.raises(BadChallenge):
            scram.respond(challenge)
    scram = Scram("u", "p", nonce=lambda: "n")
    scram.respond(FIRST % (b"nx", b"4096"))
    with pytest.raises(BadChallenge):
        scram.respond(challenge)
    with pytest.raises(BadChallenge):
        scram.finish()


def test_login_answers_twice_and_plain_again_when_asked() -> None:
    login = LoginMechanism("u", "p")
    assert (login.initial(), login.respond(b"Name?"), login.respond(b"?")) == (b"", b"u", b"p")
    with pytest.raises(BadChallenge):
        login.respond(b"more")
    assert Plain("u", "p").respond(b"") == Plain("u", "p").initial() == b"\0u\0p"
