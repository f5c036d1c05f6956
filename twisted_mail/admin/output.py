"""What a command prints: one JSON document, tables for a terminal, or plain lines for a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from twisted_mail.admin.problems import Problem

__all__ = ["Output", "plain", "size_text"]


def size_text(octets: int | None) -> str:
    """``12.3 MiB``; ``-`` for None."""
    if octets is None:
        return "-"
    value = float(octets)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{octets} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def plain(value: object) -> str:
    """A cell as text, on one line."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return " ".join(plain(each) for each in value) or "-"
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in str(value))


class Output:
    """Prints on stdout; what is not a result goes to stderr."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    @property
    def terminal(self) -> bool:
        """Whether a person looks at stdout."""
        return not self.as_json and sys.stdout.isatty()

    def _json(self, value: object, *, err: bool = False) -> None:
        click.echo(json.dumps(value, indent=2, ensure_ascii=False), err=err)

    def rows(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
        """A list of things: a JSON array; a table; tab-separated lines without a heading. *columns*: which and in
        which order, for people (JSON has all)."""
        if self.as_json:
            self._json(list(rows))
            return
        names = list(columns or (rows[0] if rows else ()))
        if self.terminal:
            table = Table(*(name.replace("_", " ") for name in names), box=None, pad_edge=False)
            for row in rows:
                # as Text: a name with brackets is no markup
                table.add_row(*(Text(plain(row.get(name))) for name in names))
            if rows:
                Console().print(table)
            return
        for row in rows:
            click.echo("\t".join(plain(row.get(name)) for name in names))

    def one(self, thing: Mapping[str, Any]) -> None:
        """One thing: a JSON object, or a line ``name: value`` for each of its facts."""
        if self.as_json:
            self._json(thing)
            return
        width = max((len(name) for name in thing), default=0) + 1 if self.terminal else 0
        for name, value in thing.items():
            click.echo(f"{(name.replace('_', ' ') + ':').ljust(width)} {plain(value)}")

    def done(self, text: str, **facts: Any) -> None:
        """An action has been carried out: *text* for people, *facts* (whatever JSON holds, hence Any) for programs."""
        if self.as_json:
            self._json(facts)
        else:
            click.echo(text)

    def text(self, text: str) -> None:
        """A line for people only."""
        if not self.as_json:
            click.echo(text)

    def note(self, text: str) -> None:
        """Something worth knowing that is no result."""
        if not self.as_json:
            click.echo(text, err=True)

    def problem(self, problem: Problem) -> None:
        """Why the command ends."""
        if self.as_json:
            self._json(problem.as_json(), err=True)
        else:
            for line in problem.text.splitlines() or [""]:
                click.echo(f"mailctl: {line}", err=True)
