"""The filter ``spf``: at MAIL the names of HELO and of the reverse-path are checked, side by side (RFC 7208)."""

from __future__ import annotations

from typing import Final

from twisted_mail.filters.origins import SPF, SPFHelo, SPFResult
from twisted_mail.filters.spf import Checked, CheckHost, domain_of
from twisted_mail.filters.values import Action, Answer, AuthenticationResult, Client, Mail, Verdict
from twisted_mail.queueing.limits import side_by_side

__all__ = ["SPFStage"]

_EXPLANATION: Final = 300
"""Characters of it that fit into a reply of 512 octets (RFC 5321 section 4.5.3.1.5)."""


class SPFStage:
    """Notes `SPFHelo` and `SPFResult`.

    By default it refuses nothing: a forwarded message fails SPF and may have a signature that is right, which DMARC asks
    for later (RFC 9989 section 7.1).
    """

    name = "spf"
    needs: frozenset[str] = frozenset()
    outbound = False

    def __init__(
        self,
        check: CheckHost,
        *,
        fail: Action = Action.ACCEPT,
        softfail: Action = Action.ACCEPT,
        permerror: Action = Action.ACCEPT,
        temperror: Action = Action.ACCEPT,
    ) -> None:
        """What becomes of mail by the reverse-path's result; DEFER of *temperror* is what RFC 7208 section 8.6 offers."""
        self._check = check
        self._actions = {SPF.FAIL: fail, SPF.SOFTFAIL: softfail, SPF.PERMERROR: permerror, SPF.TEMPERROR: temperror}

    async def mail(self, mail: Mail) -> Verdict:
        """Both identities; of the null reverse-path HELO's counts for both (section 2.4)."""
        client = mail.client
        if not client.address:
            return Verdict()
        helo = client.noted(SPFHelo)
        name, domain = _domain(client.helo), _domain(mail.sender.rpartition("@")[2])
        check, address = self._check, client.address
        of_helo = check.known(address, name) if helo is None or helo.domain != name else Checked(helo.result, helo.reason)
        of_sender = check.known(address, domain) if domain else of_helo
        if of_helo is None and of_sender is None:
            work = [check.check(address, name, name, name)]
            if domain:
                work.append(check.check(address, domain, mail.sender, name))
            of_helo, *rest = await side_by_side(work)
            of_sender = rest[0] if rest else of_helo
        of_helo = of_helo or await check.check(address, name, name, name)
        of_sender = of_sender or await check.check(address, domain, mail.sender, name)
        if helo is None or helo.domain != name:
            helo = SPFHelo(of_helo.result, name, of_helo.reason)
            client.note(helo)
        identity = "mailfrom" if domain else "helo"
        found = SPFResult(of_sender.result, domain or name, identity, of_sender.reason, of_sender.explanation)
        mail.note(found)
        return self._verdict(mail, found, helo)

    def _verdict(self, mail: Mail, found: SPFResult, helo: SPFHelo) -> Verdict:
        results = []
        if found.identity == "mailfrom":
            results.append(_result(found.result, found.reason, "smtp.mailfrom", mail.sender))
        results.append(_result(helo.result, helo.reason, "smtp.helo", mail.client.helo))
        action = self._actions.get(found.result, Action.ACCEPT)
        return Verdict(
            action=action,
            reason=_sentence(mail.client, found),
            answer=_answer(action, found),
            results=tuple(results),
        )


def _domain(text: str) -> str:
    try:
        return domain_of(text)
    except ValueError:
        return text.lower()


def _result(result: SPF, reason: str, name: str, value: str) -> AuthenticationResult:
    """RFC 8601 section 2.7.2; what matched is no reason but a comment."""
    wrong = result in (SPF.PERMERROR, SPF.TEMPERROR)
    return AuthenticationResult("spf", result.value, reason if wrong else "", ((name, value),), "" if wrong else reason)


def _sentence(client: Client, found: SPFResult) -> str:
    domain, address = found.domain or "the sender", client.address
    match found.result:
        case SPF.PASS:
            return f"{address} may send for {domain} (SPF)"
        case SPF.FAIL:
            return f"{domain} says that {address} does not send for it (SPF)"
        case SPF.SOFTFAIL:
            return f"{domain} says that {address} probably does not send for it (SPF)"
        case SPF.NEUTRAL:
            return f"{domain} does not say whether {address} sends for it (SPF)"
        case SPF.NONE:
            return f"{domain} does not say who sends for it (SPF)"
        case SPF.TEMPERROR:
            return f"who sends for {domain} cannot be found out now (SPF)"
        case _:
            return f"the record of {domain} is in error: {found.reason} (SPF)"


def _answer(action: Action, found: SPFResult) -> Answer | None:
    """RFC 7372 section 3.2: X.7.23 for a fail, X.7.24 for an error."""
    if action < Action.DEFER:
        return None
    failed = found.result in (SPF.FAIL, SPF.SOFTFAIL)
    code = 550 if action is Action.REJECT else 451
    enhanced = f"{code // 100}.7.{23 if failed else 24}"
    if found.explanation and action is Action.REJECT:
        # Section 6.2: the words are the domain's, and it is said so.
        return Answer(code, enhanced, f"SPF fail; {found.domain[:80]} explains: {found.explanation[:_EXPLANATION]}")
    return Answer(code, enhanced, f"SPF {found.result.value} for {found.domain}")
