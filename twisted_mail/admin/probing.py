"""``mailctl test``: what would become of a message, without sending it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from twisted_mail.admin.invocation import Group, on_store, the_invocation
from twisted_mail.admin.opening import Store
from twisted_mail.admin.output import plain
from twisted_mail.delivery.holding import HeldMessage
from twisted_mail.filters.findings import Finding, worst_of
from twisted_mail.filters.passage import Passage
from twisted_mail.filters.values import Action, Client, Mail
from twisted_mail.queueing.spool import SpoolFolder
from twisted_mail.services import Recipient
from twisted_mail.tap.judging import gauntlet_of
from twisted_mail.tap.relaying import resolver_of

__all__ = ["test"]

REMEMBERING: Final = frozenset({"rates", "greylisting", "early_talkers"})
"""Filters that are left out: they would count what nobody sent."""
CHUNK: Final = 64 * 1024


@click.group(cls=Group)
def test() -> None:
    """What would become of a message, without sending it."""


def _facts(finding: Finding) -> dict[str, Any]:
    verdict = finding.verdict
    return {
        "filter": finding.stage,
        "moment": finding.moment.name.lower(),
        "action": verdict.action.name.lower(),
        "score": verdict.score,
        "reason": verdict.reason or None,
        "facts": dict(verdict.facts),
        "down": finding.down,
        "milliseconds": round(finding.seconds * 1000, 2),
    }


async def _judge(passage: Passage, mail: Mail, recipients: tuple[str, ...], file: Path, folder: SpoolFolder) -> list[Finding]:
    await passage.connect()
    await passage.helo()
    await passage.begin(mail)
    for address in recipients:
        await passage.recipient(Recipient(address, ()))
    held = HeldMessage(mail, folder.begin())
    reading = passage.read()
    try:
        octets = file.read_bytes()
        if b"\r\n" not in octets:
            octets = octets.replace(b"\n", b"\r\n")  # as an editor saves it
        for at in range(0, len(octets), CHUNK):
            await held.write(octets[at : at + CHUNK])
            await reading.write(octets[at : at + CHUNK])
        found = [*passage.findings(), *await reading.finish(held)]
        await passage.close()
        return found
    finally:
        held.close()


@test.command("spam")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--from", "sender", default="", metavar="ADDRESS", help="The reverse-path; none: the null sender.")
@click.option("--to", "recipients", multiple=True, metavar="ADDRESS", help="Who it is for; may be repeated.")
@click.option("--ip", "address", default="192.0.2.1", show_default=True, help="The address it comes from.")
@click.option("--helo", default="", help="What the peer says it is; default: its address as a literal.")
@on_store()
async def spam(
    store: Store, file: Path, sender: str, recipients: tuple[str, ...], address: str, helo: str
) -> None:
    """Show the message in FILE to all filters of the configuration, and say what each finds.

    Nothing is sent or stored, and nobody is counted: limits, greylisting and early talkers are left out.
    """
    configuration, out = store.configuration, the_invocation().out
    gauntlet = gauntlet_of(configuration, store.reactor, store.backend, resolver_of(store.reactor, configuration), REMEMBERING)
    client = Client(address)
    client.helo = helo or (f"[IPv6:{address}]" if ":" in address else f"[{address}]")
    client.extended = True
    mail = Mail(client, sender)
    mail.id = "test"

    async def now(function: Any, *arguments: Any) -> Any:  # a call of any function
        return function(*arguments)

    folder = SpoolFolder(configuration.data / "spool", now)
    found = await _judge(gauntlet.enter(client), mail, recipients, file, folder)
    score = round(sum(finding.verdict.score for finding in found), 2)
    worst = worst_of(found, gauntlet.order)
    action = Action.ACCEPT if worst is None else worst.verdict.action
    settings = configuration.filters
    why = "" if worst is None else f", says {worst.stage}"
    if action < Action.REJECT and settings.reject_score and score >= settings.reject_score:
        action, why = Action.REJECT, f", since {settings.reject_score:g} points are too many"
    elif action < Action.JUNK and score >= settings.junk_score:
        action, why = Action.JUNK, f", from {settings.junk_score:g} points on"
    if out.as_json:
        out.one({"action": action.name.lower(), "score": score, "findings": [_facts(finding) for finding in found]})
        return
    for finding in found:
        out.text(plain(finding.line or f"{finding.stage}: nothing to say, {finding.seconds * 1000:.1f} ms"))
    out.text(f"{score:.1f} points: {action.name.lower()}{why}")
