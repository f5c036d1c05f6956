"""Reading the configuration: a TOML file, the environment laid over it, everything checked, every problem named.

`load` is the only way to a `Configuration`. An environment variable ``TWISTED_MAIL__SECTION__KEY`` sets
``section.key``; with ``_FILE`` behind it, to the text of the file it names (secrets). Problems carry the dotted
name of the key and, where the file has it, the line.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from twisted_mail.auth.submitters import too_wide
from twisted_mail.relay.leaving import Leaving
from twisted_mail.relay.tables import Wrong as WrongTables
from twisted_mail.tap.declaring import Declared
from twisted_mail.tap.kinds import Kind, Wrong, show
from twisted_mail.tap.proxied import bare
from twisted_mail.tap.settings import LATER, LISTENERS, Configuration, listeners_of, role_of
from twisted_mail.tap.toml_lines import Path as KeyPath
from twisted_mail.tap.toml_lines import key_lines, line_of

__all__ = ["PREFIX", "ConfigurationError", "Problem", "fields_of", "load", "variable"]

PREFIX: Final = "TWISTED_MAIL__"

T = TypeVar("T")
Table = dict[str, Any]

_MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    key: str
    """Dotted name of the key, e.g. ``limits.message_bytes``; empty when the file as a whole is meant."""
    text: str
    source: str
    """The file, or the environment variable."""
    line: int | None = None

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}:{self.line}"
        return f"{place}: {self.key}: {self.text}" if self.key else f"{place}: {self.text}"


class ConfigurationError(Exception):
    """The configuration cannot be used; `problems` has every reason."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class SettingField:
    """A field of a settings class: its name, and what it declares."""

    name: str
    declared: Declared | None
    section: type | None
    many: bool
    doc: str


def fields_of(of: type) -> Iterator[SettingField]:
    """The settings and sections of a settings class, in order."""
    for each in dataclasses.fields(of):
        meta = each.metadata
        declared: Declared | None = meta.get("setting")
        doc = declared.doc if declared else meta["doc"]
        yield SettingField(each.name, declared, meta.get("section"), meta.get("many", False), doc)


def variable(path: Sequence[str]) -> str:
    """The environment variable that sets the key at *path*."""
    return PREFIX + "__".join(part.upper() for part in path)


def load(file: Path | None, environment: Mapping[str, str]) -> Configuration:
    """Read and check everything; *file* None: only defaults and *environment*.

    Raises: ConfigurationError with every problem that was found.
    """
    reading = _Reading(file, environment)
    configuration = reading.run()
    if reading.problems or configuration is None:
        problems = sorted(reading.problems, key=lambda p: (p.line is None, p.line or 0, p.key))
        raise ConfigurationError(problems)
    return configuration


