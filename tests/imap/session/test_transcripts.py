"""Every transcript over the memory engine, and over SQLite and files, line by line and octet by octet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import deferLater

from tests.account.house import START, now
from tests.imap.session.fakes import Talk
from tests.imap.session.transcripts import ROOT, Feeding, load, play
from tests.storage.engines import EngineCase
from twisted_mail.account.service import AccountService

FILES = sorted(ROOT.glob("*.txt"))


def test_there_are_transcripts() -> None:
    assert len(FILES) > 40


async def _at_once(talk: Talk, lines: int) -> None:
    """The memory engine never waits."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("feeding", ["lines", "octets"])
def test_over_memory(path: Path, feeding: Feeding) -> None:
    now(play(load(path), None, feeding, _at_once))


class OverSQLite(EngineCase):
    """The same over the embedded engines, on the real reactor."""

    async def settle(self, talk: Talk, lines: int) -> None:
        for _ in range(5000):
            if talk.at_rest and talk.output.count(b"\r\n") >= lines:
                return
            await deferLater(self.reactor, 0.001, lambda: None)

    async def test_all_transcripts_by_line(self) -> None:
        await self.play_all("lines")

    async def test_all_transcripts_by_octet(self) -> None:
        await self.play_all("octets")

    async def play_all(self, feeding: Feeding) -> None:
        folder = self.folder()
        engine = await self.sqlite(folder)
        blobs = await self.files(folder)
        for path in FILES:
            service: Any = AccountService(
                log=engine.account_log,
                messages=engine.messages,
                blobs=blobs,
                leases=engine.leases,
                bus=engine.bus,
                clock=self.reactor,
                wall=lambda: START,
            )
            try:
                await play(load(path), service, feeding, self.settle)
            except AssertionError as error:
                raise AssertionError(f"{path.name}: {error}") from error
            finally:
                await service.stop()
