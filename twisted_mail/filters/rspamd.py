"""rspamd, asked over HTTP: ``POST /checkv2`` with the envelope in header fields, a JSON document back.

(rspamd.com/doc/developers/protocol.html.) A request has a connection of its own, which rspamd closes after it, and HTTP/1.0
is spoken, so that an answer ends with its Content-Length or with the connection. The message is streamed.

**Points.** rspamd rejects at ``required_score`` (15 by default) and has bounds of its own below. Points are put to our scale,
where `reject_score` rejects and `junk_score` makes junk, so that both mean the same: what rspamd rejects has at least
`reject_score`, what it wants marked (``add header``, ``rewrite subject``) at least `junk_score`, and what it lets pass
(``no action``, ``greylist``) less than that.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import AsyncGenerator, Mapping, Sequence
from email.header import Header
from typing import Any, Final, TypeGuard
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, DeferredSemaphore

from twisted_mail.filters.answers import Answers, clean, first, send_all
from twisted_mail.filters.values import Action, Answer, Arrived, Changes, FieldChange, FilterDown, Verdict
from twisted_mail.filters.wires import Dial, Place

__all__ = ["FIELDS", "Rspamd", "ask_rspamd", "place_of_url"]

FIELDS: Final = (
    "X-Spamd-Result",
    "X-Spamd-Bar",
    "X-Rspamd-Score",
    "X-Rspamd-Action",
    "X-Spam",
    "X-Spam-Status",
    "X-Spam-Level",
)
"""Fields that say what rspamd found: a peer's own are forged."""

_MOST: Final = 1_048_576
"""Octets of an answer."""
_SHOWN: Final = 8
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: .*)?")
_NAME: Final = re.compile(r"[!-9;-~]{1,76}")
_SYMBOL: Final = re.compile(r"[A-Za-z0-9_]{1,128}")
_ADDED: Final = 32
"""Fields that it may add."""


def place_of_url(url: str, default_port: int) -> tuple[Place, str]:
    """Where ``http://host:port/path`` (or ``unix:/path``) is, and the path before ours. Raises ValueError."""
    if url.startswith("unix:"):
        return Place.parse(url), ""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.query or parts.username is not None:
        raise ValueError(f"{url!r} is no address of rspamd: write http://host:port or unix:/path")
    return Place(parts.hostname, parts.port or default_port), parts.path.rstrip("/")


async def ask_rspamd(
    dial: Dial,
    place: Place,
    path: str,
    fields: Sequence[tuple[str, str]],
    size: int,
    octets: AsyncGenerator[bytes, None],
    *,
    seconds: float,
) -> tuple[int, dict[str, Any]]:
    """One request about a message: HTTP's status, and the JSON object (whose values are whatever rspamd says, hence Any).

    Raises FilterDown: nobody there, too slow, nonsense.
    """
    wire = await dial(place, seconds)
    try:
        head = [f"POST {path} HTTP/1.0", f"Host: {place.host or 'localhost'}", f"Content-Length: {size}"]
        head += [f"{name}: {value}" for name, value in fields]
        wire.write("\r\n".join(head).encode("utf-8", "replace") + b"\r\n\r\n")
        await send_all(wire, octets, seconds)
        answers = Answers(wire, seconds, _MOST)
        status = _STATUS.fullmatch(await answers.line())
        if status is None:
            raise FilterDown("what answers is not rspamd")
        length: int | None = None
        while line := await answers.line():
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-length" and value.strip().isdigit() and len(value) < 12:
                length = int(value)
        body = await (answers.rest() if length is None else answers.octets(length))
    finally:
        wire.abort()
    try:
        found = json.loads(body)
    except ValueError as error:
        raise FilterDown(f"what answers is not rspamd: status {int(status[1])}") from error
    if not isinstance(found, dict):
        raise FilterDown("what answers is not rspamd: no object")
    return int(status[1]), found


