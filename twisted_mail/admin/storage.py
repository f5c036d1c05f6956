"""``mailctl storage``: the stores themselves: their tables, what lies in them for nothing, and moving to others."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from twisted.internet.task import deferLater

from twisted_mail.account.audit import Audit
from twisted_mail.account.sweeping import sweep_accounts
from twisted_mail.admin.alone import COPYING, alone
from twisted_mail.admin.copying import AccountCopy, CopyReport, Different, compare
from twisted_mail.admin.invocation import Group, on_store, the_invocation
from twisted_mail.admin.opening import Store, opened
from twisted_mail.admin.output import size_text
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.admin.progress import Bar
from twisted_mail.admin.queue_copying import QueueCopy, check_nobody_works, how_many_wait
from twisted_mail.admin.rewrapping import rewrap
from twisted_mail.admin.running import run
from twisted_mail.delivery.auditing import QueueAudit
from twisted_mail.storage.interfaces import AccountRecord, AlreadyExists, StorageError
from twisted_mail.tap.configuration import load
from twisted_mail.tap.sweeping import sweeper_of
from twisted_mail.values import AccountId

__all__ = ["storage"]


@click.group(cls=Group)
def storage() -> None:
    """The stores: tables, garbage, and moving accounts from one store to another."""


@storage.command("migrate")
@on_store(create=True)
async def migrate(store: Store) -> None:
    """Make the tables and buckets that this version needs, or bring them up to date. Two at once are safe; servers do it
    at their start, so this is for doing it before they do."""
    engines = [_name(engine) for engine in store.backend.engines]  # an engine that is started is up to date
    the_invocation().out.done(f"up to date: {', '.join(engines)}", engines=engines)


@storage.command("check")
@on_store()
async def check(store: Store) -> None:
    """Look at the stores' tables and settings: what is missing, what is set otherwise than this version wants it."""
    findings: list[dict[str, str]] = []
    for engine in store.backend.engines:
        trouble = engine.health()
        if trouble is not None:
            findings.append({"engine": _name(engine), "finding": trouble})
        look: Callable[[], Coroutine[Any, Any, Sequence[str]]] | None = getattr(engine, "check", None)
        if look is not None:
            findings += [{"engine": _name(engine), "finding": each} for each in await look()]
    out = the_invocation().out
    if findings:
        text = "\n".join(f"{each['engine']}: {each['finding']}" for each in findings)
        raise Problem(Status.FAILED, "findings", text, findings=findings)
    out.done("nothing to complain of", findings=[])


storage.add_command(rewrap)


def _name(engine: object) -> str:
    return type(engine).__name__.removesuffix("Engine").lower()


@storage.command("gc")
@click.option("--audit", is_flag=True, help="Compare everything that there is: rows, references, objects. Takes its time.")
@click.option("--repair", is_flag=True, help="With --audit: add references that lack, take away what nothing names.")
@on_store()
async def gc(store: Store, audit: bool, repair: bool) -> None:
    """Take away what nobody needs any more: rows of expunged messages behind the retention window, and blobs.

    Servers do it by themselves; two at once are safe. A blob that nobody needs is condemned first, and goes in a run an
    hour later. Without --audit the work is in proportion to what was deleted.
    """
    if repair and not audit:
        raise Problem(Status.USAGE, "usage", "--repair goes with --audit")
    out = the_invocation().out
    facts: dict[str, Any] = {}
    rows, troubles = 0, []
    async for account, removed, trouble in sweep_accounts(store.accounts, _accounts(store)):
        rows += removed
        if trouble:
            troubles.append(f"account {account}: {trouble}")
    facts["rows"] = rows
    if audit and repair:
        async with alone(store.backend.leases, COPYING, store.reactor, _COPIED) as held:
            facts["audit"] = await _audit(store, repair=True, still=held.check)
    elif audit:
        facts["audit"] = await _audit(store, repair=False)
    swept = await sweeper_of(store.backend, store.reactor).run_once()
    facts["blobs"] = None if swept is None else asdict(swept)
    facts["troubles"] = troubles
    if troubles:
        raise Problem(Status.TEMPORARY, "some-failed", "\n".join(troubles), **facts)
    found = facts.get("audit")
    if found and not repair and (found["garbage"] or found["damage"]):
        text = "\n".join(found["examples"]) + f"\n{found['garbage']} things are there for nothing, {found['damage']} are damaged"
        raise Problem(Status.FAILED, "findings", text, **facts)
    blobs = "another sweeper is at work" if swept is None else (
        f"{swept.deleted} blobs ({size_text(swept.deleted_bytes)}) deleted, {swept.condemned} condemned, {swept.waiting} wait"
    )  # fmt: skip
    names = ("rows", "references", "objects", "items")
    looked = "; " + ", ".join(f"{found[name]} {name}" for name in names) + " compared" if found else ""
    if found and found["unproven"]:
        looked += f"; {found['unproven']} held for items that do not exist (garbage, if a repair an hour later finds them again)"
    out.done(f"{rows} rows deleted; {blobs}{looked}", **facts)


