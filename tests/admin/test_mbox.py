"""mbox files: quoting, separators, flags, dates; in and out of an account."""

from __future__ import annotations

import mailbox
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.admin.calling import Mailctl
from twisted_mail.admin import mbox
from twisted_mail.admin.samples import samples

USER = "ann@example.org"
PIECES = [
    b"From ", b">From ", b">>From x", b"From a@b Mon Jan  1 00:00:00 2024", b"\r\n", b"\r\n\r\n", b"A: b", b"Status: RO",
    b"X-Status: A", b"X-Keywords: z", b"\rq", b" ", b"x", b">", b"F", b"Fro", b"\xff\x00",
]  # fmt: skip
FLAGS = ["\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft", "$Label1", "größe"]
MESSAGES = st.tuples(
    st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join),
    st.lists(st.sampled_from(FLAGS), unique=True).map(tuple),
    st.integers(0, 2**32),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(MESSAGES, max_size=4), st.integers(1, 9))
def test_what_is_written_is_what_is_read(messages: list[tuple[bytes, tuple[str, ...], int]], size: int) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.mbox"
        with path.open("wb") as file:
            for data, flags, received in messages:
                cut = [data[at : at + size] for at in range(0, len(data), size)]
                mbox.write(file.write, cut, received, flags, "ann@example.org")
        found = [(b"".join(m.octets()), set(m.flags), m.received) for m in mbox.messages(path)]
        ends = sum(m.end for m in mbox.messages(path))
        assert ends == path.stat().st_size
    assert found == [
        (data if not data or data.endswith(b"\r\n") else data + b"\r\n", set(flags), received)
        for data, flags, received in messages
    ]


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        (b"From a@b Thu Jan  1 00:00:10 1970\n", 10),
        (b"From - Tue Nov 14 22:13:20 2023\r\n", 1_700_000_000),
        (b"From a@b Tue Nov 14 22:13:20 +0000 2023\n", 1_700_000_000),
        (b"From a@b  Tue Nov 14 23:13:20 2023 +0100\n", 1_700_000_000),
        (b"From a@b Tue Nov 14 22:13 2023\n", 1_699_999_980),
        (b"From a b c Tue Nov 14 22:13:20 CET 2023 remote from x\n", 1_700_000_000),
        (b"From now on the door is locked\n", None),
        (b"From a@b Tue Xyz 14 22:13:20 2023\n", None),
        (b">From a@b Tue Nov 14 22:13:20 2023\n", None),
    ],
)
def test_from_lines_as_other_programs_write_them(line: bytes, seconds: int | None) -> None:
    assert mbox.read_from_line(line) == seconds


def test_a_line_that_only_looks_like_a_from_line_parts_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.mbox"
    path.write_bytes(
        b"From a@b Tue Nov 14 22:13:20 2023\nA: 1\n\nFrom now on:\n\nFrom here to there\nFrom x Tue Nov 14 22:13:20 2023\n\n"
        b"From a@b Tue Nov 14 22:13:21 2023\nStatus: O\nA: 2\n\n>From x\n"
    )
    found = [(b"".join(m.octets()), m.flags) for m in mbox.messages(path)]
    assert found == [
        (b"A: 1\r\n\r\nFrom now on:\r\n\r\nFrom here to there\r\nFrom x Tue Nov 14 22:13:20 2023\r\n", ()),
        (b"A: 2\r\n\r\nFrom x\r\n", ()),
    ]


