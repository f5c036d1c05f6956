"""What goes where while a message comes in: text, attachments, base64 that is stored decoded; all octet for octet."""

from __future__ import annotations

import base64
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.account.house import now
from twisted_mail.account.manifests import Run, assemble, refs_of, runs_of
from twisted_mail.account.messages import MessageStore, Prepared
from twisted_mail.account.splitting import ATTACHMENT_BYTES, INLINE_BYTES, MAX_ATTACHMENTS
from twisted_mail.storage.memory import MemoryBlobs, MemoryMessages

FILE = random.Random(1).randbytes(90_000)
HEAD = b"From: a@example.org\r\nSubject: x\r\nContent-Type: multipart/mixed; boundary=xx\r\n\r\npreamble\r\n"
PLAIN = b"Content-Type: text/plain\r\n\r\n"
PDF = b"Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n"
BINARY = b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n"


def multipart(*parts: bytes) -> bytes:
    return HEAD + b"".join(b"--xx\r\n" + part + b"\r\n" for part in parts) + b"--xx--\r\nepilogue\r\n"


def encoded(data: bytes, line: int = 76, end: bytes = b"\r\n", last: bool = True) -> bytes:
    text = base64.b64encode(data)
    lines = [text[at : at + line] for at in range(0, len(text), line)]
    return end.join(lines) + (end if last else b"")


class Shelf:
    """A store of messages, and how often it has made an object."""

    def __init__(self) -> None:
        self.blobs = MemoryBlobs()
        self.store = MessageStore(MemoryMessages(), self.blobs)

    def put(self, octets: bytes, chunk: int = 8192) -> Prepared:
        async def come() -> Prepared:
            writer = self.store.writer()
            for at in range(0, len(octets), chunk):
                await writer.write(octets[at : at + chunk])
            return await writer.finish()

        return now(come())

    def get(self, message: Prepared, start: int = 0, end: int | None = None) -> bytes:
        async def read() -> bytes:
            cells = [message.cells[name] for name in ("header", "inline", "manifest")]
            chunks = [chunk async for chunk in assemble(self.blobs, cells, start, end)]
            assert all(0 < len(chunk) <= 65_536 for chunk in chunks)
            return b"".join(chunks)

        return now(read())

    def content(self, ref: Any) -> bytes:
        async def read() -> bytes:
            return b"".join([chunk async for chunk in self.blobs.open(ref)])

        return now(read())


def runs(message: Prepared) -> tuple[Run, ...]:
    return runs_of(message.cells["manifest"])


def check(octets: bytes, chunk: int = 8192) -> tuple[Shelf, Prepared]:
    """It comes back octet for octet, and any range of it."""
    shelf = Shelf()
    message = shelf.put(octets, chunk)
    same = shelf.get(message) == octets
    assert same and message.size == len(octets)
    assert sum(run.length for run in runs(message)) == len(octets)
    draw = random.Random(len(octets))
    edges, at = [0], 0
    for run in runs(message):
        at += run.length
        edges.append(at)
    for _ in range(20):
        start = max(0, draw.choice(edges) + draw.randint(-90, 90))
        end = start + draw.choice([1, 2, 77, 78, 79, 5000, 70_000])
        assert shelf.get(message, start, end) == octets[start:end], (start, end)
    return shelf, message


def test_a_message_of_up_to_64_kib_lies_in_its_row_whatever_is_in_it() -> None:
    octets = multipart(PLAIN + b"hello", PDF + encoded(FILE[:40_000]))
    assert len(octets) <= INLINE_BYTES
    _, message = check(octets)
    assert message.refs == () and [run.place for run in runs(message)] == ["header", "inline"]


def test_an_attachment_is_stored_decoded_and_once_however_it_was_encoded() -> None:
    shelf = Shelf()
    ways = [
        multipart(PLAIN + b"hello", PDF + encoded(FILE)),
        multipart(PLAIN + b"another", PDF + encoded(FILE, 60, b"\n"), PLAIN + b"and more"),
        multipart(PDF + encoded(FILE, 1000, last=False)),
        multipart(PDF + encoded(FILE) + b"\r\n\r\n"),
        PDF + encoded(FILE, 72, b"\n", last=False),
    ]
    messages = [shelf.put(octets) for octets in ways]
    for octets, message in zip(ways, messages, strict=True):
        assert shelf.get(message) == octets
    refs = {ref for message in messages for ref in message.refs}
    assert len(refs) == 1 and shelf.content(refs.pop()) == FILE
    assert all(len(message.cells["inline"]) < 1000 for message in messages)


def test_text_beyond_the_row_is_one_blob_wherever_attachments_stand_in_it() -> None:
    text = b"0123456789abcde\r\n" * 8000
    octets = multipart(PLAIN + text, PDF + encoded(FILE), PLAIN + text, BINARY + FILE[::-1], PLAIN + b"end")
    shelf, message = check(octets)
    assert len(message.refs) == 3 and len(message.cells["inline"]) + len(message.cells["header"]) == INLINE_BYTES
    assert refs_of(message.cells["manifest"]) == message.refs
    assert {shelf.content(ref) for ref in message.refs} > {FILE, FILE[::-1]}


def test_a_single_attachment_without_a_multipart_is_one_too() -> None:
    shelf, message = check(b"Subject: x\r\n" + PDF + encoded(FILE))
    assert [shelf.content(ref) for ref in message.refs] == [FILE]


