"""Commands about the connection, the login and mailboxes: the RFCs' own lines, and malformed ones."""

from __future__ import annotations

import pytest

from tests.imap.syntax.reading import read, read_tagged, refusal
from twisted_mail.imap import registry
from twisted_mail.imap.commands.any import Capability, Compress, Enable, Id, Logout, Noop
from twisted_mail.imap.commands.auth import Authenticate, Login, StartTls, Unauthenticate, decode_response
from twisted_mail.imap.commands.listing import List, Lsub
from twisted_mail.imap.commands.mailbox import (
    Close,
    Create,
    Delete,
    QResync,
    Rename,
    Select,
    Status,
    Subscribe,
    Unselect,
    Unsubscribe,
)
from twisted_mail.imap.commands.message import Check, Copy, Expunge, Idle, Move, Store
from twisted_mail.imap.extensions.namespace import Namespace
from twisted_mail.imap.sequence import SAVED, SequenceSet
from twisted_mail.imap.syntax import BadCommand, BadSyntax, Command, CommandLine, Modes, State, Streamed, Syntax

UTF8 = Modes(utf8=True)


def numbers(text: bytes) -> SequenceSet:
    return SequenceSet.parse(text)


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        # RFC 9051 section 6.1 and 6.2, RFC 2971, 4959, 4978, 5161, 8437
        (b"CAPABILITY", Capability()),
        (b"noop", Noop()),
        (b"LOGOUT", Logout()),
        (
            b'ID ("name" "sodr" "version" "19.34" "vendor" "Pink Floyd Music Limited")',
            Id((("name", "sodr"), ("version", "19.34"), ("vendor", "Pink Floyd Music Limited"))),
        ),
        (b"ID NIL", Id(None)),
        (b"ID nil", Id(None)),
        (b"ID ()", Id(())),
        (b'ID ("date" NIL "os" {2+}\r\nX1)', Id((("date", None), ("os", "X1")))),
        (b"ENABLE CONDSTORE X-GOOD-IDEA", Enable(("CONDSTORE", "X-GOOD-IDEA"))),
        (b"ENABLE utf8=accept UTF8=ACCEPT imap4rev2", Enable(("UTF8=ACCEPT", "IMAP4REV2"))),
        (b"COMPRESS DEFLATE", Compress("DEFLATE")),
        (b"COMPRESS deflate", Compress("DEFLATE")),
        (b"STARTTLS", StartTls()),
        (b"AUTHENTICATE GSSAPI", Authenticate("GSSAPI")),
        (b"AUTHENTICATE plain dGVzdAB0ZXN0AHRlc3Q=", Authenticate("PLAIN", b"test\0test\0test")),
        (b"AUTHENTICATE EXTERNAL =", Authenticate("EXTERNAL", b"")),
        (b"AUTHENTICATE SCRAM-SHA-256 biwsbj11", Authenticate("SCRAM-SHA-256", b"n,,n=u")),
        (b"LOGIN SMITH SESAME", Login("SMITH", "SESAME")),
        (b'LOGIN "a\\"b" "\\\\"', Login('a"b', "\\")),
        (b"LOGIN {11+}\r\nFRED FOOBAR {7}\r\nfat man", Login("FRED FOOBAR", "fat man")),
        (b'login u@x.example ""', Login("u@x.example", "")),
        ('LOGIN "jörg" {2+}\r\nä'.encode(), Login("jörg", "ä")),
        (b"LOGIN a] ]b", Login("a]", "]b")),
        (b"UNAUTHENTICATE", Unauthenticate()),
        # RFC 9051 section 6.3, RFC 3691, 6154, 7162
        (b"SELECT INBOX", Select("INBOX")),
        (b"SELECT iNbOx", Select("INBOX")),
        (b'SELECT "inbox"', Select("INBOX")),
        (b"SELECT {5+}\r\ninbox", Select("INBOX")),
        (b"EXAMINE blurdybloop", Select("blurdybloop", readonly=True)),
        (b"SELECT INBOX (CONDSTORE)", Select("INBOX", condstore=True)),
        (
            b"SELECT INBOX (QRESYNC (67890007 20050715194045000 41,43:211,214:541))",
            Select("INBOX", qresync=QResync(67890007, 20050715194045000, numbers(b"41,43:211,214:541"))),
        ),
        (
            b"SELECT INBOX (QRESYNC (67890007 90060115194045000 41:211,214:541) CONDSTORE)",
            Select("INBOX", condstore=True, qresync=QResync(67890007, 90060115194045000, numbers(b"41:211,214:541"))),
        ),
        (
            b"SELECT INBOX (QRESYNC (67890007 90060115205545359 1:29997 (5000,7500,9000,9990:9999"
            b" 15000,22500,27000,29970,29973,29976,29979,29982,29985,29988,29991)))",
            Select(
                "INBOX",
                qresync=QResync(
                    67890007,
                    90060115205545359,
                    numbers(b"1:29997"),
                    (
                        numbers(b"5000,7500,9000,9990:9999"),
                        numbers(b"15000,22500,27000,29970,29973,29976,29979,29982,29985,29988,29991"),
                    ),
                ),
            ),
        ),
        (
            b"EXAMINE x (QRESYNC (1 2 (1 1)))",
            Select("x", readonly=True, qresync=QResync(1, 2, None, (numbers(b"1"), numbers(b"1")))),
        ),
        (b"EXAMINE x (QRESYNC (1 2))", Select("x", readonly=True, qresync=QResync(1, 2))),
        (b"CLOSE", Close()),
        (b"UNSELECT", Unselect()),
        (b"CREATE owatagusiam/", Create("owatagusiam/")),
        (b"CREATE owatagusiam/blurdybloop", Create("owatagusiam/blurdybloop")),
        (b"CREATE MySpecial (USE (\\Drafts \\Sent))", Create("MySpecial", ("\\Drafts", "\\Sent"))),
        (b"CREATE x (USE ())", Create("x")),
        (b"CREATE ~peter/mail/&U,BTFw-/&ZeVnLIqe-", Create("~peter/mail/台北/日本語")),
        (b"CREATE %s" % b"/".join([b"a"] * 1000), Create("/".join(["a"] * 1000))),
        (b'CREATE "a//b"', Create("a//b")),
        (b'CREATE ""', Create("")),
        (b'CREATE "a*%"', Create("a*%")),
        (b"DELETE foo/bar", Delete("foo/bar")),
        (b"RENAME blurdybloop sarasoop", Rename("blurdybloop", "sarasoop")),
        (b'rename "my mail" Inbox', Rename("my mail", "INBOX")),
        (b"SUBSCRIBE #news.comp.mail.mime", Subscribe("#news.comp.mail.mime")),
        (b"UNSUBSCRIBE #news.comp.mail.mime", Unsubscribe("#news.comp.mail.mime")),
        (b"NAMESPACE", Namespace()),
        (b"STATUS blurdybloop (UIDNEXT MESSAGES)", Status("blurdybloop", ("UIDNEXT", "MESSAGES"))),
        (
            b"STATUS x (messages recent uidnext uidvalidity unseen deleted size highestmodseq appendlimit mailboxid)",
            Status(
                "x",
                (
                    *("MESSAGES", "RECENT", "UIDNEXT", "UIDVALIDITY", "UNSEEN", "DELETED", "SIZE"),
                    *("HIGHESTMODSEQ", "APPENDLIMIT", "MAILBOXID"),
                ),
            ),
        ),
        (b"STATUS x (SIZE SIZE)", Status("x", ("SIZE",))),
        # RFC 9051 section 6.3.9, RFC 5258 section 5, RFC 5819, RFC 6154
        (b'LIST "" ""', List("", ("",))),
        (b'LIST #news.comp.mail.misc ""', List("#news.comp.mail.misc", ("",))),
        (b"LIST /usr/staff/jones *", List("/usr/staff/jones", ("*",))),
        (b"LIST ~/Mail/ %", List("~/Mail/", ("%",))),
        (b'LIST "" "*"', List("", ("*",))),
        (b'LIST "" inbox', List("", ("INBOX",))),
        (b'LIST "" &AOQ-%', List("", ("ä%",))),
        (b'LIST (SUBSCRIBED) "" "*"', List("", ("*",), frozenset(("SUBSCRIBED",)), extended=True)),
        (b'LIST () "" "%" RETURN (CHILDREN)', List("", ("%",), returns=frozenset(("CHILDREN",)), extended=True)),
        (
            b'LIST (REMOTE) "" "%" RETURN (CHILDREN)',
            List("", ("%",), frozenset(("REMOTE",)), frozenset(("CHILDREN",)), extended=True),
        ),
        (
            b'LIST (REMOTE SUBSCRIBED) "" "*"',
            List("", ("*",), frozenset(("REMOTE", "SUBSCRIBED")), extended=True),
        ),
        (
            b'LIST "" ("INBOX" "Drafts" "Sent/%")',
            List("", ("INBOX", "Drafts", "Sent/%"), extended=True),
        ),
        (b'LIST "" (% *)', List("", ("%", "*"), extended=True)),
        (
            b'LIST (SUBSCRIBED RECURSIVEMATCH) "" "*"',
            List("", ("*",), frozenset(("SUBSCRIBED", "RECURSIVEMATCH")), extended=True),
        ),
        (b'LIST (special-use) "" *', List("", ("*",), frozenset(("SPECIAL-USE",)), extended=True)),
        (b'LIST "" % RETURN ()', List("", ("%",), extended=True)),
        (
            b'LIST "" "%" RETURN (STATUS (MESSAGES UNSEEN) special-use subscribed)',
            List(
                "",
                ("%",),
                returns=frozenset(("SPECIAL-USE", "SUBSCRIBED")),
                status=("MESSAGES", "UNSEEN"),
                extended=True,
            ),
        ),
        (b'LSUB "#news." "comp.mail.*"', Lsub("#news.", "comp.mail.*")),
        # RFC 9051 section 6.4, RFC 2177, 4315, 5182, 6851, 7162
        (b"IDLE", Idle()),
        (b"CHECK", Check()),
        (b"EXPUNGE", Expunge()),
        (b"UID EXPUNGE 3000:3002", Expunge(numbers(b"3000:3002"))),
        (b"uid expunge $", Expunge(SAVED)),
        (b"COPY 2:4 MEETING", Copy(False, numbers(b"2:4"), "MEETING")),
        (b"UID COPY $ inbox", Copy(True, SAVED, "INBOX")),
        (b"MOVE 1:* &AOQ-", Move(False, numbers(b"1:*"), "ä")),
        (b"UID MOVE 42:69 foo", Move(True, numbers(b"42:69"), "foo")),
        (
            b"STORE 2:4 +FLAGS (\\Deleted)",
            Store(False, numbers(b"2:4"), "add", False, ("\\Deleted",)),
        ),
        (b"STORE 1 FLAGS ()", Store(False, numbers(b"1"), "replace", False, ())),
        (b"STORE 1 -flags.silent \\Seen $Junk", Store(False, numbers(b"1"), "remove", True, ("\\Seen", "$Junk"))),
        (b"STORE 1 FLAGS.SILENT x", Store(False, numbers(b"1"), "replace", True, ("x",))),
        (
            b"UID STORE 6,4,8 (UNCHANGEDSINCE 12121230045) +FLAGS.SILENT (\\Deleted)",
            Store(True, numbers(b"4,6,8"), "add", True, ("\\Deleted",), 12121230045),
        ),
        (
            b"STORE 12 (UNCHANGEDSINCE 0) +FLAGS.SILENT ($MDNSent)",
            Store(False, numbers(b"12"), "add", True, ("$MDNSent",), 0),
        ),
    ],
)
def test_well_formed(arguments: bytes, command: Command) -> None:
    assert read(arguments) == command


