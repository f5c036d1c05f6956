"""What senders are told, and who is never told anything."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.signatures.support import run
from twisted_mail.relay.bounces import Bounces, BounceSettings, Told, host_of, status_of
from twisted_mail.relay.items import Outbound
from twisted_mail.relay.values import Result, Stage, Verdict
from twisted_mail.reports.reading import open_report, read_delivery_report
from twisted_mail.reports.values import Action
from twisted_mail.storage.interfaces import QueueItem
from twisted_mail.values import BlobRef, DeliveryId

NOW = 1_700_000_000.0
HEADER = b"From: Ann <ann@example.org>\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <1@example.org>\r\n"
MESSAGE = HEADER + b"\r\nHello\r\n"
ID = DeliveryId(b"0123456789abcdef")
GONE = Verdict(Result.PERMANENT, "550 5.1.1 <bob@example.net>: no such user", Stage.RCPT, host="mx.example.net[192.0.2.1]")
SLOW = Verdict(Result.TEMPORARY, "451 4.4.1 no connection", Stage.CONNECT, remote=False)
TAKEN = Verdict(Result.DELIVERED, "250 2.0.0 OK", Stage.END, host="mx.example.net[192.0.2.1]")
SUBMITTED = Outbound(
    address="bob@example.net", sender="ann@example.org", login="ann@example.org", header=len(HEADER), message_id="1@example.org",
    stream="transactional",
)  # fmt: skip


class House:
    def __init__(self, message: bytes = MESSAGE, verified: bool = False, **settings: Any) -> None:
        self.sent: list[tuple[str, str, bytes, str]] = []
        self.opened = 0
        self.message = message
        self.bounces = Bounces(
            self.submit,
            self.body,
            BounceSettings(hostname="mx.example.org", **settings),
            wall=lambda: NOW,
            verified=lambda outbound: verified,
        )
        self.item = QueueItem(ID, "outbound", b"", BlobRef("0" * 64, len(message)), "example.net", "", created=NOW - 3600)

    async def submit(self, cause: DeliveryId, action: str, recipient: str, octets: bytes, *, stream: str = "") -> None:
        assert cause == ID
        self.sent.append((action, recipient, octets, stream))

    async def body(self, item: QueueItem, outbound: Outbound) -> AsyncIterator[bytes]:
        assert item is self.item
        self.opened += 1
        for at in range(0, len(self.message), 10):
            yield self.message[at : at + 10]

    def outbound(self, **changes: Any) -> Outbound:
        return Outbound(**{**{name: getattr(SUBMITTED, name) for name in SUBMITTED.__struct_fields__}, **changes})

    def failed(self, verdict: Verdict = GONE, **changes: Any) -> Told:
        return run(self.bounces.failed(self.item, self.outbound(**changes), verdict))

    def delayed(self, **changes: Any) -> Told:
        return run(self.bounces.delayed(self.item, self.outbound(**changes), SLOW, NOW + 86_400))

    def delivered(self, **changes: Any) -> Told:
        return run(self.bounces.delivered(self.item, self.outbound(**changes), TAKEN))

    @property
    def octets(self) -> bytes:
        ((_, _, octets, _),) = self.sent
        return octets


def test_a_failure_is_told_to_who_sent_it() -> None:
    house = House()
    assert house.failed(envelope_id="e+2B1", original="rfc822;Bob+2Bx@example.net") is Told.YES
    ((action, recipient, octets, stream),) = house.sent
    assert (action, recipient, stream) == ("bounce", "ann@example.org", "transactional")
    report = read_delivery_report(octets)
    assert (report.reporter, report.envelope_id, report.message_id) == ("mx.example.org", "e+1", "1@example.org")
    assert report.arrival == NOW - 3600
    (each,) = report.recipients
    assert (each.recipient, each.original, each.action) == ("bob@example.net", "Bob+x@example.net", Action.FAILED)
    assert (each.status, each.remote, each.last_attempt) == ("5.1.1", "mx.example.net", NOW)
    assert each.diagnostic == GONE.reply
    assert b"\r\nAuto-Submitted: auto-replied\r\n" in octets
    assert octets.startswith(b"From: Mail delivery <mailer-daemon@mx.example.org>\r\n")
    assert "Grüße" in open_report(octets).text() and b"Hello" not in octets
    house.failed()
    assert house.sent[1][2].partition(b"Message-ID")[2][:60] == octets.partition(b"Message-ID")[2][:60], "it is the same message"


def test_what_was_tried_for_too_long_has_a_code_of_its_own() -> None:
    house = House()
    house.failed(SLOW)
    (each,) = read_delivery_report(house.octets).recipients
    assert (each.action, each.status, each.remote, each.diagnostic) == (Action.FAILED, "4.4.7", "", SLOW.reply)
    assert b"Diagnostic-Code: x-local; 451" in house.octets


def test_a_delay_is_told_with_how_long_it_is_tried() -> None:
    house = House()
    assert house.delayed() is Told.YES
    (each,) = read_delivery_report(house.octets).recipients
    assert (each.action, each.status, each.retry_until) == (Action.DELAYED, "4.4.1", NOW + 86_400)
    assert house.sent[0][0] == "delayed"


def test_a_success_is_told_where_it_is_asked_for() -> None:
    house = House()
    assert house.delivered(notify=("SUCCESS",)) is Told.YES
    (each,) = read_delivery_report(house.octets).recipients
    assert (each.action, each.status) == (Action.RELAYED, "2.0.0")
    assert house.sent[0][0] == "success"
    assert house.delivered() is Told.NOT_ASKED


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sender": ""}, Told.NULL_SENDER),
        ({"cause": "bounce"}, Told.OURS),
        ({"cause": "bounce/ann@example.org"}, Told.OURS),
        ({"cause": "delayed"}, Told.OURS),
        ({"cause": "success"}, Told.OURS),
        ({"cause": "vacation"}, Told.OURS),
        ({"cause": "report"}, Told.OURS),
        ({"notify": ("NEVER",)}, Told.NOT_ASKED),
        ({"notify": ("SUCCESS", "DELAY")}, Told.NOT_ASKED),
        ({"notify": ("FAILURE",)}, Told.YES),
        ({"login": "", "cause": "forward", "author": "x@a.example"}, Told.FORGED),
        ({"login": ""}, Told.FORGED),
    ],
)
def test_who_is_told_of_a_failure(changes: dict[str, Any], told: Told) -> None:
    house = House()
    assert house.failed(**changes) is told
    assert bool(house.sent) == (told is Told.YES)
    assert bool(house.opened) == (told is Told.YES), "nothing is read for nobody"


def test_a_forward_is_reported_to_who_wrote_it_if_that_is_known_for_sure() -> None:
    house = House(verified=True)
    rewritten = "SRS0=aaaaaa=aa=a.example=x@example.org"
    assert house.failed(login="", cause="forward", sender=rewritten, author="x@a.example") is Told.YES
    assert house.sent[0][1] == "x@a.example"


@pytest.mark.parametrize("field", [b"Auto-Submitted: auto-generated; x=y\r\n", b"Precedence: bulk\r\n", b"List-Id: <a.example>\r\n"])
def test_programs_hear_of_failures_and_not_of_delays(field: bytes) -> None:
    house = House(HEADER + field + b"\r\n")
    size = len(HEADER + field)
    assert house.delayed(header=size) is Told.PROGRAM
    assert house.failed(header=size) is Told.YES
    assert House(HEADER + b"Auto-Submitted: no\r\n\r\n").delayed(header=len(HEADER) + 20) is Told.YES


def test_a_message_comes_back_whole_only_after_a_failure_and_if_it_is_not_large_nor_secret() -> None:
    def whole(told: Any, house: House, **changes: Any) -> bool:
        told(house, dsn_return="FULL", **changes)
        return b"Hello" in house.octets

    assert whole(House.failed, House())
    assert not whole(House.failed, House(), requiretls=True)
    assert not whole(House.delayed, House())
    assert not whole(House.delivered, House(), notify=("SUCCESS",))
    assert not whole(House.failed, House(full_bytes=20))
    assert b"message/global\r\n" in _full(House(), smtputf8=True)


def _full(house: House, **changes: Any) -> bytes:
    house.failed(dsn_return="FULL", **changes)
    return house.octets


def test_a_header_comes_back_within_bounds() -> None:
    header = HEADER + b"X: " + b"x" * 500_000 + b"\r\n"
    house = House(header + b"\r\nHello", header_bytes=1000)
    house.failed(header=len(header))
    assert b"Subject: =?utf-8?q?Gr" in house.octets and len(house.octets) < 5000


def test_a_message_without_a_header_is_reported_too() -> None:
    house = House(b"\r\nHello")
    assert house.failed(header=0, message_id="") is Told.YES
    assert read_delivery_report(house.octets).message_id == ""
    assert b"Hello" not in house.octets and b"In-Reply-To" not in house.octets


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        ("550 5.1.1 no", "5.1.1"), ("550 no", "5.0.0"), ("550 4.1.1 contradicts", "5.0.0"), ("550-5.7.26 x", "5.7.26"),
        ("550 #5.1.0 x", "5.1.0"), ("550", "5.0.0"), ("garbage", "5.0.0"), ("", "5.0.0"),
    ],
)  # fmt: skip
def test_a_status_is_taken_from_what_was_said(reply: str, status: str) -> None:
    assert status_of(Verdict(Result.PERMANENT, reply, Stage.RCPT)) == status


def test_a_host_is_named_without_its_address() -> None:
    assert [host_of(text) for text in ("mx.example.net[192.0.2.1]", "[192.0.2.1]", "")] == ["mx.example.net", "[192.0.2.1]", ""]
