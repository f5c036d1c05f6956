"""An environment of its own to install the suite into, made without the network.

Twisted itself is copied into it (its plugin cache must not be the one of the environment that the tests run in);
everything else is looked up in that environment's site-packages, whose .pth files do not count there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

import twisted

ROOT = Path(__file__).resolve().parents[2]

_SCRIPTS = {
    "twistd": "from twisted.scripts.twistd import run; run()",
    "twist": "from twisted.application.twist._twist import Twist; Twist.main()",
}


class Installation:
    """A virtual environment in *folder*."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder, with_pip=False, symlinks=True)
        self.python = folder / "bin" / "python"
        self.site = Path(self.run(self.python, "-c", "import site; print(site.getsitepackages()[0])").strip())
        package = Path(twisted.__file__).parent
        ignored = shutil.ignore_patterns("test", "__pycache__", "dropin.cache", "newsfragments")
        shutil.copytree(package, self.site / "twisted", ignore=ignored)
        (self.site / "around.pth").write_text(f"{package.parent}\n")
        for name, code in _SCRIPTS.items():
            script = folder / "bin" / name
            script.write_text(f"#!{self.python}\n{code}\n")
            script.chmod(0o755)

    @property
    def plugin_cache(self) -> Path:
        """The cache that twistd writes beside Twisted's own plugins."""
        return self.site / "twisted" / "plugins" / "dropin.cache"

    def run(self, *words: object) -> str:
        """The standard output of a command, which must succeed."""
        command = [str(word) for word in words]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=60, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def twisted(self, command: str, *words: str) -> str:
        """What ``twistd`` or ``twist`` prints."""
        return self.run(self.folder / "bin" / command, *words)

    def pip(self, *words: object) -> None:
        """Run pip on this environment."""
        self.run(sys.executable, "-m", "pip", "--python", self.python, "--disable-pip-version-check", *words)

    def install(self, *words: object) -> None:
        """``pip install`` of what needs neither the network nor a build environment of its own."""
        self.pip("install", "-q", "--no-deps", "--no-build-isolation", "--no-index", *words)

    def uninstall(self) -> None:
        """Take the suite out again."""
        self.pip("uninstall", "-q", "-y", "twisted-mail-suite")


def build_wheel(into: Path) -> Path:
    """Build the wheel of this checkout."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-q", "--no-deps"]
    command += ["--no-build-isolation", "--no-index", "-w", str(into), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=120, stdin=subprocess.DEVNULL)
    (wheel,) = into.glob("*.whl")
    return wheel
