"""The whole of `mailctl`: its nouns, its options in front, and how a call ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

import click
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)

from twisted_mail.admin.invocation import Group, Invocation
from twisted_mail.admin.output import Output
from twisted_mail.admin.problems import Problem, Status, problem_of
from twisted_mail.admin.running import the_reactor

__all__ = ["NOUNS", "call", "mailctl", "main"]


NOUNS: Final[Mapping[str, str]] = {
    "init": "init:init",
    "domain": "domains:domain",
    "user": "users:user",
    "alias": "aliases:alias",
    "dkim": "dkim:dkim",
    "account": "accounts:account",
    "import": "transfer:import_mail",
    "export": "transfer:export_mail",
    "queue": "queue:queue",
    "route": "routes:route",
    "pool": "pools:pool",
    "suppression": "suppression:suppression",
    "tls-report": "routes:tls_report",
    "dmarc": "dmarc:dmarc",
    "quarantine": "quarantine:quarantine",
    "sieve": "sieve:sieve",
    "trace": "trace:trace",
    "test": "probing:test",
    "storage": "storage:storage",
    "doctor": "doctor:doctor",
    "config": "config:config",
    "version": "about:version",
    "completion": "about:completion",
}
"""Where each is: imported when it is called, so that one noun does not wait for all others."""


VERBS: Final[Mapping[str, str]] = {"user": "junk:junk", "test": "sieve_probe:probe"}
"""Of a noun, in a module of their own."""


class Nouns(Group):
    """Those of `NOUNS`."""

    def list_commands(self, context: click.Context) -> Sequence[str]:  # type: ignore[override]  # click says list
        return list(NOUNS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Imports it."""
        if name in NOUNS and name not in self.commands:
            noun = _imported(NOUNS[name])
            if isinstance(noun, click.Group) and name in VERBS:
                noun.add_command(_imported(VERBS[name]))
            self.add_command(noun)
        return super().get_command(context, name)


def _imported(place: str) -> click.Command:
    module, _, attribute = place.partition(":")
    command = getattr(import_module(f"twisted_mail.admin.{module}"), attribute)
    assert isinstance(command, click.Command)
    return command


@click.group(cls=Nouns, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--config",
    "-c",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The server's configuration (TOML). Without one: the embedded store in ./mail-data.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON; errors too, on stderr.")
@click.option("--verbose", "-v", is_flag=True, help="Print what the store logs, on stderr.")
@click.pass_context
def mailctl(context: click.Context, config: Path | None, as_json: bool, verbose: bool) -> None:
    """Manage a mail server: its domains, users, aliases, and their mail.

    Works on the store itself, whether the server runs or not. Exit status: 0 done, 1 failed, 2 wrong usage,
    3 not found, 4 conflict, 75 try again later.
    """
    context.ensure_object(Invocation)
    invocation = context.find_object(Invocation)
    assert invocation is not None
    invocation.config = config
    invocation.json = invocation.json or as_json
    invocation.verbose = verbose


def call(words: Sequence[str] | None = None) -> int:
    """Carry out one command line; the exit status. Defects of ours raise."""
    invocation = Invocation(json="--json" in (sys.argv[1:] if words is None else words))
    try:
        mailctl.main(list(words) if words is not None else None, "mailctl", standalone_mode=False, obj=invocation)
        return int(Status.OK)
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return int(Status.USAGE)
    except (Exception, KeyboardInterrupt) as error:
        problem = problem_of(error)
        if problem is None:
            raise
        return _end(problem, error, Output(as_json=invocation.json))


def _end(problem: Problem, error: BaseException, out: Output) -> int:
    try:
        out.problem(problem)
        if isinstance(error, click.UsageError) and error.ctx is not None and not out.as_json:
            click.echo(f"Try: {error.ctx.command_path} --help", err=True)
    except BrokenPipeError:
        pass
    return int(problem.status)


def main() -> None:
    """The process: the log is silent but for ``--verbose``, and a closed pipe is no error."""
    verbose = any(word in ("-v", "--verbose") for word in sys.argv[1:])
    level = LogLevel.info if verbose else LogLevel.critical
    observer = FilteringLogObserver(textFileLogObserver(sys.stderr), [LogLevelFilterPredicate(level)])
    globalLogBeginner.beginLoggingTo([observer], discardBuffer=True, redirectStandardIO=False)
    try:
        status = call()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = int(Status.FAILED)
    if "twisted.internet.reactor" in sys.modules and the_reactor().threadpool is not None:
        the_reactor().threadpool.stop()
    sys.exit(status)
