"""Which policy is a message's, and whose identifiers are its author's (RFC 9989 section 4.10).

By default the DNS is walked up the tree; a verifier may be told to use the public suffix list as RFC 7489 did.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from twisted.internet.interfaces import IReactorTime

from twisted_mail.dns.cache import Cache
from twisted_mail.dns.names import BadName, a_labels
from twisted_mail.dns.values import DNS, NoSuchName
from twisted_mail.filters.dmarc_record import BadPolicy, DMARCRecord, select_policy
from twisted_mail.filters.origins import Disposition
from twisted_mail.filters.public_suffix import organizational_domain
from twisted_mail.mime.addresses import mailboxes_of, parse_addresses

__all__ = ["Authors", "Discovery", "Found", "PolicyFinder", "authors"]

Discovery = Literal["treewalk", "psl"]
"""Words of RFC 9990 section 3.1.1.6 (``discovery_method``)."""

_WALK: Final = 8
"""Names that are asked for in one walk."""
_DOMAINS: Final = 10
_SECONDS: Final = 60.0
"""For so long what was found is remembered, whatever the records say: a change of policy is seen soon."""


@dataclass(frozen=True, slots=True)
class Authors:
    """Whom From names."""

    domains: tuple[str, ...]
    """A-labels, lower case, each once."""
    wrong: str = ""
    """Why DMARC cannot be asked the usual way: no field, several fields, several domains."""


def authors(values: Sequence[bytes]) -> Authors:
    """The domains in a message's From fields, whose *values* those are (RFC 9989 section 5.3.1)."""
    domains: dict[str, None] = {}
    for value in values[:_DOMAINS]:
        for mailbox in mailboxes_of(parse_addresses(value[:65_536])):
            try:
                domains[a_labels(mailbox.host.decode("utf-8", "replace"))] = None
            except BadName:
                continue
    known = tuple(domains)[:_DOMAINS]
    if not values:
        return Authors((), "there is no From field")
    if not known:
        return Authors((), "From has no domain")
    if len(values) > 1:
        return Authors(known, "there are several From fields")
    if len(known) > 1:
        return Authors(known, "From has several domains")
    return Authors(known)


@dataclass(frozen=True, slots=True)
class Found:
    """The policy for one author domain."""

    domain: str
    """The author's."""
    policy_domain: str
    record: DMARCRecord
    wanted: Disposition
    """For mail of that author domain: ``p``, ``sp`` or ``np``."""
    discovery: Discovery = "treewalk"


@dataclass(frozen=True, slots=True)
class Walk:
    """What one way up the tree has brought."""

    start: str
    records: tuple[tuple[str, DMARCRecord], ...]
    """From the longest name to the shortest."""
    wrong: tuple[str, ...] = field(default=())
    """What could not be used on the way, and where."""

    @property
    def organization(self) -> str:
        """The Organizational Domain of `start` (section 4.10.2)."""
        for name, record in self.records:
            if record.suffix == "n":
                return name
            if record.suffix == "y" and name != self.start:
                labels = self.start.split(".")
                return ".".join(labels[-(name.count(".") + 2) :])
        return self.records[-1][0] if self.records else self.start

    def record(self, name: str) -> DMARCRecord | None:
        return dict(self.records).get(name)


class PolicyFinder:
    """Asks the DNS for policies; one for a process. Every question may raise DNSFailure."""

    def __init__(
        self, dns: DNS, clock: IReactorTime | None = None, *, discovery: Discovery = "treewalk", remembered: int = 10_000
    ) -> None:
        """With a *clock* policies and organizations of so many domains are remembered, for a few minutes."""
        self._dns = dns
        self._discovery: Discovery = discovery
        self._policies: Cache[tuple[Found | None, str]] | None = Cache(clock, remembered) if clock is not None else None
        self._organizations: Cache[str] | None = Cache(clock, remembered) if clock is not None else None

    async def find(self, domain: str) -> tuple[Found | None, str]:
        """The policy that is *domain*'s (section 4.10.1), or None; and what was in error on the way there."""
        if self._policies is None:
            return await self._find(domain)
        known = self._policies.get(domain, "")
        if known is not None:
            return known[0]
        found = await self._find(domain)
        self._policies.put(domain, "", found, _SECONDS)
        return found

    async def _find(self, domain: str) -> tuple[Found | None, str]:
        if self._discovery == "psl":
            walk = await self._walk(domain, (domain, organizational_domain(domain)))
            candidates = [name for name, _ in walk.records]
        else:
            walk = await self._walk(domain, (domain,))
            if not walk.records:
                walk = await self._walk(domain, steps(domain))
            suffixes = [name for name, record in walk.records if record.suffix == "y"]
            candidates = [domain, walk.organization, *suffixes]
        wrong = "; ".join(walk.wrong)
        for name in candidates:
            record = walk.record(name)
            if record is not None:
                wanted = record.policy if name == domain else await self._for_subdomain(domain, record)
                return Found(domain, name, record, wanted, self._discovery), wrong
        return None, wrong

    async def _for_subdomain(self, domain: str, record: DMARCRecord) -> Disposition:
        if record.missing is not None and not await self._exists(domain):
            return record.missing
        return record.subdomains or record.policy

    async def _exists(self, domain: str) -> bool:
        """Section 3.2.14: a name without A, AAAA and MX records does not."""
        for ask in (self._dns.a, self._dns.mx, self._dns.aaaa):
            try:
                if (await ask(domain)).records:
                    return True
            except NoSuchName:
                return False
        return False

    async def _walk(self, start: str, names: Iterable[str]) -> Walk:
        records: list[tuple[str, DMARCRecord]] = []
        wrong: list[str] = []
        for name in dict.fromkeys(names):
            try:
                record = select_policy((await self._dns.txt(f"_dmarc.{name}")).records)
            except NoSuchName:
                continue
            except BadPolicy as error:
                wrong.append(f"{error} at _dmarc.{name}")
                continue
            if record is not None:
                records.append((name, record))
                if record.suffix in "yn" and self._discovery == "treewalk":
                    break
        return Walk(start, tuple(records), tuple(wrong))

    async def aligned(self, author: str, identifier: str, *, strict: bool) -> bool:
        """Whether an authenticated *identifier* speaks for *author* (section 4.4)."""
        if author == identifier:
            return True
        if strict or not identifier:
            return False
        if author.rpartition(".")[2] != identifier.rpartition(".")[2]:
            return False  # nothing above them is the same
        return await self.organization(author) == await self.organization(identifier)

    async def organization(self, domain: str) -> str:
        """The Organizational Domain of *domain*."""
        if self._discovery == "psl":
            return organizational_domain(domain)
        known = self._organizations.get(domain, "") if self._organizations is not None else None
        if known is not None:
            return known[0]
        found = (await self._walk(domain, steps(domain))).organization
        if self._organizations is not None:
            self._organizations.put(domain, "", found, _SECONDS)
        return found


def steps(domain: str) -> tuple[str, ...]:
    """The names whose records are asked for, at most eight (section 4.10): *domain*, then those above it, of a long one
    those from seven labels on."""
    labels = domain.split(".")
    above = labels[1:] if len(labels) < _WALK else labels[-(_WALK - 1) :]
    return (domain, *(".".join(above[at:]) for at in range(len(above))))
