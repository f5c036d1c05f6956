"""The back ends: the interfaces of `interfaces`, and a folder per engine (memory, sqlite, files)."""

if __name__ != "twisted_mail.storage":
    raise ImportError("import this package as twisted_mail.storage")

from twisted_mail.storage.backend import Backend, compose, open_backend
from twisted_mail.storage.registry import EngineUnknown, known_schemes, open_engine

__all__ = ["Backend", "EngineUnknown", "compose", "known_schemes", "open_backend", "open_engine"]
