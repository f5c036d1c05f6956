"""The suite of one process, put together and started on a data folder of its own."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from twisted_mail.storage.interfaces import Member
from twisted_mail.tap.configuration import load
from twisted_mail.tap.settings import ROLES
from twisted_mail.tap.wiring import Node, assemble
from twisted_mail.values import AccountId


class MembershipTests(TestCase):
    timeout = 60

    def stop(self, suite: Any) -> Deferred[None]:
        return Deferred.fromCoroutine(suite.stop())

    async def test_workers_are_members_from_start_to_stop(self) -> None:
        from twisted.internet import reactor  # not before trial has installed it

        folder = Path(tempfile.mkdtemp(prefix="wiring-"))
        self.addCleanup(shutil.rmtree, folder, True)
        configuration = load(None, {"TWISTED_MAIL__DATA": str(folder)})  # nothing listens until a service says so
        suites: list[Any] = [assemble(reactor, configuration, Node(number, 2), ()) for number in (1, 2)]
        for suite in suites:
            factories = await suite.start()
            self.addCleanup(self.stop, suite)
        members = suites[0]._stores.backend.members
        self.assertTrue({"imap", "imaps", "smtp"} <= set(factories))
        roles = frozenset(ROLES)
        names = sorted(Node(number, 2).name("") for number in (1, 2))
        self.assertEqual(list(await members.alive()), [Member(name, roles) for name in names])
        self.assertIn(b"not-understood", await members.forward(AccountId.new(), b"x"), "they serve each other")
        await suites[1].stop()
        self.assertEqual([member.node for member in await members.alive()], [Node(1, 2).name("")])
        await suites[0].stop()
        self.assertEqual(list((folder / "members").iterdir()), [])
