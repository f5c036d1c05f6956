"""Mail between its acceptance and its delivery: a connection's visit, and a message that is held while filters look at it.

What they found goes with the message as its `Judgement`, as fields in front of its header, and as its story.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from msgspec.structs import replace
from twisted.logger import Logger

from twisted_mail.delivery.holding import HeldMessage
from twisted_mail.delivery.judgement import Judgement
from twisted_mail.delivery.rejudging import FrontCut, Rejudged, front_with
from twisted_mail.delivery.stories import Chapter, message_id_of
from twisted_mail.filters import clamav, rspamd, spamassassin
from twisted_mail.filters.authentication_results import forged, render
from twisted_mail.filters.findings import Finding, worst_of
from twisted_mail.filters.gauntlet import Gauntlet
from twisted_mail.filters.judged_by import FIELD, JudgedBy, judges_in
from twisted_mail.filters.origins import SPF, DMARCResult, ReverseName, SPFResult
from twisted_mail.filters.passage import Passage, Reading
from twisted_mail.filters.rewriting import front, rewritten
from twisted_mail.filters.values import (
    Action,
    AuthenticationResult,
    Changes,
    Client,
    FilterDown,
    Mail,
    Moment,
    WhenDown,
)
from twisted_mail.queueing.spool import SpoolFolder
from twisted_mail.services import (
    Envelope,
    Identity,
    Incoming,
    MailRefused,
    Outcome,
    Peer,
    Recipient,
    Refusal,
)
from twisted_mail.values import random_octets

__all__ = ["Judge", "JudgeSettings", "JudgedMail", "JudgedVisit", "Tell"]

_log = Logger()

OUR_SEALS: Final = frozenset({FIELD.lower().encode()})
"""Taken out whoever brings it, our own users and servers too. (Where nobody looks at a message it stays, and says no more than
that this very message was judged here before.)"""
OUR_FIELDS: Final = OUR_SEALS | {
    name.lower().encode() for name in (*spamassassin.FIELDS, *rspamd.FIELDS, *clamav.FIELDS)
}
"""Only we may say such things; a stranger's own are forged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSettings:
    """What an operator decides about verdicts."""

    hostname: str
    """Also the authserv-id of Authentication-Results (RFC 8601 section 2.5)."""
    junk_score: float = 5.0
    """At and above: to Junk."""
    reject_score: float = 15.0
    """At and above: refused; 0: never for points alone."""
    trusted: Callable[[str], bool] = lambda address: False
    """Whether an IP address is one of our own servers', judged by content only."""


Tell = Callable[[Chapter], None]
"""Keeps a chapter of a message's story (`stories.Stories.tell`)."""


class Begin(Protocol):
    """Starts the delivery of a message that was judged (`MailIntake.accepted`)."""

    def __call__(
        self, envelope: Envelope, *, id: str, fields: bytes, judgement: Judgement, queue_only: bool
    ) -> Incoming: ...


Resolve = Callable[[str], Awaitable[Recipient]]
"""A recipient that a filter has added. Raises: MailRefused."""


