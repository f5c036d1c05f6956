"""``mailctl dkim``: the keys that domains sign their mail with, and the records that publish them."""

from __future__ import annotations

import datetime
import time
from pathlib import Path
from typing import Any, Final

import click

from twisted_mail.admin.invocation import Group, asks, on_store, the_invocation
from twisted_mail.admin.opening import Store, check_domain
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.dns.resolver import Resolver
from twisted_mail.dns.servers import of_system, parse_server
from twisted_mail.dns.transport import Network
from twisted_mail.dns.values import DNS
from twisted_mail.relay.dkim_keys import (
    TYPES,
    DKIMKey,
    DKIMKeys,
    KeyExists,
    KeySettings,
    Publication,
    Published,
    State,
    zone_line,
)
from twisted_mail.signatures import BadKey, PrivateKey

__all__ = ["dkim", "dns_of"]

DAY: Final = 86_400.0
LARGEST_KEY_FILE: Final = 64 * 1024


@click.group(cls=Group)
def dkim() -> None:
    """Keys that domains sign their mail with (DKIM), and the DNS records that publish them.

    The private keys lie in the store as they are: who can read the store can sign.
    """


def dns_of(reactor: Any, server: str | None) -> DNS:
    """The resolver that is asked: *server*, or those of the system. Raises Problem."""
    try:
        servers = (parse_server(server),) if server else of_system()
    except ValueError as error:
        raise Problem(Status.USAGE, "usage", str(error)) from error
    return Resolver(Network(reactor), servers, reactor)


def _keys(store: Store, bits: int = 2048) -> DKIMKeys:
    return DKIMKeys(store.backend.records, KeySettings(rsa_bits=bits))


async def _domain(store: Store, text: str) -> str:
    name = check_domain(text)
    if await store.directory.domain(name) is None:
        raise Problem(Status.NOT_FOUND, "not-found", f"no domain {name}")
    return name


def _time(seconds: float) -> str | None:
    if seconds >= 2.0**40:
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _facts(key: DKIMKey) -> dict[str, Any]:
    return {
        "domain": key.domain,
        "selector": key.selector,
        "type": key.key.type,
        "bits": key.key.bits,
        "state": key.state(time.time()).value,
        "created": _time(key.created),
        "signs_from": _time(key.signs_from),
        "signs_until": _time(key.signs_until),
        "record_until": _time(key.keep_until),
        "name": key.name,
        "record": key.text,
    }


def _told(made: list[DKIMKey], text: str) -> None:
    """Say what was made, and what is to be published."""
    out = the_invocation().out
    if out.as_json:
        out.rows([_facts(key) for key in made])
        return
    out.note(text)
    for key in made:
        click.echo(zone_line(key.name, key.text))


@dkim.command("list")
@click.argument("name", metavar="[DOMAIN]", required=False)
@on_store()
async def list_keys(store: Store, name: str | None) -> None:
    """Keys of DOMAIN, or of all domains."""
    names = [await _domain(store, name)] if name else [each.name for each in await store.directory.domains()]
    keys = _keys(store)
    rows = [_facts(key) for each in names for key in await keys.of(each)]
    the_invocation().out.rows(rows, ("domain", "selector", "type", "bits", "state", "signs_from", "signs_until"))


@dkim.command("show")
@click.argument("name", metavar="DOMAIN")
@on_store()
async def show(store: Store, name: str) -> None:
    """What is to stand in the DNS for DOMAIN, as lines for a zone file."""
    wanted = await _domain(store, name)
    keys = list(await _keys(store).of(wanted))
    if not keys:
        raise Problem(Status.NOT_FOUND, "not-found", f"{wanted} has no keys: make them with `mailctl dkim add {wanted}`")
    _told(keys, f"{len(keys)} records for {wanted}:")


@dkim.command("add")
@click.argument("name", metavar="DOMAIN")
@click.option("--type", "type_", type=click.Choice(["both", *TYPES]), default="both", show_default=True)
@click.option("--bits", type=click.IntRange(1024, 8192), default=2048, show_default=True, help="Of an RSA key.")
@click.option("--selector", default="", help="Its name in the DNS; otherwise made of its type and the day.")
@click.option(
    "--from-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take this private key (PEM or DER) instead of making one.",
)
@click.option("--after", "days", type=click.FloatRange(min=0), default=0.0, help="Sign with it after so many days only.")
@on_store()
async def add(
    store: Store, name: str, type_: str, bits: int, selector: str, from_file: Path | None, days: float
) -> None:
    """Make keys for DOMAIN: an RSA one that every receiver reads, and an Ed25519 one that is short and fast."""
    wanted = await _domain(store, name)
    given = _read_key(from_file) if from_file is not None else None
    types = [given.type] if given is not None else [type for type in TYPES if type_ in ("both", type)]
    if selector and len(types) > 1:
        raise Problem(Status.USAGE, "usage", "a selector is for one key: add --type rsa or --type ed25519")
    keys = _keys(store, bits)
    starts = time.time() + days * DAY
    try:
        made = [await keys.add(wanted, type, selector=selector, key=given, signs_from=starts) for type in types]
    except KeyExists as error:
        raise Problem(Status.CONFLICT, "exists", str(error)) from error
    except ValueError as error:
        raise Problem(Status.USAGE, "usage", str(error)) from error
    _told(made, f"publish for {wanted}:")


