"""Servers that are killed, paused and gone, under an engine that goes on."""

from __future__ import annotations

import datetime
import os
import random
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet.defer import Deferred, gatherResults

from tests.services import fetch, running
from tests.services.nats import Nats
from tests.services.processes import Process, free_port
from tests.storage.nats.engines import NATSCase
from tests.storage.nats.test_queue import an_item
from twisted_mail.storage.interfaces import EngineContext, QueueFilter, Refused, StorageError, Unavailable
from twisted_mail.storage.nats import NATSEngine, engine
from twisted_mail.storage.nats.settings import Settings
from twisted_mail.storage.testing.base import fails
from twisted_mail.values import AccountId, DeliveryId, ModSeq


class OneServerTests(NATSCase):
    """On a server of their own, which they may kill."""

    def own_server(self) -> Nats:
        running.nats()  # skips where no server can be had
        server = Nats(running.new_folder("nats-faults"))
        self.addCleanup(server.stop)
        server.start()
        return server

    async def test_a_start_without_a_server_fails_in_time_and_says_where_it_looked(self) -> None:
        port = free_port()
        url = f"nats://user:secret@127.0.0.1:{port}?start=0.5"
        started = self.reactor.seconds()
        error = await fails(StorageError, engine(url, EngineContext(self.reactor, self.folder())).start())
        self.assertTrue(f"127.0.0.1:{port}" in str(error) and "secret" not in str(error), str(error))
        self.assertGreater(3, self.reactor.seconds() - started)

    async def test_without_its_server_an_engine_refuses_counts_here_and_comes_back(self) -> None:
        server = self.own_server()
        mail = await self.nats(server.url(prefix=self.prefix), request=1.0, attempt=0.3)
        account = AccountId.new()
        heard: list[int] = []
        mail.bus.subscribe(account, heard.append)

        async def serve(account: AccountId, request: bytes) -> bytes:
            return b"here"

        await mail.members.join("a", frozenset(), serve)
        await mail.queue.put(an_item())
        [leased] = await mail.queue.lease("outbound", 1, 60)
        await mail.cache.set("k", b"v", 60)
        self.assertIsNone(mail.health())
        server.nodes[0].kill()
        while mail.health() is None:
            await self.turn(0.01)
        self.assertTrue("no connection" in (mail.health() or ""), mail.health())
        # what needs the server is refused in time, and what does not goes on
        started = self.reactor.seconds()
        await fails(Unavailable, mail.queue.put(an_item()))
        await fails(Unavailable, mail.queue.ack(leased.token))
        await fails(Unavailable, mail.queue.extend(leased.token, 60))
        await fails(Refused, mail.queue.lease("outbound", 1, 60))
        self.assertGreater(5, self.reactor.seconds() - started)
        self.assertIsNone(await mail.cache.get("k"))
        await mail.cache.set("k", b"v", 60)
        self.assertEqual([await mail.cache.increment("n", 60) for _ in range(3)], [1, 2, 3])
        mail.bus.publish(account, ModSeq(5))
        await self.turn()
        self.assertEqual(heard, [5])
        self.assertEqual(await mail.members.forward(account, b""), b"here")
        server.nodes[0].start()
        while mail.health() is not None:
            await self.turn(0.01)
        # what was acknowledged is there, and the lease is still its holder's
        self.assertTrue(await mail.queue.ack(leased.token))
        self.assertTrue(await mail.queue.put(an_item()))
        # the cache was in the server's memory: it is made anew
        while not mail.cache._known:
            await mail.cache.increment("m", 60)
            await self.turn(0.05)
        self.assertEqual(await mail.cache.increment("n", 60), 1)
        other = await self.nats(server.url(prefix=self.prefix))
        other.bus.publish(account, ModSeq(6))
        while heard[-1] != 6:
            await self.turn(0.01)

    async def test_a_server_that_is_only_slow_is_not_given_up(self) -> None:
        server = self.own_server()
        mail = await self.nats(server.url(prefix=self.prefix), attempt=0.1)
        server.nodes[0].pause()
        self.reactor.callLater(0.7, server.nodes[0].resume)
        item = an_item()
        self.assertTrue(await mail.queue.put(item))
        self.assertEqual([status.item.id for status in await mail.queue.list(QueueFilter())], [item.id])


class GuardedServerTests(NATSCase):
    """A server that wants a name, a password and TLS."""

    def guarded(self) -> tuple[int, Path]:
        """Its port, and its certificate."""
        running.nats()  # skips where no server can be had
        folder, port = self.folder(), free_port()
        (folder / "both.pem").write_bytes(certificate_of_loopback())
        (folder / "nats.conf").write_text(
            f'listen: 127.0.0.1:{port}\njetstream {{ store_dir: "{folder}" }}\n'
            'authorization { user: ann, password: "p@ss" }\n'
            f'tls {{ cert_file: "{folder}/both.pem", key_file: "{folder}/both.pem" }}\n'
        )
        words = [str(fetch.go_program("nats-server")), "-c", str(folder / "nats.conf")]
        process = Process("guarded", words, folder)
        process.start()
        self.addCleanup(process.kill)
        process.wait("127.0.0.1", port, 20)
        return port, folder / "both.pem"

    async def test_who_has_the_password_and_the_authority_is_let_in(self) -> None:
        port, certificate = self.guarded()
        mail = await self.nats(f"tls://ann:p%40ss@127.0.0.1:{port}?ca={certificate}&prefix={self.prefix}")
        self.assertTrue(await mail.queue.put(an_item()))
        for url, text in (
            (f"nats://ann:wrong@127.0.0.1:{port}?ca={certificate}", "Authorization"),
            (f"nats://ann:p%40ss@127.0.0.1:{port}?tls=true", "certificate"),
        ):
            stranger = engine(f"{url}&start=0.7", EngineContext(self.reactor, self.folder()))
            error = await fails(StorageError, stranger.start())
            self.assertTrue(text in str(error) and "wrong" not in str(error), str(error))


