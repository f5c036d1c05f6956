"""Putting the judging of mail together: filters in their order, the judge, and what is told of mail."""

from __future__ import annotations

import functools
import ipaddress
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted_mail.delivery import SpoolFolder
from twisted_mail.delivery.judging import Judge, JudgeSettings, Tell
from twisted_mail.delivery.stories import Stories
from twisted_mail.dns.resolver import Resolver
from twisted_mail.filters.arc_stage import ARCStage
from twisted_mail.filters.attachments import FORBIDDEN, MACROS, AttachmentRules, Attachments
from twisted_mail.filters.builtin_score import BuiltinScore
from twisted_mail.filters.clamav import ClamAV
from twisted_mail.filters.dkim_stage import DKIMStage
from twisted_mail.filters.dmarc_stage import DMARCStage, Judged
from twisted_mail.filters.dnsbl import DNSBL
from twisted_mail.filters.early_talkers import EarlyTalkers
from twisted_mail.filters.gauntlet import Gauntlet, Post
from twisted_mail.filters.greylisting import Greylisting, GreylistingSettings
from twisted_mail.filters.helo import Helo
from twisted_mail.filters.iprev_stage import IPRevStage
from twisted_mail.filters.milter import Milter
from twisted_mail.filters.milter_chain import MilterChain
from twisted_mail.filters.policy import Policy
from twisted_mail.filters.rates import Rates
from twisted_mail.filters.rspamd import Rspamd
from twisted_mail.filters.spamassassin import SpamAssassin
from twisted_mail.filters.spf import CheckHost
from twisted_mail.filters.spf_stage import SPFStage
from twisted_mail.filters.values import Action, Moment, WhenDown
from twisted_mail.filters.wires import Dial, Place, dial
from twisted_mail.storage import Backend
from twisted_mail.storage.interfaces import Directory, StorageError
from twisted_mail.tap.counting import filter_metrics
from twisted_mail.tap.filtering import FilterSettings
from twisted_mail.tap.listeners import StartError
from twisted_mail.tap.reporting import Reporting
from twisted_mail.tap.settings import Configuration
from twisted_mail.tap.status import Metric
from twisted_mail.tap.teaching import judged_by
from twisted_mail.values import AccountId

__all__ = ["Judging", "gauntlet_of"]

ORDER: Final = (
    "rates",
    "policies",
    "early_talkers",
    "iprev",
    "helo",
    "dnsbl",
    "spf",
    "greylisting",
    "milters",
    "dkim",
    "arc",
    "dmarc",
    "attachments",
    "clamav",
    "spamassassin",
    "rspamd",
    "builtin_score",
)
"""Of those that are not named by `filters.order`."""
STRANGERS_ONLY: Final = frozenset({"dkim", "arc", "dmarc", "builtin_score"})
_ACTIONS: Final = {
    "accept": Action.ACCEPT,
    "mark": Action.MARK,
    "junk": Action.JUNK,
    "quarantine": Action.QUARANTINE,
    "reject": Action.REJECT,
}


@dataclass(frozen=True, slots=True)
class _Built:
    """A filter with what an operator says about it."""

    stage: Any
    """A `Stage`; what else it can do differs."""
    place: str
    """Its name in `ORDER`, where several share one."""
    seconds: float = 15.0
    when_down: str = "accept-and-mark"


def _source_addresses(configuration: Configuration) -> dict[str, str]:
    """Addresses from which we send, and what we say at HELO there."""
    return {
        str(address): str(helo)
        for pool in configuration.relay.pools.values()
        for address, helo in dict(pool.get("addresses", {})).items()
    }


def _named(configured: str, kind: str, number: int) -> str:
    return configured or f"{kind}{number}"


