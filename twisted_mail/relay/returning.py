"""Addresses that nobody has a mailbox for: those that rewriting has made, and those where reports come to.

A rewritten sender (SRS) leads back to whom it was made of; a variable return path (VERP), an address for complaints, and those
for reports (on TLS, on DMARC) are read by the server itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable

from twisted.logger import Logger

from twisted_mail.relay.feedback import Feedback
from twisted_mail.relay.rewriting import SRS, BadPath
from twisted_mail.relay.tls_received import ReceivedTLSReports
from twisted_mail.services import MailRefused, Refusal

__all__ = ["Returning"]


class Returning:
    """Implements `delivery.Returns`."""

    _log = Logger()

    def __init__(
        self,
        *,
        srs: SRS | None = None,
        feedback: Feedback | None = None,
        tls: ReceivedTLSReports | None = None,
        tls_addresses: Collection[str] = (),
        readers: Iterable[tuple[str, Callable[[bytes], Awaitable[object]]]] = (),
    ) -> None:
        """*readers*: addresses of ours, and who reads what comes to them besides; each may raise StorageError."""
        self._srs = srs
        self._feedback = feedback
        self._readers: dict[str, list[Callable[[bytes], Awaitable[object]]]] = {}
        if tls is not None:
            readers = [*((address, tls.take) for address in tls_addresses), *readers]
        for address, reader in readers:
            self._readers.setdefault(address.lower(), []).append(reader)

    def ours(self, address: str) -> bool:
        """Asked of every recipient before the directory is, so it is cheap."""
        return (
            (self._srs is not None and self._srs.ours(address))
            or (self._feedback is not None and self._feedback.wants(address))
            or (bool(self._readers) and address.lower() in self._readers)
        )

    def bounces_only(self, address: str) -> bool:
        """Rewritten senders: whoever got one made, of any address, could send to that address through us."""
        return self._srs is not None and self._srs.ours(address)

    async def leads_to(self, address: str) -> str | None:
        """Whom *address*, one of `ours`, stands for; None: it is read here. Raises: MailRefused, StorageError."""
        if self._srs is None or not self._srs.ours(address):
            return None
        try:
            return await self._srs.reverse(address)
        except BadPath as error:
            raise MailRefused(Refusal.NO_SUCH_RECIPIENT) from error

    async def take(self, address: str, sender: str, octets: bytes) -> None:
        """Read a message to *address*: its first megabyte. Raises: StorageError."""
        readers = self._readers.get(address.lower())
        if readers is not None:
            for reader in readers:
                await reader(octets)
        elif self._feedback is not None:
            heard = await self._feedback.take(address, sender, octets)
            self._log.info("{what} at {address}", what=heard.what.value, address=address)
