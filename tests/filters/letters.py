"""Mail as it comes: what people want to read, and what they do not. Every name in it is made up."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from tests.filters.asking import Message, client, mail
from twisted_mail.filters.origins import SPF, Disposition, DKIMResults, DMARCResult, SPFResult
from twisted_mail.signatures import Result, Verification

__all__ = ["HAM", "NOW", "SPAM", "Letter", "arrived"]

NOW = 1_795_000_000.0
"""Wed, 18 Nov 2026 11:06:40 +0000."""


@dataclass(frozen=True)
class Letter:
    name: str
    octets: bytes
    sender: str = "bob@example.net"
    recipients: tuple[str, ...] = ("ann@example.org",)
    spf: str = "pass"
    dkim: str = "pass"
    """``pass``, ``fail``, ``none``."""
    dmarc: str = "pass"
    policy: str = "none"


def arrived(letter: Letter) -> Message:
    """The message, with what filters have found out about where it comes from."""
    transaction = mail(letter.sender, client(), letter.recipients)
    transaction.note(SPFResult(SPF(letter.spf), letter.sender.rpartition("@")[2]))
    signatures = () if letter.dkim == "none" else (Verification(Result(letter.dkim), domain="example.net"),)
    transaction.note(DKIMResults(signatures))
    transaction.note(DMARCResult(result=letter.dmarc, policy=Disposition(letter.policy)))
    return Message(letter.octets, transaction)


def _header(
    author: str, subject: str, to: str = "ann@example.org", *more: str, date: str = "Wed, 18 Nov 2026 11:01:00 +0000"
) -> str:
    fields = [
        f"From: {author}",
        f"To: {to}",
        f"Subject: {subject}",
        f"Date: {date}",
        "Message-ID: <4711.abc@example.net>",
        "MIME-Version: 1.0",
    ]
    return "\n".join([*fields, *more]) + "\n"


def _letter(name: str, header: str, body: str, **more: object) -> Letter:
    return Letter(name, (header + "\n" + body).encode(), **more)  # type: ignore[arg-type]


_NEWSLETTER = """<html><head><style>body { color: red } .cheap { miracle: 1 }</style></head><body>
<p>Hello Ann, here is what is new in our shop this week: winter jackets, order now and save 10%.</p>
<p><a href="https://click.mailer.example/c/1">www.shop.example</a>
<a href="https://click.mailer.example/c/2">See the offers</a></p>
<p>While supplies last. To leave this list <a href="https://click.mailer.example/u">unsubscribe</a>.</p>
<img src="https://click.mailer.example/o.gif" width="1" height="1">
</body></html>
"""

HAM = (
    _letter("a friend", _header("Bob Builder <bob@example.net>", "Lunch?"), "Hi Ann,\n\nlunch on Friday? My treat, you won last time.\n\nBob\n"),
    _letter(
        "a mailing list",
        _header(
            "Joe Doe via Discuss <discuss@lists.example.net>",
            "[discuss] Re: Release 2.0",
            "discuss@lists.example.net",
            "List-Id: Discussion <discuss.lists.example.net>",
            "Reply-To: Joe Doe <joe@gmail.com>",
            "Precedence: list",
        ),
        "> Shall we release it?\n\nYes. Click on the link below to see the notes:\nhttps://example.net/notes\n",
        sender="discuss-bounces@lists.example.net",
        dkim="fail",
        dmarc="none",
    ),
    _letter(
        "a list that breaks signatures",
        _header("Joe Doe <joe@example.com>", "[discuss] Re: Release 2.0", "discuss@lists.example.net", "List-Id: <discuss.lists.example.net>"),
        "> Shall we release it?\n\nYes.\n",
        sender="discuss-bounces@lists.example.net",
        dkim="fail",
        dmarc="fail",
    ),
    _letter(
        "a receipt",
        _header("Example Shop <orders@shop.example>", "Your order 1234 has been shipped", "ann@example.org", "Content-Type: text/html; charset=utf-8"),
        "<html><body><h1>Thank you, Ann</h1><p>Dear customer, your order has left our house. Track it within 24 hours:"
        ' <a href="https://track.shop.example/1234">track.shop.example</a></p><p>Total 12.00 EUR, paid by credit card.</p></body></html>\n',
        sender="bounce+4711@mail.shop.example",
    ),
    _letter(
        "a newsletter",
        _header(
            "Shop News <news@shop.example>",
            "New this week",
            "ann@example.org",
            "List-Unsubscribe: <https://click.mailer.example/u>",
            "Content-Type: text/html; charset=utf-8",
        ),
        _NEWSLETTER,
        sender="b-17@mailer.example",
    ),
    _letter(
        "a password that was forgotten",
        _header("Example Account <no-reply@accounts.example>", "Reset your password"),
        "Hello,\n\nto verify your email click the link below within 24 hours:\n\nhttps://accounts.example/reset/abc\n\n"
        "If you saw unusual activity, tell us.\n",
    ),
    _letter(
        "a printer",
        "From: scanner@office.example.net\nTo: ann@example.org\nSubject: Scan\nDate: Wed, 18 Nov 2026 11:01:00 +0000\n",
        "See attachment.\n",
        sender="scanner@office.example.net",
        spf="none",
        dkim="none",
        dmarc="none",
    ),
    _letter(
        "a cron job",
        "From: root@host.example.net (Cron Daemon)\nTo: root@host.example.net\nSubject: Cron <root@host> backup\n"
        "Date: Wed, 18 Nov 2026 11:01:00 +0000\nMessage-Id: <E1abc@host.example.net>\nAuto-Submitted: auto-generated\n",
        "42 files saved\n",
        spf="none",
        dkim="none",
        dmarc="none",
    ),
    _letter(
        "a small firm without any records",
        _header("=?utf-8?q?M=C3=BCller_GmbH?= <info@mueller.example>", "Angebot 17", "Ann <ann@example.org>"),
        "Sehr geehrte Frau Beispiel,\n\nanbei unser Angebot. Rückfragen gern an mich.\n\nMit freundlichen Grüßen\nP. Müller\n",
        spf="softfail",
        dkim="none",
        dmarc="none",
    ),
    _letter(
        "a mail that was forwarded by a server without SRS",
        _header("Bob <bob@bank.example>", "Minutes"),
        "Here are the minutes of the meeting about the inheritance tax.\n",
        spf="fail",
        policy="reject",
    ),
    _letter(
        "a bounce",
        "From: Mail Delivery System <MAILER-DAEMON@mx.example.net>\nTo: ann@example.org\nSubject: Undelivered Mail Returned to Sender\n"
        "Date: Wed, 18 Nov 2026 11:01:00 +0000\nMessage-Id: <1@mx.example.net>\n"
        "Content-Type: multipart/report; report-type=delivery-status; boundary=b\n",
        "--b\n\nI am sorry, your message could not be delivered.\n\n--b\nContent-Type: message/delivery-status\n\n"
        "Reporting-MTA: dns; mx.example.net\n\n--b--\n",
        sender="",
        spf="none",
        dkim="none",
        dmarc="none",
    ),
    _letter(
        "an invitation in base64",
        _header("Calendar <cal@example.net>", "INVITATION: MEETING", "ann@example.org", "Content-Type: text/calendar; charset=utf-8", "Content-Transfer-Encoding: base64"),
        base64.encodebytes(b"BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nBEGIN:VEVENT\r\nSUMMARY:Meeting\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n").decode(),
    ),
    _letter(
        "a question to a bank about a password",
        _header("Bob <bob@example.net>", "Scam?"),
        "Hi Ann,\n\nI got a mail that my account has been suspended and that I must confirm my identity. Is that a trojan?\n\nBob\n",
    ),
)  # fmt: skip

SPAM = (
    _letter(
        "money that waits",
        _header('"Barr. John Smith" <johnsmith4711@gmail.com>', "URGENT BUSINESS PROPOSAL", "undisclosed-recipients:;", "Reply-To: barrister.smith@outlook.com"),
        "Dear friend,\n\nI am the barrister of a late client, who left the sum of 15 million United States dollars. As you bear his\nname "
        "I want to present you as next of kin and beneficiary of his inheritance. This is strictly confidential.\n",
        sender="johnsmith4711@gmail.com",
    ),
    _letter(
        "pills",
        _header("Canadian Health <x81@dsl.example>", "Save 80%", "ann@example.org", "Content-Type: text/html"),
        '<html><body>Cheap meds from our online pharmacy: Viagra, Cialis. No prescription! <a href="http://203.0.113.7/p">here</a></body></html>\n',
        spf="softfail",
        dkim="none",
        dmarc="none",
    ),
    _letter(
        "a bank that is none",
        _header('"service@bank.example" <xk@hacked.example>', "Your account", "ann@example.org", "Content-Type: text/html"),
        "<html><body>Dear customer, we saw unusual activity. Your account has been limited. Verify your identity within 24 hours: "
        '<a href="http://hacked.example/wp/x">https://www.bank.example/login</a></body></html>\n',
        sender="xk@hacked.example",
        dkim="none",
        dmarc="none",
        spf="neutral",
    ),
    _letter(
        "a threat in one's own name",
        _header("ann@example.org", "I recorded you"),
        "I hacked your device with a trojan and recorded a video by your webcam while you watched porn. Send 900 USD in bitcoin to\n"
        "1BoatSLRHtKNngkdXEeobR76b53LETtpyT within 48 hours, or it goes to all your contacts.\n",
        sender="ann@example.org",
        spf="fail",
        dkim="none",
        dmarc="fail",
        policy="none",
    ),
    _letter(
        "a prize",
        "From: LOTTERY BOARD <win@prize.example>\nSubject: CONGRATULATIONS YOU HAVE WON\nDate: Mon, 18 Nov 2030 11:00:00 +0000\n",
        "Congratulations! You have won the first cash prize of our lottery. To claim your prize write to us.\n",
        spf="none",
        dkim="none",
        dmarc="none",
    ),
    _letter(
        "a mailbox that is full",
        _header("IT Helpdesk <it@random.example>", "ACTION REQUIRED TODAY", "undisclosed-recipients: ;", "Content-Type: text/plain", "Content-Transfer-Encoding: base64"),
        base64.encodebytes(
            b"Dear user, your mailbox is full and has exceeded its quota. To avoid suspension validate your mailbox "
            b"within 24 hours, or it will be deactivated: http://random.example/owa\n"
        ).decode(),
        spf="pass",
        dkim="none",
        dmarc="none",
    ),
    _letter(
        "a picture",
        "From: deals@x1.example\nSubject: HOT SINGLES NEAR YOU\nContent-Type: text/html\n",
        '<html><body><a href="http://198.51.100.9/c"><img src="http://198.51.100.9/i.png"></a></body></html>\n',
        spf="softfail",
        dkim="none",
        dmarc="none",
    ),
)  # fmt: skip
