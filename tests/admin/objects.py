"""A store whose blobs lie in a real object store, each with a prefix of its own."""

from __future__ import annotations

import os
from pathlib import Path

from tests.admin.calling import CONFIGURATION, Mailctl
from tests.services import running

__all__ = ["on_objects"]


def on_objects(folder: Path, prefix: str = "", **options: str) -> Mailctl:
    """*options*: of the object store's URL."""
    prefix = prefix or f"mailctl-{os.urandom(8).hex()}"
    url = running.versity().url("blobs", prefix=prefix, threads="4", **options)
    folder.mkdir(exist_ok=True)
    (folder / "mail.toml").write_text(f'{CONFIGURATION}[storage]\nblobs = "{url}"\n')
    return Mailctl(folder)
