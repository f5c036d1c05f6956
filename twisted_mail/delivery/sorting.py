"""Where a message goes in one account: Junk, where the user's script says, or INBOX. It is decided here, and done elsewhere.

A message that is junk is not shown to the script, unless the script itself asks how much of it is (spamtest, virustest):
then the script decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from twisted.logger import Logger

from twisted_mail.account.delivering import Place, Seen
from twisted_mail.account.errors import InvalidMailboxName
from twisted_mail.account.state import AccountState, Mailbox, normal_mailbox_name
from twisted_mail.account.tree import CreateMailbox
from twisted_mail.delivery.items import Copy
from twisted_mail.delivery.judgement import Judgement, Quarantined, read_deliver_by
from twisted_mail.delivery.junk import JUNK_SETTINGS, junk_reason
from twisted_mail.delivery.learned import Learned
from twisted_mail.delivery.scripts import ActiveScript, ActiveScripts, Script
from twisted_mail.filters.values import Action
from twisted_mail.services import PreparedMessage
from twisted_mail.sieve.message import Message
from twisted_mail.sieve.values import (
    FileInto,
    Keep,
    Notify,
    Outcome,
    Redirect,
    Reject,
    Rewritten,
    RunEnvironment,
    RunLimits,
    SieveError,
    Vacation,
)
from twisted_mail.values import MailboxId

__all__ = ["SCRIPT_BYTES", "AccountMailboxes", "Arrival", "SortSettings", "Sorted", "Sorter", "place_of", "usual_place"]

SCRIPT_BYTES: Final = 1 << 20
"""Of a message, header and body, that a script is shown."""
_MOST_HEADERS: Final = 100
"""Of parts behind that, each with at most `_HEADER_BYTES`, so that a script knows what there is."""
_HEADER_BYTES: Final = 16 * 1024
JUNK_USE: Final = "\\Junk"
JUNK_NAME: Final = "Junk"
JUNK_FLAG: Final = "$Junk"
_SPAM_TESTS: Final = ("spamtest", "spamtestplus", "virustest")
_SYSTEM_FLAGS: Final = frozenset(("\\seen", "\\answered", "\\flagged", "\\deleted", "\\draft"))
_NOT_IN_FLAGS: Final = frozenset('(){ %*"\\]')
MOST_FLAGS: Final = 100
_FLAG_OCTETS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """How a message came."""

    sender: str
    """The reverse-path; empty for the null one."""
    received: int
    """When its last octet had come, seconds since 1970."""
    zone: int = 0
    """Minutes east of UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SortSettings:
    """What an operator says about scripts."""

    hostname: str
    limits: RunLimits = field(default_factory=RunLimits)
    subaddress: str = "+"
    """What parts user and detail of an address (RFC 5233)."""
    version: str = ""
    """Of this program, for scripts that ask (RFC 5183)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sorted:
    """What is to become of a message in one account."""

    places: tuple[Place, ...] = ()
    rewritten: Mapping[int, Rewritten] = field(default_factory=dict)
    """What the places of these numbers get instead of the message that came."""
    redirects: tuple[Redirect, ...] = ()
    redirected: Mapping[int, Rewritten] = field(default_factory=dict)
    """What the redirects of these numbers send instead."""
    reject: Reject | None = None
    vacation: Vacation | None = None
    notifications: tuple[Notify, ...] = ()
    seen: tuple[tuple[str, int], ...] = ()
    """Ids that duplicate is to remember, and for how many seconds."""
    message: Message | None = None
    """As the script was shown it, before it changed anything."""
    failed: ActiveScript | None = None
    """The script that could not be run to its end."""
    error: str = ""
    """Why."""
    trace: tuple[str, ...] = ()


class AccountMailboxes:
    """Implements `sieve.values.Mailboxes`."""

    def __init__(self, state: AccountState) -> None:
        self._state = state

    def exists(self, name: str) -> bool:
        """Users may deliver into any of their mailboxes."""
        return normal_mailbox_name(name) in self._state.by_name

    def id_exists(self, mailbox_id: str) -> bool:
        return _by_id(self._state, mailbox_id) is not None

    def special_use_exists(self, use: str, name: str | None = None) -> bool:
        if name is None:
            return self._state.with_use(use) is not None
        found = self._state.by_name.get(normal_mailbox_name(name))
        return found is not None and any(own.lower() == use.lower() for own in found.special_use)

    def metadata(self, name: str | None, entry: str) -> str | None:
        """There are no annotations yet."""
        return None


class Sorter:
    """Decides for each copy; see the module."""

    _log = Logger()

    def __init__(
        self, scripts: ActiveScripts | None, settings: SortSettings, *, learned: Learned | None = None
    ) -> None:
        """*scripts*, *learned*: None where there are none."""
        self._scripts = scripts
        self._settings = settings
        self._learned = learned

    async def sort(
        self, state: AccountState, copy: Copy, prepared: PreparedMessage, arrival: Arrival, now: float
    ) -> Sorted:
        """Raises: Quarantined, StorageError."""
        judgement = copy.judgement
        if judgement is not None and judgement.action >= Action.QUARANTINE:
            raise Quarantined("; ".join(judgement.trace) or "a filter wants it kept from its recipient")
        said: tuple[str, ...] = ()
        if self._learned is not None and judgement is not None:
            weighed = await self._learned.weigh(copy.account, judgement, prepared)
            said = weighed.trace[len(judgement.trace) :]
            judgement, copy = weighed, replace(copy, judgement=weighed)
        junk, why = False, ""
        if judgement is not None or any(name in state.settings for name in JUNK_SETTINGS):
            junk, why = junk_reason(state.settings, judgement, arrival.sender, prepared.header)
        active = await self._scripts.active(copy.account) if self._scripts is not None else None
        said = (*said, why) if why else said
        usual = junk_place(state, arrival.received) if junk else usual_place(state, copy.detail)
        if active is None or (junk and not _asks_about_spam(active.script)):
            return Sorted(places=(usual,), trace=said)
        if active.script is None:
            return _unsorted(usual, active, str(active.error), said)
        octets = await _shown(prepared, active.script)
        headers = await _headers(prepared, active.script, len(octets)) if prepared.size > len(octets) else None
        message = Message(octets, prepared.size, prepared.root, headers)
        environment = self._environment(state, copy, arrival, now)
        try:
            outcome = active.script.run(message, environment, self._settings.limits)
        except SieveError as error:
            outcome = Outcome(actions=(Keep(),), error=error)
        except Exception as error:
            self._log.failure("a script of {account} failed", account=copy.account)
            outcome = Outcome(actions=(Keep(),), error=SieveError(f"it cannot be run ({type(error).__name__})"))
        if outcome.error is not None:
            return _unsorted(usual, active, str(outcome.error), (*said, *outcome.trace))
        return replace(
            _sorted(state, copy, outcome, arrival), message=message, trace=(*said, *outcome.trace)
        )

    def _environment(self, state: AccountState, copy: Copy, arrival: Arrival, now: float) -> RunEnvironment:
        judgement = copy.judgement or Judgement()
        hostname = self._settings.hostname
        items = {
            "domain": hostname.partition(".")[2] or hostname,
            "host": hostname,
            "location": "MDA",
            "name": "twisted-mail",
            "phase": "during",
            "remote-host": judgement.host or (f"[{judgement.peer}]" if judgement.peer else ""),
            "remote-ip": judgement.peer,
            "version": self._settings.version,
        }
        return RunEnvironment(
            mailboxes=AccountMailboxes(state),
            envelope_from=arrival.sender,
            envelope_to=copy.address,
            user=copy.user,
            envelope_auth=judgement.login,
            now=now,
            zone=arrival.zone,
            separator=self._settings.subaddress or "+",
            items=items,
            spam_percent=judgement.percent,
            virus=judgement.virus,
            seen=Seen(state, copy.delivery.octets, now),
            envelope_extra=judgement.envelope,
            deliver_by=read_deliver_by(judgement.envelope.get("by", "")),
        )


def _unsorted(usual: Place, active: ActiveScript, why: str, trace: Sequence[str]) -> Sorted:
    """RFC 5228 section 2.10.6: the implicit keep."""
    told = f"the script {active.name!r} failed: {why}"
    return Sorted(places=(usual,), failed=active, error=why, trace=(*trace, told))


def _asks_about_spam(script: Script | None) -> bool:
    return script is not None and any(script.uses(name) for name in _SPAM_TESTS)


async def _shown(prepared: PreparedMessage, script: Script) -> bytes:
    """Raises: StorageError."""
    if not script.needs_body:
        return prepared.header
    octets = bytearray()
    async for chunk in prepared.octets(0, min(prepared.size, SCRIPT_BYTES)):
        octets += chunk
    return bytes(octets)


async def _headers(prepared: PreparedMessage, script: Script, known: int) -> dict[int, bytes] | None:
    """Headers of the parts behind what the script is shown: who looks for an attachment finds it behind a large one too.

    Raises: StorageError.
    """
    if not script.needs_body or not any(script.uses(name) for name in ("foreverypart", "mime")):
        return None
    found: dict[int, bytes] = {}
    stack = [prepared.root]
    while stack and len(found) < _MOST_HEADERS:
        part = stack.pop()
        if part.body > known and part is not prepared.root:
            octets = bytearray()
            async for chunk in prepared.octets(part.start, min(part.body, part.start + _HEADER_BYTES)):
                octets += chunk
            found[part.start] = bytes(octets)
        stack += reversed(part.parts if part.message is None else (part.message,))
    return found


def _sorted(state: AccountState, copy: Copy, outcome: Outcome, arrival: Arrival) -> Sorted:
    places: list[Place] = []
    redirects: list[Redirect] = []
    notifications: list[Notify] = []
    reject: Reject | None = None
    vacation: Vacation | None = None
    rewritten: dict[int, Rewritten] = {}
    redirected: dict[int, Rewritten] = {}
    for number, action in enumerate(outcome.actions):
        if (version := outcome.rewritten.get(number)) is not None:
            if type(action) is Redirect:
                redirected[len(redirects)] = version
            else:
                rewritten[len(places)] = version
        match action:
            case Keep():
                usual = usual_place(state, copy.detail)
                places.append(Place(usual.mailbox, clean_flags(action.flags)))
            case FileInto():
                places.append(place_of(state, action, arrival.received))
            case Redirect():
                redirects.append(action)
            case Reject():
                reject = reject or action
            case Vacation():
                vacation = vacation or action
            case Notify():
                notifications.append(action)
    return Sorted(
        places=tuple(places),
        rewritten=rewritten,
        redirects=tuple(redirects),
        redirected=redirected,
        reject=reject,
        vacation=vacation,
        notifications=tuple(notifications),
        seen=tuple(outcome.tracked.items()),
    )


# --- mailboxes


def usual_place(state: AccountState, detail: str) -> Place:
    """The mailbox that is called like the sub-address, if there is one; else INBOX."""
    named = state.by_name.get(normal_mailbox_name(detail)) if detail else None
    return Place(named.id if named is not None else state.inbox.id)


def junk_place(state: AccountState, seconds: int) -> Place:
    """The mailbox for junk, which is made if there is none."""
    found = state.with_use(JUNK_USE)
    if found is not None:
        return Place(found.id, (JUNK_FLAG,))
    return Place(None, (JUNK_FLAG,), CreateMailbox.of(JUNK_NAME, seconds, (JUNK_USE,)))


def place_of(state: AccountState, into: FileInto, seconds: int) -> Place:
    """The mailbox that a script names: INBOX if there is none such, and it is not to be made.

    *seconds* since 1970 are for the UIDVALIDITY of one that is made.
    """
    flags = clean_flags(into.flags)
    found = _by_id(state, into.mailbox_id) if into.mailbox_id else None
    if found is None and into.special_use:
        found = state.with_use(into.special_use)
    if found is None:
        found = state.by_name.get(normal_mailbox_name(into.mailbox))
    if found is not None:
        return Place(found.id, flags)
    if into.create:
        try:
            uses = (into.special_use,) if into.special_use else ()
            return Place(None, flags, CreateMailbox.of(into.mailbox, seconds, uses))
        except InvalidMailboxName:
            pass
    return Place(state.inbox.id, flags)


def _by_id(state: AccountState, text: str) -> Mailbox | None:
    """By MAILBOXID (RFC 8474) as IMAP shows it: ``F`` and the id."""
    try:
        return state.mailboxes.get(MailboxId.parse(text.removeprefix("F")))
    except ValueError:
        return None


def clean_flags(flags: Sequence[str]) -> tuple[str, ...]:
    """Those that IMAP can have (RFC 9051 section 2.3.2)."""
    found: list[str] = []
    for flag in flags[:MOST_FLAGS]:
        keyword = flag.isascii() and flag.isprintable() and 0 < len(flag) <= _FLAG_OCTETS
        if flag.lower() in _SYSTEM_FLAGS or (keyword and not _NOT_IN_FLAGS & set(flag)):
            found.append(flag)
    return tuple(found)
