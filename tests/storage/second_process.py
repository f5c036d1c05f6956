"""Another process that works on a database: appends to accounts and prints what was acknowledged, line by line.

``python -m tests.storage.second_process FOLDER COUNT SIDE ACCOUNT…``: COUNT appends to each account (0: without end), to
all SIDE by side; prints ``up writer`` or ``up link``, then ``ACCOUNT NUMBER ID`` for each, then ``done``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from twisted_mail.storage import open_engine
from twisted_mail.storage.interfaces import Conflict, EngineContext, NewEntry, Unavailable
from twisted_mail.storage.sqlite import SQLiteEngine
from twisted_mail.values import AccountId, EntryId, ModSeq


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def fill(engine: SQLiteEngine, account: AccountId, count: int) -> None:
    """Append as a committer does: retry on a conflict, settle what is not known."""
    log, done, head = engine.account_log, 0, ModSeq(0)
    while not count or done < count:
        entry = NewEntry(EntryId.new(), b"x" * 100)
        try:
            await log.append(account, head, [entry])
        except Conflict:
            head = await log.head(account)
            continue
        except Unavailable:
            while True:
                try:
                    stands = await log.settle(account, head, [entry.id])
                    break
                except Unavailable:
                    pass
            if not stands:
                head = await log.head(account)
                continue
            say("settled", account)
        head = ModSeq(head + 1)
        done += 1
        say(account, head, entry.id)


async def main(reactor: Any, folder: str, count: str, *accounts: str) -> None:
    engine = open_engine("sqlite:", EngineContext(reactor, Path(folder)))
    assert isinstance(engine, SQLiteEngine)
    await engine.start()
    say("up", "link" if engine.writers.local is None else "writer")
    work = [fill(engine, AccountId.parse(account), int(count)) for account in accounts]
    await gatherResults([Deferred.fromCoroutine(each) for each in work])
    await engine.stop()
    say("done")


if __name__ == "__main__":
    react(lambda reactor, *arguments: Deferred.fromCoroutine(main(reactor, *arguments)), sys.argv[1:])
