"""A client uploads a script by ManageSieve, and mail that comes then is sorted by it."""

from __future__ import annotations

import imaplib
import smtplib
import time
from collections.abc import Iterator
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

import pytest

from tests.whole.running import PASSWORD, RunningServer
from tests.whole.test_clients import letter, run
from tests.whole.test_round_trips import trusting

pytestmark = pytest.mark.clients
BOB = "bob@demo.example"
SCRIPT = """require ["fileinto", "mailbox"];
if header :contains "subject" "[dev]" {
  fileinto :create "Lists/dev";
}
"""


@pytest.fixture
def sorted_server(server: RunningServer) -> Iterator[RunningServer]:
    """Whatever happens, the next test finds bob without a script."""
    yield server
    server.mailctl("sieve", "deactivate", BOB)
    for line in server.mailctl("sieve", "list", BOB).splitlines():
        server.mailctl("sieve", "delete", BOB, line.split("\t")[0])


def connect(server: RunningServer, *words: str) -> str:
    at = ("--server", "127.0.0.1", "--port", str(server.ports["managesieve"]), "--4", "--nosrv", "--notlsverify")
    return run("sieve-connect", *at, "--user", BOB, "--passwordfd", "0", *words, given=PASSWORD + "\n").stdout


def subjects(server: RunningServer, mailbox: str) -> list[str]:
    connection = imaplib.IMAP4_SSL("127.0.0.1", server.ports["imaps"], ssl_context=trusting())
    try:
        connection.login(BOB, PASSWORD)
        if connection.select(mailbox, readonly=True)[0] != "OK":
            return []
        _, found = connection.fetch("1:*", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
        return [each[1].decode("utf-8", "replace").partition(":")[2].strip() for each in found if isinstance(each, tuple)]
    finally:
        connection.logout()


def test_mail_is_sorted_by_the_script_that_a_client_uploaded(sorted_server: RunningServer, tmp_path: Path) -> None:
    server = sorted_server
    script = tmp_path / "sorting.siv"
    script.write_text(SCRIPT)
    with smtplib.SMTP("127.0.0.1", server.ports["smtp"]) as smtp:
        smtp.send_message(letter("[dev] before"))  # so that the server has looked: no script yet
    connect(server, "--upload", "--localsieve", str(script), "--remotesieve", "sorting")
    connect(server, "--activate", "--remotesieve", "sorting")
    assert "ACTIVE" in connect(server, "--list")
    with smtplib.SMTP("127.0.0.1", server.ports["smtp"]) as smtp:
        smtp.send_message(letter("[dev] after"))
        smtp.send_message(letter("for me"))
    deadline = time.monotonic() + 30
    while (there := subjects(server, "Lists/dev")) != ["[dev] after"]:
        assert time.monotonic() < deadline, (there, subjects(server, "INBOX"))
        time.sleep(0.1)
    inbox = subjects(server, "INBOX")
    assert "[dev] before" in inbox and "for me" in inbox and "[dev] after" not in inbox


REWRITING = """require ["fileinto", "mailbox", "editheader", "foreverypart", "mime", "replace"];
fileinto :create "Lists/whole";
addheader "X-Sorted" "yes";
foreverypart {
  if header :mime :param "filename" :matches "content-disposition" "*.exe" { replace "taken out"; }
}
fileinto :create "Lists/less";
"""


def test_what_an_operator_changes_counts_at_once_and_each_mailbox_gets_its_version(
    sorted_server: RunningServer, tmp_path: Path
) -> None:
    server = sorted_server
    script = tmp_path / "rewriting.sieve"
    script.write_text(REWRITING)
    message = letter("with a program")
    message.add_attachment(b"MZ" * 1000, maintype="application", subtype="x-msdownload", filename="a.exe")
    message.add_attachment(b"%PDF" * 1000, maintype="application", subtype="pdf", filename="b.pdf")
    with smtplib.SMTP("127.0.0.1", server.ports["smtp"]) as smtp:
        smtp.send_message(letter("before"))  # so that the server has looked: no script yet
        server.mailctl("sieve", "put", BOB, "rewriting", str(script), "--activate")
        smtp.send_message(message)
    deadline = time.monotonic() + 30
    while not subjects(server, "Lists/less"):
        assert time.monotonic() < deadline, subjects(server, "INBOX")
        time.sleep(0.1)
    whole, less = (fetched(server, name) for name in ("Lists/whole", "Lists/less"))
    assert [part.get_filename() for part in whole.iter_attachments()] == ["a.exe", "b.pdf"] and whole["X-Sorted"] is None
    assert less["X-Sorted"] == "yes"
    there = [part.get_content() for part in less.walk() if not part.is_multipart()]
    assert there[1].strip() == "taken out" and there[2] == b"%PDF" * 1000


def fetched(server: RunningServer, mailbox: str) -> EmailMessage:
    connection = imaplib.IMAP4_SSL("127.0.0.1", server.ports["imaps"], ssl_context=trusting())
    try:
        connection.login(BOB, PASSWORD)
        connection.select(f'"{mailbox}"', readonly=True)
        _, found = connection.fetch("1", "(BODY.PEEK[])")
        return message_from_bytes(found[0][1], policy=default)  # type: ignore[index,arg-type]  # a literal
    finally:
        connection.logout()
