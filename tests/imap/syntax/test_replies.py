"""Printing: strings, dates, codes, and every untagged response against the RFCs' own lines."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.imap.syntax.reading import read
from twisted_mail.account.errors import (
    AccountError,
    AccountUnavailable,
    MailboxExists,
    NoSuchMailbox,
    OutcomeUnknown,
    Refused,
)
from twisted_mail.imap import codes, printing, replies
from twisted_mail.imap.commands.append import Append
from twisted_mail.imap.commands.mailbox import Delete
from twisted_mail.imap.cursor import Cursor, InternalDate
from twisted_mail.imap.syntax import CommandLine, Modes


def test_strings() -> None:
    assert printing.string(b"") == b'""'
    assert printing.string(b"a b") == b'"a b"'
    assert printing.string(b'say "\\"') == b'"say \\"\\\\\\""'
    assert printing.string(b"two\r\nlines") == b"{10}\r\ntwo\r\nlines"
    assert printing.string(b"\xc3\xa4") == b"{2}\r\n\xc3\xa4"
    assert printing.string(b"\xc3\xa4", utf8=True) == b'"\xc3\xa4"'
    assert printing.string(b"\xe4", utf8=True) == b"{1}\r\n\xe4"
    assert printing.string(b"a\0") == b"{2}\r\na\x80"
    assert printing.string(b"x" * 1025) == b"{1025}\r\n" + b"x" * 1025
    assert printing.literal(b"a\0", binary=True) == b"~{2}\r\na\0"
    assert printing.nstring(None) == b"NIL"
    assert printing.nstring(b"NIL") == b'"NIL"'


def test_astrings() -> None:
    for plain in (b"INBOX", b"a/b", b"a]", b"&AOQ-", b"[x]", b"a+b"):
        assert printing.astring(plain) == plain
    for special in (b"", b"a b", b"a%", b"(a)", b"nil", b"NIL", b"{1}"):
        assert printing.astring(special) == b'"' + special + b'"'


def test_quoting_refuses_what_cannot_be_quoted() -> None:
    for octets in (b"a\r", b"\n", b"\0"):
        with pytest.raises(ValueError):
            printing.quoted(octets)


@settings(max_examples=200, deadline=None)
@given(octets=st.binary(max_size=40), utf8=st.booleans())
def test_strings_are_read_as_they_were_printed(octets: bytes, utf8: bool) -> None:
    for print_it in (printing.string, printing.astring):
        wire = print_it(octets, utf8=utf8)
        if wire.startswith(b"{"):
            announcement, _, rest = wire.partition(b"\r\n")
            cursor = Cursor(CommandLine(announcement + b"\r\n", (rest,)), Modes())
        else:
            cursor = Cursor(CommandLine(wire), Modes())
        assert cursor.astring() == octets.replace(b"\0", b"\x80")
        cursor.end()


@settings(max_examples=100, deadline=None)
@given(name=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20), utf8=st.booleans())
def test_mailboxes_are_read_as_they_were_printed(name: str, utf8: bool) -> None:
    if name.upper() == "INBOX":
        return
    assert read(b"DELETE " + printing.mailbox(name, utf8=utf8), Modes(utf8=utf8)) == Delete(name)


def test_dates() -> None:
    assert printing.date_time(InternalDate(837596665, -420)) == b'"17-Jul-1996 02:44:25 -0700"'
    assert printing.date_time(InternalDate(0, 0)) == b'" 1-Jan-1970 00:00:00 +0000"'
    assert printing.date_time(InternalDate(0, -1)) == b'"31-Dec-1969 23:59:00 -0001"'
    assert printing.date_time(InternalDate(10**15, 0)).startswith(b'"31-Dec-9999')
    assert printing.date_time(InternalDate(-(10**15), 0)) == b'" 1-Jan-0001 00:00:00 +0000"'


@settings(max_examples=200, deadline=None)
@given(seconds=st.integers(-62_000_000_000, 253_000_000_000), zone=st.integers(-1439, 1439))
def test_dates_are_read_as_they_were_printed(seconds: int, zone: int) -> None:
    command = read(b"APPEND x " + printing.date_time(InternalDate(seconds, zone)) + b" {0+}\r\n")
    assert isinstance(command, Append)
    assert command.messages[0].date == InternalDate(seconds, zone)


def test_conditions() -> None:
    assert replies.ok("LOGIN completed").tagged(b"a001") == b"a001 OK LOGIN completed\r\n"
    assert replies.bye("Logging out").untagged() == b"* BYE Logging out\r\n"
    assert replies.bad("two\r\nlines").tagged(None) == b"* BAD two  lines\r\n"
    assert replies.no("").tagged(b"a1") == b"a1 NO .\r\n"
    assert replies.no("Nein", codes.TRYCREATE).tagged(b"A3") == b"A3 NO [TRYCREATE] Nein\r\n"
    assert replies.Condition("PREAUTH", "hello").untagged() == b"* PREAUTH hello\r\n"


@pytest.mark.parametrize(
    ("code", "printed"),
    [
        (codes.READ_WRITE, b"[READ-WRITE]"),
        (codes.UNKNOWN_CTE, b"[UNKNOWN-CTE]"),
        (codes.uid_validity(3857529045), b"[UIDVALIDITY 3857529045]"),
        (codes.uid_next(4392), b"[UIDNEXT 4392]"),
        (codes.unseen(12), b"[UNSEEN 12]"),
        (codes.permanent_flags(["\\Deleted", "\\Seen", "\\*"]), b"[PERMANENTFLAGS (\\Deleted \\Seen \\*)]"),
        (codes.permanent_flags([]), b"[PERMANENTFLAGS ()]"),
        (codes.highest_modseq(715194045007), b"[HIGHESTMODSEQ 715194045007]"),
        (codes.append_uid(38505, [(3955, 3955)]), b"[APPENDUID 38505 3955]"),
        (codes.append_uid(1, [(3, 5)]), b"[APPENDUID 1 3:5]"),
        (codes.copy_uid(38505, [(304, 304), (319, 320)], [(3956, 3958)]), b"[COPYUID 38505 304,319:320 3956:3958]"),
        (codes.modified([(7, 7), (9, 9)]), b"[MODIFIED 7,9]"),
        (codes.bad_charset(["US-ASCII", "UTF-8"]), b"[BADCHARSET (US-ASCII UTF-8)]"),
        (codes.capability(["IMAP4rev2", "STARTTLS"]), b"[CAPABILITY IMAP4rev2 STARTTLS]"),
        (codes.mailbox_id("F2212ea87-6097"), b"[MAILBOXID (F2212ea87-6097)]"),
    ],
)
def test_codes(code: codes.Code, printed: bytes) -> None:
    assert bytes(code) == printed


def test_every_code_is_named_as_it_is_printed() -> None:
    for name in codes.__all__:
        code = getattr(codes, name)
        if isinstance(code, codes.Code):
            assert bytes(code) == b"[%s]" % name.replace("_", "-").encode()


def test_the_lines_of_the_rfcs() -> None:
    r = replies
    assert r.capability(["IMAP4rev2", "AUTH=PLAIN"]) == b"* CAPABILITY IMAP4rev2 AUTH=PLAIN\r\n"
    assert r.enabled(["CONDSTORE"]) == b"* ENABLED CONDSTORE\r\n"
    assert r.enabled([]) == b"* ENABLED\r\n"
    assert r.flags(["\\Answered", "$x"]) == b"* FLAGS (\\Answered $x)\r\n"
    assert (r.exists(23), r.recent(5), r.expunge(44)) == (b"* 23 EXISTS\r\n", b"* 5 RECENT\r\n", b"* 44 EXPUNGE\r\n")
    assert r.fetch(23, [b"FLAGS (\\Seen)", b"UID 7"]) == b"* 23 FETCH (FLAGS (\\Seen) UID 7)\r\n"
    # RFC 7162 section 3.2.10
    assert r.vanished([(41, 41), (43, 116)], earlier=True) == b"* VANISHED (EARLIER) 41,43:116\r\n"
    assert r.vanished([(405, 405)]) == b"* VANISHED 405\r\n"
    assert r.search([2, 84, 882]) == b"* SEARCH 2 84 882\r\n"
    assert r.search([]) == b"* SEARCH\r\n"
    assert r.search([2, 5], 917162500) == b"* SEARCH 2 5 (MODSEQ 917162500)\r\n"
    # RFC 4731 section 3.1
    assert r.esearch(b"A282", uid=False, least=2, count=3) == b'* ESEARCH (TAG "A282") MIN 2 COUNT 3\r\n'
    assert r.esearch(b"A285", uid=True, all_of=[(43, 43), (45, 47)]) == b'* ESEARCH (TAG "A285") UID ALL 43,45:47\r\n'
    assert r.esearch(b"a", uid=False) == b'* ESEARCH (TAG "a")\r\n'
    assert r.esearch(b"a", uid=True, greatest=9, modseq=1234) == b'* ESEARCH (TAG "a") UID MAX 9 MODSEQ 1234\r\n'
    assert r.continuation(b"idling") == b"+ idling\r\n"
    assert r.continuation(b"") == b"+ \r\n"


def test_lists() -> None:
    r = replies
    assert r.list_response("blurdybloop", ["\\HasNoChildren"]) == b'* LIST (\\HasNoChildren) "/" blurdybloop\r\n'
    assert r.list_response("", ["\\Noselect"]) == b'* LIST (\\Noselect) "/" ""\r\n'
    assert r.list_response("x y", separator=None) == b'* LIST () NIL "x y"\r\n'
    assert r.list_response("a", separator="\\") == b'* LIST () "\\\\" a\r\n'
    assert r.list_response("Entwürfe") == b'* LIST () "/" Entw&APw-rfe\r\n'
    assert r.list_response("Entwürfe", utf8=True) == '* LIST () "/" "Entwürfe"\r\n'.encode()
    # RFC 5258 section 5, RFC 9051 section 6.3.9.7
    assert r.list_response("Foo", child_info=["SUBSCRIBED"]) == b'* LIST () "/" Foo ("CHILDINFO" ("SUBSCRIBED"))\r\n'
    assert r.list_response("new", old_name="ol d") == b'* LIST () "/" new ("OLDNAME" ("ol d"))\r\n'
    assert r.lsub_response("#news.comp", separator=".") == b'* LSUB () "." #news.comp\r\n'


def test_status_namespace_and_id() -> None:
    r = replies
    assert r.status("blurdybloop", [("MESSAGES", 231), ("UIDNEXT", 44292)]) == (
        b"* STATUS blurdybloop (MESSAGES 231 UIDNEXT 44292)\r\n"
    )
    assert r.status("a b", [("MAILBOXID", "F2212"), ("APPENDLIMIT", None)]) == (
        b'* STATUS "a b" (MAILBOXID (F2212) APPENDLIMIT NIL)\r\n'
    )
    # RFC 2342 section 5
    assert r.namespace([("", "/")]) == b'* NAMESPACE (("" "/")) NIL NIL\r\n'
    assert r.namespace([("", "/")], [("~", "/")], [("#shared/", "/"), ("#public/", None)]) == (
        b'* NAMESPACE (("" "/")) (("~" "/")) (("#shared/" "/")("#public/" NIL))\r\n'
    )
    assert r.id_response(None) == b"* ID NIL\r\n"
    assert r.id_response({"name": "x", "support-url": None}) == b'* ID ("name" "x" "support-url" NIL)\r\n'


def test_errors_have_their_conditions() -> None:
    assert replies.condition_for(MailboxExists("x")) == replies.no("A mailbox of that name exists", codes.ALREADYEXISTS)
    missing = replies.condition_for(NoSuchMailbox("secret"), target=True)
    assert missing is not None and missing.code == codes.TRYCREATE and "secret" not in missing.text
    other = replies.condition_for(MailboxExists("x"), target=True)
    assert other is not None and other.code == codes.ALREADYEXISTS

    class Novel(Refused):
        pass

    assert replies.condition_for(Novel()) == replies.REPLIES[Refused]
    down = replies.condition_for(AccountUnavailable())
    assert down is not None and down.code == codes.UNAVAILABLE


def test_an_unknown_outcome_has_no_answer() -> None:
    assert replies.condition_for(OutcomeUnknown()) is None
    assert replies.condition_for(AccountError()) is None
    assert replies.condition_for(KeyError()) is None