def _read_key(path: Path) -> PrivateKey:
    try:
        with path.open("rb") as file:
            return PrivateKey.load(file.read(LARGEST_KEY_FILE))
    except (OSError, BadKey) as error:
        raise Problem(Status.USAGE, "usage", f"{path}: {error}") from error


@dkim.command("rotate")
@click.argument("name", metavar="DOMAIN")
@click.option(
    "--after",
    "days",
    type=click.FloatRange(min=0),
    default=3.0,
    show_default=True,
    help="Days to publish the new records in; then the new keys sign.",
)
@on_store()
async def rotate(store: Store, name: str, days: float) -> None:
    """Make new keys for DOMAIN, which sign after some days; then the old ones end, and their records stay for a month.

    While new keys wait for their day it shows them again.
    """
    wanted = await _domain(store, name)
    made = list(await _keys(store).rotate(wanted, publish_seconds=days * DAY))
    _told(made, f"publish for {wanted} before {_time(made[0].signs_from)}, and keep the old records for a month after it:")


@dkim.command("retire")
@click.argument("name", metavar="DOMAIN")
@click.argument("selector")
@asks("Stop signing for {name} with the key {selector}?")
@on_store()
async def retire(store: Store, name: str, selector: str) -> None:
    """Stop signing with a key at once; its record should stay for a month."""
    wanted = await _domain(store, name)
    retired = await _keys(store).retire(wanted, selector)
    if retired is None:
        raise Problem(Status.NOT_FOUND, "not-found", f"{wanted} has no key {selector}")
    out = the_invocation().out
    keys = await _keys(store).of(wanted)
    if not any(key.state(time.time()) is State.SIGNING for key in keys):
        out.note(f"note: {wanted} has no key that signs any more")
    out.done(f"{wanted}: {selector} signs no more; keep its record until {_time(retired.keep_until)}", **_facts(retired))


@dkim.command("delete")
@click.argument("name", metavar="DOMAIN")
@click.argument("selector")
@asks("Forget the key {selector} of {name}? Mail that it signed may not be verified any more.")
@on_store()
async def delete(store: Store, name: str, selector: str) -> None:
    """Forget a key at once, one that was stolen for instance; take its record out of the DNS too."""
    wanted = await _domain(store, name)
    keys = _keys(store)
    found = [key for key in await keys.of(wanted) if key.selector == selector]
    if not found:
        raise Problem(Status.NOT_FOUND, "not-found", f"{wanted} has no key {selector}")
    await keys.delete(wanted, selector)
    the_invocation().out.done(f"{wanted}: {selector} deleted", domain=wanted, selector=selector, deleted=True)


_WORDS: Final = {
    Publication.PUBLISHED: "published",
    Publication.MISSING: "not published",
    Publication.DIFFERENT: "another record is published",
    Publication.UNKNOWN: "the DNS does not answer",
}


def _finding(each: Published) -> dict[str, Any]:
    key = each.key
    return {
        "domain": key.domain,
        "selector": key.selector,
        "state": each.state.value,
        "dns": each.found.value,
        "ok": each.found is Publication.PUBLISHED,
        "seen": each.seen or None,
        "says": _WORDS[each.found],
        "name": key.name,
    }


@dkim.command("check")
@click.argument("name", metavar="DOMAIN")
@click.option("--server", metavar="ADDRESS", help="The resolver to ask; otherwise the system's.")
@on_store()
async def check(store: Store, name: str, server: str | None) -> None:
    """Compare what the DNS has with the keys of DOMAIN. Exit status 1: what is signed cannot be verified."""
    wanted = await _domain(store, name)
    found = await _keys(store).check(wanted, dns_of(store.reactor, server))
    out = the_invocation().out
    out.rows([_finding(each) for each in found], ("selector", "state", "says", "name"))
    if not found:
        raise Problem(Status.NOT_FOUND, "not-found", f"{wanted} has no keys: make them with `mailctl dkim add {wanted}`")
    if any(each.found is Publication.UNKNOWN for each in found):
        raise Problem(Status.TEMPORARY, "no-answer", "the DNS does not answer")
    if any(each.wrong for each in found):
        raise Problem(Status.FAILED, "not-published", f"publish what `mailctl dkim show {wanted}` prints")