class Judge:
    """What stands between the protocols and delivery; one per process."""

    def __init__(
        self,
        gauntlet: Gauntlet,
        spools: SpoolFolder,
        settings: JudgeSettings,
        *,
        tell: Tell = lambda chapter: None,
        wall: Callable[[], float] = time.time,
        judged_by: JudgedBy | None = None,
    ) -> None:
        """*judged_by* writes into a message who judged it; None: there is nobody who would be taught."""
        self.judged_by = judged_by
        self.gauntlet = gauntlet
        self.spools = spools
        self.settings = settings
        self.tell = tell
        self.wall = wall

    def visit(self, peer: Peer) -> JudgedVisit:
        """A connection begins."""
        client = Client(peer.address, port=peer.port, service=peer.service, secure=peer.secure)
        client.trusted = peer.service == "lmtp" or not peer.address or self.settings.trusted(peer.address)
        return JudgedVisit(self, self.gauntlet.enter(client))

    async def again(
        self, judgement: Judgement, chunks: Callable[[], AsyncIterator[bytes]], sender: str, recipient: str
    ) -> Rejudged:
        """Ask the filters that did not answer when the message came. Raises: FilterDown (they still do not).

        It was accepted, so whoever says REJECT now puts it into quarantine, and so does who takes its recipient out. Each copy is
        asked about by itself: what a filter wants added as a recipient is only told.
        """
        client = Client(judgement.peer, service="queue")
        client.trusted, client.helo = True, judgement.helo
        mail = Mail(client, sender)
        mail.recipients.append(Recipient(recipient, ()))
        mail.id = random_octets(8).hex()
        passage = self.gauntlet.enter(client)
        passage.mail = mail
        held = HeldMessage(mail, self.spools.begin())
        reading = passage.read()
        try:
            cut = FrontCut()
            async for chunk in chunks():
                if came := cut.feed(chunk):
                    await held.write(came)
                    await reading.write(came)
            if came := cut.end():
                await held.write(came)
                await reading.write(came)
            findings = await reading.finish(held, frozenset(judgement.pending))
            if down := [finding.stage for finding in findings if finding.down]:
                raise FilterDown(f"no answer from {', '.join(down)}")
            worst = worst_of(findings, self.gauntlet.order)
            action = Action.ACCEPT if worst is None else worst.verdict.action
            if action >= Action.DEFER:
                action = Action.QUARANTINE
            changes = [each.verdict.changes for each in findings if each.verdict.changes is not None]
            gone = any(recipient.lower() in map(str.lower, each.recipients_removed) for each in changes)
            if gone:
                action = Action.QUARANTINE
            judged = self._judged(passage, findings, more=judgement, action=max(action, judgement.action))
            added = [address for each in changes for address in each.recipients_added]
            if gone or added:
                told = [f"{recipient} is to get nothing"] * gone
                told += [f"{', '.join(added[:5])} would get it too, had the filter been there when it came"] * bool(added)
                judged = replace(judged, trace=(*judged.trace, "queue: " + "; ".join(told)))
            return await self._rejudged(judgement, judged, findings, changes, cut.front, held)
        finally:
            await reading.abort()
            await passage.close()
            held.close()

    async def _rejudged(
        self,
        before: Judgement,
        judgement: Judgement,
        findings: Sequence[Finding],
        changes: Sequence[Changes],
        front: bytes,
        held: HeldMessage,
    ) -> Rejudged:
        """What is done with a stored message, in *front* of which stands what was found when it came."""
        header = rewritten(held.header, (), changes)
        fields = [] if judgement.login else [pair for finding in findings for pair in finding.verdict.fields]
        sender = next((each.sender for each in reversed(changes) if each.sender is not None), None)
        instead: set[str] = set()
        if not judgement.login and (judgement.score, judgement.action) != (before.score, before.action):
            spam = self.spam_fields(judgement)
            instead |= {"x-spam-flag", *(name.lower() for name, _ in spam)}
            fields = [*spam, *fields]
        if self.judged_by is not None and not judgement.login:
            judges = judges_in(findings, self.judged_by.engines)
            if judges or header != held.header:
                judges |= await self.judged_by.judges_of(front + held.header)
                seal = await self.judged_by.field(judges, header)
                instead.add(FIELD.lower())
                fields += [seal] if seal is not None else []
        return Rejudged(
            judgement=judgement,
            sender=sender,
            skip=len(front) + len(held.header),
            header=front_with(front, sender, fields, frozenset(instead)) + header,
            body=next((each.body for each in reversed(changes) if each.body is not None), None),
        )

    def _judged(
        self, passage: Passage, findings: Sequence[Finding], *, action: Action, more: Judgement | None = None
    ) -> Judgement:
        client, mail = passage.client, passage.mail
        score = sum(finding.verdict.score for finding in findings) + (more.score if more is not None else 0.0)
        by_score = False
        if not client.outbound and action < Action.JUNK and score >= self.settings.junk_score:
            action, by_score = Action.JUNK, True
        lines = tuple(line for line in (finding.line for finding in findings) if line)
        scan = mail.noted(clamav.VirusCheck) if mail is not None else None
        dmarc = mail.noted(DMARCResult) if mail is not None else None
        spf = mail.noted(SPFResult) if mail is not None else None
        reverse = client.noted(ReverseName)
        judgement = Judgement(
            action=action,
            score=round(score, 2),
            by_score=by_score,
            percent=min(max(round(score / self.settings.junk_score * 50), 0), 100) if findings else None,
            virus=scan.grade if scan is not None else 0,
            author_domain=(
                None if dmarc is None else dmarc.domain if dmarc.spf_aligned or dmarc.dkim_aligned else ""
            ),
            peer=client.address,
            helo=client.helo,
            host=reverse.name if reverse is not None else "",
            verified=client.outbound
            or (spf is not None and spf.result is SPF.PASS)
            or (dmarc is not None and dmarc.result == "pass"),
            login=client.identity.login if client.identity is not None else "",
            trace=lines,
            pending=self._pending(findings),
        )
        if more is None:
            return judgement
        return replace(
            more,
            action=action,
            score=judgement.score,
            by_score=by_score or (more.by_score and action is Action.JUNK),
            percent=judgement.percent,
            virus=max(judgement.virus, more.virus),
            trace=(*more.trace, *lines),
            pending=(),
        )

    def _pending(self, findings: Sequence[Finding]) -> tuple[str, ...]:
        posts, order = self.gauntlet.posts, self.gauntlet.order
        return tuple(
            each.stage
            for each in findings
            if each.down and each.moment is Moment.MESSAGE and posts[order[each.stage]].when_down is WhenDown.QUEUE
        )

    def spam_fields(self, judgement: Judgement) -> list[tuple[str, str]]:
        """What mail clients and users' own filters look at."""
        spam = judgement.action is Action.JUNK
        fields = [
            ("X-Spam-Status", f"{'Yes' if spam else 'No'}, score={judgement.score:.1f} required={self.settings.junk_score:.1f}"),
            ("X-Spam-Score", f"{judgement.score:.1f}"),
        ]
        return [*fields, ("X-Spam-Flag", "YES")] if spam else fields