@pytest.mark.parametrize(
    "arguments",
    [
        *(b"CAPABILITY ", b"NOOP x", b"LOGOUT\t", b"STARTTLS now", b"IDLE ", b"CHECK 1", b"EXPUNGE 1"),
        *(b"ID", b"ID ", b"ID x", b'ID ("a")', b'ID ("a" "b"', b'ID ("a" b)', b'ID (a "b")', b'ID NIL "a"'),
        b"ID (" + b" ".join([b'"a" "b"'] * 31) + b")",
        b'ID ("' + b"x" * 31 + b'" NIL)',
        b'ID ("x" "' + b"x" * 1025 + b'")',
        *(b"ENABLE", b"ENABLE ", b"ENABLE  CONDSTORE", b"ENABLE (X)", b"ENABLE X "),
        *(b"COMPRESS", b"COMPRESS DEFLATE 9"),
        *(b"AUTHENTICATE", b"AUTHENTICATE PLAIN ", b"AUTHENTICATE PLAIN x", b"AUTHENTICATE PLAIN *"),
        *(b"AUTHENTICATE PLAIN dGVzdA==dGVzdA==", b"AUTHENTICATE PLAIN dGVz dA==", b'AUTHENTICATE PLAIN "dGVz"'),
        *(b"LOGIN", b"LOGIN a", b"LOGIN a ", b"LOGIN a b c", b"LOGIN  a b", b'LOGIN a "b', b'LOGIN a "\\x"'),
        *(b"LOGIN a b{1+}\r\nx", b"LOGIN (a) b", b"LOGIN a\xff b", b'LOGIN "\xff" b', b'LOGIN "\0" b', b"LOGIN a b\0"),
        *(b"LOGIN {1+}\r\n\0 b", b"LOGIN ~{1+}\r\na b", b'LOGIN "a\rb" c', b"LOGIN a%b c", b'LOGIN a"b" c'),
        *(b"SELECT", b"SELECT a b", b"SELECT a ()", b"SELECT a (FOO)", b"SELECT a (CONDSTORE", b"SELECT a CONDSTORE"),
        *(b"SELECT &AOQ", b"SELECT &&", b'SELECT "&AOQ"', b"SELECT {2+}\r\n\xc3\xa4", b'SELECT "a\xc3\xa4"'),
        *(b"SELECT a (QRESYNC)", b"SELECT a (QRESYNC ())", b"SELECT a (QRESYNC (1))", b"SELECT a (QRESYNC (0 1))"),
        *(b"SELECT a (QRESYNC (1 0))", b"SELECT a (QRESYNC (1 2 *))", b"SELECT a (QRESYNC (1 2 1:*))"),
        *(b"SELECT a (QRESYNC (1 2 3 (4)))", b"SELECT a (QRESYNC (1 2 3 (4 *)))", b"SELECT a (QRESYNC (1 2 $))"),
        *(b"SELECT a (QRESYNC (1 2) QRESYNC (1 2))", b"SELECT a (QRESYNC (1 9223372036854775808))"),
        *(b"CREATE", b"CREATE a b", b"CREATE a (USE)", b"CREATE a (USE (Sent))", b"CREATE a (\\Sent)", b"CREATE a*"),
        b"CREATE a%",
        b"CREATE a\\b",
        *(b"DELETE", b"DELETE a b", b"RENAME a", b"RENAME a b c", b"SUBSCRIBE", b"UNSUBSCRIBE a b", b"NAMESPACE x"),
        *(b"STATUS a", b"STATUS a ()", b"STATUS a MESSAGES", b"STATUS a (FOO)", b"STATUS a (MESSAGES) x"),
        *(b"LIST", b'LIST ""', b'LIST "" % x', b'LIST "" () RETURN ()', b'LIST (FOO) "" %', b"LIST * %"),
        *(b'LIST "" % RETURN', b'LIST "" % RETURN (FOO)', b'LIST "" % RETURN (STATUS)', b'LIST "" %(', b'LIST "" &%'),
        *(b'LIST (RECURSIVEMATCH) "" %', b'LIST (REMOTE RECURSIVEMATCH) "" %', b'LIST (SUBSCRIBED)"" %'),
        *(b"LSUB", b'LSUB ""', b'LSUB "" (a b)', b'LSUB "" * RETURN ()'),
        *(b"UID EXPUNGE", b"UID EXPUNGE x", b"COPY 1", b"COPY x a", b"COPY 1:2:3 a", b"COPY 1 a b", b"MOVE 0 a"),
        *(
            b"STORE 1",
            b"STORE 1 FLAGS",
            b"STORE 1 FOO (x)",
            b"STORE 1 +FLAGS (x",
            b"STORE 1 +FLAGS x)",
            b"STORE 1 () x",
        ),
        *(b"STORE 1 FLAGS (a  b)", b"STORE 1 FLAGS (a,b) ", b'STORE 1 FLAGS "a"', b"STORE 1 FLAGS (\\)"),
        *(b"STORE 1 FLAGS (\\*)", b"STORE 1 FLAGS (a]b)", b"STORE 1 (UNCHANGEDSINCE) FLAGS (a)"),
        *(b"STORE 1 (FOO 1) FLAGS (a)", b"STORE 1 (UNCHANGEDSINCE -1) FLAGS (a)", b"STORE 1 (UNCHANGEDSINCE 1)FLAGS x"),
        *(
            b"STORE 1 (UNCHANGEDSINCE 1 UNCHANGEDSINCE 2) FLAGS (a)",
            b"STORE 1 (UNCHANGEDSINCE 99999999999999999999) FLAGS a",
        ),
        *(b"UID", b"UID ", b"UID NOOP", b"UID UID FETCH 1 UID", b"FOO", b"FOO x y", b"X-NEW", b"SORT (DATE) UTF-8 ALL"),
    ],
)
def test_malformed(arguments: bytes) -> None:
    assert refusal(arguments)


