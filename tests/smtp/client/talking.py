r"""Reading and running transcripts of the sending side (tests/transcripts/smtp-client).

``# …``          a comment
``! KEY VALUE``  before anything else: ``hello NAME``, ``lmtp yes``, ``tls yes``, ``login USER PASSWORD``, ``private yes``,
                 ``chunking no``
``M: SENDER > RECIPIENTS | OCTETS``  a message to send, in order (Python's escapes); ``M: … | … | FIELD=VALUE …``
``C: …``         a line from the client, exact; CRLF is added
``R: …``         octets from the client, with Python's escapes
``S: …``         a line from the server; CRLF is added
``X:``           the server closes the connection
``T:``           the TLS handshake
``V: STAGE LINE``  what came of the next recipient; with ``!`` behind the stage: it is about the connection
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted_mail.smtp.client.conversation import Conversation, Event
from twisted_mail.smtp.client.login import choose
from twisted_mail.smtp.client.replies import Heard

ROOT = Path(__file__).parents[2] / "transcripts" / "smtp-client"
Cutting = Callable[[bytes], Sequence[bytes]]


@dataclass(frozen=True)
class To:
    address: str
    notify: frozenset[str] = frozenset()
    original: str = ""


@dataclass(frozen=True)
class Message:
    sender: str = "ann@here.example"
    size: int = 0
    eight_bit: bool = False
    smtputf8: bool = False
    envelope_id: str = ""
    dsn_return: str = ""
    deliver_by: tuple[float, str] | None = None
    priority: int | None = None
    requiretls: bool = False


def verdict(heard: Heard | None) -> str:
    if heard is None:
        return "nothing"
    return f"{heard.stage.value}{'!' if heard.about_connection else ''} {heard.reply.line}"


@dataclass
class Talk:
    """Drives a conversation through TLS, login, some messages and QUIT, as a driver would."""

    conversation: Conversation
    messages: list[tuple[Message, list[To], bytes]] = field(default_factory=list)
    tls: bool = False
    login: tuple[str, str] | None = None
    private: bool = False
    block: int = 7
    secure: bool = False
    logged_in: bool = False
    sent: bytes = b""
    verdicts: list[str] = field(default_factory=list)
    handshake_due: bool = False
    _at: int = -1

    def flush(self) -> None:
        self.sent += self.conversation.take_output()

    def hear(self, data: bytes, cut: Cutting = lambda data: [data]) -> None:
        for piece in cut(data):
            self.on(self.conversation.receive(piece))

    def close(self) -> None:
        self.on(self.conversation.closed())

    def handshake(self) -> None:
        assert self.handshake_due, "no handshake was asked for"
        self.handshake_due, self.secure = False, True
        self.conversation.tls_started()
        self.flush()

    def on(self, event: Event | None) -> None:
        talk = self.conversation
        match event:
            case Event.TLS:
                self.handshake_due = True
            case Event.READY if self.tls and not self.secure and talk.offers.starttls and talk.tls_refusal is None:
                talk.start_tls()
            case Event.READY if self.login and not self.logged_in:
                self.logged_in = True
                exchange = choose(talk.offers.auth, *self.login, private=self.private, nonce=lambda: "rOprNGfwEbeRWgbNEkqO")
                if exchange is None:
                    talk.quit()
                else:
                    talk.log_in(exchange)
            case Event.READY:
                self._next()
            case Event.BODY:
                self.flush()
                octets = self.messages[self._at][2]
                pieces = [octets[at : at + self.block] for at in range(0, len(octets), self.block)] or [b""]
                for piece in pieces[:-1]:
                    self.sent += talk.chunk(piece)
                self.sent += talk.chunk(pieces[-1], last=True)
            case Event.DONE:
                self.verdicts += map(verdict, talk.outcomes)
                self._next()
            case Event.ENDED if not talk.broken and not talk._awaited:
                talk.quit()
        self.flush()

    def _next(self) -> None:
        if self.conversation.ended is not None:
            return
        self._at += 1
        if self._at < len(self.messages):
            message, to, _ = self.messages[self._at]
            self.on(self.conversation.send(message, to))
        else:
            self.conversation.quit()


def _octets(text: str) -> bytes:
    return text.encode().decode("unicode_escape").encode("latin-1")


def _message(text: str) -> tuple[Message, list[To], bytes]:
    who, _, rest = text.partition(" | ")
    octets, _, more = rest.partition(" | ")
    sender, _, recipients = who.partition(" > ")
    fields: dict[str, Any] = {}
    notify: frozenset[str] = frozenset()
    original = ""
    for word in more.split():
        key, _, value = word.partition("=")
        match key:
            case "notify":
                notify = frozenset(value.split(","))
            case "original":
                original = value
            case "eight_bit" | "smtputf8" | "requiretls":
                fields[key] = True
            case "size" | "priority":
                fields[key] = int(value)
            case "deliver_by":
                seconds, _, mode = value.partition(";")
                fields[key] = (float(seconds), mode)
            case _:
                fields[key] = value
    body = _octets(octets)
    fields.setdefault("size", len(body))
    to = [To(address, notify, original) for address in recipients.split(", ")]
    return Message("" if sender == "<>" else sender, **fields), to, body


def whole(data: bytes) -> Sequence[bytes]:
    return [data]


def by_octet(data: bytes) -> Sequence[bytes]:
    return [bytes((octet,)) for octet in data]


def play(path: Path, cut: Cutting = whole) -> None:
    settings: dict[str, str] = {}
    messages, lines = [], []
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("! "):
            key, _, value = line[2:].partition(" ")
            settings[key] = value
        elif line.startswith("M: "):
            messages.append(_message(line[3:]))
        elif line and not line.startswith("#"):
            assert line[:2] in ("C:", "R:", "S:", "X:", "T:", "V:"), f"{path.name}: {line!r}"
            lines.append((line[0], line[3:]))
    user, _, password = settings.get("login", "").partition(" ")
    talk = Talk(
        Conversation(
            settings.get("hello", "here.example"),
            lmtp=settings.get("lmtp") == "yes",
            chunking=settings.get("chunking") != "no",
        ),
        messages,
        tls=settings.get("tls") == "yes",
        login=(user, password) if user else None,
        private=settings.get("private") == "yes",
        block=int(settings.get("block", "7")),
    )
    heard, expected, verdicts = b"", b"", []
    for kind, text in [*lines, ("X", "")]:
        if kind == "S":
            if not heard:
                assert talk.sent == expected, f"{path.name}: expected {expected!r}, got {talk.sent!r}"
            heard += text.encode() + b"\r\n"
            continue
        if heard:
            talk.hear(heard, cut)
            heard = b""
        if kind == "C":
            expected += text.encode() + b"\r\n"
        elif kind == "R":
            expected += _octets(text)
        elif kind == "T":
            assert talk.sent == expected, f"{path.name}: expected {expected!r}, got {talk.sent!r}"
            talk.handshake()
        elif kind == "V":
            verdicts.append(text)
        else:
            talk.close()
    assert talk.sent == expected, f"{path.name}: expected {expected!r}, got {talk.sent!r}"
    assert talk.verdicts == verdicts, f"{path.name}: {talk.verdicts}"
