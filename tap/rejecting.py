"""What the sender of a message is told that somebody's Sieve script has refused, where no reply could say so (RFC 5429)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from twisted_mail.delivery.effects import Send
from twisted_mail.mime import decode_header, first_value, message_ids
from twisted_mail.reports.delivery import write_delivery_report
from twisted_mail.reports.fields import field, rfc822
from twisted_mail.reports.parts import Letter, Returned, bounded_header, report_message
from twisted_mail.reports.values import Action, DeliveryReport, RecipientStatus
from twisted_mail.sieve.values import Reject
from twisted_mail.values import DeliveryId

__all__ = ["Rejections"]

_SUBJECT: Final = 100
_REASON: Final = 4000


class Rejections:
    """Implements `delivery.effects.Bounce`: ereject is told by a delivery status notification (RFC 3464), reject by a
    message disposition notification (RFC 8098)."""

    def __init__(self, send: Send, hostname: str, *, wall: Callable[[], float] = time.time) -> None:
        self._send = send
        self._hostname = hostname
        self._wall = wall

    async def __call__(
        self, cause: DeliveryId, reject: Reject, *, sender: str, recipient: str, header: bytes, received: float
    ) -> None:
        """See `delivery.effects.Bounce`."""
        international = not (sender + recipient).isascii() or not header.isascii()
        kept = bounded_header(header)
        returned = Returned(kept, full=False, international=international) if kept else None
        subject = decode_header(first_value(header, b"subject") or b"")[:_SUBJECT]
        ids = message_ids(first_value(header, b"message-id") or b"")
        letter = Letter(
            f"Mail delivery <mailer-daemon@{self._hostname}>",
            sender,
            f"Refused: {subject}" if subject else "Your message was refused",
            f"{cause}.refused@{self._hostname}",
            self._wall(),
            about=ids[0] if ids else "",
        )
        named = f' "{subject}"' if subject else ""
        text = (
            f"Your message{named} to {recipient} was refused by the recipient's mail filter.\n"
            f"The reason given is:\n\n{reject.reason.strip()[:_REASON]}\n"
        )
        if reject.ereject:
            status = RecipientStatus(recipient, Action.FAILED, "5.7.1", diagnostic=f"550 5.7.1 {reject.reason.strip()[:500]}")
            report = DeliveryReport((status,), reporter=self._hostname, arrival=received)
            octets = write_delivery_report(report, letter, returned, subject=subject, international=international)
        else:
            part = "".join(
                (
                    field("Reporting-UA", f"{self._hostname}; Sieve"),
                    field("Final-Recipient", rfc822(recipient, international), ascii_only=not international),
                    field("Original-Message-ID", f"<{ids[0]}>", ascii_only=not international) if ids else "",
                    field("Disposition", "automatic-action/MDN-sent-automatically; deleted"),
                )
            )
            kind = "message/global-disposition-notification" if international else "message/disposition-notification"
            octets = report_message(letter, "disposition-notification", text, kind, part, returned)
        await self._send(cause, "refused", sender, octets)
