"""The configuration: defaults, every kind of mistake with its place, and the environment."""

from __future__ import annotations

import dataclasses
from ipaddress import ip_network
from pathlib import Path

import pytest

from twisted_mail.tap.configuration import ConfigurationError, fields_of, load
from twisted_mail.tap.kinds import show_duration, show_size
from twisted_mail.tap.settings import LATER, Configuration


def problems(tmp_path: Path, text: str | bytes, environment: dict[str, str] | None = None) -> list[str]:
    """What is wrong with a file of *text*, each as ``line: key: words`` (the file's own name left out)."""
    file = tmp_path / "mail.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    try:
        load(file, environment or {})
    except ConfigurationError as error:
        assert str(error).splitlines() == [str(problem) for problem in error.problems]
        return [str(problem).removeprefix(f"{file}:").strip() for problem in error.problems]
    return []


def read(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> Configuration:
    file = tmp_path / "mail.toml"
    file.write_text(text)
    return load(file, environment or {})


# --- what is right


def test_nothing_at_all_is_the_embedded_default_on_high_ports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    configuration = load(None, {})
    assert configuration.data == tmp_path / "mail-data"
    assert configuration.listen.imap == ("tcp:8143",)
    assert configuration.listen.smtp == ("tcp:8025",)
    assert configuration.auth.allow_cleartext == (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    assert configuration.auth.failures_per_minute == 10
    assert configuration.limits.message_bytes == 52_428_800
    assert configuration.imap.separator == "/"
    assert configuration.storage.metadata.startswith("sqlite:")
    assert dict(configuration.account.mailboxes) == {
        "Drafts": "drafts", "Sent": "sent", "Junk": "junk", "Trash": "trash", "Archive": "archive",
    }  # fmt: skip


def test_networks_that_submit_without_a_login(tmp_path: Path) -> None:
    configuration = read(tmp_path, '[smtp.submitters]\n"10.1.0.0/16" = "printer@example.org"\n"::1/128" = "root@example.org"\n')
    assert dict(configuration.smtp.submitters) == {
        ip_network("10.1.0.0/16"): "printer@example.org", ip_network("::1/128"): "root@example.org",
    }  # fmt: skip
    assert not read(tmp_path, "").smtp.submitters, "off by default"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            '[smtp.submitters]\n"0.0.0.0/0" = "a@b.example"\n',
            '2: smtp.submitters."0.0.0.0/0": "0.0.0.0/0" is so much of the internet that this would be an open relay',
        ),
        (
            '[smtp.submitters]\n"2000::/3" = "a@b.example"\n',
            '2: smtp.submitters."2000::/3": "2000::/3" is so much of the internet that this would be an open relay',
        ),
        (
            '[smtp]\ntrusted = ["10.0.0.0/8"]\n[smtp.submitters]\n"10.0.0.5/32" = "a@b.example"\n',
            '4: smtp.submitters."10.0.0.5/32": "10.0.0.5/32" speaks for others (smtp.trusted), and never for itself',
        ),
        (
            '[smtp.submitters]\n"10.0.0.5/8" = "a@b.example"\n',
            '1: smtp.submitters: "10.0.0.5/8" has bits set beyond its prefix; did you mean "10.0.0.0/8"?',
        ),
        (
            '[smtp.submitters]\n"10.0.0.0/8" = "printer"\n',
            '2: smtp.submitters."10.0.0.0/8": "printer" is not the address of an account',
        ),
    ],
)
def test_networks_that_cannot_submit(tmp_path: Path, text: str, problem: str) -> None:
    assert problems(tmp_path, text) == [problem]


def test_an_empty_file_is_the_same_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read(tmp_path, "") == load(None, {})


def test_the_result_cannot_be_changed(tmp_path: Path) -> None:
    configuration = read(tmp_path, "")
    with pytest.raises(dataclasses.FrozenInstanceError):
        configuration.hostname = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        configuration.account.mailboxes["New"] = ""  # type: ignore[index]


