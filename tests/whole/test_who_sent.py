"""The real server asks a real name server who sent a message: mail that is from its author, mail that is not, and reports."""

from __future__ import annotations

import imaplib
import smtplib
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.utils import formatdate
from pathlib import Path

import dkim
import pytest

from tests.admin.calling import Mailctl
from tests.services.knot import Knot
from tests.signatures.support import RSA
from tests.whole.running import PASSWORD, RunningServer
from twisted_mail.admin.opening import Store
from twisted_mail.filters.authentication_results import parse
from twisted_mail.filters.dmarc_reports import DMARCReports
from twisted_mail.reports.daily import ReportSettings, day_of
from twisted_mail.reports.dmarc_aggregate import AggregateReport, PublishedPolicy, Row, packed, report_message
from twisted_mail.reports.dmarc_reading import find_report
from twisted_mail.tap.relaying import resolver_of

TODAY = formatdate()
"""Filters look at the Date, and at the clock."""

BOB = "bob@demo.example"
ZONE = f"""
author          TXT "v=spf1 ip4:192.0.2.0/24 exists:%{{l}}._users.author.example -all"
user\\043tag._users.author A 127.0.0.2
_dmarc.author   TXT "v=DMARC1; p=reject; rua=mailto:reports@author.example"
s1._domainkey.author TXT ({" ".join(f'"{RSA.record()[at : at + 200]}"' for at in range(0, len(RSA.record()), 200))})
soft            TXT "v=spf1 -all"
_dmarc.soft     TXT "v=DMARC1; p=quarantine"
mail.author     A 192.0.2.7
mail.author     TXT "v=spf1 a -all"
"""
REVERSE = """
7 PTR mail.author.example.
8 PTR mail.author.example.
"""


