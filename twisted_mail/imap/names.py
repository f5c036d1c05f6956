"""Mailbox names on the wire: modified UTF-7, INBOX in any case, and LIST patterns."""

from __future__ import annotations

import re
from binascii import Error, a2b_base64, b2a_base64
from typing import Final

__all__ = ["INBOX", "Pattern", "decode_name", "encode_name", "from_utf7", "to_utf7"]

INBOX: Final = "INBOX"

_PLAIN: Final = re.compile(rb"[\x20-\x25\x27-\x7e]*")
_SHIFTED: Final = re.compile(rb"&([A-Za-z0-9+,]*)-")
_NEEDS_SHIFT: Final = re.compile("&|[^\x20-\x7e]+")


def from_utf7(octets: bytes) -> str:
    """Decode modified UTF-7 (RFC 3501 section 5.1.3), strictly.

    Raises ValueError: an octet outside printable US-ASCII, an open or empty-but-unterminated shift, bad base64 or
    bits left over, bad UTF-16, printable US-ASCII that was shifted, a shift straight after a shift.
    """
    if _PLAIN.fullmatch(octets):
        return octets.decode("ascii")
    out: list[str] = []
    at, end, after_shift = 0, len(octets), False
    while at < end:
        plain = _PLAIN.match(octets, at)
        assert plain is not None
        if plain.end() > at:
            out.append(plain.group().decode("ascii"))
            at, after_shift = plain.end(), False
            continue
        shifted = _SHIFTED.match(octets, at)
        if shifted is None:
            raise ValueError("bad modified UTF-7")
        body = shifted.group(1)
        if not body:
            out.append("&")
            after_shift = False
        elif after_shift:
            raise ValueError("two shifts in a row in modified UTF-7")
        else:
            out.append(_unshift(body))
            after_shift = True
        at = shifted.end()
    return "".join(out)


def _unshift(body: bytes) -> str:
    if len(body) % 4 == 1:
        raise ValueError("bad base64 in modified UTF-7")
    try:
        raw = a2b_base64(body.replace(b",", b"/") + b"=" * (-len(body) % 4))
    except Error:
        raise ValueError("bad base64 in modified UTF-7")
    text = raw.decode("utf-16-be")  # an odd octet or a lone surrogate is a UnicodeDecodeError, a ValueError
    if _shift(text) != body:
        raise ValueError("bits left over in modified UTF-7")
    if any("\x20" <= character <= "\x7e" for character in text):
        raise ValueError("printable US-ASCII is shifted in modified UTF-7")
    return text


def _shift(text: str) -> bytes:
    return b2a_base64(text.encode("utf-16-be"), newline=False).rstrip(b"=").replace(b"/", b",")


def to_utf7(name: str) -> bytes:
    """*name* in modified UTF-7 (RFC 3501 section 5.1.3). Raises ValueError for a lone surrogate."""
    if name.isascii() and "&" not in name and name.isprintable():
        return name.encode("ascii")
    return _NEEDS_SHIFT.sub(_shifted, name).encode("ascii")


def _shifted(match: re.Match[str]) -> str:
    run = match.group()
    return "&-" if run == "&" else "&" + _shift(run).decode("ascii") + "-"


def decode_name(octets: bytes, *, utf8: bool) -> str:
    """A mailbox name as the client sent it; INBOX in any case becomes ``INBOX`` (RFC 9051 section 5.1).

    With *utf8* (IMAP4rev2 or UTF8=ACCEPT is enabled) it is UTF-8, else modified UTF-7. Raises ValueError.
    """
    name = octets.decode("utf-8") if utf8 else from_utf7(octets)
    return INBOX if _is_inbox(name) else name


def _is_inbox(name: str) -> bool:
    """US-ASCII letters only: a dotless i also has "I" as its capital."""
    return len(name) == 5 and name.isascii() and name.upper() == INBOX


def encode_name(name: str, *, utf8: bool) -> bytes:
    """The octets that `decode_name` reads as *name*, not yet quoted."""
    return name.encode("utf-8") if utf8 else to_utf7(name)


class Pattern:
    """A LIST pattern: ``*`` is anything, ``%`` anything but the separator (RFC 9051 section 6.3.9).

    The match is a walk over sets of places in the pattern: linear in the name for each place, however many
    wildcards there are.
    """

    __slots__ = ("_regex", "_separator", "_steps", "text")

    def __init__(self, text: str, separator: str = "/"):
        """*text* is the reference and the mailbox pattern put together by the caller."""
        if _is_inbox(text[:5]) and text[5:6] in ("", separator):
            text = INBOX + text[5:]
        self.text = text
        self._separator = separator
        steps = re.findall(r"[*%]+|[^*%]+", text)
        # A run of wildcards is one: "*" if any of it is "*", else "%".
        self._steps = [("*" if "*" in step else "%") if step[0] in "*%" else step for step in steps]
        wild = sum(step in ("*", "%") for step in self._steps)
        self._regex: re.Pattern[str] | None = None
        if wild <= 2:
            # With at most two wildcards the regex engine is quadratic at worst, and names are short.
            level = f"[^{re.escape(separator)}]*" if separator else ".*"
            self._regex = re.compile(
                "".join({"*": ".*", "%": level}.get(step) or re.escape(step) for step in self._steps),
                re.DOTALL,
            )

    def matches(self, name: str) -> bool:
        """Whether the whole of *name* matches. INBOX as first level matches without regard to case."""
        if self._regex is not None:
            if self._regex.fullmatch(name):
                return True
        elif self._walk(name):
            return True
        return name[:5] == INBOX and self._inbox(name)

    def _inbox(self, name: str) -> bool:
        """A pattern such as ``inb%``: the letters of INBOX in the name compare without case."""
        if name[5:6] not in ("", self._separator):
            return False
        head = self.text[:5].upper()
        if head == self.text[:5] or not self.text[:5].isascii():
            return False
        letters = 0
        while letters < len(head) and head[letters] not in "*%":
            letters += 1
        if letters == 0 or not INBOX.startswith(head[:letters]):
            return False
        return Pattern(head[:letters] + self.text[letters:], self._separator).matches(name)

    def _walk(self, name: str) -> bool:
        """Places reachable after each step of the pattern, as a sorted list of offsets into *name*."""
        places = {0}
        end = len(name)
        for step in self._steps:
            if step == "*":
                places = set(range(min(places), end + 1))
            elif step == "%":
                reached: set[int] = set()
                for place in sorted(places):
                    if place in reached:
                        continue
                    stop = name.find(self._separator, place) if self._separator else -1
                    reached.update(range(place, (end if stop < 0 else stop) + 1))
                places = reached
            else:
                places = {place + len(step) for place in places if name.startswith(step, place)}
            if not places:
                return False
        return end in places
