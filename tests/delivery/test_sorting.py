"""Where messages go: INBOX, mailboxes that scripts name, Junk; and what a delivery without a script costs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from tests.delivery.sorting_house import ANN, BOB, EVE, SortingHouse, SortingNode, a_copy, mail
from tests.delivery.support import PEER, run
from twisted_mail.delivery.items import ENVELOPE_BYTES, inbound_of, queue_item
from twisted_mail.delivery.judgement import Judgement, shortened
from twisted_mail.delivery.junk import junk_reason, read_list, read_threshold
from twisted_mail.delivery.scripts import ActiveScripts
from twisted_mail.delivery.sorting import clean_flags
from twisted_mail.filters.values import Action
from twisted_mail.services import Envelope
from twisted_mail.sieve import compile_script
from twisted_mail.storage.interfaces import Alias, ItemState
from twisted_mail.values import AccountId, BlobRef


@pytest.fixture
def house(tmp_path: Path) -> SortingHouse:
    return SortingHouse(tmp_path)


def boxes_after(house: SortingHouse, script: str, message: bytes = mail(), *, straight: bool = True) -> dict[str, int]:
    """Where *message* to Ann goes with *script*."""
    house.script(ANN, script)
    node = SortingNode(house, straight=straight)
    house.give(node, ANN, message=message)
    node.worker.start()
    house.go_on(1)
    assert house.items() == []
    return house.boxes(node, ANN)


BOTH_WAYS = pytest.mark.parametrize("straight", [True, False], ids=["straight", "queued"])


@BOTH_WAYS
@pytest.mark.parametrize(
    ("script", "boxes"),
    [
        ("keep;", {"INBOX": 1}),
        ("discard;", {}),
        ('require "fileinto"; fileinto "Archive";', {"Archive": 1}),
        ('require ["fileinto", "copy"]; fileinto :copy "Archive";', {"INBOX": 1, "Archive": 1}),
        ('require "fileinto"; fileinto "Archive"; fileinto "Archive"; keep;', {"INBOX": 1, "Archive": 1}),
        ('require "fileinto"; fileinto "Nowhere";', {"INBOX": 1}),
        ('require ["fileinto", "mailbox"]; fileinto :create "Lists/Python";', {"Lists/Python": 1}),
        ('require ["fileinto", "special-use"]; fileinto :specialuse "\\\\Trash" "Rubbish";', {"Trash": 1}),
        ('require ["fileinto", "special-use", "mailbox"]; fileinto :specialuse "\\\\All" :create "Every";', {"Every": 1}),
    ],
)
def test_scripts_file_messages(house: SortingHouse, script: str, boxes: dict[str, int], straight: bool) -> None:
    assert boxes_after(house, script, straight=straight) == boxes


@BOTH_WAYS
def test_flags_are_set_and_edits_are_stored(house: SortingHouse, straight: bool) -> None:
    house.script(
        ANN,
        """require ["imap4flags", "editheader", "fileinto"];
        addheader "X-Sorted" "yes"; deleteheader "Subject"; deleteheader "Received";
        fileinto :flags ["\\\\Seen", "$Work"] "Archive";""",
    )
    node = SortingNode(house, straight=straight)
    house.give(node, ANN, message=mail(body="text\r\n" * 5))
    node.worker.start()
    house.go_on(1)
    [(octets, flags)] = house.messages(node, ANN, "Archive")
    assert sorted(flags) == ["$Work", "\\Seen"]
    header, _, body = octets.partition(b"\r\n\r\n")
    assert header.startswith(b"Return-Path: <a@b.example>\r\nX-Sorted: yes\r\nReceived: ")
    assert b"Subject" not in header and body == b"text\r\n" * 5


def test_a_body_is_shown_to_scripts_that_look_at_it_also_when_it_is_long(house: SortingHouse) -> None:
    script = 'require ["body", "fileinto"]; if body :contains "needle" { fileinto "Archive"; }'
    long = "hay\r\n" * 60_000
    assert boxes_after(house, script, mail(body=long + "needle\r\n")) == {"Archive": 1}
    assert boxes_after(house, script, mail(body=long + "\r\n")) == {"Archive": 1, "INBOX": 1}


def test_a_script_sees_the_envelope_and_who_sent_it(house: SortingHouse) -> None:
    house.script(
        ANN,
        """require ["envelope", "subaddress", "fileinto", "environment"];
        if allof (envelope :is "from" "eve@elsewhere.example", envelope :detail "to" "tag",
                  environment "remote-ip" "192.0.2.1", environment "host" "mx.example.org") { fileinto "Archive"; }""",
    )
    node = SortingNode(house)
    house.judged(node, "ann+tag@example.org", mail(), Judgement(peer="192.0.2.1"))
    assert house.boxes(node, ANN) == {"Archive": 1}


def test_a_script_sees_what_dsn_and_deliverby_add_to_the_envelope(house: SortingHouse) -> None:
    house.script(
        ANN,
        """require ["envelope", "envelope-dsn", "envelope-deliverby", "fileinto"];
        if allof (envelope "notify" "FAILURE", envelope "ret" "HDRS", envelope "envid" "abc", envelope "orcpt" "rfc822;x@y",
                  envelope :matches "bytimerelative" "30?", envelope "bymode" "N", envelope "bytrace" "T") { fileinto "Archive"; }""",
    )
    node = SortingNode(house, straight=False)
    recipient = run(
        node.intake.recipient(ANN, identity=None, original="rfc822;x@y", notify=frozenset(("FAILURE", "DELAY")))
    )
    envelope = Envelope(EVE, (recipient,), PEER, "x", "ESMTP", envelope_id="abc", dsn_return="HDRS", deliver_by=(301, "NT"))
    incoming = run(node.intake.begin(envelope))
    run(incoming.write(mail()))
    run(incoming.finish())
    node.worker.start()
    house.go_on(1)
    assert house.boxes(node, ANN) == {"Archive": 1}


def test_keep_means_the_mailbox_of_the_sub_address(house: SortingHouse) -> None:
    house.script(ANN, "keep;")
    node = SortingNode(house)
    house.give(node, "ann+archive@example.org", "ann+Archive@example.org")
    assert house.boxes(node, ANN) == {"Archive": 1, "INBOX": 1}


def test_scripts_may_include_others_of_the_account(house: SortingHouse) -> None:
    house.script(ANN, 'require "fileinto"; fileinto "Archive";', "rules", active=False)
    assert boxes_after(house, 'require "include"; include :personal "rules";') == {"Archive": 1}


# --- looking scripts up


def test_a_delivery_without_a_script_asks_the_directory_once_a_minute(house: SortingHouse) -> None:
    node = SortingNode(house)
    asked = node.directory._death.operations
    house.give(node, ANN)
    assert asked.count("scripts") == 1 and "script" not in asked
    for _ in range(5):
        house.give(node, ANN)
    assert asked.count("scripts") == 1
    house.go_on(60)
    house.give(node, ANN)
    assert asked.count("scripts") == 2


def test_a_delivery_costs_the_stores_no_more_than_without_sorting(house: SortingHouse) -> None:
    counted = []
    for make in (SortingNode, lambda house: SortingNode.__mro__[1](house)):
        node = make(house)
        house.give(node, BOB)
        before = [len(store._death.operations) for store in (node.log, node.messages, node.blobs, node.directory)]
        house.give(node, BOB)
        after = [len(store._death.operations) for store in (node.log, node.messages, node.blobs, node.directory)]
        counted.append([b - a for a, b in zip(before, after, strict=True)])
    assert counted[0] == counted[1]


def test_a_new_script_counts_at_once_where_it_is_said_and_soon_elsewhere(house: SortingHouse) -> None:
    told, other = SortingNode(house), SortingNode(house)
    for node in (told, other):
        house.give(node, ANN)
    house.script(ANN, "discard;")
    told.scripts.forget(house.people[ANN])
    for node in (told, other):
        house.give(node, ANN)
    assert house.boxes(told, ANN) == {"INBOX": 3}
    house.go_on(60)
    house.give(other, ANN)
    assert house.boxes(told, ANN) == {"INBOX": 3}


def test_a_long_script_is_compiled_once_in_a_thread_while_other_mail_goes_on(house: SortingHouse) -> None:
    house.script(ANN, "# " + "x" * 20_000 + '\nrequire "fileinto"; fileinto "Archive";')
    node = SortingNode(house)
    gate: Deferred[None] = Deferred()
    compiled: list[object] = []

    async def thread(call: Callable[[], None]) -> None:
        await gate
        call()
        compiled.append(call)

    node.scripts = ActiveScripts(node.directory, house.clock, compile_script, in_thread=thread)
    found: list[Any] = []
    for _ in range(3):
        Deferred.fromCoroutine(node.scripts.active(house.people[ANN])).addBoth(found.append)
    given_up = Deferred.fromCoroutine(node.scripts.active(house.people[ANN]))
    given_up.addErrback(lambda failure: None)
    given_up.cancel()
    assert found == [] and run(node.scripts.active(house.people[BOB])) is None
    gate.callback(None)
    assert len({active.version for active in found}) == 1 and len(found) == 3 and len(compiled) == 1
    assert run(node.scripts.active(house.people[ANN])) is not None and len(compiled) == 1


def test_compiled_scripts_are_kept_by_the_length_of_their_texts(house: SortingHouse) -> None:
    house.script(ANN, 'require "fileinto"; fileinto "Archive";')
    house.script(BOB, 'require "fileinto"; fileinto "Trash"; # ' + "x" * 100)
    compiled: list[str] = []

    def compiling(text: str, *, include: Any = None) -> Any:
        compiled.append("Archive" if "Archive" in text else "Trash")
        return compile_script(text, include=include)

    for most, times in ((10_000, 1), (120, 2)):
        compiled.clear()
        scripts = ActiveScripts(SortingNode(house).directory, house.clock, compiling, compiled=most)
        for address in (ANN, BOB, ANN, BOB):
            assert run(scripts.active(house.people[address])) is not None
        assert compiled.count("Archive") == times


def test_while_the_directory_is_down_the_script_of_a_while_ago_counts(house: SortingHouse) -> None:
    house.script(ANN, 'require "fileinto"; fileinto "Archive";')
    node = SortingNode(house, straight=False)
    house.give(node, ANN)
    node.worker.start()
    house.go_on(1)
    house.give(node, ANN)
    node.directory.mode, node.directory.only = "down", {"scripts", "script"}
    house.go_on(70)
    house.give(node, ANN)
    house.go_on(2)
    assert house.boxes(node, ANN) == {"Archive": 3}


def test_who_is_not_known_waits_in_the_queue_while_the_directory_is_down(house: SortingHouse) -> None:
    house.script(ANN, 'require "fileinto"; fileinto "Archive";')
    node = SortingNode(house)
    node.directory.mode, node.directory.only = "down", {"scripts", "script"}
    [outcome] = house.give(node, ANN)
    assert outcome.refused is None and len(house.items()) == 1 and house.boxes(node, ANN) == {}
    node.directory.mode = "up"
    node.worker.start()
    house.go_on(10)
    assert house.boxes(node, ANN) == {"Archive": 1} and house.items() == []


# --- scripts that fail


@pytest.mark.parametrize("straight", [True, False], ids=["straight", "queued"])
@pytest.mark.parametrize(
    "script",
    ['require "nonsense";', 'require ["include", "fileinto"]; fileinto "Archive"; include :personal "gone";'],
    ids=["compile", "run"],
)
def test_a_script_that_fails_delivers_to_inbox_and_its_owner_is_told_once(
    house: SortingHouse, script: str, straight: bool
) -> None:
    house.script(ANN, script)
    node, other = SortingNode(house, straight=straight), SortingNode(house, straight=straight)
    node.worker.start()
    for each in (node, other, node):
        house.give(each, ANN)
        house.go_on(1)
    messages = house.messages(node, ANN)
    told = [octets for octets, _ in messages if b"does not work" in octets]
    assert len(messages) == 4 and len(told) == 1
    assert b"Auto-Submitted: auto-generated" in told[0] and b"main" in told[0]
    assert any("failed" in line for line in node.story)
    house.script(ANN, script + " # changed")
    node.scripts.forget(house.people[ANN])
    house.give(node, ANN)
    house.go_on(1)
    assert len(house.messages(node, ANN)) == 6, "another version, another message"


def test_a_script_that_does_too_much_is_stopped(house: SortingHouse) -> None:
    house.script(ANN, "".join(f'if header :contains "subject" "x{n}" {{ discard; }}\n' for n in range(300)))
    node = SortingNode(house, steps=200)
    house.give(node, ANN)
    assert house.boxes(node, ANN) == {"INBOX": 2} and any("steps" in line for line in node.story)


# --- junk


SPAM = Judgement(action=Action.JUNK, score=7.0, by_score=True, percent=70)


def junked(house: SortingHouse, judgement: Judgement, **settings: str) -> dict[str, int]:
    node = SortingNode(house)
    for name, value in settings.items():
        house.set(node, ANN, f"junk.{name}", value)
    outcome = house.judged(node, ANN, mail(), judgement)
    assert outcome.refused is None
    return house.boxes(node, ANN)


def test_junk_goes_to_the_mailbox_for_it_with_its_flag(house: SortingHouse) -> None:
    assert junked(house, SPAM) == {"Junk": 1}
    node = SortingNode(house)
    [(_, flags)] = house.messages(node, ANN, "Junk")
    assert flags == ["$Junk"]


def test_a_mailbox_for_junk_is_made_if_there_is_none(house: SortingHouse) -> None:
    from twisted_mail.account.tree import DeleteMailbox

    node = SortingNode(house)
    account = run(node.accounts.open(house.people[ANN]))
    run(account.commit(DeleteMailbox(name="Junk")))
    house.judged(node, ANN, mail(), SPAM)
    house.judged(node, ANN, mail(), SPAM)
    assert house.boxes(node, ANN) == {"Junk": 2}
    assert account.state.mailbox("Junk").special_use == ("\\Junk",)


@pytest.mark.parametrize(
    ("judgement", "settings", "where"),
    [
        (SPAM, {}, "Junk"),
        (SPAM, {"threshold": "8"}, "INBOX"),
        (SPAM, {"threshold": "off"}, "INBOX"),
        (SPAM, {"threshold": "garbage"}, "Junk"),
        (Judgement(score=3.0), {"threshold": "2.5"}, "Junk"),
        (Judgement(score=3.0), {}, "INBOX"),
        (Judgement(action=Action.JUNK, score=0.0), {"threshold": "8"}, "Junk"),
        (SPAM, {"allow": "eve@elsewhere.example"}, "INBOX"),
        (SPAM, {"allow": "@ELSEWHERE.example, x@y"}, "INBOX"),
        (SPAM, {"allow": "@example"}, "Junk"),
        (SPAM, {"allow": "mal@elsewhere.example"}, "Junk"),
        (Judgement(), {"block": "@elsewhere.example"}, "Junk"),
        (Judgement(), {"block": "eve@elsewhere.example"}, "Junk"),
        (Judgement(), {"block": "@elsewhere.example", "allow": "eve@elsewhere.example"}, "INBOX"),
        (
            Judgement(action=Action.JUNK, score=9, author_domain=""),
            {"allow": "eve@elsewhere.example"},
            "Junk",
        ),
        (
            Judgement(action=Action.JUNK, score=9, author_domain="elsewhere.example"),
            {"allow": "eve@elsewhere.example"},
            "INBOX",
        ),
        (
            Judgement(action=Action.JUNK, score=9, author_domain="other.example"),
            {"allow": "eve@elsewhere.example"},
            "Junk",
        ),
    ],
)
def test_an_account_has_its_own_idea_of_junk(
    house: SortingHouse, judgement: Judgement, settings: dict[str, str], where: str
) -> None:
    assert junked(house, judgement, **settings) == {where: 1}


def test_blocked_senders_are_junk_without_any_filter(house: SortingHouse) -> None:
    node = SortingNode(house)
    house.set(node, ANN, "junk.block", "@b.example")
    house.give(node, ANN, message=mail(sender="else@else.example"))  # its reverse-path is a@b.example
    assert house.boxes(node, ANN) == {"Junk": 1}


def test_junk_is_shown_only_to_scripts_that_ask_for_spam(house: SortingHouse) -> None:
    node = SortingNode(house)
    house.script(ANN, 'require "fileinto"; fileinto "Archive";')
    house.judged(node, ANN, mail(), SPAM)
    assert house.boxes(node, ANN) == {"Junk": 1}
    house.script(
        ANN,
        """require ["spamtestplus", "fileinto", "relational", "comparator-i;ascii-numeric"];
        if spamtest :percent :value "ge" :comparator "i;ascii-numeric" "60" { fileinto "Archive"; }""",
    )
    node.scripts.forget(house.people[ANN])
    house.judged(node, ANN, mail(), SPAM)
    house.judged(node, ANN, mail(), Judgement(percent=10))
    assert house.boxes(node, ANN) == {"Junk": 1, "Archive": 1, "INBOX": 1}


def test_junk_on_which_a_script_fails_stays_junk(house: SortingHouse) -> None:
    house.script(ANN, 'require ["spamtest", "include"]; if spamtest :is "1" { keep; } include :personal "gone";')
    node = SortingNode(house)
    house.judged(node, ANN, mail(), SPAM)
    assert house.boxes(node, ANN) == {"Junk": 1, "INBOX": 1}, "and the owner is told"


@pytest.mark.parametrize("straight", [True, False], ids=["straight", "queued"])
def test_what_is_in_quarantine_gets_into_no_mailbox(house: SortingHouse, straight: bool) -> None:
    node = SortingNode(house, straight=straight)
    outcome = house.judged(node, ANN, mail(), Judgement(action=Action.QUARANTINE, trace=("it has a virus",)))
    assert outcome.refused is None
    node.worker.start()
    house.go_on(2)
    [status] = house.items()
    assert status.state is ItemState.HELD and "quarantined: it has a virus" in status.item.last_reply
    assert house.boxes(node, ANN) == {} and status.item.attempts == 1


def test_a_judgement_goes_with_a_queued_message_and_fits_into_its_item(house: SortingHouse) -> None:
    house.script(ANN, 'require ["virustest", "fileinto"]; if virustest :is "5" { fileinto "Archive"; }')
    node = SortingNode(house, straight=False)
    lines = tuple("a line that says what a filter has found, number " + str(n) for n in range(1000))
    house.judged(node, ANN, mail(), Judgement(virus=5, trace=lines, helo="x" * 5000))
    node.worker.start()
    house.go_on(1)
    assert house.boxes(node, ANN) == {"Archive": 1}


def test_an_item_has_room_for_the_judgement_whatever_is_in_it() -> None:
    wide = "\U0001f4ee" * 2000
    judgement = Judgement(
        trace=(wide,) * 50, helo=wide, host=wide, login=wide, author_domain=wide, pending=("clamav",) * 100,
        envelope={f"name{n}": wide for n in range(20)},
    )  # fmt: skip
    copy = replace(a_copy(AccountId.new(), judgement=judgement), detail="x" * 64)
    item = queue_item(copy, BlobRef("0" * 64, 1), sender=EVE, received=1, repeated=False, place="blobs", created=1.0)
    found = inbound_of(item).judgement
    assert len(item.envelope) <= ENVELOPE_BYTES and found is not None and found.pending == ("clamav",) * 16


@given(st.lists(st.text(max_size=600), max_size=30), st.text(max_size=3000))
def test_a_shortened_judgement_is_short(lines: list[str], helo: str) -> None:
    found = shortened(Judgement(trace=tuple(lines), helo=helo))
    assert sum(len(line.encode("utf-8", "replace")) for line in found.trace) <= 2048 + 8
    assert len(found.helo) <= 255


def test_lists_and_thresholds_are_checked_when_they_are_set() -> None:
    assert read_list("A@Example.ORG,\n @b.example  @BÜCHER.example") == {
        "a@example.org",
        "@b.example",
        "@xn--bcher-kva.example",
    }
    for bad in ("nonsense", "a@", "x y@z"):
        with pytest.raises(ValueError):
            read_list(bad)
    assert (read_threshold("5.5"), read_threshold("OFF")) == (5.5, float("inf"))
    for bad in ("", "much", "nan"):
        with pytest.raises(ValueError):
            read_threshold(bad)
    assert junk_reason({"junk.allow": "nonsense"}, SPAM, EVE, mail())[0], "a broken list lets nothing through"


def test_flags_that_imap_cannot_have_are_left_out() -> None:
    assert clean_flags(["\\Seen", "$Ok", "\\Odd", "two words", "ümlaut", "", "a]b", "\\Recent"]) == ("\\Seen", "$Ok")


def test_an_alias_of_several_sorts_for_each(house: SortingHouse) -> None:
    run(house.engine.directory.add_alias(Alias("both@example.org", (ANN, BOB))))
    house.script(ANN, 'require "fileinto"; fileinto "Archive";')
    house.script(BOB, "discard;")
    node = SortingNode(house)
    house.give(node, "both@example.org")
    assert (house.boxes(node, ANN), house.boxes(node, BOB)) == ({"Archive": 1}, {})


def test_the_scripts_in_the_documents_compile() -> None:
    text = (Path(__file__).parents[2] / "docs/how-to/junk-and-vacation.md").read_text()
    scripts = re.findall(r"```sieve\n(.*?)```", text, re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        compile_script(script)


@BOTH_WAYS
def test_each_mailbox_gets_the_version_that_its_fileinto_was_come_to_with(house: SortingHouse, straight: bool) -> None:
    """RFC 5293 section 6; one entry, and one row for each version."""
    house.script(
        ANN,
        """require ["editheader", "fileinto", "mailbox"];
        fileinto "Archive"; addheader "X-One" "1"; fileinto :create "b"; fileinto :create "c"; deleteheader "X-One"; keep;""",
    )
    node = SortingNode(house, straight=straight)
    house.give(node, ANN, message=mail(body="text\r\n" * 5))
    node.worker.start()
    house.go_on(1)
    assert house.boxes(node, ANN) == {"Archive": 1, "b": 1, "c": 1, "INBOX": 1}
    came, one, two, last = [house.messages(node, ANN, name)[0][0] for name in ("Archive", "b", "c", "INBOX")]
    assert came == last and one == two and b"X-One" not in came
    assert one.replace(b"\r\nX-One: 1\r\n", b"\r\n") == came
    for name in ("Archive", "b"):
        assert house.messages(node, ANN, name)[0][0].startswith(b"Return-Path: <a@b.example>\r\n")


def test_two_versions_for_one_mailbox_are_one_message(house: SortingHouse) -> None:
    """Mailboxes that are not there mean INBOX; what is named first counts."""
    house.script(ANN, 'require ["editheader", "fileinto"]; fileinto "None"; addheader "X-One" "1"; fileinto "Nowhere";')
    node = SortingNode(house)
    house.give(node, ANN)
    [(octets, _)] = house.messages(node, ANN, "INBOX")
    assert b"X-One" not in octets


def test_a_large_message_loses_an_attachment_and_nothing_else(house: SortingHouse) -> None:
    house.script(
        ANN,
        """require ["foreverypart", "mime", "replace"];
        foreverypart { if header :mime :param "filename" :matches "Content-Disposition" "*.exe" { replace "removed"; } }""",
    )
    front = ("MIME-Version: 1.0", 'Content-Type: multipart/mixed; boundary="b"')
    part = "--b\r\nContent-Disposition: attachment; filename={}\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n"
    first, second = "QUJD" * 15 + "\r\n", "REVG" * 15 + "\r\n"
    body = part.format("a.pdf", first * 30_000) + part.format("b.exe", second * 30_000) + part.format("c.pdf", "QQ==") + "--b--\r\n"
    node = SortingNode(house)
    house.give(node, ANN, message=mail(*front, body=body))
    [(octets, _)] = house.messages(node, ANN, "INBOX")
    assert octets.partition(b"\r\n\r\n")[2].decode() == body.replace(
        part.format("b.exe", second * 30_000).removeprefix("--b\r\n").removesuffix("\r\n"),
        "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\nremoved",
    )
