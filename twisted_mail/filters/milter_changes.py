"""What a milter's modifications are in our own words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from twisted_mail.filters.milter_packets import Modification, Reply
from twisted_mail.filters.values import Changes, FieldChange

__all__ = ["changes_of", "words_of"]


def changes_of(
    modifications: Sequence[Modification], fields: Sequence[tuple[bytes, bytes]], *, leading_space: bool = False
) -> Changes | None:
    """*fields*: of the message as the milter saw it. None: nothing is changed.

    A milter counts our own Received field as the first one when it inserts; here positions begin behind it. A field that is
    to be changed and does not exist is added (smfi_chgheader). All numbers are those of the message as the milter saw it, which
    may have been changed by those before it.
    """
    here = Counter(name.decode("latin-1").lower() for name, _ in fields)
    inserted: list[tuple[int, str, str]] = []
    added: list[tuple[str, str]] = []
    changed: dict[tuple[str, int], FieldChange] = {}
    body: list[bytes] | None = None
    sender: str | None = None
    more: dict[str, None] = {}
    fewer: dict[str, None] = {}
    for each in modifications:
        value = _folded(each.value, leading_space)
        match each.kind:
            case Reply.ADD_HEADER:
                added.append((each.name, value))
            case Reply.INSERT_HEADER:
                inserted.append((max(each.index - 1, 0), each.name, value))
            case Reply.CHANGE_HEADER:
                nth = max(each.index, 1)
                if nth <= here[each.name.lower()]:
                    changed[each.name.lower(), nth] = FieldChange(each.name, nth, value if each.value else None)
                elif each.value:
                    added.append((each.name, value))
            case Reply.REPLACE_BODY:
                body = [] if body is None else body
                body.append(each.octets)
            case Reply.CHANGE_SENDER:
                sender = each.value
            case Reply.ADD_RECIPIENT | Reply.ADD_RECIPIENT_WITH_PARAMETERS:
                fewer.pop(each.value, None)
                more[each.value] = None
            case Reply.DELETE_RECIPIENT:
                if each.value in more:
                    del more[each.value]
                else:
                    fewer[each.value] = None
    changes = Changes(
        inserted=tuple(inserted),
        added=tuple(added),
        changed=tuple(changed.values()),
        body=None if body is None else _line_ends(b"".join(body)),
        chained=True,
        sender=sender,
        recipients_added=tuple(more),
        recipients_removed=tuple(fewer),
    )
    return None if changes == Changes() else changes


def _folded(value: str, leading_space: bool) -> str:
    """A field's value with CRLF where it is folded; each line but the first begins with a blank, or it would be a field."""
    if leading_space:
        value = value.removeprefix(" ")
    first, *rest = value.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    lines = [line if line.startswith((" ", "\t")) else f"\t{line}" for line in rest if line.strip(" \t")]
    return "\r\n".join([first, *lines])


def _line_ends(body: bytes) -> bytes:
    """A milter sends lines as it likes; ours end with CRLF."""
    if body.count(b"\n") != body.count(b"\r\n") or body.count(b"\r") != body.count(b"\r\n"):
        body = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    return body


def words_of(modifications: Sequence[Modification]) -> str:
    """What was done, for the trace: "has added Authentication-Results and replaced the body". Empty: nothing."""
    done: list[str] = []
    added = dict.fromkeys(each.name for each in modifications if each.kind in (Reply.ADD_HEADER, Reply.INSERT_HEADER))
    if added:
        done.append("added " + _listed(list(added)))
    for kept, words in ((True, "changed"), (False, "removed")):
        names = dict.fromkeys(
            each.name for each in modifications if each.kind is Reply.CHANGE_HEADER and bool(each.value) is kept
        )
        if names:
            done.append(f"{words} {_listed(list(names))}")
    kinds = {each.kind for each in modifications}
    if Reply.REPLACE_BODY in kinds:
        done.append("replaced the body")
    if Reply.CHANGE_SENDER in kinds:
        done.append("changed the sender")
    if kinds & {Reply.ADD_RECIPIENT, Reply.ADD_RECIPIENT_WITH_PARAMETERS, Reply.DELETE_RECIPIENT}:
        done.append("changed the recipients")
    return f"has {_listed(done)}" if done else ""


def _listed(words: list[str]) -> str:
    if len(words) > 4:
        words = [*words[:3], f"{len(words) - 3} more"]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
