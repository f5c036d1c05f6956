r"""LIST with its extensions, and LSUB (RFC 9051 section 6.3.9, RFC 3501 section 6.3.9, RFC 5258, 5819, 6154).

Names of the account are one set: mailboxes, what is subscribed, and the levels above either that are no mailbox
themselves (``\NonExistent``, to a plain RFC 3501 LIST ``\Noselect``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from twisted_mail.account.state import INBOX, SEPARATOR, AccountState, Mailbox
from twisted_mail.imap import replies
from twisted_mail.imap.commands.listing import List, Lsub
from twisted_mail.imap.execute.mailbox import status_of
from twisted_mail.imap.names import Pattern
from twisted_mail.imap.replies import Condition, ok

if TYPE_CHECKING:
    from twisted_mail.imap.session import Session

__all__ = ["CAPABILITIES", "EXECUTE"]

CAPABILITIES = ("CHILDREN", "LIST-EXTENDED", "LIST-STATUS", "SPECIAL-USE")
TURN = 500
"""Names looked at between two looks at who else waits."""


@dataclass(slots=True)
class _Name:
    """One name that may be listed."""

    name: str
    mailbox: Mailbox | None = None
    subscribed: bool = False
    has_children: bool = False
    child_info: set[str] = field(default_factory=set)
    """Selection options that some name below satisfies (RFC 5258 section 3.5)."""


def _levels_above(name: str) -> Iterable[str]:
    at = name.rfind(SEPARATOR)
    while at > 0:
        yield name[:at]
        at = name.rfind(SEPARATOR, 0, at)


def _tree(state: AccountState, *, subscriptions: bool) -> dict[str, _Name]:
    """All names, by name; with *subscriptions* those too that are only subscribed."""
    found = {name: _Name(name, mailbox, name in state.subscriptions) for name, mailbox in state.by_name.items()}
    if subscriptions:
        for name in state.subscriptions:
            if name not in found:
                found[name] = _Name(name, None, True)
    for name in list(found):
        exists = found[name].mailbox is not None
        for above in _levels_above(name):
            level = found.setdefault(above, _Name(above))
            level.has_children = level.has_children or exists
    return found


def _sorted(names: Iterable[_Name]) -> list[_Name]:
    return sorted(names, key=lambda each: (each.name != INBOX, each.name))


def _patterns(session: Session, reference: str, patterns: Iterable[str]) -> Callable[[str], bool]:
    """Whether a name (in the client's form) matches any of *patterns*, each behind *reference*."""
    separator = session.settings.separator
    compiled = [Pattern(reference + pattern, separator) for pattern in dict.fromkeys(patterns)]
    return lambda name: any(pattern.matches(name) for pattern in compiled)


async def list_(session: Session, tag: bytes, command: List) -> Condition:
    """RFC 9051 section 6.3.9."""
    separator, utf8 = session.settings.separator, session.enabled.utf8_names
    if not command.extended and command.patterns == ("",):
        # RFC 9051 section 6.3.9: asks for the separator and the name of the root.
        session.write(replies.list_response("", ["\\Noselect"], separator=separator))
        return ok("LIST completed")
    select = command.select & {"SUBSCRIBED", "SPECIAL-USE"}
    recursive = "RECURSIVEMATCH" in command.select
    tree = _tree(session.account.state, subscriptions="SUBSCRIBED" in select)
    if recursive:
        _note_children(tree, select)
    matches = _patterns(session, command.reference, command.patterns)
    new = command.extended or session.enabled.rev2
    for count, each in enumerate(_sorted(tree.values()), 1):
        if count % TURN == 0:
            await session.sink.drained()
        chosen = _satisfies(each, select) if select else True
        if not (chosen or (recursive and each.child_info)):
            continue
        name = session.name_out(each.name)
        if not matches(name):
            continue
        attributes = _attributes(each, command, new=new, selected=select)
        info = sorted(each.child_info) if recursive else ()
        session.write(replies.list_response(name, attributes, separator=separator, utf8=utf8, child_info=info))
        if command.status is not None and each.mailbox is not None and chosen:
            session.write(status_of(session, each.mailbox, command.status))
    return ok("LIST completed")


def _satisfies(each: _Name, select: frozenset[str]) -> bool:
    if "SUBSCRIBED" in select and not each.subscribed:
        return False
    return not ("SPECIAL-USE" in select and (each.mailbox is None or not each.mailbox.special_use))


def _note_children(tree: dict[str, _Name], select: frozenset[str]) -> None:
    for each in tree.values():
        if _satisfies(each, select):
            for above in _levels_above(each.name):
                tree[above].child_info |= select


def _attributes(each: _Name, command: List, *, new: bool, selected: frozenset[str]) -> list[str]:
    """Plain LIST says of children and special uses too (RFC 3348, RFC 6154 section 2); the extended form what it is
    asked for."""
    attributes: list[str] = []
    if each.mailbox is None:
        attributes.append("\\NonExistent" if new else "\\Noselect")
    if not command.extended or "CHILDREN" in command.returns:
        attributes.append("\\HasChildren" if each.has_children else "\\HasNoChildren")
    if each.subscribed and ("SUBSCRIBED" in command.returns or "SUBSCRIBED" in selected):
        attributes.append("\\Subscribed")
    if each.mailbox is not None and (
        not command.extended or "SPECIAL-USE" in command.returns or "SPECIAL-USE" in selected
    ):
        attributes += each.mailbox.special_use
    return attributes


async def lsub(session: Session, tag: bytes, command: Lsub) -> Condition:
    r"""RFC 3501 section 6.3.9: with ``%`` at the end, a level that is not subscribed but has something subscribed below
    is listed as ``\Noselect``."""
    separator, utf8 = session.settings.separator, session.enabled.utf8_names
    state = session.account.state
    if command.pattern == "":
        session.write(replies.lsub_response("", ["\\Noselect"], separator=separator))
        return ok("LSUB completed")
    matches = _patterns(session, command.reference, (command.pattern,))
    names = dict.fromkeys(state.subscriptions, True)
    if command.pattern.endswith("%"):
        for name in state.subscriptions:
            for above in _levels_above(name):
                names.setdefault(above, False)
    for each in _sorted(_Name(name, subscribed=on) for name, on in names.items()):
        name = session.name_out(each.name)
        if matches(name):
            attributes = [] if each.subscribed else ["\\Noselect"]
            session.write(replies.lsub_response(name, attributes, separator=separator, utf8=utf8))
    return ok("LSUB completed")


EXECUTE = {List: list_, Lsub: lsub}
