"""An item of the inbound queue: one copy of a message for one account, as it is written down.

The delivery id is the item's, and the entry's in the account's log later: that is what makes a delivery happen once,
however often it is tried.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from twisted_mail.delivery.judgement import Judgement, shortened
from twisted_mail.storage.interfaces import Corrupt, QueueItem
from twisted_mail.values import AccountId, BlobRef, DeliveryId

__all__ = ["ENVELOPE_BYTES", "USE", "VERSION", "Copy", "Inbound", "NewerVersion", "inbound_of", "queue_item", "zone_at"]

USE: Final = "inbound"
VERSION: Final = 1
ENVELOPE_BYTES: Final = 8 * 1024
"""What an engine takes at most."""
_TEXT: Final = 1024
"""Of addresses, which are there for people; characters."""

Place = Literal["blobs", "queue"]
"""Where a body lies: in the store for blobs, or in the queue's own small one."""


class NewerVersion(Exception):
    """The item was written by a later version of this program; a node that has it will deliver it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One copy of a message: whose it will be, and under which id."""

    delivery: DeliveryId
    account: AccountId
    detail: str = ""
    """The sub-address, where it may choose the mailbox."""
    address: str = ""
    """The recipient as the peer gave it."""
    user: str = ""
    """The account's own address, where it is known."""
    shared: bool = False
    """`address` stands for others too: it is not the account's own."""
    judgement: Judgement | None = None
    """What was found out about the message; None: nobody looked."""


class Inbound(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The envelope of an item (MessagePack, a map, so that fields may be added)."""

    version: int = VERSION
    account: bytes
    detail: str = ""
    address: str = ""
    user: str = ""
    shared: bool = False
    sender: str = ""
    """The reverse-path; empty for the null one. It stands in the message too, as Return-Path."""
    received: int = 0
    """When its last octet had come, seconds since 1970: the internal date."""
    zone: int = 0
    """Minutes east of UTC."""
    repeated: bool = False
    """It may stand in the account already: look the id up."""
    place: Place = "blobs"
    """Where its body lies."""
    judgement: Judgement | None = None

    def copy(self, delivery: DeliveryId) -> Copy:
        """What is to be delivered."""
        return Copy(
            delivery=delivery,
            account=AccountId(self.account),
            detail=self.detail,
            address=self.address,
            user=self.user,
            shared=self.shared,
            judgement=self.judgement,
        )


class _Versioned(msgspec.Struct, frozen=True):
    version: int = VERSION


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Inbound)
_version_decoder = msgspec.msgpack.Decoder(_Versioned)


def zone_at(seconds: float) -> int:
    """This machine's zone at *seconds* since 1970, in minutes east of UTC."""
    return time.localtime(seconds).tm_gmtoff // 60


def queue_item(
    copy: Copy, body: BlobRef, *, sender: str, received: int, repeated: bool, place: Place, created: float
) -> QueueItem:
    """The item of *copy*. Raises: ValueError if its envelope is too large."""
    inbound = Inbound(
        account=copy.account.octets,
        detail=copy.detail,
        address=copy.address[:_TEXT],
        user=copy.user[:_TEXT],
        shared=copy.shared,
        sender=sender[:_TEXT],
        received=received,
        zone=zone_at(received),
        repeated=repeated,
        place=place,
        judgement=None if copy.judgement is None else shortened(copy.judgement),
    )
    envelope = _encoder.encode(inbound)
    if len(envelope) > ENVELOPE_BYTES and inbound.judgement is not None:
        # rather without what people read than not at all
        less = msgspec.structs.replace(inbound.judgement, trace=(), envelope={}, helo="", host="")
        envelope = _encoder.encode(msgspec.structs.replace(inbound, judgement=less))
    if len(envelope) > ENVELOPE_BYTES:
        raise ValueError(f"an envelope of {len(envelope)} octets")
    domain = copy.address.rpartition("@")[2].lower()[:255]
    return QueueItem(copy.delivery, USE, envelope, body, domain, inbound.sender, created=created)


def inbound_of(item: QueueItem) -> Inbound:
    """The envelope of *item*. Raises: NewerVersion, Corrupt."""
    try:
        version = _version_decoder.decode(item.envelope).version
        if version > VERSION:
            raise NewerVersion(f"the item has version {version}, this program knows {VERSION}")
        inbound = _decoder.decode(item.envelope)
        AccountId(inbound.account)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Corrupt("malformed envelope of a queue item") from error
    return inbound
