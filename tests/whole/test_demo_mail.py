"""The demo's mail, read and answered with the clients that people use. (curl's turn is in `tests/admin/test_demo.py`.)"""

from __future__ import annotations

import imaplib
import poplib
import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest
from imapclient import IMAPClient

from tests.whole.test_clients import letter, run
from tests.whole.test_round_trips import all_bodies, trusting
from twisted_mail.admin.demo import MESSAGES, Demo
from twisted_mail.admin.samples import samples

pytestmark = pytest.mark.clients
ANN, BOB = "ann@demo.example", "bob@demo.example"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    made = Demo(tmp_path_factory.mktemp("demo") / "demo")
    made.prepare(fresh=False)
    server = made.start()
    yield made
    made.stop(server)


def password(demo: Demo, address: str) -> str:
    return demo.passwords()[address]


def imap(demo: Demo, address: str) -> imaplib.IMAP4:
    connection = imaplib.IMAP4("127.0.0.1", demo.ports()["imap"])
    connection.login(address, password(demo, address))
    return connection


def mailboxes(demo: Demo, address: str) -> list[str]:
    with IMAPClient("127.0.0.1", demo.ports()["imap"], ssl=False) as client:
        client.login(address, password(demo, address))
        return [name for flags, _, name in client.list_folders() if b"\\NonExistent" not in flags]


def test_every_message_is_what_was_made(demo: Demo) -> None:
    connection = imap(demo, ANN)
    names = [line.rpartition(b'"/" ')[2].decode() for line in connection.list()[1] if isinstance(line, bytes)]
    found = [body for name in names for body in all_bodies(connection, name)]
    connection.logout()
    assert len(found) == MESSAGES

    def undated(octets: bytes) -> bytes:
        """Without the lines that hold the time of making."""
        return b"\r\n".join(line for line in octets.split(b"\r\n") if b":" not in line)

    wanted = samples(ANN, [BOB], end=1_790_000_000, count=MESSAGES)
    assert sorted(map(len, map(undated, found))) == sorted(len(undated(sample.data)) for sample in wanted)


def test_imapclient_understands_every_envelope_and_structure(demo: Demo) -> None:
    with IMAPClient("127.0.0.1", demo.ports()["imap"], ssl=False) as client:
        client.login(ANN, password(demo, ANN))
        seen = 0
        for name in mailboxes(demo, ANN):
            client.select_folder(name, readonly=True)
            for fetched in client.fetch(client.search(), ["ENVELOPE", "BODYSTRUCTURE", "RFC822.SIZE", "BODY.PEEK[]"]).values():
                assert len(fetched[b"BODY[]"]) == fetched[b"RFC822.SIZE"]
                assert fetched[b"ENVELOPE"].from_ and fetched[b"BODYSTRUCTURE"]
                seen += 1
        assert seen == MESSAGES


def test_mbsync_takes_all_mailboxes(demo: Demo, tmp_path: Path) -> None:
    (tmp_path / "mail").mkdir()
    (tmp_path / "rc").write_text(f"""
IMAPStore far
Host 127.0.0.1
Port {demo.ports()["imap"]}
User {ANN}
Pass {password(demo, ANN)}
SSLType None
AuthMechs LOGIN

MaildirStore near
Path {tmp_path}/mail/
Inbox {tmp_path}/mail/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Near
Sync Pull
SyncState *
""")
    for _ in range(2):
        run("mbsync", "-c", str(tmp_path / "rc"), "all")
        files = [path for sub in ("new", "cur") for path in (tmp_path / "mail").rglob(f"{sub}/*")]
        assert len(files) == MESSAGES


def test_fetchmail_and_poplib_read_bobs_inbox(demo: Demo, tmp_path: Path) -> None:
    pop = poplib.POP3_SSL("127.0.0.1", demo.ports()["pop3s"], context=trusting())
    pop.user(BOB)
    pop.pass_(password(demo, BOB))
    count, _ = pop.stat()
    assert count > 20 and len(pop.uidl()[1]) == count
    assert sum(len(pop.retr(number)[1]) > 3 for number in range(1, count + 1)) == count
    pop.quit()
    rc = tmp_path / "rc"
    rc.write_text(
        f'poll 127.0.0.1 protocol pop3 port {demo.ports()["pop3"]} user "{BOB}" password "{password(demo, BOB)}" '
        f"sslproto '' keep fetchall mda \"/bin/sh -c 'cat > /dev/null; echo >> {tmp_path}/count'\" no rewrite\n"
    )
    rc.chmod(0o600)
    run("fetchmail", "-f", str(rc), "--nosyslog", "--pidfile", str(tmp_path / "pid"), "-i", str(tmp_path / "ids"),
        env={"FETCHMAILHOME": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)})  # fmt: skip
    assert len((tmp_path / "count").read_text()) == count


def test_msmtp_and_smtplib_answer_and_neomutt_files_the_answer(demo: Demo, tmp_path: Path) -> None:
    rc = tmp_path / "msmtprc"
    rc.write_text(
        f"account default\nhost 127.0.0.1\nport {demo.ports()['submission']}\nfrom {ANN}\nauth on\nuser {ANN}\n"
        f'passwordeval "echo {password(demo, ANN)}"\ntls on\ntls_starttls on\ntls_certcheck off\n'
    )
    rc.chmod(0o600)
    run("msmtp", "-C", str(rc), BOB, given="Subject: an answer by msmtp\nTo: bob@demo.example\n\nYes\n")
    with smtplib.SMTP_SSL("127.0.0.1", demo.ports()["submissions"], context=trusting()) as smtp:
        smtp.login(ANN, password(demo, ANN))
        smtp.send_message(letter("an answer by smtplib"))
    connection = imap(demo, BOB)
    connection.select("INBOX", readonly=True)
    assert len(connection.search(None, "SUBJECT", '"an answer by"')[1][0].split()) == 2
    muttrc = tmp_path / "muttrc"
    muttrc.write_text(f"""
set imap_user="{BOB}"
set imap_pass="{password(demo, BOB)}"
set ssl_starttls=no
set ssl_force_tls=no
set folder="imap://127.0.0.1:{demo.ports()["imap"]}/"
set spoolfile="+INBOX"
set header_cache=""
set quit=yes
set delete=yes
set confirmappend=no
push "<limit>~s smtplib<enter><first-entry><save-message>=Archive<enter><sync-mailbox><quit>"
""")
    run("script", "-qec", f"timeout --foreground -k 5 30 neomutt -n -F {muttrc}", "/dev/null",
        env={"TERM": "xterm", "HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"})  # fmt: skip
    assert any(b"Subject: an answer by smtplib" in body for body in all_bodies(connection, "Archive"))
    connection.logout()