def test_units(tmp_path: Path) -> None:
    configuration = read(
        tmp_path,
        """
        limits.message_bytes = "10MiB"
        limits.login = "1m30s"
        process.drain = 2.5
        smtp.command = "0.5h"
        account.retention = "1w"
        imap.line_bytes = 100_000
        auth.argon2_memory = "1MB"
        """,
    )
    assert configuration.limits.message_bytes == 10 << 20
    assert configuration.limits.login == 90
    assert configuration.process.drain == 2.5
    assert configuration.smtp.command == 1800
    assert configuration.account.retention == 7 * 86_400
    assert configuration.imap.line_bytes == 100_000
    assert configuration.auth.argon2_memory == 1_000_000


def test_units_are_shown_as_they_are_written() -> None:
    assert [show_size(n) for n in (0, 5, 1024, 52_428_800, 1 << 40)] == ["0", "5", "1KiB", "50MiB", "1TiB"]
    assert [show_duration(n) for n in (0, 0.25, 30, 90, 300, 86_400)] == ["0s", "250ms", "30s", "90s", "5m", "1d"]


def test_relative_paths_start_from_the_folder_of_the_file(tmp_path: Path) -> None:
    configuration = read(tmp_path, 'data = "store"\n[tls]\ncertificate = "c.pem"\nkey = "/etc/k.pem"\n')
    assert configuration.data == tmp_path / "store"
    assert configuration.tls.certificate == tmp_path / "c.pem"
    assert configuration.tls.key == Path("/etc/k.pem")


def test_a_listener_that_is_left_out_of_listen_does_not_listen(tmp_path: Path) -> None:
    listen = read(tmp_path, '[listen]\nimap = ["tcp:143:interface=127.0.0.1", "unix:/tmp/imap"]\n').listen
    assert listen.imap == ("tcp:143:interface=127.0.0.1", "unix:/tmp/imap")
    assert (listen.smtp, listen.pop3, listen.imaps) == ((), (), ())


def test_certificates_for_other_names(tmp_path: Path) -> None:
    (other,) = read(
        tmp_path, '[[tls.sni]]\nnames = ["a.example", "*.b.example"]\ncertificate = "c"\nkey = "k"\n'
    ).tls.sni
    assert (other.names, other.certificate) == (("a.example", "*.b.example"), tmp_path / "c")


