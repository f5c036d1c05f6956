"""Postfix's policy delegation as a client: programs such as postgrey, policyd-spf or policyd decide about recipients.

A question is lines of ``name=value`` with an empty one behind them, the answer ``action=…`` with an empty line (Postfix's
SMTPD_POLICY_README; the actions are those of access(5)). Connections are kept and used again, one question at a time on
each. What answers nonsense, or not at all, is `FilterDown`.

Where a program's answer has no meaning here: DISCARD is QUARANTINE, as nothing that was accepted is lost; FILTER and
names of Postfix's own restrictions are ignored, and logged once; DEFER_IF_REJECT changes nothing, since a refusal by
another filter stays one.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakKeyDictionary

from twisted.logger import Logger

from twisted_mail.filters.origins import ReverseName
from twisted_mail.filters.peers import ip_of
from twisted_mail.filters.values import (
    ACCEPTED,
    Action,
    Answer,
    Arrived,
    Changes,
    Client,
    FilterDown,
    Mail,
    Moment,
    Verdict,
)
from twisted_mail.filters.wires import HungUp, Place, Wire
from twisted_mail.services import Recipient

__all__ = ["Policy", "attributes", "encode", "parse_action"]

_log = Logger()

_ANSWER_BYTES: Final = 16_384
_LINE_ENDS: Final = re.compile("[\0\r\n]")
_KEPT: Final = 8
"""Idle connections."""


def attributes(
    state: str,
    client: Client,
    mail: Mail | None = None,
    recipient: str = "",
    *,
    recipients: int = 0,
    size: int | None = None,
    instance: str = "",
    context: str = "",
) -> list[tuple[str, str]]:
    """What a policy server is told, in the order of SMTPD_POLICY_README."""
    reverse = client.noted(ReverseName)
    name = reverse.name if reverse is not None and reverse.name else "unknown"
    claimed = reverse.claimed[0] if reverse is not None and reverse.claimed else "unknown"
    tls = re.match(r"TLS ?v?([\d.]+)(?: with cipher (\S+))?", client.tls_description) if client.secure else None
    login = client.identity.login if client.identity is not None else ""
    size = size if size is not None else (mail.size if mail is not None else None)
    return [
        ("request", "smtpd_access_policy"),
        ("protocol_state", state),
        ("protocol_name", "ESMTP" if client.extended else "SMTP"),
        ("client_address", str(ip_of(client.address) or client.address or "127.0.0.1")),
        ("client_name", name if client.address else "localhost"),
        ("client_port", str(client.port) if client.port else ""),
        ("reverse_client_name", claimed if client.address else "localhost"),
        ("server_address", ""),
        ("server_port", ""),
        ("helo_name", client.helo),
        ("sender", mail.sender if mail is not None else ""),
        ("recipient", recipient),
        ("recipient_count", str(recipients)),
        ("queue_id", mail.id if mail is not None and state == "END-OF-MESSAGE" else ""),
        ("instance", instance),
        ("size", str(size or 0)),
        ("etrn_domain", ""),
        ("stress", ""),
        ("sasl_method", "SASL" if login else ""),
        ("sasl_username", login),
        ("sasl_sender", ""),
        ("ccert_subject", ""),
        ("ccert_issuer", ""),
        ("ccert_fingerprint", ""),
        ("ccert_pubkey_fingerprint", ""),
        ("encryption_protocol", f"TLSv{tls[1]}" if tls else ""),
        ("encryption_cipher", (tls[2] or "") if tls else ""),
        ("encryption_keysize", "0"),
        ("policy_context", context),
    ]


def encode(pairs: Iterable[tuple[str, str]]) -> bytes:
    """A question as it is sent. A line end in a value would begin another attribute, and is left out."""
    return "".join(f"{name}={_LINE_ENDS.sub('', value)}\n" for name, value in pairs).encode("utf-8", "replace") + b"\n"


# --- answers

_FIELD: Final = re.compile(r"([!-9;-~]+):[ \t]*(.*)")


@dataclass(frozen=True, slots=True)
class Said:
    """What an answer means."""

    verdict: Verdict = ACCEPTED
    redirect: str = ""
    """The one recipient that the message gets instead of all others."""
    copy: str = ""
    """One more recipient."""
    ignored: str = ""
    """A word that means nothing here."""


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text)[:400]


def _address(text: str) -> str:
    address = text.strip().removeprefix("<").removesuffix(">")
    if not address or any(not each.isprintable() or each in " <>" for each in address):
        raise FilterDown(f"it names {text[:100]!r} as an address")
    return address


def parse_action(action: str, name: str) -> Said:
    """Read what stands behind ``action=``, said by the program *name*. Raises: FilterDown."""
    word, _, text = action.strip().partition(" ")
    text = _printable(text.strip())
    said = f"{name} says: {word} {text}".rstrip()
    upper = word.upper()
    if re.fullmatch(r"[45]\d\d", word):
        return Said(_refusal(int(word), text, said))
    if word.isdigit() or upper in ("OK", "DUNNO", "PERMIT"):
        return Said(Verdict(reason=said) if text else ACCEPTED)
    match upper:
        case "REJECT":
            return Said(_refusal(554, text or "Access denied", said))
        case "DEFER" | "DEFER_IF_PERMIT":
            return Said(_refusal(450, text or "Service unavailable, try again later", said))
        case "DEFER_IF_REJECT":
            return Said(Verdict(reason=said) if text else ACCEPTED)
        case "WARN" | "INFO":
            return Said(Verdict(reason=said))
        case "HOLD":
            return Said(Verdict(action=Action.QUARANTINE, reason=f"{name} holds it back: {text or 'it gives no reason'}"))
        case "DISCARD":
            why = f"{name} wants it thrown away; it is kept from its recipients instead" + (f": {text}" if text else "")
            return Said(Verdict(action=Action.QUARANTINE, reason=why))
        case "PREPEND":
            if (found := _FIELD.fullmatch(text)) is None:
                raise FilterDown(f"it wants {text[:100]!r} put in front, which is no header field")
            return Said(Verdict(fields=((found[1], found[2]),), reason=f"{name} has added {found[1]}"))
        case "REDIRECT":
            return Said(redirect=_address(text))
        case "BCC":
            return Said(copy=_address(text))
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*:?.*", word):
        return Said(ignored=word)  # FILTER, a restriction of Postfix's, a class of them
    raise FilterDown(f"it answers {action[:100]!r}")


def _refusal(code: int, text: str, said: str) -> Verdict:
    enhanced = "4.7.1" if code < 500 else "5.7.1"
    if found := re.match(r"([45]\.\d{1,3}\.\d{1,3})(?:\s+|\Z)", text):
        if found[1][0] == str(code)[0]:
            enhanced = found[1]
        text = text[found.end() :]
    action = Action.DEFER if code < 500 else Action.REJECT
    return Verdict(action=action, reason=said, answer=Answer(code, enhanced, text or "Refused by policy"))


# --- the filter


@dataclass(slots=True)
class _Transaction:
    """What was said about one message so far."""

    instance: str
    fields: set[tuple[str, str]] = field(default_factory=set)
    redirect: str = ""
    copies: dict[str, None] = field(default_factory=dict)


_STATES: Final = {
    Moment.CONNECT: "CONNECT",
    Moment.HELO: "EHLO",
    Moment.MAIL: "MAIL",
    Moment.RCPT: "RCPT",
    Moment.DATA: "DATA",
    Moment.MESSAGE: "END-OF-MESSAGE",
}


class Policy:
    """One policy server, as a filter. It is asked at *moments*, most want RCPT only."""

    always = False

    def __init__(
        self,
        place: Place,
        dial: Callable[[Place, float], Awaitable[Wire]],
        clock: Callable[[], float],
        *,
        name: str = "policy",
        moments: Sequence[Moment] = (Moment.RCPT,),
        outbound: bool = False,
        context: str = "",
        connect_seconds: float = 5.0,
        answer_seconds: float = 60.0,
        idle_seconds: float = 300.0,
    ) -> None:
        """*clock*: seconds that only grow. *context*: told as policy_context."""
        self.name = name
        self.needs: frozenset[str] = frozenset({"iprev"})  # for the peer's name
        self.outbound = outbound
        self._place = place
        self._dial = dial
        self._clock = clock
        self._moments = frozenset(moments)
        self._context = context
        self._connect_seconds = connect_seconds
        self._answer_seconds = answer_seconds
        self._idle_seconds = idle_seconds
        self._idle: list[tuple[Wire, float]] = []
        """With the time of its last use."""
        self._transactions: WeakKeyDictionary[Mail, _Transaction] = WeakKeyDictionary()
        self._instances = 0
        self._prefix = secrets.token_hex(4)
        self._told: set[str] = set()

    # --- moments

    async def connect(self, client: Client) -> Verdict:
        """Before the greeting."""
        return await self._decide(Moment.CONNECT, client)

    async def helo(self, client: Client) -> Verdict:
        """HELO or EHLO."""
        return await self._decide(Moment.HELO, client)

    async def mail(self, mail: Mail) -> Verdict:
        """MAIL."""
        return await self._decide(Moment.MAIL, mail.client, mail)

    async def rcpt(self, mail: Mail, recipient: Recipient) -> Verdict:
        """RCPT."""
        return await self._decide(Moment.RCPT, mail.client, mail, recipient.address)

    async def data(self, mail: Mail) -> Verdict:
        """DATA: all recipients are known, by number; by name if it is one."""
        return await self._decide(Moment.DATA, mail.client, mail, _alone(mail), len(mail.recipients))

    async def end(self, message: Arrived) -> Verdict:
        """The whole message is here; what was said of its recipients earlier comes into effect."""
        mail = message.mail
        verdict = await self._decide(Moment.MESSAGE, mail.client, mail, _alone(mail), len(mail.recipients), message.size)
        transaction = self._transactions.get(mail)
        if transaction is None or not (transaction.redirect or transaction.copies):
            return verdict
        if verdict.action >= Action.DEFER:
            return verdict
        if transaction.redirect:
            addresses = tuple(each.address for each in mail.recipients)
            changes = Changes(
                recipients_added=(transaction.redirect,),
                recipients_removed=tuple(each for each in addresses if each != transaction.redirect),
            )
            reason = f"{self.name} redirects it to {transaction.redirect}"
        else:
            changes = Changes(recipients_added=tuple(transaction.copies))
            reason = f"{self.name} sends a copy to {', '.join(transaction.copies)}"
        reason = f"{verdict.reason}; {reason}" if verdict.reason else reason
        return Verdict(action=verdict.action, reason=reason, fields=verdict.fields, changes=changes)

    async def ended(self, mail: Mail) -> None:
        """The transaction is over."""
        self._transactions.pop(mail, None)

    def close(self) -> None:
        """No more questions come: idle connections are ended."""
        for wire, _ in self._idle:
            wire.close()
        self._idle.clear()

    # --- asking

    async def _decide(
        self,
        moment: Moment,
        client: Client,
        mail: Mail | None = None,
        recipient: str = "",
        recipients: int = 0,
        size: int | None = None,
    ) -> Verdict:
        if moment not in self._moments:
            return ACCEPTED
        state = "HELO" if moment is Moment.HELO and not client.extended else _STATES[moment]
        transaction = self._transaction(mail)
        question = attributes(
            state,
            client,
            mail,
            recipient,
            recipients=recipients,
            size=size,
            instance=transaction.instance if transaction is not None else self._instance(),
            context=self._context,
        )
        said = parse_action(await self._ask(encode(question)), self.name)
        if said.ignored:
            self._ignore(said.ignored)
        if transaction is None:
            return said.verdict
        if said.redirect:
            transaction.redirect = said.redirect
        if said.copy:
            transaction.copies[said.copy] = None
        if said.verdict.fields:  # once for a message, though it is said for each recipient
            if transaction.fields >= set(said.verdict.fields):
                return ACCEPTED
            transaction.fields |= set(said.verdict.fields)
        return said.verdict

    def _transaction(self, mail: Mail | None) -> _Transaction | None:
        if mail is None:
            return None
        if mail not in self._transactions:
            self._transactions[mail] = _Transaction(self._instance())
        return self._transactions[mail]

    def _instance(self) -> str:
        self._instances += 1
        return f"{self._prefix}.{self._instances:x}"

    def _ignore(self, word: str) -> None:
        if word not in self._told and len(self._told) < 100:
            self._told.add(word)
            _log.warn("{name} answers {word}, which has no meaning here and is ignored", name=self.name, word=word)

    async def _ask(self, question: bytes) -> str:
        while self._idle:
            wire, since = self._idle.pop()
            if wire.ended or wire.waiting or self._clock() - since > self._idle_seconds:
                wire.close()
                continue
            try:
                return await self._exchange(wire, question)
            except HungUp:
                pass  # it has closed a connection that was idle, as it may: a new one is worth a try
        return await self._exchange(await self._dial(self._place, self._connect_seconds), question)

    async def _exchange(self, wire: Wire, question: bytes) -> str:
        try:
            await wire.send(question, self._answer_seconds)
            answer = b""
            while b"\n\n" not in answer.replace(b"\r\n", b"\n"):
                if len(answer) > _ANSWER_BYTES:
                    raise FilterDown("its answer does not end")
                answer += await wire.receive(self._answer_seconds)
        except BaseException:
            wire.abort()
            raise
        whole, _, more = answer.replace(b"\r\n", b"\n").partition(b"\n\n")
        found = re.search(rb"(?m)^action[ \t]*=[ \t]*(.*)$", whole)
        if found is None or more:
            wire.abort()
            raise FilterDown("it does not speak the policy protocol")
        if len(self._idle) < _KEPT:
            self._idle.append((wire, self._clock()))
        else:
            wire.close()
        return found[1].decode("utf-8", "replace")


def _alone(mail: Mail) -> str:
    """The recipient, if there is one only: with several Postfix names none after RCPT."""
    return mail.recipients[0].address if len(mail.recipients) == 1 else ""
