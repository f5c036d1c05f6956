"""The resolver: asks recursive name servers, believes what can be believed, and remembers it for as long as it holds.

It is a stub (RFC 1034 section 5.3.1): recursion and validation are done by the servers it is given. Their word on validation
(the AD bit) counts only where the operator says that they validate and that the way to them is safe (RFC 6840 section 5.7,
RFC 7672 section 2.1): a resolver on this machine, as a rule.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import dns.rdata
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_mail.dns.cache import Cache
from twisted_mail.dns.messages import Kind, Question, Reply, read_reply
from twisted_mail.dns.names import BadName, a_labels, query_name
from twisted_mail.dns.servers import NameServer
from twisted_mail.dns.transport import SuspiciousReplies, Transport, Unanswered
from twisted_mail.dns.values import MX, TLSA, Answer, DNSFailure, NoSuchName

__all__ = ["Resolver", "ResolverSettings"]

T = TypeVar("T")

_NAMES: Final = 3
_DENIED: Final = "*"
"""The cache's type for a name that does not exist, whatever is asked of it (RFC 8020)."""


@dataclass(frozen=True, slots=True)
class ResolverSettings:
    """How long, how often, how much."""

    dnssec: bool = False
    """The servers validate, and the way to them is safe: their AD bit is believed."""
    timeout_seconds: float = 2.0
    """For the first question to a server; doubled in each round."""
    rounds: int = 3
    """How often all servers are tried."""
    limit_seconds: float = 20.0
    """For one question with all that it needs, aliases included."""
    avoid_seconds: float = 30.0
    """For so long a server that did not answer is asked last."""
    silent_seconds: float = 8.0
    """When for so long no server has answered anything (`silent_questions` questions at least, about three names), they are
    taken for gone: a question goes to one of them in turn then, once, for `probe_seconds`, until one answers."""
    silent_questions: int = 5
    probe_seconds: float = 1.0
    entries: int = 50_000
    """Answers kept."""
    records: int = 100
    """Most records of an answer; of mail exchangers the most preferred stay."""
    aliases: int = 8
    """Most CNAMEs in a row."""
    ttl_seconds: float = 86_400.0
    """Nothing is kept longer."""
    negative_seconds: float = 3600.0
    """That a name or a type does not exist is not kept longer (RFC 2308 section 5)."""
    failure_seconds: float = 5.0
    """A failure is kept for so long (RFC 9520 section 3.2: at least 1 s, at most 5 min), so that a queue full of mail for one
    domain does not ask a thousand times what cannot be answered."""
    mix_case: bool = False
    """Letters in random case (draft-vixie-dnsext-dns0x20): harder to guess, but some servers do not give them back."""
    octets: int = 32_768
    """Most octets of the texts and data of one answer."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What is cached: records, or a denial, or a failure."""

    kind: Kind
    records: tuple[object, ...] = ()
    """Values of ours already: an answer is read once and given many times."""
    name: str = ""
    secure: bool = False
    ttl: float = 0.0
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Form(Generic[T]):
    """How records of one type become values of ours."""

    type: str
    read: Callable[[dns.rdata.Rdata], T]