def certificate_of_loopback() -> bytes:
    """A fresh certificate for 127.0.0.1 that stands for itself, and its key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class ClusterTests(NATSCase):
    """On the three servers of the run."""

    timeout = 100

    async def test_nothing_is_lost_or_done_twice_while_a_server_of_three_is_killed(self) -> None:
        servers = running.nats_cluster(3)
        url = servers.url(prefix=self.prefix)
        one, two = [await self.nats(url, replicas=3, shards=2, ack_wait=3, request=20) for _ in range(2)]
        load = _Load(self, one, two)
        work = load.start()
        await self.turn(1.0)
        # the one that both the client and, one time in three, the stream's leader are on
        port = urlsplit(f"nats://{one._link._client.connected_url.netloc}").port  # type: ignore[union-attr]
        node = next(node for node in servers.nodes if node.port == port)
        node.kill()
        await self.turn(1.5)
        node.start(wait=False)
        await self.turn(1.0)
        load.putting = False
        await work
        node.ready()
        self.assertGreater(len(load.put), 50)
        self.assertEqual(load.put - set(load.done), set(), "lost")
        self.assertEqual([id for id, times in load.done.items() if times > 1], [], "done twice")
        self.assertEqual(set(load.done) - load.put - load.unknown, set(), "refused, and there all the same")
        self.assertEqual(list(await one.queue.list(QueueFilter())), [])


class _Load:
    """Puts, and workers that acknowledge or give back."""

    def __init__(self, case: ClusterTests, one: NATSEngine, two: NATSEngine) -> None:
        self._case = case
        self._engines = (one, two)
        self.putting = True
        self.put: set[DeliveryId] = set()
        self.unknown: set[DeliveryId] = set()
        self.done: dict[DeliveryId, int] = {}
        self._choose = random.Random(5)
        self._putters = 0

    def start(self) -> Deferred[Any]:
        work = [self._puts() for _ in range(3)] + [self._works(engine) for engine in self._engines]
        return gatherResults([Deferred.fromCoroutine(each) for each in work])

    async def _puts(self) -> None:
        self._putters += 1
        while self.putting:
            item = an_item(f"d{self._choose.randrange(9)}.example")
            try:
                await self._engines[0].queue.put(item)
                self.put.add(item.id)
            except StorageError:
                self.unknown.add(item.id)
            await self._case.turn(0.01)
        self._putters -= 1

    async def _works(self, engine: NATSEngine) -> None:
        while self._putters or self.put - set(self.done):
            try:
                leases = await engine.queue.lease("outbound", 5, 60)
                for leased in leases:
                    if self._choose.random() < 0.1:
                        await engine.queue.retry(leased.token, 0.2, "451 later")
                    elif await engine.queue.ack(leased.token):
                        self.done[leased.item.id] = self.done.get(leased.item.id, 0) + 1
            except StorageError:
                leases = []
            if not leases:
                await self._case.turn(0.05)


class SettingsTests(NATSCase):
    def test_a_url_says_all(self) -> None:
        url = "nats://ann:p%40ss@h1,h2:5222,[::1]:7/?replicas=3&prefix=mx&ack_wait=9.5&tls=true&attempts=0"
        settings = Settings.parse(url, {"shards": "8"})
        self.assertEqual(settings.servers, ("h1:4222", "h2:5222", "[::1]:7"))
        self.assertEqual((settings.user, settings.password, settings.replicas), ("ann", "p@ss", 3))
        self.assertEqual((settings.prefix, settings.ack_wait, settings.tls), ("mx", 9.5, True))
        self.assertEqual((settings.attempts, settings.shards), (0, 8))
        self.assertFalse("p@ss" in repr(settings))
        self.assertEqual(Settings.parse("nats://tok@h", {}).token, "tok")
        self.assertEqual(Settings.parse("tls://h", {}).tls, True)

    def test_what_is_wrong_with_a_url_is_said(self) -> None:
        for query, text in (
            ("replicas=2", "replicas"),
            ("replicas=x", "replicas"),
            ("prefix=a.b", "prefix"),
            ("shards=65", "shards"),
            ("colour=red", "colour"),
            ("tls=maybe", "tls"),
            ("request=0", "request"),
        ):
            with self.subTest(query), self.assertRaises(ValueError) as raised:  # type: ignore[no-untyped-call]
                Settings.parse(f"nats://h?{query}", {})
            self.assertTrue(text in str(raised.exception), str(raised.exception))
        for url in ("nats:", "nats://", "nats://h/path", "nats://h:x", "nats://h,", "http://h", "nats://h#x"):
            with self.subTest(url), self.assertRaises(ValueError):  # type: ignore[no-untyped-call]
                Settings.parse(url, {})

    def test_certificates_that_cannot_be_read_are_said(self) -> None:
        settings = Settings.parse(f"nats://h?ca={os.devnull}/none", {})
        with self.assertRaises(OSError):  # type: ignore[no-untyped-call]
            settings.ssl()
