"""What every command of one call shares: the options in front, where it prints, and how it gets at the store.

A command is a coroutine function marked with `on_store`, which opens the store around it; or a plain function.
``--json`` may stand behind any command as well as in front.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import click

from twisted_mail.admin.opening import Store, opened
from twisted_mail.admin.output import Output
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.admin.running import run
from twisted_mail.tap.configuration import load
from twisted_mail.tap.settings import Configuration

__all__ = ["Command", "Group", "Invocation", "asks", "on_store", "the_invocation"]

P = ParamSpec("P")


@dataclass
class Invocation:
    """One call of mailctl."""

    config: Path | None = None
    json: bool = False
    verbose: bool = False

    @property
    def out(self) -> Output:
        return Output(as_json=self.json)

    def configuration(self) -> Configuration:
        """The server's own configuration, read as the server reads it. Raises ConfigurationError."""
        return load(self.config, os.environ)

    @property
    def words(self) -> str:
        """How this configuration is named in a command that the operator may copy."""
        return f"mailctl --config {self.config}" if self.config is not None else "mailctl"


def the_invocation() -> Invocation:
    """The one that is being carried out."""
    found = click.get_current_context().find_object(Invocation)
    if found is None:
        raise RuntimeError("not within mailctl")
    return found


def _wants_json(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    found = context.find_object(Invocation)
    if value and found is not None:
        found.json = True


class Command(click.Command):
    """Has ``--json``."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        # click's own parameters, passed through, hence Any
        super().__init__(*arguments, **named)
        self.params.append(
            click.Option(
                ["--json"],
                is_flag=True,
                expose_value=False,
                callback=_wants_json,
                help="Print JSON; errors too, on stderr.",
            )
        )


class Group(click.Group):
    """A noun; its verbs have ``--json``, and are listed in the order of the manual."""

    command_class = Command
    group_class = type

    def list_commands(self, context: click.Context) -> Sequence[str]:  # type: ignore[override]  # click says list
        return list(self.commands)


def on_store(
    *, create: bool = False
) -> Callable[[Callable[Concatenate[Store, P], Coroutine[Any, Any, None]]], Callable[P, None]]:
    """The command works on the store, which is its first argument. *create*: makes it where there is none."""

    def wrap(command: Callable[Concatenate[Store, P], Coroutine[Any, Any, None]]) -> Callable[P, None]:
        @functools.wraps(command)
        def call(*arguments: P.args, **named: P.kwargs) -> None:
            configuration = the_invocation().configuration()

            async def main(reactor: Any) -> None:
                async with opened(reactor, configuration, create=create) as store:
                    await command(store, *arguments, **named)

            run(main)

        return call

    return wrap


def asks(question: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds ``--yes``; without it, asks *question* (with the arguments filled in) before the store is opened:
    whoever is the store's writer must not sit at a prompt. Raises Problem: there is no terminal; Abort: the answer
    was no."""

    def wrap(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def call(*arguments: Any, yes: bool, **named: Any) -> None:
            # what click parsed for the command, whatever it is, hence Any
            asked = question.format(**named)
            if not yes:
                if not sys.stdin.isatty():
                    raise Problem(Status.USAGE, "usage", f"{asked} There is no terminal to ask on: add --yes")
                click.confirm(asked, abort=True, err=True)
            command(*arguments, **named)

        return click.option("--yes", is_flag=True, help="Do not ask.")(call)

    return wrap
