"""SpamAssassin, asked over the spamd protocol (``spamd/PROTOCOL`` of its distribution), version 1.5 of it.

A message goes out as it is read from where it is kept; it is never in memory as a whole. One that is larger than
`most_bytes` is not asked about at all (what SpamAssassin's own client, spamc, does with ``-s``), or only its beginning is,
as `cut` says. In front of it stands a Received field that says who brought it, since ours is not there yet when filters
are asked, and X-Envelope-From: SpamAssassin's rules about relays and SPF read these.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final

from twisted.internet.defer import Deferred, DeferredSemaphore

from twisted_mail.filters.answers import Answers, clean, first, send_all
from twisted_mail.filters.origins import ReverseName
from twisted_mail.filters.peers import mailbox_of
from twisted_mail.filters.values import Arrived, FilterDown, Mail, Verdict
from twisted_mail.filters.wires import Dial, Place
from twisted_mail.values import AccountId

__all__ = ["FIELDS", "DEFAULT_PORT", "SpamAssassin", "SpamdAnswer", "ask_spamd", "received_field", "user_name"]

DEFAULT_PORT: Final = 783
FIELDS: Final = ("X-Spam-Status", "X-Spam-Score", "X-Spam-Flag", "X-Spam-Level")
"""Fields of the message's header that say what SpamAssassin found: a peer's own are forged."""

_SHOWN: Final = 12
"""Rules that the trace names."""
_STATUS: Final = re.compile(rb"SPAMD/[0-9.]{1,8} ([0-9]{1,3}) ?(.*)")
_SPAM: Final = re.compile(
    rb"(?:true|yes|false|no) *; *(-?[0-9]{1,9}(?:\.[0-9]{1,9})?) */ *(-?[0-9]{1,9}(?:\.[0-9]{1,9})?)", re.I
)
_RULE: Final = re.compile(r"[A-Za-z0-9_]{1,128}")
_USER: Final = re.compile(r"[!-~]{1,128}")
_HOST: Final = re.compile(r"[A-Za-z0-9._:-]{1,255}")


@dataclass(frozen=True, slots=True)
class SpamdAnswer:
    """What spamd said to one question."""

    fields: Mapping[bytes, bytes]
    """By name in lower case."""
    body: bytes

    @property
    def score(self) -> tuple[float, float]:
        """Points, and how many make a message spam. Raises FilterDown."""
        found = _SPAM.match(self.fields.get(b"spam", b""))
        if found is None:
            raise FilterDown("spamd did not say how many points it gives")
        return float(found[1]), float(found[2])

    @property
    def rules(self) -> tuple[str, ...]:
        """Names of the rules that matched, of an answer to SYMBOLS."""
        names = (name.strip() for name in self.body.decode("ascii", "replace").split(","))
        return tuple(name for name in names if _RULE.fullmatch(name))


async def ask_spamd(
    dial: Dial,
    place: Place,
    verb: bytes,
    fields: Mapping[str, str],
    size: int,
    octets: AsyncGenerator[bytes, None],
    *,
    seconds: float,
) -> SpamdAnswer:
    """One question about a message of *size* octets, on a connection of its own, as the protocol has it.

    *seconds* limits each wait, that for the answer among them. Raises FilterDown: nobody there, too slow, nonsense, or
    an error by spamd's own account.
    """
    wire = await dial(place, seconds)
    try:
        head = [verb + b" SPAMC/1.5", b"Content-length: %d" % size]
        head += [f"{name}: {value}".encode("ascii", "replace") for name, value in fields.items() if value]
        wire.write(b"\r\n".join(head) + b"\r\n\r\n")
        await send_all(wire, octets, seconds)
        wire.end()  # spamd reads lines: it waits for ever for the rest of one without a line end
        return await _answer(Answers(wire, seconds))
    finally:
        wire.abort()


async def _answer(answers: Answers) -> SpamdAnswer:
    status = _STATUS.fullmatch(await answers.line())
    if status is None:
        raise FilterDown("what answers is not spamd")
    if int(status[1]):
        raise FilterDown(f"spamd says {int(status[1])} {clean(status[2].decode('latin-1'))}")
    fields: dict[bytes, bytes] = {}
    while line := await answers.line():
        name, colon, value = line.partition(b":")
        if not colon:
            raise FilterDown("what answers is not spamd")
        fields[name.strip().lower()] = value.strip()
    length = fields.get(b"content-length", b"0")
    if not length.isdigit() or len(length) > 9:
        raise FilterDown("spamd does not say how long its answer is")
    return SpamdAnswer(fields, await answers.octets(int(length)))


async def user_name(mail: Mail, name_of: Callable[[AccountId], Awaitable[str]] | None = None) -> str:
    """Whose settings and Bayes database count: the recipient's, if there is one alone that is an account of ours.

    By *name_of* the account; without it, or where it does not know, by the recipient's address, which may be an alias."""
    if len(mail.recipients) != 1 or len(mail.recipients[0].accounts) != 1:
        return ""
    name = await name_of(mail.recipients[0].accounts[0]) if name_of is not None else ""
    name = name or mailbox_of(mail.recipients[0].address)
    return name if _USER.fullmatch(name) else ""


