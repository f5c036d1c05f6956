"""The same scripts and messages through ours and through Debian's Pigeonhole, whose ``sieve-test`` says what it would do."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.sieve.corpus import MESSAGES, Pair
from tests.sieve.corpus_extensions import EXTENSIONS
from tests.sieve.corpus_language import LANGUAGE
from tests.sieve.pigeonhole import Pigeonhole, said_by_us
from twisted_mail.sieve import Message, RunEnvironment, SieveError, compile_script


class Inbox:
    """What `sieve-test` finds: INBOX, and nothing else."""

    def exists(self, name: str) -> bool:
        return name == "INBOX"

    def id_exists(self, mailbox_id: str) -> bool:
        return False

    def special_use_exists(self, use: str, name: str | None = None) -> bool:
        return False

    def metadata(self, name: str | None, entry: str) -> str | None:
        return None


@pytest.fixture(scope="module")
def oracle() -> Iterator[Pigeonhole]:
    pigeonhole = Pigeonhole()
    yield pigeonhole
    pigeonhole.close()


def ours(pair: Pair) -> list[str]:
    octets = MESSAGES[pair.message]
    message = Message(octets)
    score = message.values("x-spam-score")
    environment = RunEnvironment(
        mailboxes=Inbox(),
        envelope_from=pair.sender,
        envelope_to=pair.recipient,
        user=pair.recipient,
        now=1_783_324_800.0,
        items={"phase": "post", "location": "MS", "name": "x", "version": "1"},
        spam_percent=float(score[0]) * 10 if score else None,
        virus=1 if message.values("x-virus") == ("clean",) else 0,
    )
    try:
        script = compile_script(pair.script)
    except SieveError:
        return ["invalid"]
    return said_by_us(script.run(message, environment))


@pytest.mark.parametrize("pair", LANGUAGE + EXTENSIONS, ids=lambda pair: pair.name)
def test_ours_and_pigeonhole_do_the_same(pair: Pair, oracle: Pigeonhole) -> None:
    name = re.sub(r"[^a-z]+", "-", pair.name.lower())[:40]
    theirs = oracle.said(name, pair.script, MESSAGES[pair.message], pair.sender, pair.recipient)
    if pair.ours is None:
        assert ours(pair) == theirs
    else:
        assert ours(pair) == list(pair.ours), pair.why
        assert theirs != list(pair.ours), f"it agrees by now: {pair.why}"
