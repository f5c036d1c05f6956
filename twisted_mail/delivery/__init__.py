"""Inbound mail: from an address that SMTP was given, and the octets that came, to messages in mailboxes."""

from twisted_mail.delivery.intake import DeliverySettings, MailIntake
from twisted_mail.delivery.outbound import OutboundMessage, OutboundQueue

__all__ = ["DeliverySettings", "MailIntake", "OutboundMessage", "OutboundQueue"]
