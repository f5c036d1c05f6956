"""`mailctl`: the operator's command. One module per noun; each works on the store itself, server running or not."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """The console script; leaves with the exit status that the manual promises."""
    from twisted_mail.admin.cli import main as run

    run()
