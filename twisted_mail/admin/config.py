"""``mailctl config``: the configuration as the server reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from twisted_mail.admin.invocation import Group, the_invocation
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.tap.configuration import fields_of
from twisted_mail.tap.masking import masked

__all__ = ["config"]

@click.group(cls=Group)
def config() -> None:
    """The configuration as the server reads it: file, environment, defaults."""


def _plain(value: object) -> Any:
    """As JSON and TOML can hold it (hence Any); a password in a URL is not shown."""
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return masked(value)
        case tuple() | list():
            return [_plain(each) for each in value]
        case Mapping():
            return {str(key): _plain(each) for key, each in value.items()}
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return str(value)


def _settings(section: object, path: str) -> Iterator[tuple[str, Any]]:
    for each in fields_of(type(section)):
        value = getattr(section, each.name)
        name = f"{path}{each.name}"
        if each.section is not None and not each.many:
            yield from _settings(value, f"{name}.")
        else:
            yield name, _plain(value)


@config.command("show")
@click.argument("key", required=False)
def show(key: str | None) -> None:
    """Every setting with its value, or those of KEY (a setting or a section). Durations are seconds, sizes octets."""
    invocation = the_invocation()
    every = dict(_settings(invocation.configuration(), ""))
    if key is not None:
        every = {name: value for name, value in every.items() if name == key or name.startswith(f"{key}.")}
        if not every:
            raise Problem(Status.NOT_FOUND, "not-found", f"there is no setting {key}")
    if invocation.out.as_json:
        invocation.out.one(every)
        return
    for name, value in every.items():
        invocation.out.text(f"{name} = {_toml(value)}")


def _toml(value: Any) -> str:
    # what `_plain` made, hence Any
    match value:
        case None:
            return '""'
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case list():
            return "[" + ", ".join(_toml(each) for each in value) + "]"
        case dict():
            return "{ " + ", ".join(f"{name} = {_toml(each)}" for name, each in value.items()) + " }"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@config.command("validate")
def validate() -> None:
    """Read the configuration and say whether the server would take it; each wrong key is named with its line."""
    invocation = the_invocation()
    invocation.configuration()
    named = str(invocation.config) if invocation.config is not None else "the default configuration"
    invocation.out.done(f"{named} is good", configuration=named, good=True)
