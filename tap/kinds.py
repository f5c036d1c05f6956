"""Kinds of values a setting may have: how each is read, from TOML or from the text of an environment variable.

A kind's `read` takes what `tomllib` gave and returns the value that the program works with, or raises `Wrong` with a
sentence an operator understands. `from_text` turns the text of an environment variable (or of the file it names) into
what TOML would have given.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

__all__ = [
    "Checked",
    "Choice",
    "Duration",
    "Endpoint",
    "Files",
    "Flag",
    "Hostname",
    "Kind",
    "Many",
    "Network",
    "NetworkType",
    "Number",
    "Pairs",
    "Parsed",
    "Size",
    "StorageURL",
    "Tables",
    "Text",
    "Whole",
    "Wrong",
    "show",
    "show_duration",
    "show_size",
]

NetworkType = ipaddress.IPv4Network | ipaddress.IPv6Network


class Wrong(ValueError):
    """What is wrong with a value, as a sentence without a final stop."""


class Kind(Protocol):
    """How a value is read and described."""

    @property
    def says(self) -> str:
        """What may stand there, for the reference, e.g. ``a duration``."""

    def read(self, value: object, base: Path) -> Any:
        """The value to work with. *base*: the folder that relative paths start from. Raises: Wrong."""

    def from_text(self, text: str) -> object:
        """What TOML would have given for the *text* of an environment variable. Raises: Wrong."""


def show(value: object) -> str:
    """A short TOML-like picture of *value*, for messages."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        shown = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    elif isinstance(value, Mapping):
        return "a table"
    elif isinstance(value, Sequence):
        shown = "[" + ", ".join(show(item) for item in value) + "]"
    else:
        shown = str(value)
    return shown if len(shown) <= 60 else shown[:57] + "…"


def _toml_value(text: str) -> object:
    try:
        return tomllib.loads("value = " + text)["value"]
    except tomllib.TOMLDecodeError as error:
        raise Wrong(f"{show(text)} is not a TOML value: {error}") from None


class _TextIsValue:
    """Kinds whose TOML form is a string: the variable's text is the value."""

    def from_text(self, text: str) -> object:
        return text


@dataclass(frozen=True, slots=True)
class Text(_TextIsValue):
    """A string; `pattern`, when given, must match it whole, and `says` what that means."""

    says: str = "text"
    pattern: str = ""
    empty: bool = True

    def read(self, value: object, base: Path) -> str:
        if not isinstance(value, str):
            raise Wrong(f"{show(value)} is not {self.says} (a string in quotes)")
        if (not value and not self.empty) or (self.pattern and not re.fullmatch(self.pattern, value)):
            raise Wrong(f"{show(value)} is not {self.says}")
        return value


_LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Hostname(_TextIsValue):
    """A host name in A-labels (RFC 5321 section 2.3.5)."""

    says: str = "a host name"

    def read(self, value: object, base: Path) -> str:
        if not isinstance(value, str):
            raise Wrong(f"{show(value)} is not {self.says} (a string in quotes)")
        name = value.rstrip(".")
        if not name or len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
            raise Wrong(f"{show(value)} is not {self.says} such as \"mail.example.org\"")
        return name.lower()


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    says: str = "true or false"

    def read(self, value: object, base: Path) -> bool:
        if not isinstance(value, bool):
            raise Wrong(f"{show(value)} is neither true nor false")
        return value

    def from_text(self, text: str) -> object:
        match text.strip().lower():
            case "true" | "yes" | "on" | "1":
                return True
            case "false" | "no" | "off" | "0":
                return False
        raise Wrong(f"{show(text)} is neither true nor false")


