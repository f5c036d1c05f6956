"""What clients do while servers die: senders, editors and watchers, each a task, all kept by a recorder.

An editor owns some of the messages (by their token) and a keyword of its own: nobody else changes these, which is what
the checker relies on.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.faults.messages import attachment_of, make, token_of
from tests.faults.records import Arrived, Kept, Moved, Outcome, Picture, Recorder, Shown, Stored, Vanished, digest
from tests.faults.wire import Cut, IMAPClient, Reply, SMTPClient, WrongAnswer
from tests.services.mail import MailNode

__all__ = ["MAILBOXES", "Load", "look"]

MAILBOXES: Final = ("INBOX", "Archive")
_SUBJECT: Final = "BODY.PEEK[HEADER.FIELDS (SUBJECT)]"
_EDITED: Final = 60
"""How many of the newest messages of a mailbox an editor looks at."""


@dataclass(slots=True)
class Load:
    """Clients of *smtp* and *imap* nodes, for *accounts*, until `end`."""

    recorder: Recorder
    smtp: Sequence[MailNode]
    imap: Sequence[MailNode]
    accounts: Sequence[str]
    password: str
    seed: int
    editors: int = 2
    """For each account."""
    senders: int = 2
    watchers: int = 2
    """For each account; the first in INBOX, the second in Archive …"""
    pause: float = 0.05
    """Seconds between two operations of a client: the machine serves everything else too."""
    seconds: float = 60.0
    """How long a client waits for an answer."""
    sizes: Sequence[int] = (200, 2_000, 2_000, 20_000, 150_000)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    touched: set[tuple[str, str]] = field(default_factory=set)
    """Accounts and tokens of messages that may be on their way: nobody moves or expunges them again."""
    _sessions: int = 0

    async def run(self) -> None:
        """Until `ended` is set and everybody has finished what was under way. A client's own mistake is raised."""
        tasks: list[Awaitable[None]] = [self._again(self._send, str(number)) for number in range(self.senders)]
        for account in self.accounts:
            for number in range(self.editors):
                tasks.append(self._again(self._edit, f"{account} {number}"))
            for number in range(self.watchers):
                tasks.append(self._again(self._watch, f"{account} {number}"))
        await asyncio.gather(*tasks)

    async def _again(self, work: Callable[[str, random.Random], Awaitable[None]], name: str) -> None:
        chance = random.Random(f"{self.seed} {work.__name__} {name}")
        while not self.ended.is_set():
            try:
                await work(name, chance)
            except Cut:
                await asyncio.sleep(0.1 + chance.random() * 0.3)
            except WrongAnswer as error:
                self.recorder.defect(f"{work.__name__} {name}: {error}")

    async def _rest(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.ended.wait(), self.pause)

    # --- senders

    async def _send(self, name: str, chance: random.Random) -> None:
        """Some messages over one connection; half of them have several recipients."""
        node = chance.choice(self.smtp)
        client = await SMTPClient.connect(node.ports["smtp"], node.address, seconds=self.seconds)
        try:
            for _ in range(chance.randrange(1, 8)):
                many = len(self.accounts) > 1 and chance.random() < 0.3
                recipients = list(self.accounts) if many else [chance.choice(self.accounts)]
                await self._send_one(client, node, name, recipients, chance)
                await self._rest()
                if self.ended.is_set():
                    break
        finally:
            client.abort()

    async def _send_one(
        self, client: SMTPClient, node: MailNode, name: str, recipients: list[str], chance: random.Random
    ) -> None:
        token = self._token(f"s{name}", chance)
        octets = make(token, chance.choice(self.sizes), chance)
        attached = attachment_of(octets)
        began = self.recorder.clock()

        def keep(who: Sequence[str], outcome: Outcome, reply: str) -> None:
            for recipient in who:
                self.recorder.keep(
                    Arrived(
                        token=token, account=recipient, mailbox="INBOX", outcome=outcome, digest=digest(octets), reply=reply,
                        began=began, ended=self.recorder.clock(), node=node.name, attached=attached,
                    )
                )  # fmt: skip

        try:
            refused, kind, text = await client.message("x@elsewhere.example", recipients, octets)
        except (Cut, WrongAnswer) as error:
            keep(recipients, Outcome.UNKNOWN if client.begun else Outcome.REFUSED, f"cut: {error}")
            raise
        keep(list(refused), Outcome.REFUSED, "; ".join(refused.values()))
        rest = [recipient for recipient in recipients if recipient not in refused]
        keep(rest, Outcome.ANSWERED if kind == 2 else Outcome.REFUSED, text)
        if kind == 5:
            self.recorder.defect(f"{node.name} refused {token} for ever: {text}")
        if text.startswith("421"):
            raise Cut(text)

    def _token(self, who: str, chance: random.Random) -> str:
        return f"{who.replace(' ', '.').replace('@', '.')}-{chance.getrandbits(60):015x}"

    # --- editors

    async def _edit(self, name: str, chance: random.Random) -> None:
        account, number = name.split()
        node = chance.choice(self.imap)
        client = await IMAPClient.connect(node.ports["imap"], account, self.password, node.address, self.seconds)
        try:
            mailbox = chance.choice(MAILBOXES)
            editor = _Editor(self, client, node, account, int(number), mailbox, chance)
            if not await editor.open():
                return
            for _ in range(chance.randrange(4, 16)):
                await editor.step()
                await self._rest()
                if self.ended.is_set():
                    break
            await client.logout()
        finally:
            client.abort()

    # --- watchers

    async def _watch(self, name: str, chance: random.Random) -> None:
        account, number = name.split()
        mailbox = MAILBOXES[int(number) % len(MAILBOXES)]
        node = chance.choice(self.imap)
        client = await IMAPClient.connect(node.ports["imap"], account, self.password, node.address, self.seconds)
        self._sessions += 1
        try:
            await _Watcher(self, client, f"w{self._sessions}@{node.name}", account, mailbox).run(chance.randrange(20, 60))
            await client.logout()
        finally:
            client.abort()


