"""A small disk under a server's folder, which a test can fill: a tmpfs that is mounted there with what lay in it.

Needs root. The server must not run while the disk is put in or taken out.
"""

from __future__ import annotations

import atexit
import contextlib
import shutil
import subprocess
from pathlib import Path
from typing import Final

__all__ = ["CannotMount", "SmallDisk", "why_not"]

MIB: Final = 1024 * 1024
BALLAST: Final = "ballast"


class CannotMount(Exception):
    """There is no mounting here; the text says why, in one line."""


class SmallDisk:
    """At *folder*, with *room* octets besides what is there when it is put in."""

    def __init__(self, folder: Path, room: int) -> None:
        self.folder, self.room = folder, room
        self._whole = folder.with_name(folder.name + ".whole")
        self.mounted = False

    def put_in(self) -> None:
        """Raises CannotMount; then everything is as it was."""
        used = sum(path.stat().st_blocks * 512 for path in self.folder.rglob("*") if path.is_file())
        self.folder.rename(self._whole)
        self.folder.mkdir()
        _mounted.add(self)
        try:
            _run("mount", "-t", "tmpfs", "-o", f"size={used + self.room}", "tmpfs", str(self.folder))
            self.mounted = True
            shutil.copytree(self._whole, self.folder, dirs_exist_ok=True, symlinks=True)
        except BaseException:
            self._away(self._whole)
            raise

    def take_out(self) -> None:
        """What is on it stays in the folder. Again is harmless."""
        if not self.mounted:
            return
        self.empty()
        kept = self.folder.with_name(self.folder.name + ".kept")
        shutil.copytree(self.folder, kept, symlinks=True)
        shutil.rmtree(self._whole)
        self._away(kept)

    def _away(self, instead: Path) -> None:
        if self.mounted:
            _run("umount", str(self.folder))
        self.mounted = False
        self.folder.rmdir()
        instead.rename(self.folder)
        _mounted.discard(self)

    @property
    def free(self) -> int:
        """Octets."""
        return shutil.disk_usage(self.folder).free

    def fill(self) -> None:
        """Until nothing goes in any more."""
        with (self.folder / BALLAST).open("ab", buffering=0) as file:
            for size in (MIB, 4096, 1):
                with contextlib.suppress(OSError):
                    while file.write(b"\0" * size):
                        pass
        with contextlib.suppress(OSError), (self.folder / "last").open("xb") as file:
            file.write(b"\0")
            raise CannotMount(f"{self.folder} cannot be filled")
        with contextlib.suppress(OSError):
            (self.folder / "last").unlink()

    def empty(self) -> None:
        """The ballast goes."""
        with contextlib.suppress(FileNotFoundError):
            (self.folder / BALLAST).unlink()

    def forget(self) -> None:
        """At the end of a run that broke off: nothing stays mounted."""
        subprocess.run(["umount", "-l", str(self.folder)], capture_output=True, check=False)
        self.mounted = False
        _mounted.discard(self)


_mounted: set[SmallDisk] = set()


def _run(*words: str) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        raise CannotMount(f"there is no {words[0]}") from None
    if done.returncode:
        raise CannotMount(f"{' '.join(words)}: {' '.join(done.stderr.split()) or done.returncode}")


def why_not(folder: Path) -> str | None:
    """Why no disk can be put in below *folder*, in one line; None: one can."""
    place = folder / "trial"
    place.mkdir()
    disk = SmallDisk(place, MIB)
    try:
        disk.put_in()
        disk.fill()
        disk.take_out()
    except (CannotMount, OSError) as error:
        return f"no disks can be mounted: {error}"
    finally:
        if disk.mounted:
            disk.forget()
        shutil.rmtree(place, ignore_errors=True)
    return None


@atexit.register
def _forget_all() -> None:
    """Whatever happened, nothing stays behind."""
    for disk in list(_mounted):
        disk.forget()
