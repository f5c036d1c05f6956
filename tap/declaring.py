"""How a setting is declared: what stands in the metadata of a settings class's field."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from twisted_mail.tap.kinds import Kind, show

__all__ = ["Declared", "section", "setting"]


@dataclass(frozen=True, slots=True)
class Declared:
    """What a field's metadata says of a setting."""

    kind: Kind
    default: object
    """As TOML would give it; read by `kind` like everything else."""
    doc: str
    shown: str
    """The default as the reference prints it."""


def setting(kind: Kind, default: object, doc: str, shown: str = "") -> Any:
    """A field that is one setting. `default` may be a function that is called when nothing is set."""
    declared = Declared(kind, default, doc, shown or show(default))
    return field(metadata={"setting": declared})


def section(of: type, doc: str, *, many: bool = False) -> Any:
    """A field that is a table with settings of its own, or an array of such tables."""
    return field(metadata={"section": of, "doc": doc, "many": many})
