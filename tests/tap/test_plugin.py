"""``twistd mail`` and ``twist mail`` are ours, whichever way the suite is installed (docs/decisions/0002)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tap.installation import ROOT, Installation, build_wheel

OURS = "The Twisted mail suite"
BUILT_IN = "An email service"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation(tmp_path_factory.mktemp("environment"))


@pytest.fixture(params=["wheel", "editable"])
def what(request: pytest.FixtureRequest, wheel: Path) -> Iterator[tuple[object, ...]]:
    yield (wheel,) if request.param == "wheel" else ("-e", ROOT)


def assert_ours(environment: Installation) -> None:
    for command in ("twistd", "twist"):
        for _ in range(2):  # the second run finds the plugin cache that the first has written
            assert OURS in environment.twisted(command, "mail", "--help"), command


@pytest.mark.parametrize("stale", [False, True], ids=["no-cache", "cache-from-before"])
def test_ours_runs_and_the_built_in_returns_afterwards(
    environment: Installation, what: tuple[object, ...], stale: bool
) -> None:
    environment.plugin_cache.unlink(missing_ok=True)
    if stale:
        assert BUILT_IN in environment.twisted("twistd", "--help")
        assert environment.plugin_cache.exists()
    environment.install(*what)
    try:
        assert_ours(environment)
        assert BUILT_IN in environment.twisted("twistd", "--help"), "Twisted's own is still there, by another name"
        assert "twisted-mail" in environment.twisted("twistd", "--help")
    finally:
        environment.uninstall()
    assert OURS not in environment.twisted("twistd", "mail", "--help")
    assert BUILT_IN in environment.twisted("twistd", "--help")


def test_ours_runs_from_a_read_only_installation_with_an_old_cache(environment: Installation, wheel: Path) -> None:
    site = environment.site
    script = f'mount --bind "{site}" "{site}" && mount -o remount,bind,ro "{site}" && exec "$@"'
    alone = ["unshare", "--mount", "sh", "-c", script, "sh"]
    probe = subprocess.run([*alone, "touch", str(site / "probe")], capture_output=True, text=True)
    if os.geteuid() != 0 or "Read-only file system" not in probe.stderr:
        pytest.skip("a read-only mount needs root")
    environment.plugin_cache.unlink(missing_ok=True)
    environment.twisted("twistd", "--help")
    before = environment.plugin_cache.read_bytes()
    environment.install(wheel)
    try:
        for command in ("twistd", "twist"):
            assert OURS in environment.run(*alone, environment.folder / "bin" / command, "mail", "--help")
        assert environment.plugin_cache.read_bytes() == before
    finally:
        environment.uninstall()


def test_the_asyncio_reactor_is_the_default_and_reactor_chooses_another(tmp_path: Path) -> None:
    (tmp_path / "mail.toml").write_text('listen.imap = ["tcp:nonsense"]\n')
    for chosen, module in ((None, "asyncioreactor"), ("epoll", "epollreactor"), ("asyncio", "asyncioreactor")):
        code = (
            "import sys, atexit\n"
            "def show(): print([m for m in sys.modules if m.startswith('twisted.internet.') and m.endswith('reactor')])\n"
            "atexit.register(show)\n"
            "from twisted.scripts.twistd import run\n"
            f"sys.argv = ['twistd', *{['--reactor', chosen] if chosen else []!r}, 'mail', '--config', 'mail.toml']\n"
            "run()\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60)
        assert done.returncode == 1, done
        others = {"asyncioreactor", "epollreactor"} - {module}
        assert f"twisted.internet.{module}" in done.stdout
        assert not any(f"twisted.internet.{other}" in done.stdout for other in others), (chosen, done.stdout)


def test_the_plugin_module_is_light() -> None:
    code = (
        "import sys\n"
        "from twisted.plugins import mail_suite\n"
        "assert mail_suite.mail.tapname == 'mail'\n"
        "heavy = [m for m in sys.modules if m.startswith('twisted_mail') or m == 'twisted.internet.reactor']\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/", timeout=60)
