"""``mailctl version`` and ``mailctl completion``."""

from __future__ import annotations

import platform
from importlib.metadata import version as version_of

import click
from click.shell_completion import get_completion_class

from twisted_mail import __version__
from twisted_mail.admin.invocation import Command, the_invocation
from twisted_mail.admin.problems import Problem, Status

__all__ = ["completion", "version"]


@click.command("version", cls=Command)
def version() -> None:
    """Print the versions of the suite, Twisted and Python."""
    facts = {"twisted-mail-suite": __version__, "twisted": version_of("twisted"), "python": platform.python_version()}
    the_invocation().out.one(facts)


@click.command("completion", cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes SHELL complete mailctl's words: eval "$(mailctl completion bash)"."""
    found = get_completion_class(shell)
    if found is None:
        raise Problem(Status.FAILED, "shell", f"{shell} cannot be served")
    script = found(context.find_root().command, {}, "mailctl", "_MAILCTL_COMPLETE").source().rstrip("\n")
    the_invocation().out.done(script, shell=shell, script=script)
