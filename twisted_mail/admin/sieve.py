"""``mailctl sieve``: users' Sieve scripts, as they themselves change them by ManageSieve."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import IO, Any, Final

import click

from twisted_mail.admin.invocation import Group, on_store, the_invocation
from twisted_mail.admin.opening import Store
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.delivery.script_news import tell_of_scripts
from twisted_mail.delivery.script_store import ScriptStore
from twisted_mail.services import ScriptFault, ScriptRefused
from twisted_mail.sieve import CompileLimits, Script, SieveError, compile_script
from twisted_mail.sieve.values import Include
from twisted_mail.storage.interfaces import AccountRecord
from twisted_mail.tap.scripts import script_store

__all__ = ["compiled", "read_script", "sieve"]

_STATUS: Final = {
    ScriptFault.NO_SUCH: (Status.NOT_FOUND, "not-found"),
    ScriptFault.EXISTS: (Status.CONFLICT, "exists"),
    ScriptFault.ACTIVE: (Status.CONFLICT, "active"),
    ScriptFault.BAD_NAME: (Status.USAGE, "bad-name"),
    ScriptFault.TOO_LARGE: (Status.FAILED, "too-large"),
    ScriptFault.TOO_MANY: (Status.FAILED, "too-many"),
    ScriptFault.INVALID: (Status.FAILED, "invalid-script"),
    ScriptFault.UNAVAILABLE: (Status.TEMPORARY, "unavailable"),
}
SOON = "it takes effect within a minute"


@click.group(cls=Group)
def sieve() -> None:
    """Scripts by which users sort their mail (Sieve); one of a user's is active, or none."""


def read_script(file: IO[bytes]) -> str:
    """A script as it is stored: lines end with CRLF (RFC 5228 section 2.2). Raises: Problem."""
    try:
        text = file.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Problem(Status.FAILED, "invalid-script", f"{file.name}: not UTF-8") from None
    return text.replace("\r\n", "\n").replace("\n", "\r\n")


def compiled(text: str, name: str, limit: int, include: Include | None = None, *, explain: bool = False) -> Script:
    """*explain*: its trace says which tests were false too. Raises: Problem, with the place where the script is wrong."""
    try:
        return compile_script(text, include=include, limits=CompileLimits(script_bytes=limit), explain=explain)
    except SieveError as error:
        raise _invalid(name, str(error), error.line, error.column) from None


def _invalid(name: str, text: str, line: int, column: int) -> Problem:
    return Problem(Status.FAILED, "invalid-script", f"{name}: {text}", line=line or None, column=column or None)


def _problem(error: ScriptRefused, name: str, file: str = "") -> Problem:
    if error.fault is ScriptFault.INVALID:
        return _invalid(file, error.text, error.line, error.column)
    status, code = _STATUS[error.fault]
    text = "deactivate it first" if error.fault is ScriptFault.ACTIVE else ""
    return Problem(status, code, f"{name}: {error.text}{': ' + text if text else ''}")


async def _of(store: Store, address: str) -> tuple[AccountRecord, ScriptStore]:
    changed = partial(tell_of_scripts, store.backend.bus)
    return await store.user(address), script_store(store.configuration, store.directory, changed=changed)


@sieve.command("list")
@click.argument("address")
@on_store()
async def list_scripts(store: Store, address: str) -> None:
    """A user's scripts, and which of them is active."""
    record, scripts = await _of(store, address)
    rows: list[dict[str, Any]] = []
    for name, active in (await store.directory.scripts(record.id)).items():
        text = await scripts.get(record.id, name)
        rows.append({"name": name, "active": active, "size": len(text.encode("utf-8", "surrogatepass"))})
    the_invocation().out.rows(rows, ("name", "active", "size"))