def owner_of(token: str, editors: int) -> int:
    """Which of an account's editors may move, expunge, and mark a message."""
    return zlib.crc32(token.encode()) % editors


async def _shown(client: IMAPClient, uids: str) -> dict[int, tuple[str, frozenset[str]]]:
    """Token and flags of messages by UID."""
    reply = await client.command(f"UID FETCH {uids} (UID FLAGS {_SUBJECT})")
    found = {}
    for response in reply.untagged:
        if response.uid is not None and response.literals:
            found[response.uid] = (token_of(response.literals[0]), response.flags or frozenset())
    return found


class _Editor:
    """One session that changes things in one mailbox."""

    def __init__(
        self, load: Load, client: IMAPClient, node: MailNode, account: str, number: int, mailbox: str, chance: random.Random
    ) -> None:
        self.load, self.client, self.node = load, client, node
        self.account, self.number, self.mailbox, self.chance = account, number, mailbox, chance
        self.tokens: dict[int, str] = {}

    async def open(self) -> bool:
        """Select, and see what is there; False where it cannot be changed now."""
        reply = await self.client.command(f"SELECT {self.mailbox}")
        if not reply.ok or "[READ-ONLY]" in reply.text:
            return False
        exists = next((n for r in reply.untagged if (n := r.number("EXISTS")) is not None), 0)
        if exists:
            first = max(1, exists - _EDITED)
            reply = await self.client.command(f"FETCH {first}:* (UID FLAGS {_SUBJECT})")
            for response in reply.untagged:
                if response.uid is not None and response.literals:
                    self.tokens[response.uid] = token_of(response.literals[0])
        return True

    async def step(self) -> None:
        """One change."""
        kind = self.chance.random()
        mine = [uid for uid, token in self.tokens.items() if self._may_move(token)]
        if kind < 0.1 or not self.tokens:
            await self._append()
        elif kind < 0.5:
            uids = self.chance.sample(sorted(self.tokens), min(len(self.tokens), self.chance.choice((1, 1, 1, 3, 20))))
            await self._store(sorted(uids), f"$e{self.number}", self.chance.random() < 0.6)
        elif not mine:
            return
        elif kind < 0.75:
            await self._store([self.chance.choice(mine)], self.chance.choice(("\\Seen", "\\Flagged")), self.chance.random() < 0.7)
        elif kind < 0.92:
            await self._move(self.chance.choice(mine))
        else:
            await self._expunge(self.chance.choice(mine))

    def _may_move(self, token: str) -> bool:
        """Ours, and no change of its place has ended without an answer."""
        return owner_of(token, self.load.editors) == self.number and (self.account, token) not in self.load.touched

    async def _append(self) -> None:
        load = self.load
        token = load._token(f"a{self.account}{self.number}", self.chance)
        octets = make(token, self.chance.choice(load.sizes), self.chance)
        began, outcome, text, uid, validity = load.recorder.clock(), Outcome.UNKNOWN, "cut", 0, 0
        try:
            reply = await self.client.command(f"APPEND {self.mailbox}", octets)
            outcome, text = _outcome(reply), reply.text
            if reply.ok and (code := reply.code("APPENDUID")):
                validity, uid = int(code[0]), int(code[1])
                self.tokens[uid] = token
        finally:
            load.recorder.keep(
                Arrived(
                    token=token, account=self.account, mailbox=self.mailbox, outcome=outcome, digest=digest(octets), reply=text,
                    began=began, ended=load.recorder.clock(), node=self.node.name, uid=uid, validity=validity,
                    attached=attachment_of(octets),
                )
            )  # fmt: skip

    async def _store(self, uids: list[int], flag: str, on: bool) -> None:
        began, outcome, reported = self.load.recorder.clock(), Outcome.UNKNOWN, set[int]()
        uid_set = ",".join(map(str, uids))
        try:
            reply = await self.client.command(f"UID STORE {uid_set} {'+' if on else '-'}FLAGS ({flag})")
            outcome = _outcome(reply)
            reported = {
                response.uid
                for response in reply.untagged
                if response.uid is not None and (flag in (response.flags or ())) == on
            }
        finally:
            for uid in uids:
                self.load.recorder.keep(
                    Stored(
                        token=self.tokens[uid], account=self.account, flag=flag, on=on, outcome=outcome,
                        reported=uid in reported, began=began, ended=self.load.recorder.clock(), node=self.node.name,
                    )
                )  # fmt: skip

    async def _move(self, uid: int) -> None:
        to = next(name for name in MAILBOXES if name != self.mailbox)
        await self._place(uid, to, f"UID MOVE {uid} {to}")

    async def _expunge(self, uid: int) -> None:
        began, outcome = self.load.recorder.clock(), Outcome.UNKNOWN
        token = self.tokens[uid]
        try:
            outcome = _outcome(await self.client.command(f"UID STORE {uid} +FLAGS (\\Deleted)"))
        finally:
            self.load.recorder.keep(
                Stored(
                    token=token, account=self.account, flag="\\Deleted", on=True, outcome=outcome, reported=True,
                    began=began, ended=self.load.recorder.clock(), node=self.node.name,
                )
            )  # fmt: skip
        if outcome is Outcome.ANSWERED:
            await self._place(uid, None, f"UID EXPUNGE {uid}")

    async def _place(self, uid: int, to: str | None, command: str) -> None:
        began, outcome, reported, new, validity = self.load.recorder.clock(), Outcome.UNKNOWN, False, 0, 0
        token = self.tokens[uid]
        self.load.touched.add((self.account, token))  # until it is answered
        try:
            reply = await self.client.command(command)
            outcome = _outcome(reply)
            code = reply.code("COPYUID")
            if to is not None and code:
                reported, validity, new = True, int(code[0]), int(code[2])
            elif to is None:
                reported = any(response.number("EXPUNGE") or response.vanished() for response in reply.untagged)
        finally:
            self.load.recorder.keep(
                Moved(
                    token=token, account=self.account, source=self.mailbox, to=to, outcome=outcome, reported=reported,
                    began=began, ended=self.load.recorder.clock(), node=self.node.name, uid=new, validity=validity,
                )
            )  # fmt: skip
        if outcome is Outcome.REFUSED or reported:
            self.load.touched.discard((self.account, token))
        if reported:
            del self.tokens[uid]


