"""Two Cassandra nodes in two data centres, of which one is killed for good: what it had not sent is lost, the rest goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from twisted.internet.task import deferLater

from tests.admin.calling import CONFIGURATION, Mailctl
from tests.services import running
from tests.services.cassandra import Cassandra
from twisted_mail.account.intents import AddMessages, new_message
from twisted_mail.admin.opening import Store, opened
from twisted_mail.admin.problems import Problem
from twisted_mail.admin.running import run
from twisted_mail.admin.takeover import ready
from twisted_mail.storage.interfaces import AccountRecord, Domain, StorageError, Unavailable
from twisted_mail.tap.configuration import load
from twisted_mail.values import AccountId, BlobRef

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(420)]
USER = "ann@example.org"


def in_centre(cluster: Cassandra, number: int, keyspace: str, folder: Path) -> Mailctl:
    """mailctl with the database node of one data centre."""
    name, address = cluster.nodes[number].datacenter, cluster.nodes[number].address
    url = f"cql://{address}:{cluster.port}/{keyspace}?datacenter={name}&replication=dc1:1,dc2:1"
    folder.mkdir()
    (folder / "mail.toml").write_text(
        f'{CONFIGURATION}[storage]\nmetadata = "{url}"\nblobs = "file:"\nmessaging = "memory:"\n'
    )
    return Mailctl(folder)


async def add(store: Store, *subjects: str) -> None:
    async with store.account(await store.user(USER)) as account:
        for subject in subjects:
            writer = store.accounts.writer(account.id)
            await writer.write(f"Subject: {subject}\r\n\r\n".encode())
            stored = await account.store(await writer.finish())
            inbox = account.state.inbox.id
            await account.commit(AddMessages(mailbox=inbox, messages=(new_message(stored, 1_790_000_000),)))


async def inbox(store: Store) -> tuple[int, dict[int, str]]:
    """UIDVALIDITY, and subjects by UID."""
    async with store.account(await store.user(USER)) as account:
        await account.refresh()
        box = account.state.inbox
        columns = await account.columns(box)
        found = {}
        for uid, slot in columns.iterate():
            octets = b"".join([chunk async for chunk in account.octets(columns.key(slot))])
            found[uid] = octets.split()[1].decode()
        return box.uid_validity, found


async def until(store: Store, wanted: dict[int, str]) -> int:
    """Until that is there; the UIDVALIDITY."""
    while True:
        validity, found = await inbox(store)
        if found == wanted:
            return validity
        await deferLater(store.reactor, 0.1, lambda: None)


async def cut_off(store: Store) -> None:
    """Until the database node of *store* takes the other one for dead: what is written is not sent there any more. A
    write to both then fails at once, instead of waiting in vain."""
    while True:
        try:
            await store.backend.references.add(BlobRef("ab" * 32, 1), "q/none")
        except Unavailable as error:
            if "WriteTimeout" not in str(error):
                return


def session_of(store: Store) -> Any:
    """The driver's session of ours."""
    return next(engine.session for engine in store.backend.engines if hasattr(engine, "session"))


async def refused(store: Store) -> Problem | None:
    """Why nothing can be taken over, once the database answers (its node may just have been paused); None: it can."""
    while True:
        try:
            await ready(store, "dc1", "dc2")
            return None
        except Problem as problem:
            return problem
        except StorageError:
            await deferLater(store.reactor, 0.5, lambda: None)


def test_a_data_centre_is_lost_and_its_accounts_are_taken_over(tmp_path: Path) -> None:
    cluster = running.two_data_centres()
    keyspace = f"lost_{uuid4().hex[:12]}"
    first = in_centre(cluster, 0, keyspace, tmp_path / "one")
    second = in_centre(cluster, 1, keyspace, tmp_path / "two")

    async def lose(reactor: Any) -> int:
        """dc1 has an account, sends some of it to dc2, and is no more."""
        ours, theirs = load(first.config, {}), load(second.config, {})
        async with opened(reactor, theirs, create=True) as two:
            async with opened(reactor, ours, create=True) as one:
                await one.directory.add_domain(Domain("example.org"))
                await one.directory.add_account(AccountRecord(AccountId.new(), USER, home="dc1"))
                await add(one, "first", "second")
                validity = await until(two, {1: "first", 2: "second"})
                alive = await refused(two)
                assert alive is not None and alive.code == "home-alive"
                cluster.nodes[1].pause()
                await cut_off(one)
                await add(one, "acknowledged")
                assert (await inbox(one))[1][3] == "acknowledged"
                cluster.nodes[0].kill()
                cluster.nodes[1].resume()
            kept = await refused(two)
            assert kept is not None and kept.code == "still-replicated"
            try:
                await session_of(two).run_schema(kept.facts["statement"])
            except StorageError:
                pass  # it was carried out, and the dead node does not say that it agrees
            assert await refused(two) is None
        return validity

    async def look(store: Store) -> tuple[int, dict[int, str], str]:
        validity, found = await inbox(store)
        await add(store, "after")
        assert await inbox(store) == (validity, {**found, 3: "after"})
        return validity, found, (await store.user(USER)).home

    try:
        before = run(lose)
        (report,) = second.json("account", "take-over", "--from", "dc1", "--i-know-the-home-is-gone")["users"]
        assert (report["user"], report["messages"], report["missing"]) == (USER, 2, 0)
        validity, found, home = second.inside(look)
        assert validity > before, "the UID 3 was given and shown, to a message that is lost"
        assert (found, home) == ({1: "first", 2: "second"}, "dc2")
    finally:
        running.stop("cassandra-dc")
