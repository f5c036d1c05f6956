"""Which message an action takes where a script has changed it: the one that there was when the action was come to (RFC 5293
section 6), beside what Pigeonhole stores and sends for the same scripts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sieve.corpus import MESSAGES
from tests.sieve.pigeonhole import Pigeonhole
from tests.sieve.scripts import environment, run
from twisted_mail.sieve import Message, Outcome, RunLimits, compile_script
from twisted_mail.sieve.entity import shown
from twisted_mail.sieve.values import FileInto, Keep, Redirect, Reject, Vacation

REQUIRE = 'require ["editheader", "fileinto", "copy", "mailbox", "imap4flags", "reject", "vacation", "foreverypart"];\n'
BARE = MESSAGES["bare"]


def taken(outcome: Outcome, came: bytes) -> dict[str, list[bytes]]:
    """The octets that each mailbox and each address gets."""
    assert outcome.error is None, outcome.error
    found: dict[str, list[bytes]] = {}
    for number, action in enumerate(outcome.actions):
        version = outcome.rewritten.get(number)
        octets = came if version is None else shown(version.pieces, came, 1 << 30)
        assert version is None or version.size == len(octets)
        match action:
            case Keep():
                found.setdefault("INBOX", []).append(octets)
            case FileInto(mailbox=name):
                found.setdefault(name, []).append(octets)
            case Redirect(address=address):
                found.setdefault(address, []).append(octets)
    return found


def after(script: str, came: bytes = BARE) -> dict[str, list[bytes]]:
    return taken(compile_script(REQUIRE + script).run(Message(came), environment()), came)


SCRIPTS = [
    'fileinto :create "a"; addheader "X-One" "1"; fileinto :create "b";',
    'addheader "X-One" "1"; fileinto :create "a"; addheader "X-Two" "2"; fileinto :create "b"; deleteheader "X-One"; keep;',
    'keep; addheader "X-Flavor" "vanilla"; keep;',
    'fileinto :copy :create "a"; addheader "X-Flavor" "vanilla";',
    'fileinto :create "a"; addheader "X-One" "1"; fileinto :create "b"; addheader "X-Two" "2"; fileinto :create "a";',
    'redirect :copy "one@example.org"; addheader "X-One" "1"; redirect :copy "two@example.org"; deleteheader "Subject";',
    'addheader "X-One" "1"; deleteheader "X-One"; fileinto :create "a";',
    'addheader :last "X-One" "1"; fileinto :create "a"; deleteheader "X-One"; fileinto :create "b";',
    'addheader "X-One" "1"; discard;',
    'if size :over 21 { addheader "X-Over" "yes"; } addheader "X-One" "1"; if size :over 25 { addheader "X-Grown" "yes"; }',
]  # fmt: skip


@pytest.fixture(scope="module")
def oracle() -> Iterator[Pigeonhole]:
    pigeonhole = Pigeonhole()
    yield pigeonhole
    pigeonhole.close()


@pytest.mark.parametrize("script", SCRIPTS)
def test_ours_and_pigeonhole_store_and_send_the_same_octets(script: str, oracle: Pigeonhole) -> None:
    assert after(script) == oracle.did(REQUIRE + script, BARE, "a@example.org", "b@example.org")


def test_each_mailbox_gets_the_message_as_it_was_when_its_fileinto_was_come_to() -> None:
    found = after('fileinto "a"; addheader "X-One" "1"; fileinto "b"; deleteheader "Subject"; fileinto "c";')
    assert found == {"a": [BARE], "b": [b"X-One: 1\r\n" + BARE], "c": [b"X-One: 1\r\n\r\nbody\r\n"]}


def test_what_is_as_it_came_is_not_written_anew() -> None:
    outcome = run(REQUIRE + 'addheader "X-One" "1"; deleteheader "X-One"; deleteheader "X-None"; fileinto "a"; keep;')
    assert outcome.rewritten == {}


def test_two_actions_behind_one_edit_take_one_and_the_same_version() -> None:
    outcome = run(REQUIRE + 'addheader "X-One" "1"; fileinto "a"; fileinto "b"; keep;')
    first, second, third = (outcome.rewritten[number] for number in range(3))
    assert first is second is third, "so that it is stored once"


def test_refusals_and_answers_are_made_of_the_message_that_came() -> None:
    """Section 6: what tells the sender something takes the original header."""
    outcome = run(REQUIRE + 'addheader "X-One" "1"; reject "no";')
    assert outcome.actions == (Reject("no"),) and outcome.rewritten == {}
    outcome = run(REQUIRE + 'addheader "X-One" "1"; vacation "away"; deleteheader "X-One"; keep;')
    assert isinstance(outcome.actions[0], Vacation) and outcome.rewritten == {}


def test_a_run_that_fails_keeps_the_message_as_it_came() -> None:
    outcome = run(REQUIRE + 'addheader "X-One" "1"; fileinto "a"; reject "no";')
    assert outcome.error is not None and outcome.actions == (Keep(),) and outcome.rewritten == {}


def test_what_delivery_has_put_in_front_stays_in_front() -> None:
    came = b"Return-Path: <a@example.org>\r\n" + BARE
    found = after('addheader "X-One" "1"; deleteheader "Return-Path"; addheader "Return-Path" "<x@example.org>";', came)
    assert found == {"INBOX": [b"Return-Path: <a@example.org>\r\nX-One: 1\r\n" + BARE]}


def test_of_a_large_message_only_the_header_is_written_anew() -> None:
    header = b"Subject: large\r\n\r\n"
    message = Message(header, 50_000_000)
    outcome = compile_script(REQUIRE + 'addheader "X-One" "1"; if size :over 50000009 { fileinto "a"; }').run(
        message, environment()
    )
    version = outcome.rewritten[0]
    assert version.size == 50_000_010 and version.pieces[0] == b"X-One: 1\r\n" + header


def test_versions_of_large_headers_are_bounded() -> None:
    came = b"X-Long: " + b"x" * 900 + b"\r\n\r\nbody\r\n"
    script = "".join(f'addheader "X-{number}" "1"; fileinto "{number}";' for number in range(20))
    assert run(REQUIRE + script, came).error is None
    outcome = run(REQUIRE + script, came, limits=RunLimits(rewritten_bytes=10_000))
    assert outcome.error is not None and "10000 octets" in outcome.error.text and outcome.actions == (Keep(),)


def test_a_header_of_which_not_all_is_known_is_edited_without_harm_to_the_rest() -> None:
    came = b"X-One: 1\r\n" + b"X-Long: " + b"x" * (1 << 20) + b"\r\nX-Two: 2\r\n\r\nbody\r\n"
    message = Message(came)
    script = 'addheader "X-First" "a"; addheader :last "X-Last" "b"; deleteheader "X-One"; deleteheader "X-Long"; keep;'
    outcome = compile_script(REQUIRE + script).run(message, environment())
    [octets] = taken(outcome, came)["INBOX"]
    assert octets == b"X-First: a\r\nX-Last: b\r\n" + came.removeprefix(b"X-One: 1\r\n")