def _outcome(reply: Reply) -> Outcome:
    if reply.status == "BAD":
        raise WrongAnswer(f"BAD {reply.text}")
    return Outcome.ANSWERED if reply.ok else Outcome.REFUSED


class _Watcher:
    """One session in IDLE, which looks at what it is told of."""

    def __init__(self, load: Load, client: IMAPClient, session: str, account: str, mailbox: str) -> None:
        self.load, self.client = load, client
        self.session, self.account, self.mailbox = session, account, mailbox
        self.known: set[int] = set()
        self.validity = 0

    async def run(self, rounds: int) -> None:
        """*rounds* times: wait until something comes, look."""
        await self.client.command("ENABLE QRESYNC")
        reply = await self.client.command(f"SELECT {self.mailbox}")
        if not reply.ok or "[READ-ONLY]" in reply.text:
            await asyncio.sleep(0.5)
            return
        code = reply.code("UIDVALIDITY")
        if not code:
            raise WrongAnswer("SELECT without UIDVALIDITY")
        self.validity = int(code[0])
        await self._look("1:*")
        for _ in range(rounds):
            async with self.client.idle() as late:
                if not late:
                    first = await self.client.untagged(2.0)
                    if first is not None:
                        late.append(first)
            for response in late:
                self._gone(response.vanished())
            grown = any(response.number("EXISTS") is not None for response in late)
            if grown:
                await self._look(f"{max(self.known, default=0) + 1}:*")
            if self.load.ended.is_set():
                break

    async def _look(self, uids: str) -> None:
        """What is new, in the order of the server."""
        reply = await self.client.command(f"UID FETCH {uids} (UID FLAGS {_SUBJECT})")
        for response in reply.untagged:
            self._gone(response.vanished())
            uid = response.uid
            if uid is None or not response.literals or uid in self.known:
                continue  # ``n:*`` also names the last message, whatever n is
            self.known.add(uid)
            self.load.recorder.keep(
                Shown(
                    session=self.session, account=self.account, mailbox=self.mailbox, validity=self.validity, uid=uid,
                    token=token_of(response.literals[0]), at=self.load.recorder.clock(),
                )
            )  # fmt: skip

    def _gone(self, uids: Sequence[int]) -> None:
        for uid in uids:
            self.load.recorder.keep(
                Vanished(
                    session=self.session, account=self.account, mailbox=self.mailbox, validity=self.validity, uid=uid,
                    at=self.load.recorder.clock(),
                )
            )  # fmt: skip


