"""The Twisted end: on fake transports with a fake clock, and on real sockets with two clients that people use."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no types)

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sievelib import managesieve
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.certificates import trusting
from tests.managesieve.support import USERS, House, identity
from tests.pop3.test_server import Transport
from twisted_mail.auth.tls import TLSContexts, self_signed
from twisted_mail.managesieve.server import ManageSieveServer, ManageSieveServerFactory
from twisted_mail.managesieve.settings import Settings

LOGIN = 'AUTHENTICATE "PLAIN" "AHRpbQB0YW5zdGFhZnRhbnN0YWFm"'


class Line:
    """One connection."""

    def __init__(self, factory: ManageSieveServerFactory) -> None:
        address = IPv4Address("TCP", "127.0.0.1", 40000)
        self.server: ManageSieveServer = factory.buildProtocol(address)
        self.transport = Transport(address)
        self.server.makeConnection(self.transport)

    def say(self, *lines: str) -> bytes:
        self.server.dataReceived("".join(f"{line}\r\n" for line in lines).encode())
        return self.take()

    def take(self) -> bytes:
        out: bytes = self.transport.value()
        self.transport.clear()
        return out

    def log_in(self) -> None:
        self.take()
        assert self.say(LOGIN) == b'OK "logged in"\r\n'

    def hang_up(self) -> None:
        self.server.connectionLost(Failure(ConnectionDone()))


class FakeTransportTests(TestCase):
    def factory(
        self, settings: Settings | None = None, *, failure_seconds: float = 0.0, **options: Any
    ) -> tuple[ManageSieveServerFactory, House]:
        house = House()
        authentication = house.authentication(failure_seconds=failure_seconds)
        options = {"tls_options": None, **options}
        factory = ManageSieveServerFactory(
            house.scripts, authentication, settings or Settings(), clock=house.clock, hostname="h", **options
        )
        return factory, house

    def test_a_session_from_the_capabilities_to_goodbye(self) -> None:
        factory, house = self.factory()
        line = Line(factory)
        self.assertTrue(line.take().endswith(b'OK "ready"\r\n'))
        self.assertTrue(line.transport.no_delay)
        line.log_in()
        self.assertEqual(line.say('PUTSCRIPT "a" "keep;"', 'SETACTIVE "a"'), b"OK\r\nOK\r\n")
        self.assertEqual(line.say("LOGOUT"), b'OK "goodbye"\r\n')
        self.assertTrue(line.transport.disconnecting)
        line.hang_up()
        self.assertEqual((factory.connections, house.clock.getDelayedCalls()), (0, []))

    def test_starttls_begins_behind_its_answer_and_the_capabilities_come_again(self) -> None:
        factory, _ = self.factory(tls_options="options")
        line = Line(factory)
        self.assertIn(b'"STARTTLS"\r\n', line.take())
        self.assertEqual(line.say("STARTTLS", "NOOP"), b'OK "begin the TLS negotiation"\r\n')
        self.assertEqual(line.transport.tls, "options")

    def test_who_does_not_log_in_is_told_and_ended_however_busy(self) -> None:
        factory, house = self.factory()
        line = Line(factory)
        for _ in range(12):
            house.clock.advance(9.9)
            line.say("NOOP")
        self.assertFalse(line.transport.disconnecting)
        house.clock.advance(2)
        self.assertEqual(line.take(), b'BYE "log in sooner"\r\n')
        self.assertTrue(line.transport.disconnecting)
        house.clock.advance(1800)
        self.assertTrue(line.transport.aborted)  # it never closed its end

    def test_who_is_silent_for_too_long_is_told_and_ended(self) -> None:
        factory, house = self.factory()
        line = Line(factory)
        line.log_in()
        house.clock.advance(1799)
        line.say("NOOP")
        house.clock.advance(1799)
        self.assertFalse(line.transport.disconnecting)
        house.clock.advance(2)
        self.assertEqual(line.take(), b'BYE "nothing has come for too long"\r\n')

    def test_who_logs_out_has_time_for_the_next_login(self) -> None:
        factory, house = self.factory()
        line = Line(factory)
        line.log_in()
        house.clock.advance(1000)
        self.assertEqual(line.say("NOOP", "UNAUTHENTICATE"), b'OK "NOOP completed"\r\nOK\r\n')
        house.clock.advance(119)
        self.assertFalse(line.transport.disconnecting)
        line.log_in()

    def test_one_connection_too_many_from_an_address_is_told_so(self) -> None:
        factory, _ = self.factory(Settings(connections_per_address=1))
        Line(factory)
        self.assertEqual(Line(factory).take(), b'BYE (TRYLATER) "too many connections from your address"\r\n')

    def test_a_peer_that_sends_too_much_while_a_login_waits_is_paused(self) -> None:
        factory, house = self.factory(failure_seconds=1.0)
        line = Line(factory)
        line.take()
        line.server.dataReceived(b'AUTHENTICATE "PLAIN" "AHRpbQBu"\r\n')
        line.server.dataReceived(b"NOOP\r\n" * 20_000)
        self.assertTrue(line.transport.read_paused)
        house.clock.advance(1)
        for _ in range(20):
            line.transport.drain()
        self.assertFalse(line.transport.read_paused)
        self.assertTrue(line.take().startswith(b'NO "authentication failed"\r\nOK'))

    def test_a_command_that_takes_too_long_is_given_up_and_the_connection_goes_on(self) -> None:
        factory, house = self.factory()
        line = Line(factory)
        line.log_in()

        async def never(account: Any) -> Any:
            await Deferred()

        house.scripts.names = never  # type: ignore[method-assign]
        self.assertEqual(line.say("LISTSCRIPTS", "NOOP"), b"")
        house.clock.advance(59)
        self.assertEqual(line.take(), b"")
        house.clock.advance(2)
        self.assertEqual(line.take(), b'NO (TRYLATER) "something failed here"\r\nOK "NOOP completed"\r\n')
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_answers_wait_for_a_peer_that_does_not_read(self) -> None:
        factory, _ = self.factory()
        line = Line(factory)
        line.log_in()
        script = "# " + "x" * 100_000 + "\r\nkeep;"
        self.assertEqual(line.say(f'PUTSCRIPT "a" {{{len(script)}+}}', script), b"OK\r\n")
        line.server.dataReceived(b'GETSCRIPT "a"\r\n' * 20)
        got, rounds = line.take(), 0
        while got.count(b"OK\r\n") < 20:
            rounds += 1
            self.assertLess(rounds, 100)
            line.transport.drain()
            more = line.take()
            self.assertLess(len(more), 300_000)
            got += more
        self.assertGreater(rounds, 10)

    def test_a_peer_that_goes_meanwhile_leaves_nothing_behind(self) -> None:
        factory, house = self.factory()
        line = Line(factory)
        line.log_in()
        script = "# " + "x" * 100_000 + "\r\nkeep;"
        line.say(f'PUTSCRIPT "a" {{{len(script)}+}}', script)
        line.server.dataReceived(b'GETSCRIPT "a"\r\n' * 20)
        line.hang_up()
        self.assertEqual((factory.connections, house.clock.getDelayedCalls()), (0, []))
        self.assertFalse(self.flushLoggedErrors())

    def test_the_server_drains(self) -> None:
        factory, _ = self.factory()
        line = Line(factory)
        line.log_in()
        factory.drain()
        self.assertEqual(line.take(), b'BYE (TRYLATER) "the server is shutting down"\r\n')
        self.assertTrue(line.transport.disconnecting)
        self.assertEqual(Line(factory).take(), b'BYE (TRYLATER) "the server is shutting down"\r\n')


SORTING = """require ["fileinto", "envelope"];
# Grüße
if envelope :contains "to" "tim+sent" {
  fileinto "INBOX.sent";
}
"""


class RealClientTests(TestCase):
    """sievelib and Debian's sieve-connect, over TLS."""

    timeout = 60

    def serve(self, **limits: Any) -> tuple[int, House]:
        from twisted.internet import reactor

        clock: Any = reactor
        folder = Path(tempfile.mkdtemp(prefix="sieve-"))
        self.addCleanup(shutil.rmtree, folder, True)
        self.folder = folder
        house = House(**limits)
        authentication = house.authentication(allow_cleartext=())
        contexts = TLSContexts([self_signed(folder, "localhost")])
        factory: Any = ManageSieveServerFactory(house.scripts, authentication, Settings(), contexts, clock, "localhost")
        port = clock.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return port.getHost().port, house

    async def test_sievelib_does_everything_it_can(self) -> None:
        port, house = self.serve(max_scripts=3)

        context = trusting()

        def client() -> None:
            sieve = managesieve.Client("127.0.0.1", port)
            with patch.object(ssl, "create_default_context", return_value=context):
                assert sieve.connect("tim@example.org", USERS["tim"], starttls=True, authmech="PLAIN")
            assert {"fileinto", "vacation", "variables"} <= set(sieve.get_sieve_capabilities())
            assert sieve.listscripts() == (None, [])
            assert sieve.havespace("sorting", 1000)
            assert sieve.putscript("sorting", SORTING), sieve.errmsg
            assert sieve.putscript("Grüße", "keep;")
            assert sieve.listscripts() == (None, ["Grüße", "sorting"])
            assert sieve.setactive("sorting")
            assert sieve.listscripts() == ("sorting", ["Grüße"])
            assert sieve.getscript("sorting").splitlines() == SORTING.splitlines()
            assert sieve.renamescript("sorting", "daily")
            assert sieve.listscripts() == ("daily", ["Grüße"])
            assert not sieve.deletescript("daily") and sieve.errcode == b"ACTIVE"
            assert not sieve.putscript("bad", "keep;\nnonsense") and b"line 2" in sieve.errmsg
            assert sieve.checkscript("keep;") and not sieve.checkscript('fileinto "x";')
            assert not sieve.havespace("big", 10_000_000) and sieve.errcode == b"QUOTA/MAXSIZE"
            assert sieve.setactive("") and sieve.deletescript("daily")
            assert sieve.capability()
            sieve.logout()

        await deferToThread(client)
        self.assertEqual(dict(await house.backend.directory.scripts(identity("tim"))), {"Grüße": False})

    async def test_sievelib_is_refused_with_a_wrong_password(self) -> None:
        port, _ = self.serve()

        context = trusting()

        def client() -> None:
            for mechanism in ("PLAIN", "LOGIN"):
                sieve = managesieve.Client("127.0.0.1", port)
                with patch.object(ssl, "create_default_context", return_value=context):
                    assert not sieve.connect("tim@example.org", "wrong", starttls=True, authmech=mechanism)

        await deferToThread(client)

    async def test_sieve_connect_does_everything_it_can(self) -> None:
        if shutil.which("sieve-connect") is None:
            if os.environ.get("CI"):
                raise AssertionError("sieve-connect is not installed")
            raise unittest.SkipTest("sieve-connect is not installed")
        port, house = self.serve()
        script = self.folder / "sorting.siv"
        script.write_text(SORTING.replace("\n", "\r\n"), "utf-8", newline="")

        def run(*words: str, status: int = 0) -> str:
            done = subprocess.run(
                ["sieve-connect", "--server", "127.0.0.1", "--port", str(port), "--4", "--nosrv", "--notlsverify",
                 "--user", "tim@example.org", "--passwordfd", "0", *words],
                input=USERS["tim"] + "\n", capture_output=True, text=True, timeout=30, env={**os.environ, "HOME": str(self.folder)},
            )  # fmt: skip
            assert (done.returncode == 0) == (status == 0), (words, done)
            return done.stdout + done.stderr

        def client() -> None:
            run("--checkscript", "--localsieve", str(script))
            run("--upload", "--localsieve", str(script), "--remotesieve", "sorting")
            run("--activate", "--remotesieve", "sorting")
            listed = run("--list")
            assert '"sorting" ACTIVE' in listed or "sorting" in listed, listed
            copy = self.folder / "copy.siv"
            run("--download", "--remotesieve", "sorting", "--localsieve", str(copy))
            assert copy.read_text("utf-8").splitlines() == SORTING.splitlines()
            bad = self.folder / "bad.siv"
            bad.write_text("keep;\r\nnonsense\r\n")
            said = run("--upload", "--localsieve", str(bad), "--remotesieve", "sorting", status=1)
            assert "line 3, column 1" in said, said
            run("--deactivate")
            run("--delete", "--remotesieve", "sorting")

        await deferToThread(client)
        self.assertEqual(dict(await house.backend.directory.scripts(identity("tim"))), {})
        self.assertEqual(len(house.changed), 4)
