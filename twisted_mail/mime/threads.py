"""What threading needs of a header: message ids (RFC 5322 section 3.6.4) and the base subject (RFC 5256 section 2.1)."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["base_subject", "message_ids"]

_ID: Final = re.compile(rb"<\s*([^<>]{1,998}?)\s*>")
_SPACE: Final = re.compile(rb"[\s\x00]+")
_MOST: Final = 1000

_BLOB: Final = r"\[[^\[\]]*\]\s*"
_LEADER: Final = re.compile(rf"(?:{_BLOB})*(?:re|fwd?)\s*(?:{_BLOB})?:", re.IGNORECASE)
_LEADING_BLOB: Final = re.compile(_BLOB)
_TRAILER: Final = "(fwd)"
_FWD: Final = "[fwd:"


def message_ids(raw: bytes) -> tuple[str, ...]:
    """The ids of a Message-ID, References or In-Reply-To value, without brackets, in order, each once.

    A value without any brackets that is one word with an ``@`` is an id too: some senders forget them.
    """
    found = [_SPACE.sub(b"", match) for match in _ID.findall(raw)[:_MOST]]
    if not found and b"<" not in raw:
        words = raw.split()
        if len(words) == 1 and b"@" in words[0]:
            found = [words[0].strip(b"<>,;")]
    ids = [item.decode("utf-8", "replace") for item in found if item]
    return tuple(dict.fromkeys(ids))


def base_subject(subject: str) -> str:
    """The subject without what replies, forwards and lists put around it (RFC 5256 section 2.1); *subject* is decoded.

    The steps are numbered as there. Letters keep their case: comparing is the collation's matter.
    """
    text = " ".join(subject[:4096].split())  # (1)
    while True:
        while text[-5:].lower() == _TRAILER:  # (2)
            text = text[:-5].rstrip()
        while True:
            before = text
            if (match := _LEADER.match(text)) is not None:  # (3)
                text = text[match.end() :].lstrip()
            if (match := _LEADING_BLOB.match(text)) is not None and match.end() < len(text):  # (4)
                text = text[match.end() :]
            if text == before:  # (5)
                break
        if text[:5].lower() == _FWD and text.endswith("]"):  # (6)
            text = text[5:-1].strip()
            continue
        return text
