"""``python -m benchmarks [--messages N] [--only TEXT] [--workers N]``: run everything, print a table (or ``--json``)."""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from benchmarks.scenarios import SCENARIOS, Measured, Scenario, fill
from benchmarks.servers import Dovecot, Ours, Postfix, Server

COUNTS = {
    "SELECT": 200,
    "login": 100,
    "memory per idle connection": 100,
}
"""Operations of scenarios that do not go by the number of messages."""


def measure(scenario: Scenario, server: Server, messages: int, repeat: int) -> Measured:
    """The run with the median rate of *repeat*."""
    count = COUNTS.get(scenario.name, messages if scenario.filled else min(messages, 500))
    runs = [scenario.run(server, count) for _ in range(repeat)]
    middle = statistics.median_low(run.seconds for run in runs)
    return next(run for run in runs if run.seconds == middle)


def rate(measured: Measured) -> float:
    """Operations a second."""
    return measured.operations / measured.seconds if measured.seconds else 0.0


def row(scenario: Scenario, found: dict[str, Measured]) -> dict[str, object]:
    """One scenario, for the table and for JSON."""
    ours = found.get("ours")
    peer = next((measured for name, measured in found.items() if name != "ours"), None)
    line: dict[str, object] = {"scenario": scenario.name, "unit": scenario.unit}
    for side, measured in (("ours", ours), ("peer", peer)):
        if measured is None:
            continue
        if measured.bytes_each:
            line[f"{side}_kib"] = round(measured.bytes_each / 1024, 1)
        else:
            line[f"{side}_per_second"] = round(rate(measured), 1)
            line[f"{side}_cpu_us"] = round(measured.cpu_seconds / measured.operations * 1e6, 1)
    if ours and peer:
        if ours.bytes_each:
            line["ratio"] = round(ours.bytes_each / peer.bytes_each, 2) if peer.bytes_each else None
        else:
            line["ratio"] = round(rate(ours) / rate(peer), 2)
            line["cpu_ratio"] = round(
                (ours.cpu_seconds / ours.operations) / max(peer.cpu_seconds / peer.operations, 1e-9), 2
            )
    return line


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--messages", type=int, default=5000, help="messages in the mailbox that is read")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each scenario; the median is shown")
    parser.add_argument("--only", default="", help="scenarios whose name contains this")
    parser.add_argument("--workers", type=int, default=1, help="our processes")
    parser.add_argument("--without-peers", action="store_true", help="ours alone")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    scenarios = [scenario for scenario in SCENARIOS if arguments.only.lower() in scenario.name.lower()]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        servers: list[Server] = [Ours(Path(folder) / "ours", arguments.workers)]
        if not arguments.without_peers:
            if Dovecot.installed():
                dovecot = Dovecot(Path(folder) / "dovecot")
                servers.append(dovecot)
                if Postfix.installed():
                    servers.append(Postfix(Path(folder) / "postfix", dovecot))
            else:
                print(
                    "Dovecot is not installed (or this is not root): ours is measured alone. As root, for peers:\n"
                    "    apt-get install dovecot-imapd dovecot-lmtpd dovecot-pop3d postfix"
                )
        started: list[Server] = []
        try:
            for server in servers:
                server.start()
                started.append(server)
                if server.has("imap") and any(scenario.filled for scenario in scenarios):
                    fill(server, arguments.messages)
            rows = []
            for scenario in scenarios:
                found = {
                    server.name: measure(scenario, server, arguments.messages, arguments.repeat)
                    for server in servers
                    if server.has(scenario.service)
                }
                rows.append(row(scenario, found))
                if not arguments.json:
                    show(rows[-1], first=len(rows) == 1)
            if arguments.json:
                print(json.dumps(rows, indent=1))
        finally:
            for server in reversed(started):
                server.stop()


def show(line: dict[str, object], *, first: bool) -> None:
    """A line of the table."""
    if first:
        print(f"{'':30}{'ours/s':>10}{'peer/s':>10}{'ratio':>8}{'ours µs':>10}{'peer µs':>10}{'CPU ratio':>11}")
    if "ours_kib" in line or "peer_kib" in line:
        print(
            f"{line['scenario']!s:30}{line.get('ours_kib', '-')!s:>10}{line.get('peer_kib', '-')!s:>10}"
            f"{line.get('ratio', '-')!s:>8}  KiB each, smaller is better"
        )
        return
    keys = ("ours_per_second", "peer_per_second", "ratio", "ours_cpu_us", "peer_cpu_us", "cpu_ratio")
    widths = (10, 10, 8, 10, 10, 11)
    cells = (f"{line.get(k, '-')!s:>{w}}" for k, w in zip(keys, widths, strict=True))
    print(f"{line['scenario']!s:30}" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