def test_names_are_utf8_once_the_client_has_enabled_it() -> None:
    assert read("SELECT {9+}\r\nEntwürfe".encode(), UTF8) == Select("Entwürfe")
    assert read('SELECT "Entwürfe"'.encode(), UTF8) == Select("Entwürfe")
    assert read(b"SELECT &AOQ-", UTF8) == Select("&AOQ-")
    assert read(b"SELECT inbox", UTF8) == Select("INBOX")
    refusal(b'SELECT "\xff"', UTF8)
    refusal("SELECT ä".encode(), UTF8)  # an atom has no such octets


def test_passwords_and_responses_are_not_printed() -> None:
    assert "SESAME" not in repr(read(b"LOGIN SMITH SESAME"))
    assert "test" not in repr(read(b"AUTHENTICATE PLAIN dGVzdAB0ZXN0AHRlc3Q="))


def test_responses_of_sasl() -> None:
    assert decode_response(b"*") is None
    assert decode_response(b"") == b""
    assert decode_response(b"dGVzdA==") == b"test"
    for line in (b"=", b"dGVzdA", b"dGVzdA=", b"dGV zdA==", b"**", b"dGVzdA==\r", b"\xff\xff\xff\xff"):
        with pytest.raises(BadSyntax):
            decode_response(line)


