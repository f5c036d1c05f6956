"""Signs of unwanted mail in a message itself: its header fields and its text. Octets in, names of signs out."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from twisted_mail.filters.peers import ip_of
from twisted_mail.filters.phrases import GROUPS, talk_of, words_of
from twisted_mail.mime import Group, Mailbox, decode_header, mailboxes_of, parse_addresses, parse_date, unfold

__all__ = ["FREE_MAIL", "GTUBE", "alike", "header_signs", "text_signs"]

GTUBE: Final = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
"""Generic Test for Unsolicited Bulk Email: SpamAssassin and rspamd know it too."""

FREE_MAIL: Final = frozenset(
    """gmail.com googlemail.com yahoo.com ymail.com outlook.com hotmail.com live.com msn.com aol.com icloud.com me.com gmx.de
    gmx.net gmx.com web.de mail.ru yandex.ru yandex.com qq.com 163.com 126.com proton.me protonmail.com zoho.com mail.com
    yahoo.co.uk hotmail.co.uk yahoo.fr hotmail.fr laposte.net orange.fr libero.it seznam.cz inbox.lv rediffmail.com""".split()
)
"""Providers where anybody has a mailbox in a minute."""

_HOST: Final = r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,24}"
_ADDRESS_IN_NAME: Final = re.compile(rf"[a-z0-9._%+-]{{1,64}}@({_HOST})", re.IGNORECASE)
# A tag ends before the next one begins, or looking for its end would take the square of the time.
_LINK: Final = re.compile(
    rb"<a\s[^<>]{0,400}?href\s?=\s?[\"']?https?://([^\"'\s<>/?#]{1,255})[^<>]{0,1000}>([^<]{0,200})", re.IGNORECASE
)
_SHOWN_HOST: Final = re.compile(rf"\s*(?:https?://)?(?:www\.)?({_HOST})(?:[/?#:]\S*)?\s*", re.IGNORECASE)
_TAG: Final = re.compile(rb"<[^<>]*+>")
_BASE64_PART: Final = re.compile(rb"content-transfer-encoding:[ \t]*base64", re.IGNORECASE)
_TEXT_TYPE: Final = re.compile(rb"content-type:[ \t]*text/", re.IGNORECASE)
_BASE64_RUN: Final = re.compile(rb"[A-Za-z0-9+/\r\n]+")
_COIN_ADDRESS: Final = re.compile(rb"\b(?:bc1[a-z0-9]{25,59}|[13][a-km-zA-HJ-NP-Z1-9]{25,34})\b")
_DAY: Final = 86_400
_MOST_BASE64: Final = 16_384
_MOST_LINKS: Final = 50
_MOST_PARTS: Final = 20
_MOST_RECIPIENTS: Final = 30


def alike(one: str, other: str) -> bool:
    """Whether two domains are of the same owner, as far as a look at their names tells."""
    return one == other or _owned(one) == _owned(other)


def _owned(domain: str) -> str:
    """The last two labels, or three where those are short, as in ``co.uk``."""
    labels = domain.lower().split(".")
    count = 3 if len(labels) > 2 and len(labels[-2]) <= 3 and len(labels[-1]) <= 3 else 2
    return ".".join(labels[-count:])


def header_signs(named: Mapping[bytes, Sequence[bytes]], now: float, recipients: Sequence[str]) -> list[str]:
    """Names of signs in the header. *named*: see `Arrived`; *now*: seconds since 1970; *recipients*: the envelope's."""
    found: list[str] = []
    date = _first(named, b"date")
    if date is None:
        found.append("no_date")
    elif (moment := parse_date(date)) is None:
        found.append("odd_date")
    elif moment.epoch > now + _DAY:
        found.append("date_in_future")
    elif moment.epoch < now - 30 * _DAY:
        found.append("date_in_past")
    message_id = _first(named, b"message-id")
    if message_id is None:
        found.append("no_message_id")
    elif b"@" not in message_id:
        found.append("odd_message_id")
    _from_signs(found, named, recipients)
    to = _first(named, b"to")
    if to is None:
        if b"cc" not in named and b"bcc" not in named:
            found.append("no_to")
    elif b":" in to or not to.strip():
        _group_signs(found, to)
    if len(recipients) > _MOST_RECIPIENTS:
        found.append("many_recipients")
    subject = _first(named, b"subject")
    if subject is None:
        found.append("no_subject")
        return found
    if len(named[b"subject"]) > 1:
        found.append("many_subjects")
    if subject.isupper() or b"=?" in subject or not subject.isascii():
        text = decode_header(subject[:500])
        if text.isupper() and sum(map(str.isalpha, text)) >= 10 and " " in text.strip():
            found.append("subject_capitals")
    return found


def _first(named: Mapping[bytes, Sequence[bytes]], name: bytes) -> bytes | None:
    values = named.get(name)
    return values[0] if values else None


