"""Writes docs/reference/mailctl.md from the commands themselves.

``python -m twisted_mail.admin.reference FILE`` writes it; with ``--check`` it only says whether FILE is what it would write.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from twisted_mail.admin.cli import mailctl

__all__ = ["main", "reference"]

_HEAD = """\
# mailctl

<!-- Made from twisted_mail/admin by `python -m twisted_mail.admin.reference docs/reference/mailctl.md`. -->

`mailctl [-c mail.toml] NOUN VERB …` works on the store that the configuration names, whether the server runs or not:
beside a running server it hands its changes to the process that writes. Run it as the server's user. Without `-c` it is
the embedded store in `./mail-data`, as for `twistd -n mail`.

- `--json`, in front or behind, prints one JSON document on stdout; an error is `{"error": {"code", "text", "exit"}}` on
  stderr. Without a terminal, lists are lines with tabs between the columns.
- Passwords are asked for, read from stdin (`--password-stdin`) or made (`--generate`, printed once); they are never
  arguments, which everybody on the machine can read.
- What cannot be undone is asked for; `--yes` answers.

| exit status | meaning |
|---|---|
| 0 | done |
| 1 | failed; or `doctor` or `account check` have found an error |
| 2 | wrong usage |
| 3 | what was named does not exist |
| 4 | conflict: it exists already, or something else stands in the way |
| 75 | the store does not answer now: the same command may succeed later |
| 130 | interrupted |
"""


def reference() -> str:
    """The whole document."""
    context = click.Context(mailctl, info_name="mailctl")
    return "\n".join([_HEAD, *_options(mailctl, context), *_below(mailctl, context)]).rstrip() + "\n"


def _below(group: click.Group, context: click.Context) -> Iterator[str]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, parent=context, info_name=name)
        if isinstance(command, click.Group):
            yield f"## {name}\n"
            yield _paragraphs(command.help or "")
            yield from _below(command, inner)
        else:
            yield f"{'###' if context.parent else '##'} `{_usage(inner)}`\n"
            yield _paragraphs(command.help or "")
            yield from _options(command, inner)


def _usage(context: click.Context) -> str:
    words = [word for word in context.command.collect_usage_pieces(context) if word != "[OPTIONS]"]
    needed = [
        f"{parameter.opts[0]} {parameter.make_metavar(context)}"
        for parameter in context.command.params
        if isinstance(parameter, click.Option) and parameter.required
    ]
    return " ".join([context.command_path, *words, *needed])


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    lines = []
    for parameter in command.params:
        if not isinstance(parameter, click.Option) or (parameter.name == "json" and context.parent is not None):
            continue
        record = parameter.get_help_record(context)
        if record is not None:
            lines.append(textwrap.fill(f"- `{record[0]}`: {record[1]}", 118, subsequent_indent="  ", break_on_hyphens=False))
    if lines:
        yield "\n".join(lines) + "\n"


def _paragraphs(text: str) -> str:
    paragraphs = inspect.cleandoc(text).replace("\b", "").split("\n\n")
    return "\n\n".join(textwrap.fill(" ".join(each.split()), 118, break_on_hyphens=False) for each in paragraphs) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 1 when ``--check`` finds another text; 2 for wrong arguments."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    check = "--check" in words
    files = [Path(word) for word in words if word != "--check"]
    if len(files) != 1:
        print("usage: python -m twisted_mail.admin.reference [--check] FILE", file=sys.stderr)
        return 2
    text = reference()
    if check:
        if files[0].exists() and files[0].read_text("utf-8") == text:
            return 0
        print(f"{files[0]} is not what the commands say: run python -m twisted_mail.admin.reference {files[0]}", file=sys.stderr)
        return 1
    files[0].write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
