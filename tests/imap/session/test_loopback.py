"""Real sockets and other people's clients: imaplib and imapclient, in the clear, STARTTLS, TLS from the start, COMPRESS."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no types)

from __future__ import annotations

import imaplib
import socket
import zlib
from typing import Any

from imapclient import IMAPClient
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.certificates import pair, trusting
from tests.imap.session.fakes import PASSWORD, Node
from tests.imap.session.mailbox import MESSAGES
from twisted_mail.imap.server import IMAPServerFactory
from twisted_mail.imap.settings import Settings


class LoopbackTests(TestCase):
    timeout = 30

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.node = Node()

    async def fill(self) -> None:
        for given in MESSAGES:
            await self.node.add(given.octets, flags=given.flags, received=given.received, zone=given.zone)

    def listen(self, *, cleartext: bool = True, **more: Any) -> int:
        self.node.logins.cleartext = cleartext
        factory = IMAPServerFactory(
            self.node.service, self.node.logins, Settings(), pair()[0], self.reactor, "mail.example.org", **more
        )
        port = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    async def test_imaplib_over_starttls(self) -> None:
        await self.fill()
        port = self.listen(cleartext=False)

        def work() -> None:
            client = imaplib.IMAP4("127.0.0.1", port, timeout=10)
            self.assertIn("LOGINDISABLED", client.capabilities)
            client.starttls(trusting())
            self.assertNotIn("LOGINDISABLED", client.capabilities)
            client.authenticate("PLAIN", lambda challenge: f"\0ann\0{PASSWORD}".encode())
            self.assertEqual(client.select()[1], [b"4"])
            _kind, data = client.fetch("1:*", "(UID BODY.PEEK[])")
            bodies = [item[1] for item in data if isinstance(item, tuple)]
            self.assertEqual(bodies, [given.octets for given in MESSAGES])
            octets = b"Subject: appended\r\n\r\n" + b"line\r\n" * 20_000
            self.assertEqual(
                client.append("Sent", "(\\Seen)", imaplib.Time2Internaldate(1_000_000_000), octets)[0], "OK"
            )
            client.select("Sent")
            _, data = client.uid("FETCH", "1", "(BODY.PEEK[])")
            self.assertEqual([item[1] for item in data if isinstance(item, tuple)], [octets])
            client.logout()

        await deferToThread(work)

    async def test_imapclient_with_tls_from_the_start(self) -> None:
        await self.fill()
        port = self.listen(implicit_tls=True)

        def work() -> None:
            with IMAPClient("127.0.0.1", port, ssl=True, ssl_context=trusting(), timeout=10) as client:
                client.login("ann", PASSWORD)
                self.assertEqual(client.select_folder("INBOX")[b"EXISTS"], 4)
                self.assertEqual(client.search(["FROM", "fred"]), [2])
                found = client.fetch(
                    [1, 2, 3, 4], ["ENVELOPE", "FLAGS", "INTERNALDATE", "RFC822.SIZE", "BODYSTRUCTURE"]
                )
                self.assertEqual(found[2][b"ENVELOPE"].subject, b"afternoon meeting")
                self.assertTrue(found[3][b"BODYSTRUCTURE"].is_multipart)
                client.add_flags([1, 2], ["custom"])
                client.move([3], "Archive")
                client.create_folder("Grüße/aus")
                self.assertIn("Grüße/aus", [name for _, _, name in client.list_folders()])
                client.idle()
                with IMAPClient("127.0.0.1", port, ssl=True, ssl_context=trusting(), timeout=10) as other:
                    other.login("ann", PASSWORD)
                    other.append("INBOX", b"Subject: new\r\n\r\nnew\r\n")
                self.assertIn((4, b"EXISTS"), client.idle_check(timeout=10))
                client.idle_done()
                client.delete_messages([1])
                client.expunge()
                self.assertEqual(client.search(), [2, 4, 5])

        await deferToThread(work)

    async def test_compressed(self) -> None:
        await self.fill()
        port = self.listen()

        def work() -> None:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                pack, unpack = zlib.compressobj(9, zlib.DEFLATED, -15), zlib.decompressobj(-15)

                def until(tag: bytes, *, packed: bool = True) -> bytes:
                    got = b""
                    while b"\r\n" + tag not in b"\r\n" + got or not got.endswith(b"\r\n"):
                        data = connection.recv(65_536)
                        assert data, got
                        got += unpack.decompress(data) if packed else data
                    return got

                def say(text: bytes) -> None:
                    connection.sendall(pack.compress(text) + pack.flush(zlib.Z_SYNC_FLUSH))

                until(b"*", packed=False)
                connection.sendall(b"a LOGIN ann secret\r\nb COMPRESS DEFLATE\r\n")
                until(b"b OK", packed=False)
                say(b"c SELECT INBOX\r\n")
                self.assertIn(b"* 4 EXISTS", until(b"c OK"))
                for _ in range(3):
                    say(b"d FETCH 1:* BODY.PEEK[]\r\n")
                    answer = until(b"d OK")
                    for given in MESSAGES:
                        self.assertIn(given.octets, answer)
                say(b"e LOGOUT\r\n")
                until(b"e OK")

        await deferToThread(work)