def _from_signs(found: list[str], named: Mapping[bytes, Sequence[bytes]], recipients: Sequence[str]) -> None:
    raw = _first(named, b"from")
    if raw is None or not raw.strip():
        found.append("no_from")
        return
    if len(named[b"from"]) > 1:
        found.append("many_froms")
    author = next(mailboxes_of(parse_addresses(unfold(raw[:2000]))), None)
    if author is None or not author.host:
        found.append("odd_from")
        return
    if author.name and (b"@" in author.name or b"=?" in author.name):
        shown = _ADDRESS_IN_NAME.search(author.display)
        if shown is not None and not alike(shown[1].lower(), _domain(author)):
            found.append("from_shows_another")
    if len(recipients) == 1 and author.address.lower() == recipients[0].lower():
        found.append("from_recipient")
    reply = _first(named, b"reply-to")
    if reply is not None:
        answered = next(mailboxes_of(parse_addresses(unfold(reply[:2000]))), None)
        if answered is not None and _domain(answered) in FREE_MAIL and author.address != answered.address:
            if _domain(answered) != _domain(author):
                found.append("reply_to_free_mail")
            elif b"list-id" not in named:
                found.append("reply_to_another")


def _group_signs(found: list[str], to: bytes) -> None:
    """*to* may be empty, or a group without members."""
    if not to.strip():
        found.append("undisclosed")
    elif b":;" in to.replace(b" ", b""):
        if any(isinstance(address, Group) for address in parse_addresses(unfold(to[:2000]))):
            found.append("undisclosed")


def _domain(mailbox: Mailbox) -> str:
    return mailbox.host.decode("ascii", "replace").rstrip(".").lower() if mailbox.host else ""


def text_signs(named: Mapping[bytes, Sequence[bytes]], body: bytes) -> Iterator[str]:
    """Names of signs in the text; those of `GROUPS` as ``name:2.5`` with their points. *named*: see `Arrived`; *body*: the
    beginning of what is behind the header, as sent."""
    if GTUBE in body:
        yield "gtube"
    kind = (_first(named, b"content-type") or b"text/plain").strip().lower()
    encoding = (_first(named, b"content-transfer-encoding") or b"").strip().lower()
    text, disguised = _decoded(body, kind, encoding)
    if disguised:
        yield "disguised_text"
        if GTUBE in text and GTUBE not in body:
            yield "gtube"
    lowered = text.lower()
    html = kind.startswith(b"text/html") or b"<html" in lowered or b"text/html" in lowered
    shown = _TAG.sub(b" ", _without_styles(text, lowered)) if html else text
    if html:
        only = kind.startswith(b"text/html") or b"text/plain" not in lowered
        if only:
            yield "only_html"
            if b"<img" in lowered and len(words_of(shown)) < 30:
                yield "picture_only"
        yield from _link_signs(text)
    for name, phrases in talk_of(shown).items():
        number = len(phrases)
        if name == "extortion" and _COIN_ADDRESS.search(text) is not None:
            number += 2
        if points := GROUPS[name].worth(number):
            yield f"{name}:{points}"


def _without_styles(text: bytes, lowered: bytes) -> bytes:
    """*text* without its style sheets, whose words nobody reads."""
    kept, at = [], 0
    while (start := lowered.find(b"<style", at)) >= 0 and (end := lowered.find(b"</style", start)) >= 0:
        kept.append(text[at:start])
        at = end
    return b" ".join([*kept, text[at:]]) if kept else text


def _decoded(body: bytes, kind: bytes, encoding: bytes) -> tuple[bytes, bool]:
    """The body as text, and whether plain ASCII letters were put into base64, as nobody needs to."""
    if encoding == b"base64":
        if kind.startswith(b"text/") or not kind:
            text = _base64(body)
            return text, text.isascii() and len(text) > 40
        return b"", False
    disguised = False
    decoded = []
    if kind.startswith(b"multipart/"):
        for match in islice(_BASE64_PART.finditer(body), _MOST_PARTS):
            start = max(body.rfind(b"\r\n--", 0, match.start()), 0)
            end = body.find(b"\r\n\r\n", match.end())
            if end >= 0 and _TEXT_TYPE.search(body, start, end) is not None:
                text = _base64(body[end + 4 : end + 4 + _MOST_BASE64])
                disguised = disguised or (text.isascii() and len(text) > 40)
                decoded.append(text)
    if encoding == b"quoted-printable" or b"quoted-printable" in body:
        body = binascii.a2b_qp(body)
    return b"\n".join([body, *decoded]) if decoded else body, disguised


def _base64(octets: bytes) -> bytes:
    match = _BASE64_RUN.match(octets.lstrip()[:_MOST_BASE64])
    clean = match[0].translate(None, b"\r\n") if match is not None else b""
    if len(clean) % 4 == 1:
        clean = clean[:-1]
    return binascii.a2b_base64(clean + b"=" * (-len(clean) % 4))


def _link_signs(text: bytes) -> Iterator[str]:
    told: set[str] = set()
    for match in islice(_LINK.finditer(text), _MOST_LINKS):
        host = match[1].rpartition(b"@")[2].partition(b":")[0].decode("ascii", "replace").lower()
        sign = ""
        if ip_of(host) is not None:
            sign = "link_to_address"
        elif (shown := _SHOWN_HOST.fullmatch(match[2].decode("utf-8", "replace"))) is not None:
            sign = "" if alike(shown[1].lower(), host) else "link_shows_another"
        if sign and sign not in told:
            told.add(sign)
            yield sign
