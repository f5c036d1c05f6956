"""mailctl as a process: its exit, its streams, its prompts, and other processes at the same store."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.admin.calling import PASSWORD, Mailctl

USER = "ann@example.org"
HOLD = """\
import sys
from pathlib import Path
from twisted.internet.task import deferLater
from twisted_mail.admin.opening import opened
from twisted_mail.admin.running import run
from twisted_mail.tap.configuration import load

async def main(reactor):
    async with opened(reactor, load(Path(sys.argv[1]), {}), create=True) as store:
        print("ready", flush=True)
        before = len(await store.directory.accounts())
        while len(await store.directory.accounts()) == before:
            await deferLater(reactor, 0.02, lambda: None)
        print("seen", flush=True)
        await deferLater(reactor, 60, lambda: None)

run(main)
"""


@contextmanager
def another_process(config: Path) -> Iterator[subprocess.Popen[str]]:
    """One that has the store open first, as a server would, and says when it sees a new user."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(config)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_it_works_beside_the_process_that_writes(ctl: Mailctl) -> None:
    ctl.good("domain", "add", "example.org")
    with another_process(ctl.config) as process:
        added = ctl.process("user", "add", USER, "--password-stdin", given=PASSWORD + "\n")
        assert (added.status, added.out) == (0, f"user {USER} added\n"), added
        assert process.stdout is not None and process.stdout.readline() == "seen\n"
        assert ctl.json("user", "show", USER)["mailboxes"][0]["mailbox"] == "INBOX"
    assert ctl.json("user", "list")[0]["user"] == USER, "and without it"


def test_the_process_has_the_promised_exit_statuses_and_streams(ann: Mailctl) -> None:
    for words, status in (
        (("user", "list"), 0),
        (("domain", "add", "example.org"), 4),
        ((), 2),
    ):
        result = ann.process(*words)
        assert result.status == status, (words, result)
        assert bool(result.err) == bool(status) and "Traceback" not in result.err
        if status > 2:
            assert result.err.startswith("mailctl: ") and result.err.count("\n") == 1 and result.out == ""
    usage = ann.process("user", "add", "--json")
    assert usage.status == 2 and usage.error() == {"code": "usage", "text": "Missing argument 'ADDRESS'.", "exit": 2}


def test_a_store_that_cannot_be_reached_is_temporary(ann: Mailctl) -> None:
    """The lock is held by a process that does not answer."""
    hold = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); time.sleep(60)"
    lock = str(ann.folder / "data" / "writer.lock")
    process = subprocess.Popen([sys.executable, "-c", hold, lock], stdout=subprocess.PIPE, text=True)
    ann.config.write_text(ann.config.read_text() + '[storage]\nmetadata = "sqlite:?patience=0.3"\n')
    try:
        assert process.stdout is not None and process.stdout.readline()
        result = ann.run("user", "list", "--json")
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    assert result.status == 75
    assert "writer.lock" in result.error()["text"]


def test_a_password_is_asked_for_twice_and_not_echoed(ann: Mailctl) -> None:
    parent, child = pty.openpty()
    words = [sys.executable, "-m", "twisted_mail.admin", *ann.words("user", "passwd", USER)]
    process = subprocess.Popen(words, stdin=child, stdout=child, stderr=child, start_new_session=True)
    os.close(child)
    shown = b""

    def until(text: bytes) -> None:
        nonlocal shown
        deadline = time.monotonic() + 20
        while text not in shown and time.monotonic() < deadline:
            try:
                shown += os.read(parent, 1000)
            except OSError:
                break
        assert text in shown, shown

    until(b"Password: ")
    time.sleep(0.1)  # getpass throws away what was typed before it turned the echo off
    os.write(parent, b"typed by hand\n")
    until(b"Repeat for confirmation: ")
    time.sleep(0.1)
    os.write(parent, b"typed by hand\n")
    until(b"changed")
    assert process.wait(20) == 0
    os.close(parent)
    assert b"typed by hand" not in shown

    async def stored(store: object) -> tuple[str, ...]:
        return (await store.user(USER)).credentials  # type: ignore[attr-defined, no-any-return]  # a Store

    from twisted_mail.auth.passwords import matches

    assert matches("typed by hand", ann.inside(stored))


def test_an_interrupt_ends_it_and_frees_the_store(ann: Mailctl, tmp_path: Path) -> None:
    source = tmp_path / "m" / "cur"
    source.mkdir(parents=True)
    for number in range(3000):
        (source / f"{1_700_000_000 + number}.a.h:2,").write_bytes(b"Subject: %d\n\n" % number + b"words\n" * 300)
    words = [sys.executable, "-m", "twisted_mail.admin", *ann.words("import", "maildir", tmp_path / "m", "--to", USER)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    ann.wait_for_entries(3, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "mailctl: interrupted\n")
    assert not (ann.folder / "data" / "writer.sock").exists(), "it has closed the store in order"
    assert 0 < ann.json("user", "show", USER)["messages"] < 3000


def test_output_for_a_pipe_is_plain_and_a_closed_pipe_no_error(ann: Mailctl) -> None:
    for number in range(3):
        ann.good("alias", "add", f"a{number}@example.org", USER)
    assert ann.run("alias", "list").out == "".join(f"a{number}@example.org\t{USER}\n" for number in range(3))
    command = f"{sys.executable} -m twisted_mail.admin {' '.join(ann.words('account', 'log', USER))} | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can stand in for another user")
def test_root_does_not_write_into_another_users_store(ann: Mailctl) -> None:
    os.chown(ann.folder / "data", 12345, 12345)
    result = ann.run("user", "list", "--json")
    assert (result.status, result.error()["code"]) == (1, "wrong-user") and "sudo -u #12345" in result.error()["text"]
    os.chown(ann.folder / "data", 0, 0)
    ann.good("user", "list")


def test_json_stands_in_front_or_behind(ann: Mailctl) -> None:
    front = ann.run("--json", "user", "list")
    assert json.loads(front.out) == ann.json("user", "list")
