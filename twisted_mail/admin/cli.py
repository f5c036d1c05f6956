"""The whole of `mailctl`: its nouns, its options in front, and how a call ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)

from twisted_mail.admin.about import completion, version
from twisted_mail.admin.accounts import account
from twisted_mail.admin.aliases import alias
from twisted_mail.admin.config import config
from twisted_mail.admin.dkim import dkim
from twisted_mail.admin.dmarc import dmarc
from twisted_mail.admin.doctor import doctor
from twisted_mail.admin.domains import domain
from twisted_mail.admin.init import init
from twisted_mail.admin.invocation import Group, Invocation
from twisted_mail.admin.junk import junk
from twisted_mail.admin.output import Output
from twisted_mail.admin.pools import pool
from twisted_mail.admin.probing import test
from twisted_mail.admin.problems import Problem, Status, problem_of
from twisted_mail.admin.quarantine import quarantine
from twisted_mail.admin.queue import queue
from twisted_mail.admin.routes import route, tls_report
from twisted_mail.admin.running import the_reactor
from twisted_mail.admin.sieve import sieve
from twisted_mail.admin.sieve_probe import probe
from twisted_mail.admin.storage import storage
from twisted_mail.admin.suppression import suppression
from twisted_mail.admin.trace import trace
from twisted_mail.admin.transfer import export_mail, import_mail
from twisted_mail.admin.users import user

__all__ = ["call", "mailctl", "main"]


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
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


for _noun in (
    init, domain, user, alias, dkim, account, import_mail, export_mail, queue, route, pool, suppression, tls_report,
    dmarc, quarantine, sieve, trace, test, storage, doctor, config, version, completion,
):  # fmt: skip
    mailctl.add_command(_noun)
user.add_command(junk)
test.add_command(probe)


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
