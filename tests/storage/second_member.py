"""Another process that is a member: ``python -m tests.storage.second_member FOLDER NODE``.

Prints ``joined`` and answers what is forwarded to it with its name, a colon and the request; ``wait`` it never answers.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from tests.storage.second_process import say
from twisted_mail.storage import open_engine
from twisted_mail.storage.interfaces import EngineContext
from twisted_mail.storage.sqlite import SQLiteEngine
from twisted_mail.values import AccountId


async def main(reactor: Any, folder: str, node: str) -> None:
    engine = open_engine("sqlite:", EngineContext(reactor, Path(folder)))
    assert isinstance(engine, SQLiteEngine)
    await engine.start()

    async def serve(account: AccountId, request: bytes) -> bytes:
        if request == b"wait":
            say("waiting")
            await Deferred()
        return node.encode() + b":" + request

    await engine.members.join(node, frozenset({"imap"}), serve)
    say("joined")
    await Deferred()


if __name__ == "__main__":
    react(lambda reactor, *arguments: Deferred.fromCoroutine(main(reactor, *arguments)), sys.argv[1:])
