"""One serving process: the order in which it starts, what it says when it cannot, how it drains."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from twisted_mail.tap.configuration import load
from twisted_mail.tap.listeners import StartError
from twisted_mail.tap.service import MailService, prepare_data
from twisted_mail.tap.status import Metric, Readiness

reactor: Any = _reactor


class Echo(Protocol):
    """Answers until it is told to end."""

    factory: Any

    def connectionMade(self) -> None:
        self.factory.there.append(self)
        assert self.transport is not None
        self.transport.write(b"hello\r\n")


class FakeSuite:
    """Stands for everything behind the doors."""

    def __init__(self, *, polite: bool = True, failure: Exception | None = None) -> None:
        self.said: list[str] = []
        self.down: dict[str, str] = {}
        self.polite = polite
        self.failure = failure
        self.gate: Deferred[None] | None = None
        factory: Any = Factory.forProtocol(Echo)
        factory.there = []
        self.factory: Any = factory

    async def start(self) -> Mapping[str, Factory]:
        self.said.append("start")
        if self.failure is not None:
            raise self.failure
        if self.gate is not None:
            await self.gate
        return {"imap": self.factory}

    def reload(self) -> None:
        self.said.append("reload")

    def readiness(self, state: str) -> Readiness:
        return Readiness("here", ("imap",), state, self.down)

    def metrics(self) -> Sequence[Metric]:
        return [Metric("things_total", "counter", "Things.", [({"kind": "one"}, 3)])]

    def drain(self) -> None:
        self.said.append("drain")
        for each in self.factory.there:
            each.transport.write(b"* BYE\r\n")
            if self.polite:
                each.transport.loseConnection()

    async def stop(self) -> None:
        self.said.append("stop")


class Client(Protocol):
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.got = b""
        self.greeted: Deferred[None] = Deferred()
        self.ended: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.got += data
        if not self.greeted.called:
            self.greeted.callback(None)

    def connectionLost(self, reason: Any = None) -> None:
        self.ended.callback(None)


class MailServiceTests(TestCase):
    def service(self, suite: FakeSuite, **settings: str) -> MailService:
        names = ("SMTP", "SUBMISSION", "SUBMISSIONS", "LMTP", "IMAP", "IMAPS", "POP3", "POP3S", "MANAGESIEVE")
        environment = {f"TWISTED_MAIL__LISTEN__{name}": "" for name in names}
        environment["TWISTED_MAIL__LISTEN__IMAP"] = "tcp:0:interface=127.0.0.1"
        environment["TWISTED_MAIL__DATA"] = str(Path(self.mktemp()).absolute())
        environment |= {f"TWISTED_MAIL__{name}": value for name, value in settings.items()}
        self.failures: list[str] = []
        self.ready: Deferred[None] = Deferred()
        return MailService(
            reactor,
            load(None, environment),
            lambda: suite,
            ready=lambda: self.ready.callback(None),
            fail=lambda reactor, text: self.failures.append(text),
        )

    async def connect(self, service: MailService) -> Client:
        address: Any = service.listeners[0].port.getHost()
        client: Client = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", address.port), Client())
        await client.greeted
        return client

    async def test_serves_and_drains(self) -> None:
        suite = FakeSuite()
        service = self.service(suite)
        service.startService()
        await self.ready
        client = await self.connect(service)
        service.reload()
        await service.stopService()
        await client.ended
        self.assertEqual(client.got, b"hello\r\n* BYE\r\n")
        self.assertEqual(suite.said, ["start", "reload", "drain", "stop"])

    async def test_who_does_not_end_in_time_is_ended(self) -> None:
        suite = FakeSuite(polite=False)
        service = self.service(suite, PROCESS__DRAIN="100ms")
        service.startService()
        await self.ready
        client = await self.connect(service)
        await service.stopService()
        await client.ended
        self.assertEqual(suite.said, ["start", "drain", "stop"])

    async def test_a_stop_while_it_starts_opens_no_door(self) -> None:
        suite = FakeSuite()
        suite.gate = Deferred()
        service = self.service(suite)
        service.startService()
        await deferLater(reactor, 0)
        await service.stopService()
        self.assertEqual(suite.said, ["start", "drain", "stop"])
        self.assertNoResult(self.ready)
        self.assertEqual(self.failures, [])

    async def test_what_cannot_start_says_why_in_one_message(self) -> None:
        service = self.service(FakeSuite(failure=StartError("tls.certificate: it is not one")))
        service.startService()
        self.assertEqual(self.failures, ["tls.certificate: it is not one"])
        await service.stopService()

    async def test_an_unforeseen_failure_is_one_message_too(self) -> None:
        service = self.service(FakeSuite(failure=ZeroDivisionError("oh")))
        service.startService()
        self.assertEqual(self.failures, ["ZeroDivisionError: oh; the log has the details"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        await service.stopService()

    async def test_a_data_folder_that_cannot_be_written(self) -> None:
        file = Path(self.mktemp())
        file.write_text("in the way")
        suite = FakeSuite()
        service = self.service(suite, DATA=str(file.absolute() / "data"))
        service.startService()
        self.assertEqual(self.failures, [f"data: {file.absolute()}/data cannot be written: Not a directory"])
        self.assertEqual(suite.said, [])
        await service.stopService()

    def test_the_data_folder_is_its_owners(self) -> None:
        folder = Path(self.mktemp()) / "deep" / "data"
        prepare_data(folder)
        self.assertEqual(folder.stat().st_mode & 0o777, 0o700)
        self.assertEqual(list(folder.iterdir()), [])


class ProbeTests(TestCase):
    """What probes are told, from the first moment to the last."""

    timeout = 30

    def service(self, suite: FakeSuite) -> MailService:
        environment = {f"TWISTED_MAIL__LISTEN__{name}": "" for name in ("SMTP", "SUBMISSION", "SUBMISSIONS", "LMTP")}
        environment |= {f"TWISTED_MAIL__LISTEN__{name}": "" for name in ("IMAPS", "POP3", "POP3S", "MANAGESIEVE")}
        for name in ("IMAP", "METRICS"):
            environment[f"TWISTED_MAIL__LISTEN__{name}"] = "tcp:0:interface=127.0.0.1"
        environment["TWISTED_MAIL__DATA"] = str(Path(self.mktemp()).absolute())
        self.ready: Deferred[None] = Deferred()
        return MailService(
            reactor, load(None, environment), lambda: suite, ready=lambda: self.ready.callback(None)
        )

    async def get(self, service: MailService, path: str) -> tuple[int, str]:
        [listener] = [each for each in service.listeners if each.name == "metrics"]
        port: Any = listener.port.getHost()

        def ask() -> tuple[int, str]:
            connection = HTTPConnection("127.0.0.1", port.port, timeout=10)
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                return answer.status, answer.read().decode()
            finally:
                connection.close()

        answer: tuple[int, str] = await deferToThread(ask)
        return answer

    async def state(self, service: MailService) -> tuple[int, str]:
        status, text = await self.get(service, "/readyz")
        said = json.loads(text)
        self.assertEqual(said["ready"], status == 200)
        return status, said["state"]

    async def test_readiness_goes_from_starting_to_draining(self) -> None:
        suite = FakeSuite(polite=False)
        suite.gate = Deferred()
        service = self.service(suite)
        service.startService()
        self.assertEqual(await self.state(service), (503, "starting"))
        suite.gate.callback(None)
        await self.ready
        self.assertEqual(await self.state(service), (200, "serving"))
        [listener] = [each for each in service.listeners if each.name == "imap"]
        address: Any = listener.port.getHost()
        client: Client = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", address.port), Client())
        await client.greeted
        ended = service.stopService()
        self.assertEqual(await self.state(service), (503, "draining"))
        self.assertEqual((await self.get(service, "/healthz"))[0], 200)
        assert client.transport is not None
        client.transport.loseConnection()
        await ended
        self.assertEqual(suite.said, ["start", "drain", "stop"])

    async def test_a_dependency_that_is_down_is_named(self) -> None:
        suite = FakeSuite()
        service = self.service(suite)
        service.startService()
        await self.ready
        suite.down["cql"] = "no node answers"
        status, text = await self.get(service, "/readyz")
        self.assertEqual(
            (status, json.loads(text)),
            (503, {"ready": False, "state": "serving", "down": {"cql": "no node answers"}, "node": "here", "roles": ["imap"]}),
        )
        self.assertEqual((await self.get(service, "/healthz"))[0], 200)
        self.assertEqual((await self.get(service, "/else"))[0], 404)
        await service.stopService()

    async def test_counts_are_told_with_their_node(self) -> None:
        service = self.service(FakeSuite())
        service.startService()
        await self.ready
        status, text = await self.get(service, "/metrics")
        self.assertEqual(status, 200)
        self.assertIn('\n# TYPE twisted_mail_things_total counter\ntwisted_mail_things_total{node="here",kind="one"} 3\n', text)
        self.assertIn('twisted_mail_connections{node="here",listener="imap"} 0\n', text)
        await service.stopService()