def _bounds(number: float, low: float, high: float | None, zero: str, picture: Callable[[float], str]) -> None:
    if zero and number == 0:
        return
    if number < low:
        also = f" (or 0: {zero})" if zero and low > 0 else ""
        raise Wrong(f"{picture(number)} is too small: at least {picture(low)}{also}")
    if high is not None and number > high:
        raise Wrong(f"{picture(number)} is too large: at most {picture(high)}")


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number; `zero` says what 0 means where it means something of its own."""

    low: int = 0
    high: int | None = None
    zero: str = ""

    @property
    def says(self) -> str:
        limits = f", {self.low} or more" if self.high is None else f", {self.low} to {self.high}"
        return "a whole number" + limits + (f"; 0: {self.zero}" if self.zero else "")

    def read(self, value: object, base: Path) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise Wrong(f"{show(value)} is not a whole number")
        _bounds(value, self.low, self.high, self.zero, lambda number: str(number))
        return value

    def from_text(self, text: str) -> object:
        try:
            return int(text.strip())
        except ValueError:
            raise Wrong(f"{show(text)} is not a whole number") from None


@dataclass(frozen=True, slots=True)
class Number:
    """A number, with or without decimals."""

    low: float
    high: float
    zero: str = ""

    @property
    def says(self) -> str:
        return f"a number, {self.low:g} to {self.high:g}" + (f"; 0: {self.zero}" if self.zero else "")

    def read(self, value: object, base: Path) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise Wrong(f"{show(value)} is not a number")
        _bounds(float(value), self.low, self.high, self.zero, lambda number: f"{number:g}")
        return float(value)

    def from_text(self, text: str) -> object:
        try:
            return float(text.strip())
        except ValueError:
            raise Wrong(f"{show(text)} is not a number") from None


_SIZE: Final = re.compile(r"([0-9][0-9_]*)\s*(B|KiB|MiB|GiB|TiB|kB|KB|MB|GB|TB)?", re.IGNORECASE)
_SIZE_UNITS: Final = {
    "": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
    "kb": 1000, "mb": 1000**2, "gb": 1000**3, "tb": 1000**4,
}  # fmt: skip


def show_size(octets: float) -> str:
    """Octets as a configuration has them, e.g. ``50MiB``."""
    number = int(octets)
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        factor = _SIZE_UNITS[unit.lower()]
        if number and number % factor == 0:
            return f"{number // factor}{unit}"
    return str(number)


@dataclass(frozen=True, slots=True)
class Size:
    """Octets: a whole number, or text with a unit."""

    low: int = 0
    high: int | None = None
    zero: str = ""

    @property
    def says(self) -> str:
        return 'a size: octets, or with a unit such as "50MiB"' + (f"; 0: {self.zero}" if self.zero else "")

    def read(self, value: object, base: Path) -> int:
        if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
            octets = int(match[1].replace("_", "")) * _SIZE_UNITS[(match[2] or "").lower()]
        elif isinstance(value, int) and not isinstance(value, bool):
            octets = value
        else:
            raise Wrong(f'{show(value)} is not a size (octets, or e.g. "50MiB")')
        _bounds(octets, self.low, self.high, self.zero, show_size)
        return octets

    def from_text(self, text: str) -> object:
        return text


_DURATION: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d|w))+")
_DURATION_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|w)")
_DURATION_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def show_duration(seconds: float) -> str:
    """Seconds as a configuration has them, e.g. ``5m``."""
    if seconds == 0:
        return "0s"
    for unit in ("w", "d", "h", "m", "s"):
        if seconds % _DURATION_UNITS[unit] == 0:
            return f"{int(seconds / _DURATION_UNITS[unit])}{unit}"
    return f"{seconds * 1000:g}ms"


@dataclass(frozen=True, slots=True)
class Duration:
    """A time span; in the program a float of seconds."""

    low: float = 0
    high: float | None = None
    zero: str = ""

    @property
    def says(self) -> str:
        return 'a duration such as "30s", "5m", "1h30m"' + (f"; 0: {self.zero}" if self.zero else "")

    def read(self, value: object, base: Path) -> float:
        if isinstance(value, str) and _DURATION.fullmatch(value.strip()):
            parts = _DURATION_PART.findall(value)
            seconds = sum(float(number) * _DURATION_UNITS[unit] for number, unit in parts)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            seconds = float(value)  # plain seconds
        else:
            raise Wrong(f'{show(value)} is not a duration (such as "30s", "5m", "1h30m", or a number of seconds)')
        if seconds != seconds or seconds in (float("inf"), float("-inf")):
            raise Wrong(f"{show(value)} is not a duration")
        _bounds(seconds, self.low, self.high, self.zero, show_duration)
        return seconds

    def from_text(self, text: str) -> object:
        try:
            return float(text)
        except ValueError:
            return text


@dataclass(frozen=True, slots=True)
class Choice(_TextIsValue):
    """One of some words; `later` are words that a coming version will know."""

    words: tuple[str, ...]
    later: tuple[str, ...] = ()

    @property
    def says(self) -> str:
        return "one of " + ", ".join(show(word) for word in self.words)

    def read(self, value: object, base: Path) -> str:
        if isinstance(value, str) and value in self.words:
            return value
        if isinstance(value, str) and value in self.later:
            raise Wrong(f"{show(value)} is not available in this version; {self.says}")
        raise Wrong(f"{show(value)} is not {self.says}")


@dataclass(frozen=True, slots=True)
class Files(_TextIsValue):
    """A path; a relative one starts from the configuration file's folder. ``~`` is the home folder."""

    says: str = "a path"
    optional: bool = False

    def read(self, value: object, base: Path) -> Path | None:
        if not isinstance(value, str):
            raise Wrong(f"{show(value)} is not a path (a string in quotes)")
        if not value and self.optional:
            return None
        if not value or "\0" in value:
            raise Wrong(f"{show(value)} is not a path")
        return Path(os.path.normpath(base / Path(value).expanduser()))


@dataclass(frozen=True, slots=True)
class Network(_TextIsValue):
    """A network in CIDR notation, or one address."""

    says: str = "a network"

    def read(self, value: object, base: Path) -> NetworkType:
        if not isinstance(value, str):
            raise Wrong(f"{show(value)} is not a network (a string in quotes)")
        try:
            return ipaddress.ip_network(value)
        except ValueError:
            try:
                wide = ipaddress.ip_network(value, strict=False)
            except ValueError:
                raise Wrong(f'{show(value)} is not a network such as "10.0.0.0/8" or "::1/128"') from None
            raise Wrong(f'{show(value)} has bits set beyond its prefix; did you mean "{wide}"?') from None