# --- what is wrong, and where


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hostname = 5", "1: hostname: 5 is not a host name (a string in quotes)"),
        ('\nhostname = "a b"', '2: hostname: "a b" is not a host name such as "mail.example.org"'),
        ("data = true", "1: data: true is not a path (a string in quotes)"),
        ('[limits]\nmessage_bytes = "5 parsecs"', '2: limits.message_bytes: "5 parsecs" is not a size (octets, or e.g. "50MiB")'),
        ("[limits]\nmessage_bytes = 10", "2: limits.message_bytes: 10 is too small: at least 64KiB"),
        ('[limits]\nmessage_bytes = "9GiB"', "2: limits.message_bytes: 9GiB is too large: at most 2GiB"),
        ("[limits]\nmessage_bytes = -1", "2: limits.message_bytes: -1 is too small: at least 64KiB"),
        ("[limits]\nmessage_bytes = 1.5", '2: limits.message_bytes: 1.5 is not a size (octets, or e.g. "50MiB")'),
        ("[limits]\nconnections = -3", "2: limits.connections: -3 is too small: at least 0"),
        ("[limits]\nconnections = true", "2: limits.connections: true is not a whole number"),
        ('[limits]\nlogin = "0s"', "2: limits.login: 0s is too small: at least 1s"),
        (
            '[limits]\nlogin = "soon"',
            '2: limits.login: "soon" is not a duration (such as "30s", "5m", "1h30m", or a number of seconds)',
        ),
        ("[limits]\nlogin = nan", "2: limits.login: nan is not a duration"),
        ('[imap]\nseparator = "|"', '2: imap.separator: "|" is not one of "/", "."'),
        ("[smtp]\nstrict_line_ends = 1", "2: smtp.strict_line_ends: 1 is neither true nor false"),
        ("limits = 3", "1: limits: 3 is not a table: write [limits]"),
        ('[listen]\nimap = "tcp:8143"', '2: listen.imap: "tcp:8143" is not a list: write ["tcp:8143"]'),
        ('[listen]\nimap = ["tcp:70000"]', '2: listen.imap[1]: "tcp:70000": there is no port 70000'),
        (
            '[listen]\nimap = ["ssl:993"]',
            '2: listen.imap[1]: "ssl:993": give the plain endpoint to a listener that is encrypted from the start '
            "(imaps, pop3s, submissions); its certificate is in [tls]",
        ),
        ('[listen]\nimap = ["tcp:1",\n"tcp:1"]', '3: listen.imap[2]: "tcp:1" is taken by listen.imap'),
        ("[listen]", "1: listen: nothing listens anywhere: name at least one of smtp, submission, submissions, lmtp, "
                     "imap, imaps, pop3, pop3s, managesieve, http"),
        (
            '[auth]\nallow_cleartext = [\n"::1/128",\n"10.0.0.1/8"]',
            '4: auth.allow_cleartext[2]: "10.0.0.1/8" has bits set beyond its prefix; did you mean "10.0.0.0/8"?',
        ),
        (
            '[auth]\nallow_cleartext = ["everywhere"]',
            '2: auth.allow_cleartext[1]: "everywhere" is not a network such as "10.0.0.0/8" or "::1/128"',
        ),
        ('[tls]\nkey = "k"', "2: tls.key: is given without tls.certificate"),
        ('[tls]\nminimum = "1.1"', '2: tls.minimum: "1.1" is not one of "1.2", "1.3"'),
        ("[tls]\nsni = 3", "2: tls.sni: 3 is not a list of tables: write [[tls.sni]]"),
        ('[[tls.sni]]\nnames = ["a"]\nkey = "k"', "1: tls.sni[1].certificate: must be given"),
        ('[[tls.sni]]\nnames = []\nkey = "k"\ncertificate = "c"', "2: tls.sni[1].names: at least 1 must be named"),
        (
            '[account]\nmailboxes = { Sent = "send" }',
            '2: account.mailboxes.Sent: "send" is not one of "", "all", "archive", "drafts", "flagged", "junk", "sent", "trash"',
        ),
        ('[account.mailboxes]\nInbox = ""', "2: account.mailboxes.Inbox: INBOX is always there"),
        ('[search]\nengine = "lucene"', '2: search.engine: "lucene" is not one of "auto", "tantivy", "whoosh", "none"'),
        ('[storage]\nblobs = "disk"', '2: storage.blobs: "disk" is not the URL of a storage engine such as "sqlite:"'),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_its_line(tmp_path: Path, text: str, expected: str) -> None:
    assert problems(tmp_path, text) == [expected]


def test_an_engine_that_is_not_installed_is_named_without_its_password(tmp_path: Path) -> None:
    (text,) = problems(tmp_path, '[storage]\nmetadata = "tape://user:secret@host/mail"')
    assert text.startswith("2: storage.metadata: no storage engine for tape: is installed (there are: cql, file, ")
    assert "secret" not in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hostnam = 'a'", "1: hostnam: there is no such setting; did you mean hostname?"),
        ("[limits]\nmesage_bytes = 1", "2: limits.mesage_bytes: there is no such setting; did you mean limits.message_bytes?"),
        ("separator = '.'", "1: separator: there is no such setting; did you mean imap.separator?"),
        ("[imap]\nmessage_bytes = 1", "2: imap.message_bytes: there is no such setting; did you mean limits.message_bytes?"),
        ("[limit]\nlogin = 5", "1: limit: there is no such setting; did you mean limits?"),
        ("zzz = 1", "1: zzz: there is no such setting"),
        ('"a b" = 1', '1: "a b": there is no such setting'),
        ("[imap]\nidle.minutes = 1", '2: imap.idle: a table is not a duration (such as "30s", "5m", "1h30m", or a number of seconds)'),
        ("[[tls.sni]]\nname = ['a']\nkey='k'\ncertificate='c'\nnames=['x']",
         "2: tls.sni[1].name: there is no such setting; did you mean tls.sni[1].names?"),
    ],
)  # fmt: skip
def test_an_unknown_key_is_refused_with_a_guess(tmp_path: Path, text: str, expected: str) -> None:
    assert problems(tmp_path, text) == [expected]


