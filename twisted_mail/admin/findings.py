"""One thing that `mailctl doctor` has looked at, and what is to be said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Finding", "Severity", "worst"]

Severity = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A line of the doctor's report."""

    code: str
    """Stable, for programs: ``storage.disk``."""
    severity: Severity
    text: str
    remedy: str = ""
    """What to do about it, in one line; empty for what is well."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def worst(findings: Sequence[Finding]) -> Severity:
    """The worst severity of all; ``ok`` of none."""
    for severity in ("error", "warning"):
        if any(finding.severity == severity for finding in findings):
            return "error" if severity == "error" else "warning"
    return "ok"
