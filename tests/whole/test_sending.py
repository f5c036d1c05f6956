"""Mail from a client of one server to a client of another: found by the DNS, protected by DANE and by MTA-STS, signed by DKIM."""

from __future__ import annotations

import email
import email.policy
import re
import smtplib
import time
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

import dkim
import pytest

from tests.admin.calling import Mailctl
from tests.whole.two_domains import TwoDomains, eventually
from twisted_mail.admin.opening import Store
from twisted_mail.relay.tls_reports import TLSReports, TLSReportSettings, day_of
from twisted_mail.tap.relaying import resolver_of

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoDomains]:
    world = TwoDomains(tmp_path_factory.mktemp("two-domains"))
    yield world
    world.stop()


def parsed(octets: bytes) -> EmailMessage:
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def verified(world: TwoDomains, octets: bytes) -> list[str]:
    """The algorithms of those signatures of a message that hold."""
    header = octets.partition(b"\r\n\r\n")[0]
    count = len(re.findall(rb"^DKIM-Signature:", header, re.MULTILINE | re.IGNORECASE))
    found = []
    for index in range(count):
        checking = dkim.DKIM(octets)
        if checking.verify(index, dnsfunc=lambda name, timeout=5: world.txt(name.decode() if isinstance(name, bytes) else name)):
            found.append(checking.signature_fields[b"a"].decode())
    return sorted(found)


def test_from_submission_to_imap_under_dane(world: TwoDomains) -> None:
    message_id = world.a.submit("bob@b.test", "under dane")
    octets = eventually(lambda: world.b.inbox(message_id), otherwise=world.a.process.end_of_log)
    message = parsed(octets)
    assert message["Return-Path"] == "<ann@a.test>" and message["Subject"] == "under dane"
    assert re.search(r"^Received: from mx\.a\.test .*\bby mx\.b\.test with ESMTPS", octets.decode(), re.MULTILINE | re.DOTALL)
    assert message.get_content().split() == ["A", "message", "from", "ann@a.test.", "."]
    assert verified(world, octets) == ["ed25519-sha256", "rsa-sha256"]
    step = world.a.step(message_id, "delivered")
    assert step.tls.endswith(", dane"), step
    assert step.host == f"mx.b.test[{world.b.address}]"


def test_and_back_under_mta_sts(world: TwoDomains) -> None:
    message_id = world.b.submit("ann@a.test", "under mta-sts")
    octets = eventually(lambda: world.a.inbox(message_id), otherwise=world.b.process.end_of_log)
    assert verified(world, octets) == ["ed25519-sha256", "rsa-sha256"]
    step = world.b.step(message_id, "delivered")
    assert step.tls.endswith(", mta-sts"), step
    assert world.web.asked[0] == "mta-sts.a.test/.well-known/mta-sts.txt"


def test_requiretls_goes_where_something_vouches_for_the_server(world: TwoDomains) -> None:
    message_id = world.a.submit("bob@b.test", "only like this", mail=("REQUIRETLS",))
    eventually(lambda: world.b.inbox(message_id), otherwise=world.a.process.end_of_log)
    assert world.a.step(message_id, "delivered").tls.endswith(", dane")


def test_a_server_that_is_not_the_one_that_is_signed_for_gets_nothing(world: TwoDomains) -> None:
    message_id = world.a.submit("bob@wrong.b.test", "not to everybody")
    step = world.a.step(message_id, "deferred")
    assert step.reply.startswith("451 4.7.5"), step
    assert world.b.inbox(message_id) is None


def test_somebody_who_takes_starttls_away_gets_nothing(world: TwoDomains) -> None:
    message_id = world.a.submit("bob@stripped.b.test", "not in the clear")
    step = world.a.step(message_id, "deferred")
    assert step.reply.startswith("451 4.7.4"), step
    said = b"".join(world.between.sent)
    assert said.startswith(b"EHLO mx.a.test\r\n") and b"MAIL" not in said


@pytest.mark.parametrize(
    ("recipient", "code"), [("nobody@b.test", "5.1.1"), ("bob@null.a.test", "5.1.10"), ("bob@nowhere.b.test", "5.1.2")]
)
def test_who_cannot_be_reached_is_told_to_the_sender(world: TwoDomains, recipient: str, code: str) -> None:
    message_id = world.a.submit(recipient, f"to {recipient}")
    octets = eventually(lambda: world.a.inbox(message_id), otherwise=world.a.process.end_of_log)
    report = parsed(octets)
    assert report["Return-Path"] == "<>"
    assert report.get_content_type() == "multipart/report" and report.get_param("report-type") == "delivery-status"
    _, status, original = report.iter_parts()
    assert status.get_content_type() == "message/delivery-status"
    blocks = status.get_payload()
    assert isinstance(blocks, list)
    about_message, about_recipient = (block for block in blocks if isinstance(block, EmailMessage))
    assert str(about_message["Reporting-MTA"]).replace(" ", "") == "dns;mx.a.test"
    assert str(about_recipient["Action"]) == "failed" and str(about_recipient["Status"]) == code, about_recipient
    assert recipient in str(about_recipient["Final-Recipient"])
    assert message_id in original.as_string()


def test_ten_at_once(world: TwoDomains) -> None:
    def arrived(message_id: str) -> bytes:
        return eventually(lambda: world.a.inbox(message_id), otherwise=world.b.process.end_of_log)

    ids = [world.b.submit("ann@a.test", f"number {number}") for number in range(10)]
    assert all(arrived(each) for each in ids)


def test_how_it_went_is_reported_and_read(world: TwoDomains) -> None:
    message_id = world.a.submit("bob@b.test", "counted")
    eventually(lambda: world.b.inbox(message_id), otherwise=world.a.process.end_of_log)
    world.a.process.stop(30.0)  # what was counted is written down
    sent: list[tuple[bytes, str]] = []

    async def report(store: Store) -> None:
        async def submit(message: bytes, recipient: str) -> None:
            sent.append((message, recipient))

        dns = resolver_of(store.reactor, store.configuration)
        settings = TLSReportSettings(organization="A", submitter="mx.a.test", contact="tls-report@a.test")
        reports = TLSReports(dns, store.backend.records, store.reactor, submit, settings, node="test")
        done = [await reports.send(day_of(time.time() - ago)) for ago in (0, 3600)]  # the tests may pass midnight
        assert all(done)

    Mailctl(world.a.folder).inside(report)
    assert {recipient for _, recipient in sent} == {"tls-report@b.test"}
    for message, recipient in sent:
        with smtplib.SMTP(world.b.address, world.port, timeout=120) as client:
            client.sendmail("tls-report@a.test", [recipient], message)

    def told() -> list[dict[str, Any]]:
        rows = Mailctl(world.b.folder).json("tls-report", "list", "b.test")
        assert isinstance(rows, list)
        return rows

    rows = eventually(told, otherwise=world.b.process.end_of_log)
    assert {(row["organization"], row["policy"], row["failed"]) for row in rows} == {("A", "tlsa", 0)}
    assert sum(row["sessions"] for row in rows) >= 1
