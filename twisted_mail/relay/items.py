"""An item of the outbound queue: one message for one recipient at one domain, as it is written down.

What is asked of the delivery (RFC 3461, 2852, 6710, 8689) is kept with it, and what signing needs, so that the body is not
read twice.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from twisted_mail.relay.values import Addressee
from twisted_mail.storage.interfaces import Corrupt, QueueItem, Use
from twisted_mail.values import BlobRef, DeliveryId

__all__ = [
    "VERSION",
    "NewerVersion",
    "Outbound",
    "Place",
    "encoded",
    "outbound_item",
    "outbound_of",
]

VERSION: Final = 1
ENVELOPE_BYTES: Final = 8 * 1024
"""What an engine takes at most."""

Place = Literal["blobs", "queue"]
"""Where a body lies: in the store for blobs, or in the queue's own small one."""


class NewerVersion(Exception):
    """The item was written by a later version of this program; a node that has it will send it."""


class Outbound(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The envelope of an item (MessagePack, a map, so that fields may be added)."""

    version: int = VERSION
    address: str
    """The forward-path, without angle brackets."""
    sender: str = ""
    """The reverse-path; empty for the null one."""
    author: str = ""
    """The reverse-path as it was before it was rewritten (SRS, VERP), where it was."""
    stream: str = "normal"
    login: str = ""
    """Who submitted it; empty: nobody logged in."""
    message_id: str = ""
    """Of the header, without angle brackets."""
    verified: bool = False
    """Of a stranger's mail that is forwarded: the reverse-path is the sender's own (SPF, or an aligned signature)."""
    results: str = ""
    """Of such mail: what this server found when it came, as the value of its Authentication-Results (for ARC)."""
    cause: str = ""
    """Of mail of the server's own: ``bounce``, ``delayed``, ``success``, ``forward``, ``vacation``, ``report``."""
    place: Place = "blobs"
    """Where its body lies."""
    header: int = 0
    """Octets of the header block, up to and without the blank line."""
    body_hash: bytes = b""
    """Of what follows the blank line: SHA-256, relaxed (RFC 6376 section 3.4.4)."""
    eight_bit: bool = False
    smtputf8: bool = False
    requiretls: bool = False
    tls_optional: bool = False
    """``TLS-Required: No`` (RFC 8689 section 5): rather in the clear than not at all."""
    envelope_id: str = ""
    dsn_return: str = ""
    notify: tuple[str, ...] = ()
    original: str = ""
    priority: int | None = None
    deliver_by: float | None = None
    """Seconds since 1970 (RFC 2852)."""
    deliver_by_mode: str = ""
    """``N`` or ``R``, and ``T`` where a trace is wished."""
    due: float = 0.0
    """Before this it was not to be sent (RFC 4865); its time begins here. Seconds since 1970."""
    warned: bool = False
    """The sender was told that it takes longer."""
    trail: tuple[tuple[float, str], ...] = ()
    """The last replies, each with when it was heard (seconds since 1970), oldest first."""

    def addressee(self) -> Addressee:
        return Addressee(self.address, frozenset(self.notify), self.original)

    @property
    def sender_domain(self) -> str:
        """Of whoever wrote it, as lists of suppressed addresses know it; empty for the null sender."""
        return (self.author or self.sender).rpartition("@")[2].lower()


class _Versioned(msgspec.Struct, frozen=True):
    version: int = VERSION


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Outbound)
_version_decoder = msgspec.msgpack.Decoder(_Versioned)


def encoded(outbound: Outbound) -> bytes:
    """Raises: ValueError if it is too large."""
    envelope = _encoder.encode(outbound)
    if len(envelope) > ENVELOPE_BYTES:
        raise ValueError(f"an envelope of {len(envelope)} octets")
    return envelope


def outbound_item(
    id: DeliveryId, outbound: Outbound, body: BlobRef, *, domain: str, created: float, bulk: bool = False
) -> QueueItem:
    """The item of *outbound*; *domain* in its canonical form. Raises: ValueError if its envelope is too large."""
    use: Use = "bulk" if bulk else "outbound"
    return QueueItem(id, use, encoded(outbound), body, domain[:255], outbound.sender[:320], created=created)


def outbound_of(item: QueueItem) -> Outbound:
    """The envelope of *item*. Raises: NewerVersion, Corrupt."""
    try:
        version = _version_decoder.decode(item.envelope).version
        if version > VERSION:
            raise NewerVersion(f"the item has version {version}, this program knows {VERSION}")
        return _decoder.decode(item.envelope)
    except msgspec.MsgspecError as error:
        raise Corrupt("malformed envelope of a queue item") from error