def _refused(finding: Finding) -> MailRefused:
    """DEFER or REJECT as the protocol is told it."""
    verdict = finding.verdict
    temporary = verdict.action is Action.DEFER
    if verdict.answer is None:
        text = "Try again later" if temporary else "Refused by the rules of this server"
        return MailRefused(Refusal.POLICY, text, temporary=temporary)
    answer = verdict.answer
    return MailRefused(Refusal.POLICY, answer.text, temporary=temporary, code=answer.code, enhanced=answer.enhanced)


class JudgedVisit:
    """Implements `services.Visit`."""

    def __init__(self, judge: Judge, passage: Passage) -> None:
        self._judge = judge
        self.passage = passage

    @property
    def client(self) -> Client:
        """The peer."""
        return self.passage.client

    def _decide(self, finding: Finding | None, sender: str = "", recipients: tuple[str, ...] = ()) -> None:
        if finding is None or finding.verdict.action < Action.DEFER:
            return
        error = _refused(finding)
        client = self.client
        self._judge.tell(
            Chapter(
                at=self._judge.wall(),
                what="deferred" if error.temporary else "refused",
                id=self.passage.mail.id if self.passage.mail is not None else "",
                client=client.address,
                helo=client.helo,
                sender=sender,
                recipients=recipients,
                lines=(finding.line,),
                score=finding.verdict.score,
                result=f"{error.text} (at {finding.moment.name})",
            )
        )
        raise error

    async def connected(self) -> None:
        """See `services.Visit`."""
        self._decide(await self.passage.connect())

    def early(self) -> None:
        """See `services.Visit`."""
        self.client.early = True

    async def greeted(self, helo: str, peer: Peer, *, extended: bool) -> None:
        """See `services.Visit`."""
        client = self.client
        client.helo, client.extended = helo, extended
        client.secure, client.tls_description = peer.secure, peer.tls_description
        self._decide(await self.passage.helo())

    async def sender(
        self, address: str, *, identity: Identity | None, size: int | None, body: str, smtputf8: bool
    ) -> None:
        """See `services.Visit`."""
        self.client.identity = identity
        mail = Mail(self.client, address)
        mail.size, mail.body, mail.smtputf8, mail.id = size, body, smtputf8, random_octets(8).hex()
        try:
            self._decide(await self.passage.begin(mail), address)
        except MailRefused:
            await self.passage.end()
            raise

    async def recipient(self, recipient: Recipient) -> None:
        """See `services.Visit`."""
        mail = self.passage.mail
        self._decide(await self.passage.recipient(recipient), mail.sender if mail else "", (recipient.address,))

    async def unknown(self, address: str) -> None:
        """See `services.Visit`."""
        finding = await self.passage.unknown(address)
        if finding is not None and finding.verdict.action >= Action.DEFER:
            raise MailRefused(Refusal.POLICY, "Too many unknown recipients", code=421, enhanced="4.7.0")

    async def strange(self, line: str) -> None:
        """See `services.Visit`."""
        finding = await self.passage.strange(line)
        if finding is not None and finding.verdict.action >= Action.DEFER:
            raise _refused(finding)

    async def data(self) -> None:
        """The message is about to come. Raises: MailRefused."""
        mail = self.passage.mail
        if mail is not None:
            recipients = tuple(each.address for each in mail.recipients)
            self._decide(await self.passage.data(), mail.sender, recipients)

    async def ended(self) -> None:
        """See `services.Visit`."""
        await self.passage.end()

    async def closed(self) -> None:
        """See `services.Visit`."""
        await self.passage.close()

    def begin(self, envelope: Envelope, begin: Begin, resolve: Resolve) -> Incoming:
        """The message comes; it is held if anybody looks at it."""
        if self.passage.looked_at:
            return JudgedMail(self._judge, self.passage, envelope, begin, resolve)
        judgement = self._judge._judged(self.passage, (), action=Action.ACCEPT)
        id = self.passage.mail.id if self.passage.mail is not None else ""
        return begin(envelope, id=id, fields=b"", judgement=judgement, queue_only=False)


