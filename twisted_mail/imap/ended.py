"""How a session ends before its client asks for it."""

from __future__ import annotations

from twisted_mail.imap.replies import Condition

__all__ = ["Ended"]


class Ended(Exception):
    """The connection ends now; *condition* (BYE) is said before, if there is one.

    Without one nothing is said: an outcome is unknown, or a literal cannot be sent to its end.
    """

    def __init__(self, condition: Condition | None) -> None:
        super().__init__(condition.text if condition else "")
        self.condition = condition