def test_text_that_is_an_attachment_and_what_an_embedded_message_carries_are_attachments() -> None:
    csv = b"Content-Type: text/csv\r\nContent-Disposition: attachment\r\nContent-Transfer-Encoding: base64\r\n\r\n" + encoded(FILE)
    inner = b"Content-Type: message/rfc822\r\n\r\n" + multipart(PDF + encoded(FILE[:57_000])).replace(b"xx\r\n", b"yy\r\n")
    shelf, message = check(multipart(csv, inner))
    assert [shelf.content(ref) for ref in message.refs] == [FILE, FILE[:57_000]]


def test_short_attachments_are_text() -> None:
    text = PLAIN + b"0123456789abcde\r\n" * 8000
    short = BINARY + FILE[:ATTACHMENT_BYTES]
    _, message = check(multipart(text, short, BINARY + FILE[: ATTACHMENT_BYTES + 1]))
    assert len(message.refs) == 2


def test_the_number_of_objects_is_bounded() -> None:
    octets = multipart(*[BINARY + bytes((n & 255, n >> 8)) * 9000 for n in range(MAX_ATTACHMENTS + 10)])
    _, message = check(octets, 1 << 20)
    assert len(message.refs) == MAX_ATTACHMENTS + 1


ODD = {
    "trailing spaces": encoded(FILE).replace(b"\r\n", b" \r\n"),
    "one trailing space": encoded(FILE)[:70_000] + b" " + encoded(FILE)[70_000:],
    "mixed line ends": encoded(FILE[:60_000]) + encoded(FILE[60_000:], 76, b"\n"),
    "another line length later": encoded(FILE[:57_000]) + encoded(FILE[57_000:], 60),
    "padding in the middle": encoded(FILE[:50_000]) + encoded(FILE[50_000:]),
    "wrong padding": encoded(FILE)[:-4] + b"=\r\n",
    "no padding": encoded(FILE[:80_002], last=False).rstrip(b"="),
    "bits behind the end": encoded(FILE[:80_002], last=False).rstrip(b"=")[:-1] + b"9==",
    "a line of 75": encoded(FILE, 75),
    "one endless line": encoded(FILE, 10**9),
    "an empty line first": b"\r\n" + encoded(FILE),
    "garbage": FILE,
    "a footer": encoded(FILE) + b"\r\n-- \r\nthe list\r\n",
    "a long footer": encoded(FILE) + b"\r\n-- \r\nthe list\r\n" * 1000,
    "bare CRs": encoded(FILE, 76, b"\r"),
    "url-safe letters": encoded(FILE).replace(b"+", b"-"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_base64_comes_back_as_it_was(name: str) -> None:
    for chunk in (997, 65_536, 10**7):
        shelf, message = check(multipart(PLAIN + b"hello", PDF + ODD[name], PLAIN + b"end"), chunk)
        assert len(message.refs) == 1
    if name in ("a footer", "no padding", "wrong padding"):
        content = shelf.content(message.refs[0])  # all but perhaps the last line
        assert len(content) > 79_900 and FILE.startswith(content)


def test_truncated_at_any_octet() -> None:
    whole = multipart(PLAIN + b"hello", PDF + encoded(FILE[:80_000]))
    end = whole.index(b"\r\n--xx--")
    for cut in (*range(end - 170, len(whole)), *range(INLINE_BYTES - 5, INLINE_BYTES + 90)):
        shelf = Shelf()
        assert shelf.get(shelf.put(whole[:cut])) == whole[:cut], cut


def any_message(draw: random.Random) -> bytes:
    """A multipart with text and attachments, regular and spoilt somewhere."""
    parts = []
    for _ in range(draw.randint(0, 4)):
        size = draw.choice([0, 10, 3000, 20_000, 57 * 300, 70_000, 90_000])
        kind = draw.choice(["text", "base64", "base64", "binary", "inner"])
        if kind == "text":
            part = PLAIN + b"some words in a line\r\n" * (size // 22)
        elif kind == "binary":
            part = BINARY + FILE[:size]
        else:
            data = FILE[: size - draw.randint(0, min(size, 3))]
            body = encoded(data, draw.choice([4, 60, 64, 76, 1000]), draw.choice([b"\n", b"\r\n"]), draw.random() < 0.5)
            if body and draw.random() < 0.5:
                at = draw.randint(0, len(body))
                body = body[:at] + draw.choice([b" ", b"\n", b"=", b"A", b"\r\n", b"--xx\r\n"]) + body[at:]
            part = PDF + body
            if kind == "inner":
                part = b"Content-Type: message/rfc822\r\n\r\n" + multipart(part).replace(b"xx\r\n", b"yy\r\n")
        parts.append(part)
    octets = multipart(*parts)
    return octets[: draw.randint(0, len(octets))] if draw.random() < 0.3 else octets


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([17, 61, 4096, 65_536]), st.data())
def test_any_message_in_any_pieces_comes_back_and_any_range_of_it(seed: int, chunk: int, data: st.DataObject) -> None:
    octets = any_message(random.Random(seed))
    shelf = Shelf()
    message = shelf.put(octets, chunk)
    same = shelf.get(message) == octets
    assert same  # and not the octets themselves, which are long
    same = shelf.put(octets, 10**7).cells == message.cells
    assert same
    for _ in range(8):
        start = data.draw(st.integers(0, len(octets)))
        end = data.draw(st.integers(start, len(octets) + 5))
        same = shelf.get(message, start, end) == octets[start:end]
        assert same
