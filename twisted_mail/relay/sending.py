"""Carrying parcels: hosts tried in order, connections kept for the next message, a verdict for every recipient.

What may have been delivered is never sent again in the same call: once the end of a message is on its way, only the server's
answer, or the lack of one, is told (RFC 1047).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from twisted_mail.relay.connections import Client
from twisted_mail.relay.kept import Kept, Key
from twisted_mail.relay.opening import NotOpened, Opening, SendingSettings, TLSNoted, verdict_on, where
from twisted_mail.relay.tls_contexts import ClientTLS
from twisted_mail.relay.values import Host, Parcel, Protection, Result, Route, RouteFailure, Source, Stage, Verdict
from twisted_mail.smtp.client import replies as heard
from twisted_mail.smtp.client.conversation import Event
from twisted_mail.smtp.client.envelope import portion

__all__ = ["Sender", "SendingSettings"]

_COALESCE: Final = 16_384
"""Octets of a message that are shorter than this are not written by themselves."""
_LOST_LEASE: Final = heard.Heard(
    heard.Reply(451, "4.3.0", "The lease on the message was lost while it was being sent", remote=False), heard.Stage.BODY
)
_UNREADABLE: Final = heard.Heard(
    heard.Reply(451, "4.3.0", "The message could not be read while it was being sent", remote=False), heard.Stage.BODY
)


class _After(enum.Enum):
    """What a connection leaves."""

    DONE = "done"
    """No recipient waits any more."""
    DEAD = "dead"
    """It had been kept, and had ended before anything was sent."""
    ENDED = "ended"
    """It ended before all was done."""
    FULL = "full"
    """It has taken as many messages as it takes; there are more."""
    REFUSED = "refused"
    """The message cannot go to this host, but perhaps to another."""


@dataclass(slots=True)
class _Job:
    """One call of `send`."""

    route: Route
    parcel: Parcel
    source: Source
    before_end: Callable[[], bool]
    verdicts: list[Verdict | None]
    waiting: list[int]
    """Recipients that may still be given to a server, by their place."""
    attempts: int = 0
    """Connections opened so far."""
    tried: set[tuple[str, int, str]] = field(default_factory=set)
    """Hosts, ports and addresses that were connected to."""

    def set_all(self, verdict: Verdict) -> None:
        for at in self.waiting:
            self.verdicts[at] = verdict


class Sender:
    """Implements `values.Sending`. *reactor*: IReactorTCP and IReactorUNIX; Any, as Twisted has no common type for them.

    *clock* owns every time limit. *noted*: told of each attempt at TLS.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        clock: IReactorTime,
        tls: ClientTLS,
        settings: SendingSettings,
        noted: TLSNoted | None = None,
    ) -> None:
        self._settings = settings
        self._opening = Opening(reactor, clock, tls, settings, noted)
        self._kept = Kept(settings.idle_connections, settings.idle_seconds, settings.leave_seconds)
        self._closed = False

    @property
    def idle_connections(self) -> int:
        """How many are kept."""
        return len(self._kept)

    def close(self) -> None:
        """Idle connections leave, and none is kept from now on."""
        self._closed = True
        self._kept.close()

    async def send(
        self,
        route: Route,
        parcel: Parcel,
        source: Source,
        protections: Callable[[Host], Protection | RouteFailure],
        before_end: Callable[[], bool],
    ) -> Sequence[Verdict]:
        """See `values.Sending`."""
        count = len(parcel.addressees)
        job = _Job(route, parcel, source, before_end, [None] * count, list(range(count)))
        for host, protection in self._in_order(route, source, protections):
            if isinstance(protection, RouteFailure):
                result = Result.PERMANENT if protection.permanent else Result.TEMPORARY
                job.set_all(Verdict(result, protection.reply, Stage.TLS, host.name, about_connection=True, remote=False))
                continue
            await self._to(job, host, protection)
            if not job.waiting or job.attempts >= self._settings.attempts:
                break
        missing = Verdict(
            Result.TEMPORARY, "451 4.4.4 There is no server to send it to", Stage.ROUTE, about_connection=True, remote=False
        )
        return [verdict if verdict is not None else missing for verdict in job.verdicts]

    # --- hosts

    def _in_order(
        self, route: Route, source: Source, protections: Callable[[Host], Protection | RouteFailure]
    ) -> list[tuple[Host, Protection | RouteFailure]]:
        """Hosts with what is asked of them; of those that are preferred equally, first one that has a connection."""
        hosts = [(host, protections(host)) for host in route.hosts]
        if len(hosts) > 1 and len(self._kept):
            best = hosts[0][0].preference
            for at, (host, protection) in enumerate(hosts):
                if host.preference != best:
                    break
                if isinstance(protection, Protection) and _key(route, host, source, protection) in self._kept:
                    hosts.insert(0, hosts.pop(at))
                    break
        return hosts

    async def _to(self, job: _Job, host: Host, protection: Protection) -> None:
        """Send by *host* whatever it takes: with connections that are kept, then with new ones to each of its addresses."""
        key = _key(job.route, host, job.source, protection)
        while job.waiting:
            client = self._kept.take(key)
            if client is not None:
                kept = True
            else:
                addresses = self._addresses(job, host)
                if not addresses:
                    if all(job.verdicts[at] is None for at in job.waiting):
                        text = f"451 4.4.4 {host.name} has no address that {job.source.address or 'this machine'} can reach"
                        job.set_all(Verdict(Result.TEMPORARY, text, Stage.CONNECT, host.name, job.source.address or "",
                                            about_connection=True, remote=False))  # fmt: skip
                    return
                kept = False
                job.attempts += 1
                try:
                    client = await self._opening.open(job.route, host, addresses, job.source, protection)
                except NotOpened as error:
                    job.set_all(error.verdict)
                    failed = [error.address] if error.address else addresses
                    job.tried.update((host.name, host.port, address) for address in failed)
                    if job.attempts >= self._settings.attempts:
                        return
                    continue
                job.tried.add((host.name, host.port, client.address))
            after: _After | None = None
            try:
                after = await self._with(job, host, client, kept)
            finally:
                if after is None:
                    client.abort()
            if client.conversation.idle and not self._full(client) and not self._closed:
                self._kept.put(key, client)
            else:
                client.leave(self._settings.leave_seconds)
            match after:
                case _After.REFUSED:
                    return
                case _After.FULL:
                    job.tried.discard((host.name, host.port, client.address))
                    job.attempts -= not kept
                case _After.ENDED if not kept and job.attempts >= self._settings.attempts:
                    return

    def _addresses(self, job: _Job, host: Host) -> tuple[str, ...]:
        """Those that were not tried, of the family of the source's address."""
        bind = job.source.address
        return tuple(
            address
            for address in host.addresses
            if (host.name, host.port, address) not in job.tried
            and (bind is None or "/" in address or (":" in address) is (":" in bind))
        )

    def _full(self, client: Client) -> bool:
        offered = client.conversation.offers.most_messages
        most = min(self._settings.messages, offered) if offered else self._settings.messages
        return client.conversation.transactions >= most

    # --- messages

    async def _with(self, job: _Job, host: Host, client: Client, kept: bool) -> _After:
        """As many transactions as it takes, or as the connection bears."""
        talk = client.conversation
        parcel = job.parcel
        everyone = parcel.addressees
        name = where(host, client)
        first = True
        while job.waiting and talk.ended is None and (first or not self._full(client)):
            count = portion([everyone[at] for at in job.waiting], talk.offers) if len(job.waiting) > 1 else 1
            now = job.waiting[:count]
            client.limit(self._settings.transaction_seconds)
            outcomes = await self._transaction(job, client, [everyone[at] for at in now])
            if kept and first and not talk.answered and talk.ended is not None:
                return _After.DEAD
            first = False
            again = []
            anything = any(outcome is not None and outcome.stage is not heard.Stage.RCPT for outcome in outcomes)
            for at, outcome in zip(now, outcomes, strict=True):
                if outcome is None:
                    raise RuntimeError("a recipient without an outcome")
                told = talk.offers.dsn and outcome.reply.code < 300 and bool(everyone[at].notify)
                job.verdicts[at] = verdict_on(outcome, name, client, dsn=told)
                if outcome.about_connection:
                    if outcome.stage is not heard.Stage.END:
                        again.append(at)
                elif anything and outcome.stage is heard.Stage.RCPT and _one_too_many(outcome.reply):
                    again.append(at)
            job.waiting = again + job.waiting[count:]
            if again and talk.ended is None and job.verdicts[again[0]].about_connection:  # type: ignore[union-attr]  # set above
                return _After.REFUSED
        if not job.waiting:
            return _After.DONE
        return _After.ENDED if talk.ended is not None else _After.FULL

    async def _transaction(self, job: _Job, client: Client, addressees: Sequence[Any]) -> list[heard.Heard | None]:
        """What was heard about each of *addressees* (`values.Addressee`; Any, as the engine has a type of its own)."""
        settings, talk = self._settings, client.conversation
        event = talk.send(job.parcel, addressees)
        if event is None:
            event = await client.event(settings.command_seconds)
        if event is Event.BODY:
            wrong = await self._body(job, client)
            if wrong is not None:
                client.abort()
                return [wrong if each is None or each.about_connection else each for each in talk.outcomes]
            event = await client.event(settings.end_seconds)
        return talk.outcomes

    async def _body(self, job: _Job, client: Client) -> heard.Heard | None:
        """Send the message; what has kept us from it, if something has. Its last octets wait for `before_end`."""
        talk, seconds = client.conversation, self._settings.block_seconds
        held = b""
        octets = job.parcel.octets()
        try:
            async for chunk in octets:
                if len(held) < _COALESCE:
                    held = held + chunk if held else chunk
                    continue
                client.write(talk.chunk(held))
                held = chunk
                if client.full:
                    await client.drained(seconds)
                if not talk.wants_body:
                    break
        except Exception as error:
            self._log.failure("a message could not be read: {error}", error=error)
            return _UNREADABLE
        finally:
            close = getattr(octets, "aclose", None)
            if close is not None:
                await close()
        if talk.wants_body:
            if not job.before_end():
                return _LOST_LEASE
            client.write(talk.chunk(held, last=True))
        return None


def _key(route: Route, host: Host, source: Source, protection: Protection) -> Key:
    """What a connection must have in common with another to be used in its place."""
    return Key(
        host.name, host.port, host.addresses[:1] if "/" in host.name else (), route.lmtp, route.implicit_tls, route.login,
        source.address, source.helo, protection,
    )  # fmt: skip


def _one_too_many(reply: heard.Reply) -> bool:
    """RFC 5321 section 4.5.3.1.10: "too many recipients" is about the transaction; the others go in the next one."""
    return reply.code == 452 and reply.enhanced in ("", "4.5.3")
