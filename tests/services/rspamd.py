"""Debian's rspamd with a small configuration: its own rules and a Bayes classifier in files, no DNS, no redis."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

from tests.services import running
from tests.services.knot import program
from tests.services.processes import KillableGroup, NotReady, Process, free_port

__all__ = ["PASSWORD", "Rspamd", "rspamd"]

PASSWORD = "teach-me"
"""The controller's."""


class Rspamd(KillableGroup):
    """One normal worker at `port`, and a controller (which is taught) at `controller_port`, both of 127.0.0.1.

    Mail is greylisted from 4 points, gets a field from 6 and is rejected from 15. *more*: text for its configuration.
    """

    def __init__(self, folder: Path, more: str = "") -> None:
        self.folder = folder
        self.port = free_port()
        self.controller_port = free_port()
        self._starts = 0
        # The package's list of public suffixes costs 15 s of CPU at each start.
        (folder / "suffixes").write_text("com\nnet\norg\nexample\n")
        (folder / "rspamd.conf").write_text(
            f"""
options {{
    filters = "chartable,dkim,regexp";
    pidfile = "{folder}/rspamd.pid";
    control_socket = "{folder}/control.sock mode=0600";
    cache_file = "{folder}/symbols.cache";
    hs_cache_dir = "{folder}/";
    disable_hyperscan = true;
    tempdir = "{folder}";
    url_tld = "{folder}/suffixes";
    allow_raw_input = true;
    dns {{ nameserver = ["127.0.0.1:9"]; timeout = 0.1s; retransmits = 1; sockets = 1; }}
}}
logging {{ type = "console"; level = "info"; color = false; }}
lua = "$RULESDIR/rspamd.lua";
modules {{ path = "$PLUGINSDIR"; }}
.include "$CONFDIR/groups.conf"
actions {{ reject = 15; add_header = 6; greylist = 4; }}
classifier "bayes" {{
    tokenizer {{ name = "osb"; }}
    backend = "sqlite3";
    cache {{ path = "{folder}/learned.sqlite"; }}
    min_tokens = 1;
    min_learns = 1;
    autolearn = false;
    statfile {{ symbol = "BAYES_HAM"; path = "{folder}/ham.sqlite"; spam = false; }}
    statfile {{ symbol = "BAYES_SPAM"; path = "{folder}/spam.sqlite"; spam = true; }}
}}
worker "normal" {{ bind_socket = "127.0.0.1:{self.port}"; count = 1; mime = true; task_timeout = 8s; }}
worker "controller" {{
    bind_socket = "127.0.0.1:{self.controller_port}";
    count = 1;
    password = "{PASSWORD}";
    enable_password = "{PASSWORD}";
    secure_ip = "192.0.2.1";
}}
{more}
"""
        )
        words = [program("rspamd", "rspamd"), "-f", "-i", "-u", "root", "-g", "root", "-c", str(folder / "rspamd.conf")]
        words += [f"--var={name}={folder}" for name in ("DBDIR", "RUNDIR", "LOGDIR")]
        self.process = Process("rspamd", words, folder)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def controller_url(self) -> str:
        return f"http://127.0.0.1:{self.controller_port}"

    def start(self) -> None:
        """Until both listen, and it can be taught. Raises NotReady."""
        for _ in range(10):
            self._starts += 1
            self.process.start()
            self.process.wait("127.0.0.1", self.port, 60)
            self.process.wait("127.0.0.1", self.controller_port, 60)
            # Of two processes that make the databases at the same time one may find them locked, and goes without.
            if self._learns():
                return
            self.process.stop()
        raise NotReady("rspamd does not learn")

    def _learns(self) -> bool:
        """Teach it something new."""
        octets = b"Message-ID: <%d@rspamd.example>\r\nSubject: first\r\n\r\nto see that it learns %d\r\n"
        octets %= (self._starts, self._starts)
        request = urllib.request.Request(f"{self.controller_url}/learnham", octets, {"Password": PASSWORD})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError:
            return False

    def stop(self) -> None:
        super().stop()
        running.remove(self.folder)


def rspamd() -> Rspamd:
    """The one of this run."""
    return running.shared("rspamd", Rspamd)