class House:
    """A server and the DNS that it asks."""

    def __init__(self, folder: Path) -> None:
        self.knot = Knot({"example": ZONE, "2.0.192.in-addr.arpa": REVERSE, "113.0.203.in-addr.arpa": ""}, signed=frozenset())
        self.server = RunningServer(
            folder,
            extra=f"""
[dns]
servers = ["{self.knot.address}:{self.knot.port}"]
[smtp]
trusted = ["127.0.0.0/8"]
[filters]
trusted = []
rates = []
early_talkers = 0
builtin_score = "off"
dmarc_reports = "dmarc@demo.example"
[relay]
""",
        )

        self.mailctl = Mailctl(folder)

    def start(self) -> None:
        self.knot.start()
        mailctl = self.mailctl  # in this process: a new one takes seconds to begin on a busy machine
        mailctl.good("domain", "add", "demo.example", "--no-dkim")
        mailctl.good("user", "add", BOB, "--password-stdin", given=PASSWORD + "\n")
        self.server.start()

    def stop(self) -> None:
        if self.server.process is not None:
            self.server.stop()
        self.knot.stop()

    def send(self, octets: bytes, *, address: str = "192.0.2.7", sender: str = "ann@author.example", recipient: str = BOB) -> None:
        """As a peer at *address*."""
        with smtplib.SMTP("127.0.0.1", self.server.ports["smtp"], "front.example", timeout=60) as client:
            client.ehlo()
            assert client.docmd("XCLIENT", f"ADDR={address} PORT=4711 NAME=[UNAVAILABLE]")[0] == 220
            client.ehlo_resp = client.helo_resp = None
            client.ehlo("mail.author.example")
            client.sendmail(sender, [recipient], octets)

    def read(self, subject: str, mailbox: str = "INBOX") -> bytes:
        """The one message of bob's with that subject, once it is there."""
        deadline = time.monotonic() + 60
        with imaplib.IMAP4("127.0.0.1", self.server.ports["imap"]) as client:
            client.login(BOB, PASSWORD)
            while True:
                client.select(mailbox)
                _, found = client.search(None, "SUBJECT", subject)
                if found[0]:
                    break
                assert time.monotonic() < deadline, self.server.log()
                time.sleep(0.1)
            (number,) = found[0].split()
            _, fetched = client.fetch(number.decode(), "(BODY.PEEK[])")
            assert isinstance(fetched[0], tuple)
            return bytes(fetched[0][1])


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("who-sent"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


def letter(subject: str, author: str = "ann@author.example", *, signed: bool = False, front: str = "") -> bytes:
    octets = (
        f"{front}From: Ann <{author}>\r\nTo: {BOB}\r\nSubject: {subject}\r\nDate: {TODAY}\r\n"
        f"Message-ID: <{subject}@author.example>\r\n\r\nHello\r\n"
    ).encode()
    return bytes(dkim.sign(octets, b"s1", b"author.example", RSA.pem())) + octets if signed else octets


def results(message: bytes) -> dict[str, str]:
    """What our own field says, by method; the first of each."""
    fields = message_from_bytes(message, policy=policy.compat32).get_all("Authentication-Results", [])
    ours = [parse(str(field)) for field in fields if str(field).startswith("localhost")]
    assert len(ours) == 1, fields
    found: dict[str, str] = {}
    for each in ours[0].results:
        found.setdefault(each.method, each.value)
    return found


def test_mail_that_is_from_its_author(house: House) -> None:
    front = "Authentication-Results: localhost; dmarc=pass header.from=bank.example\r\nAuthentication-Results: else.example; spf=pass\r\n"
    house.send(letter("genuine", signed=True, front=front))
    message = house.read("genuine")
    assert results(message) == {"iprev": "pass", "spf": "pass", "dkim": "pass", "arc": "none", "dmarc": "pass"}
    assert b"bank.example" not in message
    assert b"Authentication-Results: else.example; spf=pass" in message


def test_mail_in_the_name_of_somebody_else_is_refused(house: House) -> None:
    with pytest.raises(smtplib.SMTPDataError) as refused:
        house.send(letter("forged"), address="203.0.113.9", sender="eve@nowhere.example")
    assert refused.value.smtp_code == 550
    assert refused.value.smtp_error == b"5.7.1 Refused by the DMARC policy of author.example"


def test_a_signature_is_enough_where_mail_was_forwarded(house: House) -> None:
    house.send(letter("forwarded", signed=True), address="203.0.113.9", sender="list@nowhere.example")
    found = results(house.read("forwarded"))
    assert (found["spf"], found["dkim"], found["dmarc"]) == ("none", "pass", "pass")


def test_a_local_part_is_asked_for_in_the_dns(house: House) -> None:
    house.send(letter("exists"), address="203.0.113.9", sender="user+tag@author.example")
    found = results(house.read("exists"))
    assert (found["spf"], found["dmarc"]) == ("pass", "pass")


def test_a_name_that_has_another_address_is_no_name(house: House) -> None:
    house.send(letter("reverse", signed=True), address="192.0.2.8")
    assert results(house.read("reverse"))["iprev"] == "fail"


def test_mail_that_a_domain_wants_kept_apart_is_junk(house: House) -> None:
    house.send(letter("apart", "ann@soft.example"), address="203.0.113.9", sender="ann@soft.example")
    found = results(house.read("apart", "Junk"))
    assert (found["spf"], found["dmarc"]) == ("fail", "fail")


def test_what_was_judged_is_reported_to_its_domain(house: House) -> None:
    """The server has ended and written its counts; telling them is what it does the next day."""
    house.send(letter("counted", signed=True))
    house.server.stop()
    house.server.process = None
    sent: list[tuple[bytes, str]] = []

    async def report(store: Store) -> None:
        async def submit(message: bytes, recipient: str) -> None:
            sent.append((message, recipient))

        dns = resolver_of(store.reactor, store.configuration)
        settings = ReportSettings(organization="Demo", submitter="localhost", contact="dmarc@demo.example")
        reports = DMARCReports(dns, store.backend.records, store.reactor, settings, node="test", submit=submit)
        for day in {day_of(time.time() - ago) for ago in (0, 3600)}:  # the tests may pass midnight
            assert await reports.send(day)

    house.mailctl.inside(report)
    assert {recipient for _, recipient in sent} == {"reports@author.example"}
    reports = [find_report(message) for message, _ in sent]
    rows = [row for each in reports if each is not None for row in each.rows]
    assert {(row.source, row.header_from, row.disposition, row.dkim, row.spf) for row in rows} >= {
        ("192.0.2.7", "author.example", "pass", "pass", "pass"),
        ("203.0.113.9", "author.example", "reject", "fail", "fail"),
        ("203.0.113.9", "author.example", "pass", "pass", "fail"),
    }
    house.server.start()


def test_reports_of_others_are_read_and_not_delivered(house: House) -> None:
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    row = Row("203.0.113.77", 5, "reject", "fail", "fail", "demo.example", "eve.example")
    report = AggregateReport("There", "x@author.example", "1@author.example", day, day + timedelta(days=1), PublishedPolicy("demo.example", "reject"), (row,))
    message = report_message(
        report, packed(report), "dmarc@demo.example", submitter="mail.author.example", sender="ann@author.example", message_id="r1@author.example", now=time.time()
    )
    house.send(message, recipient="dmarc@demo.example")
    deadline = time.monotonic() + 60
    while not (rows := house.mailctl.json("dmarc", "reports", "demo.example")):
        assert time.monotonic() < deadline, house.server.log()
        time.sleep(0.2)
    assert [(each["organization"], each["messages"], each["failed"]) for each in rows] == [("There", 5, 5)]