async def _accounts(store: Store) -> AsyncIterator[AccountId]:
    for record in await store.directory.accounts():
        yield record.id


async def _audit(store: Store, *, repair: bool, still: Callable[[], None] = lambda: None) -> dict[str, Any]:
    backend, reactor = store.backend, store.reactor
    queue = QueueAudit(
        backend.queue, backend.queue_bodies, backend.records, wall=time.time, repair=repair, still=still
    )

    async def known(account: AccountId) -> bool:
        return await store.directory.account(account) is not None

    comparing = Audit(
        log=backend.account_log,
        messages=backend.messages,
        blobs=backend.blobs,
        references=backend.references,
        wall=time.time,
        pause=lambda: deferLater(reactor, 0, lambda: None),
        repair=repair,
        others=queue,
        still=still,
    )
    report = await comparing.run(_accounts(store), known)
    return asdict(report) | {"garbage": report.garbage, "damage": report.damage}


_COPIED = "a `storage copy` writes into this store, or another audit repairs it: repair when it is done"
_BUSY = "another `storage copy`, or an audit that repairs, is at work on the target: run this when it is done"

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@storage.command("copy")
@click.argument("addresses", metavar="[USER]...", nargs=-1)
@click.option("--from", "source", type=_FILE, metavar="FILE", help="Configuration of the store to copy from. Default: --config.")
@click.option("--to", "target", type=_FILE, required=True, metavar="FILE", help="Configuration of the store to copy to.")
@click.option("--compare/--no-compare", default=True, show_default=True, help="Compare octet for octet at the end.")
@click.option("--queue", "queued", is_flag=True, help="Also mail that waits in the queue. The servers must be stopped.")
def copy(addresses: tuple[str, ...], source: Path | None, target: Path, compare: bool, queued: bool) -> None:
    """Copy users (none named: all) with everything they have from one store to another.

    Works while servers use the source: the log of each account is followed until the copy has caught up. Done again, it
    goes on where it was. To move: copy, stop the servers, copy again with --queue (which takes seconds), start them with
    the other configuration, and never again with the old one.
    """
    if queued and addresses:
        raise Problem(Status.USAGE, "usage", "--queue copies the queue of all users: name none")
    invocation = the_invocation()
    here = invocation.configuration() if source is None else load(source, os.environ)
    there = load(target, os.environ)
    if here.storage == there.storage and here.data == there.data:
        raise Problem(Status.USAGE, "usage", "both configurations name the same store")

    async def main(reactor: Any) -> None:
        async with opened(reactor, here) as one, opened(reactor, there, create=True) as other:
            if queued:
                await check_nobody_works(("source", one.backend), ("target", other.backend))
            async with alone(other.backend.leases, COPYING, reactor, _BUSY) as held:
                await _copy(one, other, addresses, comparing=compare, queued=queued, still=held.check)

    run(main)


