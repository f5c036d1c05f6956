"""Extensions in one module each: values, `COMMANDS` (how they are read), `EXECUTE`, `CAPABILITIES`.

A new one is its module and its line in `EXTENSIONS`; both registries read that table.
"""

from __future__ import annotations

from types import ModuleType
from typing import Final

from twisted_mail.imap.extensions import namespace

__all__ = ["EXTENSIONS"]

EXTENSIONS: Final[tuple[ModuleType, ...]] = (namespace,)
