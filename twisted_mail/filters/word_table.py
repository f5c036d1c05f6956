"""How often words occurred in an account's spam and in its wanted mail: a table that never grows.

It has a fixed number of slots of eight octets (the word, how often in spam, how often not). A word stands in one of the four
slots from its own on; where all are taken by others, it drives out the rarest. When much was learned all counts are halved,
so that what was learned lately weighs more.

The probability of one word, and how words are combined, are Gary Robinson's: f(w) with the strength s of the assumption x
("A Statistical Approach to the Spam Problem", Linux Journal 107, 2003), and Fisher's method of combining probabilities with
the inverse chi-square function, as SpamBayes, bogofilter and SpamAssassin do it. The constants are those of SpamBayes.
"""

from __future__ import annotations

import math
import struct
import sys
from array import array
from collections import Counter
from collections.abc import Iterable
from typing import Final

__all__ = ["SHARDS", "WordTable", "chi_square"]

_SLOTS: Final = 1 << 15
_PROBES: Final = 4
_STARTS: Final = _SLOTS - _PROBES + 1
"""A word's first slot is its remainder."""
_MOST: Final = 0xFFFF
SHARDS: Final = 8
"""The pieces in which it is kept, of 32 KiB before they are compressed."""
_PER_SHARD: Final = _SLOTS // SHARDS
_TOTALS: Final = struct.Struct("<BII")
_VERSION: Final = 1

_STRENGTH: Final = 0.45
"""s: so much data is the assumption worth."""
_ASSUMED: Final = 0.5
"""x: of a word that was never seen."""
_LEAST_DEVIATION: Final = 0.1
"""Words nearer to 0.5 say nothing."""
_MOST_WORDS: Final = 150
"""The most telling ones that count."""
HALVED_AT: Final = 4_000
"""Messages learned."""


