"""Knot: an authoritative name server with zones of the test's own, signed by DNSSEC where wanted."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from tests.services import running
from tests.services.processes import Killable, NotReady, Process, free_port, loopback_address

__all__ = ["Knot", "program"]


def program(name: str, package: str) -> str:
    """Where *name* is; ends the test (skipped, or failed where all must be there) if it is nowhere."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        running.unavailable(f"{name} is not installed (apt-get install {package})")
        raise AssertionError
    return found


class Knot(Killable):
    """One server; its zones may be changed while it runs.

    A zone's text has its records only, with names relative to the zone; SOA and NS are added. *signed* names the zones
    that are signed (ECDSA P-256, one key); none given: all.
    """

    def __init__(
        self,
        zones: Mapping[str, str],
        *,
        signed: frozenset[str] | None = None,
        address: str | None = None,
        folder: Path | None = None,
    ) -> None:
        self.folder = folder or running.new_folder("knot")
        self.address = address or loopback_address()
        self.port = free_port(self.address)
        self.zones = dict(zones)
        self.signed = frozenset(zones) if signed is None else signed
        self._knotc = program("knotc", "knot")
        words = [program("knotd", "knot"), "-c", str(self._configuration)]
        self.process = Process("knotd", words, self.folder)

    @property
    def _configuration(self) -> Path:
        return self.folder / "knot.conf"

    def start(self) -> None:
        """Returns when every zone is served. Raises NotReady."""
        self._write()
        self.process.start()
        self.process.wait(self.address, self.port, 30.0)
        deadline = time.monotonic() + 30.0
        for zone in self.zones:
            while "serial" not in self._control("zone-read", zone, "@", "SOA", check=False) and not self._has_soa(zone):
                self.process.check(deadline, 30.0)
                time.sleep(0.05)

    def set(self, zone: str, text: str) -> None:
        """Serve *text* as *zone* (one of those it was built with) from now on."""
        if zone not in self.zones:
            raise KeyError(zone)
        self.zones[zone] = text
        self._write_zone(zone)
        self._control("-b", "zone-reload", zone)

    def trust_anchors(self) -> tuple[str, ...]:
        """A DS record (SHA-256) for each signed zone, as unbound's ``trust-anchor`` takes them."""
        keymgr = program("keymgr", "knot")
        found = []
        for zone in sorted(self.signed):
            said = subprocess.run(
                [keymgr, "-c", str(self._configuration), zone, "ds"], capture_output=True, text=True, timeout=30, check=True
            ).stdout
            found += [line for line in said.splitlines() if line.split()[-2:-1] == ["2"]]
        return tuple(found)

    def stop(self) -> None:
        self.process.stop()
        running.remove(self.folder)

    def _control(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(
            [self._knotc, "-c", str(self._configuration), *words], capture_output=True, text=True, timeout=30
        )
        if check and done.returncode:
            raise NotReady(f"knotc {' '.join(words)}: {done.stdout}{done.stderr}\n{self.process.end_of_log()}")
        return done.stdout

    def _has_soa(self, zone: str) -> bool:
        return " SOA " in self._control("zone-read", zone, "@", "SOA", check=False)

    def _write_zone(self, zone: str) -> None:
        head = f"$ORIGIN {zone}.\n$TTL 60\n@ SOA ns hostmaster 1 3600 900 86400 30\n@ NS ns\nns A {self.address}\n"
        (self.folder / f"{zone}.zone").write_text(head + self.zones[zone].rstrip() + "\n")

    def _write(self) -> None:
        lines = [
            "server:",
            f"  rundir: {self.folder}",
            f"  listen: {self.address}@{self.port}",
            "  udp-workers: 1",
            "  tcp-workers: 1",
            "  background-workers: 1",
            "database:",
            f"  storage: {self.folder}",
            "  journal-db-max-size: 32M",
            "  kasp-db-max-size: 32M",
            "log:",
            "  - target: stderr",
            "    any: info",
            "policy:",
            "  - id: one",
            "    algorithm: ecdsap256sha256",
            "    single-type-signing: on",
            "    cds-cdnskey-publish: none",
            "template:",
            "  - id: default",
            f"    storage: {self.folder}",
            "    zonefile-sync: -1",
            "    zonefile-load: difference-no-serial",
            "    journal-content: all",
            "zone:",
        ]
        for zone in self.zones:
            self._write_zone(zone)
            lines += [f"  - domain: {zone}", f"    file: {zone}.zone"]
            if zone in self.signed:
                lines += ["    dnssec-signing: on", "    dnssec-policy: one"]
        self._configuration.write_text("\n".join(lines) + "\n")
