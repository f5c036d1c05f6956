"""All of the language: every family of commands and tests, put together once."""

from __future__ import annotations

from typing import Final

from twisted_mail.sieve import matching
from twisted_mail.sieve.commands import (
    actions,
    base,
    body,
    control,
    date,
    duplicates,
    envelope,
    environments,
    fcc,
    flags,
    headers,
    ihave,
    include,
    mailboxes,
    notify,
    parts,
    redirecting,
    refusals,
    rewriting,
    scores,
    vacation,
    variables,
)
from twisted_mail.sieve.registry import Vocabulary

__all__ = ["VOCABULARY", "capabilities"]

VOCABULARY: Final = Vocabulary.of(
    (
        matching,
        actions,
        base,
        body,
        control,
        date,
        duplicates,
        envelope,
        environments,
        fcc,
        flags,
        headers,
        ihave,
        include,
        mailboxes,
        notify,
        parts,
        redirecting,
        refusals,
        rewriting,
        scores,
        vacation,
        variables,
    )
)


def capabilities() -> tuple[str, ...]:
    """What `require` may name, in order (ManageSieve's SIEVE capability, RFC 5804 section 1.7)."""
    return tuple(sorted(VOCABULARY.capabilities))
