"""Where in a TOML text a key stands.

`tomllib` gives values without positions. This walks the same text once more, lightly: the text has already been
accepted, so nothing is checked here, only keys, brackets and strings are followed (TOML 1.0).
"""

from __future__ import annotations

from typing import Final

__all__ = ["Path", "key_lines", "line_of"]

Path = tuple[str | int, ...]
"""Keys from the top; a number counts in a list or in an array of tables."""

_ESCAPES: Final = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\"}


def key_lines(text: str) -> dict[Path, int]:
    """The line, counted from 1, on which each key, table and list element of *text* first stands."""
    return _Walk(text.replace("\r\n", "\n")).run()


def line_of(lines: dict[Path, int], path: Path) -> int | None:
    """The line of *path*, or of the nearest thing around it; None when not even that is in the text."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return None


class _Walk:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self._lines: dict[Path, int] = {}
        self._counts: dict[Path, int] = {}

    def run(self) -> dict[Path, int]:
        table: Path = ()
        before = -1
        while self._skip(newlines=True) and self._at > before:  # always further: never a loop without an end
            before = self._at
            if self._peek() == "[":
                table = self._header()
            else:
                self._pair(table)
        return self._lines

    # --- statements

    def _header(self) -> Path:
        line = self._line
        self._take()
        array = self._peek() == "["
        if array:
            self._take()
        keys = self._keys()
        self._take()
        if array:
            self._take()
        table = self._resolve(keys[:-1])
        table = (*table, keys[-1])
        if array:
            number = self._counts.get(table, -1) + 1
            self._counts[table] = number
            self._lines.setdefault(table, line)
            table = (*table, number)
        else:
            table = self._resolve(keys)
        self._lines.setdefault(table, line)
        return table

    def _resolve(self, keys: tuple[str, ...]) -> Path:
        """A header's keys as a path: a name of an array of tables means its newest element."""
        path: Path = ()
        for key in keys:
            path = (*path, key)
            if path in self._counts:
                path = (*path, self._counts[path])
        return path

    def _pair(self, table: Path) -> None:
        line = self._line
        path = table
        for key in self._keys():
            path = (*path, key)
            self._lines.setdefault(path, line)
        self._skip()
        self._take()  # the equals sign
        self._skip()
        self._value(path)

    def _value(self, path: Path) -> None:
        match self._peek():
            case "[":
                self._take()
                number = 0
                while self._skip(newlines=True) and self._peek() != "]":
                    if self._peek() == ",":
                        self._take()
                        continue
                    self._lines.setdefault((*path, number), self._line)
                    self._value((*path, number))
                    number += 1
                self._take()
            case "{":
                self._take()
                while self._skip(newlines=True) and self._peek() != "}":
                    if self._peek() == ",":
                        self._take()
                        continue
                    self._pair(path)
                self._take()
            case '"' | "'":
                self._string()
            case _:
                while (c := self._peek()) and c not in ",]}#\n":
                    self._take()

    # --- keys and strings

    def _keys(self) -> tuple[str, ...]:
        keys = []
        while True:
            self._skip()
            if self._peek() in ('"', "'"):
                keys.append(self._string())
            else:
                start = self._at
                while (c := self._peek()) and (c.isalnum() or c in "_-"):
                    self._take()
                keys.append(self._text[start : self._at])
            self._skip()
            if self._peek() != ".":
                return tuple(keys)
            self._take()

    def _string(self) -> str:
        quote = self._take()
        if self._text.startswith(quote * 2, self._at):
            self._take()
            self._take()
            return self._until(quote * 3, escapes=quote == '"')
        return self._until(quote, escapes=quote == '"')

    def _until(self, end: str, *, escapes: bool) -> str:
        out = []
        while self._at < len(self._text) and not self._text.startswith(end, self._at):
            c = self._take()
            if escapes and c == "\\":
                c = self._take()
                c = self._code_point(4 if c == "u" else 8) if c in "uU" else _ESCAPES.get(c, c)
            out.append(c)
        for _ in end:
            self._take()
        # Up to two more quotes may belong to a multi-line string.
        while len(end) == 3 and self._text.startswith(end[0], self._at):
            out.append(self._take())
        return "".join(out)

    def _code_point(self, digits: int) -> str:
        return chr(int("".join(self._take() for _ in range(digits)), 16))

    # --- characters

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        c = self._text[self._at : self._at + 1]
        self._at += 1
        if c == "\n":
            self._line += 1
        return c

    def _skip(self, *, newlines: bool = False) -> bool:
        """Go past blanks (and line ends and comments); False at the end of the text."""
        while c := self._peek():
            if c in " \t" or (newlines and c == "\n"):
                self._take()
            elif newlines and c == "#":
                while self._peek() not in ("", "\n"):
                    self._take()
            else:
                return True
        return False