@pytest.mark.parametrize("key", [".".join(path) for path in LATER])
def test_a_key_of_a_room_that_does_not_exist_yet_is_refused_and_not_ignored(tmp_path: Path, key: str) -> None:
    extra = 'listen.imap = ["tcp:1"]\n' if key.startswith("listen") else ""
    (text,) = problems(tmp_path, f'{extra}{key} = ["x"]\n')
    assert f": {key}: is not available in this version (" in f": {text.partition(': ')[2]}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"a = 1\nb = \xff\n", "2: is not UTF-8"),
        (b"a = 1\nb = = 2\n", "2: is not TOML: Invalid value"),
        (b"a = 1\na = 2\n", "2: is not TOML: Cannot overwrite a value"),
        (b"a = [1,\n2\n", "3: is not TOML: Unclosed array"),
    ],
)
def test_a_file_that_is_not_toml_is_refused_with_the_line(tmp_path: Path, text: bytes, expected: str) -> None:
    assert problems(tmp_path, text) == [expected]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for file, why in ((tmp_path / "none.toml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigurationError) as caught:
            load(file, {})
        assert str(caught.value) == f"{file}: cannot be read: {why}"


def test_everything_that_is_wrong_is_said_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = 'hostname = 1\nroles = []\n[limits]\nlogin = "x"\nmystery = 1\n[imap]\nseparator = "-"\n'
    found = problems(tmp_path, text, {"TWISTED_MAIL__POP3__IDLE": "x"})
    assert [line.split(":")[0] for line in found] == ["1", "2", "4", "5", "7", "TWISTED_MAIL__POP3__IDLE"]


# --- the environment


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    environment = {
        "TWISTED_MAIL__HOSTNAME": "env.example",
        "TWISTED_MAIL__LIMITS__MESSAGE_BYTES": "1MiB",
        "TWISTED_MAIL__LIMITS__LOGIN": "5",
        "TWISTED_MAIL__AUTH__FAILURES_PER_MINUTE": "0",
        "TWISTED_MAIL__AUTH__ALLOW_CLEARTEXT": "10.0.0.0/8, ::1/128",
        "TWISTED_MAIL__LISTEN__IMAP": '["tcp:1", "unix:/a,b"]',
        "TWISTED_MAIL__ACCOUNT__MAILBOXES": '{ Gesendet = "sent" }',
        "TWISTED_MAIL__SMTP__STRICT_LINE_ENDS": "no",
        "OTHER": "x",
    }
    configuration = read(tmp_path, 'hostname = "file.example"\n[limits]\nconnections = 7\n', environment)
    assert configuration.hostname == "env.example"
    assert configuration.limits.message_bytes == 1 << 20
    assert configuration.limits.connections == 7
    assert configuration.limits.login == 5
    assert configuration.auth.failures_per_minute == 0
    assert configuration.auth.allow_cleartext == (ip_network("10.0.0.0/8"), ip_network("::1/128"))
    assert configuration.listen.imap == ("tcp:1", "unix:/a,b")
    assert configuration.listen.pop3 == ("tcp:8110",), "the file has no [listen] table"
    assert dict(configuration.account.mailboxes) == {"Gesendet": "sent"}
    assert configuration.smtp.strict_line_ends is False


def test_a_secret_comes_from_the_file_that_is_named(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("sqlite:///elsewhere?key=abc\n")
    configuration = read(tmp_path, "", {"TWISTED_MAIL__STORAGE__METADATA_FILE": str(secret)})
    assert configuration.storage.metadata == "sqlite:///elsewhere?key=abc"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"LIMITS__CONNECTIONS": "many"}, 'TWISTED_MAIL__LIMITS__CONNECTIONS: limits.connections: "many" is not a whole number'),
        ({"LIMITS__LOGIN": "0"}, "TWISTED_MAIL__LIMITS__LOGIN: limits.login: 0s is too small: at least 1s"),
        ({"HOSTNAM": "x"}, "TWISTED_MAIL__HOSTNAM: hostnam: there is no such setting; did you mean hostname?"),
        ({"LISTEN__HTTPS": "tcp:443"}, "TWISTED_MAIL__LISTEN__HTTPS: listen.https: is not available in this version (there is no HTTP server)"),
        ({"LIMITS": "1"}, "TWISTED_MAIL__LIMITS: limits: there is no such setting"),
        ({"LISTEN__IMAP": '["tcp:1"'}, "TWISTED_MAIL__LISTEN__IMAP: listen.imap: "),
        ({"SMTP__STRICT_LINE_ENDS": "maybe"}, 'TWISTED_MAIL__SMTP__STRICT_LINE_ENDS: smtp.strict_line_ends: "maybe" is neither true nor false'),
        ({"STORAGE__BLOBS_FILE": "/does/not/exist"}, 'TWISTED_MAIL__STORAGE__BLOBS_FILE: storage.blobs: "/does/not/exist" cannot be read: '),
        ({"AUTH__ALLOW_CLEARTEXT": "::1/128,x"}, "TWISTED_MAIL__AUTH__ALLOW_CLEARTEXT: auth.allow_cleartext[2]: "),
        ({"TLS__SNI": "[]"}, "TWISTED_MAIL__TLS__SNI: tls.sni: there is no such setting"),
    ],
)  # fmt: skip
def test_a_wrong_variable_is_named(tmp_path: Path, environment: dict[str, str], expected: str) -> None:
    (text,) = problems(tmp_path, "", {"TWISTED_MAIL__" + name: value for name, value in environment.items()})
    assert text.startswith(expected)