_WORDS: Final = {
    Action.ACCEPT: "to be delivered",
    Action.MARK: "to be delivered, marked",
    Action.JUNK: "to be delivered as junk",
    Action.QUARANTINE: "kept in quarantine",
}


@dataclass(slots=True)
class _Decision:
    """What is done with one message."""

    judgement: Judgement
    findings: Sequence[Finding]
    changes: list[Changes] = field(default_factory=list)


class JudgedMail:
    """Implements `services.Incoming`: holds the message, has it judged when it is whole, and passes it on."""

    def __init__(
        self, judge: Judge, passage: Passage, envelope: Envelope, begin: Begin, resolve: Resolve
    ) -> None:
        mail = passage.mail
        if mail is None:
            raise RuntimeError("no transaction has begun")
        self._judge = judge
        self._passage = passage
        self._mail = mail
        self._envelope = envelope
        self._begin = begin
        self._resolve = resolve
        self._reading: Reading = passage.read()
        self._held = HeldMessage(mail, judge.spools.begin())
        self._judged_at = 0.0
        """The story goes on from here: what delivery has to tell comes after it."""

    async def write(self, chunk: bytes) -> None:
        """See `services.Incoming`."""
        try:
            await self._held.write(chunk)
        except OSError as error:
            _log.error("a message cannot be held: {why}", why=error)
            raise MailRefused(Refusal.NO_ROOM) from error
        await self._reading.write(chunk)

    async def abort(self) -> None:
        """See `services.Incoming`."""
        self._held.close()
        await self._reading.abort()

    async def finish(self) -> Sequence[Outcome]:
        """See `services.Incoming`. Raises MailRefused when a filter says so."""
        try:
            return await self._finish()
        finally:
            self._held.close()

    async def _finish(self) -> Sequence[Outcome]:
        findings = [*self._passage.findings(), *await self._reading.finish(self._held)]
        self._judged_at = self._judge.wall()
        worst = worst_of(findings, self._judge.gauntlet.order)
        decision = self._decide(findings, worst)
        envelope, shown = await self._changed(decision)
        judgement = decision.judgement
        results = self._results(decision.findings)
        header, body = self._rewritten(decision)
        seal = await self._seal(decision.findings, header)
        incoming = self._begin(
            replace(envelope, verified=judgement.verified, results=results),
            id=self._mail.id,
            fields=self._fields(decision, results, seal),
            judgement=judgement,
            queue_only=judgement.action is Action.QUARANTINE or bool(judgement.pending),
        )
        try:
            async for chunk in self._held.passed_on(header, body):
                await incoming.write(chunk)
            outcomes = {outcome.recipient.address: outcome for outcome in await incoming.finish()}
        except BaseException:
            await incoming.abort()
            raise
        told = [outcomes.get(recipient.address, Outcome(recipient)) for recipient in shown]
        self._tell(judgement, "accepted", _WORDS[judgement.action], tuple(outcomes.values()))
        return told

    def _decide(self, findings: Sequence[Finding], worst: Finding | None) -> _Decision:
        """Raises: MailRefused."""
        judge, settings = self._judge, self._judge.settings
        action = Action.ACCEPT if worst is None else worst.verdict.action
        judgement = judge._judged(self._passage, findings, action=action)
        if worst is not None and action >= Action.DEFER:
            error = _refused(worst)
            self._tell(judgement, "deferred" if error.temporary else "refused", error.text)
            raise error
        if settings.reject_score and judgement.score >= settings.reject_score and not self._mail.client.outbound:
            self._tell(judgement, "refused", f"{judgement.score:.1f} points are too many")
            raise MailRefused(Refusal.POLICY, "This message looks like spam", code=550, enhanced="5.7.1")
        changes = [each.verdict.changes for each in findings if each.verdict.changes is not None]
        return _Decision(judgement, findings, changes)

    async def _changed(self, decision: _Decision) -> tuple[Envelope, Sequence[Recipient]]:
        """The envelope as filters want it, and the recipients whom the peer is told about."""
        envelope = self._envelope
        if not decision.changes:
            return envelope, envelope.recipients
        recipients = list(envelope.recipients)
        sender = envelope.sender
        for changes in decision.changes:
            if changes.sender is not None:
                sender = changes.sender
            gone = {address.lower() for address in changes.recipients_removed}
            recipients = [each for each in recipients if each.address.lower() not in gone]
            there = {each.address.lower() for each in recipients}
            for address in changes.recipients_added:
                if address.lower() not in there:
                    try:
                        recipients.append(await self._resolve(address))
                    except MailRefused as error:
                        _log.warn("a filter adds the recipient {to}, who is not taken: {why}", to=address, why=error)
        return replace(envelope, sender=sender, recipients=tuple(recipients)), envelope.recipients

    def _rewritten(self, decision: _Decision) -> tuple[bytes, bytes | None]:
        held, client = self._held, self._mail.client
        removed: list[int] = []
        ours = OUR_SEALS if client.trusted or client.outbound else OUR_FIELDS
        if not client.trusted and b"authentication-results" in held.named:  # what our own servers say is theirs to say
            removed = forged(held.fields, self._judge.settings.hostname)
        if not ours.isdisjoint(held.named):
            removed += [at for at, (name, _) in enumerate(held.fields) if name.lower() in ours]
        body = None
        for changes in decision.changes:
            if changes.body is not None:
                body = changes.body
        return rewritten(held.header, removed, decision.changes), body

    def _results(self, findings: Sequence[Finding]) -> str:
        """The value of Authentication-Results; empty: nobody has looked, or it is our own user's mail."""
        client = self._mail.client
        if client.outbound:
            return ""
        results: list[AuthenticationResult] = []
        for finding in findings:
            results += finding.verdict.results
        return render(self._judge.settings.hostname, results) if results or not client.trusted else ""

    async def _seal(self, findings: Sequence[Finding], header: bytes) -> list[tuple[str, str]]:
        """Who has judged a message with that *header*, for those who are taught by its owner."""
        judged_by = self._judge.judged_by
        if judged_by is None or self._mail.client.outbound:
            return []
        field = await judged_by.field(judges_in(findings, judged_by.engines), header)
        return [] if field is None else [field]

    def _fields(self, decision: _Decision, results: str, seal: Sequence[tuple[str, str]]) -> bytes:
        """In front of the message, from the top."""
        fields = [*seal, *(pair for finding in decision.findings for pair in finding.verdict.fields)]
        client = self._mail.client
        if not client.outbound:
            if not client.trusted or decision.judgement.score or decision.judgement.action is Action.JUNK:
                fields = [*self._judge.spam_fields(decision.judgement), *fields]
            if results:
                fields.insert(0, ("Authentication-Results", results))
        return front(fields)

    def _tell(
        self, judgement: Judgement, what: str, result: str, outcomes: Sequence[Outcome] = ()
    ) -> None:
        mail = self._mail
        ids = ", ".join(str(outcome.delivery) for outcome in outcomes[:5] if outcome.delivery is not None)
        self._judge.tell(
            Chapter(
                at=self._judged_at,
                what=what,
                id=mail.id,
                message_id=message_id_of(self._held.named.get(b"message-id", (b"",))[0]),
                client=mail.client.address,
                helo=mail.client.helo,
                sender=mail.sender,
                ours=mail.client.outbound,
                recipients=tuple(each.address for each in self._envelope.recipients),
                lines=judgement.trace,
                score=judgement.score,
                result=f"{result} as {ids}" if ids else result,
            )
        )
