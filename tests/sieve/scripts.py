"""What the tests of the language share: messages of the RFCs, and short ways to run a script over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from twisted_mail.sieve import (
    CompileLimits,
    Include,
    Message,
    Outcome,
    RunEnvironment,
    RunLimits,
    SieveError,
    compile_script,
)
from twisted_mail.sieve.values import FileInto

__all__ = ["A", "B", "Mailboxes", "environment", "fails", "files", "holds", "included", "run"]

# RFC 5228 section 1.2
A = b"""\
Date: Tue, 1 Apr 1997 09:06:31 -0800 (PST)
From: coyote@desert.example.org
To: roadrunner@acme.example.com
Subject: I have a present for you

Look, I'm sorry about the whole anvil thing, and I really
didn't mean to try and drop it on you from the top of the
cliff.  I want to try to make it up to you.  I've got some
great birdseed over here at my place--top of the line
stuff--and if you come by, I'll have it all wrapped up
for you.  I'm really sorry for all the problems I've caused
for you over the years, but I know we can work this out.
--
Wile E. Coyote   "Super Genius"   coyote@desert.example.org
"""
B = b"""\
From: youcouldberich!@reply-by-postal-mail.invalid
Sender: b1ff@de.res.example.com
To: rube@landru.example.com
Date:  Mon, 31 Mar 1997 18:26:10 -0800
Subject: $$$ YOU, TOO, CAN BE A MILLIONAIRE! $$$

YOU MAY HAVE ALREADY WON TEN MILLION DOLLARS, BUT I DOUBT
IT!  SO JUST POST THIS TO SIX HUNDRED NEWSGROUPS!  IT WILL
GUARANTEE THAT YOU GET AT LEAST FIVE RESPONSES WITH MONEY!
MONEY! MONEY! COLD HARD CASH!  YOU WILL RECEIVE OVER
$20,000 IN LESS THAN TWO MONTHS!  AND IT'S LEGAL!!!!!!!!!
!!!!!!!!!!!!!!!!!!111111111!!!!!!!11111111111!!1  JUST
SEND $5 IN SMALL, UNMARKED BILLS TO THE ADDRESSES BELOW!
"""


class Mailboxes:
    """There are INBOX and what is given."""

    def __init__(self, *names: str):
        self.names = {"INBOX", *names}

    def exists(self, name: str) -> bool:
        return name in self.names

    def id_exists(self, mailbox_id: str) -> bool:
        return False

    def special_use_exists(self, use: str, name: str | None = None) -> bool:
        return False

    def metadata(self, name: str | None, entry: str) -> str | None:
        return None


def environment(**given: Any) -> RunEnvironment:
    return RunEnvironment(mailboxes=Mailboxes(), **given)


def included(scripts: Mapping[str, str]) -> Include:
    """Personal scripts by name; global ones by ``/name``."""

    def include(location: str, name: str) -> str | None:
        return scripts.get(name if location == "personal" else "/" + name)

    return include


def run(
    text: str,
    octets: bytes = A,
    *,
    scripts: Mapping[str, str] | None = None,
    limits: RunLimits | None = None,
    compile_limits: CompileLimits | None = None,
    **given: Any,
) -> Outcome:
    """Compiles and runs *text*; further arguments are the environment's."""
    script = compile_script(
        text,
        include=None if scripts is None else included(scripts),
        limits=compile_limits or CompileLimits(),
    )
    return script.run(
        Message(octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")), environment(**given), limits or RunLimits()
    )


def holds(test: str, octets: bytes = A, require: str = "", before: str = "", **given: Any) -> bool:
    """Whether a test is true; *require* names capabilities, separated by spaces."""
    names = ", ".join(f'"{name}"' for name in ("fileinto", *require.split()))
    outcome = run(
        f'require [{names}];\n{before}\nif {test} {{ fileinto "yes"; }} else {{ fileinto "no"; }}', octets, **given
    )
    assert outcome.error is None, outcome.error
    return files(outcome) == ["yes"]


def files(outcome: Outcome) -> list[str]:
    """The mailboxes that it goes into."""
    return [action.mailbox for action in outcome.actions if isinstance(action, FileInto)]


def fails(text: str, limits: CompileLimits | None = None) -> SieveError:
    """The error that compiling *text* ends in."""
    with pytest.raises(SieveError) as caught:
        compile_script(text, limits=limits or CompileLimits())
    return caught.value