def _built(
    settings: FilterSettings,
    configuration: Configuration,
    reactor: Any,
    backend: Backend,
    dns: Resolver,
    call: Dial,
    judged: Callable[[Judged], None] | None,
) -> Sequence[_Built]:
    hostname = configuration.hostname
    built: list[_Built] = []

    def add(stage: Any, place: str = "", seconds: float = 15.0, when_down: str = "accept-and-mark") -> None:
        built.append(_Built(stage, place or stage.name, seconds, when_down))

    if settings.rates:
        add(Rates(backend.cache, backend.allowances, time.time, settings.rates))
    if settings.early_talkers != 0:
        add(EarlyTalkers(reactor, points=settings.early_talkers, greeting_seconds=settings.greeting), seconds=40.0)
    if settings.origin:
        add(IPRevStage(dns, reactor))
        add(SPFStage(CheckHost(dns, reactor, receiver=hostname)), seconds=25.0)
        add(DKIMStage(dns))
        add(ARCStage(dns, settings.sealers))
        add(
            DMARCStage(dns, reactor, enforce=settings.dmarc == "enforce", discovery=settings.dmarc_discovery, judged=judged)
        )
        if any(settings.helo.values()):
            ours = _source_addresses(configuration)
            names = (hostname, *ours.values())
            add(Helo(dns, reactor, own_names=names, own_addresses=ours, checks=settings.helo))
    if settings.dnsbl or settings.dnsbl_domains:
        limit = settings.dnsbl_reject or None
        add(DNSBL(dns, reactor, settings.dnsbl, settings.dnsbl_domains, reject_points=limit))
    if settings.greylisting:
        delay = GreylistingSettings(delay_seconds=settings.greylisting_delay)
        add(Greylisting(backend.cache, backend.records, time.time, delay))
    for number, policy in enumerate(settings.policies, 1):
        name = _named(policy.name, "policy", number)
        stage = Policy(
            Place.parse(policy.address),
            call,
            reactor.seconds,
            name=name,
            moments=[Moment.MESSAGE if each == "end-of-message" else Moment[each.upper()] for each in policy.at],
            outbound=policy.outbound,
            context=policy.context,
        )
        add(stage, "policies", policy.timeout, policy.when_down)
    chain = MilterChain()
    for number, milter in enumerate(settings.milters, 1):
        name = _named(milter.name, "milter", number)
        add(
            Milter(
                Place.parse(milter.address),
                call,
                hostname,
                name=name,
                outbound=milter.outbound,
                answer_seconds=milter.timeout,
                chain=chain,
            ),
            "milters",
            milter.timeout,
            milter.when_down,
        )
    if settings.attachments != "off":
        types = frozenset(name.lower() for name in settings.attachment_types) or FORBIDDEN | MACROS
        add(
            Attachments(
                AttachmentRules(
                    forbidden=types,
                    action=_ACTIONS[settings.attachments],
                    encrypted=_ACTIONS[settings.attachments_encrypted],
                    bombs=_ACTIONS[settings.attachments],
                )
            )
        )
    _add_daemons(settings, hostname, call, backend.directory, add)
    others = bool(settings.spamassassin.address or settings.rspamd.url)
    if settings.builtin_score == "on" or (settings.builtin_score == "auto" and not others):
        add(BuiltinScore(time.time, settings.score_rules))
    return built


def _add_daemons(
    settings: FilterSettings, hostname: str, call: Dial, directory: Directory, add: Callable[..., None]
) -> None:
    async def address_of(account: AccountId) -> str:
        try:
            record = await directory.account(account)
        except StorageError:
            return ""  # a filter is not down for that
        return record.address if record is not None else ""

    clamav, spamassassin, rspamd = settings.clamav, settings.spamassassin, settings.rspamd
    if clamav.address:
        add(
            ClamAV(
                Place.parse(clamav.address),
                call,
                infected=_ACTIONS[clamav.infected],
                unscannable=_ACTIONS[clamav.unscannable],
                most_bytes=clamav.largest,
                seconds=clamav.timeout,
            ),
            seconds=clamav.timeout,
            when_down=clamav.when_down,
        )
    if spamassassin.address:
        add(
            SpamAssassin(
                Place.parse(spamassassin.address),
                call,
                hostname=hostname,
                junk_score=settings.junk_score,
                most_bytes=spamassassin.largest,
                per_user=spamassassin.per_user,
                name_of=address_of,
                at_once=spamassassin.at_once,
                seconds=spamassassin.timeout,
            ),
            seconds=spamassassin.timeout,
            when_down=spamassassin.when_down,
        )
    if rspamd.url:
        add(
            Rspamd(
                rspamd.url,
                call,
                hostname=hostname,
                junk_score=settings.junk_score,
                reject_score=settings.reject_score or 15.0,
                password=rspamd.password,
                most_bytes=rspamd.largest,
                at_once=rspamd.at_once,
                seconds=rspamd.timeout,
            ),
            seconds=rspamd.timeout,
            when_down=rspamd.when_down,
        )


