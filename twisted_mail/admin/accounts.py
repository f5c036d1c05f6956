"""``mailctl account``: what lies behind a user's mailboxes, for those who want to know."""

from __future__ import annotations

from typing import Any

import click

from twisted_mail.account.entries import EntryError, decode_entry, describe_entry
from twisted_mail.account.moving import move_home
from twisted_mail.admin.checking import AccountCheck, worst
from twisted_mail.admin.invocation import Group, on_store, the_invocation
from twisted_mail.admin.links import link
from twisted_mail.admin.opening import Store
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.admin.takeover import take_over
from twisted_mail.storage.interfaces import LogEntry, Trimmed
from twisted_mail.values import ModSeq

__all__ = ["account"]


@click.group(cls=Group)
def account() -> None:
    """The log of a user's account: look into it, check what is made from it, move it to another data centre."""


account.add_command(link)
account.add_command(take_over)

def _facts(entry: LogEntry) -> dict[str, Any]:
    facts: dict[str, Any] = {"modseq": int(entry.modseq), "id": str(entry.id)}
    try:
        return facts | describe_entry(decode_entry(entry.data))
    except EntryError as error:
        return facts | {"time": "-", "cause": "unreadable", "changes": [], "error": str(error)}


def _line(facts: dict[str, Any], names: dict[str, str]) -> dict[str, str]:
    changes = []
    for change in facts["changes"]:
        words = [change["change"]]
        for key, value in change.items():
            if key == "change" or value in ("", [], (), None):
                continue
            if key == "mailbox":
                words.append(names.get(value, value))
            elif key == "messages":
                size = sum(message["size"] for message in value)
                flags = sorted({flag for message in value for flag in message["flags"]})
                words.append(f"{len(value)} of {size} octets" + (f" ({' '.join(flags)})" if flags else ""))
            else:
                words.append(f"{key}={' '.join(value) if isinstance(value, list | tuple) else value}")
        changes.append(" ".join(words))
    return {
        "modseq": str(facts["modseq"]),
        "time": facts["time"],
        "cause": facts["cause"],
        "changes": "; ".join(changes) or facts.get("error", "-"),
    }


@account.command("log")
@click.argument("address", metavar="USER")
@click.option("--after", type=click.IntRange(0), metavar="N", help="Entries above this number. Default: the newest ones.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, metavar="N", help="At most so many.")
@on_store()
async def log(store: Store, address: str, after: int | None, limit: int) -> None:
    """Entries of a user's log: what was done, by what, and when (UTC). Reaches back as far as account.retention says."""
    record = await store.user(address)
    entries = store.backend.account_log
    head = await entries.head(record.id)
    start = max(0, head - limit) if after is None else after
    try:
        found = await entries.read(record.id, ModSeq(start), limit)
    except Trimmed as error:
        # the beginning is past its retention: as much as there is of what was asked for
        first = await _first_kept(store, record.id, start, int(head))
        if after is not None:
            raise Problem(
                Status.NOT_FOUND, "trimmed", f"the log of {record.address} begins at {first}; add --after {first - 1}",
                first=first,
            ) from error  # fmt: skip
        found = await entries.read(record.id, ModSeq(first - 1), limit)
    out = the_invocation().out
    shown = [_facts(entry) for entry in found]
    if out.as_json:
        out.rows(shown)
        return
    async with store.account(record) as opened:
        names = {str(id): mailbox.name for id, mailbox in opened.state.mailboxes.items()}
    out.rows([_line(facts, names) for facts in shown], ("modseq", "time", "cause", "changes"))


async def _first_kept(store: Store, account_id: Any, low: int, head: int) -> int:
    """The number of the oldest entry that is kept, by halving. (An AccountId.)"""
    while low < head:
        middle = (low + head) // 2
        try:
            await store.backend.account_log.read(account_id, ModSeq(middle), 1)
        except Trimmed:
            low = middle + 1
        else:
            head = middle
    return low + 1


@account.command("check")
@click.argument("address", metavar="USER")
@click.option("--deep", is_flag=True, help="Read and parse every message again; takes as long as all mail takes to read.")
@click.option("--repair", is_flag=True, help="Make anew what is derived: the checkpoint, the lists.")
@on_store()
async def check(store: Store, address: str, deep: bool, repair: bool) -> None:
    """Check a user's account against its log, its message rows and its blobs. Exit status 1 if something is wrong.

    The whole log is replayed (or the checkpoint and what follows it, where the beginning is past its retention) and
    compared with the state; counts, sums, UIDs, rows, octets and lists are looked at. Nothing is changed but by
    --repair.
    """
    record = await store.user(address)
    first = AccountCheck(store, record.id, deep)
    whole = await first.run()
    findings, repaired = first.findings, list[str]()
    if repair:
        repaired = await first.repair(whole)
        again = AccountCheck(store, record.id, deep)
        await again.run()
        findings = again.findings
    facts = {
        "user": record.address,
        "result": worst(findings),
        **first.facts,
        "repaired": repaired,
        "findings": [finding.as_json() for finding in findings],
    }
    out = the_invocation().out
    if out.as_json:
        out.one(facts)
    else:
        for finding in findings:
            note = " (--repair makes it anew)" if finding.repairable and not repair else ""
            out.text(f"{finding.severity}: {finding.code}: {finding.text}{note}")
        if repaired:
            out.text(f"made anew: {', '.join(repaired)}")
        counted = f"{facts.get('mailboxes', 0)} mailboxes, {facts.get('messages', 0)} messages, {facts['head']} entries"
        out.text(f"{record.address}: {facts['result']} ({counted})")
    if facts["result"] == "error":
        raise Problem(Status.FAILED, "check", f"{record.address}: {len(findings)} findings")


@account.command("move")
@click.argument("address", metavar="USER")
@click.option("--to", required=True, metavar="DATACENTER", help="The new home, as storage.metadata names it.")
@click.option("--unseen", is_flag=True, help="Even if no node of that data centre is known to be alive.")
@on_store()
async def move(store: Store, address: str, to: str, unseen: bool) -> None:
    """Move a user's account to another data centre, the only one whose nodes change it from then on.

    No change is lost: the move is the last entry that the old home writes, and the new home goes on where it has every
    entry below. Until it has, mail waits in the queue. If the command is interrupted, give it again.
    """
    record = await store.user(address)
    here = store.accounts.datacenter
    if not here:
        raise Problem(Status.FAILED, "one-datacenter", "this store has one data centre: storage.metadata names none")
    alive = {member.datacenter for member in await store.backend.members.alive()}
    if to not in alive | {here} and not unseen:
        known = ", ".join(sorted(alive | {here}))
        text = f"no node of {to} is alive (known: {known}); an account that moves there cannot be changed until one is"
        raise Problem(Status.NOT_FOUND, "no-datacenter", f"{text}: add --unseen if that is meant")
    moved = await move_home(store.accounts, store.directory, record.id, to)
    out = the_invocation().out
    if out.as_json:
        out.one({"user": record.address, "from": moved.before, "to": moved.to, "seen": moved.seen})
        return
    if not moved.seen:
        raise Problem(
            Status.TEMPORARY, "unseen", f"{record.address} is at home in {to}, which has not seen it yet: run this again"
        )
    out.text(f"{record.address}: at home in {moved.to}" + (f", until now in {moved.before}" if moved.before != to else ""))
