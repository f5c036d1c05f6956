"""Routes that an operator has written down: by domain, by suffix, or for everything (a smart host)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import unquote, urlsplit

from twisted_mail.dns.names import BadName, a_labels, is_host_name
from twisted_mail.relay.values import Login

__all__ = ["StaticRoute", "StaticRoutes", "parse_static_route"]

_PORTS: Final = {"smtp": 25, "smtps": 465, "lmtp": 24}
_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class StaticRoute:
    """Where to instead of the MX records."""

    host: str
    """A host name (A-labels), an IP address, or the path of a UNIX socket."""
    port: int = 25
    lmtp: bool = False
    unix: bool = False
    login: Login | None = None
    implicit_tls: bool = False

    @property
    def is_address(self) -> bool:
        try:
            ip_address(self.host)
        except ValueError:
            return False
        return True

    def __str__(self) -> str:
        if self.unix:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_static_route(url: str) -> StaticRoute:
    """``smtp://user:password@host:port``, ``smtps://…``, ``lmtp://host:port``, ``lmtp+unix:///path``.

    What is special in a URL is written ``%XX`` in user and password. Raises ValueError, whose text has no password in it.
    """
    shape = "smtp://[USER:PASSWORD@]HOST[:PORT], smtps://…, lmtp://HOST[:PORT] or lmtp+unix:///PATH"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"it is not of the form {shape}") from error
    if parts.query or parts.fragment:
        raise ValueError("a route has neither a query nor a fragment (write ? and # in a password as %3F and %23)")
    if parts.scheme == "lmtp+unix":
        if parts.netloc or not parts.path.startswith("/") or parts.path == "/":
            raise ValueError("a socket is named lmtp+unix:///PATH")
        return StaticRoute(unquote(parts.path), 0, lmtp=True, unix=True)
    if parts.scheme not in _PORTS or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError(f"it is not of the form {shape}")
    if port == 0:
        raise ValueError("there is no port 0")
    host = parts.hostname
    try:
        host = str(ip_address(host))
    except ValueError:
        try:
            host = a_labels(host)
        except BadName as error:
            raise ValueError("it has no host name in it that can be asked for") from error
        if not is_host_name(host):
            raise ValueError(f"{host} is no host name") from None
    return StaticRoute(
        host,
        port or _PORTS[parts.scheme],
        lmtp=parts.scheme == "lmtp",
        login=_login(parts.username, parts.password),
        implicit_tls=parts.scheme == "smtps",
    )


def _login(user: str | None, password: str | None) -> Login | None:
    if not user and not password:
        return None
    if not user or not password:
        raise ValueError("a login has a user and a password")
    if _PERCENT.search(user) or _PERCENT.search(password):
        raise ValueError("a % in user or password is written %25")
    return Login(unquote(user), unquote(password))


class StaticRoutes:
    """The table. The nearest entry counts: the domain itself, then the longest ``.suffix`` (what is below it, not the suffix
    itself), then ``*``."""

    def __init__(self, routes: Mapping[str, StaticRoute]) -> None:
        """Raises ValueError for a key that is none of these."""
        self._routes: dict[str, StaticRoute] = {}
        for key, route in routes.items():
            if key != "*" and not key.startswith("["):
                try:
                    key = "." + a_labels(key[1:]) if key.startswith(".") else a_labels(key)
                except BadName as error:
                    raise ValueError(f"{key!r} is neither a domain, nor a .suffix, nor *") from error
            self._routes[key.lower()] = route

    def __len__(self) -> int:
        return len(self._routes)

    def find(self, domain: str) -> StaticRoute | None:
        """*domain* in lower-case A-labels, or a literal."""
        if not self._routes:
            return None
        if route := self._routes.get(domain.lower()):
            return route
        if not domain.startswith("["):
            rest = domain
            while (dot := rest.find(".", 1)) > 0:
                rest = rest[dot:]
                if route := self._routes.get(rest):
                    return route
        return self._routes.get("*")