class Resolver:
    """Implements `twisted_mail.dns.values.DNS`."""

    _log = Logger()

    def __init__(
        self,
        transport: Transport,
        servers: tuple[NameServer, ...],
        clock: IReactorTime,
        settings: ResolverSettings | None = None,
        *,
        rng: random.Random | None = None,
    ) -> None:
        """*rng* numbers the questions: by default from the system's own entropy (RFC 5452 section 9.2)."""
        if not servers:
            raise ValueError("a resolver needs a name server")
        self._transport = transport
        self._servers = servers
        self._clock = clock
        self.settings = settings or ResolverSettings()
        self._rng = rng or random.SystemRandom()
        self._cache: Cache[_Outcome] = Cache(clock, self.settings.entries)
        self._asking: dict[tuple[str, str], list[Deferred[_Outcome]]] = {}
        self._avoided: dict[NameServer, float] = {}
        self._unanswered = 0
        """Questions without an answer since the last one that had one."""
        self._unanswered_since = 0.0
        self._unanswered_names: set[str] = set()
        """What they were about, up to three: that one domain's own servers are dead says nothing of ours."""
        self._plain: set[NameServer] = set()
        """Servers that do not know EDNS."""

    # --- what is asked

    async def mx(self, domain: str) -> Answer[MX]:
        return await self._ask(domain, _MX)

    async def a(self, name: str) -> Answer[str]:
        return await self._ask(name, _A)

    async def aaaa(self, name: str) -> Answer[str]:
        return await self._ask(name, _AAAA)

    async def txt(self, name: str) -> Answer[bytes]:
        return await self._ask(name, _TXT)

    async def tlsa(self, name: str) -> Answer[TLSA]:
        return await self._ask(name, _TLSA)

    async def ptr(self, address: str) -> Answer[str]:
        try:
            name = ipaddress.ip_address(address).reverse_pointer
        except ValueError as error:
            raise DNSFailure(f"{address!r} is no IP address") from error
        return await self._ask(name, _PTR)

    async def cname(self, name: str) -> Answer[str]:
        return await self._ask(name, _CNAME)

    def flush(self, domain: str | None = None) -> None:
        try:
            self._cache.flush(None if domain is None else a_labels(domain))
        except BadName:
            return  # nothing is cached of what is no name

    # --- what comes of it

    async def _ask(self, name: str, form: _Form[T]) -> Answer[T]:
        try:
            name = query_name(name)
        except BadName as error:
            raise NoSuchName(name[:253]) from error  # nothing of that form is in the DNS
        outcome, left = await self._find(name, form)
        if outcome.kind is Kind.FAILED:
            raise DNSFailure(f"{form.type} of {name}: {outcome.why}")
        if outcome.kind is Kind.NO_NAME:
            raise NoSuchName(outcome.name, secure=outcome.secure)
        return Answer(outcome.records, left, outcome.secure, outcome.name)  # type: ignore[arg-type]  # `form` made them

    def _read(self, name: str, form: _Form[Any], records: tuple[dns.rdata.Rdata, ...]) -> tuple[object, ...]:
        """Each record once, and not more than anybody needs."""
        values: list[Any] = list(dict.fromkeys(form.read(record) for record in records))
        if values and isinstance(values[0], MX):
            values.sort()
        kept, octets = values[: self.settings.records], 0
        for index, value in enumerate(kept):
            data = value.data if isinstance(value, TLSA) else value
            octets += len(data) if isinstance(data, (bytes, str)) else 0
            if octets > self.settings.octets:
                kept = kept[:index]
                break
        if len(kept) < len(values):
            self._log.info("{name} has {count} records; {kept} are used", name=name, count=len(values), kept=len(kept))
        return tuple(kept)

    async def _find(self, name: str, form: _Form[T]) -> tuple[_Outcome, float]:
        """From the cache, from whoever is asking the same, or from a server; with the seconds for which it holds."""
        type = form.type
        cached = self._cache.get(name, type) or self._cache.get(name, _DENIED)
        if cached is not None:
            return cached
        key = (name, type)
        waiting = self._asking.get(key)
        mine: Deferred[_Outcome] = Deferred(lambda gone: self._forget(key, gone))
        if waiting is not None:
            waiting.append(mine)
        else:
            self._asking[key] = [mine]
            # On its own, so that an asker who is cancelled takes nothing away from the others.
            Deferred.fromCoroutine(self._resolve(name, form)).addBoth(self._tell, key)
        outcome = await mine
        return outcome, outcome.ttl

    def _forget(self, key: tuple[str, str], gone: Deferred[_Outcome]) -> None:
        waiting = self._asking.get(key, [])
        if gone in waiting:
            waiting.remove(gone)

    def _tell(self, result: _Outcome | Failure, key: tuple[str, str]) -> None:
        if isinstance(result, Failure):  # a fault of ours; whoever asked must still hear something
            self._log.failure("asking for {key}", result, key=key)
            result = _Outcome(Kind.FAILED, why="the resolver failed")
        else:
            denied = result.kind is Kind.NO_NAME and result.name == key[0]
            self._cache.put(key[0], _DENIED if denied else key[1], result, result.ttl)
        for waiting in self._asking.pop(key):
            waiting.callback(result)

    async def _resolve(self, name: str, form: _Form[T]) -> _Outcome:
        """Ask, and follow aliases that a reply leaves open. Never raises."""
        deadline = self._clock.seconds() + self.settings.limit_seconds
        seen, secure, ttl, current = {name}, True, self.settings.ttl_seconds, name
        aliases = 0
        while True:
            reply = await self._reply(current, form.type, deadline, self.settings.aliases - aliases)
            if reply.kind is Kind.FAILED:
                return _Outcome(Kind.FAILED, why=reply.why, ttl=self.settings.failure_seconds)
            secure = secure and reply.authentic and self.settings.dnssec
            ttl = min(ttl, reply.ttl)
            aliases += reply.aliases
            if reply.kind is not Kind.ALIAS:
                if reply.kind is not Kind.RECORDS:
                    ttl = min(ttl, self.settings.negative_seconds)
                return _Outcome(reply.kind, self._read(name, form, reply.records), reply.name, secure, ttl)
            current = reply.name
            if current in seen:
                why = f"CNAMEs in a circle at {current}"
                return _Outcome(Kind.FAILED, why=why, ttl=self.settings.failure_seconds)
            seen.add(current)
            try:
                query_name(current)
            except BadName:
                return _Outcome(Kind.NO_NAME, name=current, secure=secure, ttl=min(ttl, self.settings.negative_seconds))

    async def _reply(self, name: str, type: str, deadline: float, most_aliases: int) -> Reply:
        """The first answer of any server that is one."""
        why, asked = "no server answers", False
        for round in range(self.settings.rounds):
            for server in self._in_order():
                left = deadline - self._clock.seconds()
                if left <= 0:
                    return Reply(Kind.FAILED, why=f"no answer within {self.settings.limit_seconds:g} s ({why})")
                seconds = min(left, self.settings.timeout_seconds * 2**round)
                if gone := self._gone:
                    if asked:
                        return Reply(Kind.FAILED, why=why)
                    server = self._servers[self._unanswered % len(self._servers)]
                    seconds = min(seconds, self.settings.probe_seconds)
                asked = True
                try:
                    reply = await self._exchange(server, name, type, seconds, most_aliases)
                except Unanswered as error:
                    why = str(error)
                    self._missed(server, name)
                    if gone:
                        return Reply(Kind.FAILED, why=why)
                    continue
                self._avoided.pop(server, None)
                self._unanswered = 0
                if reply.kind is not Kind.FAILED:
                    return reply
                why = reply.why
            if why and not self._avoided:
                break  # every server answered, and none had an answer: asking again at once will not help
        return Reply(Kind.FAILED, why=why)

    @property
    def _gone(self) -> bool:
        """No server has answered anything for a while: the network is down, or all of them are."""
        settings = self.settings
        return (
            self._unanswered >= settings.silent_questions
            and len(self._unanswered_names) >= _NAMES
            and self._clock.seconds() - self._unanswered_since >= settings.silent_seconds
        )

    def _missed(self, server: NameServer, name: str) -> None:
        now = self._clock.seconds()
        self._avoided[server] = now + self.settings.avoid_seconds
        if not self._unanswered:
            self._unanswered_since = now
            self._unanswered_names.clear()
        self._unanswered += 1
        if len(self._unanswered_names) < _NAMES:
            self._unanswered_names.add(name)

    def _in_order(self) -> list[NameServer]:
        """As configured, those that did not answer lately last."""
        now = self._clock.seconds()
        for server in [server for server, until in self._avoided.items() if until <= now]:
            del self._avoided[server]
        return sorted(self._servers, key=lambda server: server in self._avoided)

    async def _exchange(self, server: NameServer, name: str, type: str, seconds: float, most_aliases: int) -> Reply:
        """One server's answer: by UDP, by TCP where it does not fit or somebody interferes, without EDNS where it must be.

        Raises Unanswered.
        """
        edns = server not in self._plain
        question = self._question(name, type, edns)

        def judge(octets: bytes) -> Reply | None:
            return read_reply(question, octets, most_aliases=most_aliases)

        try:
            reply = await self._transport.datagram(server, question.octets, judge, seconds)
            if reply.kind is Kind.NO_EDNS:
                if len(self._plain) < 64:
                    self._plain.add(server)
                question = self._question(name, type, False)
                reply = await self._transport.datagram(server, question.octets, judge, seconds)
        except SuspiciousReplies:
            self._log.warn("{server}: replies to questions that were not asked; asking by TCP", server=str(server))
            reply = Reply(Kind.TRUNCATED)
        if reply.kind is Kind.TRUNCATED:
            reply = await self._transport.stream(server, question.octets, judge, seconds)
            if reply.kind is Kind.TRUNCATED:
                return Reply(Kind.FAILED, why="an answer that does not fit into TCP")
        return reply

    def _question(self, name: str, type: str, edns: bool) -> Question:
        settings = self.settings
        return Question.make(name, type, self._rng, dnssec=settings.dnssec, edns=edns, mix_case=settings.mix_case)