async def _copy(
    source: Store,
    target: Store,
    addresses: tuple[str, ...],
    *,
    comparing: bool,
    queued: bool,
    still: Callable[[], None],
) -> None:
    records = [await source.user(each) for each in addresses] or list(await source.directory.accounts())
    out = the_invocation().out
    reports: list[dict[str, Any]] = []
    failed: list[str] = []
    for record in records:
        try:
            shown = not out.as_json
            reports.append(await _copy_one(source, target, record, comparing=comparing, shown=shown, still=still))
        except (Different, StorageError) as error:
            failed.append(f"{record.address}: {error}")
    aliases = await _copy_aliases(source, target, {record.address.rpartition("@")[2] for record in records})
    rows = sum(each["rows"] for each in reports)
    octets = sum(each["octets"] for each in reports)
    if failed:
        text = "\n".join(failed) + f"\n{len(failed)} of {len(records)} users failed; run this again"
        raise Problem(Status.FAILED, "some-failed", text, users=reports, failed=failed)
    compared = f"; {sum(each['compared'] for each in reports)} messages compared" if comparing else ""
    queue = await _copy_queue(source, target, still) if queued else None
    waiting = 0 if queued else await how_many_wait(source.backend)
    if waiting:
        out.note(
            f"{waiting if waiting < 1000 else '1000 or more'} items wait in the source's queue, and were not copied: "
            "stop the servers, and copy again with --queue"
        )
    items = f"; {queue['source']} items of the queue, all in the target" if queue is not None else ""
    out.done(
        f"{len(reports)} users: {rows} messages ({size_text(octets)}), "
        f"{sum(each['entries'] for each in reports)} log entries copied{compared}{items}",
        users=reports,
        aliases=aliases,
        queue=queue,
        waiting=waiting,
    )


async def _copy_queue(source: Store, target: Store, still: Callable[[], None]) -> dict[str, Any]:
    """After the accounts: what is delivered from there must find what was delivered before. Raises Problem."""
    report = await QueueCopy(source.backend, target.backend, source.reactor, time.time, still).run()
    facts = report.as_json()
    if report.failed or report.target != report.source:
        text = "\n".join(report.failed) + f"\n{report.target} of {report.source} items of the queue are in the target"
        raise Problem(Status.FAILED, "queue-differs", text, queue=facts)
    return facts


async def _copy_one(
    source: Store, target: Store, record: AccountRecord, *, comparing: bool, shown: bool, still: Callable[[], None]
) -> dict[str, Any]:
    still()
    await _copy_record(source, target, record)
    with Bar(f"copying {record.address}", await _octets(source, record), shown=shown) as bar:
        copying = AccountCopy(source.backend, target.backend, record.id, source.reactor, bar.advance, still)
        report: CopyReport = await copying.run()
    compared = 0
    if comparing:
        async with source.account(record) as one, target.account(record) as other:
            with Bar(f"comparing {record.address}", one.state.size, shown=shown) as bar:
                for _ in range(10):  # it may be in use: what came meanwhile is copied first
                    if await one.refresh() == await other.refresh():
                        break
                    await copying.run()
                compared = await compare(source, target, one, other, bar.advance)
    return {
        "user": record.address,
        "position": report.position,
        "rows": report.rows,
        "octets": report.octets,
        "entries": report.entries,
        "from_checkpoint": report.checkpoint,
        "compared": compared,
    }


async def _octets(store: Store, record: AccountRecord) -> int:
    async with store.account(record) as account:
        return account.state.size


async def _copy_record(source: Store, target: Store, record: AccountRecord) -> None:
    """The domain, the user and the user's scripts. Raises Different."""
    domain = record.address.rpartition("@")[2]
    found = await source.directory.domain(domain)
    if found is not None and await target.directory.domain(domain) is None:
        await target.directory.add_domain(found)
    present = await target.directory.account(record.id)
    if present is None:
        try:
            await target.directory.add_account(record)
        except AlreadyExists as error:
            raise Different(f"the target has another user of that address: {error}") from error
    elif present != record:
        await target.directory.set_account(record)
    active = None
    for name, is_active in (await source.directory.scripts(record.id)).items():
        script = await source.directory.script(record.id, name)
        if script is not None:
            await target.directory.put_script(record.id, name, script)
        active = name if is_active else active
    if active is not None:
        await target.directory.activate_script(record.id, active)


async def _copy_aliases(source: Store, target: Store, domains: set[str]) -> int:
    count = 0
    for domain in sorted(domains):
        for alias in await source.directory.aliases(domain):
            try:
                await target.directory.add_alias(alias)
            except AlreadyExists:
                await target.directory.set_alias(alias)
            count += 1
    return count
