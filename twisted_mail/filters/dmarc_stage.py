"""The filter ``dmarc``: is the message from whom its From field names, and what does that domain want if it is not
(RFC 9989)?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace
from twisted.internet.interfaces import IReactorTime

from twisted_mail.dns.values import DNS, DNSFailure
from twisted_mail.filters.dmarc import Authors, Discovery, Found, PolicyFinder, authors
from twisted_mail.filters.origins import SPF, ARCResult, Disposition, DKIMResults, DMARCResult, SPFResult
from twisted_mail.filters.values import Action, Answer, Arrived, AuthenticationResult, Mail, Verdict
from twisted_mail.signatures import Result

__all__ = ["DMARCStage", "Judged"]

NO_POLICY: Final = "no policy"
_ORDER: Final = (Disposition.NONE, Disposition.QUARANTINE, Disposition.REJECT)


@dataclass(frozen=True, slots=True)
class Judged:
    """One message measured by one domain's policy, for its report."""

    moment: float
    address: str
    """The client's."""
    result: DMARCResult
    found: Found
    spf: SPFResult | None
    dkim: DKIMResults
    comment: str = ""
    """More on `DMARCResult.override`."""


class DMARCStage:
    """Notes `DMARCResult`."""

    name = "dmarc"
    needs = frozenset({"spf", "dkim", "arc"})
    outbound = False

    def __init__(
        self,
        dns: DNS,
        clock: IReactorTime | None = None,
        *,
        enforce: bool = True,
        reject: Action = Action.REJECT,
        quarantine: Action = Action.JUNK,
        temperror: Action = Action.ACCEPT,
        discovery: Discovery = "treewalk",
        judged: Callable[[Judged], None] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """With a *clock* what the DNS said of a domain is remembered for a minute.

        *reject* and *quarantine* are what is done where a domain wants that of mail that fails; without *enforce* it is only
        marked. *temperror*: what is done while the DNS does not say. *judged* is told of every message that has a policy
        (reports are made of it).
        """
        self._finder = PolicyFinder(dns, clock, discovery=discovery)
        self._enforce = enforce
        self._actions = {Disposition.REJECT: reject, Disposition.QUARANTINE: quarantine}
        self._temperror = temperror
        self._judged = judged
        self._wall = wall

    async def end(self, message: Arrived) -> Verdict:
        """The header is there, and the other filters have said what they know."""
        mail = message.mail
        who = authors(message.named.get(b"from", ()))
        outcomes = [await self._measure(mail, domain) for domain in who.domains]
        result = _together(who, outcomes)
        mail.note(result)
        return _verdict(result, max((action for _, action in outcomes), default=Action.ACCEPT))

    async def _measure(self, mail: Mail, domain: str) -> tuple[DMARCResult, Action]:
        """What one author domain's policy says of the message, and what is done; told to *judged*."""
        spf, dkim, arc = mail.noted(SPFResult), mail.noted(DKIMResults) or DKIMResults(), mail.noted(ARCResult)
        try:
            found, wrong = await self._finder.find(domain)
            if found is None:
                result = DMARCResult(result="permerror" if wrong else "none", domain=domain, reason=wrong or NO_POLICY)
                return result, Action.ACCEPT
            by_spf, spf_unsure = await self._by_spf(domain, found, spf)
            by_dkim, dkim_unsure = await self._by_dkim(domain, found, dkim)
        except DNSFailure as error:
            result = DMARCResult(result="temperror", domain=domain, reason=f"the DNS does not answer: {error}")
            return result, self._temperror
        passed = by_spf or by_dkim
        result = DMARCResult(
            result="pass" if passed else "fail",
            domain=domain,
            policy_domain=found.policy_domain,
            policy=found.wanted,
            spf_aligned=by_spf,
            dkim_aligned=by_dkim,
        )
        action = Action.ACCEPT
        if not passed:
            if spf_unsure or dkim_unsure:
                return replace(result, result="temperror", reason="SPF or DKIM could not be checked now"), self._temperror
            if mail.client.trusted and spf is None:
                # A server of ours has taken it from a client that we do not know: SPF may have passed there.
                return replace(result, result="none", reason="it came by a server of ours: SPF cannot be checked"), action
            result, action = self._applied(result, found, arc)
        if self._judged is not None:
            comment = f"ARC pass of {arc.trusted}" if arc is not None and result.override == "trusted_forwarder" else ""
            self._judged(Judged(self._wall(), mail.client.address, result, found, spf, dkim, comment))
        return result, action

    async def _by_spf(self, domain: str, found: Found, spf: SPFResult | None) -> tuple[bool, bool]:
        """Whether SPF speaks for the author, and whether it might if the DNS answered."""
        if spf is None or spf.result not in (SPF.PASS, SPF.TEMPERROR):
            return False, False
        aligned = await self._finder.aligned(domain, spf.domain, strict=found.record.strict_spf)
        return aligned and spf.result is SPF.PASS, aligned and spf.result is SPF.TEMPERROR

    async def _by_dkim(self, domain: str, found: Found, dkim: DKIMResults) -> tuple[bool, bool]:
        unsure = False
        for signature in dkim.signatures:
            if signature.result not in (Result.PASS, Result.TEMPERROR):
                continue
            if await self._finder.aligned(domain, signature.domain, strict=found.record.strict_dkim):
                if signature.result is Result.PASS:
                    return True, False
                unsure = True
        return False, unsure

    def _applied(self, result: DMARCResult, found: Found, arc: ARCResult | None) -> tuple[DMARCResult, Action]:
        """What is done of what is wanted (sections 4.7 and 5.4)."""
        applied, override = result.policy, ""
        if applied is Disposition.NONE:
            return result, Action.ACCEPT
        if arc is not None and arc.trusted and arc.dmarc == "pass":
            applied, override = Disposition.NONE, "trusted_forwarder"
        elif found.record.testing:
            applied, override = _ORDER[_ORDER.index(applied) - 1], "policy_test_mode"
        action = self._actions[applied] if self._enforce and applied is not Disposition.NONE else Action.MARK
        if (done := _done(action)) is not applied:
            applied, override = done, override or "local_policy"
        return replace(result, applied=applied, override=override), action


def _done(action: Action) -> Disposition:
    """In the words of DMARC."""
    if action >= Action.DEFER:
        return Disposition.REJECT
    return Disposition.QUARANTINE if action >= Action.JUNK else Disposition.NONE


def _verdict(result: DMARCResult, action: Action) -> Verdict:
    answer = None
    if action is Action.REJECT:
        answer = Answer(550, "5.7.1", f"Refused by the DMARC policy of {result.domain}")
    elif action is Action.DEFER:
        answer = Answer(451, "4.7.1", f"Whether this is from {result.domain} (DMARC) cannot be found out now")
    comment = ""
    if result.policy_domain:
        applied = f"applied={result.applied.value}" if result.result != "pass" else ""
        comment = " ".join(filter(None, (f"p={result.policy.value}", applied, result.override)))
    told = AuthenticationResult(
        "dmarc",
        result.result,
        result.reason if result.result in ("permerror", "temperror") else "",
        (("header.from", result.domain),),
        comment,
    )
    return Verdict(action=action, reason=_sentence(result), answer=answer, results=(told,))


def _together(who: Authors, outcomes: Sequence[tuple[DMARCResult, Action]]) -> DMARCResult:
    """From may name several domains, or be there several times (RFC 9989 section 11.5): each domain's policy counts, lest
    somebody put a second name beside one that asks for refusal."""
    if not outcomes:
        return DMARCResult(result="permerror", reason=who.wrong)
    if not who.wrong:
        return outcomes[0][0]
    worst, _ = max(outcomes, key=lambda each: (each[1], _ORDER.index(each[0].policy), each[0].result == "fail"))
    if all(each.result == "pass" for each, _ in outcomes):
        return replace(worst, domains=who.domains)
    return replace(worst, result="permerror", reason=who.wrong, domains=who.domains)


def _sentence(result: DMARCResult) -> str:
    domain = result.domain
    match result.result:
        case "pass":
            how = " and ".join(["SPF"] * result.spf_aligned + ["its signature"] * result.dkim_aligned)
            return f"it is from {domain}, says {how} (DMARC)"
        case "fail":
            wants = {
                Disposition.NONE: f"{domain} wants nothing done about it",
                Disposition.QUARANTINE: f"{domain} wants such mail kept apart",
                Disposition.REJECT: f"{domain} wants such mail refused",
            }[result.policy]
            but = {
                "trusted_forwarder": "; but a server that is trusted has seen that it was",
                "policy_test_mode": "; it is only trying that out",
                "local_policy": "; that is not done here",
            }.get(result.override, "")
            return f"it is not shown to be from {domain}, and {wants}{but} (DMARC)"
        case "none":
            why = f"{domain} has no policy for mail in its name" if result.reason == NO_POLICY else result.reason
            return f"{why} (DMARC)"
        case "temperror":
            return f"whether it is from {domain} cannot be found out now (DMARC)"
        case _:
            return f"whether it is from its author cannot be said: {result.reason} (DMARC)"
