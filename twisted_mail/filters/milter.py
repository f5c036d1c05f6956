"""Milters: filters that other programs bring, as sendmail and Postfix ask them (OpenDKIM, clamav-milter, rspamd's proxy, …).

One connection to the milter for each SMTP connection, kept over its transactions. Whatever the milter has not heard yet is
said before what it is asked: so it makes no difference whether a connection began long ago, was broken since, or a message
is shown later, from the queue. A milter that dies, hangs, or talks nonsense is `FilterDown`.

Milters stand in a row (`milter_chain`): behind one that may change a message the next one is shown what that one has made of it,
so that one that signs comes last. Their changes are made in that order.

``DISCARD`` would throw a message away that the sender was told is accepted. Here nothing is lost: it is QUARANTINE.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakKeyDictionary

from twisted_mail.filters import milter_packets as p
from twisted_mail.filters.answers import first
from twisted_mail.filters.milter_chain import MilterChain
from twisted_mail.filters.milter_changes import changes_of, words_of
from twisted_mail.filters.milter_conversation import Conversation, Said, cut_fields
from twisted_mail.filters.milter_macros import client_name, macro_values
from twisted_mail.filters.milter_packets import BODY_CHUNK, Command, Reply
from twisted_mail.filters.peers import ip_of
from twisted_mail.filters.values import ACCEPTED, Action, Answer, Arrived, Client, FilterDown, Mail, Verdict
from twisted_mail.filters.wires import Place, Wire
from twisted_mail.services import Recipient

__all__ = ["Milter"]

_HEADER_BYTES: Final = 1 << 20
"""As in `Arrived.header`: what comes behind is shown as body."""
_LINE: Final = 1000
"""Characters of a command that nobody knows."""


@dataclass(slots=True, eq=False)
class _Visit:
    """What a milter has heard of one connection."""

    conversation: Conversation | None = None
    connected: bool = False
    helo: tuple[str, bool] = ("", False)
    """The last one it was told, and whether TLS was active: it is said again then."""
    decided: Verdict | None = None
    """What it has said about the whole connection; it is asked no more."""
    transaction: _Transaction | None = None


@dataclass(slots=True, eq=False)
class _Transaction:
    """What it has heard of one transaction."""

    mail: Mail
    begun: bool = False
    recipients: set[str] = field(default_factory=set)
    no_more_recipients: bool = False
    """It has said SKIP."""
    decided: Verdict | None = None
    """What it has said about the whole message; it is asked no more."""
    over: bool = False
    """The end of the body was answered: there is nothing to abort."""


class Milter:
    """One milter, as a filter."""

    always = True
    """Peers of trusted networks are shown to it too, from the beginning: it has rules of its own about those."""

    def __init__(
        self,
        place: Place,
        dial: Callable[[Place, float], Awaitable[Wire]],
        hostname: str,
        *,
        name: str = "milter",
        outbound: bool = False,
        connect_seconds: float = 5.0,
        answer_seconds: float = 60.0,
        changes_bytes: int = 64 << 20,
        version: str = "",
        chain: MilterChain | None = None,
    ) -> None:
        """*hostname*, *version*: ours, for the macros ``j`` and ``v``. *outbound*: it sees the mail of our own users too, as
        one that signs must. *changes_bytes*: the most that it may change a message by.
        *chain*: the row that it stands in; None: it is alone."""
        self.name = name
        self.needs: frozenset[str] = frozenset({"iprev"})  # for the peer's name
        self.outbound = outbound
        self._place = place
        self._dial = dial
        self._hostname = hostname
        self._connect_seconds = connect_seconds
        self._answer_seconds = answer_seconds
        self._changes_bytes = changes_bytes
        self._version = version
        self._chain = chain or MilterChain()
        self._visits: WeakKeyDictionary[Client, _Visit] = WeakKeyDictionary()

    # --- moments

    async def connect(self, client: Client) -> Verdict:
        """Before the greeting."""
        visit = self._visit(client)
        await self._catch_up(visit, client)
        return visit.decided or ACCEPTED

    async def helo(self, client: Client) -> Verdict:
        """HELO, EHLO or LHLO; again, perhaps."""
        return await self.connect(client)

    async def mail(self, mail: Mail) -> Verdict:
        """MAIL."""
        visit = self._visit(mail.client)
        transaction = self._begin(visit, mail)
        await self._catch_up(visit, mail.client, transaction)
        return visit.decided or transaction.decided or ACCEPTED

    async def rcpt(self, mail: Mail, recipient: Recipient) -> Verdict:
        """RCPT: a refusal is that of one recipient."""
        visit = self._visit(mail.client)
        transaction = self._begin(visit, mail)
        await self._catch_up(visit, mail.client, transaction)
        if decided := visit.decided or transaction.decided:
            return decided
        return await self._recipient(visit, transaction, recipient)

    async def strange(self, client: Client, line: str) -> Verdict:
        """A command that nobody knows. What is said of it decides about nothing else."""
        visit = self._visit(client)
        await self._catch_up(visit, client)
        if visit.decided is not None:
            return ACCEPTED
        conversation = await self._conversation(visit)
        said = await conversation.say(Command.UNKNOWN, p.unknown(line[:_LINE]), self._values(client))
        verdict = self._decision(said, "about an unknown command")
        return verdict if verdict is not None and verdict.action >= Action.DEFER else ACCEPTED

    def read(self, mail: Mail) -> _Reading:
        """The message comes."""
        return _Reading(self, mail)

    async def ended(self, mail: Mail) -> None:
        """The transaction is over."""
        self._chain.forget(mail)
        visit = self._visits.get(mail.client)
        if visit is not None and visit.transaction is not None and visit.transaction.mail is mail:
            self._end(visit)

    async def closed(self, client: Client) -> None:
        """The connection is gone."""
        visit = self._visits.pop(client, None)
        if visit is not None and visit.conversation is not None:
            self._end(visit)
            visit.conversation.quit()

    # --- what it was told

    def _visit(self, client: Client) -> _Visit:
        visit = self._visits.get(client)
        if visit is None:
            visit = self._visits[client] = _Visit()
        return visit

    def _begin(self, visit: _Visit, mail: Mail) -> _Transaction:
        if visit.transaction is None or visit.transaction.mail is not mail:
            self._end(visit)
            visit.transaction = _Transaction(mail)
        return visit.transaction

    def _end(self, visit: _Visit) -> None:
        transaction, visit.transaction = visit.transaction, None
        if transaction is None or not transaction.begun or transaction.over:
            return
        if visit.conversation is not None and not visit.conversation.ended:
            visit.conversation.abort()

    def _values(self, client: Client, mail: Mail | None = None, recipient: Recipient | None = None) -> Mapping[str, str]:
        return macro_values(client, mail, recipient, self._hostname, self._version)

    async def _conversation(self, visit: _Visit) -> Conversation:
        """The connection to the milter; a new one knows nothing yet."""
        if visit.conversation is None or visit.conversation.ended:
            visit.conversation = None
            visit.connected, visit.helo = False, ("", False)
            if (transaction := visit.transaction) is not None:
                transaction.begun, transaction.no_more_recipients = False, False
                transaction.recipients.clear()
            wire = await self._dial(self._place, self._connect_seconds)
            conversation = Conversation(wire, self._answer_seconds, self._changes_bytes)
            try:
                await conversation.negotiate()
            except BaseException:
                conversation.hang_up()
                raise
            visit.conversation = conversation
        return visit.conversation

    async def _catch_up(self, visit: _Visit, client: Client, transaction: _Transaction | None = None) -> None:
        """Say what it has not heard; stops where it decides."""
        helo = (client.helo, client.secure)
        if visit.decided is not None and visit.decided.action > Action.ACCEPT and visit.helo[0] and helo != visit.helo:
            visit.decided = None  # another HELO is another chance
        if visit.decided is not None or (transaction is not None and transaction.decided is not None):
            return
        conversation = await self._conversation(visit)
        if not visit.connected:
            packet = p.connect(client_name(client), str(ip_of(client.address) or ""), client.port)
            said = await conversation.say(Command.CONNECT, packet, self._values(client))
            visit.connected = True
            visit.decided = self._decision(said, "at connect", at_connect=True)
        if visit.decided is None and client.helo and helo != visit.helo:
            said = await conversation.say(Command.HELO, p.helo(client.helo), self._values(client))
            visit.helo = helo
            visit.decided = self._decision(said, "at HELO")
        if transaction is None or visit.decided is not None:
            return
        if not transaction.begun:
            mail = transaction.mail
            packet = p.mail(mail.sender, _mail_parameters(mail))
            transaction.begun = True
            said = await conversation.say(Command.MAIL, packet, self._values(client, mail))
            transaction.decided = self._decision(said, "at MAIL")
        for recipient in transaction.mail.recipients:
            if transaction.decided is not None:
                return
            if recipient.address not in transaction.recipients:
                # it was accepted while this milter could not be asked, or the connection to it was another one
                verdict = await self._recipient(visit, transaction, recipient)
                if verdict.action >= Action.DEFER:
                    transaction.decided = verdict

    async def _recipient(self, visit: _Visit, transaction: _Transaction, recipient: Recipient) -> Verdict:
        conversation = await self._conversation(visit)
        if transaction.no_more_recipients:
            return ACCEPTED
        mail = transaction.mail
        said = await conversation.say(
            Command.RCPT, p.rcpt(recipient.address), self._values(mail.client, mail, recipient)
        )
        transaction.recipients.add(recipient.address)
        transaction.no_more_recipients = said.reply is Reply.SKIP
        verdict = self._decision(said, "at RCPT")
        if verdict is not None and verdict.action < Action.DEFER:
            transaction.decided = verdict
        return verdict or ACCEPTED

    # --- what it says

    def _decision(self, said: Said, where: str, *, at_connect: bool = False) -> Verdict | None:
        """None: it wants to hear more."""
        match said.reply:
            case Reply.CONTINUE | Reply.SKIP:
                return None
            case Reply.ACCEPT:
                return ACCEPTED
            case Reply.DISCARD:
                return Verdict(
                    action=Action.QUARANTINE,
                    reason=f"{self.name} wants it thrown away ({where}); it is kept from its recipients instead",
                )
            case Reply.REJECT:
                answer = Answer(554, "5.7.1", "Service refused") if at_connect else None
                return Verdict(action=Action.REJECT, reason=f"{self.name} refuses it ({where})", answer=answer)
            case Reply.TEMPORARY_FAILURE:
                return Verdict(action=Action.DEFER, reason=f"{self.name} refuses it for now ({where})")
            case Reply.SHUTDOWN | Reply.CONNECTION_FAILURE:
                answer = Answer(421, "4.7.0", "Service not available, closing the connection")
                return Verdict(action=Action.DEFER, reason=f"{self.name} ends the connection ({where})", answer=answer)
        code = said.code
        assert code is not None  # a REPLY_CODE has one
        action = Action.DEFER if code.code < 500 else Action.REJECT
        enhanced = code.enhanced or f"{code.code // 100}.7.1"
        text = code.text or ("Try again later" if action is Action.DEFER else "Refused")
        return Verdict(
            action=action,
            reason=f"{self.name} says ({where}): {code.code} {text}",
            answer=Answer(code.code, enhanced, text),
        )


def _mail_parameters(mail: Mail) -> list[str]:
    parameters = []
    if mail.size is not None:
        parameters.append(f"SIZE={mail.size}")
    if mail.body != "7BIT":
        parameters.append(f"BODY={mail.body}")
    if mail.smtputf8:
        parameters.append("SMTPUTF8")
    return parameters


class _Reading:
    """One message on its way to a milter."""

    def __init__(self, milter: Milter, mail: Mail) -> None:
        self._milter = milter
        self._mail = mail
        self._visit = milter._visit(mail.client)
        self._transaction = milter._begin(self._visit, mail)
        self._conversation: Conversation | None = None
        self._header: bytearray | None = bytearray()
        """What has come of it; None: it is told."""
        self._body = bytearray()
        self._enough = False
        """The milter wants no more of the body."""
        self._link = milter._chain.join(mail, self._may_change)
        self._streams: bool | None = None
        """Whether it is told while the message comes; None: nothing has come yet."""

    @property
    def _decided(self) -> Verdict | None:
        return self._visit.decided or self._transaction.decided

    def _may_change(self) -> bool:
        """Whether it may change what the next milter sees. One that was not reached yet may."""
        conversation = self._visit.conversation
        if self._decided is not None:
            return False
        return conversation is None or conversation.ended or conversation.may_change

    async def write(self, chunk: bytes) -> None:
        """The next octets."""
        if self._streams is None:
            self._streams = self._link.free
        if self._streams:
            await self._take(chunk)

    async def _take(self, chunk: bytes) -> None:
        await self._start()
        if self._decided is not None:
            return
        if self._header is not None:
            looked = max(len(self._header) - 3, 0)
            self._header += chunk
            chunk = b""
            end = 2 if self._header.startswith(b"\r\n") else self._header.find(b"\r\n\r\n", looked) + 4
            if end >= 4 or self._header.startswith(b"\r\n"):
                await self._tell_header(end)
            elif len(self._header) > _HEADER_BYTES:
                await self._tell_header(_HEADER_BYTES)
            else:
                return
        self._body += chunk
        await self._tell_body(BODY_CHUNK)

    async def finish(self, message: Arrived) -> Verdict:
        """All has come."""
        verdict: Verdict | None = None
        self._link.begin()
        try:
            verdict = await self._finish(message)
        finally:
            self._link.end(verdict)
        return verdict

    async def _finish(self, message: Arrived) -> Verdict:
        if not self._streams:
            seen = await self._link.seen(message)
            if seen is None:
                return ACCEPTED  # it is refused already
            message = seen
            async with aclosing(first(message.chunks(), message.size)) as chunks:
                async for chunk in chunks:
                    await self._take(chunk)
                    if self._decided is not None:
                        break
        await self._start()
        if self._header is not None and self._decided is None:
            await self._tell_header(len(self._header))
        await self._tell_body(1)
        if (decided := self._decided) is not None:
            return decided
        conversation = self._live()
        said = await conversation.end_of_body(self._milter._values(self._mail.client, self._mail))
        self._transaction.over = True
        return self._concluded(said, message, conversation.leading_space)

    async def abort(self) -> None:
        """No more comes. (The transaction's end tells the milter.)"""
        self._header = None
        self._body.clear()

    # --- telling

    async def _start(self) -> None:
        if self._conversation is None:
            await self._milter._catch_up(self._visit, self._mail.client, self._transaction)
            if self._decided is None:
                self._conversation = self._visit.conversation
                await self._say(Command.DATA, p.simple(Command.DATA), "at DATA")

    def _live(self) -> Conversation:
        """The connection that this message began on."""
        if self._conversation is None or self._conversation.ended:
            raise FilterDown("it has closed the connection in the middle of a message")
        return self._conversation

    async def _say(self, command: Command, packet: p.Packet, where: str) -> None:
        values = self._milter._values(self._mail.client, self._mail)
        said = await self._live().say(command, packet, values)
        self._transaction.decided = self._milter._decision(said, where)

    async def _tell_header(self, end: int) -> None:
        assert self._header is not None
        header, rest = bytes(self._header[:end]), bytes(self._header[end:])
        self._header = None
        conversation = self._live()
        if conversation.wants(Command.HEADER):
            said = await conversation.fields(list(cut_fields(header)))
            self._transaction.decided = self._milter._decision(said, "in the header")
        if self._decided is None:
            await self._say(Command.END_OF_HEADER, p.simple(Command.END_OF_HEADER), "at the end of the header")
        self._body += rest

    async def _tell_body(self, least: int) -> None:
        """As long as there are *least* octets."""
        if self._enough or self._decided is not None or not self._live().wants(Command.BODY):
            self._body.clear()
            return
        while len(self._body) >= least:
            chunk = bytes(self._body[:BODY_CHUNK])
            del self._body[:BODY_CHUNK]
            said = await self._live().body(chunk)
            self._enough = said.reply is Reply.SKIP
            self._transaction.decided = self._milter._decision(said, "in the body")
            if self._enough or self._decided is not None:
                self._body.clear()

    # --- what came of it

    def _concluded(self, said: Said, message: Arrived, leading_space: bool) -> Verdict:
        name = self._milter.name
        decided = self._milter._decision(said, "at the end of the message")
        if decided is not None and decided.action > Action.ACCEPT:
            return decided
        changes = changes_of(said.changes, message.fields, leading_space=leading_space)
        words = words_of(said.changes)
        reason = f"{name} {words}" if words else ""
        held = next((each for each in said.changes if each.kind is Reply.QUARANTINE), None)
        if held is None:
            return Verdict(reason=reason, changes=changes)
        why = "".join(each if each.isprintable() else " " for each in held.value)[:400].strip()
        return Verdict(
            action=Action.QUARANTINE,
            reason=f"{name} holds it back: {why or 'it gives no reason'}" + (f"; it {words}" if words else ""),
            changes=changes,
        )
