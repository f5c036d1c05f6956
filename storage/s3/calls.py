"""Calls to the object store: in threads, repeated with jitter until their time is over, their errors translated.

The driver's own retries are off: each of its calls is one request. What waits for the next attempt holds no thread.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from functools import cache
from typing import Any, Final, TypeVar

import boto3
from botocore.config import Config
from botocore.credentials import EnvProvider
from botocore.handlers import add_expect_header
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from twisted_mail.storage.interfaces import Refused, StorageError, Unavailable
from twisted_mail.storage.s3.faults import Fault, Forbidden, NoBucket, translate
from twisted_mail.storage.s3.options import Settings
from twisted_mail.storage.s3.threads import Threads

__all__ = ["Calls", "connect"]

T = TypeVar("T")

FIRST_DELAY: Final = 0.1
"""Seconds; the delay before attempt n + 1 is drawn from nothing to this times 2^n, at most `MAX_DELAY`."""
MAX_DELAY: Final = 2.0
OCTETS_PER_SECOND: Final = 1_048_576
"""A body may take as long as at this rate, beside the patience."""
CONNECT_SECONDS: Final = 3.0
QUICK_SECONDS: Final = 2.0
"""While nothing answers, a call is tried once and for so long only."""
PROBE_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 30.0
STOP_SECONDS: Final = 20.0


_sessions = threading.Lock()
"""Clients are made one at a time; once made, they may be used by any thread."""


@cache
def _session() -> Any:
    """One for all, since it keeps the protocol's description (reading it takes 0.2 s)."""
    return boto3.session.Session()


def connect(settings: Settings) -> Any:
    """The driver's client (Any: it is made at run time). Takes some 50 ms; call it in a thread. Raises: StorageError."""
    key, secret, token = settings.key, settings.secret, None
    if not key:
        found = EnvProvider().load()
        if found is None:
            raise Forbidden("no credentials for the object store: none in the URL, none in the environment")
        frozen = found.get_frozen_credentials()
        key, secret, token = frozen.access_key, frozen.secret_key, frozen.token
    with _sessions:
        return _client(settings, key, secret, token)


def _client(settings: Settings, key: str, secret: str, token: str | None) -> Any:
    client = _session().client(
        "s3",
        endpoint_url=settings.endpoint,
        region_name=settings.region,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token,
        verify=settings.authorities,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": settings.addressing},
            # checksums that are added unasked change the body's coding, which not every store understands
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            max_pool_connections=settings.threads,
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=settings.timeout_seconds,
            tcp_keepalive=True,
        ),
    )
    # "Expect: 100-continue" costs a round trip and a fifth of the CPU for each put, and saves the body when it is refused
    client.meta.events.unregister("before-call.s3", add_expect_header)
    return client


class _TimeIsUp(Fault):
    """Says less of what is the matter than what an earlier attempt found."""


class _Crowded(_TimeIsUp):
    """All threads were busy: that says nothing of the store, which others are just talking with."""


