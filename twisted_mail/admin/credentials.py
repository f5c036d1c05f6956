"""What is stored for a password, made as dear as the configuration says. Blocks for tens of milliseconds, which a
command may do."""

from __future__ import annotations

from collections.abc import Sequence

from twisted_mail.admin.problems import Problem, Status
from twisted_mail.auth import passwords
from twisted_mail.tap.settings import Configuration

__all__ = ["credentials_for", "matches"]


def credentials_for(configuration: Configuration, password: str) -> tuple[str, ...]:
    """The stored form. Raises Problem for a password that RFC 4013 does not allow."""
    auth = configuration.auth
    parameters = passwords.PasswordParameters(memory_kib=auth.argon2_memory // 1024, passes=auth.argon2_passes)
    try:
        return passwords.credentials_for(password, parameters)
    except ValueError as error:
        raise Problem(Status.USAGE, "password", str(error)) from error


def matches(password: str, credentials: Sequence[str]) -> bool:
    """Whether *password* is the one of *credentials*."""
    return passwords.matches(password, credentials)
