"""How Whoosh gets its words: ready made, parted by spaces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from whoosh.analysis import Token, Tokenizer

__all__ = ["SplitWords"]


class SplitWords(Tokenizer):  # type: ignore[misc]  # Whoosh has no types
    """An analyzer without a regular expression: those of Whoosh's own have one, which it would unpickle from its files."""

    def __call__(
        self, value: str, positions: bool = False, chars: bool = False, mode: str = "", **others: Any
    ) -> Iterator[Any]:
        # one token that changes, as all of Whoosh's do
        token = Token(positions, chars, mode=mode)
        for word in value.split(" "):
            if word:
                token.text = word
                token.boost = 1.0
                token.stopped = False
                yield token
