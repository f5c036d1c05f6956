"""What an ``s3:`` URL says."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from twisted_mail.storage.s3.sealing import Keyring

__all__ = ["Settings", "parse"]

V = TypeVar("V")

OPTIONS: Final = {
    "addressing",
    "ca",
    "credentials",
    "encryption",
    "prefix",
    "region",
    "threads",
    "timeout",
    "tls",
}
USAGE: Final = "s3://KEY:SECRET@HOST:PORT/BUCKET?tls=…"


@dataclass(frozen=True, slots=True)
class Settings:
    """An object store, and how it is used."""

    endpoint: str
    bucket: str
    key: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    """Both empty: the driver finds them in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."""
    region: str = "us-east-1"
    prefix: str = ""
    """Empty, or with a slash at its end."""
    threads: int = 32
    timeout_seconds: float = 10.0
    """How long a call is repeated while the store fails; large bodies get a second more for each MiB."""
    addressing: str = "path"
    authorities: str | None = None
    """A file with the authorities to trust, where they are not the driver's."""
    keyring: Keyring | None = None

    @property
    def place(self) -> str:
        """For operators: where the objects lie."""
        return f"the bucket {self.bucket} at {self.endpoint}"


def parse(url: str, folder: Path) -> Settings:
    """Read *url*; files that it names relatively start from *folder*. Raises: ValueError, which never shows a secret."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        given = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query), max_num_fields=50))
    except ValueError:
        raise ValueError(f"the object store's URL cannot be read; it is written {USAGE}") from None
    unknown = set(given) - OPTIONS
    if unknown:
        raise ValueError(f"the object store's URL: no such option: {', '.join(sorted(unknown))}")
    bucket = unquote(parts.path).strip("/")
    if not host or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}", bucket) or parts.fragment:
        raise ValueError(f"the object store's URL needs a host and the name of one bucket: {USAGE}")
    tls = _choice(given, "tls", {"true": True, "false": False})
    shown = f"[{host}]" if ":" in host else host
    key, secret = _credentials(parts.username, parts.password, given.get("credentials"), folder)
    prefix = given.get("prefix", "").strip("/")
    if not re.fullmatch(r"[A-Za-z0-9._/-]{0,200}", prefix):
        raise ValueError("the object store's prefix has letters, digits and ./_- only, at most 200 of them")
    return Settings(
        endpoint=f"{'https' if tls else 'http'}://{shown}" + (f":{port}" if port is not None else ""),
        bucket=bucket,
        key=key,
        secret=secret,
        region=given.get("region", "us-east-1"),
        prefix=prefix + "/" if prefix else "",
        threads=int(_number(given, "threads", "32", 1, 512)),
        timeout_seconds=_number(given, "timeout", "10", 0.5, 600),
        addressing=_choice(given, "addressing", {"path": "path", "virtual": "virtual"}),
        authorities=str(folder / given["ca"]) if "ca" in given else None,
        keyring=_keyring(given.get("encryption", "off"), folder),
    )


def _choice(given: dict[str, str], name: str, values: dict[str, V]) -> V:
    text = given.get(name, next(iter(values)))
    if text not in values:
        raise ValueError(f"the object store's option {name} is one of {', '.join(values)}")
    return values[text]


def _number(given: dict[str, str], name: str, default: str, least: float, most: float) -> float:
    try:
        number = float(given.get(name, default))
    except ValueError:
        number = float("nan")
    if not least <= number <= most:
        raise ValueError(f"the object store's option {name} is a number from {least:g} to {most:g}")
    return number


def _credentials(user: str | None, password: str | None, where: str | None, folder: Path) -> tuple[str, str]:
    """The access key and its secret; empty when the driver is to look into the environment."""
    if user and password:
        if where is not None:
            raise ValueError("the object store's URL has credentials; credentials= names others")
        return unquote(user), unquote(password)
    if user or password:
        raise ValueError("the object store's URL has an access key or a secret, and not both")
    if where in (None, "env"):
        return "", ""
    text = _file(where, "credentials", folder)
    words = re.sub(r"(?m)#.*$", "", text).replace(":", " ").split()
    if len(words) != 2:
        raise ValueError("the object store's file of credentials has the access key and the secret, and nothing else")
    return words[0], words[1]


def _keyring(where: str, folder: Path) -> Keyring | None:
    if where == "off":
        return None
    if where.startswith("keys:"):
        return Keyring.parse(where.removeprefix("keys:"))
    return Keyring.parse(_file(where, "encryption", folder))


def _file(where: str | None, option: str, folder: Path) -> str:
    if where is None or not where.startswith("file:"):
        other = "env" if option == "credentials" else "off or keys:KEY,KEY"
        raise ValueError(f"the object store's option {option} is file:PATH, {other}")
    try:
        return (folder / where.removeprefix("file:")).read_text("ascii")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ValueError(f"the object store's file of {option} cannot be read: {reason}") from None