def received_field(mail: Mail, hostname: str, now: float) -> bytes:
    """The Received field (and X-Envelope-From) that SpamAssassin is shown in front of the message; *now*: seconds since 1970."""
    client = mail.client
    reverse = client.noted(ReverseName)
    helo = client.helo if _HOST.fullmatch(client.helo.strip("[]")) else "unknown"
    # A missing name costs points. Where nobody has asked for it, or the DNS is down, none may be said to be missing.
    host = helo
    if reverse is not None and reverse.result != "temperror":
        host = reverse.name if reverse.result == "pass" and _HOST.fullmatch(reverse.name) else "unknown"
    address = f"IPv6:{client.address}" if ":" in client.address else client.address or "127.0.0.1"
    protocol = f"{'E' if client.extended else ''}SMTP{'S' if client.secure else ''}{'A' if client.outbound else ''}"
    lines = [f"Received: from {helo} ({host} [{address}])"]
    lines.append(f"\tby {hostname} with {protocol} id {clean(mail.id, 64) or 'unknown'};")
    lines.append(f"\t{formatdate(now)}")
    sender = mail.sender if re.fullmatch(r"[!-~]*", mail.sender) else ""
    return "\r\n".join([f"X-Envelope-From: <{sender}>", *lines, ""]).encode("ascii", "replace")


class SpamAssassin:
    """A `Stage`; asked when the whole message is here. Its points are put to our scale: as many as make mail spam for
    SpamAssassin (``required_score``) count as `junk_score`."""

    name = "spamassassin"
    needs = frozenset({"iprev"})

    def __init__(
        self,
        place: Place,
        dial: Dial,
        *,
        hostname: str,
        junk_score: float = 5.0,
        most_bytes: int = 524_288,
        cut: bool = False,
        per_user: bool = True,
        name_of: Callable[[AccountId], Awaitable[str]] | None = None,
        outbound: bool = False,
        at_once: int = 8,
        seconds: float = 60.0,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """*cut*: of larger messages the first *most_bytes* are judged. *per_user*: spamd is told whose mail it is, if
        there is one recipient; by what *name_of* says of the account (it must not fail). *at_once*: questions at the
        same time; others wait. *seconds*: for each wait."""
        self.outbound = outbound
        self._place = place
        self._dial = dial
        self._hostname = hostname
        self._junk_score = junk_score
        self._most = most_bytes
        self._cut = cut
        self._per_user = per_user
        self._name_of = name_of
        self._seconds = seconds
        self._wall = wall
        self._at_once = DeferredSemaphore(at_once)

    async def end(self, message: Arrived) -> Verdict:
        if message.size > self._most and not self._cut:
            return Verdict(reason=f"SpamAssassin is not asked about messages of more than {self._most // 1024} KiB")
        front = received_field(message.mail, self._hostname, self._wall())
        size = min(message.size, self._most)

        async def octets() -> AsyncGenerator[bytes, None]:
            yield front
            async with aclosing(first(message.chunks(), size)) as chunks:
                async for chunk in chunks:
                    yield chunk

        fields = {"User": await user_name(message.mail, self._name_of) if self._per_user else ""}
        answer: SpamdAnswer = await self._at_once.run(
            lambda: Deferred.fromCoroutine(
                ask_spamd(
                    self._dial, self._place, b"SYMBOLS", fields, len(front) + size, octets(), seconds=self._seconds
                )
            )
        )
        return self._verdict(answer)

    def _verdict(self, answer: SpamdAnswer) -> Verdict:
        score, required = answer.score
        rules = answer.rules
        spam = score >= required
        points = score * self._junk_score / required if required > 0 else score
        shown = ", ".join(rules[:_SHOWN]) + (f" and {len(rules) - _SHOWN} more" if len(rules) > _SHOWN else "")
        return Verdict(
            score=round(points, 2),
            reason=f"SpamAssassin {'takes it for spam' if spam else 'does not take it for spam'}: "
            f"{score:.1f} of {required:.1f} points" + (f" by {shown}" if shown else ""),
            fields=(
                (
                    "X-Spam-Status",
                    _folded(f"{'Yes' if spam else 'No'}, score={score:.1f} required={required:.1f}", rules),
                ),
                ("X-Spam-Score", f"{score:.1f}"),
            ),
            facts={"score": f"{score:.1f}", "required": f"{required:.1f}", "symbols": ",".join(rules)[:4096]},
        )


def _folded(beginning: str, rules: tuple[str, ...]) -> str:
    """The value of X-Spam-Status, in lines of at most 78 characters or so."""
    lines, line = [], f"{beginning} tests="
    for at, rule in enumerate(rules or ("none",)):
        word = ("," if at else "") + rule
        if len(line) + len(word) > 72 and at:
            lines.append(line + ",")
            line = "\t" + rule
        else:
            line += word
    return "\r\n".join([*lines, line])
