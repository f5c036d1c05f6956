"""What a peer says of itself: its HELO (RFC 5321 section 4.1.1.1), and the name of its address in the DNS.

Each check has points, or refuses. RFC 5321 section 4.1.4: mail must not be refused only because the name said at HELO does
not lead to the client's address; and many an honest device says something silly. So by default everything is points, and no
single check has as many as make mail junk.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TwistedTimeout

from twisted_mail.dns.values import DNS, DNSFailure, NoSuchName
from twisted_mail.filters.origins import ReverseName
from twisted_mail.filters.peers import ip_of, is_ours, is_public
from twisted_mail.filters.values import ACCEPTED, Action, Answer, Client, Verdict

__all__ = ["CHECKS", "DEFAULTS", "Helo", "HeloFindings", "checks_from"]

CHECKS: Final[Mapping[str, str]] = {
    "syntax": "it is neither a domain name nor an address literal",
    "bare_address": "it is an address without brackets",
    "literal": "it is the literal of another address than the peer's",
    "own_name": "it is a name of ours",
    "own_address": "it is an address of ours",
    "unqualified": "it has no dot, so it names no host on the Internet",
    "unresolvable": "the DNS knows no address and no mail exchanger of it",
    "mismatch": "it leads to other addresses than the peer's, and is not the peer's name",
    "no_reverse": "the peer's address has no name in the DNS",
    "unconfirmed_reverse": "the names of the peer's address do not lead back to it",
    "dynamic": "the peer's name looks like one of a line at home",
}
"""What can be found, in the order in which it is looked for."""

_OF_THE_ADDRESS: Final = frozenset({"no_reverse", "unconfirmed_reverse", "dynamic"})
_KNOWN_SECONDS: Final = 300.0
_MOST_KNOWN: Final = 5_000
_SILENT: Final = 3
"""After so many names in a row without an answer in time, no peer waits for one for a while."""
_SILENT_SECONDS: Final = 60.0
REJECT: Final = "reject"
DEFAULTS: Final[Mapping[str, float | str]] = {
    "syntax": 1.5,
    "bare_address": 1.5,
    "literal": 2.0,
    "own_name": 3.0,
    "own_address": 3.0,
    "unqualified": 1.0,
    "unresolvable": 1.0,
    "mismatch": 0.2,
    "no_reverse": 1.5,
    "unconfirmed_reverse": 0.5,
    "dynamic": 1.5,
}

_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
"""With underscores, which many honest machines have in their names."""
_DOMAIN: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*", re.IGNORECASE)
_LITERAL: Final = re.compile(r"\[(?:(\d{1,3}(?:\.\d{1,3}){3})|IPv6:([0-9a-f:.]+))\]", re.IGNORECASE)
_HOME: Final = re.compile(
    r"(?:^|[-.\d])(?:dyn(?:amic)?(?:ip)?|dhcp|pool|ppp(?:oe)?|[axv]?dsl|cable|dial-?(?:in|up)?|broadband|cust(?:omer)?)(?=[-.\d]|$)"
)
_STATIC: Final = re.compile(r"static|mail|smtp|mx\d*[-.]|relay|\bmta")


@dataclass(frozen=True, slots=True)
class HeloFindings:
    """Noted at the `Client`: which of `CHECKS` apply."""

    found: tuple[str, ...]


_NOTHING: Final = (0.0, HeloFindings(()), ACCEPTED)


def checks_from(table: Mapping[str, Any]) -> dict[str, float | str]:
    """`DEFAULTS` with what the configuration says instead: ``{"own_name": "reject", "dynamic": 0}``.

    Raises: ValueError that names the check.
    """
    checks = dict(DEFAULTS)
    for name, value in table.items():
        if name not in CHECKS:
            raise ValueError(f"{name!r} is no check of HELO; there are {', '.join(CHECKS)}")
        if value == REJECT:
            checks[name] = REJECT
        elif isinstance(value, bool) or not isinstance(value, (int, float)) or not -1000 <= value <= 1000:
            raise ValueError(f'{name}: {value!r} is neither a number of points nor "reject"')
        else:
            checks[name] = float(value)
    return checks


class Helo:
    """A `Stage`, asked at HELO."""

    name = "helo"
    needs = frozenset({"iprev"})
    outbound = False

    def __init__(
        self,
        dns: DNS,
        clock: Any,
        *,
        own_names: Iterable[str] = (),
        own_addresses: Iterable[str] = (),
        checks: Mapping[str, float | str] = DEFAULTS,
        seconds: float = 3.0,
    ) -> None:
        """*own_names*: the server's host names (and domains that no other server sends for). *clock*: IReactorTime; a name
        that is not resolved within *seconds* is not held against anybody."""
        self._dns = dns
        self._clock = clock
        self._names = frozenset(name.rstrip(".").lower() for name in own_names)
        self._addresses = frozenset(ip_of(address) for address in own_addresses) - {None}
        self._checks = dict(checks)
        self._seconds = seconds
        self._known: dict[tuple[str, str, ReverseName | None], tuple[float, HeloFindings, Verdict]] = {}
        """What was found, and until when that holds."""
        self._silent = 0
        """How often in a row the time was over."""
        self._silent_until = 0.0

    async def helo(self, client: Client) -> Verdict:
        if is_ours(client):
            return ACCEPTED
        asked = (client.helo, client.address, client.noted(ReverseName))
        now = self._clock.seconds()
        until, found, verdict = self._known.get(asked, _NOTHING)
        if until <= now:
            found, verdict, sure = await self._look(client)
            if sure:  # most mail comes from few peers, again and again
                if len(self._known) >= _MOST_KNOWN:
                    self._known.clear()
                self._known[asked] = (now + _KNOWN_SECONDS, found, verdict)
        client.note(found)
        return verdict

    # --- looking

    async def _look(self, client: Client) -> tuple[HeloFindings, Verdict, bool]:
        """What there is to find, and whether the DNS had its say."""
        found = self._of_the_name(client)
        addresses = [] if found else await self._of_its_addresses(client)
        found += addresses or []
        found += self._of_the_reverse_name(client)
        return HeloFindings(tuple(found)), self._verdict(found, client), addresses is not None

    def _of_the_name(self, client: Client) -> list[str]:
        """What is wrong with the name as it stands."""
        said = client.helo
        if said.startswith("["):
            literal = _LITERAL.fullmatch(said)
            ip = ip_of(literal[1] or literal[2]) if literal is not None else None
            if ip is None:
                return ["syntax"]
            if ip in self._addresses and ip != ip_of(client.address):
                return ["own_address"]
            return ["literal"] if ip != ip_of(client.address) else []
        if (ip := ip_of(said)) is not None:
            ours = ip in self._addresses and ip != ip_of(client.address)
            return ["own_address"] if ours else ["bare_address"]
        name = said.rstrip(".").lower()
        try:
            ascii_name = name if name.isascii() else name.encode("idna").decode("ascii")  # RFC 6531 section 3.7.1
        except UnicodeError:
            return ["syntax"]
        if not _DOMAIN.fullmatch(ascii_name):
            return ["syntax"]
        if name in self._names:
            return ["own_name"]
        return [] if "." in name else ["unqualified"]

    async def _of_its_addresses(self, client: Client) -> list[str] | None:
        """What the DNS says of the name; None: it does not answer."""
        name = client.helo.rstrip(".").lower()
        if name.startswith("[") or not (self._checks.get("unresolvable") or self._checks.get("mismatch")):
            return []
        if self._silent >= _SILENT and self._clock.seconds() < self._silent_until:
            return None
        asking: Deferred[list[str]] = Deferred.fromCoroutine(self._resolve(name, client))
        try:
            found = await asking.addTimeout(self._seconds, self._clock)
        except DNSFailure:
            return None  # somebody else's name server, as a rule
        except TwistedTimeout:
            self._silent += 1
            self._silent_until = self._clock.seconds() + _SILENT_SECONDS
            return None
        self._silent = 0
        return found

    async def _resolve(self, name: str, client: Client) -> list[str]:
        """Raises: DNSFailure."""
        there = ip_of(client.address)
        reverse = client.noted(ReverseName)
        if reverse is not None and name == reverse.name:
            return []
        ask = (
            (self._dns.aaaa, self._dns.a) if there is not None and there.version == 6 else (self._dns.a, self._dns.aaaa)
        )
        known = False
        for question in ask:
            try:
                records = (await question(name)).records
            except NoSuchName:
                return ["unresolvable"]
            if any(ip_of(address) == there for address in records):
                return []
            known = known or bool(records)
        if known or not is_public(client.address):
            return ["mismatch"] if known and is_public(client.address) else []
        try:
            return [] if (await self._dns.mx(name)).records else ["unresolvable"]
        except NoSuchName:
            return ["unresolvable"]

    def _of_the_reverse_name(self, client: Client) -> list[str]:
        reverse = client.noted(ReverseName)
        if reverse is None or not is_public(client.address):
            return []
        if reverse.result == "permerror":
            return ["no_reverse"]
        found = ["unconfirmed_reverse"] if reverse.result == "fail" else []
        names = [reverse.name] if reverse.name else list(reverse.claimed)
        if any(_like_at_home(name.lower(), client.address) for name in names):
            found.append("dynamic")
        return found

    # --- what comes of it

    def _verdict(self, found: list[str], client: Client) -> Verdict:
        score, counted, refused = 0.0, [], ""
        for check in found:
            worth = self._checks.get(check, 0.0)
            if worth == REJECT:
                refused = refused or check
                counted.append(check)
            elif worth:
                score += float(worth)
                counted.append(check)
        if not counted:
            return ACCEPTED
        reason = _sentence(client.helo[:100], counted)
        facts = {"helo": ", ".join(counted)}
        if refused:
            answer = Answer(550, "5.7.1", f"HELO refused: {CHECKS[refused]}")
            return Verdict(action=Action.REJECT, reason=reason, answer=answer, score=score, facts=facts)
        return Verdict(reason=reason, score=score, facts=facts)


def _sentence(said: str, counted: list[str]) -> str:
    of_the_name = [CHECKS[check] for check in counted if check not in _OF_THE_ADDRESS]
    of_the_address = [CHECKS[check] for check in counted if check in _OF_THE_ADDRESS]
    if of_the_name:
        of_the_name[0] = f"The peer said {said!r} of itself: {of_the_name[0]}"
    sentence = "; ".join([*of_the_name, *of_the_address])
    return sentence[0].upper() + sentence[1:]


def _like_at_home(name: str, address: str) -> bool:
    """A name made of the address, or with a word for access lines in it, and no word that says server."""
    if _STATIC.search(name):
        return False
    if _HOME.search(name):
        return True
    ip = ip_of(address)
    if ip is None or ip.version != 4:
        return False
    numbers = re.findall(r"\d+", name)
    octets = str(ip).split(".")
    return sum(1 for octet in set(octets) if octet in numbers or octet.zfill(3) in numbers) == len(set(octets)) > 1