# --- the forms of records; `Any` because dnspython makes their classes at run time


def _host(record: dns.rdata.Rdata, field: str) -> str:
    target: dns.name.Name = getattr(record, field)
    return target.to_text(omit_final_dot=True).lower() if target.labels != (b"",) else ""


def _mx(record: dns.rdata.Rdata) -> MX:
    return MX(record.preference, _host(record, "exchange"))  # type: ignore[attr-defined]


def _address(record: dns.rdata.Rdata) -> str:
    return str(record.address)  # type: ignore[attr-defined]


def _txt(record: dns.rdata.Rdata) -> bytes:
    return b"".join(record.strings)  # type: ignore[attr-defined]


def _tlsa(record: dns.rdata.Rdata) -> TLSA:
    return TLSA(record.usage, record.selector, record.mtype, bytes(record.cert))  # type: ignore[attr-defined]


_MX: Final = _Form("MX", _mx)
_A: Final = _Form("A", _address)
_AAAA: Final = _Form("AAAA", _address)
_TXT: Final = _Form("TXT", _txt)
_TLSA: Final = _Form("TLSA", _tlsa)
_PTR: Final = _Form("PTR", lambda record: _host(record, "target"))
_CNAME: Final = _Form("CNAME", lambda record: _host(record, "target"))
