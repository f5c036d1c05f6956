"""mailbox and the metadata tests (RFC 5490), special-use (RFC 8579), mailboxid (RFC 9042)."""

from __future__ import annotations

import pytest

from tests.sieve.scripts import A, fails
from twisted_mail.sieve import Message, Outcome, RunEnvironment, compile_script
from twisted_mail.sieve.values import FileInto, Reject, Vacation

ALL = "fileinto mailbox mboxmetadata servermetadata special-use mailboxid variables relational reject vacation copy"
REQUIRE = "require [" + ", ".join(f'"{name}"' for name in ALL.split()) + "];\n"


class Mailboxes:
    """Those of somebody with a few folders."""

    def exists(self, name: str) -> bool:
        return name in ("INBOX", "Partners", "Spam", "Archive")

    def id_exists(self, mailbox_id: str) -> bool:
        return mailbox_id == "F6352ae03-b7f5-463c-896f-d8b48ee3"

    def special_use_exists(self, use: str, name: str | None = None) -> bool:
        uses = {"Spam": {"\\junk"}, "Archive": {"\\archive", "\\all"}}
        return any(use.lower() in found for box, found in uses.items() if name in (None, box))

    def metadata(self, name: str | None, entry: str) -> str | None:
        return {
            ("INBOX", "/private/vendor/vendor.isode/auto-replies"): "on",
            ("INBOX", "/private/comment"): "",
            (None, "/private/vendor/vendor.isode/notification-uri"): "mailto:x@example.org",
        }.get((name, entry))


def run(text: str) -> Outcome:
    outcome = compile_script(REQUIRE + text).run(Message(A), RunEnvironment(mailboxes=Mailboxes()))
    assert outcome.error is None, outcome.error
    return outcome


def holds(test: str) -> bool:
    return run(f'if {test} {{ fileinto "yes"; }}').actions == (FileInto("yes"),)


def test_the_examples_of_rfc_5490() -> None:
    text = 'if mailboxexists "Partners" { fileinto "Partners"; } else { reject "not accepted by the Mailstore"; }'
    assert run(text).actions == (FileInto("Partners"),)
    assert run(text.replace("Partners", "Nowhere")).actions == (Reject("not accepted by the Mailstore"),)
    text = """if metadata :is "INBOX" "/private/vendor/vendor.isode/auto-replies" "on" {
        vacation text:
I'm away on holidays till March 2009.
Expect a delay.
.
;   }"""
    assert isinstance(run(text).actions[0], Vacation)
    text = """if servermetadata :matches "/private/vendor/vendor.isode/notification-uri" "*" { set "notif_uri" "${0}"; }
        if not string :is "${notif_uri}" "none" { fileinto "${notif_uri}"; }"""
    assert run(text).actions == (FileInto("mailto:x@example.org"),)


@pytest.mark.parametrize(
    ("test", "true"),
    [
        ('mailboxexists "INBOX"', True),
        ('mailboxexists ["INBOX", "Partners"]', True),
        ('mailboxexists ["INBOX", "Nowhere"]', False),
        ('metadata "INBOX" "/private/comment" ""', True),
        ('metadata "INBOX" "/PRIVATE/Comment" ""', True),
        ('metadata "INBOX" "/private/nothing" ""', False),
        ('metadata :contains "INBOX" "/private/nothing" ""', False),
        ('metadata :count "eq" "INBOX" "/private/nothing" "0"', True),
        ('metadata :matches "INBOX" "/private/vendor/vendor.isode/auto-replies" ["off", "O?"]', True),
        ('metadataexists "INBOX" ["/private/comment"]', True),
        ('metadataexists "INBOX" ["/private/comment", "/private/nothing"]', False),
        ('metadataexists "Nowhere" "/private/comment"', False),
        ('servermetadata "/private/vendor/vendor.isode/notification-uri" "mailto:x@example.org"', True),
        ('servermetadata "/private/comment" ""', False),
        ('servermetadataexists "/private/vendor/vendor.isode/notification-uri"', True),
        ('servermetadataexists ["/private/vendor/vendor.isode/notification-uri", "/shared/admin"]', False),
        (r'specialuse_exists "\\Junk"', True),
        (r'specialuse_exists "\\JUNK"', True),
        (r'specialuse_exists ["\\Junk", "\\Archive"]', True),
        (r'specialuse_exists ["\\Junk", "\\Trash"]', False),
        (r'specialuse_exists "Spam" "\\Junk"', True),
        (r'specialuse_exists "Archive" ["\\Archive", "\\All"]', True),
        (r'specialuse_exists "Partners" "\\Junk"', False),
        (r'specialuse_exists "Nowhere" "\\Junk"', False),
        ('mailboxidexists "F6352ae03-b7f5-463c-896f-d8b48ee3"', True),
        ('mailboxidexists ["F6352ae03-b7f5-463c-896f-d8b48ee3", "Fnosuch"]', False),
    ],
)
def test_what_there_is(test: str, true: bool) -> None:
    assert holds(test) is true


def test_where_a_message_goes_may_be_said_in_several_ways() -> None:
    assert run('fileinto :create "Partners/new";').actions == (FileInto("Partners/new", create=True),)
    assert run(r'fileinto :specialuse "\\Junk" "Spam";').actions == (FileInto("Spam", special_use="\\Junk"),)
    assert run('fileinto :mailboxid "Fnosuch" :create "INBOX/harassment";').actions == (
        FileInto("INBOX/harassment", create=True, mailbox_id="Fnosuch"),
    )
    assert run(r'fileinto :copy :specialuse "\\Archive" :create "Archive";').actions[0] == FileInto(
        "Archive", create=True, special_use="\\Archive"
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (r'fileinto :specialuse "Junk" "x";', "no special use"),
        (r'fileinto :specialuse "\\" "x";', "no special use"),
        (r'fileinto :specialuse "\\a b" "x";', "no special use"),
        (r'fileinto :specialuse "\\Junk" :mailboxid "x" "x";', "exclude each other"),
        (r'if specialuse_exists "Junk" { keep; }', "no special use"),
        (r'if specialuse_exists { keep; }', "lacks"),
        (r"if mailboxexists 3 { keep; }", "expected"),
        (r'if metadata "a" "b" { keep; }', "lacks"),
    ],
)
def test_what_makes_no_sense_is_an_error(text: str, why: str) -> None:
    assert why in fails(REQUIRE + text).text


@pytest.mark.parametrize(
    ("capability", "text"),
    [
        ("mailbox", 'if mailboxexists "a" { keep; }'),
        ("mailbox", 'fileinto :create "a";'),
        ("special-use", r'fileinto :specialuse "\\Junk" "a";'),
        ("special-use", r'if specialuse_exists "\\Junk" { keep; }'),
        ("mailboxid", 'fileinto :mailboxid "a" "a";'),
        ("mailboxid", 'if mailboxidexists "a" { keep; }'),
        ("mboxmetadata", 'if metadata "a" "b" "c" { keep; }'),
        ("mboxmetadata", 'if metadataexists "a" "b" { keep; }'),
        ("servermetadata", 'if servermetadata "b" "c" { keep; }'),
        ("servermetadata", 'if servermetadataexists "b" { keep; }'),
    ],
)
def test_each_needs_its_capability(capability: str, text: str) -> None:
    assert f'require "{capability}"' in fails('require "fileinto"; ' + text).text


def test_a_use_that_turns_out_to_be_none_makes_the_run_fail() -> None:
    text = REQUIRE + r'set "u" "Junk"; if specialuse_exists "${u}" { discard; }'
    assert compile_script(text).run(Message(A), RunEnvironment(mailboxes=Mailboxes())).error is not None
