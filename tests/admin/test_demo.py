"""The demo: made once, gone on with, on ports that are free, with words that work."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from tests.admin.calling import Mailctl
from twisted_mail.admin import demo as module
from twisted_mail.admin.demo import Demo, choose_ports
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.admin.samples import samples


def test_a_port_that_is_taken_is_replaced() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        chosen = choose_ports({"imap": port, "pop3": port, "smtp": port})
    assert port not in chosen.values() and len(set(chosen.values())) == 3


def test_it_is_made_once_and_gone_on_with(tmp_path: Path) -> None:
    demo = Demo(tmp_path / "demo")
    with patch.object(module, "MESSAGES", 20):
        said = demo.prepare(fresh=False)
        assert any("2 users, 20 messages each" in line for line in said)
        passwords = demo.passwords()
        assert (demo.folder / "passwords.json").stat().st_mode & 0o077 == 0
        assert any("going on" in line for line in demo.prepare(fresh=False)) and demo.passwords() == passwords
        ctl = Mailctl(demo.folder)
        assert ctl.json("user", "show", "bob@demo.example")["messages"] == 20
        demo.prepare(fresh=True)
        assert demo.passwords() != passwords
        (demo.folder / "passwords.json").unlink()  # as if it had been cut off
        demo.prepare(fresh=False)
    words = demo.instructions()
    ports = demo.ports()
    for name in ("imap", "imaps", "pop3", "pop3s", "smtp", "submission", "submissions"):
        assert str(ports[name]) in words
    assert all(password in words for password in demo.passwords().values())
    assert (demo.folder / "hello.eml").read_bytes().count(b"\r\n") == 11


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for fresh in (False, True):
        with pytest.raises(Problem) as raised:
            Demo(tmp_path).prepare(fresh=fresh)
        assert raised.value.status == Status.CONFLICT
    assert (tmp_path / "thesis.tex").exists()


def test_a_server_that_does_not_start_is_reported_with_its_words(tmp_path: Path) -> None:
    demo = Demo(tmp_path / "demo")
    with patch.object(module, "MESSAGES", 2):
        demo.prepare(fresh=False)
    dying = [sys.executable, "-c", "print('cannot start: no reason'); raise SystemExit(1)"]
    with patch.object(Demo, "command", lambda self: dying), pytest.raises(Problem, match="cannot start: no reason"):
        demo.start()
    assert demo.running() is None and not demo.stop_background()


def test_samples_are_varied_and_the_same_every_time() -> None:
    first = samples("ann@demo.example", ["bob@demo.example"], end=1_790_000_000, count=180)
    assert first == samples("ann@demo.example", ["bob@demo.example"], end=1_790_000_000, count=180)
    assert first != samples("bob@demo.example", ["ann@demo.example"], end=1_790_000_000, count=180)
    everything = b"".join(sample.data.lower() for sample in first)
    for piece in (
        b"multipart/alternative", b"multipart/mixed", b"multipart/related", b"multipart/report", b"message/rfc822",
        b"text/html", b"text/calendar", b"image/png", b"application/pdf", b"quoted-printable", b"base64", b"8bit",
        b"koi8-r", b"iso-2022-jp", b"gb2312", b"windows-1252", b"in-reply-to:", b"list-id:", b"filename*=",
    ):  # fmt: skip
        assert piece in everything, piece
    assert len({sample.mailbox for sample in first}) == 12 and len({flag for s in first for flag in s.flags}) > 7
    for sample in first:
        bare = sample.data.replace(b"\r\n", b"")
        assert b"\n" not in bare and b"\r" not in bare and max(map(len, sample.data.split(b"\r\n"))) <= 998
    assert [s.received for s in first] == sorted(s.received for s in first) and first[-1].received <= 1_790_000_000


@pytest.mark.clients
def test_the_whole_demo_and_every_command_that_it_prints(tmp_path: Path) -> None:
    """As `make demo` runs it, in the background; each printed curl line is run as it stands."""
    words = [sys.executable, "-m", "twisted_mail.admin.demo"]
    started = subprocess.run([*words, "--background"], cwd=tmp_path, capture_output=True, text=True, timeout=90)
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        lines = [line.strip() for line in started.stdout.splitlines() if line.startswith("    curl ")]
        assert len(lines) == 10
        said = {}
        for line in lines:
            done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=30)
            assert done.returncode == 0, (line, done.stderr)
            said[line] = done.stdout
        answers = list(said.values())
        assert "INBOX" in answers[0] and "MESSAGES" in answers[1] and "* SEARCH" in answers[3]
        assert answers[2] == answers[4] and "Subject: " in answers[2]
        assert "this came by submission" in answers[8]
        busy = subprocess.run([*words, "--once"], cwd=tmp_path, capture_output=True, text=True, timeout=90)
        assert busy.returncode == 4 and "runs already" in busy.stderr
        ctl = Mailctl(tmp_path / "demo")
        bob = ctl.json("user", "show", "bob@demo.example")
        assert bob["messages"] == module.MESSAGES + 2, "mailctl works beside the running server"
        assert ctl.json("account", "check", "bob@demo.example", "--deep")["result"] == "ok"
        report = ctl.json("doctor", "ports")
        assert {each["code"] for each in report["findings"]} == {"ports.answers"}
    finally:
        stopped = subprocess.run([*words, "--stop"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert stopped.stdout == "the server has ended\n"
    again = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert again.stdout is not None
    text = ""
    while "Ctrl-C ends it" not in text and (line := again.stdout.readline()):
        text += line
    assert "going on with the mail" in text
    again.send_signal(signal.SIGINT)
    assert again.communicate(timeout=40)[0] == "ending\n" and again.returncode == 0
    assert subprocess.run([*words, "--stop"], cwd=tmp_path, capture_output=True, text=True).stdout == "no server runs\n"
