"""Debian's OpenDKIM, a milter that signs what comes from loopback and verifies the rest, with keys from a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.services.daemon import Daemon
from tests.services.knot import program
from tests.services.processes import free_port

__all__ = ["OpenDKIM"]


class OpenDKIM(Daemon):
    """One milter, at 127.0.0.1:`port`.

    It signs mail of *domain* (selector `SELECTOR`) with *key* (PEM) where the client is in *internal* (addresses or
    networks), and verifies everything else with *keys*: records by name (``s1._domainkey.example.org``), instead of the DNS.
    *more*: lines of opendkim.conf.
    """

    SELECTOR = "od1"
    AUTHSERV = "opendkim.example"

    def __init__(
        self,
        folder: Path,
        *,
        domain: str = "",
        key: bytes = b"",
        internal: tuple[str, ...] = ("127.0.0.1",),
        keys: Mapping[str, str] | None = None,
        more: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self.port = free_port()
        (folder / "keys.txt").write_text("".join(f"{name} {record}\n" for name, record in (keys or {}).items()))
        (folder / "internal").write_text("".join(f"{network}\n" for network in internal))
        lines = [
            f"Socket inet:{self.port}@127.0.0.1",
            f"Mode {'sv' if domain else 'v'}",
            "Background no",
            "Syslog no",
            "UMask 022",
            "RequireSafeKeys no",
            "Canonicalization relaxed/simple",
            f"AuthservID {self.AUTHSERV}",
            "AlwaysAddARHeader yes",
            f"TestPublicKeys {folder / 'keys.txt'}",
            f"InternalHosts {folder / 'internal'}",
            f"PidFile {folder / 'opendkim.pid'}",
            *more,
        ]
        if domain:
            place = folder / "signing.pem"
            place.write_bytes(key)
            place.chmod(0o600)
            lines += [f"Domain {domain}", f"KeyFile {place}", f"Selector {self.SELECTOR}"]
        self.configure("opendkim", [program("opendkim", "opendkim"), "-f", "-x"], lines)