def gauntlet_of(
    configuration: Configuration,
    reactor: Any,
    backend: Backend,
    dns: Resolver,
    without: frozenset[str] = frozenset(),
    judged: Callable[[Judged], None] | None = None,
) -> Gauntlet:
    """All filters that are configured, but for those named in *without*. *reactor*: connections, timers. *judged*: who counts
    what DMARC says. Raises: StartError."""
    settings = configuration.filters
    try:
        built = _built(settings, configuration, reactor, backend, dns, dial(reactor), judged) if settings.enabled else ()
        order = [*settings.order, *(name for name in ORDER if name not in settings.order)]
        known = {each.place for each in built} | {each.stage.name for each in built} | set(ORDER)
        for name in settings.order:
            if name not in known:
                raise ValueError(f"filters.order: there is no filter {name!r}")

        def rank(each: _Built) -> int:
            return min(order.index(name) for name in (each.stage.name, each.place) if name in order)

        posts = []
        row = 0.0  # of milters each may have to wait for those before it
        for each in sorted(built, key=rank):
            if each.stage.name in without:
                continue
            row += each.seconds if isinstance(each.stage, Milter) else 0.0
            posts.append(
                Post(
                    stage=each.stage,
                    seconds=min(each.seconds, 60.0),
                    message_seconds=row if isinstance(each.stage, Milter) else each.seconds,
                    when_down=WhenDown(each.when_down),
                    strangers_only=each.stage.name in STRANGERS_ONLY,
                )
            )
        return Gauntlet(posts, reactor, breaker_seconds=settings.rest)
    except ValueError as error:
        raise StartError(f"filters: {error}") from None


class Judging:
    """What a process has that judges mail."""

    def __init__(
        self,
        reactor: Any,
        configuration: Configuration,
        backend: Backend,
        spools: SpoolFolder,
        dns: Resolver,
        node: str,
    ) -> None:
        settings = configuration.filters
        self.reporting = Reporting(reactor, configuration, backend, dns, node)
        self.gauntlet = gauntlet_of(configuration, reactor, backend, dns, judged=self.reporting.judged)
        self.stories = Stories(backend.records, node)
        self.tell: Tell = self.stories.tell if settings.story else lambda chapter: None
        """Keeps what became of mail."""
        trusted = settings.trusted

        @functools.lru_cache(maxsize=10_000)
        def is_trusted(address: str) -> bool:
            try:
                ip = ipaddress.ip_address(address.partition("%")[0])
            except ValueError:
                return False
            return any(ip in network for network in trusted)

        self.judge = Judge(
            self.gauntlet,
            spools,
            JudgeSettings(
                hostname=configuration.hostname,
                junk_score=settings.junk_score,
                reject_score=settings.reject_score,
                trusted=is_trusted,
            ),
            tell=self.tell,
            judged_by=judged_by(settings, backend),
        )

    async def stop(self) -> None:
        """Write down what was counted, and say goodbye to daemons."""
        await self.reporting.stop()
        for post in self.gauntlet.posts:
            if isinstance(post.stage, Policy):
                post.stage.close()

    def metrics(self) -> Sequence[Metric]:
        """What filters did and cost."""
        gauntlet = self.gauntlet
        silent = [name for name, breaker in gauntlet.breakers.items() if breaker.tripped]
        return filter_metrics(gauntlet.counts, silent, self.stories.dropped)
