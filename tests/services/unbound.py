"""Unbound: a resolver that validates, and asks a `Knot` for the zones that it has."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.services import running
from tests.services.knot import Knot, program
from tests.services.processes import Killable, Process, free_port, loopback_address

__all__ = ["Unbound"]


class Unbound(Killable):
    """One resolver, its trust anchors the keys of *knot*'s signed zones (or *anchors*); it knows nothing else of the DNS."""

    def __init__(
        self,
        *knots: Knot,
        anchors: tuple[str, ...] | None = None,
        address: str | None = None,
        folder: Path | None = None,
    ) -> None:
        self.folder = folder or running.new_folder("unbound")
        self.address = address or loopback_address()
        self.port = free_port(self.address)
        self.knots = knots
        self.anchors = anchors
        self._control = program("unbound-control", "unbound")
        words = [program("unbound", "unbound"), "-d", "-c", str(self._configuration)]
        self.process = Process("unbound", words, self.folder)

    @property
    def _configuration(self) -> Path:
        return self.folder / "unbound.conf"

    def start(self) -> None:
        """The name servers must run already. Raises NotReady."""
        self._write()
        self.process.start()
        self.process.wait(self.address, self.port, 30.0)

    def forget(self, zone: str) -> None:
        """What it has cached of *zone*, after `Knot.set`."""
        for words in (["flush_zone", zone], ["flush_infra", "all"]):
            subprocess.run(
                [self._control, "-c", str(self._configuration), *words], capture_output=True, timeout=30, check=True
            )

    def stop(self) -> None:
        self.process.stop()
        running.remove(self.folder)

    def _write(self) -> None:
        anchors = self.anchors
        if anchors is None:
            anchors = tuple(anchor for knot in self.knots for anchor in knot.trust_anchors())
        zones = [(zone, knot) for knot in self.knots for zone in knot.zones]
        lines = [
            "server:",
            f"  interface: {self.address}@{self.port}",
            f"  directory: {self.folder}",
            '  username: ""',
            '  chroot: ""',
            '  pidfile: ""',
            "  use-syslog: no",
            "  do-daemonize: no",
            "  num-threads: 1",
            "  do-not-query-localhost: no",
            "  access-control: 127.0.0.0/8 allow",
            '  module-config: "validator iterator"',
            "  qname-minimisation: no",
            "  unblock-lan-zones: yes",
            "  insecure-lan-zones: yes",
            *(f'  local-zone: "{zone.rpartition(".")[2]}." nodefault' for zone, _ in zones),
            *(f'  trust-anchor: "{anchor}"' for anchor in anchors),
            "remote-control:",
            "  control-enable: yes",
            f"  control-interface: {self.folder / 'control'}",
            "  control-use-cert: no",
        ]
        for zone, knot in zones:
            lines += ["stub-zone:", f"  name: {zone}", f"  stub-addr: {knot.address}@{knot.port}"]
        self._configuration.write_text("\n".join(lines) + "\n")