def test_two_variables_for_one_key_are_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("sqlite://")
    name = "TWISTED_MAIL__STORAGE__METADATA"
    assert problems(tmp_path, "", {name: "sqlite://", name + "_FILE": str(secret)}) == [
        f"{name}_FILE: storage.metadata: {name} sets it too"
    ]


# --- the declarations themselves


def test_every_setting_has_a_description_and_a_default_that_is_read_as_it_is_written() -> None:
    def walk(of: type, path: str) -> None:
        assert (of.__doc__ or "").strip().endswith("."), path
        for each in fields_of(of):
            name = f"{path}.{each.name}".lstrip(".")
            assert each.doc.strip().endswith(".") or each.doc.endswith('".'), name
            if each.declared is not None:
                default = each.declared.default
                if default is not None:
                    each.declared.kind.read(default() if callable(default) else default, Path("/"))
            else:
                assert each.section is not None
                walk(each.section, name)

    walk(Configuration, "")


def test_a_relay_table_takes_mail_for_other_domains_and_none_does_not(tmp_path: Path) -> None:
    assert not read(tmp_path, "").relay.enabled
    assert read(tmp_path, "[relay]\n").relay.enabled
    assert read(tmp_path, "", {"TWISTED_MAIL__RELAY__PORT": "2525"}).relay.enabled
    assert not read(tmp_path, "[relay]\nenabled = false\n").relay.enabled


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[dns]\nservers = ["localhost"]\n', "2: dns.servers[1]: "),
        ('[relay.routes]\n"b.example" = "ftp://x"\n', '2: relay.routes."b.example": '),
        ('[relay.pools.main]\naddresses = { "192.0.2.300" = "mx" }\n', "2: relay.pools.main.addresses"),
        ('[relay.pools.main]\naddresses = { "192.0.2.1" = "mx.example" }\n[relay.streams.normal]\npools = ["other"]\n', "4: relay.streams.normal.pools: "),
        ("[relay.timeouts]\nconnect = 0\n", "2: relay.timeouts.connect: "),
        ('[relay]\nretry = []\n', "2: relay.retry: "),
    ],
)  # fmt: skip
def test_what_is_wrong_in_the_relays_tables_is_named_with_its_line(tmp_path: Path, text: str, expected: str) -> None:
    found = problems(tmp_path, text)
    assert found and found[0].startswith(expected), found
