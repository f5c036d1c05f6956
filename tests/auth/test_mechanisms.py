"""PLAIN, LOGIN, SCRAM-SHA-256 and -PLUS: the RFCs' vectors, an independent client, and anything at all."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.auth.support import ANN, BINDINGS, LOCAL, PASSWORD, SECURE, ScramClient, Town, now, run
from twisted_mail.auth.passwords import ScramKeys, scram_keys
from twisted_mail.auth.scram import ClientFirst, ScramExchange, new_nonce
from twisted_mail.services import AuthenticationFailed, Identity, Peer, UnknownMechanism
from twisted_mail.values import AccountId

IS_ANN = Identity(ANN, "ann@example.org")


# --- RFC 7677 section 3


class OneUser:
    """A ScramUsers with the RFC's user."""

    def same(self, one: str, other: str) -> bool:
        return one == other

    async def keys(self, user: str) -> ScramKeys:
        assert user == "user"
        return scram_keys(b"pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096)

    async def proved(self, user: str) -> Identity:
        return Identity(AccountId(bytes(16)), user)

    async def disproved(self, user: str) -> AuthenticationFailed:
        return AuthenticationFailed()


def rfc_7677() -> ScramExchange:
    return ScramExchange(OneUser(), nonce=lambda: "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")


FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
FINAL = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="


def test_the_exchange_of_rfc_7677() -> None:
    exchange = rfc_7677()
    assert run(exchange, [FIRST]) == (
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    assert run(exchange, [FINAL]) == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    assert run(exchange, [b""]) == Identity(AccountId(bytes(16)), "user")
    assert run(exchange, [b""]) == "malformed"


def test_the_client_of_these_tests_agrees_with_rfc_5802() -> None:
    """Section 5 has an exchange of SCRAM-SHA-1, with which the client is checked."""
    client = ScramClient("user", "pencil", hash="sha1")
    assert client.first() == b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL"
    final = client.final(b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096")
    assert final == b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts="
    assert base64.b64encode(client.server_signature) == b"rmF9pqV8S7suAoZWja4dJRkFsKQ="


@pytest.mark.parametrize(
    "final",
    [
        FINAL.replace(b"dHzb", b"dHzc"),
        FINAL.replace(b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", b"p=dHzbZapW"),
        FINAL.replace(b"$k0", b"$k1"),
        FINAL.replace(b"c=biws", b"c=eSws"),
        FINAL.replace(b",p=", b",x=1,p="),
    ],
)
def test_a_wrong_final_message_is_refused(final: bytes) -> None:
    assert run(rfc_7677(), [FIRST, final]) == "credentials"


@pytest.mark.parametrize(
    "final",
    [
        b"",
        b"c=biws",
        b"c=biws,r=x",
        b"r=x,c=biws,p=QQ==",
        b"c=!,r=x,p=QQ==",
        b"c=biws,r=x,p=Q",
        b"c=biws,r=x,1,p=QQ==",
        b"\xff",
        FINAL + b"," * 5000,
    ],
)
def test_a_malformed_final_message_is_refused(final: bytes) -> None:
    assert run(rfc_7677(), [FIRST, final]) == "malformed"


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"n=user,r=x",
        b"n,n=user,r=x",
        b"q,,n=user,r=x",
        b"p=,,n=user,r=x",
        b"n,,m=1,n=user,r=x",
        b"n,,n=user",
        b"n,,r=x,n=user",
        b"n,,n=,r=x",
        b"n,,n=user,r=",
        b"n,,n=us=er,r=x",
        b"n,,n=us=2cer,r=x",
        b"n,,n=user,r=a b",
        b"n,,n=user,r=x,junk",
        b"n,,n=us\0er,r=x",
        b"n,a=,n=user,r=x",
        b"\xc3\x28",
        b"n,,n=" + b"u" * 5000 + b",r=x",
    ],
)
def test_a_malformed_first_message_is_refused(first: bytes) -> None:
    assert run(rfc_7677(), [first]) == "malformed"


def test_names_are_unescaped_and_extensions_passed_over() -> None:
    client = ClientFirst.parse(b"y,a=o=2Cther,n=a=2Cb=3Dc,r=xyz,e=ext")
    assert (client.user, client.authzid, client.flag, client.nonce) == ("a,b=c", "o,ther", "y", "xyz")
    assert client.bare == "n=a=2Cb=3Dc,r=xyz,e=ext"


def test_nonces_are_new_printable_and_long() -> None:
    nonces = {new_nonce() for _ in range(100)}
    assert len(nonces) == 100
    assert all(len(nonce) >= 18 and nonce.isprintable() and "," not in nonce for nonce in nonces)


def test_a_nonce_that_was_changed_is_refused_even_with_a_proof_for_it() -> None:
    exchange, client = rfc_7677(), ScramClient("user", "pencil", nonce="rOprNGfwEbeRWgbNEkqO")
    first = run(exchange, [client.first()])
    assert isinstance(first, bytes)
    assert run(exchange, [client.final(first, "x")]) == "credentials"
    exchange = rfc_7677()
    assert run(exchange, [client.first(), client.final(first)]) == b"v=" + base64.b64encode(client.server_signature)


# --- with the service


@pytest.mark.parametrize("user", ["ann@example.org", "ANN@Example.ORG"])
def test_scram_lets_in_who_knows_the_password(user: str) -> None:
    town = Town()
    assert ScramClient(user, PASSWORD).log_in(town.service.begin("SCRAM-SHA-256", SECURE)) == IS_ANN
    assert town.threads.calls == []  # not one hash


def test_scram_keeps_out_who_does_not() -> None:
    town = Town()
    assert ScramClient("ann@example.org", "wrong").log_in(town.service.begin("SCRAM-SHA-256", SECURE)) == "credentials"
    assert ScramClient("bob@example.org", PASSWORD).log_in(town.service.begin("SCRAM-SHA-256", SECURE)) == "disabled"
    assert ScramClient("bob@example.org", "wrong").log_in(town.service.begin("SCRAM-SHA-256", SECURE)) == "credentials"


def test_scram_leads_on_who_does_not_exist_with_the_same_salt_each_time() -> None:
    def salt(user: str, town: Town) -> tuple[bytes, bytes]:
        first = run(town.service.begin("SCRAM-SHA-256", SECURE), [ScramClient(user, "x").first()])
        assert isinstance(first, bytes)
        _, salt, iterations = first.split(b",")
        return salt, iterations

    one, other = Town(), Town()
    assert salt("nobody@example.org", one) == salt("NOBODY@example.org", one) == salt("nobody@example.org", other)
    assert salt("nobody@example.org", one) != salt("somebody@example.org", one)
    assert salt("nobody@example.org", Town(secret=b"t" * 32)) != salt("nobody@example.org", one)
    assert len(base64.b64decode(salt("nobody@example.org", one)[0][2:])) == 16
    assert salt("nobody@example.org", one)[1] == salt("ann@example.org", one)[1]
    assert ScramClient("nobody@example.org", "x").log_in(one.service.begin("SCRAM-SHA-256", SECURE)) == "credentials"


@pytest.mark.parametrize("kind", sorted(BINDINGS))
def test_scram_plus_binds_to_the_channel(kind: str) -> None:
    town = Town()

    def log_in(binding: bytes) -> Identity | str:
        client = ScramClient("ann@example.org", PASSWORD, f"p={kind},,", binding)
        return client.log_in(town.service.begin("SCRAM-SHA-256-PLUS", SECURE))

    assert log_in(BINDINGS[kind]) == IS_ANN
    assert log_in(b"x" * 32) == "credentials"
    assert log_in(b"") == "credentials"


@pytest.mark.parametrize(
    ("mechanism", "header", "reason"),
    [
        ("SCRAM-SHA-256-PLUS", "n,,", "malformed"),
        ("SCRAM-SHA-256-PLUS", "y,,", "malformed"),
        ("SCRAM-SHA-256-PLUS", "p=tls-unique,,", "malformed"),
        ("SCRAM-SHA-256", "p=tls-exporter,,", "malformed"),
        ("SCRAM-SHA-256", "y,,", "credentials"),  # the offer of -PLUS was taken away on its way
    ],
)
def test_a_downgrade_is_noticed(mechanism: str, header: str, reason: str) -> None:
    client = ScramClient("ann@example.org", PASSWORD, header, BINDINGS["tls-exporter"] if header[0] == "p" else b"")
    assert client.log_in(Town().service.begin(mechanism, SECURE)) == reason


def test_a_client_that_could_bind_may_log_in_where_plus_is_not_offered() -> None:
    client = ScramClient("ann@example.org", PASSWORD, "y,,")
    assert client.log_in(Town().service.begin("SCRAM-SHA-256", LOCAL)) == IS_ANN


@pytest.mark.parametrize(
    ("authzid", "result"),
    [("ann@example.org", IS_ANN), ("Ann@EXAMPLE.org", IS_ANN), ("bob@example.org", "credentials")],
)
def test_nobody_acts_for_another(authzid: str, result: object) -> None:
    town = Town()
    scram = ScramClient("ann@example.org", PASSWORD, f"n,a={authzid},")
    assert scram.log_in(town.service.begin("SCRAM-SHA-256", LOCAL)) == result
    assert town.exchange("PLAIN", [f"{authzid}\0ann@example.org\0{PASSWORD}".encode()]) == result


def test_plain_with_and_without_initial_response() -> None:
    town = Town()
    message = f"\0ann@example.org\0{PASSWORD}".encode()
    assert town.exchange("PLAIN", [message]) == IS_ANN
    assert town.exchange("plain", [None, message]) == IS_ANN
    assert town.exchange("PLAIN", [None]) == b""
    assert town.exchange("PLAIN", [f"\0ann@example.org\0{PASSWORD}x".encode()]) == "credentials"


@pytest.mark.parametrize(
    "message",
    [b"", b"\0", b"\0\0", b"\0ann\0", b"\0\0x", b"ann\0x", b"a\0b\0c\0d", b"\0\xff\0x", b"\0a\0" + b"x" * 5000],
)
def test_malformed_plain(message: bytes) -> None:
    assert Town().exchange("PLAIN", [message]) == "malformed"


def test_login_with_and_without_initial_response() -> None:
    town = Town()
    assert town.exchange("LOGIN", [None]) == b"Username:"
    assert town.exchange("LOGIN", [None, b"ann@example.org"]) == b"Password:"
    assert town.exchange("LOGIN", [None, b"ann@example.org", PASSWORD.encode()]) == IS_ANN
    assert town.exchange("LOGIN", [b"ann@example.org", PASSWORD.encode()]) == IS_ANN
    assert town.exchange("LOGIN", [b"ann@example.org", b"wrong"]) == "credentials"
    for wrong in ([b""], [b"a\0b"], [b"ann", b""], [b"ann", None], [b"\xff"], [b"ann", b"a\0b"]):
        assert town.exchange("LOGIN", wrong) == "malformed"


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"])
def test_an_exchange_that_is_over_stays_over(mechanism: str) -> None:
    exchange = Town().service.begin(mechanism, SECURE)
    assert run(exchange, [b"\xff"]) == "malformed"
    for again in (None, b"", f"\0ann@example.org\0{PASSWORD}".encode()):
        assert run(exchange, [again]) == "malformed"


@pytest.mark.parametrize("name", ["", "CRAM-MD5", "PLAIN ", "SCRAM-SHA-1", "X" * 1000, "Ⅼogin"])
def test_unknown_mechanisms(name: str) -> None:
    with pytest.raises(UnknownMechanism):
        Town().service.begin(name, SECURE)


TOWN = Town(failures_per_minute=0)
messages = st.one_of(
    st.none(),
    st.binary(max_size=60),
    st.text(alphabet="nyp=,ar\0ciwsmtls-exporter@éx", max_size=40).map(str.encode),
    st.sampled_from([FIRST, FINAL, b"\0ann@example.org\0x", b"n,,n=ann@example.org,r=a", b"p=tls-exporter,,n=ann,r=a"]),
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"]), st.lists(messages, max_size=5))
def test_anything_at_all_gives_a_challenge_or_a_refusal(mechanism: str, responses: list[bytes | None]) -> None:
    assert not isinstance(TOWN.exchange(mechanism, responses), Identity)


def test_a_peer_without_bindings_is_offered_no_plus() -> None:
    peer = Peer("192.0.2.7", secure=True)
    assert list(Town().service.mechanisms(peer)) == ["SCRAM-SHA-256", "PLAIN", "LOGIN"]
    with pytest.raises(UnknownMechanism):
        Town().service.begin("SCRAM-SHA-256-PLUS", peer)


def test_a_user_without_scram_keys_is_like_one_who_does_not_exist() -> None:
    import dataclasses

    town = Town()
    record = now(town.directory.account(ANN))
    assert record is not None
    now(town.directory.set_account(dataclasses.replace(record, credentials=record.credentials[:1])))
    assert ScramClient("ann@example.org", PASSWORD).log_in(town.service.begin("SCRAM-SHA-256", LOCAL)) == "credentials"
