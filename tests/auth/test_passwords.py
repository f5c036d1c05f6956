"""What is stored of passwords, and checking them."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from tests.auth.support import ANN, CHEAP, CREDENTIALS, PASSWORD, Counting, Town, now
from twisted_mail.auth.passwords import (
    PasswordParameters,
    PasswordVerifier,
    ScramKeys,
    TooBusy,
    credentials_for,
    matches,
    prepare,
    scram_keys,
)
from twisted_mail.auth.saslprep import saslprep
from twisted_mail.auth.service import set_password
from twisted_mail.services import Identity
from twisted_mail.storage.interfaces import NotFound
from twisted_mail.tap.threads import Threads
from twisted_mail.values import AccountId


def test_saslprep_examples_of_rfc_4013_section_3() -> None:
    assert saslprep("I\u00adX") == "IX"
    assert saslprep("user") == "user"
    assert saslprep("USER") == "USER"
    assert saslprep("\u00aa") == "a"
    assert saslprep("\u2168") == "IX"
    for refused in ("\u0007", "\u06271"):
        with pytest.raises(ValueError):
            saslprep(refused)


def test_saslprep_maps_spaces_and_lets_younger_characters_through() -> None:
    assert saslprep("a\u00a0b\u3000c") == "a b c"
    assert saslprep("🐎") == "🐎"
    for refused in ("a\x7f", "\u0085é", "\ue000", "\ufdd0", "\u202eé", "\ufffd", "א1b"):
        with pytest.raises(ValueError):
            saslprep(refused)


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_saslprep_twice_is_saslprep_once(text: str) -> None:
    try:
        once = saslprep(text)
    except ValueError:
        return
    assert saslprep(once) == once


def test_what_is_stored_is_readable_text_of_the_parameters() -> None:
    hashed, scram = credentials_for("pencil", PasswordParameters(memory_kib=128, passes=2, scram_iterations=5000))
    assert hashed.startswith("$argon2id$v=19$m=128,t=2,p=1$")
    assert scram.startswith("{SCRAM-SHA-256}5000:")
    assert str(ScramKeys.parse(scram)) == scram
    assert "pencil" not in hashed + scram


def test_the_defaults_are_19_mib_and_two_passes() -> None:
    hashed, scram = credentials_for("pencil")
    assert hashed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert scram.startswith("{SCRAM-SHA-256}15000:")


def test_the_same_password_is_stored_differently_each_time() -> None:
    assert not set(credentials_for("x", CHEAP)) & set(credentials_for("x", CHEAP))


def test_no_scram_keys_without_iterations() -> None:
    assert len(credentials_for("x", PasswordParameters(memory_kib=64, passes=1, scram_iterations=0))) == 1


@pytest.mark.parametrize("wrong", [{"scram_iterations": 4095}, {"memory_kib": 1}, {"passes": 0}])
def test_parameters_that_cannot_be(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        PasswordParameters(**wrong)


def test_right_and_wrong() -> None:
    assert matches(PASSWORD, CREDENTIALS)
    assert matches(PASSWORD, CREDENTIALS[1:])  # SCRAM keys alone
    for wrong in ("Correct horse", "", "correct horse ", "\0", "x" * 5000, "\ud800"):
        assert not matches(wrong, CREDENTIALS)
        assert not matches(wrong, CREDENTIALS[1:])
    assert not matches(PASSWORD, ())
    assert not matches(PASSWORD, ("{CRYPT}x", "$argon2id$nonsense", "{SCRAM-SHA-256}1:2"))


def test_the_hash_decides_where_both_are_stored() -> None:
    other = credentials_for("other", CHEAP)
    assert not matches("other", (CREDENTIALS[0], other[1]))


def test_forms_of_one_password_are_one() -> None:
    stored = credentials_for("Ⅸ\u00adé", CHEAP)
    assert matches("IXe\u0301", stored)


@pytest.mark.parametrize("text", ["", "\u00ad", "\x00", "a\tb", "é" * 600, "\ud800"])
def test_not_a_password(text: str) -> None:
    with pytest.raises(ValueError):
        prepare(text)


@pytest.mark.parametrize(
    "text",
    ["", "{SCRAM-SHA-256}", "{SCRAM-SHA-256}x:QQ==:QQ==:QQ==", "{SCRAM-SHA-256}4096:QQ==:QQ==:QQ==", CREDENTIALS[0]],
    ids=["nothing", "name", "no-number", "short", "argon2"],  # a hash has another salt in every process
)
def test_not_scram_keys(text: str) -> None:
    with pytest.raises(ValueError):
        ScramKeys.parse(text)


def test_keys_of_rfc_7677() -> None:
    import base64

    keys = scram_keys(b"pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096)
    assert base64.b64encode(keys.stored_key) == b"WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
    assert base64.b64encode(keys.server_key) == b"wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="


# --- the verifier


def verifier(**settings: float) -> tuple[PasswordVerifier, Counting, Clock]:
    clock, threads = Clock(), Counting()
    return PasswordVerifier(threads, clock, CHEAP, **settings), threads, clock  # type: ignore[arg-type]  # counts or seconds


def test_a_recent_success_is_not_hashed_again() -> None:
    verify, threads, clock = verifier(remember_seconds=300)
    for _ in range(3):
        assert now(verify.verify("ann", PASSWORD, CREDENTIALS)).right
    assert len(threads.calls) == 1
    clock.advance(301)
    assert now(verify.verify("ann", PASSWORD, CREDENTIALS)).right
    assert len(threads.calls) == 2


def test_only_the_same_name_password_and_credentials_are_remembered() -> None:
    verify, threads, _ = verifier()
    now(verify.verify("ann", PASSWORD, CREDENTIALS))
    assert not now(verify.verify("ann", PASSWORD + "x", CREDENTIALS)).right
    assert not now(verify.verify("ann", PASSWORD, credentials_for("new", CHEAP))).right
    assert now(verify.verify("bob", PASSWORD, CREDENTIALS)).right
    assert len(threads.calls) == 4


def test_failures_are_not_remembered() -> None:
    verify, threads, _ = verifier()
    for _ in range(2):
        assert not now(verify.verify("ann", "wrong", CREDENTIALS)).right
    assert len(threads.calls) == 2


def test_remembering_is_bounded_and_can_be_off() -> None:
    verify, threads, _ = verifier(remember_count=2)
    for name in ("a", "b", "c", "a"):
        now(verify.verify(name, PASSWORD, CREDENTIALS))
    assert len(threads.calls) == 4
    off, threads, _ = verifier(remember_seconds=0)
    for _ in range(2):
        now(off.verify("ann", PASSWORD, CREDENTIALS))
    assert len(threads.calls) == 2


@pytest.mark.parametrize("stored", [None, ()])
@pytest.mark.parametrize("password", [PASSWORD, "", "\0", "x" * 5000])
def test_nobody_is_hashed_too(stored: tuple[str, ...] | None, password: str) -> None:
    verify, threads, _ = verifier()
    assert not now(verify.verify("", password, stored)).right
    assert threads.calls == ["_matches"]
    assert [credential.partition("v=")[0] for credential in threads.arguments[0][1]] == ["$argon2id$"]


def test_the_hash_of_nobody_is_worked_on_and_not_only_refused() -> None:
    from argon2 import PasswordHasher
    from argon2.exceptions import VerifyMismatchError

    verify, _, _ = verifier()
    with pytest.raises(VerifyMismatchError):
        PasswordHasher().verify(verify._nobody, b"x")


def test_a_queue_that_is_too_long_is_refused() -> None:
    waiting: list[Deferred[bool]] = []

    def defer(call: object, *arguments: object) -> Deferred[bool]:
        waiting.append(Deferred())
        return waiting[-1]

    verify = PasswordVerifier(defer, Clock(), CHEAP, waiting_most=2)
    results: list[object] = []
    for _ in range(2):
        Deferred.fromCoroutine(verify.verify("ann", PASSWORD, CREDENTIALS)).addBoth(results.append)
    with pytest.raises(TooBusy):
        now(verify.verify("ann", PASSWORD, CREDENTIALS))
    waiting[0].callback(True)
    assert len(results) == 1
    Deferred.fromCoroutine(verify.verify("bob", PASSWORD, CREDENTIALS)).addBoth(results.append)
    assert len(waiting) == 3


def test_a_login_renews_what_was_stored_with_other_parameters() -> None:
    dearer = PasswordParameters(memory_kib=128, passes=1, scram_iterations=5000)
    town = Town(parameters=dearer)
    assert town.login() == Identity(ANN, "ann@example.org")
    record = now(town.directory.account(ANN))
    assert record is not None
    assert record.credentials[0].startswith("$argon2id$v=19$m=128,")
    assert record.credentials[1].startswith("{SCRAM-SHA-256}5000:")
    assert town.login() == Identity(ANN, "ann@example.org")
    assert now(town.directory.account(ANN)) == record


def test_setting_a_password_ends_the_old_one() -> None:
    town = Town()
    town.login()
    now(set_password(town.directory, town.verifier, ANN, "fresh"))
    assert town.login() == "credentials"
    assert town.login(password="fresh") == Identity(ANN, "ann@example.org")
    with pytest.raises(NotFound):
        now(set_password(town.directory, town.verifier, AccountId(b"?" * 16), "fresh"))
    with pytest.raises(ValueError):
        now(set_password(town.directory, town.verifier, ANN, ""))


class ThreadTests(TestCase):
    async def test_hashing_happens_in_another_thread(self) -> None:
        from twisted.internet import reactor

        threads = Threads(reactor, 2, "passwords")
        self.addCleanup(threads.stop)
        assert await threads.defer(threading.get_ident) != threading.get_ident()
        verify = PasswordVerifier(threads.defer, reactor, CHEAP)
        assert (await verify.verify("ann", PASSWORD, CREDENTIALS)).right
