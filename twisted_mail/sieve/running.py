"""One run of a script: what it has found so far. Steps and checks change it; nothing else is changed by a script."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from twisted_mail.sieve.values import (
    Action,
    Discard,
    Edit,
    FileInto,
    Keep,
    Redirect,
    Reject,
    Rewritten,
    RunEnvironment,
    RunLimits,
    SieveError,
    Vacation,
)

if TYPE_CHECKING:
    from twisted_mail.sieve.message import Header, Message

__all__ = ["Break", "Returned", "Run", "Stopped"]

T = TypeVar("T")

_TRACED = 1000
"""Sentences of a trace; a script that does more is told of in what it does, not in how."""


_OF_MESSAGE: Final = {FileInto, Keep, Redirect}
"""Actions that store or send the message itself."""
_NOT_BESIDE_REJECT: Final = {FileInto, Keep, Redirect, Reject, Vacation}


class Stopped(Exception):
    """``stop``: the run is over, and all is well."""


class Returned(Exception):
    """``return`` (RFC 6609 section 3.3): the included script is over."""


class Break(Exception):
    """``break`` (RFC 5703 section 4.3): the loop *loop* is over."""

    def __init__(self, loop: object):
        super().__init__()
        self.loop = loop


class Run:
    """The state of one run."""

    __slots__ = (
        "_message",
        "actions",
        "changed",
        "edits",
        "enclosures",
        "environment",
        "flags",
        "folds",
        "globals",
        "header",
        "implicit_keep",
        "limits",
        "locals",
        "memory",
        "once",
        "redirects",
        "rewritten",
        "room",
        "sent",
        "stack",
        "states",
        "steps",
        "texts",
        "trace",
        "tracked",
        "values",
        "weight",
    )

    def __init__(self, message: Message, environment: RunEnvironment, limits: RunLimits):
        self._message = message
        self._see(message.header)
        self.environment = environment
        self.limits = limits
        self.steps = limits.steps
        """That are left."""
        self.memory = limits.memory_bytes
        self.redirects = limits.redirects
        self.locals: dict[str, str] = {}
        """Variables of the script that runs now, by lower-case name."""
        self.globals: dict[str, str] = {}
        self.values: tuple[str, ...] = ()
        """Match variables: ${0}, ${1}, … (RFC 5229 section 3.2)."""
        self.actions: list[Action] = []
        self.implicit_keep = True
        self.flags: tuple[str, ...] = ()
        """imap4flags' internal variable (RFC 5232 section 2)."""
        self.edits: list[Edit] = []
        self.changed = False
        """The message is not as it came any more."""
        self.rewritten: dict[int, Rewritten] = {}
        """As what the actions of these numbers take it."""
        self.sent: tuple[Rewritten | None] | None = None
        """As what redirect takes it, once it was enclosed (RFC 5703 section 6)."""
        self.enclosures = 0
        self.room = limits.rewritten_bytes
        self.tracked: dict[str, int] = {}
        self.trace: list[str] = []
        self.once: set[object] = set()
        """Scripts that were included (RFC 6609 section 3.2, ``:once``)."""
        self.stack: list[object] = []
        """Included scripts that are running, outermost first."""
        self.states: dict[type, object] = {}

    @property
    def message(self) -> Message:
        """As the tests see it: editheader puts another in its place."""
        return self._message

    @message.setter
    def message(self, message: Message) -> None:
        self._message = message
        self._see(message.header)

    def _see(self, header: Header) -> None:
        self.header = header
        """Of `message`, for the tests."""
        self.folds = header.folds
        self.texts = header.texts
        self.weight = 1 + (len(header.octets) >> 12)
        """Steps that it costs to compare a field with a key, so that a header of 1 MB costs what it costs."""

    def state(self, kind: Callable[[], T]) -> T:
        """What an extension keeps during a run: made by ``kind()`` (a class) at its first use."""
        key = kind
        try:
            return self.states[key]  # type: ignore[index,return-value]  # filled below, by the class itself
        except KeyError:
            made = kind()
            self.states[key] = made  # type: ignore[index]
            return made

    def spend(self, steps: int) -> None:
        """Counts work that was done, or is about to be.

        Raises: SieveError where the script has had enough.
        """
        self.steps -= steps
        if self.steps < 0:
            raise SieveError(f"the script does more than {self.limits.steps} steps")

    def remember(self, taken: tuple[str, ...]) -> None:
        """Makes them the match variables."""
        most = self.limits.variable_bytes
        self.values = tuple([value[:most] for value in taken]) if len(taken[0]) > most else taken

    def tell(self, line: int, what: str) -> None:
        """A sentence for the trace: ``line 12: fileinto "lists"``."""
        self.note(f"line {line}: {what}")

    def note(self, sentence: str) -> None:
        """A whole sentence."""
        if len(self.trace) < _TRACED:
            self.trace.append(sentence)

    def act(self, action: Action, line: int, *, keep: bool = True) -> None:
        """Asks for *action*; with ``keep=False`` the implicit keep is cancelled.

        What is asked for twice is done once (RFC 5228 section 2.10.3), in its first place, with the flags given last; the
        message is the same, though it was edited in between (RFC 5293 section 6).
        Raises: SieveError where there are too many.
        """
        if not keep:
            self.implicit_keep = False
        kinds = {type(earlier) for earlier in self.actions}
        if type(action) is Reject and kinds & _NOT_BESIDE_REJECT:
            raise SieveError("reject goes with no other reject, vacation or delivery (RFC 5429 section 2.4)", line)
        if Reject in kinds and type(action) in _NOT_BESIDE_REJECT:
            raise SieveError("the message was rejected before (RFC 5429 section 2.4)", line)
        key = _sameness(action)
        for index, earlier in enumerate(self.actions):
            if _sameness(earlier) == key:
                self.actions[index] = action
                return
        if len(self.actions) >= self.limits.actions:
            raise SieveError(f"the script asks for more than {self.limits.actions} actions", line)
        if type(action) is Redirect:
            self.redirects -= 1
            if self.redirects < 0:
                raise SieveError(f"the script redirects to more than {self.limits.redirects} addresses", line)
        if self.changed and type(action) in _OF_MESSAGE:
            self._bind(action)
        self.actions.append(action)

    def keep_at_the_end(self) -> None:
        """The implicit keep: thought to stand behind everything else (RFC 5293 section 6), and never one too many."""
        keep = Keep(self.flags)
        if self.changed:
            self._bind(keep)
        self.actions.append(keep)

    def write(self, octets: int, line: int = 0) -> None:
        """Counts what a script puts into messages. Raises: SieveError."""
        self.room -= octets
        if self.room < 0:
            raise SieveError(f"the script writes more than {self.limits.rewritten_bytes} octets into messages", line)

    def _bind(self, action: Action) -> None:
        """The next action stores or sends the message as it is now. Raises: SieveError."""
        version = self.sent[0] if self.sent is not None and type(action) is Redirect else self._message.rewritten()
        if version is None:
            return
        if not any(version is known for known in self.rewritten.values()):
            self.write(len(self.header.octets))
        self.rewritten[len(self.actions)] = version


def _sameness(action: Action) -> object:
    """Two actions with one of these are one."""
    match action:
        case FileInto(mailbox=name, special_use="", mailbox_id="") if name.upper() == "INBOX":
            return Keep
        case FileInto():
            return (FileInto, action.mailbox, action.special_use, action.mailbox_id)
        case Redirect():
            return (Redirect, action.address.lower())
        case Keep() | Discard():
            return type(action)
        case _:
            return action