class WordTable:
    """Of one account."""

    __slots__ = ("_counts", "_weights", "_words", "changed", "ham", "spam")

    def __init__(self) -> None:
        self._words = array("I", bytes(4 * _SLOTS))
        self._counts = array("I", bytes(4 * _SLOTS))
        """In spam in the upper half, in wanted mail in the lower one."""
        self.spam = 0
        """Messages learned as spam."""
        self.ham = 0
        """Messages learned as wanted."""
        self.changed: set[int] = set()
        """Shards that are not kept as they are now."""
        self._weights: dict[int, tuple[float, float, float] | None] = {}
        """What counts tell, until something is learned."""

    # --- learning

    def learn(self, words: Iterable[int], *, spam: bool) -> None:
        """One more message."""
        self._weights.clear()
        if self.spam + self.ham >= HALVED_AT:
            self._halve()
        if spam:
            self.spam += 1
        else:
            self.ham += 1
        shift = 16 if spam else 0
        stored, counts = self._words, self._counts
        for word in words:
            at = self._place(word)
            if stored[at] != word:
                stored[at], counts[at] = word, 0
            if counts[at] >> shift & _MOST < _MOST:
                counts[at] += 1 << shift
            self.changed.add(at // _PER_SHARD)

    def unlearn(self, words: Iterable[int], *, spam: bool) -> None:
        """One less; what has been driven out or halved since is not there any more."""
        self._weights.clear()
        if spam:
            self.spam = max(0, self.spam - 1)
        else:
            self.ham = max(0, self.ham - 1)
        shift = 16 if spam else 0
        for word in words:
            at = self._place(word)
            if self._words[at] == word and self._counts[at] >> shift & _MOST:
                self._counts[at] -= 1 << shift
                self.changed.add(at // _PER_SHARD)

    def counts(self, word: int) -> tuple[int, int]:
        """(in spam, in wanted mail)."""
        at = self._place(word)
        counts = self._counts[at] if self._words[at] == word else 0
        return counts >> 16, counts & _MOST

    def _place(self, word: int) -> int:
        """Where *word* stands, or where it would be put: the first slot that is free, or else that of the rarest."""
        stored, start = self._words, word % _STARTS
        for at in range(start, start + _PROBES):
            if stored[at] == word:
                return at
        totals = [(counts >> 16) + (counts & _MOST) for counts in self._counts[start : start + _PROBES]]
        return start + totals.index(min(totals))

    def _halve(self) -> None:
        """Each count in two, rounded down: what occurred once is forgotten. The words stay, the first to be driven out."""
        self._counts = array("I", [counts >> 1 & 0x7FFF_7FFF for counts in self._counts])
        self.spam //= 2
        self.ham //= 2
        self.changed = set(range(SHARDS))

    # --- judging

    def probability(self, words: Iterable[int]) -> float:
        """That a message with these words is spam: 0 to 1, 0.5 where nothing is known."""
        stored, known, starts = self._words, self._counts, _STARTS
        seen = []
        for word in words:
            at = word % starts
            if stored[at] == word:
                seen.append(known[at])
            elif word in (near := stored[at + 1 : at + _PROBES]):
                seen.append(known[at + 1 + near.index(word)])
        weights, telling = self._weights, []
        # Few words have counts that no other has: what counts tell is worked out once for all of them.
        for counts, times in Counter(seen).items():
            try:
                weight = weights[counts]
            except KeyError:
                weight = weights[counts] = self._weigh(counts >> 16, counts & _MOST)
            if weight is not None:
                telling.append((weight, times))
        telling.sort(reverse=True)
        number, against, speaking = 0, 0.0, 0.0
        for (_, log_not, log_f), times in telling:
            times = min(times, _MOST_WORDS - number)
            number += times
            # sums of logarithms, because the products may be too small for a float
            against += times * log_not
            speaking += times * log_f
        if not number:
            return 0.5
        return (1.0 - chi_square(-2.0 * against, number) + chi_square(-2.0 * speaking, number)) / 2.0

    def _weigh(self, bad: int, good: int) -> tuple[float, float, float] | None:
        """(deviation from 0.5, logarithm of 1 - f, logarithm of f) of a word; None if it tells nothing."""
        number = bad + good
        if not number:
            return None
        in_spam, in_ham = bad / (self.spam or 1), good / (self.ham or 1)
        f = (_STRENGTH * _ASSUMED + number * in_spam / (in_spam + in_ham)) / (_STRENGTH + number)
        # f is never 0 or 1, because _STRENGTH is not 0
        return None if abs(f - 0.5) < _LEAST_DEVIATION else (abs(f - 0.5), math.log(1.0 - f), math.log(f))

    # --- keeping

    def totals(self) -> bytes:
        """To be kept beside the shards."""
        return _TOTALS.pack(_VERSION, self.spam, self.ham)

    def shard(self, number: int) -> bytes:
        """The words of some slots, then their counts, as octets (little-endian); 0 <= *number* < `SHARDS`."""
        here = slice(number * _PER_SHARD, (number + 1) * _PER_SHARD)
        piece = self._words[here] + self._counts[here]
        if sys.byteorder == "big":
            piece.byteswap()
        return piece.tobytes()

    @classmethod
    def of(cls, totals: bytes, shards: dict[int, bytes]) -> WordTable:
        """What was kept; shards that are missing are empty. Raises: ValueError."""
        table = cls()
        try:
            version, table.spam, table.ham = _TOTALS.unpack(totals)
        except struct.error as error:
            raise ValueError("malformed totals") from error
        if version != _VERSION:
            raise ValueError(f"unknown version {version}")
        for number, octets in shards.items():
            if not 0 <= number < SHARDS or len(octets) != 8 * _PER_SHARD:
                raise ValueError(f"malformed shard {number}")
            piece = array("I", octets)
            if sys.byteorder == "big":
                piece.byteswap()
            here = slice(number * _PER_SHARD, (number + 1) * _PER_SHARD)
            table._words[here], table._counts[here] = piece[:_PER_SHARD], piece[_PER_SHARD:]
        return table


def chi_square(x: float, pairs: int) -> float:
    """The probability that a chi-square with 2 * *pairs* degrees of freedom is at least *x*."""
    half = x / 2.0
    term = total = math.exp(-half)
    for number in range(1, pairs):
        term *= half / number
        total += term
        if term < 1e-12 and number > half:
            break  # what follows is less still
    return min(total, 1.0)
