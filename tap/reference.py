"""Writes docs/reference/configuration.md from the declarations in `settings`.

``python -m twisted_mail.tap.reference FILE`` writes it; with ``--check`` it only says whether FILE is what it would write.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from twisted_mail.tap.configuration import fields_of, variable
from twisted_mail.tap.settings import LATER, Configuration

__all__ = ["main", "reference"]

_HEAD = """\
# Configuration

<!-- Made from tap/settings.py by `make docs`; change it there. -->

One TOML file, named by `twistd mail --config FILE` and `mailctl --config FILE`. Everything has a default; with no file
everything lies in `./mail-data` and high ports are used. The file is checked whole before any port opens: each wrong
key is named with its line, and the exit status is 1.

- A **duration** is text such as `"30s"`, `"5m"`, `"1h30m"`, `"7d"` (units ms, s, m, h, d, w), or a number of seconds.
- A **size** is a number of octets, or text such as `"64KiB"`, `"50MiB"` (also kB, MB, GB: powers of 1000).
- A **path** that is relative starts from the folder of the configuration file (without a file: the current folder).
- An **endpoint** is a Twisted server endpoint string: `tcp:8143`, `tcp:143:interface=192.0.2.1`,
  `tcp6:143:interface=\\:\\:1`, `unix:/run/mail/lmtp:mode=660`, `systemd:domain=INET:index=0`.

**From the environment.** `TWISTED_MAIL__SECTION__KEY` sets a key and wins over the file, e.g.
`TWISTED_MAIL__LIMITS__MESSAGE_BYTES=50MiB`. A list is separated by commas, or written as TOML (`["a", "b"]`); a table is
written as TOML (`{ Sent = "sent" }`). With `_FILE` behind the name the value is read from the file that is named,
without its last line end: `TWISTED_MAIL__STORAGE__METADATA_FILE=/run/secrets/metadata`. Wrong variables are named
like wrong keys.
"""


def reference() -> str:
    """The whole document."""
    return "\n".join([_HEAD, *_table(Configuration, ()), *_later()]) + "\n"


def _table(of: type, path: tuple[str, ...], array: bool = False) -> Iterator[str]:
    if path:
        name = ".".join(path)
        yield f"## `[[{name}]]`\n" if array else f"## `[{name}]`\n"
        yield _paragraph(" ".join((of.__doc__ or "").split()))
    else:
        yield "## At the top\n"
    for each in fields_of(of):
        if each.declared is None:
            continue
        yield f"### `{each.name}`\n"
        yield _paragraph(each.declared.doc)
        kind, shown = each.declared.kind.says, each.declared.shown
        default = shown if shown[:1] not in '"[{0123456789tf' or " name" in shown else f"`{shown}`"
        yield f"- {kind[0].upper()}{kind[1:]}."
        yield f"- Default: {default}." if shown != "must be given" else "- Must be given."
        if not array:
            yield f"- `{variable((*path, each.name))}`"
        yield ""
    for each in fields_of(of):
        if each.section is not None:
            yield from _table(each.section, (*path, each.name), each.many)


def _later() -> Iterator[str]:
    yield "## Not available in this version\n"
    yield _paragraph("These keys are refused, since what they ask for does not exist yet.")
    yield "| key | instead |"
    yield "|---|---|"
    for path, instead in LATER.items():
        yield f"| `{'.'.join(path)}` | {instead} |"


def _paragraph(text: str) -> str:
    return textwrap.fill(text, 118, break_long_words=False, break_on_hyphens=False) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 1 when ``--check`` finds another text; 2 for wrong arguments."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    check = "--check" in words
    files = [Path(word) for word in words if word != "--check"]
    if len(files) != 1:
        print("usage: python -m twisted_mail.tap.reference [--check] FILE", file=sys.stderr)
        return 2
    text = reference()
    if check:
        if files[0].exists() and files[0].read_text("utf-8") == text:
            return 0
        print(f"{files[0]} is not what tap/settings.py says: run `make docs`", file=sys.stderr)
        return 1
    files[0].write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
