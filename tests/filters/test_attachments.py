"""Dangerous attachments: by name, by content, in archives, and mail that is made to exhaust who looks at it."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import lzma
import random
import struct
import tarfile
import time
import tracemalloc
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.filters.asking import Message, mail, now
from twisted_mail.filters.archives import Budget, walk
from twisted_mail.filters.attachments import AttachmentRules, Attachments, extensions_of
from twisted_mail.filters.values import Action, Verdict

HEAD = b"From: bob@example.net\r\nTo: ann@example.org\r\nSubject: one\r\nMIME-Version: 1.0\r\n"
PROGRAM = b"MZ" + b"\0" * 58 + (64).to_bytes(4, "little") + b"PE\0\0" + b"\0" * 200


def ask(octets: bytes, rules: AttachmentRules | None = None, piece: int = 1 << 16) -> Verdict:
    message = Message(b"", mail())
    message._octets = octets

    async def run() -> Verdict:
        reader = Attachments(rules).read(message.mail)
        for at in range(0, len(octets), piece):
            await reader.write(octets[at : at + piece])
        return await reader.finish(message)

    return now(run())


def part(
    name: str, octets: bytes = b"harmless", kind: str = "application/octet-stream", encoding: str = "base64"
) -> bytes:
    body = base64.encodebytes(octets).replace(b"\n", b"\r\n") if encoding == "base64" else octets + b"\r\n"
    return (
        f'--b\r\nContent-Type: {kind}\r\nContent-Disposition: attachment; filename="{name}"\r\n'
        f"Content-Transfer-Encoding: {encoding}\r\n\r\n"
    ).encode() + body


def mixed(*parts: bytes) -> bytes:
    return (
        HEAD
        + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nSee there.\r\n"
        + b"".join(parts)
        + b"--b--\r\n"
    )


def zipped(members: dict[str, bytes], stored: bool = False) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED) as writing:
        for name, octets in members.items():
            writing.writestr(name, octets)
    return archive.getvalue()


def encrypted(octets: bytes) -> bytes:
    """The same archive with the bit set that says so, in the central directory."""
    at = octets.index(b"PK\x01\x02")
    return octets[: at + 8] + struct.pack("<H", 1) + octets[at + 10 :]


@pytest.mark.parametrize(
    "name",
    ["a.exe", "a.pdf.SCR", "a.js", "a.vbs . .", "a.lnk", "a.iso", "report.docm", "a\u202efdp.exe", "a.exe:stream", "c:\\x\\a.hta",
        "a.exe.gz", "a.ｅｘｅ", "a.jar"],
)  # fmt: skip
def test_names_that_are_refused(name: str) -> None:
    verdict = ask(mixed(part(name)))
    assert verdict.action is Action.REJECT
    assert verdict.answer is not None
    assert (verdict.answer.code, verdict.answer.enhanced) == (550, "5.7.1")
    assert verdict.answer.text.isascii()


@pytest.mark.parametrize(
    "name", ["a.pdf", "a.docx", "a.zip", "a.txt", "exe", "a.exe.txt", "photo.jpg", "notes", ".profile"]
)
def test_names_that_are_not(name: str) -> None:
    assert ask(mixed(part(name))) == Verdict()


def test_names_are_read_where_clients_read_them() -> None:
    encoded = b"--b\r\nContent-Type: application/x; name*0*=utf-8''a%2E; name*1*=ex; name*2=e\r\n\r\nx\r\n"
    inline = b"--b\r\nContent-Type: text/plain; name=a.js\r\n\r\nx\r\n"
    word = b'--b\r\nContent-Type: application/x\r\nContent-Disposition: attachment; filename="=?utf-8?q?a=2Eexe?="\r\n\r\nx\r\n'
    for each in (encoded, inline, word):
        assert ask(mixed(each)).action is Action.REJECT, each
    assert ask(HEAD + b"Content-Type: text/plain; name=a.js\r\n\r\nx\r\n").action is Action.REJECT
    assert ask(HEAD + b"Content-Disposition: attachment; filename=a.js\r\n\r\nx\r\n").action is Action.REJECT


def test_a_program_under_another_name_is_one() -> None:
    for octets, why in (
        (PROGRAM, "a program for Windows"),
        (b"\x7fELF" + b"\0" * 100, "a program"),
        (b"L\0\0\0\x01\x14\x02\0\0\0\0\0\xc0\0\0\0\0\0\0\x46", "a shortcut"),
        (b"\0" * 32_769 + b"CD001" + b"\0" * 100, "a disc image"),
    ):
        verdict = ask(mixed(part("photo.jpg", octets)))
        assert verdict.facts["why"] == why
        assert verdict.action is Action.REJECT
    assert ask(mixed(part("MZ.txt", b"MZ is a text of two letters and more, far longer than sixty-four octets, without zeros.")))  # fmt: skip
    assert ask(mixed(part("notes.txt", b"MZ begins this text, which is longer than sixty-four octets and has no zeros."))) == Verdict()  # fmt: skip


def test_uuencoded_programs_in_text() -> None:
    assert ask(HEAD + b"\r\nHello\r\nbegin 644 a.exe\r\n#0V%T\r\n`\r\nend\r\n").action is Action.REJECT
    assert ask(HEAD + b"\r\nHello\r\nbegin 644 a.exe\r\n#0V%T\r\n`\r\nend\r\n", piece=7).action is Action.REJECT
    assert ask(HEAD + b"\r\nbegin 644 a.txt\r\n#0V%T\r\n`\r\nend\r\n") == Verdict()


def test_inside_archives() -> None:
    for octets in (
        zipped({"readme.txt": b"hello", "run me.exe": b"x"}),
        zipped({"dir/readme.txt": PROGRAM}),
        zipped({"inner.zip": zipped({"a.scr": b"x"})}),
        zipped({"inner.dat": zipped({"a.scr": b"x"})}, stored=True),
        b"a stub in front" + zipped({"a.exe": b"x"}),
        zipped({"xl/vbaProject.bin": b"x", "xl/workbook.xml": b"x"}),
        zipped({"big.txt": b"x" * 6_000_000, "a.exe": b"x"}, stored=True),
    ):
        verdict = ask(mixed(part("a.zip", octets)))
        assert verdict.action is Action.REJECT, octets[:80]
    assert "a.zip" in ask(mixed(part("a.zip", zipped({"inner.zip": zipped({"a.scr": b"x"})})))).reason
    assert (
        ask(mixed(part("a.zip", zipped({"readme.txt": b"hello", "inner.zip": zipped({"b.txt": b"x"})})))) == Verdict()
    )


def test_an_attachment_that_is_nothing_but_the_message() -> None:
    octets = HEAD + b"Content-Type: application/zip\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    assert ask(octets + base64.encodebytes(zipped({"a.exe": b"x"}))).action is Action.REJECT


def test_in_a_message_that_is_attached() -> None:
    inner = mixed(part("a.exe"))
    octets = (
        HEAD
        + b"Content-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\nContent-Type: message/rfc822\r\n\r\n"
        + inner
        + b"\r\n--c--\r\n"
    )
    assert ask(octets).action is Action.REJECT


def tarred(members: dict[str, bytes], mode: str = "w", format: int = tarfile.GNU_FORMAT) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode=mode, format=format) as writing:  # type: ignore[call-overload]  # modes are literals there
        for name, octets in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(octets)
            writing.addfile(info, io.BytesIO(octets))
    return archive.getvalue()


LONG = "a/" * 90 + "setup.exe"


@pytest.mark.parametrize(
    ("name", "octets", "why"),
    [
        ("report.gz", gzip.compress(PROGRAM), "a program for Windows"),
        ("report", bz2.compress(PROGRAM), "a program for Windows"),
        ("report.dat", lzma.compress(PROGRAM), "a program for Windows"),
        ("report.gz", gzip.compress(b"") + gzip.compress(PROGRAM), "a program for Windows"),
        ("a.tgz", tarred({"readme.txt": b"x", "setup.exe": b"y"}, "w:gz"), "a .exe file"),
        ("a.tbz", tarred({"setup.scr": b"y"}, "w:bz2"), "a .scr file"),
        ("a.tar.xz", tarred({"readme.txt": b"x" * 5000, "data": PROGRAM}, "w:xz"), "a program for Windows"),
        ("a.tar", tarred({"setup.js": b"y"}), "a .js file"),
        ("a.tar", tarred({LONG: b"y"}), "a .exe file"),
        ("a.tar", tarred({LONG: b"y"}, format=tarfile.PAX_FORMAT), "a .exe file"),
        ("a.tar", tarred({"b/" * 40 + "c/" * 30 + "d.exe": b"y"}, format=tarfile.USTAR_FORMAT), "a .exe file"),
        ("a.tar.gz", tarred({"inner.zip": zipped({"setup.exe": b"x"})}, "w:gz"), "a .exe file"),
        ("a.zip", zipped({"inner.tar.gz": tarred({"setup.exe": b"x"}, "w:gz")}), "a .exe file"),
        ("a.tar", tarred({"last.zip": zipped({"fine.txt": b"x"}), "setup.exe": b"x"}), "a .exe file"),
        ("a.gz", gzip.compress(bz2.compress(PROGRAM)), "a program for Windows"),
        ("setup.exe.7z", b"7z\xbc\xaf\x27\x1c", "a .exe file"),
        ("setup.scr.rar", b"Rar!\x1a\x07\x01\0", "a .scr file"),
    ],
)
def test_inside_packed_files_and_tar_archives(name: str, octets: bytes, why: str) -> None:
    verdict = ask(mixed(part(name, octets)))
    assert (verdict.action, verdict.facts["why"]) == (Action.REJECT, why)


def test_a_name_from_before_it_was_packed() -> None:
    octets = io.BytesIO()
    with gzip.GzipFile("invoice.exe", "wb", fileobj=octets) as writing:
        writing.write(b"nothing that is known")
    assert ask(mixed(part("invoice", octets.getvalue()))).facts["why"] == "a .exe file"


@pytest.mark.parametrize(
    ("name", "octets"),
    [
        ("log.gz", gzip.compress(b"GET /index.html 200\r\n" * 100_000)),
        ("a.tar.gz", tarred({"a.txt": b"x" * 10_000, "b/c.pdf": b"%PDF-1.7"}, "w:gz")),
        ("a.zip", zipped({"b.zip": zipped({"c.tar.gz": tarred({"d.txt": b"x"}, "w:gz")})})),
        ("note.gz", b"\x1f\x8b\x08 is how they begin"),
        ("a.xz", lzma.compress(b"x" * 1000)[:40]),
        ("zeros", b"\0" * 2048),
    ],
)
def test_packed_files_without_anything_dangerous(name: str, octets: bytes) -> None:
    assert ask(mixed(part(name, octets))).action is Action.ACCEPT


@pytest.mark.parametrize(
    "octets",
    [
        gzip.compress(b"\0" * (20 << 20)),
        bz2.compress(b"\0" * (20 << 20)),
        lzma.compress(b"\0" * (20 << 20)),
        gzip.compress(gzip.compress(gzip.compress(gzip.compress(b"x")))),
        zipped({"a.gz": gzip.compress(tarred({"b.gz": gzip.compress(gzip.compress(b"x"))}))}),
    ],
)
def test_packed_bombs(octets: bytes) -> None:
    tracemalloc.start()
    began = time.process_time()
    verdict = ask(mixed(part("a", octets)))
    assert time.process_time() - began < 2
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 << 20
    assert (verdict.action, verdict.facts["why"]) == (Action.REJECT, "an archive that cannot be unpacked safely")


def test_streams_without_end_and_tar_archives_that_claim_too_much() -> None:
    began = time.process_time()
    octets = gzip.compress(b"") * 150_000
    assert [each.kind for each in walk(octets, len(octets), Budget())] == ["member", "opaque"]
    huge = bytearray(tarred({"a.txt": b"x"}))
    huge[124:136] = b"\x80" + (1 << 60).to_bytes(11, "big")
    huge[148:156] = b"%06o\0 " % (sum(huge[:148]) + 256 + sum(huge[156:512]))
    assert [each.name for each in walk(bytes(huge), len(huge), Budget())] == ["a.txt"]
    assert time.process_time() - began < 2


def test_of_a_large_packed_file_the_beginning_is_looked_at() -> None:
    noise = random.Random(1).randbytes(5 << 20)
    verdict = ask(mixed(part("a.gz", gzip.compress(tarred({"setup.exe": b"x", "noise": noise}), 1))))
    assert verdict.facts["why"] == "a .exe file"


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_broken_packed_files_never_raise(data: st.DataObject) -> None:
    octets = bytearray(data.draw(st.sampled_from(BROKEN)))
    for _ in range(data.draw(st.integers(1, 6))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    octets = octets[: data.draw(st.integers(0, len(octets)))]
    list(walk(bytes(octets), len(octets), Budget()))


MEMBERS = {"a.txt": b"x" * 700, LONG: b"y", "b.zip": zipped({"c": b"z"})}
BROKEN = [tarred(MEMBERS), tarred(MEMBERS, format=tarfile.PAX_FORMAT), *(tarred(MEMBERS, f"w:{mode}") for mode in ("gz", "bz2", "xz"))]


def test_archives_with_a_password() -> None:
    octets = encrypted(zipped({"secret.txt": b"hello"}))
    assert ask(mixed(part("a.zip", octets))).action is Action.MARK
    assert ask(mixed(part("a.zip", octets)), AttachmentRules(encrypted=Action.QUARANTINE)).action is Action.QUARANTINE
    assert ask(mixed(part("a.zip", encrypted(zipped({"a.exe": b"hello"}))))).action is Action.REJECT


def test_what_an_operator_forbids() -> None:
    rules = AttachmentRules(forbidden=frozenset({"pdf"}), action=Action.JUNK)
    assert ask(mixed(part("a.pdf")), rules).action is Action.JUNK
    assert ask(mixed(part("a.exe", PROGRAM)), rules) == Verdict()
    assert ask(mixed(part("a.zip", zipped({"b.PDF": b"x"}))), rules).action is Action.JUNK


# --- mail that is made to hurt


def bomb(levels: int, octets: bytes = b"\0" * 1_000_000) -> bytes:
    packed = zipped({"0.dat": octets})
    for level in range(levels):
        packed = zipped({f"{level}{copy}.zip": packed for copy in range(4)})
    return packed


def test_bombs_are_known_for_what_they_are() -> None:
    verdict = ask(mixed(part("a.zip", bomb(5))))
    assert verdict.action is Action.REJECT
    assert "unpacked" in verdict.reason
    # 4 GiB by its own account
    octets = zipped({f"{n}.txt": b"x" for n in range(5)})
    at = 0
    patched = bytearray(octets)
    while (at := octets.find(b"PK\x01\x02", at) + 1) > 0:
        struct.pack_into("<L", patched, at + 23, 1_000_000_000)
    assert "unpacked" in ask(mixed(part("a.zip", bytes(patched)))).reason


def test_members_that_overlap() -> None:
    octets = bytearray(zipped({f"{n}.txt": b"x" for n in range(5)}))
    at = 0
    while (at := bytes(octets).find(b"PK\x01\x02", at) + 1) > 0:
        struct.pack_into("<L", octets, at + 19, 400)
    assert "unpacked" in ask(mixed(part("a.zip", bytes(octets)))).reason


def test_more_members_than_anybody_counts() -> None:
    assert ask(mixed(part("a.zip", zipped({f"{n}.txt": b"" for n in range(10_500)})))).action is Action.REJECT


def test_ten_thousand_parts() -> None:
    octets = mixed(*(b"--b\r\n\r\nx\r\n" for _ in range(10_100)))
    began = time.process_time()
    verdict = ask(octets)
    assert verdict.action is Action.REJECT
    assert "parts" in verdict.reason
    assert time.process_time() - began < 5
    assert ask(mixed(*(b"--b\r\n\r\nx\r\n" for _ in range(100)))) == Verdict()


def test_a_hundred_megabytes_in_a_few() -> None:
    line = base64.b64encode(b"x" * 57) + b"\r\n"
    chunk = line * 840
    message = Message(b"", mail())

    async def run() -> Verdict:
        reader = Attachments().read(message.mail)
        await reader.write(mixed(part("a.bin"))[:-7])
        await reader.write(part("b.dat", b""))
        for _ in range(1_600):
            await reader.write(chunk)
        await reader.write(b"\r\n--b--\r\n")
        return await reader.finish(message)

    tracemalloc.start()
    try:
        assert now(run()) == Verdict()
        assert tracemalloc.get_traced_memory()[1] < 16 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_a_header_of_a_megabyte_and_none() -> None:
    assert ask(b"X-Long: " + b"a" * (1 << 20) + b"\r\n" + mixed(part("a.exe"))).action is Action.REJECT
    assert ask(b"\r\nhello\r\n") == Verdict()
    assert ask(b"") == Verdict()


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(1, 400))
def test_pieces_of_any_size_change_nothing(cut: int) -> None:
    octets = mixed(part("a.txt"), part("b.zip", zipped({"x.txt": b"1" * 5000, "c.exe": b"x"})))
    assert ask(octets, piece=cut) == ask(octets)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_broken_archives_never_raise(data: st.DataObject) -> None:
    octets = bytearray(zipped({"a.txt": b"hello" * 50, "b.zip": zipped({"c.txt": b"x"})}))
    for _ in range(data.draw(st.integers(1, 6))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    list(walk(bytes(octets), len(octets), Budget()))
    ask(mixed(part("a.zip", bytes(octets))))


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40))
def test_extensions_of_any_name(name: str) -> None:
    assert all(each == each.strip() for each in extensions_of(name))


def test_a_name_without_end_costs_nothing() -> None:
    assert extensions_of("a.exe" + ".gz" * 100_000) == {"gz"}
    assert extensions_of("a.exe" + ".gz:" * 100) >= {"gz:"}
