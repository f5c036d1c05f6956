"""Tables of streams and pools as a configuration gives them, read with every error named by its key.

The rooms of the house read no configuration: whoever does hands over what its file says below ``relay.`` as plain
mappings, and gets the values that this room works with, or one `Wrong` with all that is wrong.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

__all__ = ["Table", "Wrong", "seconds_of"]

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|w)?")
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0, None: 1.0}


class Wrong(ValueError):
    """What is wrong in the configuration: pairs of a dotted key and a sentence without a final stop."""

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{key}: {text}" for key, text in problems))
        self.problems = tuple(problems)


def seconds_of(text: str) -> float:
    """Seconds of ``90s``, ``15m``, ``4h``, ``30d``, ``6w``, or of a plain number. Raises: ValueError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a duration such as 90s, 15m, 4h, 30d or 6w")
    return float(match[1]) * _SECONDS[match[2]]


class Table:
    """One table at *key*; what is wrong in it, and in the tables below it, is collected in one list.

    Values are whatever TOML holds, hence Any. A method that finds something wrong notes it and returns its *default*.
    """

    def __init__(self, values: object, key: str, problems: list[tuple[str, str]]) -> None:
        self.key = key
        self._problems = problems
        self._values: Mapping[str, Any] = {}
        self._seen: set[str] = set()
        if isinstance(values, Mapping):
            self._values = values
        else:
            self.wrong("", "a table is wanted here")

    def wrong(self, name: str, text: str) -> None:
        """Note that the value *name* (empty: the table itself) is wrong."""
        self._problems.append((f"{self.key}.{name}" if name else self.key, text))

    def has(self, name: str) -> bool:
        return name in self._values

    def names(self) -> Iterable[str]:
        """Names of free keys, in the order of the file; they count as known."""
        self._seen.update(self._values)
        return list(self._values)

    def table(self, name: str) -> Table:
        """The table *name*; an empty one where there is none."""
        return Table(self._take(name, {}), f"{self.key}.{name}", self._problems)

    def _take(self, name: str, default: object) -> Any:
        self._seen.add(name)
        return self._values.get(name, default)

    def text(self, name: str, default: str = "") -> str:
        value = self._take(name, default)
        if not isinstance(value, str):
            self.wrong(name, "a text is wanted")
            return default
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts, or one text alone."""
        value = self._take(name, ())
        if isinstance(value, str):
            value = (value,)
        if not isinstance(value, list | tuple) or not all(isinstance(each, str) and each for each in value):
            self.wrong(name, "a list of texts is wanted")
            return ()
        return tuple(value)

    def flag(self, name: str) -> bool | None:
        """True, False, or None if it is not given."""
        value = self._take(name, None)
        if value is not None and not isinstance(value, bool):
            self.wrong(name, "true or false is wanted")
            return None
        return value

    def has_true(self, name: str) -> bool:
        """Whether `name` is plainly true."""
        return self._values.get(name) is True

    def whole(self, name: str, default: int | None, low: int = 0) -> int | None:
        """A whole number from *low* on."""
        value = self._take(name, default)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            self.wrong(name, f"a whole number from {low} on is wanted")
            return default
        return value

    def number(self, name: str, default: float) -> float:
        """A number, not below 0."""
        value = self._take(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
            self.wrong(name, "a number is wanted")
            return default
        return float(value)

    def wholes(self, name: str) -> tuple[int, ...]:
        value = self._take(name, ())
        if not isinstance(value, list | tuple) or any(
            isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in value
        ):
            self.wrong(name, "a list of whole numbers is wanted")
            return ()
        return tuple(value)

    def day(self, name: str) -> datetime.date | None:
        """A date (``2026-12-01``, as a text or as TOML's own)."""
        value = self._take(name, None)
        if isinstance(value, str):
            try:
                return datetime.date.fromisoformat(value)
            except ValueError:
                value = 0
        if value is None or (isinstance(value, datetime.date) and not isinstance(value, datetime.datetime)):
            return value
        self.wrong(name, 'a date such as "2026-12-01" is wanted')
        return None

    def end(self) -> None:
        """Everything that may stand here was asked for: what is left is a mistake."""
        for name in self._values:
            if name not in self._seen:
                self.wrong(str(name), f"there is no such key; known here: {', '.join(sorted(self._seen))}")
