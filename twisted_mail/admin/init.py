"""``mailctl init``: from nothing to a server that can be started."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from twisted_mail.admin.importing import Importer
from twisted_mail.admin.invocation import Command, the_invocation
from twisted_mail.admin.opening import Store, check_address, check_domain, opened
from twisted_mail.admin.passwords import generate
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.admin.running import run
from twisted_mail.admin.samples import samples
from twisted_mail.admin.users import create_user
from twisted_mail.relay.dkim_keys import DKIMKeys
from twisted_mail.storage.interfaces import Alias, Domain
from twisted_mail.tap.configuration import load

__all__ = ["DEV_PORTS", "PORTS", "Made", "configuration_text", "init", "loopback", "make", "put_samples"]

PORTS: Final[Mapping[str, int]] = {
    "smtp": 25, "submission": 587, "submissions": 465, "imap": 143, "imaps": 993, "pop3": 110, "pop3s": 995,
    "managesieve": 4190,
}  # fmt: skip
"""The ports that the RFCs gave to the services (RFC 8314, RFC 6409, RFC 5321, RFC 5804)."""
DEV_PORTS: Final[Mapping[str, int]] = {
    "smtp": 8025, "submission": 8587, "submissions": 8465, "lmtp": 8024,
    "imap": 8143, "imaps": 8993, "pop3": 8110, "pop3s": 8995, "managesieve": 8419,
}  # fmt: skip
"""High ports, for which nobody needs to be root."""
NEEDED: Final = ("postmaster", "abuse")
"""Addresses that each domain must have (RFC 2142, RFC 5321 section 4.5.1); they stand for the first user."""


@dataclass(frozen=True, slots=True)
class Made:
    """What was made."""

    configuration: Path
    passwords: dict[str, str]
    """Address to generated password, of each user that is new."""


def loopback(ports: Mapping[str, int]) -> dict[str, str]:
    """Endpoints on loopback only."""
    return {name: f"tcp:{port}:interface=127.0.0.1" for name, port in ports.items()}


def configuration_text(
    hostname: str, listen: Mapping[str, str], data: str = "mail-data", *, relay: bool = False
) -> str:
    """A mail.toml. *relay*: mail for other domains leaves."""
    lines = [
        "# Every other setting has a default: docs/reference/configuration.md has them all.",
        f"hostname = {json.dumps(hostname)}",
        f"data = {json.dumps(data)}",
        "",
        "[listen]                              # a service that is left out does not listen",
        *(f"{name} = [{json.dumps(endpoint)}]" for name, endpoint in listen.items()),
        "",
        "[tls]                                 # none given: a self-signed pair is made at the first start",
        '# certificate = "/etc/ssl/mail/fullchain.pem"',
        '# key = "/etc/ssl/mail/privkey.pem"',
    ]
    if relay:
        lines += ["", "[relay]                               # who logs in may write to the world"]
    return "\n".join(lines) + "\n"


def write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet, whole or not at all. Raises Problem, OSError."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, "utf-8")
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise Problem(Status.CONFLICT, "exists", f"{path} exists: name another folder, or remove it first") from None
    finally:
        temporary.unlink()


async def put_samples(store: Store, address: str, others: Sequence[str], end: int, count: int) -> int:
    """Sample mail for a user, up to *end* (seconds since 1970); returns how many messages are new."""
    record = await store.user(address)
    async with store.account(record) as account:
        importer = Importer(store.accounts, account)
        by_mailbox: dict[str, list[Any]] = {}  # of samples, which are source messages; Any for the list's invariance
        for sample in samples(address, others, end=end, count=count):
            by_mailbox.setdefault(sample.mailbox, []).append(sample)
        for name, wanted in by_mailbox.items():
            await importer.run(name, wanted)
    return importer.report.imported


def make(
    folder: Path,
    domain: str,
    hostname: str,
    listen: Mapping[str, str],
    users: Sequence[str],
    *,
    sample_messages: int = 0,
    end: int | None = None,
    relay: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Made:
    """Write mail.toml and the store in *folder*: *domain*, *users* (local parts; the first is the postmaster), and
    sample mail for each. Raises Problem, ConfigurationError, OSError, StorageError."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mail.toml"
    if (folder / "mail-data").exists():
        raise Problem(Status.CONFLICT, "exists", f"{folder / 'mail-data'} exists: name another folder, or remove it first")
    addresses = [check_address(f"{each}@{domain}") for each in users]
    write_new(path, configuration_text(hostname, listen, relay=relay))
    configuration = load(path, os.environ if environment is None else environment)
    passwords = {address: generate() for address in addresses}

    async def fill(reactor: Any) -> None:
        async with opened(reactor, configuration, create=True) as store:
            await store.directory.add_domain(Domain(domain))
            await DKIMKeys(store.backend.records).begin(domain)
            for address in addresses:
                await create_user(store, address, passwords[address], name=address.partition("@")[0].capitalize())
            for local in NEEDED:
                if local not in users:
                    await store.directory.add_alias(Alias(f"{local}@{domain}", (addresses[0],)))
            for address in addresses:
                if sample_messages:
                    others = [other for other in addresses if other != address]
                    await put_samples(store, address, others, end or int(time.time()), sample_messages)

    try:
        run(fill)
    except BaseException:
        # a half-made server would stand in the way of the next attempt; what is in mail-data is for a person to judge
        path.unlink(missing_ok=True)
        raise
    return Made(path, passwords)


@click.command("init", cls=Command)
@click.argument("folder", required=False, default=".", type=click.Path(file_okay=False, path_type=Path), metavar="[DIR]")
@click.option("--domain", required=True, metavar="DOMAIN", help="The first domain that is ours.")
@click.option("--hostname", metavar="HOST", help="The name of this server, as its MX record has it. Default: mail.DOMAIN.")
@click.option("--admin", default="admin", show_default=True, metavar="NAME", help="The first user; gets the postmaster's mail.")
@click.option("--dev", is_flag=True, help="To try it: loopback, high ports, two sample users with sample mail.")
def init(folder: Path, domain: str, hostname: str | None, admin: str, dev: bool) -> None:
    """Make a server in DIR: mail.toml, the data folder, a domain and the first user with a password that is printed once.

    Then prints the next commands.
    """
    name = check_domain(domain)
    host = check_domain(hostname) if hostname is not None else f"mail.{name}"
    listen = loopback(DEV_PORTS) if dev else {service: f"tcp:{port}" for service, port in PORTS.items()}
    users = [admin, "ann", "bob"] if dev else [admin]
    made = make(folder, name, host, listen, list(dict.fromkeys(users)), sample_messages=60 if dev else 0, relay=not dev)
    first = f"{admin}@{name}"
    words = f"mailctl --config {made.configuration}"
    following = [
        f"twistd -n mail --config {made.configuration}",
        f"{words} user add you@{name}",
        f"{words} dkim show {name}",
        f"{words} doctor",
    ]
    out = the_invocation().out
    if out.as_json:
        out.one(
            {
                "configuration": str(made.configuration),
                "data": str(folder / "mail-data"),
                "domain": name,
                "hostname": host,
                "users": [{"user": user, "generated_password": word} for user, word in made.passwords.items()],
                "next": following,
            }
        )
        return
    out.text(f"made {made.configuration} and {folder / 'mail-data'}")
    for user, word in made.passwords.items():
        out.text(f"user {user} password: {word}" + (" (gets the postmaster's mail)" if user == first else ""))
    out.text("\nNext:")
    for line in following:
        out.text(f"    {line}")
