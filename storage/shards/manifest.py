"""What one account's shard in the object store consists of: its files, as pieces of parts, and how far it has come.

Below ``search/<kind>/<2 digits>/<account>/`` lie ``manifest`` and the parts, ``<random>-<number>``. A part is written
once, under a name that never comes again, and before the manifest that names it; so the manifest is the only object that
changes, and a shard is always one that was whole. The files that one change has made lie one behind the other, cut into
parts: a small change is one part and the manifest, however many files an index makes of it.
"""

from __future__ import annotations

import os
import re
from typing import Final

import msgspec

from twisted_mail.storage.interfaces import Corrupt
from twisted_mail.values import AccountId

__all__ = ["PART", "Dropped", "Manifest", "Piece", "ShardFile", "decode", "encode", "folder_of", "new_token"]

PART: Final = 4_194_304
"""Octets of a part, at most: what is held in memory of files that are sent or fetched."""

_FILE_NAME: Final = re.compile(r"\.?[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
_PART_NAME: Final = re.compile(r"[0-9a-f]{32}-\d{1,9}")


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """The octets ``[at:at + size)`` of a part."""

    part: str
    at: int
    size: int


class ShardFile(msgspec.Struct, frozen=True):
    """A file of the index."""

    name: str
    size: int
    digest: str
    """SHA-256 of its content, in hexadecimal."""
    pieces: tuple[Piece, ...]
    """What its content is, one behind the other; none for an empty file."""


class Dropped(msgspec.Struct, frozen=True):
    """A part that is named no more, and is to be deleted when nobody can be reading it."""

    part: str
    since: float
    """Seconds since 1970, by the clock of the node that wrote the manifest."""


class Manifest(msgspec.Struct, frozen=True):
    """A state of a shard. The default is the one of a shard that there is not."""

    account: str = ""
    kind: str = ""
    """Whose this manifest is, and of which index: one that was put in another's place is none."""
    number: int = 0
    """Counts the states."""
    token: str = ""
    """Random: tells a writer whether the state is its own, when it did not hear whether it was written."""
    fence: int = 0
    """The number of the lease under which it was written; only ascends."""
    reached: int = 0
    files: tuple[ShardFile, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    litter: float = 0.0
    """When a writer was found to have ended without a manifest (seconds since 1970): what it left is looked for later."""

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def parts(self) -> list[str]:
        """Names of the parts, each once."""
        return list(dict.fromkeys(piece.part for file in self.files for piece in file.pieces))


def folder_of(account: AccountId, kind: str) -> str:
    """What the names of all objects of that shard begin with."""
    name = str(account)
    return f"search/{kind}/{name[:2]}/{name}/"


def new_token() -> str:
    return os.urandom(16).hex()


def encode(manifest: Manifest) -> bytes:
    return msgspec.json.encode(manifest)


def decode(data: bytes, account: AccountId, kind: str) -> Manifest:
    """Raises: Corrupt, for whatever is not a manifest of that shard: names in it become names of files."""
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"the manifest of a search shard cannot be read: {error}") from error
    good = (
        manifest.account == str(account)
        and manifest.kind == kind
        and len({file.name for file in manifest.files}) == len(manifest.files)
        and all(_FILE_NAME.fullmatch(file.name) for file in manifest.files)
        and all(file.size == sum(piece.size for piece in file.pieces) for file in manifest.files)
        and all(piece.at >= 0 and piece.size > 0 for file in manifest.files for piece in file.pieces)
        and all(_PART_NAME.fullmatch(part) for part in manifest.parts)
        and all(_PART_NAME.fullmatch(dropped.part) for dropped in manifest.dropped)
    )
    if not good:
        raise Corrupt("the manifest of a search shard says what it cannot say")
    return manifest
