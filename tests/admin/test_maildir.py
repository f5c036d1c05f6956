"""Maildirs in and out: octets, dates, flags, folders; and runs that are cut off."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.admin.calling import Mailctl
from twisted_mail.account.intents import AddMessages
from twisted_mail.admin import folder_names, importing, maildir
from twisted_mail.admin.line_ends import to_crlf, to_lf
from twisted_mail.admin.samples import samples

USER = "ann@example.org"
Content = dict[str, list[tuple[int, tuple[str, ...], bytes]]]


def put(folder: Path, name: str, data: bytes, received: int, part: str = "cur") -> Path:
    for each in ("cur", "new", "tmp"):
        (folder / each).mkdir(parents=True, exist_ok=True)
    path = folder / part / name
    path.write_bytes(data)
    os.utime(path, (received, received))
    return path


def content(root: Path) -> Content:
    """Everything that a Maildir says: mailbox to (date, flags, octets of the file) of each message."""
    found: Content = {}
    for folder in maildir.folders(root):
        messages = [(m.received, tuple(sorted(m.flags)), m.path.read_bytes()) for m in maildir.messages(folder)]
        if messages:
            found[folder.mailbox] = sorted(messages)
    return found


def a_maildir(root: Path, count: int = 120) -> Path:
    """A Maildir++ of sample mail with LF, as Dovecot would have it."""
    letters = {"$Label1": "a", "$Label2": "b", "work": "c", "travel": "d", "$Junk": "e"}
    for number, sample in enumerate(samples(USER, end=1_790_000_000, count=count)):
        folder = maildir.path_of(root, sample.mailbox, "maildir++")
        flags = maildir.info_of(sample.flags, letters)
        name = f"{sample.received}.M{number}P7.host,S={len(sample.data)}{flags}"
        put(folder, name, sample.data.replace(b"\r\n", b"\n"), sample.received)
        (folder / "dovecot-keywords").write_text("".join(f"{n} {k}\n" for n, k in enumerate(letters)))
    return root


def test_a_maildir_comes_back_as_it_was(ann: Mailctl, tmp_path: Path) -> None:
    source = a_maildir(tmp_path / "source")
    report = ann.json("import", "maildir", source, "--to", USER)
    assert (report["imported"], report["present"], report["failed"]) == (120, 0, [])
    assert sum(report["mailboxes"].values()) == 120 and "日本語" in report["mailboxes"]
    for layout in ("maildir++", "nested"):
        back = ann.json("export", "maildir", USER, tmp_path / layout, "--layout", layout)
        assert back["exported"] == 120
        assert content(tmp_path / layout) == content(source)
    assert ann.json("account", "check", USER, "--deep")["result"] == "ok"


def test_the_second_run_of_either_moves_nothing(ann: Mailctl, tmp_path: Path) -> None:
    source = a_maildir(tmp_path / "source", 40)
    ann.good("import", "maildir", source, "--to", USER)
    again = ann.json("import", "maildir", source, "--to", USER)
    assert (again["imported"], again["present"]) == (0, 40)
    ann.good("export", "maildir", USER, tmp_path / "out")
    names = sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file())
    again = ann.json("export", "maildir", USER, tmp_path / "out")
    assert (again["exported"], again["present"]) == (0, 40)
    assert sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file()) == names
    ann.with_user("bob@example.org")
    ann.good("import", "maildir", tmp_path / "out", "--to", "bob@example.org")
    ann.good("export", "maildir", "bob@example.org", tmp_path / "bob")
    assert content(tmp_path / "bob") == content(source), "an export is a source as good as any"


def test_real_duplicates_in_the_source_are_kept_and_still_not_doubled(ann: Mailctl, tmp_path: Path) -> None:
    for name in ("1700000000.a.h", "1700000000.b.h"):
        put(tmp_path / "m", name, b"Subject: twice\n\nthe same\n", 1_700_000_000, "new")
    assert ann.json("import", "maildir", tmp_path / "m", "--to", USER)["imported"] == 2
    again = ann.json("import", "maildir", tmp_path / "m", "--to", USER)
    assert (again["imported"], again["present"]) == (0, 2)
    put(tmp_path / "m", "1700000000.c.h", b"Subject: twice\n\nthe same\n", 1_700_000_000)
    assert ann.json("import", "maildir", tmp_path / "m", "--to", USER)["imported"] == 1


def test_an_import_that_fails_midway_goes_on_where_it_was(ann: Mailctl, tmp_path: Path) -> None:
    source = a_maildir(tmp_path / "source", 60)
    whole = maildir.MaildirMessage.octets
    read = 0

    def octets(message: maildir.MaildirMessage) -> object:
        nonlocal read
        read += 1
        if read > 35:
            raise RuntimeError("the machine is on fire")
        return whole(message)

    with patch.object(importing, "BATCH_MESSAGES", 5), patch.object(maildir.MaildirMessage, "octets", octets):
        with pytest.raises(RuntimeError, match="on fire"):
            ann.run("import", "maildir", source, "--to", USER)
    shown = ann.json("user", "show", USER)
    assert 0 < shown["messages"] <= 35
    report = ann.json("import", "maildir", source, "--to", USER)
    assert report["present"] == shown["messages"] and report["imported"] == 60 - shown["messages"]
    ann.good("export", "maildir", USER, tmp_path / "out")
    assert content(tmp_path / "out") == content(source)


def test_a_killed_import_goes_on_where_it_was(ann: Mailctl, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for number in range(400):
        data = b"From: a@example.net\nMessage-ID: <%d@x>\nSubject: %d\n\n%b\n" % (number, number, b"line\n" * 200)
        put(source, f"{1_700_000_000 + number}.M{number}.h:2,S", data, 1_700_000_000 + number)
    program = (
        "import sys; from twisted_mail.admin import importing; importing.BATCH_MESSAGES = 10\n"
        "from twisted_mail.admin.cli import main; main()"
    )
    words = [sys.executable, "-c", program, *ann.words("import", "maildir", source, "--to", USER)]
    running = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ann.wait_for_entries(4, running)
    running.send_signal(signal.SIGKILL)
    running.wait()
    before = ann.json("user", "show", USER)["messages"]
    assert 30 <= before < 400, "killed too late to show anything"
    assert before % 10 == 0, "a batch is there whole or not at all"
    report = ann.json("import", "maildir", source, "--to", USER)
    assert (report["imported"], report["present"]) == (400 - before, before)
    ann.good("export", "maildir", USER, tmp_path / "out")
    assert content(tmp_path / "out") == content(source)
    assert ann.json("account", "check", USER)["result"] == "ok"


def test_an_interrupted_export_leaves_no_half_message(ann: Mailctl, tmp_path: Path) -> None:
    source = a_maildir(tmp_path / "source", 30)
    ann.good("import", "maildir", source, "--to", USER)
    out = tmp_path / "out"
    rename, done = Path.rename, 0

    def stop(path: Path, target: Path) -> Path:
        nonlocal done
        done += 1
        if done > 7:
            raise RuntimeError("out of paper")
        return rename(path, target)

    with patch.object(Path, "rename", stop), pytest.raises(RuntimeError, match="paper"):
        ann.run("export", "maildir", USER, out)
    assert sum(len(messages) for messages in content(out).values()) == 7
    report = ann.json("export", "maildir", USER, out)
    assert (report["present"], report["exported"]) == (7, 23)
    assert content(out) == content(source)


def test_flags_that_changed_are_brought_up_to_date_by_the_next_export(ann: Mailctl, tmp_path: Path) -> None:
    put(tmp_path / "m", "1700000000.a.h", b"Subject: x\n\ny\n", 1_700_000_000, "new")
    ann.good("import", "maildir", tmp_path / "m", "--to", USER)
    ann.good("export", "maildir", USER, tmp_path / "out")

    from pyroaring import BitMap

    from twisted_mail.account.entries import pack_uids
    from twisted_mail.account.intents import ChangeFlags
    from twisted_mail.admin.opening import Store

    async def flag(store: Store) -> None:
        async with store.account(await store.user(USER)) as account:
            uids = pack_uids(BitMap([1]))
            intent = ChangeFlags(mailbox=account.state.inbox.id, uids=uids, mode="add", flags=("\\Seen", "urgent"))
            await account.commit(intent)

    ann.inside(flag)
    assert ann.json("export", "maildir", USER, tmp_path / "out")["present"] == 1
    ((received, flags, data),) = content(tmp_path / "out")["INBOX"]
    assert (received, flags, data) == (1_700_000_000, ("\\Seen", "urgent"), b"Subject: x\n\ny\n")


def test_line_ends_and_dates_as_the_manual_says(ann: Mailctl, tmp_path: Path) -> None:
    put(tmp_path / "m", "1700000000.a.h:2,", b"A: lf\n\nx\n", 1_800_000_000)  # copied without its time
    put(tmp_path / "m", "1700000001.b.h:2,", b"A: crlf\r\n\r\nx\r\n", 1_600_000_000)  # appended with an old date
    put(tmp_path / "m", "odd-name:2,RFTDPz", b"A: no end", 1_500_000_000)
    ann.good("import", "maildir", tmp_path / "m", "--to", USER)
    ann.good("export", "maildir", USER, tmp_path / "lf")
    ann.good("export", "maildir", USER, tmp_path / "crlf", "--crlf")
    everything = ("$Forwarded", "\\Answered", "\\Deleted", "\\Draft", "\\Flagged")
    assert content(tmp_path / "lf")["INBOX"] == [
        (1_500_000_000, everything, b"A: no end"),
        (1_600_000_000, (), b"A: crlf\n\nx\n"),
        (1_700_000_000, (), b"A: lf\n\nx\n"),
    ]
    assert [data for _, _, data in content(tmp_path / "crlf")["INBOX"]] == [
        b"A: no end", b"A: crlf\r\n\r\nx\r\n", b"A: lf\r\n\r\nx\r\n",
    ]  # fmt: skip


def test_keywords_that_imap_cannot_say_are_made_such(ann: Mailctl, tmp_path: Path) -> None:
    put(tmp_path / "m", "1700000000.a.h:2,Sabcd", b"A: b\n\n", 1_700_000_000)
    (tmp_path / "m" / "dovecot-keywords").write_text('0 $Label1\n1 to do (soon)\n2 größe"\n3 \\Weird\n')
    ann.good("import", "maildir", tmp_path / "m", "--to", USER)
    ann.good("export", "maildir", USER, tmp_path / "out")
    ((_, flags, _),) = content(tmp_path / "out")["INBOX"]
    assert flags == ("$Label1", "Weird", "\\Seen", "gr__e_", "to_do__soon_")
    assert ann.json("import", "maildir", tmp_path / "m", "--to", USER)["present"] == 1


def test_folders_of_every_name_and_layout(ann: Mailctl, tmp_path: Path) -> None:
    root = tmp_path / "m"
    for number, folder in enumerate((".Work.Plans", ".R&AOQ-ksm&APY-rg&AOU-s", ".R&D", "Nested/Deep", "Nested/.hidden")):
        put(root / folder, f"170000000{number}.a.h:2,", b"A: b\n\n", 1_700_000_000)
    (root / "cur").mkdir()
    (root / "not-a-folder").mkdir()
    report = ann.json("import", "maildir", root, "--to", USER, "--below", "Old")
    wanted = ["Old/INBOX", "Old/Nested/Deep", "Old/R&D", "Old/Räksmörgås", "Old/Work/Plans"]
    assert sorted(report["mailboxes"]) == wanted
    shown = [each["mailbox"] for each in ann.json("user", "show", USER)["mailboxes"]]
    assert "Old/Work" in shown, "levels above are made too"


def test_what_cannot_be_imported_is_named_and_the_rest_is_done(ann: Mailctl, tmp_path: Path) -> None:
    root = tmp_path / "m"
    put(root, "1700000000.a.h:2,", b"A: b\n\n", 1_700_000_000)
    put(root / ".Bad*Name", "1700000000.a.h:2,", b"A: b\n\n", 1_700_000_000)
    (root / "cur" / "1700000005.gone.h:2,").symlink_to(root / "nowhere")
    unreadable = put(root, "1700000001.b.h:2,", b"A: c\n\n", 1_700_000_000)
    opened = Path.open

    def refuse(path: Path, *words: object, **named: object) -> object:
        if path == unreadable:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *words, **named)  # type: ignore[call-overload]  # passed through

    with patch.object(Path, "open", refuse):
        result = ann.run("import", "maildir", root, "--to", USER, "--json")
    assert result.status == 1
    error = result.error()
    assert (error["imported"], len(error["failed"])) == (1, 2)
    assert "wildcards" in str(error["failed"]) and "Permission denied" in str(error["failed"])


def test_usage_and_missing_things(ann: Mailctl, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert ann.run("import", "maildir", tmp_path / "nowhere", "--to", USER).status == 2
    assert ann.run("import", "maildir", tmp_path / "empty", "--to", USER).status == 1
    put(tmp_path / "m", "1.a", b"x", 1)
    assert ann.run("import", "maildir", tmp_path / "m", "--to", "nobody@example.org").status == 3
    assert ann.run("import", "maildir", tmp_path / "m").status == 2
    assert ann.run("export", "maildir", USER, tmp_path / "out", "--mailbox", "None").status == 3


def test_a_quota_ends_an_import_with_a_clear_word(ann: Mailctl, tmp_path: Path) -> None:
    put(tmp_path / "m", "1700000000.a.h", b"A: b\n\n" + b"x" * 3000, 1_700_000_000)
    ann.good("user", "quota", USER, "2kB")
    result = ann.run("import", "maildir", tmp_path / "m", "--to", USER, "--json")
    assert (result.status, result.error()["code"]) == (1, "over-quota")
    assert ann.json("import", "maildir", tmp_path / "m", "--to", USER, "--ignore-quota")["imported"] == 1


def test_a_large_message_is_never_whole_in_memory_and_comes_back(ann: Mailctl, tmp_path: Path) -> None:
    data = b"Subject: large\n\n" + b"0123456789abcdef" * 4 * 60_000 + b"\n"
    put(tmp_path / "m", "1700000000.a.h:2,S", data, 1_700_000_000)
    ann.good("import", "maildir", tmp_path / "m", "--to", USER)
    ann.good("export", "maildir", USER, tmp_path / "out")
    assert content(tmp_path / "out")["INBOX"] == [(1_700_000_000, ("\\Seen",), data)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b""]), max_size=12), st.integers(1, 4))
def test_cutting_changes_no_line_end(pieces: list[bytes], size: int) -> None:
    data = b"".join(pieces)
    cut = [data[at : at + size] for at in range(0, len(data), size)]
    assert b"".join(to_crlf(cut)) == b"".join(to_crlf([data]))
    assert b"".join(to_lf(cut)) == data.replace(b"\r\n", b"\n")
    assert b"\n" not in b"".join(to_crlf(cut)).replace(b"\r\n", b"")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1), min_size=1))
def test_every_mailbox_name_survives_as_a_folder(levels: list[str]) -> None:
    name = "/".join(level for level in levels if level not in (".", "..")) or "x"
    if name.partition("/")[0].upper() == "INBOX":
        name = "x" + name
    for layout in ("maildir++", "nested"):
        path = maildir.path_of(Path("/m"), name, layout).relative_to("/m")
        parts = path.parts[0][1:].split(".") if layout == "maildir++" else path.parts
        assert "/".join(folder_names.decode(part) for part in parts) == name
        assert not set(path.parts) & {"cur", "new", "tmp", ".", ".."}


def test_a_batch_is_one_entry(ann: Mailctl, tmp_path: Path) -> None:
    for number in range(25):
        put(tmp_path / "m", f"17000000{number:02}.a.h", b"A: %d\n\n" % number, 1_700_000_000 + number)
    ann.good("import", "maildir", tmp_path / "m", "--to", USER)
    added = [entry for entry in ann.json("account", "log", USER) if entry["cause"] == AddMessages.cause]
    assert [len(change["messages"]) for entry in added for change in entry["changes"]] == [25]
