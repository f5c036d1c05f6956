"""URLs without what is secret in them, for logs and messages."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["masked", "masked_in"]

_LOGIN: Final = re.compile(r"(?<=://)(?:([^\s:@/?]*)(:)?)?[^\s?]*@")
_OPTION: Final = re.compile(r"(?<=[?&])([^\s=&]*(?:pass|secret|token|key)[^\s=&]*)=[^\s&]*", re.IGNORECASE)


def masked(text: str) -> str:
    """*text* with every password, token and secret option of the URLs in it as ``…``.

    A login is what stands before the last ``@`` of a URL, whatever it is made of: rather too much is hidden than too
    little. A name before a colon is shown, a login without a colon is a token.
    """
    return _OPTION.sub(r"\1=…", _LOGIN.sub(lambda found: f"{found[1]}:…@" if found[2] else "…@", text))


def masked_in(text: str, urls: tuple[str, ...]) -> str:
    """*text* (an engine's words) with each of *urls* masked, as it is and as ``repr`` writes it."""
    for url in urls:
        if url:
            text = text.replace(url, masked(url)).replace(repr(url)[1:-1], masked(url))
    return text
