"""The command line of `twistd mail`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from twisted.cred.strcred import AuthOptionMixin
from twisted.python import usage

from twisted_mail.tap.configuration import ConfigurationError, load
from twisted_mail.tap.settings import Configuration

__all__ = ["Options"]

_LONGDESC = """\
The Twisted mail suite: takes mail by SMTP, submission and LMTP, gives it to mail programs by IMAP4 and POP3.

With no options at all it keeps everything in the folder mail-data and listens on SMTP 8025, submission 8587 (8465 with
TLS from the start), LMTP 8024 (loopback only), IMAP 8143 (8993), POP3 8110 (8995). Domains and users are made with
mailctl, before or while it runs:

    mailctl domain add example.org
    mailctl user add ann@example.org
    twistd -n mail

A configuration is one TOML file. Every setting has a default, every wrong one is named with its line before any port
opens, and every one can come from the environment: TWISTED_MAIL__LIMITS__MESSAGE_BYTES=50MiB. The reference is
docs/reference/configuration.md.

Signals: TERM drains (no new connections, sessions are told, what is in flight is finished) and leaves; HUP reads the
certificates again. With more than one worker a master holds the sockets, starts again what dies, and passes both on.

twistd's own options stand before "mail": -n stays in the foreground, --pidfile= keeps no pid file, --logfile FILE,
--reactor epoll runs on another reactor than asyncio's, --uid and --gid give up root after the ports are bound. A unit of
systemd wants: twistd -n --pidfile= mail --config /etc/mail.toml
"""


class Options(usage.Options, AuthOptionMixin):
    """``--config``, ``--workers``, ``--auth``; holds the configuration once they are parsed."""

    synopsis = "[options]"
    longdesc = ""
    optParameters = [
        ["config", "c", None, "Configuration file (TOML). Without one: the embedded store in ./mail-data."],
        ["workers", "w", None, "Number of processes that serve; overrides process.workers."],
    ]
    compData = usage.Completions(optActions={"config": usage.CompleteFiles("*.toml")})

    configuration: Configuration
    """Set by `postOptions`."""

    def __init__(self) -> None:
        super().__init__()
        self.auth: list[str] = []
        """What --auth was given, in order, for worker processes."""

    def opt_auth(self, description: str) -> None:
        """Ask this checker too when a user logs in (twisted.cred plugins; see --help-auth). May be given several times."""
        super().opt_auth(description)
        self.auth.append(description)

    def opt_version(self) -> None:
        """Print the versions of the suite and of Twisted, and exit."""
        from twisted import __version__ as twisted_version

        from twisted_mail import __version__

        print(f"twisted-mail-suite {__version__} (Twisted {twisted_version})")
        raise SystemExit(0)

    def getUsage(self, width: int | None = None) -> str:
        """The options, then the description as it stands (Twisted would fill it as one paragraph)."""
        return f"{super().getUsage(width)}\n{_LONGDESC}"

    def postOptions(self) -> None:
        """Read the configuration. Each thing that is wrong is a line on stderr; the exit status is 1."""
        environment = dict(os.environ)
        if self["workers"] is not None:
            environment["TWISTED_MAIL__PROCESS__WORKERS"] = self["workers"]
            environment.pop("TWISTED_MAIL__PROCESS__WORKERS_FILE", None)
        file = self["config"]
        try:
            self.configuration = load(Path(file) if file is not None else None, environment)
        except ConfigurationError as error:
            for problem in error.problems:
                text = str(problem)
                if self["workers"] is not None:
                    text = text.replace("TWISTED_MAIL__PROCESS__WORKERS: process.workers:", "--workers:")
                print(text, file=sys.stderr)
            raise SystemExit(1) from None

    def checkers(self) -> list[Any]:
        """The checkers that --auth has made."""
        return list(self.get("credCheckers", ()))
