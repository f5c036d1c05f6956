"""What small daemons have in common: one file of lines that says how they run, and a port of 127.0.0.1 at which they listen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.services import running
from tests.services.processes import Killable, Process

__all__ = ["Daemon"]


class Daemon(Killable):
    """One daemon over a folder, which is removed when it is stopped."""

    folder: Path
    port: int

    def configure(self, name: str, words: Sequence[str], lines: Sequence[str]) -> None:
        """It is started by *words*, behind which stands the file of *lines*."""
        configuration = self.folder / f"{name}.conf"
        configuration.write_text("\n".join(lines) + "\n")
        self.process = Process(name, [*words, str(configuration)], self.folder)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Until it listens. Raises NotReady."""
        self.process.start()
        self.process.wait("127.0.0.1", self.port, 30)

    def stop(self) -> None:
        self.process.stop()
        running.remove(self.folder)