@pytest.mark.parametrize(
    ("octets", "tag", "why"),
    [
        (b"", None, "empty line"),
        (b" ", None, "missing tag"),
        (b"+ NOOP", None, "missing tag"),
        (b"a+b NOOP", None, "missing tag"),
        (b"(a) NOOP", None, "missing tag"),
        (b"\xff NOOP", None, "missing tag"),
        (b"a\0 NOOP", None, "missing tag"),
        (b"* OK", None, "missing tag"),
        (b"a1", b"a1", "missing command"),
        (b"a1 ", b"a1", "missing command"),
        (b"a1  NOOP", b"a1", "bad command"),
        (b"a1 {3}", b"a1", "bad command"),
        (b"a1 NOOP\0", b"a1", "bad command"),
        (b"a1 NOOP(", b"a1", "bad command"),
        (b"a1 NOPE", b"a1", "unknown command"),
        (b"a]1.x-% NOOP", None, "missing tag"),
    ],
)
def test_what_is_no_command(octets: bytes, tag: bytes | None, why: str) -> None:
    command = registry.parse(CommandLine(octets)).command
    assert command == BadCommand(tag, why)


def test_tags_of_every_kind() -> None:
    for tag in (b"A001", b".", b"]", b"[", b"a/b", b"1", b"tag,with:much;in-it!"):
        assert read_tagged(tag + b" NOOP").tag == tag
    assert registry.tag_of(b"a1 XYZ") == b"a1"
    assert registry.tag_of(b"a1(") is None


