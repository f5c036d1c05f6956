"""Messages of every shape, from a number: `generate(seed)` always gives the same octets for the same seed.

`SHAPES` names them; a seed takes them in turn, so that any run of ``len(SHAPES)`` seeds has each once. Shapes in `PROPER`
are what a correct sender makes: an independent parser must agree about them.
"""

from __future__ import annotations

import base64
import binascii
import random
from collections.abc import Callable
from typing import Final

__all__ = ["PROPER", "SHAPES", "generate", "generate_shape", "shape_of"]

CRLF: Final = b"\r\n"
_WORDS: Final = (
    "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor incididunt ut labore et dolore magna "
    "aliqua Report Invoice meeting tomorrow Friday please find attached regards thanks budget review"
).split()
_WIDE: Final = {
    "utf-8": ["Grüße", "žluťoučký", "日本語", "привет", "naïve", "😀", "ﬁne", "İstanbul", "ΣΊΣΥΦΟΣ"],
    "iso-8859-1": ["Grüße", "naïve", "château", "señor"],
    "windows-1252": ["“quoted”", "€42", "naïve"],
    "iso-8859-2": ["žluťoučký", "kůň", "Łódź"],
    "koi8-r": ["привет", "мир"],
    "iso-2022-jp": ["日本語", "こんにちは"],
    "shift_jis": ["日本語", "テスト"],
    "gb2312": ["中文", "测试"],
    "big5": ["中文", "測試"],
    "euc-kr": ["한국어", "시험"],
}
_NAMES: Final = ["Mary Smith", "Joe Q. Public", "Giant; \"Big\" Box", "O'Neil, Ann", "support", "Who?", "J. R. R. Tolkien"]
_FILES: Final = ["report.pdf", "a b c.txt", "Übersicht – 2026.xlsx", "日本語.doc", "quo\"te.png", "x" * 120 + ".bin", "photo.JPG"]


