"""Where a password comes from: a prompt, standard input, or chance. Never from an argument, which anybody can see."""

from __future__ import annotations

import functools
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import click

from twisted_mail.admin.problems import Problem, Status

__all__ = ["Chosen", "asks_password", "choose", "generate"]

ALPHABET: Final = "abcdefghijkmnpqrstuvwxyz23456789"
"""Without letters and digits that look alike."""
MAX_OCTETS: Final = 1024


@dataclass(frozen=True, slots=True)
class Chosen:
    """A password, and whether it was made here and so has to be shown, once."""

    text: str
    generated: bool = False

    def __repr__(self) -> str:
        return "Chosen(…)"


def generate() -> str:
    """Twenty characters in four groups: 100 bits."""
    return "-".join("".join(secrets.choice(ALPHABET) for _ in range(5)) for _ in range(4))


def asks_password(*, needed: bool = True) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds ``--password-stdin`` and ``--generate``; the command gets what they yield as ``chosen``.

    It is asked for before the store is opened: whoever is the store's writer must not sit at a prompt.
    """

    def wrap(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def call(*arguments: Any, password_stdin: bool, generate_password: bool, **named: Any) -> None:
            # what click parsed for the command, whatever it is, hence Any
            chosen = choose(stdin=password_stdin, generated=generate_password, needed=needed)
            command(*arguments, chosen=chosen, **named)

        called = click.option(
            "--generate", "generate_password", is_flag=True, help="Make a password and print it, this once."
        )(call)
        return click.option(
            "--password-stdin", is_flag=True, help="Read the password from the first line of stdin."
        )(called)

    return wrap


def choose(*, stdin: bool, generated: bool, needed: bool = True) -> Chosen | None:
    """The password as the options say, else asked for twice; None where it is not *needed* and no option was given.

    Raises Problem.
    """
    if stdin and generated:
        raise Problem(Status.USAGE, "usage", "--password-stdin and --generate exclude each other")
    if generated:
        return Chosen(generate(), generated=True)
    if stdin:
        return Chosen(_checked(sys.stdin.readline().rstrip("\r\n")))
    if not needed:
        return None
    if not sys.stdin.isatty():
        raise Problem(
            Status.USAGE, "usage", "there is no terminal to ask for a password on: use --password-stdin or --generate"
        )
    return Chosen(_checked(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)))


def _checked(text: str) -> str:
    if not text:
        raise Problem(Status.USAGE, "usage", "the password is empty")
    if len(text.encode()) > MAX_OCTETS or any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise Problem(Status.USAGE, "usage", "a password has at most 1024 octets and no control characters")
    return text
