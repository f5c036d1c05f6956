"""Fetching from pull consumers without waiting: one subscription for all answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import urandom
from typing import Final

from msgspec import json
from nats.aio.msg import Msg
from twisted.logger import Logger

from twisted_mail.storage.interfaces import Refused, Unavailable
from twisted_mail.storage.nats.link import Link, NobodyAnswers

__all__ = ["Delivery", "Pulls"]

NAK: Final = b"-NAK"
PROGRESS: Final = b"+WPI"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that a consumer has given to this process."""

    subject: str
    data: bytes
    reply: str
    stream: str
    consumer: str
    sequence: int
    """Its number in the stream."""
    deliveries: int
    """How often a consumer has given it away, this time counted."""


@dataclass(slots=True)
class _Pull:
    stream: str
    consumer: str
    wanted: int
    got: list[Delivery] = field(default_factory=list)
    gone: bool = False
    """The consumer does not exist, or has no leader."""
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Pulls:
    """Asks consumers for what they have at the moment."""

    _log = Logger()

    def __init__(self, link: Link) -> None:
        self._link = link
        self._inbox = f"_INBOX.{urandom(12).hex()}"
        self._running: dict[str, _Pull] = {}
        self._number = 0

    async def start(self) -> None:
        await self._link.subscribe(f"{self._inbox}.*", self._received)

    async def fetch(self, stream: str, wanted: Mapping[str, int]) -> Mapping[str, Sequence[Delivery] | None]:
        """At most so many of each consumer, by its name; None for a consumer that is not there.

        What comes too late goes back to its consumer at once. Raises: Refused (there is no connection), Unavailable
        (no consumer answers).
        """
        if not await self._link.until_up(self._link.settings.attempt):
            raise Refused("NATS: there is no connection")
        pulls: dict[str, tuple[str, _Pull]] = {}
        try:
            for consumer, number in wanted.items():
                self._number += 1
                token = f"{self._number:x}"
                pulls[consumer] = token, _Pull(stream, consumer, number)
                self._running[token] = pulls[consumer][1]
                body = json.encode({"batch": number, "no_wait": True})
                where = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
                if not await self._link.publish(where, body, reply=f"{self._inbox}.{token}"):
                    pulls[consumer][1].done.set()
            waiting = [asyncio.ensure_future(pull.done.wait()) for _, pull in pulls.values()]
            _, late = await asyncio.wait(waiting, timeout=self._link.settings.attempt)
            for each in late:
                each.cancel()
            if late:
                self._link.was_silent()
            if len(late) == len(pulls) and not any(pull.got for _, pull in pulls.values()):
                raise Unavailable("NATS: no consumer answers")
        except asyncio.CancelledError:
            for _, pull in pulls.values():
                for delivery in pull.got:
                    await self.give_back(delivery)
            raise
        finally:
            for token, _ in pulls.values():
                del self._running[token]
        return {consumer: None if pull.gone else pull.got for consumer, (_, pull) in pulls.items()}

    async def _received(self, message: Msg) -> None:
        status = (message.headers or {}).get("Status")
        if status is not None and not message.data:
            # only what is not a message of the stream comes under the subject that was asked with
            pull = self._running.get(message.subject.rpartition(".")[2])
            if pull is not None and status != "100":
                pull.gone = status == "503"
                pull.done.set()
            return
        delivery = _delivery(message)
        if delivery is None:
            self._log.warn("what a consumer sent is not understood")
            return
        for pull in self._running.values():
            if (pull.stream, pull.consumer) == (delivery.stream, delivery.consumer) and not pull.done.is_set():
                pull.got.append(delivery)
                if len(pull.got) >= pull.wanted:
                    pull.done.set()
                return
        await self.give_back(delivery)

    async def give_back(self, delivery: Delivery) -> None:
        """Let the consumer give it to somebody else at once."""
        await self._link.publish(delivery.reply, NAK)

    async def progress(self, delivery: Delivery) -> bool:
        """Tell the consumer that work on it goes on. False: it could not be told."""
        return await self._link.publish(delivery.reply, PROGRESS)

    async def confirm(self, delivery: Delivery) -> None:
        """The same, and wait until the consumer has heard it. Raises: Refused, Unavailable."""
        for last in (False, True):
            try:
                await self._link.request(delivery.reply, PROGRESS, self._link.settings.attempt)
                return
            except NobodyAnswers as error:
                if last:
                    raise Refused(f"NATS: {error}") from error
                await self._link.until_up(self._link.settings.attempt)
            except TimeoutError as error:
                if last:
                    raise Unavailable(f"NATS: {error}") from error


def _delivery(message: Msg) -> Delivery | None:
    """``$JS.ACK.[domain.account.]stream.consumer.deliveries.sequence.…``: 9 tokens, or 11 or more."""
    tokens = message.reply.split(".")
    at = 4 if len(tokens) == 9 else 6
    try:
        deliveries, sequence = int(tokens[at]), int(tokens[at + 1])
    except (IndexError, ValueError):
        return None
    stream, consumer = tokens[at - 2 : at]
    return Delivery(message.subject, message.data, message.reply, stream, consumer, sequence, deliveries)
