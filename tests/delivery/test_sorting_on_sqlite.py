"""Sorting over the embedded store, with the real reactor: two nodes at once, large messages, and nothing left behind."""

from __future__ import annotations

import base64
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from tests.delivery.sorting_house import EVE, World, mail
from twisted_mail.account.references import holding_message
from twisted_mail.account.service import AccountService
from twisted_mail.delivery.effects import Effects, EffectSettings
from twisted_mail.delivery.items import Copy
from twisted_mail.delivery.placing import Placer
from twisted_mail.delivery.resolution import Resolution
from twisted_mail.delivery.scripts import ActiveScripts
from twisted_mail.delivery.sorting import Arrival, Sorter, SortSettings
from twisted_mail.delivery.versions import given_up
from twisted_mail.sieve import compile_script
from twisted_mail.storage import open_backend
from twisted_mail.storage.interfaces import AccountRecord, Domain, EngineContext
from twisted_mail.values import AccountId, DeliveryId

ANN = "ann@example.org"


class SortingOnSQLiteTests(TestCase):
    timeout = 60

    async def build(self, script: str) -> None:
        from twisted.internet import reactor as found  # not before trial has installed it

        self.reactor: Any = found
        folder = Path(tempfile.mkdtemp(prefix="sorting-"))
        self.addCleanup(shutil.rmtree, folder, True)
        self.backend = open_backend({}, EngineContext(self.reactor, folder))
        await self.backend.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.backend.stop()))
        await self.backend.directory.add_domain(Domain("example.org"))
        self.ann = AccountRecord(AccountId.new(), ANN)
        await self.backend.directory.add_account(self.ann)
        await self.backend.directory.put_script(self.ann.id, "main", script)
        await self.backend.directory.activate_script(self.ann.id, "main")
        self.world = World()
        self.nodes = [await self.node(), await self.node()]

    async def node(self) -> tuple[AccountService, Placer]:
        backend = self.backend
        accounts = AccountService(
            log=backend.account_log,
            messages=backend.messages,
            blobs=backend.blobs,
            references=backend.references,
            leases=backend.leases,
            bus=backend.bus,
            clock=self.reactor,
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(accounts.stop()))

        async def resolve(address: str) -> Resolution:
            return Resolution((self.ann,)) if address == ANN else Resolution(remote=(address,))

        async def send(cause: DeliveryId, action: str, recipient: str, octets: bytes, *, stream: str = "") -> None:
            await self.world.submit(cause, action, recipient, octets)

        scripts = ActiveScripts(backend.directory, self.reactor, compile_script)
        sorter = Sorter(scripts, SortSettings(hostname="mx.example.org"))
        effects = Effects(
            accounts, resolve, send, EffectSettings(hostname="mx.example.org"), outbound=self.world, records=backend.records
        )
        return accounts, Placer(accounts, sorter=sorter, effects=effects)

    async def place(self, node: int, octets: bytes, id: DeliveryId | None = None, *, repeated: bool = False) -> None:
        accounts, placer = self.nodes[node]
        writer = accounts.writer(self.ann.id)
        for at in range(0, len(octets), 65_536):
            await writer.write(octets[at : at + 65_536])
        copy = Copy(delivery=id or DeliveryId.new(), account=self.ann.id, address=ANN, user=ANN)
        arrival = Arrival(sender=EVE, received=1_700_000_000)
        await placer.place(await writer.finish(), copy, arrival, repeated=repeated)
        await given_up(writer)

    async def mailbox(self, name: str = "INBOX") -> list[bytes]:
        accounts, _ = await self.node()
        account = await accounts.open(self.ann.id)
        columns = await account.columns(account.state.mailbox(name))
        found = [b"".join([chunk async for chunk in account.octets(columns.key(slot))]) for slot in columns.live]
        accounts.release(account)
        return found

    async def holders(self) -> set[bytes]:
        """The messages that hold blobs."""
        held = [holding_message(holder) async for _, holder in self.backend.references.iterate()]
        return {found[1].octets for found in held if found is not None}

    async def named(self) -> set[bytes]:
        """The messages that are in mailboxes."""
        accounts, _ = await self.node()
        account = await accounts.open(self.ann.id)
        found = set()
        for mailbox in list(account.state.mailboxes.values()):
            columns = await account.columns(mailbox)
            found |= {columns.key(slot).id.octets for slot in columns.live}
        accounts.release(account)
        return found

    async def test_two_nodes_that_deliver_many_at_once_answer_once(self) -> None:
        await self.build('require ["vacation", "fileinto", "copy"]; fileinto :copy "Archive"; vacation "away";')
        await gatherResults(
            [Deferred.fromCoroutine(self.place(at % 2, mail(id=f"<{at}@x>"))) for at in range(12)], consumeErrors=True
        )
        assert len(self.world.to(EVE)) == 1
        assert len(await self.mailbox()) == len(await self.mailbox("Archive")) == 12

    async def test_a_delivery_that_is_repeated_on_the_other_node_is_one(self) -> None:
        await self.build('require ["vacation", "copy"]; redirect :copy "x@elsewhere.example"; vacation "away";')
        id = DeliveryId.new()
        for node in (0, 1, 0):
            await self.place(node, mail(), id, repeated=node != 0 or bool(self.world.sent))
        assert len(await self.mailbox()) == 1 and self.world.twice == 0
        assert {to for _, to, _ in self.world.sent.values()} == {EVE, "x@elsewhere.example"}

    async def test_large_messages_are_edited_redirected_and_thrown_away_without_a_trace(self) -> None:
        noise = base64.encodebytes(random.Random(1).randbytes(300_000)).replace(b"\n", b"\r\n")
        attached = (
            b"From: eve@elsewhere.example\r\nTo: ann@example.org\r\nSubject: %s\r\nMIME-Version: 1.0\r\n"
            b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\ntext\r\n'
            b"--b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"
            + noise
            + b"--b--\r\n"
        )
        await self.build(
            """require ["editheader", "fileinto"];
            if header :is "subject" "edit" { addheader "X-Sorted" "yes"; fileinto "Archive"; }
            elsif header :is "subject" "away" { redirect "x@elsewhere.example"; }
            else { discard; }"""
        )
        for subject in (b"edit", b"away", b"gone"):
            await self.place(0, attached.replace(b"%s", subject))
        [octets] = await self.mailbox("Archive")
        assert octets == b"X-Sorted: yes\r\n" + attached.replace(b"%s", b"edit")
        [(_, _, redirected)] = self.world.sent.values()
        assert redirected.endswith(attached.replace(b"%s", b"away"))
        assert await self.holders() == await self.named() and len(await self.holders()) == 1