@sieve.command("show")
@click.argument("address")
@click.argument("name", required=False)
@on_store()
async def show(store: Store, address: str, name: str | None) -> None:
    """Print a script; without NAME the active one."""
    record, scripts = await _of(store, address)
    names = await store.directory.scripts(record.id)
    if name is None:
        name = next((each for each, active in names.items() if active), None)
        if name is None:
            raise Problem(Status.NOT_FOUND, "not-found", f"no script of {record.address} is active")
    try:
        text = await scripts.get(record.id, name)
    except ScriptRefused as error:
        raise _problem(error, name) from None
    out = the_invocation().out
    if out.as_json:
        out.one({"name": name, "active": names.get(name, False), "script": text})
    else:
        click.echo(text.replace("\r\n", "\n"), nl=not text.endswith("\n"))


@sieve.command("put")
@click.argument("address")
@click.argument("name")
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--activate", is_flag=True, help="Make it the active one too.")
@on_store()
async def put(store: Store, address: str, name: str, file: IO[bytes], activate: bool) -> None:
    """Check the script in FILE (-: standard input) and store it as NAME, over what is there."""
    text = read_script(file)
    record, scripts = await _of(store, address)
    try:
        warnings = await scripts.put(record.id, name, text)
        if activate:
            await scripts.activate(record.id, name)
        active = (await scripts.names(record.id)).get(name, False)
    except ScriptRefused as error:
        raise _problem(error, name, file.name) from None
    out = the_invocation().out
    for each in warnings:
        out.note(f"{file.name}: {each}")
    said = f"stored {name} of {record.address}" + (f", which is active: {SOON}" if active else "")
    out.done(said, name=name, active=active, warnings=list(warnings))


@sieve.command("check")
@click.argument("file", type=click.File("rb"), default="-")
def check(file: IO[bytes]) -> None:
    """Say whether FILE (-: standard input) is a script that this server would take; nothing is stored."""
    text = read_script(file)
    if not text:
        raise _invalid(file.name, "the script is empty", 1, 1)
    script = compiled(text, file.name, the_invocation().configuration().sieve.script_bytes)
    the_invocation().out.done(f"{file.name} is a script", file=Path(file.name).name, needs_body=script.needs_body)


@sieve.command("activate")
@click.argument("address")
@click.argument("name")
@on_store()
async def activate(store: Store, address: str, name: str) -> None:
    """Let NAME sort the user's mail from now on."""
    record, scripts = await _of(store, address)
    try:
        await scripts.activate(record.id, name)
    except ScriptRefused as error:
        raise _problem(error, name) from None
    the_invocation().out.done(f"{name} of {record.address} is active: {SOON}", name=name, active=True)


@sieve.command("deactivate")
@click.argument("address")
@on_store()
async def deactivate(store: Store, address: str) -> None:
    """Let no script sort the user's mail; they stay stored."""
    record, scripts = await _of(store, address)
    try:
        await scripts.activate(record.id, None)
    except ScriptRefused as error:
        raise _problem(error, record.address) from None
    the_invocation().out.done(f"no script of {record.address} is active: {SOON}", active=False)


@sieve.command("rename")
@click.argument("address")
@click.argument("name")
@click.argument("new")
@on_store()
async def rename(store: Store, address: str, name: str, new: str) -> None:
    """Give a script another name; the active one stays active."""
    record, scripts = await _of(store, address)
    try:
        await scripts.rename(record.id, name, new)
    except ScriptRefused as error:
        raise _problem(error, new if error.fault is ScriptFault.EXISTS else name) from None
    the_invocation().out.done(f"{name} of {record.address} is {new} now", name=new)


@sieve.command("delete")
@click.argument("address")
@click.argument("name")
@on_store()
async def delete(store: Store, address: str, name: str) -> None:
    """Remove a script that is not active."""
    record, scripts = await _of(store, address)
    try:
        await scripts.delete(record.id, name)
    except ScriptRefused as error:
        raise _problem(error, name) from None
    the_invocation().out.done(f"removed {name} of {record.address}", name=name)