def test_names_and_states() -> None:
    tagged = read_tagged(b"a1 uid fetch 1 flags")
    assert tagged.name == b"UID FETCH"
    assert tagged.states == {State.SELECTED}
    assert read_tagged(b"a1 login a b").states == {State.NOT_AUTHENTICATED}
    assert read_tagged(b"a1 enable x").states == {State.AUTHENTICATED}
    assert State.LOGOUT not in read_tagged(b"a1 noop").states
    # A malformed command keeps its name and states, an unknown one has none.
    assert read_tagged(b"a1 select").name == b"SELECT"
    assert read_tagged(b"a1 select2").name == b""


def test_every_command_says_where_it_is_written_down() -> None:
    for name, syntax in registry.COMMANDS.items():
        assert "RFC" in (syntax.parse.__doc__ or ""), name
        assert syntax.states


def test_the_registry_refuses_duplicates() -> None:
    noop = Syntax(lambda args: Noop(), frozenset((State.SELECTED,)))
    assert registry.build([{b"A": noop}, {b"B": noop}]) == {b"A": noop, b"B": noop}
    with pytest.raises(ValueError, match="two commands"):
        registry.build([{b"A": noop}, {b"A": noop}])
    with pytest.raises(ValueError, match="capitals"):
        registry.build([{b"Ab": noop}])


def test_a_message_where_an_argument_should_be_is_malformed() -> None:
    tagged = registry.parse(CommandLine(b"a1 SELECT {5}\r\n", (Streamed(5),)))
    assert isinstance(tagged.command, BadCommand) and tagged.command.tag == b"a1"


def test_lists_are_bounded() -> None:
    modes = Modes(list_elements=3)
    assert read(b'LIST "" (a b c)', modes) == List("", ("a", "b", "c"), extended=True)
    assert refusal(b'LIST "" (a b c d)', modes) == "the list is too long"
