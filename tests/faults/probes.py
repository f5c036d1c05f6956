"""Single operations against a cluster in trouble: what is answered, and how soon. All are kept by the recorder."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from tests.faults.messages import make, token_of
from tests.faults.records import Arrived, Outcome, Recorder, Stored, digest
from tests.faults.wire import Cut, IMAPClient, SMTPClient, WrongAnswer
from tests.services.mail import MailNode

__all__ = ["Answer", "Probe"]


@dataclass(frozen=True, slots=True)
class Answer:
    """How an operation ended."""

    outcome: Outcome
    text: str
    seconds: float
    token: str = ""


@dataclass(slots=True)
class Probe:
    """Operations one after the other, for one account."""

    recorder: Recorder
    account: str
    password: str
    seed: int
    _chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)

    def _new(self, size: int) -> tuple[str, bytes]:
        token = f"p{self.seed}-{self._chance.getrandbits(60):015x}"
        return token, make(token, size, self._chance)

    async def deliver(self, node: MailNode, size: int = 2_000, *, service: str = "smtp", seconds: float = 60) -> Answer:
        """A message by SMTP or LMTP."""
        token, octets = self._new(size)
        began, outcome, text = self.recorder.clock(), Outcome.REFUSED, ""
        client = None
        try:
            hello = "LHLO" if service == "lmtp" else "EHLO"
            client = await SMTPClient.connect(node.ports[service], node.address, seconds=seconds, hello=hello)
            refused, kind, text = await client.message("x@elsewhere.example", [self.account], octets)
            outcome = Outcome.ANSWERED if kind == 2 and not refused else Outcome.REFUSED
        except (Cut, WrongAnswer) as error:
            outcome = Outcome.UNKNOWN if client is not None and client.begun else Outcome.REFUSED
            text = f"cut: {error}"
        finally:
            if client is not None:
                client.abort()
        self._arrived(token, "INBOX", outcome, octets, text, began, node)
        return Answer(outcome, text, self.recorder.clock() - began, token)

    def _arrived(
        self, token: str, mailbox: str, outcome: Outcome, octets: bytes, text: str, began: float, node: MailNode,
        validity: int = 0, uid: int = 0,
    ) -> None:  # fmt: skip
        self.recorder.keep(
            Arrived(
                token=token, account=self.account, mailbox=mailbox, outcome=outcome, digest=digest(octets), reply=text,
                began=began, ended=self.recorder.clock(), node=node.name, validity=validity, uid=uid,
            )
        )  # fmt: skip

    async def session(self, node: MailNode, seconds: float = 60) -> IMAPClient:
        """Logged in. Raises Cut."""
        return await IMAPClient.connect(node.ports["imap"], self.account, self.password, node.address, seconds)

    async def append(self, client: IMAPClient, node: MailNode, mailbox: str = "INBOX", size: int = 2_000) -> Answer:
        """APPEND in a session."""
        token, octets = self._new(size)
        began, outcome, text, validity, uid = self.recorder.clock(), Outcome.UNKNOWN, "cut", 0, 0
        try:
            reply = await client.command(f"APPEND {mailbox}", octets)
            outcome, text = (Outcome.ANSWERED if reply.ok else Outcome.REFUSED), reply.text
            if code := reply.code("APPENDUID"):
                validity, uid = int(code[0]), int(code[1])
        except Cut:
            pass
        self._arrived(token, mailbox, outcome, octets, text, began, node, validity, uid)
        return Answer(outcome, text, self.recorder.clock() - began, token)

    async def store(self, client: IMAPClient, uid: int, token: str, flag: str = "$probe") -> Answer:
        """UID STORE +FLAGS in a session."""
        began, outcome, text, reported = self.recorder.clock(), Outcome.UNKNOWN, "cut", False
        try:
            reply = await client.command(f"UID STORE {uid} +FLAGS ({flag})")
            outcome, text = (Outcome.ANSWERED if reply.ok else Outcome.REFUSED), reply.text
            reported = any(response.uid == uid for response in reply.untagged)
        except Cut:
            pass
        self.recorder.keep(
            Stored(
                token=token, account=self.account, flag=flag, on=True, outcome=outcome, reported=reported,
                began=began, ended=self.recorder.clock(),
            )
        )  # fmt: skip
        return Answer(outcome, text, self.recorder.clock() - began, token)

    async def there(self, client: IMAPClient, mailbox: str = "INBOX") -> dict[str, int]:
        """UIDs by token; selects the mailbox. Raises Cut where it cannot be read."""
        reply = await client.command(f"SELECT {mailbox}")
        if not reply.ok:
            raise Cut(reply.text)
        reply = await client.command("UID FETCH 1:* (UID BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
        return {
            token_of(response.literals[0]): response.uid
            for response in reply.untagged
            if response.uid is not None and response.literals
        }