class _Maker:
    """One message's dice."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.seed = seed
        self._boundaries = 0

    def words(self, count: int) -> str:
        return " ".join(self.dice.choice(_WORDS) for _ in range(count))

    def lines(self, count: int) -> bytes:
        return b"".join(self.words(self.dice.randint(0, 12)).encode() + CRLF for _ in range(count))

    def octets(self, most: int = 3000) -> bytes:
        return self.dice.randbytes(self.dice.randint(0, most))

    def charset(self) -> str:
        return self.dice.choice(list(_WIDE))

    def wide_words(self, charset: str, count: int = 4) -> str:
        return " ".join(self.dice.choice(_WIDE[charset] + _WORDS[:6]) for _ in range(count))

    def boundary(self) -> bytes:
        self._boundaries += 1
        tail = self.dice.choice(["", "=_x", " with space", "'()+_,-./:=?", "-" * 10])
        return f"b{self.seed}.{self._boundaries}{tail}!".encode()

    def encoded_word(self, charset: str) -> bytes:
        text = self.wide_words(charset, 2).encode(charset)
        if self.dice.random() < 0.5:
            return b"=?" + charset.encode() + b"?b?" + base64.b64encode(text) + b"?="
        quoted = b"".join(
            bytes([octet]) if chr(octet).isascii() and chr(octet).isalnum() else b"_" if octet == 32 else b"=%02X" % octet
            for octet in text
        )
        return b"=?" + charset.upper().encode() + b"?Q?" + quoted + b"?="

    def phrase(self) -> bytes:
        roll = self.dice.random()
        if roll < 0.3:
            return self.encoded_word(self.charset())
        name = self.dice.choice(_NAMES)
        return b'"' + name.replace("\\", "\\\\").replace('"', '\\"').encode() + b'"' if roll < 0.9 else b"Plain Name"

    def address(self) -> bytes:
        local = self.dice.choice([b"mary", b"joe.public", b'"very odd"', b"a+tag", b"x_1"])
        host = self.dice.choice([b"example.org", b"example.net", b"[192.0.2.1]", b"sub.example.com"])
        roll = self.dice.random()
        if roll < 0.4:
            return local + b"@" + host
        if roll < 0.9:
            return self.phrase() + b" <" + local + b"@" + host + b">"
        return local + b"@" + host + b" (a comment (nested))"

    def addresses(self) -> bytes:
        roll = self.dice.random()
        if roll < 0.1:
            return b"undisclosed-recipients:;"
        if roll < 0.2:
            return b"A Group: " + self.address() + b", " + self.address() + b";"
        return b",\r\n ".join(self.address() for _ in range(self.dice.randint(1, 4)))

    def date(self) -> bytes:
        day = self.dice.randint(1, 28)
        return b"%d %s %d %02d:%02d:%02d %s" % (
            day,
            self.dice.choice([b"Jan", b"Feb", b"Jul", b"Dec"]),
            self.dice.randint(1990, 2030),
            self.dice.randint(0, 23),
            self.dice.randint(0, 59),
            self.dice.randint(0, 59),
            self.dice.choice([b"+0000", b"-0800", b"+0530", b"GMT", b"EST"]),
        )

    def subject(self) -> bytes:
        pieces = [self.words(3).encode()]
        if self.dice.random() < 0.5:
            pieces.append(self.encoded_word(self.charset()))
        if self.dice.random() < 0.3:
            pieces.insert(0, self.dice.choice([b"Re:", b"Fwd:", b"[list]", b"AW: Re:"]))
        if self.dice.random() < 0.3:
            pieces.append(CRLF + b" " + self.words(8).encode())
        return b" ".join(pieces)

    def top(self) -> bytes:
        """The fields of a message that are not MIME's."""
        fields = [
            b"Received: from a.example (b.example [192.0.2.7])\r\n\tby c.example with ESMTP id %d;\r\n\t" % self.seed
            + self.date(),
            b"Date: " + self.date(),
            b"From: " + self.address(),
            b"To: " + self.addresses(),
            b"Subject: " + self.subject(),
            b"Message-ID: <%d.%d@example.org>" % (self.seed, self.dice.randint(0, 10**9)),
        ]
        if self.dice.random() < 0.4:
            fields.append(b"Cc: " + self.addresses())
        if self.dice.random() < 0.3:
            fields.append(b"Reply-To: " + self.address())
        if self.dice.random() < 0.3:
            fields.append(b"References: <1@example.org>\r\n <2@example.org>")
            fields.append(b"In-Reply-To: <2@example.org>")
        if self.dice.random() < 0.5:
            self.dice.shuffle(fields)
        return b"".join(field + CRLF for field in fields) + b"MIME-Version: 1.0\r\n"

    # --- bodies with their MIME fields: what stands between a delimiter and the next

    def text(self) -> bytes:
        charset = self.charset()
        text = "\r\n".join(self.wide_words(charset, self.dice.randint(0, 9)) for _ in range(self.dice.randint(0, 12)))
        octets = text.encode(charset)
        roll = self.dice.random()
        if roll < 0.35:
            encoding, octets = b"base64", base64.encodebytes(octets).replace(b"\n", CRLF)
        elif roll < 0.7:
            encoding, octets = b"quoted-printable", _quoted_printable(octets)
        else:
            encoding = b"7bit" if octets.isascii() else b"8bit"
        subtype = self.dice.choice([b"plain", b"plain", b"html", b"calendar", b"csv"])
        if subtype == b"html" and encoding != b"base64":
            octets = b"<html><body><p class=3D1>" + octets + b"</p></body></html>"
        head = b"Content-Type: text/" + subtype + b"; charset=" + self.dice.choice([b"%b", b'"%b"']) % charset.encode()
        return head + b"\r\nContent-Transfer-Encoding: " + encoding + b"\r\n\r\n" + octets + CRLF

    def attachment(self) -> bytes:
        data = self.octets()
        roll = self.dice.random()
        if roll < 0.6:
            encoding, octets = b"base64", base64.encodebytes(data).replace(b"\n", CRLF)
        elif roll < 0.75:
            encoding, octets = b"quoted-printable", _quoted_printable(data)
        else:
            encoding = b"binary" if roll < 0.9 else b"8bit"
            octets = data.replace(b"\r", b"").replace(b"\n", CRLF)
        kind = self.dice.choice([b"application/pdf", b"image/png", b"application/octet-stream", b"audio/x-thing"])
        head = b"Content-Type: " + kind + CRLF + b"Content-Transfer-Encoding: " + encoding + CRLF
        head += b"Content-Disposition: attachment" + self.filename() + CRLF
        if self.dice.random() < 0.2:
            head += b"Content-ID: <%d@x>\r\nContent-Description: %b\r\n" % (self.seed, self.words(3).encode())
        if self.dice.random() < 0.1:
            head += b"Content-Language: en, de\r\nContent-Location: http://example.org/x\r\nContent-MD5: Q2hlY2s=\r\n"
        return head + CRLF + octets + CRLF

    def filename(self) -> bytes:
        name = self.dice.choice(_FILES)
        if name.isascii():
            return b'; filename="' + name.replace("\\", "\\\\").replace('"', '\\"').encode() + b'"'
        octets = "".join(f"%{octet:02X}" if octet > 126 or octet < 48 else chr(octet) for octet in name.encode()).encode()
        if self.dice.random() < 0.5:
            return b";\r\n filename*=utf-8''" + octets
        cut = octets.index(b"%", len(octets) // 2) if b"%" in octets[len(octets) // 2 :] else 0
        return b";\r\n filename*0*=utf-8'en'" + octets[:cut] + b";\r\n filename*1*=" + octets[cut:]

    def part(self, depth: int) -> bytes:
        roll = self.dice.random()
        if depth > 0 and roll < 0.2:
            return self.multipart(depth - 1)
        if depth > 0 and roll < 0.3:
            return self.embedded(depth - 1)
        return self.text() if roll < 0.65 else self.attachment()

    def multipart(self, depth: int, subtype: bytes | None = None, parts: list[bytes] | None = None) -> bytes:
        boundary = self.boundary()
        kind = subtype or self.dice.choice([b"mixed", b"alternative", b"related", b"x-own"])
        if parts is None:
            parts = [self.part(depth) for _ in range(self.dice.randint(1, 4))]
        head = b"Content-Type: multipart/" + kind + b';\r\n\tboundary="' + boundary + b'"' + CRLF + CRLF
        preamble = b"This is a message in MIME format.\r\n" if self.dice.random() < 0.5 else b""
        body = b"".join(b"--" + boundary + self.padding() + CRLF + part + CRLF for part in parts)
        epilogue = b"an epilogue\r\n" if self.dice.random() < 0.3 else b""
        return head + preamble + body + b"--" + boundary + b"--" + self.padding() + CRLF + epilogue

    def padding(self) -> bytes:
        return b" \t" if self.dice.random() < 0.1 else b""

    def embedded(self, depth: int) -> bytes:
        return b"Content-Type: message/rfc822\r\n\r\n" + self.top() + self.part(depth)


def _quoted_printable(octets: bytes) -> bytes:
    # Line ends of text stay line ends; anything else is written out, so the sum is exact.
    lines = octets.split(CRLF)
    return CRLF.join(binascii.b2a_qp(line, istext=False, header=False).replace(b"\n", CRLF) for line in lines)


def _plain(maker: _Maker) -> bytes:
    return maker.top() + CRLF + maker.lines(maker.dice.randint(0, 30))


def _one_text(maker: _Maker) -> bytes:
    return maker.top() + maker.text()


def _one_attachment(maker: _Maker) -> bytes:
    return maker.top() + maker.attachment()


def _alternative(maker: _Maker) -> bytes:
    return maker.top() + maker.multipart(0, b"alternative", [maker.text(), maker.text()])


def _mixed(maker: _Maker) -> bytes:
    return maker.top() + maker.multipart(1)


def _nested(maker: _Maker) -> bytes:
    return maker.top() + maker.multipart(4, b"mixed", [maker.part(4), maker.embedded(3), maker.multipart(2)])


def _forwarded(maker: _Maker) -> bytes:
    return maker.top() + maker.embedded(3)


def _digest(maker: _Maker) -> bytes:
    parts = [CRLF + maker.top() + CRLF + maker.lines(3) for _ in range(maker.dice.randint(1, 5))]
    return maker.top() + maker.multipart(0, b"digest", parts)


def _report(maker: _Maker) -> bytes:
    status = b"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; a.example\r\n\r\nAction: failed\r\n"
    return maker.top() + maker.multipart(0, b"report", [maker.text(), status, maker.embedded(0)])


def _large(maker: _Maker) -> bytes:
    data = base64.encodebytes(maker.dice.randbytes(maker.dice.randint(50_000, 200_000))).replace(b"\n", CRLF)
    part = b"Content-Type: application/zip\r\nContent-Transfer-Encoding: base64\r\n\r\n" + data
    return maker.top() + maker.multipart(0, b"mixed", [maker.text(), part])


def _undeclared(maker: _Maker) -> bytes:
    charset = maker.dice.choice(["utf-8", "iso-8859-1", "koi8-r"])
    subject = maker.wide_words(charset).encode(charset)
    return b"Subject: " + subject + CRLF + maker.top() + CRLF + maker.wide_words(charset, 20).encode(charset) + CRLF


def _huge_header(maker: _Maker) -> bytes:
    many = b"".join(b"X-Field-%d: %b\r\n" % (number, maker.words(9).encode()) for number in range(400))
    recipients = b"Bcc: " + b",\r\n ".join(maker.address() for _ in range(300)) + CRLF
    return maker.top() + many + recipients + CRLF + maker.lines(3)


def _bare_lf(maker: _Maker) -> bytes:
    return _mixed(maker).replace(CRLF, b"\n")


def _bare_cr(maker: _Maker) -> bytes:
    return _plain(maker).replace(CRLF, b"\r")


def _mixed_line_ends(maker: _Maker) -> bytes:
    pieces = _nested(maker).split(CRLF)
    ends = [maker.dice.choice([CRLF, CRLF, b"\n", b"\r"]) for _ in pieces]
    return b"".join(piece + end for piece, end in zip(pieces, ends, strict=True))


def _nul(maker: _Maker) -> bytes:
    octets = bytearray(_mixed(maker))
    for _ in range(30):
        octets.insert(maker.dice.randrange(len(octets) + 1), 0)
    return bytes(octets)


def _no_header(maker: _Maker) -> bytes:
    return maker.words(8).encode() + CRLF + maker.lines(4) + CRLF + maker.lines(4)


def _header_only(maker: _Maker) -> bytes:
    return maker.top()


def _empty(maker: _Maker) -> bytes:
    return maker.dice.choice([b"", CRLF, b"\n", b"\r", b"\r\n\r\n", b":", b"--"])


def _truncated(maker: _Maker) -> bytes:
    octets = _nested(maker)
    return octets[: maker.dice.randrange(len(octets))]


def _no_final_boundary(maker: _Maker) -> bytes:
    octets = _mixed(maker)
    return octets[: octets.rfind(b"\r\n--b")]


def _wrong_boundary(maker: _Maker) -> bytes:
    return _nested(maker).replace(b".2", b".9", 1)


def _repeated_boundary(maker: _Maker) -> bytes:
    inner = b'Content-Type: multipart/mixed; boundary="same"\r\n\r\n--same\r\n' + maker.text() + b"\r\n--same--\r\n"
    part = b"--same\r\n" + inner + b"\r\n--same\r\n" + maker.text()
    return maker.top() + b'Content-Type: multipart/mixed; boundary="same"\r\n\r\n' + part + b"\r\n--same--\r\n--same\r\nlate\r\n"


def _prefix_boundaries(maker: _Maker) -> bytes:
    inner = b'Content-Type: multipart/mixed; boundary="xx-y"\r\n\r\n--xx-y\r\n' + maker.text() + b"\r\n--xx-y--\r\n"
    body = b"--xx\r\n" + inner + b"\r\n--xxx\r\n--xx-\r\n--xx -\r\n--xx\r\n" + maker.text() + b"\r\n--xx--\r\n"
    return maker.top() + b"Content-Type: multipart/mixed; boundary=xx\r\n\r\n" + body


def _no_boundary_parameter(maker: _Maker) -> bytes:
    return maker.top() + b"Content-Type: multipart/mixed\r\n\r\n--x\r\n\r\n" + maker.lines(3) + b"--x--\r\n"


def _duplicate_fields(maker: _Maker) -> bytes:
    return maker.top() + b"Content-Type: text/plain\r\nContent-Type: image/png\r\n" + maker.top() + maker.text()


def _mbox(maker: _Maker) -> bytes:
    return b"From mary@example.org Fri Jul  8 12:08:34 2011\r\n" + maker.top() + CRLF + b">From here on\r\n" + maker.lines(3)


def _long_line(maker: _Maker) -> bytes:
    return maker.top() + CRLF + b"x" * maker.dice.randint(5000, 120_000) + maker.dice.choice([b"", CRLF])


def _bad_encoding(maker: _Maker) -> bytes:
    noise = b"SGVs!!bG8=\r\n===\r\nd29ybGQ\r\n\xff\xfe=4" + maker.octets(200)
    kind = maker.dice.choice([b"base64", b"quoted-printable", b"x-strange", b"uuencode", b""])
    return maker.top() + b"Content-Type: text/plain\r\nContent-Transfer-Encoding: " + kind + b"\r\n\r\n" + noise


def _encoded_embedded(maker: _Maker) -> bytes:
    inner = base64.encodebytes(_plain(maker)).replace(b"\n", CRLF)
    part = b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n" + inner
    return maker.top() + maker.multipart(0, b"mixed", [maker.text(), part])


def _malformed_type(maker: _Maker) -> bytes:
    kind = maker.dice.choice([b"text", b"/", b"text/", b"a b/c", b"", b";;;", b"text/plain; charset", b'x/y; a="unclosed'])
    return maker.top() + b"Content-Type: " + kind + CRLF + CRLF + maker.lines(3)


def _deep(maker: _Maker) -> bytes:
    depth = maker.dice.randint(20, 300)
    heads = b"".join(
        b'Content-Type: multipart/mixed; boundary="d%d"\r\n\r\n--d%d\r\n' % (level, level) for level in range(depth)
    )
    tails = b"".join(b"\r\n--d%d--\r\n" % level for level in reversed(range(depth)))
    return maker.top() + heads + maker.text() + (tails if maker.dice.random() < 0.7 else b"")


def _garbage(maker: _Maker) -> bytes:
    return maker.octets(2000)


_PROPER: Final[dict[str, Callable[[_Maker], bytes]]] = {
    "plain": _plain,
    "one text": _one_text,
    "one attachment": _one_attachment,
    "alternative": _alternative,
    "mixed": _mixed,
    "nested": _nested,
    "forwarded": _forwarded,
    "digest": _digest,
    "report": _report,
    "large": _large,
}
_BROKEN: Final[dict[str, Callable[[_Maker], bytes]]] = {
    "undeclared 8-bit": _undeclared,
    "huge header": _huge_header,
    "bare LF": _bare_lf,
    "bare CR": _bare_cr,
    "mixed line ends": _mixed_line_ends,
    "NUL": _nul,
    "no header": _no_header,
    "header only": _header_only,
    "empty": _empty,
    "truncated": _truncated,
    "no final boundary": _no_final_boundary,
    "wrong boundary": _wrong_boundary,
    "repeated boundary": _repeated_boundary,
    "prefix boundaries": _prefix_boundaries,
    "no boundary parameter": _no_boundary_parameter,
    "duplicate fields": _duplicate_fields,
    "mbox": _mbox,
    "long line": _long_line,
    "bad encoding": _bad_encoding,
    "encoded embedded": _encoded_embedded,
    "malformed type": _malformed_type,
    "deep": _deep,
    "garbage": _garbage,
}
_ALL: Final = {**_PROPER, **_BROKEN}
SHAPES: Final = tuple(_ALL)
PROPER: Final = frozenset(_PROPER)


def shape_of(seed: int) -> str:
    """The shape that *seed* gives."""
    return SHAPES[seed % len(SHAPES)]


def generate(seed: int) -> bytes:
    """The message number *seed*."""
    return generate_shape(shape_of(seed), seed)


def generate_shape(shape: str, seed: int) -> bytes:
    """A message of *shape*."""
    return _ALL[shape](_Maker(seed))
