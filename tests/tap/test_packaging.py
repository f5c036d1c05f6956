"""What is in the wheel, and that linked rooms have one name only (docs/decisions/0001)."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from tests.tap.installation import ROOT, build_wheel

_PYTHON = ("*.py", "*.sql", "py.typed")


def files_of(folder: str) -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for pattern in _PYTHON
        for path in (ROOT / folder).rglob(pattern)
        if "__pycache__" not in path.parts and not path.is_symlink()
    }


def test_the_wheel_has_every_module_in_its_place_and_nothing_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(build_wheel(tmp_path)) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        entry_points = next(wheel.read(name).decode() for name in wheel.namelist() if name.endswith("entry_points.txt"))
        metadata = next(wheel.read(name).decode() for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    linked = {name for name in files_of("twisted_mail") if name.split("/")[1] in ("storage", "tap")}
    expected = files_of("twisted_mail") - linked
    expected |= {f"twisted_mail/{name}" for name in files_of("storage") | files_of("tap")}
    expected |= {"twisted/plugins/mail_suite.py"}
    assert expected <= names, expected - names
    assert {name.split("/")[0] for name in names} == {"twisted_mail", "twisted"}
    assert {name for name in names if name.startswith("twisted/")} == {"twisted/plugins/mail_suite.py"}
    assert not [name for name in names if name.endswith((".pyc", "dropin.cache"))]
    assert "mailctl = twisted_mail.admin:main" in entry_points
    for scheme in ("file", "memory", "sqlite"):
        assert f"\n{scheme} = twisted_mail.storage." in entry_points
    assert "Name: twisted-mail-suite\n" in metadata
    assert "License-Expression: MIT\n" in metadata


def test_a_linked_room_refuses_its_short_name() -> None:
    for room in ("storage", "tap"):
        done = subprocess.run(
            [sys.executable, "-c", f"import {room}"], capture_output=True, text=True, cwd=ROOT, timeout=60
        )
        assert done.returncode == 1
        assert f"ImportError: import this package as twisted_mail.{room}" in done.stderr


def test_tap_leaves_a_reactor_alone_that_is_there_already() -> None:
    code = (
        "from twisted.internet import selectreactor; selectreactor.install()\n"
        "from twisted.internet import reactor\n"
        "import twisted_mail.tap\n"
        "assert type(reactor).__name__ == 'SelectReactor', reactor\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/", timeout=60)


def test_nothing_that_tap_imports_touches_the_reactor_at_module_level() -> None:
    code = (
        "import pkgutil, sys\n"
        "class Tripwire:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'twisted.internet.reactor':\n"
        "            raise AssertionError('the reactor is imported at module level')\n"
        "sys.meta_path.insert(0, Tripwire())\n"
        "import twisted.internet.asyncioreactor as installer\n"
        "installer.install = lambda: None\n"
        "import twisted_mail.tap\n"
        "for each in pkgutil.iter_modules(twisted_mail.tap.__path__, 'twisted_mail.tap.'):\n"
        "    __import__(each.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", timeout=60)
    assert done.returncode == 0, done.stderr
