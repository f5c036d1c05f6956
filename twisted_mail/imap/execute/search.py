"""SEARCH and UID SEARCH (RFC 9051 section 6.4.4, RFC 4731, 5032, 5182, 7162, 8474, 8514).

First the columns decide what they can (`search_columns`), then the folded text of the rest is scanned: decoded and
normalised when the message was stored, so that a scan is a search for octets and nothing is parsed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pyroaring import BitMap

from twisted_mail.imap import codes, replies
from twisted_mail.imap.commands.search import CHARSETS, BadCharset, Search
from twisted_mail.imap.execute.message import runs
from twisted_mail.imap.execute.search_columns import ColumnSearch
from twisted_mail.imap.replies import Condition, no, ok
from twisted_mail.imap.search_keys import And, BodyKey, HeaderKey, ModSeqKey, Not, Or, SearchKey, TextKey
from twisted_mail.imap.selected import Selected, batches
from twisted_mail.mime import fold, match_body, match_header, match_text

if TYPE_CHECKING:
    from twisted_mail.imap.session import Session

__all__ = ["CAPABILITIES", "EXECUTE", "find"]

CAPABILITIES = ("ESEARCH", "SEARCHRES", "WITHIN")
BATCH: Final = 4096
"""Messages whose text is asked for at a time; the store gives them in batches bounded by octets."""

Test = Callable[[int, bytes, bytes], bool]
"""(slot, header text, body text) to whether the message matches."""


@dataclass(slots=True)
class Needs:
    """Which cells the text keys of a search look at."""

    header: bool = False
    text: bool = False


def compile_key(search: ColumnSearch, key: SearchKey, needs: Needs) -> Test:
    """*key* as a function of one message. Needles are folded once."""
    match key:
        case And(keys):
            tests = [compile_key(search, each, needs) for each in keys]
            return lambda slot, header, text: all(test(slot, header, text) for test in tests)
        case Or(left, right):
            one, other = compile_key(search, left, needs), compile_key(search, right, needs)
            return lambda slot, header, text: one(slot, header, text) or other(slot, header, text)
        case Not(inner):
            inverse = compile_key(search, inner, needs)
            return lambda slot, header, text: not inverse(slot, header, text)
        case HeaderKey(name, wanted):
            needs.header = True
            needle = fold(wanted)
            return lambda slot, header, text: match_header(header, name, needle)
        case BodyKey(wanted):
            needs.text = True
            needle = fold(wanted)
            return lambda slot, header, text: match_body(text, needle)
        case TextKey(wanted):
            needs.header = needs.text = True
            needle = fold(wanted)
            return lambda slot, header, text: match_text(header, text, needle)
    slots = search.leaf(key)
    return lambda slot, header, text: slot in slots


async def find(session: Session, view: Selected, key: SearchKey) -> BitMap:
    """The slots of the messages in the view that match. SORT and THREAD will begin here too."""
    search = ColumnSearch(view, int(session.clock()))
    certain, perhaps = search.bounds(key)
    undecided = perhaps - certain
    if not undecided:
        return certain
    needs = Needs()
    test = compile_key(search, key, needs)
    columns = [name for name, needed in (("search_header", needs.header), ("search_text", needs.text)) if needed]
    found: list[int] = []
    for batch in batches(undecided, BATCH):
        slots = iter(batch)
        place = view.columns.key
        async for rows in session.account.rows([place(slot) for slot in batch], columns):
            for row in rows:
                slot = next(slots)
                if row is None:
                    continue
                header = row[0] if needs.header else b""
                if test(slot, header, row[-1] if needs.text else b""):
                    found.append(slot)
            await session.sink.drained()
    return certain | BitMap(found)


def _has_modseq(key: SearchKey) -> bool:
    match key:
        case And(keys):
            return any(map(_has_modseq, keys))
        case Or(left, right):
            return _has_modseq(left) or _has_modseq(right)
        case Not(inner):
            return _has_modseq(inner)
    return isinstance(key, ModSeqKey)


async def search(session: Session, tag: bytes, command: Search) -> Condition:
    """RFC 9051 section 6.4.4; ESEARCH where RETURN or IMAP4rev2 asks for it, MODSEQ RFC 7162 section 3.1.5."""
    view = session.selected
    with_modseq = _has_modseq(command.key)
    if with_modseq:
        session.enable_condstore()
    save = command.returns is not None and "SAVE" in command.returns
    try:
        found = await find(session, view, command.key)
    except BaseException:
        if save:
            view.saved = BitMap()  # RFC 5182 section 2.1: a search that fails leaves nothing
        raise
    name = "UID SEARCH" if command.uid else "SEARCH"
    if command.returns is None and not session.enabled.rev2:
        modseq = _highest(view, found) if with_modseq and found else None
        session.write(replies.search(view.names_of(found, uid=command.uid), modseq))
        return ok(f"{name} completed")
    wanted = (command.returns or frozenset(("ALL",))) - {"SAVE"}
    if save:
        view.saved = _to_save(found, wanted)
    if wanted:
        session.write(_esearch(view, tag, found, wanted, uid=command.uid, with_modseq=with_modseq))
    return ok(f"{name} completed" + (", result saved" if save else ""))


def _to_save(found: BitMap, wanted: frozenset[str]) -> BitMap:
    """RFC 5182 section 2.4: with MIN and MAX, and neither ALL nor COUNT, only those are saved."""
    if not found or not wanted or wanted & {"ALL", "COUNT"}:
        return found
    saved = BitMap()
    if "MIN" in wanted:
        saved.add(found.min())
    if "MAX" in wanted:
        saved.add(found.max())
    return saved


def _highest(view: Selected, found: BitMap) -> int:
    modseqs = view.columns.modseqs
    return max(modseqs[slot] for slot in found)


def _esearch(
    view: Selected, tag: bytes, found: BitMap, wanted: frozenset[str], *, uid: bool, with_modseq: bool
) -> bytes:
    """RFC 4731 section 3.1: what has no value is left out, COUNT never is."""
    modseq = None
    if with_modseq and found:
        # RFC 4731 section 3.2: of what is returned, where that is only MIN and MAX.
        modseq = _highest(view, found if wanted & {"ALL", "COUNT"} else _to_save(found, wanted))
    least = greatest = None
    if found and "MIN" in wanted:
        least = view.names_of(BitMap([found.min()]), uid=uid)[0]
    if found and "MAX" in wanted:
        greatest = view.names_of(BitMap([found.max()]), uid=uid)[0]
    return replies.esearch(
        tag,
        uid=uid,
        least=least,
        greatest=greatest,
        count=len(found) if "COUNT" in wanted else None,
        all_of=runs(view.names_of(found, uid=uid)) if "ALL" in wanted else (),
        modseq=modseq,
    )


async def bad_charset(session: Session, tag: bytes, command: BadCharset) -> Condition:
    """RFC 9051 section 6.4.4."""
    return no("That charset is not supported", codes.bad_charset(CHARSETS))


EXECUTE = {Search: search, BadCharset: bad_charset}
