"""Inbound mail: from an address that SMTP was given, and the octets that came, to messages in mailboxes."""

from twisted_mail.delivery.bodies import Bodies
from twisted_mail.delivery.counts import DeliveryCounts
from twisted_mail.delivery.incoming import Ways
from twisted_mail.delivery.intake import DeliverySettings, MailIntake
from twisted_mail.delivery.outbound import OutboundMessage, OutboundQueue
from twisted_mail.delivery.queueing import InboundQueue
from twisted_mail.queueing.spool import SpoolFolder

__all__ = [
    "Bodies",
    "DeliveryCounts",
    "DeliverySettings",
    "InboundQueue",
    "MailIntake",
    "OutboundMessage",
    "OutboundQueue",
    "SpoolFolder",
    "Ways",
]