def test_a_file_of_something_else_is_refused(ann: Mailctl, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("Dear diary\n")
    result = ann.run("import", "mbox", path, "--to", USER, "--json")
    assert result.status == 1 and "not an mbox file" in result.error()["failed"][0]["reason"]
    (tmp_path / "empty.mbox").write_bytes(b"")
    assert ann.json("import", "mbox", tmp_path / "empty.mbox", "--to", USER)["imported"] == 0
    (tmp_path / "folder").mkdir()
    assert ann.run("import", "mbox", tmp_path / "folder", "--to", USER).status == 1


def test_python_reads_what_is_exported_and_is_read_in_turn(ann: Mailctl, tmp_path: Path) -> None:
    theirs = mailbox.mbox(str(tmp_path / "theirs"))
    wanted = samples(USER, end=1_790_000_000, count=40)
    for sample in wanted:
        message = mailbox.mboxMessage(sample.data.replace(b"\r\n", b"\n"))
        message.set_flags("RO" + ("F" if "\\Flagged" in sample.flags else ""))
        message.set_from("ann@example.org", (2026, 1, 2, 3, 4, 5, 0, 0, 0))
        theirs.add(message)
    theirs.close()
    report = ann.json("import", "mbox", tmp_path / "theirs", "--to", USER, "--mailbox", "Old/Mail")
    assert report["mailboxes"] == {"Old/Mail": 40}
    ann.good("export", "mbox", USER, tmp_path / "ours.mbox", "--mailbox", "Old/Mail")
    ours = mailbox.mbox(str(tmp_path / "ours.mbox"))
    assert len(ours) == 40
    for sample, message in zip(wanted, ours, strict=True):
        assert message["Message-ID"] == mailbox.mboxMessage(sample.data)["Message-ID"]
        assert "R" in message.get_flags() and ("F" in message.get_flags()) == ("\\Flagged" in sample.flags)
        assert message.get_from().endswith("Fri Jan  2 03:04:05 2026")


def test_an_account_comes_back_from_mbox_files_as_it_was(ann: Mailctl, tmp_path: Path) -> None:
    from twisted_mail.admin.init import put_samples
    from twisted_mail.admin.opening import Store

    async def fill(store: Store) -> int:
        return await put_samples(store, USER, ["bob@example.org"], 1_790_000_000, 80)

    assert ann.inside(fill) == 80
    report = ann.json("export", "mbox", USER, tmp_path / "out")
    assert report["exported"] == 80 and (tmp_path / "out" / "Projects" / "Apollo.mbox").exists()
    ann.with_user("bob@example.org")
    assert ann.json("import", "mbox", tmp_path / "out", "--to", "bob@example.org")["imported"] == 80
    ann.good("export", "mbox", "bob@example.org", tmp_path / "back")
    for name, path in mbox.mboxes(tmp_path / "out"):
        messages = [(b"".join(m.octets()), m.flags, m.received) for m in mbox.messages(path)]
        back = dict(mbox.mboxes(tmp_path / "back"))[name]
        assert [(b"".join(m.octets()), m.flags, m.received) for m in mbox.messages(back)] == messages
    again = ann.json("import", "mbox", tmp_path / "out", "--to", "bob@example.org")
    assert (again["imported"], again["present"]) == (0, 80)


def test_an_interrupted_export_keeps_the_file_that_was_there(ann: Mailctl, tmp_path: Path) -> None:
    path = tmp_path / "a.mbox"
    path.write_bytes(b"From a@b Tue Nov 14 22:13:20 2023\nA: 1\n\nb\n\n")
    ann.good("import", "mbox", path, "--to", USER)
    before = path.read_bytes()
    with patch.object(mbox, "write", side_effect=RuntimeError("no more ink")), pytest.raises(RuntimeError):
        ann.run("export", "mbox", USER, path, "--mailbox", "INBOX")
    assert path.read_bytes() == before
    ann.good("export", "mbox", USER, path, "--mailbox", "INBOX")
    assert path.read_bytes() == b"From MAILER-DAEMON Tue Nov 14 22:13:20 2023\nA: 1\nStatus: O\n\nb\n\n"


def test_where_an_export_does_not_fit(ann: Mailctl, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert ann.run("export", "mbox", USER, tmp_path / "file").status == 4
    assert ann.run("export", "mbox", USER, tmp_path, "--mailbox", "INBOX").status == 4
    assert ann.run("export", "mbox", USER, tmp_path / "out", "--mailbox", "Nothing").status == 3
