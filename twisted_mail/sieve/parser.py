"""From words to a tree, by the grammar of RFC 5228 section 8.2, which is the same for every extension."""

from __future__ import annotations

from twisted_mail.sieve.lexer import Source, Token, Word, words_of
from twisted_mail.sieve.syntax import Argument, Item, Node, Number, Strings, TagName

__all__ = ["parse"]


def parse(source: Source, nesting: int) -> list[Node]:
    """The commands of a script. *nesting* bounds blocks in blocks, and tests in tests (section 2.10.5: 15 at least).

    Raises: SieveError where it is not well formed.
    """
    return _Parser(source, nesting).script()


class _Parser:
    def __init__(self, source: Source, nesting: int):
        self._source = source
        self._nesting = nesting
        self._words = words_of(source)
        self._next = 0

    def _peek(self) -> Token:
        return self._words[self._next]

    def _take(self) -> Token:
        word = self._words[self._next]
        if word.kind is not Word.END:
            self._next += 1
        return word

    def _at_mark(self, mark: str) -> bool:
        word = self._words[self._next]
        return word.kind is Word.MARK and word.value == mark

    def _expect(self, mark: str, why: str) -> Token:
        if not self._at_mark(mark):
            word = self._peek()
            self._source.fail(f"{mark!r} is missing {why}; here is {_shown(word)}", word.at)
        return self._take()

    def script(self) -> list[Node]:
        commands = []
        while self._peek().kind is not Word.END:
            commands.append(self._command(0))
        return commands

    def _command(self, depth: int) -> Node:
        word = self._take()
        if word.kind is not Word.NAME:
            self._source.fail(f"a command should begin here, not {_shown(word)}", word.at)
        node = Node(word.value, word.at)
        self._arguments(node, 0)
        if self._at_mark(";"):
            node.end = self._take().at + 1
            return node
        if not self._at_mark("{"):
            found = self._peek()
            self._source.fail(f"';' or a block is missing behind {node.name}; here is {_shown(found)}", found.at)
        opened = self._take()
        if depth >= self._nesting:
            self._source.fail(f"more than {self._nesting} blocks in one another", opened.at)
        node.block = []
        while not self._at_mark("}"):
            if self._peek().kind is Word.END:
                self._source.fail("this block has no end", opened.at)
            node.block.append(self._command(depth + 1))
        node.end = self._take().at + 1
        return node

    def _arguments(self, node: Node, depth: int) -> None:
        while (argument := self._argument()) is not None:
            node.arguments.append(argument)
        if self._peek().kind is Word.NAME:
            node.tests.append(self._test(depth + 1))
        elif self._at_mark("("):
            self._take()
            node.parenthesized = True
            node.tests.append(self._test(depth + 1))
            while self._at_mark(","):
                self._take()
                node.tests.append(self._test(depth + 1))
            self._expect(")", "behind a list of tests")

    def _test(self, depth: int) -> Node:
        word = self._take()
        if word.kind is not Word.NAME:
            self._source.fail(f"a test should begin here, not {_shown(word)}", word.at)
        if depth > self._nesting:
            self._source.fail(f"more than {self._nesting} tests in one another", word.at)
        node = Node(word.value, word.at)
        self._arguments(node, depth)
        return node

    def _argument(self) -> Argument | None:
        word = self._peek()
        if word.kind is Word.STRING:
            self._take()
            return Strings((Item(word.value, word.at),), word.at, False)
        if word.kind is Word.NUMBER:
            self._take()
            return Number(int(word.value), word.at)
        if word.kind is Word.TAG:
            self._take()
            return TagName(word.value, word.at)
        if not self._at_mark("["):
            return None
        opened = self._take()
        items = [self._string()]
        while self._at_mark(","):
            self._take()
            items.append(self._string())
        self._expect("]", "behind a list of strings")
        return Strings(tuple(items), opened.at, True)

    def _string(self) -> Item:
        word = self._take()
        if word.kind is not Word.STRING:
            self._source.fail(f"a string should stand here, not {_shown(word)}", word.at)
        return Item(word.value, word.at)


def _shown(word: Token) -> str:
    if word.kind is Word.END:
        return word.kind
    if word.kind is Word.STRING:
        return "a string"
    return repr(":" + word.value if word.kind is Word.TAG else word.value)
