"""``mailctl account take-over``: accounts of a data centre that is gone for good go on in this one, with what it has of them."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, Final

import click
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Factory, Protocol

from twisted_mail.account.buckets import buckets_of
from twisted_mail.account.errors import AccountError
from twisted_mail.account.lists import MessageLists
from twisted_mail.account.takeover import AnotherHome, TakenOver, Takeover
from twisted_mail.admin.invocation import Command, on_store, the_invocation
from twisted_mail.admin.opening import Store
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.storage.interfaces import AccountRecord, StorageError

__all__ = ["ready", "take_over"]

ANSWER_SECONDS: Final = 2.0
"""How long a database node of the lost data centre has to take a connection."""
WARNING: Final = (
    "Whatever {lost} acknowledged and had not yet sent here is lost: the newest mail, flags and moves of each account, "
    "perhaps of seconds, perhaps of as long as the connection was down before. Messages whose text or attachments lay in an "
    "object store that is gone with it are lost too, and mail that waited in its queue. Mail programs load every mailbox of "
    "these accounts anew. Should {lost} come back, what it has and this one has not stays behind: its mail nodes must not be "
    "started again. If it is gone for good, add --i-know-the-home-is-gone"
)

@click.command("take-over", cls=Command)
@click.argument("addresses", metavar="[USER]...", nargs=-1)
@click.option("--from", "lost", required=True, metavar="DATACENTER", help="The home that is gone for good.")
@click.option("--i-know-the-home-is-gone", "sure", is_flag=True, help="Needed: what that data centre had not sent here is lost.")
@on_store()
async def take_over(store: Store, addresses: tuple[str, ...], lost: str, sure: bool) -> None:
    """Make this data centre the home of users (none named: all) whose home is gone for good.

    For a data centre that will never come back; while it can, `account move` loses nothing. Refused while a mail node or a
    database node of it answers, and while the database still keeps copies there. What this data centre has of each
    account's log is kept; every UIDVALIDITY is raised, so mail programs begin anew. May be interrupted and given again.
    """
    here = store.accounts.datacenter
    if not here:
        raise Problem(Status.FAILED, "one-datacenter", "this store has one data centre: storage.metadata names none")
    if lost == here:
        raise Problem(Status.USAGE, "usage", f"{here} is this data centre: name the one that is gone")
    takeover = await ready(store, lost, here)
    if not sure:
        raise Problem(Status.USAGE, "not-confirmed", WARNING.format(lost=lost))
    out = the_invocation().out
    records = [await store.user(each) for each in addresses] or [
        record for record in await store.directory.accounts() if record.home in (lost, "")
    ]
    done: list[dict[str, Any]] = []
    failed: list[str] = []
    for record in records:
        try:
            report = await _take(store, takeover, record, here)
        except AnotherHome as error:
            if addresses:
                failed.append(f"{record.address}: {error}")
        except (StorageError, AccountError) as error:
            failed.append(f"{record.address}: {error}")
        else:
            done.append({"user": record.address, **asdict(report)})
            out.text(f"{record.address}: {_said(report)}")
    if failed:
        text = "\n".join(failed) + f"\n{len(failed)} of {len(records)} users failed; run this again"
        raise Problem(Status.FAILED, "some-failed", text, users=done, failed=failed)
    out.done(f"{len(done)} users are at home in {here}; restart its mail nodes", users=done, home=here)


async def ready(store: Store, lost: str, here: str) -> Takeover:
    """What takes accounts of *lost* over. Raises Problem: it may not be gone, or the store has no such thing."""
    alive = [member.node for member in await store.backend.members.alive() if member.datacenter == lost]
    if alive:
        text = f"mail nodes of {lost} are alive ({', '.join(alive)}): move the accounts instead (mailctl account move)"
        raise Problem(Status.CONFLICT, "home-alive", text, nodes=alive)
    session = next((engine.session for engine in store.backend.engines if hasattr(engine, "session")), None)
    if session is None:
        raise Problem(Status.FAILED, "one-datacenter", "this store's data centres do not keep logs of their own")
    from twisted_mail.storage.cql.takeover import LostCentre, Remains  # brings the driver, which is there now

    centre = LostCentre(session)
    for address, port in centre.nodes(lost):
        if await _answers(store.reactor, address, port):
            text = f"the database node {address} of {lost} takes connections: that data centre is not gone"
            raise Problem(Status.CONFLICT, "home-alive", text, nodes=[address])
    copies = dict(await centre.replication())
    if lost in copies:
        others = ", ".join(f"'{name}': {number}" for name, number in sorted(copies.items()) if name != lost)
        keyspace = session.options.keyspace
        statement = f"ALTER KEYSPACE {keyspace} WITH replication = {{'class': 'NetworkTopologyStrategy', {others}}}"
        text = f"the database keeps copies in {lost}: take it out first ({statement}), and repair what is left"
        raise Problem(Status.CONFLICT, "still-replicated", text, statement=statement)
    return Takeover(
        Remains(session),
        store.backend.messages,
        lost=lost,
        here=here,
        mailboxes=store.accounts.settings.default_mailboxes,
    )


async def _answers(reactor: Any, address: str, port: int) -> bool:
    """Whether anybody takes connections there."""
    endpoint = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
    try:
        peer: Any = await endpoint(reactor, address, port, timeout=ANSWER_SECONDS).connect(Factory.forProtocol(Protocol))
    except ConnectError:
        return False
    peer.transport.loseConnection()
    return True


async def _take(store: Store, takeover: Takeover, record: AccountRecord, here: str) -> TakenOver:
    report = await takeover.take(record.id, record.home)
    # the directory comes last: who was cut off before finds the log at home here, and goes on from there
    if record.home != here:
        await store.directory.set_account(replace(record, home=here))
    async with store.account(record) as account:
        lists = store.backend.lists
        if await lists.reached(record.id, buckets_of(account.state).marker):
            await MessageLists(lists).rebuild(account)  # they may have lines of messages that are lost
    store.accounts.forget(record.id)
    return report


def _said(report: TakenOver) -> str:
    if report.nothing:
        return "nothing of its mail came here; it begins empty"
    if report.done_before:
        return "is at home here already"
    parts = [f"{report.messages} messages"]
    if report.missing:
        parts.append(f"{report.missing} entries of its log did not come")
        parts.append(f"{report.rescued} messages rescued from behind them, {report.left_out} other changes left out")
    if report.rows_missing:
        parts.append(f"{report.rows_missing} messages without their text")
    return "; ".join(parts)
