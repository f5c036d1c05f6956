"""Enhanced status codes (RFC 3463) in words that help whoever wrote the message: what happened, and what can be done."""

from __future__ import annotations

from typing import Final

__all__ = ["explain"]

_WORDS: Final = {
    "1.1": ("There is no such address.", "Check the part before the @ for typing errors, and ask the recipient another way."),
    "1.2": ("There is no such domain, or it takes no mail.", "Check the part behind the @ for typing errors."),
    "1.3": ("The address is not written correctly.", "Check it for typing errors."),
    "1.6": ("The recipient has moved and left no address.", "Ask the recipient another way for the new address."),
    "1.8": ("The recipient's server does not accept your address as a sender.", "Ask your administrator."),
    "1.10": ("The recipient's domain takes no mail at all.", "Check the part behind the @ for typing errors."),
    "2.1": ("The mailbox is switched off.", "Ask the recipient another way."),
    "2.2": ("The recipient's mailbox is full.", "Try again in a few days, or tell the recipient another way."),
    "2.3": ("The message is too large for the recipient.", "Send a smaller one, or a link instead of the attachment."),
    "3.1": ("The recipient's server is out of space.", "Try again later."),
    "3.4": ("The message is too large for the recipient's server.", "Send a smaller one, or a link instead of the attachment."),
    "4.1": ("The recipient's server does not answer.", "Check the part behind the @; if it is right, try again later."),
    "4.2": ("The connection to the recipient's server broke off.", "Try again later."),
    "4.3": ("The recipient's domain could not be looked up.", "Check the part behind the @; if it is right, try again later."),
    "4.4": ("No way to the recipient's server is known.", "Check the part behind the @ for typing errors."),
    "4.6": ("The message went in a circle.", "Tell your administrator or the recipient's: a forwarding is set up wrongly."),
    "4.7": ("It could not be delivered for too long, and is given up.", "Try again later, or tell the recipient another way."),
    "6.3": ("The recipient's server cannot take mail of this kind.", "Send plain text, or ask your administrator."),
    "6.7": ("The recipient's server does not take international addresses.", "Use an address in plain letters, if you have one."),
    "7.0": ("The recipient's server does not take the message, by a rule of its own.", "Ask the recipient or your administrator."),
    "7.1": ("The recipient's server does not take mail from you.", "Ask the recipient another way, or your administrator."),
    "7.10": ("The recipient's server and ours found no safe way.", "Ask your administrator."),
    "7.26": ("The recipient's server could not verify that the message is yours.", "Tell your administrator."),
    "7.30": ("The recipient's server offers no encryption, which you asked for.", "Send it without that, if you may."),
}  # fmt: skip
_SUBJECTS: Final = {
    "1": _WORDS["1.1"],
    "2": ("The recipient's mailbox does not take it.", "Ask the recipient another way."),
    "3": ("The recipient's server does not take it now.", "Try again later."),
    "4": _WORDS["4.1"],
    "5": ("The servers did not understand each other.", "Tell your administrator."),
    "6": ("The recipient's server cannot take a message of this kind.", "Ask your administrator."),
    "7": _WORDS["7.0"],
}
_OTHER: Final = ("The recipient's server did not take it.", "What it said may help; else ask your administrator.")


def explain(status: str) -> tuple[str, str]:
    """(what happened, what can be done) for ``5.1.1`` and the like."""
    _, _, rest = status.partition(".")
    return _WORDS.get(rest) or _SUBJECTS.get(rest.partition(".")[0]) or _OTHER
