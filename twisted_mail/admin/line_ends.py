"""Line ends between files and accounts: an account has CRLF (RFC 5322 section 2.3), files mostly have LF."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

__all__ = ["to_crlf", "to_lf"]

_LONE_LF = re.compile(rb"(?<!\r)\n")


def to_crlf(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Each LF that has no CR before it becomes CRLF; everything else is kept as it is."""
    after_cr = False
    for chunk in chunks:
        if not chunk:
            continue
        if after_cr and chunk.startswith(b"\n"):
            yield b"\n" + _LONE_LF.sub(b"\r\n", chunk[1:])
        else:
            yield _LONE_LF.sub(b"\r\n", chunk)
        after_cr = chunk.endswith(b"\r")


def to_lf(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Each CRLF becomes LF; a CR that stands alone is kept."""
    held = b""
    for chunk in chunks:
        chunk = held + chunk
        held = b"\r" if chunk.endswith(b"\r") else b""
        chunk = chunk[: len(chunk) - len(held)].replace(b"\r\n", b"\n")
        if chunk:
            yield chunk
    if held:
        yield held
