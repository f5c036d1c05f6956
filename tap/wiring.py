"""Putting the suite together: storage, accounts, and a factory for each listener."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.protocol import Factory

from twisted_mail.smtp.profiles import Limits as SMTPLimits
from twisted_mail.tap.listeners import StartError
from twisted_mail.tap.service import Suite, prepare_data
from twisted_mail.tap.settings import LISTENERS, Configuration
from twisted_mail.tap.stores import open_stores

__all__ = ["Node", "assemble", "check", "smtp_limits"]


@dataclass(frozen=True, slots=True)
class Node:
    """Which of the serving processes this is."""

    number: int
    """From 1."""
    of: int


def check(configuration: Configuration) -> None:
    """What a master looks at before it starts workers. Raises: StartError."""
    prepare_data(configuration.data)


def smtp_limits(configuration: Configuration) -> SMTPLimits:
    """The bounds of SMTP, submission and LMTP. Connections are counted by the gates, over all protocols."""
    smtp, limits = configuration.smtp, configuration.limits
    return SMTPLimits(
        message_bytes=limits.message_bytes,
        recipients=smtp.recipients,
        bad_commands=limits.bad_commands,
        refused_recipients=smtp.refused_recipients,
        strict_line_ends=smtp.strict_line_ends,
        command_seconds=smtp.command,
        data_seconds=smtp.data,
        login_seconds=limits.login,
    )


class _Suite:
    """Everything of one process."""

    def __init__(self, reactor: Any, configuration: Configuration, node: Node, checkers: Sequence[Any]) -> None:
        self._configuration = configuration
        self._stores = open_stores(reactor, configuration)
        self._started = False
        self._factories: dict[str, Factory] = {}

    async def start(self) -> Mapping[str, Factory]:
        """Open the stores, then build a factory for each listener that is configured. Raises: StartError."""
        await self._stores.start()
        self._started = True
        for name in LISTENERS:
            if getattr(self._configuration.listen, name) and name not in self._factories:
                raise StartError(f"listen.{name}: this version has no server for it")
        return self._factories

    def reload(self) -> None:
        """Nothing here is read from certificates."""

    def drain(self) -> None:
        """Every factory tells its sessions."""
        for factory in self._factories.values():
            factory.drain()  # type: ignore[attr-defined]  # each of our servers has it

    async def stop(self) -> None:
        """Close the stores, if they were opened."""
        if self._started:
            await self._stores.stop()


def assemble(reactor: Any, configuration: Configuration, node: Node, checkers: Sequence[Any]) -> Suite:
    """The suite of one process; nothing is opened yet. *checkers*: those of --auth. Raises: StartError."""
    return _Suite(reactor, configuration, node, checkers)
