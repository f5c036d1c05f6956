"""The doctor's look at listeners: whether each can be bound, or is answered already, and by what."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from pathlib import Path
from typing import Final

from twisted_mail.admin.findings import Finding
from twisted_mail.tap.proxied import bare
from twisted_mail.tap.settings import Configuration, listeners_of

__all__ = ["endpoint_parts", "greeting", "look"]

SECONDS: Final = 3.0
IMPLICIT_TLS: Final = ("submissions", "imaps", "pop3s")
GREETINGS: Final = {
    "imap": b"* OK", "pop3": b"+OK", "smtp": b"220", "submission": b"220", "lmtp": b"220",
    "managesieve": b'"IMPLEMENTATION"',
}  # fmt: skip


_LOCAL: Final = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
"""The PROXY header of a proxy that speaks for itself (LOCAL)."""


def endpoint_parts(text: str) -> tuple[str, list[str], dict[str, str]]:
    r"""Kind, arguments and named arguments of a Twisted endpoint string, ``\`` taken off."""
    words = [re.sub(r"\\(.)", r"\1", word) for word in re.split(r"(?<!\\):", text)]
    named = {}
    plain = []
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if equals:
            named[name] = value
        else:
            plain.append(word)
    return words[0], plain, named


def greeting(kind: str, address: tuple[str, int] | str, seconds: float = SECONDS, *, proxied: bool = False) -> bytes:
    """The first line that the service *kind* says; empty octets if it says nothing. *proxied*: to a proxy, which asks for
    itself. Raises OSError."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as plain:
        plain.settimeout(seconds)
        plain.connect(address)
        if proxied:
            plain.sendall(_LOCAL)
        end = plain
        if kind in IMPLICIT_TLS:
            # only whether it answers is asked: a self-signed certificate is answer enough
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            end = context.wrap_socket(plain, server_hostname="localhost")
        try:
            return end.recv(512).partition(b"\r\n")[0]
        finally:
            end.close()


def look(configuration: Configuration) -> list[Finding]:
    """A finding for each listener of mail that this node opens (that for probes has no greeting to look at)."""
    return [
        _listener(name, text)
        for name in listeners_of(configuration)
        if name != "metrics"
        for text in getattr(configuration.listen, name)
    ]


def _listener(name: str, text: str) -> Finding:
    kind, plain, named = endpoint_parts(bare(text))
    proxied = text != bare(text)
    if kind == "unix":
        return _unix(name, text, Path(plain[0] if plain else named.get("address", "")), proxied=proxied)
    port = plain[0] if plain else named.get("port", "")
    if kind not in ("tcp", "tcp6") or not port.isdigit():
        return Finding("ports.unknown", "ok", f"{name}: {text} is not looked at")
    interface = named.get("interface", "")
    family = socket.AF_INET6 if kind == "tcp6" or ":" in interface else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((interface, int(port)))
            return Finding("ports.free", "ok", f"{name}: port {port} is free: nothing listens yet")
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                local = interface if interface not in ("", "0.0.0.0", "::") else "::1" if family == socket.AF_INET6 else "127.0.0.1"
                return _answered(name, f"port {port}", (local, int(port)), proxied=proxied)
            if error.errno in (errno.EACCES, errno.EPERM):
                return Finding("ports.privileged", "warning", f"{name}: port {port} may only be bound by root",
                               "start as root with twistd's --uid, or give the socket by systemd")  # fmt: skip
            return Finding("ports.address", "error", f"{name}: {text}: {error.strerror}",
                           "name an address that this machine has")  # fmt: skip


def _unix(name: str, text: str, path: Path, *, proxied: bool) -> Finding:
    if path.is_socket():
        return _answered(name, str(path), str(path), proxied=proxied)
    if not path.parent.is_dir():
        return Finding("ports.folder", "error", f"{name}: {text}: there is no folder {path.parent}", f"mkdir {path.parent}")
    return Finding("ports.free", "ok", f"{name}: {path} is not there yet: nothing listens")


def _answered(name: str, place: str, address: tuple[str, int] | str, *, proxied: bool) -> Finding:
    remedy = "stop what listens there, or give this listener another port"
    try:
        said = greeting(name, address, proxied=proxied)
    except OSError as error:
        if not (proxied and isinstance(error, (ConnectionResetError, ssl.SSLEOFError))):
            return _silent(name, place, address, error, remedy)
        said = b""
    if proxied and not said:
        return Finding("ports.proxied", "ok", f"{name}: {place} answers proxies of smtp.trusted only: it is not looked at")
    expected = GREETINGS.get(name.removesuffix("s") if name in IMPLICIT_TLS else name, b"")
    if said.startswith(expected):
        return Finding("ports.answers", "ok", f"{name}: {place} answers: {said.decode('utf-8', 'replace')[:60]}")
    return Finding("ports.taken", "error", f"{name}: {place} is in use by something else", remedy)


def _silent(name: str, place: str, address: tuple[str, int] | str, error: OSError, remedy: str) -> Finding:
    if isinstance(address, str):
        return Finding("ports.stale", "ok", f"{name}: {place} is left over: nothing listens there")
    return Finding("ports.taken", "error", f"{name}: {place} is in use, and does not answer: {error}", remedy)