async def look(node: MailNode, account: str, password: str, *, bodies: bool = True) -> Picture:
    """All that is in an account now, as one node shows it. Raises Cut, WrongAnswer."""
    client = await IMAPClient.connect(node.ports["imap"], account, password, node.address, 60)
    found: list[Kept] = []
    try:
        for mailbox in MAILBOXES:
            reply = await client.command(f"SELECT {mailbox}")
            code = reply.code("UIDVALIDITY")
            if not reply.ok or not code:
                raise Cut(f"{mailbox}: {reply.text}")
            kept = await _shown(client, "1:*") if "0 EXISTS" not in (r.text for r in reply.untagged) else {}
            digests = await _digests(client, sorted(kept)) if bodies else {}
            for uid, (token, flags) in kept.items():
                found.append(
                    Kept(
                        mailbox=mailbox, validity=int(code[0]), uid=uid, token=token,
                        flags=frozenset(flags - {"\\Recent"}), digest=digests.get(uid, "none") if bodies else "",
                    )
                )  # fmt: skip
        await client.logout()
    finally:
        client.abort()
    return Picture(account, tuple(found))


async def _digests(client: IMAPClient, uids: list[int]) -> dict[int, str]:
    """Of the octets that were sent: the server puts its own header fields in front. Raises Cut if a body is missing."""
    found = {}
    for start in range(0, len(uids), 50):
        part = uids[start : start + 50]
        reply = await client.command(f"UID FETCH {','.join(map(str, part))} (UID BODY.PEEK[])")
        if not reply.ok:
            raise WrongAnswer(f"bodies of {part}: {reply.text}")
        for response in reply.untagged:
            if response.uid is not None and response.literals:
                octets = response.literals[0]
                found[response.uid] = digest(octets[max(0, octets.find(b"Subject: ")) :])
    return found