class Rspamd:
    """A `Stage`; asked when the whole message is here."""

    name = "rspamd"
    needs: frozenset[str] = frozenset()

    def __init__(
        self,
        url: str,
        dial: Dial,
        *,
        hostname: str,
        junk_score: float = 5.0,
        reject_score: float = 15.0,
        password: str = "",
        settings_id: str = "",
        most_bytes: int = 10_485_760,
        outbound: bool = False,
        at_once: int = 8,
        seconds: float = 30.0,
    ) -> None:
        """*settings_id*: one of rspamd's own settings, which it judges by. Of messages above *most_bytes* rspamd sees as
        much. *at_once*: questions at the same time; others wait. *seconds*: for each wait. Raises ValueError (the URL)."""
        self.outbound = outbound
        self._place, self._path = place_of_url(url, 11_333)
        self._dial = dial
        self._hostname = hostname
        self._junk_score = junk_score
        self._reject_score = reject_score
        self._password = password
        self._settings_id = settings_id
        self._most = most_bytes
        self._seconds = seconds
        self._at_once = DeferredSemaphore(at_once)

    async def end(self, message: Arrived) -> Verdict:
        size = min(message.size, self._most)
        status, said = await self._at_once.run(
            lambda: Deferred.fromCoroutine(
                ask_rspamd(
                    self._dial,
                    self._place,
                    f"{self._path}/checkv2",
                    self._envelope(message),
                    size,
                    first(message.chunks(), size),
                    seconds=self._seconds,
                )
            )
        )
        if status != 200:
            raise FilterDown(f"rspamd says {status} {clean(str(said.get('error', '')))}")
        return self._verdict(said, message)

    def _envelope(self, message: Arrived) -> list[tuple[str, str]]:
        mail = message.mail
        client = mail.client
        fields = [
            ("Ip", client.address),
            ("Helo", client.helo),
            ("From", mail.sender or "<>"),
            *(("Rcpt", recipient.address) for recipient in mail.recipients),
            ("User", client.identity.login if client.identity is not None else ""),
            ("Queue-Id", mail.id),
            ("MTA-Name", self._hostname),
            ("MTA-Tag", self._hostname),
            ("Settings-Id", self._settings_id),
            ("Password", self._password),
        ]
        return [(name, text) for name, value in fields if (text := _one_line(value))]

    def _verdict(self, said: dict[str, Any], message: Arrived) -> Verdict:
        score, required, action = said.get("score"), said.get("required_score"), said.get("action")
        if not _is_number(score) or not _is_number(required) or not isinstance(action, str):
            raise FilterDown("rspamd's answer has no score or no action")
        found = _symbols(said.get("symbols"))
        points = score * self._reject_score / required if required > 0 else float(score)
        answer, became = None, Action.ACCEPT
        changes = self._changes(said, message)
        match action:
            case "reject":
                points, became = max(points, self._reject_score), Action.REJECT
                answer = Answer(550, "5.7.1", _text(said) or "This message was refused as spam")
            case "soft reject":
                points, became = min(points, self._junk_score), Action.DEFER
                answer = Answer(451, "4.7.1", _text(said) or "Try again later")
            case "add header" | "rewrite subject":
                points = max(points, self._junk_score)
            case _:  # "no action", "greylist", and what an operator has invented
                points = min(points, self._junk_score * 0.99)
        shown = ", ".join(f"{name} ({value:+.1f})" for name, value in found[:_SHOWN] if value)
        bar = f"{action} [{score:.2f} / {required:.2f}]"
        return Verdict(
            action=became,
            answer=answer,
            score=round(points, 2),
            reason=f"rspamd says “{clean(action, 40)}”: {score:.1f} of {required:.1f} points"
            + (f" by {shown}" if shown else ""),
            fields=(
                ("X-Spamd-Result", "\r\n\t".join([f"{clean(bar, 60)};", *_lines(found)]).rstrip(";")),
                *_added(said),
            ),
            changes=changes,
            facts={
                "score": f"{score:.2f}",
                "required": f"{required:.2f}",
                "action": clean(action, 40),
                "symbols": ",".join(name for name, _ in found)[:4096],
            },
        )

    def _changes(self, said: dict[str, Any], message: Arrived) -> Changes | None:
        changed: list[FieldChange] = []
        subject = said.get("subject")
        if said.get("action") == "rewrite subject" and isinstance(subject, str) and (text := _one_line(subject)):
            changed.append(FieldChange("Subject", 1, _field_text(text)))
        milter = said.get("milter")
        removed = milter.get("remove_headers") if isinstance(milter, dict) else None
        if isinstance(removed, dict):
            for name, nth in list(removed.items())[:_ADDED]:
                if isinstance(name, str) and _NAME.fullmatch(name) and isinstance(nth, int):
                    changed += _removals(name, nth, message)
        return Changes(changed=tuple(changed)) if changed else None


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value) and abs(value) < 1e9


def _symbols(said: object) -> list[tuple[str, float]]:
    """Names and points, the weightiest first."""
    found = []
    if isinstance(said, dict):
        for name, details in said.items():
            value = details.get("score") if isinstance(details, dict) else None
            if _SYMBOL.fullmatch(name):
                found.append((name, value if _is_number(value) else 0.0))
    return sorted(found, key=lambda each: (-abs(each[1]), each[0]))


def _lines(found: list[tuple[str, float]]) -> list[str]:
    return [f"{name}({value:.2f});" for name, value in found[:100]]


def _added(said: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Fields that rspamd wants in the header (``milter.add_headers``): a text, an object with ``value``, or a list of them."""
    milter = said.get("milter")
    wanted = milter.get("add_headers") if isinstance(milter, dict) else None
    fields: list[tuple[str, str]] = []
    if isinstance(wanted, dict):
        for name, values in wanted.items():
            for each in values if isinstance(values, list) else [values]:
                value = each.get("value") if isinstance(each, dict) else each
                if isinstance(name, str) and _NAME.fullmatch(name) and isinstance(value, str):
                    fields.append((name, _field_text(_one_line(value))))
    return fields[:_ADDED]


def _removals(name: str, nth: int, message: Arrived) -> list[FieldChange]:
    """*nth* as rspamd counts: 0 all, from 1 the first, -1 the last."""
    wanted = name.lower().encode()
    count = sum(field.lower() == wanted for field, _ in message.fields)
    if nth == 0:
        return [FieldChange(name, at, None) for at in range(count, 0, -1)]
    at = nth if nth > 0 else count + 1 + nth
    return [FieldChange(name, at, None)] if 1 <= at <= count else []


def _text(said: Mapping[str, Any]) -> str:
    """What rspamd wants the peer to read."""
    messages = said.get("messages")
    text = messages.get("smtp_message") if isinstance(messages, dict) else None
    return clean(text) if isinstance(text, str) else ""


def _field_text(value: str) -> str:
    """As the value of a header field: in ASCII (RFC 2047), in lines of at most 78 characters where it has spaces (RFC 5322
    section 2.1.1 wants at most 998 in any case)."""
    value = value[:4096]
    if not value.isascii():
        return Header(value, "utf-8", maxlinelen=76).encode(linesep="\r\n")
    lines = [piece for line in textwrap.wrap(value, 76, break_on_hyphens=False, break_long_words=False)
             for piece in (line[at : at + 900] for at in range(0, len(line), 900))]  # fmt: skip
    return "\r\n ".join(lines)


def _one_line(value: str) -> str:
    """Without line ends and other control characters: nobody may add a field to a header, or to a request."""
    return re.sub(r"[\x00-\x1f\x7f]+", " ", value).strip()