@dataclass(frozen=True, slots=True)
class Endpoint(_TextIsValue):
    """A Twisted server endpoint string."""

    says: str = "a Twisted server endpoint string"

    def read(self, value: object, base: Path) -> str:
        from twisted.internet.endpoints import serverFromString

        if not isinstance(value, str):
            raise Wrong(f'{show(value)} is not {self.says} such as "tcp:8143"')
        plain = value.removeprefix("haproxy:")  # the PROXY protocol first: tap/proxied.py
        if plain.startswith(("ssl:", "tls:")):
            raise Wrong(
                f"{show(value)}: give the plain endpoint to a listener that is encrypted from the start "
                "(imaps, pop3s, submissions); its certificate is in [tls]"
            )
        try:
            if plain.startswith("haproxy:"):
                raise ValueError("one header is enough")
            serverFromString(_NO_REACTOR, plain)
        except Exception as error:  # parsers are plugins, and raise whatever they like
            raise Wrong(f'{show(value)} is not {self.says} such as "tcp:8143": {error}') from None
        if plain.startswith("tcp"):
            port = plain.split(":")[1].removeprefix("port=")
            if port.isdigit() and int(port) > 65535:
                raise Wrong(f"{show(value)}: there is no port {port}")
        return value


_NO_REACTOR: Final = object()
"""Endpoints are only built to see whether they can be; none is asked to listen."""


@dataclass(frozen=True, slots=True)
class StorageURL(_TextIsValue):
    """The URL of a storage engine that is installed; empty where something else stands in."""

    optional: bool = False

    @property
    def says(self) -> str:
        return "the URL of a storage engine"

    def read(self, value: object, base: Path) -> str:
        if not isinstance(value, str):
            raise Wrong(f"{show(value)} is not {self.says} (a string in quotes)")
        if not value and self.optional:
            return value
        scheme, colon, _ = value.partition(":")
        if not colon or not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme):
            raise Wrong(f'{show(value)} is not {self.says} such as "sqlite:"')
        try:
            urlsplit(value)
        except ValueError as error:
            raise Wrong(f"a URL cannot be read: {error}") from None
        from twisted_mail.storage import EngineUnknown, known_schemes

        try:
            known = known_schemes()
        except EngineUnknown as error:
            raise Wrong(str(error)) from None
        if scheme not in known:  # the URL may hold a password: only its scheme is repeated
            raise Wrong(f"no storage engine for {scheme}: is installed (there are: {', '.join(known)})")
        return value


@dataclass(frozen=True, slots=True)
class Many:
    """A list of one kind. In an environment variable: separated by commas, or a TOML list."""

    of: Kind
    least: int = 0

    @property
    def says(self) -> str:
        return "a list, each " + self.of.says

    def read(self, value: object, base: Path) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise Wrong(f"{show(value)} is not a list: write [{show(value)}]")
        if len(value) < self.least:
            raise Wrong(f"at least {self.least} must be named")
        return tuple(self.of.read(item, base) for item in value)

    def from_text(self, text: str) -> object:
        if text.lstrip().startswith("["):
            return _toml_value(text)
        return [self.of.from_text(item.strip()) for item in text.split(",") if item.strip()]


@dataclass(frozen=True, slots=True)
class Pairs:
    """A table with free keys and values of one kind. In an environment variable: a TOML inline table."""

    of: Kind
    key: Kind
    says: str

    def read(self, value: object, base: Path) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise Wrong(f"{show(value)} is not a table such as {{ Name = {show('value')} }}")
        return MappingProxyType({self.key.read(k, base): self.of.read(v, base) for k, v in value.items()})

    def from_text(self, text: str) -> object:
        return _toml_value(text)


@dataclass(frozen=True, slots=True)
class Checked:
    """A text that a function of another room reads (and raises ValueError for); it stays the text that it is."""

    check: Callable[[str], object]
    says: str

    def read(self, value: object, base: Path) -> str:
        if not isinstance(value, str):
            raise Wrong(f"{show(value)} is not {self.says}")
        try:
            self.check(value)
        except ValueError as error:
            raise Wrong(str(error)) from None
        return value

    def from_text(self, text: str) -> object:
        return text


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a function of another room makes of a TOML value (raising ValueError for what is wrong). In an environment
    variable: a TOML value."""

    parse: Callable[[Any], object]
    says: str
    of_type: type = dict

    def read(self, value: object, base: Path) -> Any:
        if not isinstance(value, self.of_type):
            raise Wrong(f"{show(value)} is not {self.says}")
        try:
            return self.parse(value)
        except ValueError as error:
            raise Wrong(str(error)) from None

    def from_text(self, text: str) -> object:
        return _toml_value(text)


@dataclass(frozen=True, slots=True)
class Tables:
    """Tables with keys of their own, which whoever they are for reads. In an environment variable: a TOML inline table."""

    says: str = "tables"

    def read(self, value: object, base: Path) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise Wrong(f"{show(value)} is not a table")
        return MappingProxyType(value)

    def from_text(self, text: str) -> object:
        return _toml_value(text)
