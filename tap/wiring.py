"""Putting the suite together: storage, accounts, logins, delivery, and a factory for each listener."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.protocol import Factory

from twisted_mail.tap.listeners import StartError
from twisted_mail.tap.service import Suite, prepare_data
from twisted_mail.tap.settings import Configuration

__all__ = ["Node", "assemble", "check"]


@dataclass(frozen=True, slots=True)
class Node:
    """Which of the serving processes this is."""

    number: int
    """From 1; number 1 writes the embedded store."""
    of: int


def check(configuration: Configuration) -> None:
    """What a master looks at before it starts workers. Raises: StartError."""
    prepare_data(configuration.data)


class _Suite:
    def __init__(self, reactor: Any, configuration: Configuration, node: Node, checkers: Sequence[Any]) -> None:
        self._configuration = configuration

    async def start(self) -> Mapping[str, Factory]:
        raise StartError("this version serves nothing yet")

    def reload(self) -> None: ...
    def drain(self) -> None: ...
    async def stop(self) -> None: ...


def assemble(reactor: Any, configuration: Configuration, node: Node, checkers: Sequence[Any]) -> Suite:
    """The suite of one process; nothing is opened yet. *checkers*: those of --auth."""
    return _Suite(reactor, configuration, node, checkers)
