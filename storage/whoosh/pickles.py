"""Whoosh keeps pickles in its files, and an index may come from an object store: unpickling makes nothing but its own values.

Without this, whoever can write to the store's bucket could have any code run in the mail server: a pickle may name any
function of any module. With it, what a file names is one of `ALLOWED` or the file is damaged.
"""

from __future__ import annotations

import io
import pickle
from types import ModuleType
from typing import Any, Final

import whoosh.codec.whoosh3
import whoosh.columns
import whoosh.filedb.structfile
import whoosh.formats
import whoosh.index

__all__ = ["ALLOWED", "confine"]

ALLOWED: Final = frozenset(
    {
        ("__builtin__", "long"),
        ("__builtin__", "set"),
        ("_codecs", "encode"),
        ("builtins", "int"),
        ("builtins", "set"),
        ("collections", "defaultdict"),
        ("twisted_mail.storage.whoosh.words", "SplitWords"),
        ("whoosh.analysis.tokenizers", "IDTokenizer"),
        ("whoosh.codec.whoosh3", "W3Codec"),
        ("whoosh.codec.whoosh3", "W3Segment"),
        ("whoosh.columns", "NumericColumn"),
        ("whoosh.columns", "VarBytesColumn"),
        ("whoosh.fields", "ID"),
        ("whoosh.fields", "NUMERIC"),
        ("whoosh.fields", "Schema"),
        ("whoosh.fields", "TEXT"),
        ("whoosh.formats", "Existence"),
        ("whoosh.formats", "Frequency"),
    }
)
"""What an index of our schema is made of; none of it does anything but to make a value."""


class _Confined(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"an index names {module}.{name}, which is none of its values")
        return super().find_class(module, name)


def load(file: Any) -> Any:
    """As `pickle.load`. Raises: UnpicklingError, among others."""
    return _Confined(file).load()


def loads(data: bytes) -> Any:
    """As `pickle.loads`. Raises: UnpicklingError, among others."""
    return _Confined(io.BytesIO(data)).load()


class _Pickle(ModuleType):
    """What `whoosh.index` takes for the module ``pickle``."""

    dumps = staticmethod(pickle.dumps)
    loads = staticmethod(loads)
    PicklingError = pickle.PicklingError


def confine() -> None:
    """Have Whoosh read its files by `load` and `loads`: wherever an index of this version's format is read."""
    whoosh.index.pickle = _Pickle("pickle")
    whoosh.filedb.structfile.load_pickle = load
    whoosh.codec.whoosh3.loads = loads
    whoosh.columns.loads = loads
    whoosh.formats.loads = loads
