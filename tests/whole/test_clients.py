"""The mail clients that people and scripts use, unmodified, against the running server."""

from __future__ import annotations

import email.message
import imaplib
import poplib
import smtplib
import subprocess
import time
from pathlib import Path

import pytest
from imapclient import IMAPClient

from tests.whole.running import PASSWORD, RunningServer
from tests.whole.test_round_trips import all_bodies, clear, imap, trusting

pytestmark = pytest.mark.clients


def run(*command: str, given: str = "", **options: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=100, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done  # type: ignore[no-any-return]


def letter(subject: str, body: str = "Hello\n") -> email.message.EmailMessage:
    message = email.message.EmailMessage()
    message["From"], message["To"], message["Subject"] = "ann@demo.example", "bob@demo.example", subject
    message.set_content(body)
    return message


def test_curl_sends_by_smtp_and_reads_by_imap_and_pop3(server: RunningServer, tmp_path: Path) -> None:
    clear(server, "bob")
    (tmp_path / "letter").write_bytes(b"From: ann@demo.example\r\nTo: bob@demo.example\r\nSubject: from curl\r\n\r\nHi\r\n")
    who = f"bob@demo.example:{PASSWORD}"
    run(
        "curl", "-sS", "--ssl-reqd", "-k", f"smtp://127.0.0.1:{server.ports['submission']}",
        "--user", f"ann@demo.example:{PASSWORD}", "--mail-from", "ann@demo.example",
        "--mail-rcpt", "bob@demo.example", "-T", str(tmp_path / "letter"),
    )  # fmt: skip
    read = run("curl", "-sS", f"imap://127.0.0.1:{server.ports['imap']}/INBOX;MAILINDEX=1", "-u", who)
    assert "Subject: from curl" in read.stdout
    read = run("curl", "-sSk", f"imaps://127.0.0.1:{server.ports['imaps']}/INBOX?SUBJECT%20curl", "-u", who)
    assert "* SEARCH 1" in read.stdout
    read = run("curl", "-sSk", f"pop3s://127.0.0.1:{server.ports['pop3s']}/1", "-u", who)
    assert "Subject: from curl" in read.stdout


def test_python_sends_with_smtplib_and_reads_with_imaplib_and_poplib(server: RunningServer) -> None:
    clear(server, "bob")
    with smtplib.SMTP_SSL("127.0.0.1", server.ports["submissions"], context=trusting()) as smtp:
        smtp.login("ann@demo.example", PASSWORD)
        smtp.send_message(letter("from smtplib", "Grüße\n"))
    connection = imaplib.IMAP4_SSL("127.0.0.1", server.ports["imaps"], ssl_context=trusting())
    connection.login("bob@demo.example", PASSWORD)
    connection.select("INBOX")
    assert connection.search(None, "SUBJECT", '"from smtplib"') == ("OK", [b"1"])
    connection.literal = "Grüße".encode()  # type: ignore[assignment]  # how imaplib sends what is not ASCII
    assert connection.search("UTF-8", "BODY")[1] == [b"1"]
    connection.logout()
    pop = poplib.POP3("127.0.0.1", server.ports["pop3"])
    pop.stls(trusting())
    pop.user("bob@demo.example")
    pop.pass_(PASSWORD)
    assert any(line == b"Subject: from smtplib" for line in pop.top(1, 0)[1])
    pop.quit()


def test_imapclient_works_through_a_day(server: RunningServer) -> None:
    with IMAPClient("127.0.0.1", server.ports["imap"], ssl=False) as client:
        client.starttls(trusting())
        client.login("ann@demo.example", PASSWORD)
        client.create_folder("Ünïcödé/Lists")
        assert ("Ünïcödé/Lists") in [name for _, _, name in client.list_folders()]
        client.select_folder("Ünïcödé/Lists")
        appended = client.append("Ünïcödé/Lists", letter("one").as_bytes(), [b"\\Seen", b"$Work"])
        assert b"APPENDUID" in appended
        client.noop()
        uids = client.search(["KEYWORD", "$Work"])
        assert client.get_flags(uids)[uids[0]] >= (b"\\Seen", b"$Work")
        fetched = client.fetch(uids, ["ENVELOPE", "BODYSTRUCTURE", "INTERNALDATE", "RFC822.SIZE"])
        assert fetched[uids[0]][b"ENVELOPE"].subject == b"one"
        client.idle()
        with IMAPClient("127.0.0.1", server.ports["imap"], ssl=False) as other:
            other.login("ann@demo.example", PASSWORD)
            other.append("Ünïcödé/Lists", letter("two").as_bytes())
        heard = client.idle_check(timeout=10)
        client.idle_done()
        assert (2, b"EXISTS") in heard
        client.move(uids, "Trash")
        assert client.search() != uids
        client.delete_folder("Ünïcödé/Lists")


def test_two_mbsync_runs_over_5000_messages_move_everything_once_and_then_nothing(
    server: RunningServer, tmp_path: Path
) -> None:
    connection = imap(server, "bob")
    connection.create("many")
    flags = ["", "(\\Seen)", "(\\Flagged \\Seen)", "(\\Answered)", "(\\Draft)"]
    raw = connection.socket()
    for start in range(0, 5000, 250):
        batch = []
        for number in range(start, start + 250):
            body = letter(f"number {number}").as_bytes().replace(b"\n", b"\r\n")
            words = (flags[number % 5] + " ").lstrip()
            batch.append(b"m%d APPEND many %s{%d+}\r\n%s\r\n" % (number, words.encode(), len(body), body))
        raw.sendall(b"".join(batch))
        while not connection.readline().startswith(b"m%d OK" % (start + 249)):
            pass
    (tmp_path / "mail").mkdir()
    (tmp_path / "mbsyncrc").write_text(f"""
IMAPStore far
Host 127.0.0.1
Port {server.ports["imap"]}
User bob@demo.example
Pass "{PASSWORD}"
SSLType None
AuthMechs LOGIN

MaildirStore near
Path {tmp_path}/mail/
Inbox {tmp_path}/mail/inbox
SubFolders Verbatim

Channel all
Far :far:many
Near :near:many
Create Near
Sync All
SyncState *
""")
    first = run("mbsync", "-c", str(tmp_path / "mbsyncrc"), "-V", "all")
    files = [p for sub in ("new", "cur") for p in (tmp_path / "mail/many" / sub).iterdir()]
    assert len(files) == 5000, first.stdout[-500:]
    letters = [path.name.partition(":2,")[2] for path in files]
    assert [letters.count(kind) for kind in ("S", "FS", "R", "D")] == [1000] * 4
    before = {path: path.stat().st_mtime_ns for path in files}
    modseq = server.mailctl("account", "log", "bob@demo.example", "--json")
    run("mbsync", "-c", str(tmp_path / "mbsyncrc"), "-V", "all")
    assert {p: p.stat().st_mtime_ns for sub in ("new", "cur") for p in (tmp_path / "mail/many" / sub).iterdir()} == before
    assert server.mailctl("account", "log", "bob@demo.example", "--json") == modseq, "the second run changed nothing"
    connection.logout()


def test_fetchmail_takes_mail_by_pop3_and_by_imap(server: RunningServer, tmp_path: Path) -> None:
    for protocol, port in (("pop3", server.ports["pop3"]), ("imap", server.ports["imap"])):
        clear(server, "ann")
        with smtplib.SMTP("127.0.0.1", server.ports["smtp"]) as smtp:
            for number in range(3):
                smtp.send_message(letter(f"{protocol} {number}"), "x@elsewhere.example", ["ann@demo.example"])
        folder = tmp_path / protocol
        folder.mkdir()
        rc = folder / "rc"
        rc.write_text(
            f'poll 127.0.0.1 protocol {protocol} port {port} user "ann@demo.example" password "{PASSWORD}" '
            f"sslproto '' mda \"/bin/sh -c 'cat >> {folder}/got'\" no rewrite\n"
        )
        rc.chmod(0o600)
        run("fetchmail", "-f", str(rc), "--nosyslog", "--pidfile", str(folder / "pid"), "-i", str(folder / "ids"),
            env={"FETCHMAILHOME": str(folder), "PATH": "/usr/bin:/bin", "HOME": str(folder)})  # fmt: skip
        got = (folder / "got").read_text()
        assert [f"Subject: {protocol} {number}" in got for number in range(3)] == [True] * 3
        connection = imap(server)
        assert all_bodies(connection, "INBOX") == [], "what was fetched is gone"
        connection.logout()


def test_msmtp_sends_through_submission(server: RunningServer, tmp_path: Path) -> None:
    clear(server, "bob")
    rc = tmp_path / "msmtprc"
    rc.write_text(
        "account default\nhost 127.0.0.1\n"
        f"port {server.ports['submission']}\nfrom ann@demo.example\nauth on\nuser ann@demo.example\n"
        f'passwordeval "echo {PASSWORD}"\ntls on\ntls_starttls on\ntls_certcheck off\n'
    )
    rc.chmod(0o600)
    run("msmtp", "-C", str(rc), "bob@demo.example", given="Subject: by msmtp\nTo: bob@demo.example\n\nHello\n")
    connection = imap(server, "bob")
    (only,) = all_bodies(connection, "INBOX")
    assert b"\r\nSubject: by msmtp\r\n" in only
    assert b"\r\nMessage-ID: <" in only or b"\r\nMessage-Id: <" in only, "submission completes the message"
    connection.logout()


def test_neomutt_lists_flags_and_files_mail(server: RunningServer, tmp_path: Path) -> None:
    clear(server, "bob")
    with smtplib.SMTP("127.0.0.1", server.ports["smtp"]) as smtp:
        smtp.send_message(letter("for neomutt"), "x@elsewhere.example", ["bob@demo.example"])
    port = server.ports["imap"]
    rc = tmp_path / "muttrc"
    rc.write_text(f"""
set imap_user="bob@demo.example"
set imap_pass="{PASSWORD}"
set ssl_starttls=no
set ssl_force_tls=no
set folder="imap://127.0.0.1:{port}/"
set spoolfile="+INBOX"
set header_cache=""
set sort=mailbox-order
set quit=yes
set delete=yes
set mark_old=no
set confirmappend=no
set mail_check=0
push "<set-flag>!<save-message>=Archive<enter><sync-mailbox><quit>"
""")
    run("script", "-qec", f"timeout --foreground -k 5 30 neomutt -n -F {rc}", "/dev/null",
        env={"TERM": "xterm", "HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"})  # fmt: skip
    deadline = time.monotonic() + 5
    connection = imap(server, "bob")
    while not all_bodies(connection, "Archive") and time.monotonic() < deadline:
        time.sleep(0.1)
    (only,) = all_bodies(connection, "Archive")
    assert b"Subject: for neomutt" in only
    assert "Flagged" in str(connection.fetch("1", "(FLAGS)")[1][0])
    assert all_bodies(connection, "INBOX") == []
    connection.logout()
