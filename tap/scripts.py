"""Users' Sieve scripts, as ManageSieve and mailctl change them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted_mail.delivery.script_store import ScriptStore
from twisted_mail.managesieve.settings import Settings
from twisted_mail.sieve import CompileLimits, Include, Script, capabilities, compile_script
from twisted_mail.storage.interfaces import Directory
from twisted_mail.tap.settings import Configuration
from twisted_mail.values import AccountId

__all__ = ["managesieve_settings", "script_store"]


def script_store(
    configuration: Configuration,
    directory: Directory,
    *,
    changed: Callable[[AccountId], None] = lambda account: None,
    in_thread: Callable[[Callable[[], None]], Awaitable[None]] | None = None,
) -> ScriptStore:
    """The scripts in *directory*, within the limits of ``[sieve]``. See `ScriptStore` for the rest."""
    sieve = configuration.sieve
    limits = CompileLimits(script_bytes=sieve.script_bytes)

    def compile(text: str, *, include: Include | None = None) -> Script:
        return compile_script(text, include=include, limits=limits)

    return ScriptStore(
        directory,
        compile,
        capabilities(),
        max_bytes=sieve.script_bytes,
        max_scripts=sieve.scripts,
        max_redirects=sieve.max_redirects,
        changed=changed,
        in_thread=in_thread,
    )


def managesieve_settings(configuration: Configuration) -> Settings:
    """The bounds of ManageSieve. Connections are counted by the gates, over all protocols."""
    limits = configuration.limits
    return Settings(
        login_seconds=limits.login,
        bad_commands=limits.bad_commands,
        discard_bytes=configuration.sieve.script_bytes * 16,
        connections_per_address=0,
    )
