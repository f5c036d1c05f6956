"""What reports of strangers are packed in: never more is unpacked than is allowed."""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import Final

__all__ = ["BadReport", "clean", "gunzip", "unzip"]

_TEXT: Final = 300
_MEMBERS: Final = 10
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Others can want much memory before the first octet comes out."""


class BadReport(ValueError):
    """It cannot be read as a report; the text says why."""


def gunzip(octets: bytes, most: int) -> bytes:
    """One gzip member. Raises: BadReport (more than *most* octets come of it, or it is broken)."""
    unpacking = zlib.decompressobj(wbits=31)
    try:
        whole = unpacking.decompress(octets, most + 1)
    except zlib.error as error:
        raise BadReport("it cannot be unpacked") from error
    if len(whole) > most or not unpacking.eof:
        raise BadReport("it is too large, or cut off")
    return whole


def unzip(octets: bytes, most: int, ending: str) -> bytes:
    """The first file of a ZIP archive whose name ends with *ending*. Raises: BadReport."""
    try:
        with zipfile.ZipFile(io.BytesIO(octets)) as archive:
            members = archive.infolist()
            if len(members) > _MEMBERS:
                raise BadReport("an archive of too many files")
            for member in members:
                if not member.filename.lower().endswith(ending):
                    continue
                if member.flag_bits & 1 or member.compress_type not in _METHODS:
                    raise BadReport("an archive that is encrypted, or packed in an unusual way")
                # What the archive says of sizes is not believed.
                with archive.open(member) as file:
                    whole = file.read(most + 1)
                if len(whole) > most:
                    raise BadReport("it is too large")
                return whole
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        raise error if isinstance(error, BadReport) else BadReport("it cannot be unpacked") from error
    raise BadReport(f"an archive without a file *{ending}")


def clean(text: str, most: int = _TEXT) -> str:
    """Printable, and not too long."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:most])
