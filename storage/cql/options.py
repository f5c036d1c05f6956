"""What the URL of a CQL cluster says: ``cql://user:password@host1,host2:9042/keyspace?option=value``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

__all__ = ["Options", "parse_url"]

DEFAULT_PORT: Final = 9042
KEYSPACE: Final = re.compile(r"[a-z][a-z0-9_]{0,47}")
"""What both servers take without quotes (at most 48 characters)."""
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
CONSISTENCIES: Final = ("LOCAL_QUORUM", "QUORUM", "EACH_QUORUM", "ALL")
"""Anything weaker loses mail when a node dies."""
KIB: Final = 1024


@dataclass(frozen=True, slots=True)
class Options:
    """The checked settings of one cluster."""

    hosts: tuple[str, ...]
    port: int = DEFAULT_PORT
    keyspace: str = "mail"
    user: str = ""
    password: str = field(default="", repr=False)
    datacenter: str = ""
    """The one whose nodes are asked; empty: that of the contact points."""
    replication: Mapping[str, int] = field(default_factory=dict)
    """Copies by data centre; ``""`` is the local one. Used when the keyspace is made, never to change one."""
    consistency: str = "LOCAL_QUORUM"
    """Of plain reads and writes; conditional ones agree at LOCAL_SERIAL."""
    stale_reads: bool = True
    """While no quorum answers, a read may be answered by one replica, and is marked so."""
    tls: bool = False
    ca: str = ""
    certificate: str = ""
    key: str = ""
    check_hostname: bool = True
    timeout: float = 5.0
    """Seconds until a request is given up."""
    in_flight: int = 256
    """Requests of this node that may be under way."""
    in_flight_per_account: int = 32
    waiting: int = 20_000
    """Requests of this node that may wait for their turn; beyond, they are refused."""
    tablets: bool | None = None
    """For a new keyspace on ScyllaDB; None: only where the server's tablets know lightweight transactions."""
    durable_writes: bool = True
    append_bytes: int = 1024 * KIB
    """Octets of entries in one append."""
    entry_bytes: int = 8 * 1024 * KIB
    """Octets of a single entry: a mutation must stay below half of the server's commit log segment."""

    @property
    def copies(self) -> int:
        """How many replicas there are where we are."""
        return self.replication.get(self.datacenter) or self.replication.get("") or 3


def _boolean(text: str) -> bool:
    values = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in values:
        raise ValueError("true or false wanted")
    return values[text.lower()]


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise ValueError(f"a number from {low} to {high} wanted")
        return int(text)

    return read


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 300:
        raise ValueError("seconds from 0.1 to 300 wanted")
    return value


def _consistency(text: str) -> str:
    if text.upper() not in CONSISTENCIES:
        raise ValueError(f"one of {', '.join(CONSISTENCIES)} wanted")
    return text.upper()


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise ValueError("a name wanted")
    return text


def _replication(text: str) -> dict[str, int]:
    """``3``, or ``dc1:3,dc2:2``."""
    copies: dict[str, int] = {}
    for part in text.split(","):
        name, colon, number = part.rpartition(":")
        if bool(colon) != bool(name) or (name and not NAME.fullmatch(name)) or name in copies:
            raise ValueError("a number, or datacenter:number with commas between, wanted")
        copies[name] = _whole(1, 9)(number)
    if "" in copies and len(copies) > 1:
        raise ValueError("either one number, or a number for each data centre")
    return copies


def _path(text: str) -> str:
    if not text:
        raise ValueError("a file name wanted")
    return text


READ: Final[Mapping[str, Callable[[str], Any]]] = {
    "datacenter": _name,
    "replication": _replication,
    "consistency": _consistency,
    "stale_reads": _boolean,
    "tls": _boolean,
    "ca": _path,
    "certificate": _path,
    "key": _path,
    "check_hostname": _boolean,
    "timeout": _seconds,
    "in_flight": _whole(1, 10_000),
    "in_flight_per_account": _whole(1, 10_000),
    "waiting": _whole(1, 1_000_000),
    "tablets": _boolean,
    "durable_writes": _boolean,
    "append_bytes": _whole(64 * KIB, 16 * 1024 * KIB),
    "entry_bytes": _whole(64 * KIB, 64 * 1024 * KIB),
}
"""Each option of the query with what reads it; the results are fields of `Options`, hence Any."""


def _hosts(text: str) -> tuple[tuple[str, ...], int]:
    """``a,b:9042`` and ``[::1]:9042``; one port for all."""
    hosts: list[str] = []
    ports: set[int] = set()
    for part in text.split(","):
        bracketed = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::(.*))?", part)
        host, port = (bracketed[1], bracketed[2]) if bracketed else (part.partition(":")[0], part.partition(":")[2])
        if not host or host in hosts or re.search(r"[\s/]", host):
            raise ValueError(f"hosts: {part!r} is not a host, or is named twice")
        hosts.append(host)
        if port:
            try:
                ports.add(_whole(1, 65535)(port))
            except ValueError as error:
                raise ValueError(f"port: {error}") from None
    if len(ports) > 1:
        raise ValueError("port: all nodes of a cluster listen on one port")
    return tuple(hosts), ports.pop() if ports else DEFAULT_PORT


def parse_url(url: str, more: Mapping[str, str] | None = None) -> Options:
    """Read *url*; *more* are options from elsewhere, which those in the URL override and whose unknown ones are others'.

    Raises: ValueError that names what is wrong; passwords are not in its text.
    """
    parts = urlsplit(url)
    if parts.scheme.lower() != "cql" or parts.fragment:
        raise ValueError("a cluster is written cql://user:password@host1,host2:9042/keyspace?datacenter=dc1")
    login, _, where = parts.netloc.rpartition("@")
    if not where:
        raise ValueError("hosts: at least one node of the cluster must be named")
    hosts, port = _hosts(where)
    user, _, password = login.partition(":")
    if password and not user:
        raise ValueError("user: there is a password and no user")
    keyspace = parts.path.strip("/") or "mail"
    if not KEYSPACE.fullmatch(keyspace):
        raise ValueError(f"keyspace: {keyspace!r} is not a name of lower-case letters, digits and _ (at most 48)")
    given: dict[str, str] = {}
    try:
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise ValueError("options: name=value with & between wanted") from error
    for name, text in pairs:
        if name in given:
            raise ValueError(f"{name}: it is given twice")
        if name not in READ:
            raise ValueError(f"{name}: no such option of cql; there are {', '.join(sorted(READ))}")
        given[name] = text
    values: dict[str, Any] = {}
    for name, text in {**{name: text for name, text in (more or {}).items() if name in READ}, **given}.items():
        try:
            values[name] = READ[name](text)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    if not values.get("tls"):
        for name in ("ca", "certificate", "key"):
            if name in values:
                raise ValueError(f"{name}: it needs tls=true")
    if ("key" in values) != ("certificate" in values):
        raise ValueError("certificate: it and key need each other")
    return Options(hosts, port, keyspace, unquote(user), unquote(password), **values)
