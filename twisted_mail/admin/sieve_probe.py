"""``mailctl test sieve``: what a script makes of a message, step by step, with nothing carried out."""

from __future__ import annotations

import dataclasses
import re
import time
from pathlib import Path
from typing import IO, Any

import click

from twisted_mail.admin.invocation import Command, the_invocation
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.admin.sieve import compiled, read_script
from twisted_mail.sieve import Message, RunEnvironment, RunLimits
from twisted_mail.sieve.values import (
    Action,
    Discard,
    Edit,
    FileInto,
    Keep,
    Notify,
    Redirect,
    Reject,
    Vacation,
)

__all__ = ["probe"]

DAY = 86_400


class _Named:
    """Implements `sieve.values.Mailboxes`: INBOX, and those that were named."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = {"INBOX", *names}

    def exists(self, name: str) -> bool:
        return name in self._names or name.upper() == "INBOX"

    def id_exists(self, mailbox_id: str) -> bool:
        return False

    def special_use_exists(self, use: str, name: str | None = None) -> bool:
        return False

    def metadata(self, name: str | None, entry: str) -> str | None:
        return None


def _address(message: Message, *fields: str) -> str:
    """The first that one of *fields* (in lower case) has."""
    for name in fields:
        for found in message.addresses(name):
            for address in found:
                if address.valid:
                    return address.full
    return ""


def _said(action: Action) -> str:
    """An action as a sentence."""
    match action:
        case Keep(flags=flags):
            return "keep it in INBOX" + (f", with {' '.join(flags)}" if flags else "")
        case FileInto(mailbox=mailbox, create=create, flags=flags):
            made = ", which is made if it is not there" if create else ""
            return f'put it into "{mailbox}"{made}' + (f", with {' '.join(flags)}" if flags else "")
        case Redirect(address=address):
            return f"send it on to {address}"
        case Discard():
            return "throw it away"
        case Reject(reason=reason):
            return f'refuse it: "{reason}"'
        case Vacation(seconds=seconds, reason=reason):
            return f'answer its sender, once in {seconds / DAY:g} days: "{reason}"'
        case Notify(method=method):
            return f"notify {method}"


def _edited(edit: Edit) -> str:
    if edit.value is not None:
        return f"add the field {edit.name}: {edit.value}"
    return f"delete the field {edit.name}" + (f", number {edit.nth}" if edit.nth else "")


def _facts(thing: Action | Edit) -> dict[str, Any]:
    kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(thing).__name__).lower()
    return {"action": kind, **dataclasses.asdict(thing)}


@click.command("sieve", cls=Command)
@click.argument("script", type=click.File("rb"))
@click.argument("message", type=click.File("rb"))
@click.option("--from", "sender", metavar="ADDRESS", help="The reverse-path; default: of the From field. '' is the null sender.")
@click.option("--to", "recipient", metavar="ADDRESS", help="Whom it is delivered to; default: of the To field.")
@click.option("--mailbox", "mailboxes", multiple=True, metavar="NAME", help="A mailbox that there is; may be repeated.")
@click.option("--spam", type=click.FloatRange(0, 100), metavar="PERCENT", help="What spamtest is told.")
@click.option("--virus", type=click.IntRange(0, 5), default=0, help="What virustest is told, 0 to 5.")
def probe(
    script: IO[bytes],
    message: IO[bytes],
    sender: str | None,
    recipient: str | None,
    mailboxes: tuple[str, ...],
    spam: float | None,
    virus: int,
) -> None:
    """Run the script in the file SCRIPT on the message in the file MESSAGE, and say what it does and why.

    Nothing is stored or sent. Scripts that it includes are taken from beside it (NAME or NAME.sieve).
    """
    invocation = the_invocation()
    settings = invocation.configuration().sieve
    beside = Path(script.name).parent

    def include(location: str, name: str) -> str | None:
        if "/" in name or name.startswith("."):
            return None
        for path in (beside / name, beside / f"{name}.sieve"):
            if path.is_file():
                with path.open("rb") as file:
                    return read_script(file)
        return None

    text = read_script(script)
    ready = compiled(text, script.name, settings.script_bytes, include, explain=True)
    octets = message.read()
    if b"\r\n" not in octets:
        octets = octets.replace(b"\n", b"\r\n")  # as an editor saves it
    if not octets:
        raise Problem(Status.FAILED, "no-message", f"{message.name} is empty")
    seen = Message(octets)
    to = recipient if recipient is not None else _address(seen, "delivered-to", "to")
    environment = RunEnvironment(
        mailboxes=_Named(mailboxes),
        envelope_from=sender if sender is not None else _address(seen, "return-path", "from"),
        envelope_to=to,
        user=to,
        now=time.time(),
        items={"name": "twisted-mail-suite", "location": "MDA", "phase": "during", "host": "localhost"},
        spam_percent=spam,
        virus=virus,
    )
    limits = RunLimits(redirects=settings.max_redirects, vacation_min_seconds=settings.vacation_min_days * DAY)
    outcome = ready.run(seen, environment, limits)
    out = invocation.out
    if out.as_json:
        error = outcome.error
        out.one(
            {
                "from": environment.envelope_from,
                "to": to,
                "trace": list(outcome.trace),
                "actions": [
                    {**_facts(action), "rewritten": number in outcome.rewritten}
                    for number, action in enumerate(outcome.actions)
                ],
                "edits": [_facts(edit) for edit in outcome.edits],
                "error": None if error is None else {"text": error.text, "line": error.line, "column": error.column},
            }
        )
        return
    out.text(f"from <{environment.envelope_from}> to <{to}>")
    for line in outcome.trace:
        out.text(f"  {line}")
    out.text("It would:")
    for edit in outcome.edits:
        out.text(f"  {_edited(edit)}")
    for number, action in enumerate(outcome.actions):
        # What a script changes counts for what stands behind that.
        takes = isinstance(action, Keep | FileInto | Redirect)
        came = bool(outcome.rewritten) and takes and number not in outcome.rewritten
        out.text(f"  {_said(action)}{', as it came' if came else ''}")
