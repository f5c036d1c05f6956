"""Messages with a token in the Subject; large ones carry an attachment, some of which many of them share."""

from __future__ import annotations

import base64
import random
import re
from hashlib import sha256

__all__ = ["attachment_of", "make", "token_of"]

_SHARED = [random.Random(number).randbytes(90_000) for number in range(3)]


def make(token: str, size: int, chance: random.Random) -> bytes:
    """The octets of a message of about *size*, CRLF at the end of each line, no line that begins with a dot."""
    head = f"Subject: {token}\r\nFrom: x@elsewhere.example\r\n"
    text = "".join(f"line {number} {chance.getrandbits(200):x}\r\n" for number in range(max(1, min(size, 20_000) // 60)))
    if size < 100_000:
        return f"{head}\r\n{text}".encode()
    attached = chance.choice(_SHARED) if chance.random() < 0.5 else chance.randbytes(size * 3 // 4)
    encoded = base64.encodebytes(attached).replace(b"\n", b"\r\n").decode()
    return (
        f"{head}MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=edge\r\n\r\n"
        f"--edge\r\nContent-Type: text/plain\r\n\r\n{text}\r\n"
        f"--edge\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n"
        f"Content-Disposition: attachment; filename=a.bin\r\n\r\n{encoded}\r\n--edge--\r\n"
    ).encode()


def attachment_of(octets: bytes) -> str:
    """The SHA-256 of the octets that are attached to a message of `make`; empty: none are."""
    _, there, rest = octets.partition(b"filename=a.bin\r\n\r\n")
    return sha256(base64.decodebytes(rest.partition(b"\r\n--edge--")[0])).hexdigest() if there else ""


def token_of(header: bytes) -> str:
    """The token in a header with a Subject; empty without one."""
    match = re.search(rb"(?im)^Subject: *(\S+)", header)
    return match[1].decode("ascii", "replace") if match else ""