class Calls:
    """One object store's calls, and whether it answers."""

    _log = Logger()

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        *,
        open_client: Callable[[Settings], Any] = connect,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.settings = settings
        self.reactor = reactor
        self.threads = Threads(reactor, settings.threads, "s3")
        self._open_client = open_client
        self._draw = draw
        self._client: Any = None
        self._trouble: str | None = None
        self._answered_at = 0.0
        self._probing = LoopingCall(self._probe)
        self._probing.clock = reactor

    async def start(self) -> None:
        """Raises: StorageError (no credentials, no such file of authorities)."""
        self.threads.start()
        try:
            self._client = await self.threads.run(lambda: self._open_client(self.settings))
        except (OSError, ValueError) as error:
            raise StorageError(f"{self.settings.place} cannot be used: {error}") from error
        self._answered_at = self.reactor.seconds()
        self._probing.start(PROBE_SECONDS, now=False)

    async def stop(self) -> None:
        """Let what is in flight end, and close the connections."""
        if self._probing.running:
            self._probing.stop()
        if not self.threads.closed and not await self.threads.stop(STOP_SECONDS):
            self._log.warn("{place} holds requests that do not end", place=self.settings.place)
        if self._client is not None:
            self._client.close()
            self._client = None

    @property
    def trouble(self) -> str | None:
        """What is the matter, once a call has been given up; None again as soon as one is answered."""
        return self._trouble

    def deadline(self, octets: int = 0) -> float:
        """Until when a call with a body of *octets* may be repeated, by the reactor's clock."""
        return float(self.reactor.seconds()) + self.settings.timeout_seconds + octets / OCTETS_PER_SECOND

    async def run(self, work: Callable[[Any], T], *, octets: int = 0, until: float | None = None) -> T:
        """Call ``work(client)`` in a thread, again if it fails and may be repeated.

        Raises: what `translate` says; for a write Refused means that no attempt can have been carried out.
        """
        limit = self.deadline(octets) if until is None else until
        quick = self._trouble is not None
        if quick:
            # everybody who waits in vain for a store that is down keeps somebody else waiting
            limit = min(limit, float(self.reactor.seconds()) + QUICK_SECONDS)
        certain = True
        attempt = 0
        reason = ""
        while True:
            try:
                result = await self._once(work, limit)
            except Fault as fault:
                certain = certain and fault.certain
                if not reason or not isinstance(fault, _TimeIsUp):
                    reason = str(fault)
                pause = self._draw() * min(MAX_DELAY, FIRST_DELAY * 2**attempt)
                if quick or self.reactor.seconds() + pause >= limit:
                    if not isinstance(fault, _Crowded):
                        self._gave_up(reason)
                    raise (Refused if certain else Unavailable)(reason) from fault
                await deferLater(self.reactor, pause)
                attempt += 1
            else:
                self._answered()
                return result

    async def pause(self, attempt: int) -> None:
        """Wait as before a repetition."""
        await deferLater(self.reactor, self._draw() * min(MAX_DELAY, FIRST_DELAY * 2**attempt))

    async def _once(self, work: Callable[[Any], T], limit: float) -> T:
        left = limit - self.reactor.seconds()
        if left <= 0:
            raise _TimeIsUp("the object store does not answer in time", certain=True)
        begun = False

        def begin() -> T:
            nonlocal begun
            begun = True
            return work(self._client)

        doing: Deferred[T] = self.threads.run(begin)
        doing.addTimeout(left, self.reactor)
        try:
            return await doing
        except TimeoutError:
            if not begun:
                raise _Crowded("too many requests wait for the object store", certain=True) from None
            raise _TimeIsUp("the object store does not answer in time", certain=False) from None
        except StorageError:
            raise
        except Exception as error:
            translated = translate(error)
            if translated is error:
                raise
            if isinstance(translated, (Forbidden, NoBucket)):
                self._gave_up(str(translated))
            elif isinstance(translated, StorageError):
                self._answered()  # "there is no such object" is an answer
            raise translated from error

    def _answered(self) -> None:
        self._answered_at = self.reactor.seconds()
        if self._trouble is not None:
            self._log.info("{place} answers again", place=self.settings.place)
            self._trouble = None

    def _gave_up(self, text: str) -> None:
        if self._trouble is None:
            self._log.warn("{place}: {text}", place=self.settings.place, text=text)
        self._trouble = text

    def _probe(self) -> Deferred[None] | None:
        """Ask the store while it is in trouble, or when nobody has asked for a while."""
        if self._trouble is None and self.reactor.seconds() < self._answered_at + IDLE_SECONDS:
            return None
        return Deferred.fromCoroutine(self._ask())

    async def _ask(self) -> None:
        limit = float(self.reactor.seconds()) + QUICK_SECONDS
        try:
            await self.run(lambda client: client.head_bucket(Bucket=self.settings.bucket), until=limit)
        except StorageError as error:
            self._gave_up(str(error))
        except Exception:
            self._log.failure("{place} could not be asked", place=self.settings.place)
