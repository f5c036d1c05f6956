"""Notices over NATS: one subject per account, subscribed to while somebody of this process watches it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from os import urandom
from typing import Any

from nats.aio.msg import Msg
from twisted.logger import Logger

from twisted_mail.storage.nats.link import Link, ended
from twisted_mail.values import AccountId, ModSeq

__all__ = ["NATSBus"]


class NATSBus:
    """Implements `Bus`. Those who watch in this process are told directly, with or without a server.

    Of several notices of an account in one turn of the reactor the newest goes out.
    """

    _log = Logger()

    def __init__(self, link: Link, reactor: Any) -> None:
        self._link = link
        self._reactor = reactor
        self._prefix = link.settings.prefix
        self._self = urandom(6).hex().encode()
        """Marks our own notices, which come back."""
        self._watched: dict[AccountId, list[Callable[[ModSeq], None]]] = {}
        self._here: dict[AccountId, ModSeq] = {}
        self._outgoing: dict[AccountId, ModSeq] = {}
        self._changed: set[AccountId] = set()
        """Accounts whose subscription may have to begin or to end."""
        self._ends: dict[AccountId, Callable[[], Awaitable[None]]] = {}
        self._wake = asyncio.Event()
        self._sending: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Within asyncio."""
        self._sending = self._link.spawn(self._send())

    async def stop(self) -> None:
        sending, self._sending = self._sending, None
        if sending is not None:
            await self._flush()
            await ended(sending)

    def publish(self, account: AccountId, modseq: ModSeq) -> None:
        if account in self._watched:
            self._tell_later(account, modseq)
        if self._link.up:
            self._outgoing[account] = max(modseq, self._outgoing.get(account, modseq))
            self._wake.set()

    def subscribe(self, account: AccountId, moved: Callable[[ModSeq], None]) -> Callable[[], None]:
        self._watched.setdefault(account, []).append(moved)
        self._changed.add(account)
        self._wake.set()
        ended = False

        def end() -> None:
            nonlocal ended
            if ended:
                return
            ended = True
            watching = self._watched[account]
            watching.remove(moved)
            if not watching:
                del self._watched[account]
                self._changed.add(account)
                self._wake.set()

        return end

    # --- towards the servers

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._flush()

    async def _flush(self) -> None:
        changed, self._changed = self._changed, set()
        for account in changed:
            end = self._ends.get(account)
            if account in self._watched and end is None:
                self._ends[account] = await self._link.subscribe(self._subject(account), self._received)
            elif account not in self._watched and end is not None:
                del self._ends[account]
                await end()
        outgoing, self._outgoing = self._outgoing, {}
        for account, modseq in outgoing.items():
            await self._link.publish(self._subject(account), b"%d %s" % (modseq, self._self))

    def _subject(self, account: AccountId) -> str:
        return f"{self._prefix}.bus.{account}"

    # --- towards those who watch

    async def _received(self, message: Msg) -> None:
        number, _, sender = message.data.partition(b" ")
        if sender == self._self:
            return
        try:
            account = AccountId.parse(message.subject.rpartition(".")[2])
            modseq = ModSeq(int(number))
        except ValueError:
            self._log.warn("a notice is not understood")
            return
        self._tell(account, modseq)

    def _tell_later(self, account: AccountId, modseq: ModSeq) -> None:
        if not self._here:
            self._reactor.callLater(0, self._tell_here)
        self._here[account] = max(modseq, self._here.get(account, modseq))

    def _tell_here(self) -> None:
        here, self._here = self._here, {}
        for account, modseq in here.items():
            self._tell(account, modseq)

    def _tell(self, account: AccountId, modseq: ModSeq) -> None:
        for moved in list(self._watched.get(account, ())):
            try:
                moved(modseq)
            except Exception:
                self._log.failure("a subscriber of account {account} failed", account=account)
