"""Debian's spamd with the rules of its package, no DNS, and a Bayes database of its own that begins to answer at once."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

from tests.services import running
from tests.services.knot import program
from tests.services.processes import KillableGroup, Process, free_port

__all__ = ["GTUBE", "Spamd", "spamd"]

GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
"""The test string of spamassassin.apache.org/gtube: 1000 points, in rspamd "reject"."""

_RULES = Path("/usr/share/spamassassin")


class Spamd(KillableGroup):
    """One daemon with two children, at 127.0.0.1:`port`; it may be taught (TELL). *more*: lines of local.cf."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.folder = folder
        self.port = free_port()
        site = folder / "site"
        bayes = folder / "bayes"
        for place in (site, bayes):
            place.mkdir(parents=True, exist_ok=True)
        for pre in Path("/etc/spamassassin").glob("*.pre"):
            shutil.copy(pre, site)
        lines = [
            "use_bayes 1",
            "bayes_auto_learn 0",
            "bayes_min_ham_num 1",
            "bayes_min_spam_num 1",
            f"bayes_path {bayes}/bayes",
            "bayes_file_mode 0777",
            "skip_rbl_checks 1",
            "dns_available no",
            "use_pyzor 0",
            "use_razor2 0",
            *more,
        ]
        (site / "local.cf").write_text("\n".join(lines) + "\n")
        words = [
            program("spamd", "spamd"),
            "--local",
            "--nouser-config",
            "--allow-tell",
            "--max-children=2",
            f"--listen=127.0.0.1:{self.port}",
            f"--configpath={_RULES}",
            f"--siteconfigpath={site}",
            f"--helper-home-dir={folder}",
            "--syslog=stderr",
        ]
        if os.getuid() == 0:
            owner = pwd.getpwnam("nobody")
            folder.chmod(0o755)
            os.chown(bayes, owner.pw_uid, owner.pw_gid)
            words += ["--username=nobody"]
        self.process = Process("spamd", words, folder)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Until it listens. Raises NotReady."""
        self.process.start()
        self.process.wait("127.0.0.1", self.port, 60)

    def stop(self) -> None:
        super().stop()
        running.remove(self.folder)


def spamd() -> Spamd:
    """The one of this run."""
    return running.shared("spamd", Spamd)
