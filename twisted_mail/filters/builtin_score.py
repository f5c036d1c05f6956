"""The built-in score: what is known of a message without asking anybody, added up to points of spam.

It weighs what SPF, DKIM, ARC and DMARC found out, oddities of the header and of the text. Points of HELO and of lists in the
DNS are those filters' own. It is modest: it makes a server without SpamAssassin or rspamd useful, and is no match for them.
5 points are meant to be junk; ordinary mail has less than 3, whatever it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from twisted_mail.filters.origins import SPF, ARCResult, Disposition, DKIMResults, DMARCResult, SPFResult
from twisted_mail.filters.phrases import GROUPS
from twisted_mail.filters.signs import header_signs, text_signs
from twisted_mail.filters.values import ACCEPTED, Arrived, Mail, Verdict

__all__ = ["RULES", "BuiltinScore", "Rule", "rules_from"]

_TEXT_OCTETS: Final = 32_768


@dataclass(frozen=True, slots=True)
class Rule:
    """What a sign is worth, and how the trace puts it."""

    points: float
    sentence: str


RULES: Final[Mapping[str, Rule]] = {
    "spf_fail": Rule(2.0, "its sender's domain says that the peer may not send for it"),
    "spf_softfail": Rule(1.0, "its sender's domain does not know the peer"),
    "spf_none": Rule(0.3, "its sender's domain does not say who may send for it"),
    "unsigned": Rule(0.3, "nobody has signed it"),
    "broken_signature": Rule(0.3, "no signature of it is right"),
    "anonymous": Rule(0.8, "neither SPF nor DKIM says who sent it"),
    "dmarc_pass": Rule(-0.5, "its author's domain vouches for it"),
    "dmarc_fail": Rule(1.0, "its author's domain does not vouch for it"),
    "dmarc_fail_strict": Rule(2.0, "its author's domain vouches for its mail, but not for this"),
    "self_sent": Rule(2.5, "it claims to be from its own recipient"),
    "no_date": Rule(1.0, "it has no Date"),
    "odd_date": Rule(1.0, "its Date cannot be read"),
    "date_in_future": Rule(2.0, "its Date is more than a day ahead"),
    "date_in_past": Rule(0.8, "its Date is more than a month ago"),
    "no_message_id": Rule(0.5, "it has no Message-ID"),
    "odd_message_id": Rule(0.5, "its Message-ID is none"),
    "no_from": Rule(2.0, "it has no From"),
    "odd_from": Rule(1.5, "its From is no address"),
    "many_froms": Rule(2.5, "it has several From fields"),
    "from_shows_another": Rule(2.5, "the name in From is the address of somebody else"),
    "reply_to_free_mail": Rule(1.5, "answers go to a free mailbox elsewhere"),
    "reply_to_another": Rule(0.8, "answers go to another free mailbox"),
    "no_to": Rule(0.8, "it names no recipients"),
    "undisclosed": Rule(0.7, "it hides its recipients"),
    "many_recipients": Rule(0.7, "it has very many recipients"),
    "no_subject": Rule(0.5, "it has no Subject"),
    "many_subjects": Rule(1.5, "it has several Subject fields"),
    "subject_capitals": Rule(1.0, "its Subject is all capitals"),
    "only_html": Rule(0.3, "it is HTML only"),
    "picture_only": Rule(1.5, "it is a picture with hardly any text"),
    "disguised_text": Rule(0.7, "its plain text is disguised (base64)"),
    "link_to_address": Rule(1.5, "a link goes to a bare address"),
    "link_shows_another": Rule(2.0, "a link shows another host than it goes to"),
    "gtube": Rule(1000.0, "it is the test message for spam filters (GTUBE)"),
    **{name: Rule(1.0, group.sentence) for name, group in GROUPS.items()},
}
"""Points of `GROUPS` are factors: what so many phrases are worth is multiplied by them."""


def rules_from(table: Mapping[str, Any]) -> dict[str, Rule]:
    """`RULES` with other points for some: ``{"only_html": 0, "self_sent": 4.0}``. Raises: ValueError that names the rule."""
    rules = dict(RULES)
    for name, points in table.items():
        if name not in RULES:
            raise ValueError(f"{name!r} is no rule of the built-in score; there are {', '.join(RULES)}")
        if isinstance(points, bool) or not isinstance(points, (int, float)) or not -1000 <= points <= 1000:
            raise ValueError(f"{name}: {points!r} is no number of points between -1000 and 1000")
        rules[name] = Rule(float(points), RULES[name].sentence)
    return rules


class BuiltinScore:
    """A `Stage`, asked when the whole message is here."""

    name = "builtin_score"
    needs = frozenset({"spf", "dkim", "arc", "dmarc", "iprev", "helo", "dnsbl"})
    outbound = False

    def __init__(self, wall: Callable[[], float], rules: Mapping[str, Rule] = RULES) -> None:
        """*wall*: seconds since 1970."""
        self._wall = wall
        self._rules = dict(rules)

    async def end(self, message: Arrived) -> Verdict:
        octets = await message.octets(len(message.header) + _TEXT_OCTETS)
        mail = message.mail
        named = message.named
        found: dict[str, float] = {}
        vouched = False
        for name in _sender_signs(mail):
            found[name] = 1.0
            vouched = vouched or name == "dmarc_pass"
        addresses = [recipient.address for recipient in mail.recipients]
        for name in header_signs(named, self._wall(), addresses):
            if name != "from_recipient":
                found[name] = 1.0
            elif "anonymous" in found or "dmarc_fail" in found or "dmarc_fail_strict" in found:
                found["self_sent"] = 1.0
        for sign in text_signs(named, octets[len(message.header) :]):
            name, _, points = sign.partition(":")
            if name != "link_shows_another" or not vouched:  # newsletters count who follows their links
                found[name] = float(points or 1)
        return self._verdict(found)

    def _verdict(self, found: Mapping[str, float]) -> Verdict:
        rules, total = self._rules, 0.0
        counted: list[tuple[float, str]] = []
        for name, times in found.items():
            if points := rules[name].points * times:
                total += points
                counted.append((points, name))
        if not counted:
            return ACCEPTED
        if len(counted) > 1:
            counted.sort(key=_weight)
        return Verdict(
            reason="As it looks, " + "; ".join([rules[name].sentence for _, name in counted]),
            score=round(total, 2),
            facts={"rules": " ".join([f"{name}={points:g}" for points, name in counted])},
        )


def _weight(counted: tuple[float, str]) -> float:
    return -abs(counted[0])


def _sender_signs(mail: Mail) -> list[str]:
    """What the notes on its origin say; nothing where nobody looked."""
    found: list[str] = []
    spf, dkim = mail.noted(SPFResult), mail.noted(DKIMResults)
    dmarc, arc = mail.noted(DMARCResult), mail.noted(ARCResult)
    if arc is not None and arc.trusted and arc.dmarc == "pass":
        return found  # a forwarder that is trusted has seen it whole
    if dmarc is not None:
        if dmarc.result == "pass":
            found.append("dmarc_pass")
        elif dmarc.result == "fail":
            found.append("dmarc_fail" if dmarc.policy is Disposition.NONE else "dmarc_fail_strict")
    signed = dkim is not None and bool(dkim.passed)
    if spf is not None:
        # With an author's signature, a forward that SPF cannot follow is no sign of anything.
        if spf.result is SPF.FAIL and not signed:
            found.append("spf_fail")
        elif spf.result is SPF.SOFTFAIL and not signed:
            found.append("spf_softfail")
        elif spf.result in (SPF.NONE, SPF.NEUTRAL, SPF.PERMERROR):
            found.append("spf_none")
    if dkim is not None and not signed:
        found.append("broken_signature" if dkim.signatures else "unsigned")
    if spf is not None and dkim is not None and not signed and spf.result not in (SPF.PASS, SPF.TEMPERROR):
        found.append("anonymous")
    return found
