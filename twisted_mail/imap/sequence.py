"""Sets of message numbers and UIDs: ``sequence-set`` (RFC 9051 section 9, RFC 5182 section 2.1)."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pyroaring import BitMap

from twisted_mail.values import MAX_UID

__all__ = ["SAVED", "NumberSet", "Range", "SavedResult", "SequenceSet", "compress", "merge", "render"]

Range = tuple[int, int]
"""First and last number, both inside."""


@dataclass(frozen=True, slots=True)
class SavedResult:
    """``$``: what the last SEARCH RETURN (SAVE) found (RFC 5182 section 2.1)."""


SAVED: Final = SavedResult()


@dataclass(frozen=True, slots=True)
class SequenceSet:
    """Numbers from 1 to 2**32-1, and perhaps ``*``, the largest number in use.

    `ranges` ascend, do not touch and hold no ``*``. `tail` is the lowest *n* of all ``n:*`` (``*`` alone:
    2**32-1), None where the set has no ``*``. A set with a tail always holds the largest number in use, also when
    *n* is above it (RFC 9051 section 9, seq-range).
    """

    ranges: tuple[Range, ...]
    tail: int | None = None

    @classmethod
    def parse(cls, text: bytes, most: int = 1_000_000) -> SequenceSet:
        """Read *text*, of digits, ``*``, ``:`` and ``,``. Raises ValueError, also for more than *most* elements."""
        if b":" not in text and b"*" not in text:
            if b"," not in text:
                number = _number(text)
                return cls(((number, number),))
            elements = text.split(b",")
            if len(elements) > most:
                raise ValueError("too many elements in the sequence set")
            if b",0" in text or text[:1] == b"0":
                raise ValueError("a number in the sequence set starts with 0")
            try:
                # Sorts and removes what comes twice; for a million numbers in any order a third of sorted(set(…)).
                return cls(_runs(BitMap(array("I", map(int, elements)))))
            except OverflowError:
                raise ValueError("a number in the sequence set is too large")
            except ValueError:
                raise ValueError("bad number in the sequence set")
        elements = text.split(b",")
        if len(elements) > most:
            raise ValueError("too many elements in the sequence set")
        ranges: list[Range] = []
        tail: int | None = None
        for element in elements:
            first, colon, last = element.partition(b":")
            if not colon:
                last = first
            if first == b"*" or last == b"*":
                other = first if last == b"*" else last
                low = MAX_UID if other == b"*" else _number(other)
                tail = low if tail is None else min(low, tail)
            else:
                low, high = _number(first), _number(last)
                ranges.append((low, high) if low <= high else (high, low))
        return cls(merge(ranges), tail)

    @classmethod
    def of(cls, numbers: Iterable[int]) -> SequenceSet:
        """The set of exactly *numbers*, in any order."""
        return cls(_runs(sorted(set(numbers))))

    @property
    def highest(self) -> int:
        """The largest number named, ``*`` apart; 0 where there is none. Message numbers must not exceed EXISTS."""
        named = self.ranges[-1][1] if self.ranges else 0
        return max(named, self.tail) if self.tail is not None and self.tail != MAX_UID else named

    def resolve(self, largest: int) -> tuple[Range, ...]:
        """Ascending ranges with ``*`` standing for *largest* (0: nothing is there, so ``*`` is nothing).

        Ranges without ``*`` keep what lies above *largest*: a UID there may have been expunged.
        """
        if self.tail is None or largest < 1:
            return self.ranges
        last = (min(self.tail, largest), largest)
        return merge([*self.ranges, last]) if self.ranges else (last,)

    def within(self, largest: int) -> tuple[Range, ...]:
        """As `resolve`, without what lies above *largest*."""
        ranges = self.resolve(largest)
        if not ranges or ranges[-1][1] <= largest:
            return ranges
        return tuple((low, min(high, largest)) for low, high in ranges if low <= largest)

    def __bytes__(self) -> bytes:
        text = render(self.ranges)
        if self.tail is None:
            return text
        star = b"*" if self.tail == MAX_UID else b"%d:*" % self.tail
        return text + b"," + star if text else star


NumberSet = SequenceSet | SavedResult


def merge(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """*ranges* (each low to high) in ascending order, those that touch or overlap made one."""
    out: list[Range] = []
    low = high = -1
    for first, last in sorted(ranges):
        if first <= high + 1 and high >= 0:
            if last > high:
                high = last
        else:
            if high >= 0:
                out.append((low, high))
            low, high = first, last
    if high >= 0:
        out.append((low, high))
    return tuple(out)


def compress(numbers: Iterable[int]) -> bytes:
    """*numbers* in their order as a set, runs that ascend by one as ``first:last``; empty for none."""
    return render(_runs(numbers))


def render(ranges: Sequence[Range]) -> bytes:
    """*ranges* as a set, in their order; empty for none."""
    return b",".join([b"%d:%d" % (low, high) if low != high else b"%d" % low for low, high in ranges])


def _runs(numbers: Iterable[int]) -> tuple[Range, ...]:
    out: list[Range] = []
    low = high = -1
    for number in numbers:
        if number == high + 1 and high >= 0:
            high = number
        else:
            if high >= 0:
                out.append((low, high))
            low = high = number
    if high >= 0:
        out.append((low, high))
    return tuple(out)


def _number(text: bytes) -> int:
    """``nz-number`` (RFC 9051 section 9). Raises ValueError."""
    if not text.isdigit() or text[:1] == b"0" or len(text) > 10:
        raise ValueError("bad number in the sequence set")
    number = int(text)
    if number > MAX_UID:
        raise ValueError("a number in the sequence set is too large")
    return number
