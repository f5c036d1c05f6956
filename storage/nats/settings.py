"""What a ``nats://`` URL says."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

__all__ = ["Settings"]

DEFAULT_PORT: Final = 4222
_LEGAL: Final = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


@dataclass(frozen=True, slots=True)
class Settings:
    """Of one engine; times are in seconds."""

    servers: tuple[str, ...]
    """``host:port`` of each."""
    prefix: str = "mail"
    """Begins the names of all streams and subjects, so that several installations can share servers."""
    replicas: int | None = None
    """Of each stream. None: 3 where the cluster has three servers, else 1."""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    tls: bool = False
    ca: str | None = None
    """A file of certificates that the servers' are signed with; None: the system's."""
    start: float = 5.0
    """How long `start` waits for a server."""
    attempt: float = 1.0
    """How long one try of a request may take before it is made again."""
    request: float = 10.0
    """How long a request may take with all its repetitions. A stream that lost its leader has a new one after 4 to 9 s."""
    requests: int = 256
    """Requests in flight at the same time; more of them wait."""
    shards: int = 64
    """Of each queue; a stream keeps the number that it was made with."""
    ack_wait: float = 60.0
    """After so long without a sign of life the servers give an item to another process; no less than workers lease for."""
    attempts: int = 100
    """After so many leases an item is held; after a release, after so many more. 0: never."""
    items: int = 5_000_000
    """Of one queue; beyond that it takes no more."""
    duplicates: float = 120.0
    """How long the servers recognise an item that is put again."""
    bodies: int = 1024**3
    """Octets of bodies that are kept while the object store is down."""
    cache: int = 64 * 1024**2
    """Octets of the shared cache."""

    @classmethod
    def parse(cls, url: str, options: Mapping[str, str]) -> Settings:
        """Read ``nats://[user:password@]host[:port][,host[:port]…]/[?name=value&…]``; *options* add to the query.

        Raises: ValueError, which names what is wrong.
        """
        parts = urlsplit(url)
        login, _, hosts = parts.netloc.rpartition("@")
        if parts.scheme not in ("nats", "tls") or not hosts or parts.path not in ("", "/") or parts.fragment:
            raise ValueError("a NATS URL is nats://host:port,host:port?name=value")
        # a URL may hold what is secret: no error repeats it
        own = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        # *options* come from elsewhere: those of other engines are among them
        given = {name: text for name, text in options.items() if name in _TEXT | _WHOLE | _SECONDS | {"tls"}} | own
        values: dict[str, object] = {"servers": tuple(_server(host) for host in hosts.split(","))}
        if parts.scheme == "tls":
            values["tls"] = True
        if login:
            user, colon, password = login.partition(":")
            values.update({"user": unquote(user), "password": unquote(password)} if colon else {"token": unquote(user)})
        for name, text in given.items():
            values[name] = _value(name, text)
        settings = cls(**values)  # type: ignore[arg-type]  # _value has looked at each
        if not settings.prefix or not set(settings.prefix) <= _LEGAL:
            raise ValueError("prefix has letters, digits, - and _ only")
        if settings.replicas not in (None, 1, 3, 5):
            raise ValueError("replicas are 1, 3 or 5")
        if not 1 <= settings.shards <= 64:
            raise ValueError("there are 1 to 64 shards")
        return settings

    def ssl(self) -> ssl.SSLContext | None:
        """Raises: OSError when the file of certificates cannot be read."""
        return ssl.create_default_context(cafile=self.ca) if self.tls or self.ca else None


def _server(host: str) -> str:
    parts = urlsplit(f"//{host}")
    try:
        name, port = parts.hostname, parts.port
    except ValueError:
        name, port = None, None
    if not name:
        raise ValueError("a server is host or host:port")
    return f"[{name}]:{port or DEFAULT_PORT}" if ":" in name else f"{name}:{port or DEFAULT_PORT}"


_TEXT: Final = {"prefix", "user", "password", "token", "ca"}
_WHOLE: Final = {"replicas", "requests", "shards", "attempts", "items", "bodies", "cache"}
_SECONDS: Final = {"start", "attempt", "request", "ack_wait", "duplicates"}


def _value(name: str, text: str) -> object:
    if name in _TEXT:
        return text
    if name == "tls":
        if text.lower() not in ("true", "false"):
            raise ValueError("tls is true or false")
        return text.lower() == "true"
    try:
        if name in _WHOLE:
            number: int | float = int(text)
            least: float = 0 if name == "attempts" else 1
        elif name in _SECONDS:
            number, least = float(text), 0.1
        else:
            raise ValueError(f"a NATS URL has no setting {name}")
        if not least <= number < 1e15:
            raise ValueError(f"{name} is at least {least:g}")
    except ValueError as error:
        if str(error).startswith(("a NATS", name)):
            raise
        raise ValueError(f"{name} is a number") from error
    return number