class _Reading:
    """One reading of one file and one environment."""

    def __init__(self, file: Path | None, environment: Mapping[str, str]) -> None:
        self.problems: list[Problem] = []
        self._file = file
        self._source = str(file) if file is not None else "default"
        self._base = (file.parent if file is not None else Path()).absolute()
        self._environment = environment
        self._lines: dict[KeyPath, int] = {}
        self._from: dict[KeyPath, str] = {}
        """Keys that an environment variable has set, and its name."""

    def run(self) -> Configuration | None:
        document = self._document()
        if document is None:
            return None
        self._default_listeners(document)
        self._lay_environment_over(document)
        if isinstance(relay := document.get("relay"), dict):
            relay.setdefault("enabled", True)
        configuration = self._section(Configuration, document, ())
        if configuration is not None and not self.problems:
            self._check_together(configuration)
        return configuration

    def _check_leaving(self, configuration: Configuration) -> None:
        relay = configuration.relay
        tables = {name: getattr(relay, name) for name in ("pools", "streams", "providers", "warm_up")}
        try:
            Leaving.read(tables)
        except WrongTables as wrong:
            for key, text in wrong.problems:
                self._problem(tuple(key.split(".")), text)

    # --- sources

    def _document(self) -> Table | None:
        if self._file is None:
            return {}
        try:
            octets = self._file.read_bytes()
        except OSError as error:
            self._problem((), f"cannot be read: {error.strerror or error}")
            return None
        try:
            text = octets.decode("utf-8")
        except UnicodeDecodeError as error:
            line = octets.count(b"\n", 0, error.start) + 1
            self.problems.append(Problem("", "is not UTF-8", self._source, line))
            return None
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            said = str(error)
            found = re.search(r"\s*\(at (?:line (\d+), column \d+|end of document)\)", said)
            at = int(found[1]) if found and found[1] else text.count("\n") + 1
            self.problems.append(Problem("", "is not TOML: " + (said[: found.start()] if found else said), self._source, at))
            return None
        self._lines = key_lines(text)
        return document

    def _default_listeners(self, document: Table) -> None:
        """With a `[listen]` table in the file, what it leaves out does not listen."""
        if isinstance(table := document.get("listen"), dict):
            for name in LISTENERS:
                table.setdefault(name, [])

    def _lay_environment_over(self, document: Table) -> None:
        given: dict[KeyPath, str] = {}
        for name in sorted(self._environment):
            if not name.startswith(PREFIX):
                continue
            path: KeyPath = tuple(part.lower() for part in name.removeprefix(PREFIX).split("__"))
            kind = self._kind_at(path)
            text = self._environment[name]
            if kind is None and str(path[-1]).endswith("_file"):
                path = (*path[:-1], str(path[-1]).removesuffix("_file"))
                kind = self._kind_at(path)
                if kind is not None:
                    try:
                        text = Path(text).read_text("utf-8").removesuffix("\n")
                    except (OSError, UnicodeDecodeError) as error:
                        self._from[path] = name
                        self._problem(path, f"{show(text)} cannot be read: {error}")
                        continue
            if kind is None:
                if not self._refuse_later(path, name):
                    self.problems.append(Problem(_dotted(path), "there is no such setting" + self._meant(path), name))
                continue
            if path in given:
                self.problems.append(Problem(_dotted(path), f"{given[path]} sets it too", name))
                continue
            given[path] = name
            self._from[path] = name
            try:
                value = kind.from_text(text)
            except Wrong as wrong:
                self._problem(path, str(wrong))
                continue
            table = document
            for part in path[:-1]:
                inner = table.setdefault(str(part), {})
                if not isinstance(inner, dict):
                    break  # reported when the section is read
                table = inner
            else:
                table[str(path[-1])] = value

    def _kind_at(self, path: KeyPath) -> Kind | None:
        """The kind of the setting at *path* (arrays of tables are not reached from the environment)."""
        of: type | None = Configuration
        for place, part in enumerate(path):
            match next((each for each in fields_of(of) if each.name == part), None) if of else None:
                case SettingField(declared=Declared(kind=kind)):
                    return kind if place == len(path) - 1 else None
                case SettingField(section=inner, many=False):
                    of = inner
                case _:
                    return None
        return None

    # --- checking

    def _section(self, of: type[T], table: Mapping[str, Any], path: KeyPath) -> T | None:
        """Read a table into the settings class *of*; None when something in it is wrong."""
        before = len(self.problems)
        values: dict[str, Any] = {}
        fields = {each.name: each for each in fields_of(of)}
        for key in table:
            if key not in fields and not self._refuse_later((*path, key), None):
                self._problem((*path, key), "there is no such setting" + self._meant((*path, key)))
        for name, each in fields.items():
            here = (*path, name)
            value = table.get(name, _MISSING)
            if each.declared is not None:
                values[name] = self._setting(each.declared, value, here)
            elif each.section is not None and each.many:
                values[name] = self._tables(each.section, value, here)
            elif each.section is not None:
                if value is _MISSING:
                    value = {}
                if isinstance(value, dict):
                    values[name] = self._section(each.section, value, here)
                else:
                    self._problem(here, f"{show(value)} is not a table: write [{_dotted(here)}]")
        return of(**values) if len(self.problems) == before else None

    def _setting(self, declared: Declared, value: object, path: KeyPath) -> Any:
        if value is _MISSING:
            value = declared.default() if callable(declared.default) else declared.default
            if value is None:
                self._problem(path, "must be given")
                return None
        try:
            return declared.kind.read(value, self._base)
        except Wrong as wrong:
            self._problem(self._narrow(declared.kind, value, path), str(wrong))
            return None

    def _narrow(self, kind: Kind, value: object, path: KeyPath) -> KeyPath:
        """The element of a list that is wrong, so that its own line is named."""
        inner = getattr(kind, "of", None)
        if isinstance(value, list) and inner is not None:
            elements: list[tuple[str | int, object]] = list(enumerate(value))
        elif isinstance(value, dict) and inner is not None:
            elements = list(value.items())
        else:
            return path
        for key, element in elements:
            try:
                inner.read(element, self._base)
            except Wrong:
                return (*path, key)
        return path

    def _tables(self, of: type, value: object, path: KeyPath) -> tuple[Any, ...]:
        if value is _MISSING:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self._problem(path, f"{show(value)} is not a list of tables: write [[{_dotted(path)}]]")
            return ()
        return tuple(self._section(of, item, (*path, number)) for number, item in enumerate(value))

    def _check_together(self, configuration: Configuration) -> None:
        tls, listen = configuration.tls, configuration.listen
        if (tls.certificate is None) != (tls.key is None):
            given, missing = ("certificate", "key") if tls.certificate is not None else ("key", "certificate")
            self._problem(("tls", given), f"is given without tls.{missing}")
        roles = set(configuration.roles)
        silent = set(listeners_of(configuration)) <= {"metrics"}
        works = "delivery" in roles or ("relay" in roles and configuration.relay.enabled)
        if silent and (not works or roles & {role_of(name) for name in LISTENERS}):
            if any(getattr(listen, name) for name in LISTENERS):
                self._problem(("roles",), "no listener in [listen] belongs to these roles, so there is nothing to do")
            else:
                self._problem(("listen",), "nothing listens anywhere: name at least one of " + ", ".join(LISTENERS))
        for number, role in enumerate(configuration.roles):
            if role in configuration.roles[:number]:
                self._problem(("roles", number), f"{show(role)} is named twice")
        taken: dict[str, str] = {}
        for name in (*LISTENERS, "metrics"):
            for number, text in enumerate(getattr(listen, name)):
                place = bare(text)
                if place in taken and not re.match(r"tcp6?:0(:|$)", place):
                    self._problem(("listen", name, number), f"{show(text)} is taken by {taken[place]}")
                taken.setdefault(place, f"listen.{name}")
                if place != text and not configuration.smtp.trusted and not place.startswith("unix:"):
                    self._problem(("listen", name, number), f"{show(text)}: smtp.trusted says whose PROXY header is believed")
        self._check_leaving(configuration)
        self._check_submitters(configuration)
        lowered = [name.casefold() for name in configuration.account.mailboxes]
        for name in configuration.account.mailboxes:
            if name.casefold() == "inbox":
                self._problem(("account", "mailboxes", name), "INBOX is always there")
            elif lowered.count(name.casefold()) > 1:
                self._problem(("account", "mailboxes", name), "two mailboxes have this name")
        uses = [use for use in configuration.account.mailboxes.values() if use]
        for name, use in configuration.account.mailboxes.items():
            if use and uses.count(use) > 1:
                self._problem(("account", "mailboxes", name), f"two mailboxes have the special use {show(use)}")

    def _check_submitters(self, configuration: Configuration) -> None:
        for network in configuration.smtp.submitters:
            path = ("smtp", "submitters", str(network))
            if too_wide(network):
                self._problem(path, f"{show(str(network))} is so much of the internet that this would be an open relay")
            for front in configuration.smtp.trusted:
                if front.version == network.version and network.subnet_of(front):  # type: ignore[arg-type]  # of one version
                    self._problem(path, f"{show(str(network))} speaks for others (smtp.trusted), and never for itself")

    # --- messages

    def _refuse_later(self, path: KeyPath, source: str | None) -> bool:
        for later, instead in LATER.items():
            if path[: len(later)] == later:
                text = f"is not available in this version ({instead})"
                if source is None:
                    self._problem(path, text)
                else:
                    self.problems.append(Problem(_dotted(later), text, source))
                return True
        return False

    def _meant(self, path: KeyPath) -> str:
        """`` (did you mean …?)`` for a key that does not exist, as far as a guess is possible."""
        key = str(path[-1])
        every = list(_every_key(Configuration, ()))
        beside = [each for each in every if each[:-1] == _without_numbers(path[:-1])]
        if close := difflib.get_close_matches(key, [each[-1] for each in beside], 1, 0.8):
            return f"; did you mean {_dotted((*path[:-1], close[0]))}?"
        elsewhere = [_dotted(each) for each in every if each[-1] == key]
        if not elsewhere:
            close = difflib.get_close_matches(key, [each[-1] for each in beside], 1, 0.6)
            if close:
                return f"; did you mean {_dotted((*path[:-1], close[0]))}?"
            close = difflib.get_close_matches(key, [each[-1] for each in every], 1, 0.8)
            elsewhere = [_dotted(each) for each in every if close and each[-1] == close[0]]
        return f"; did you mean {' or '.join(elsewhere[:3])}?" if elsewhere else ""

    def _problem(self, path: KeyPath, text: str) -> None:
        for length in range(len(path), 0, -1):
            if path[:length] in self._from:
                self.problems.append(Problem(_dotted(path), text, self._from[path[:length]]))
                return
        self.problems.append(Problem(_dotted(path), text, self._source, line_of(self._lines, path)))


def _every_key(of: type, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for each in fields_of(of):
        here = (*path, each.name)
        yield here
        if each.section is not None:
            yield from _every_key(each.section, here)


def _without_numbers(path: KeyPath) -> KeyPath:
    return tuple(part for part in path if isinstance(part, str))


def _dotted(path: KeyPath) -> str:
    """The key as a person writes it; an element of a list by its place, counted from 1."""
    out = ""
    for part in path:
        if isinstance(part, int):
            out += f"[{part + 1}]"
        else:
            shown = part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else show(part)
            out += f".{shown}" if out else shown
    return out
