"""The command line of `twistd mail`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from twisted.python.usage import UsageError

from twisted_mail import __version__
from twisted_mail.tap import Options


def test_the_configuration_is_read(tmp_path: Path) -> None:
    file = tmp_path / "mail.toml"
    file.write_text('hostname = "mx.example"\n')
    options = Options()
    options.parseOptions(["--config", str(file)])
    assert options.configuration.hostname == "mx.example"
    assert options.configuration.process.workers == 1


def test_workers_win_over_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mail.toml"
    file.write_text("process.workers = 2\n")
    monkeypatch.setenv("TWISTED_MAIL__PROCESS__WORKERS", "3")
    options = Options()
    options.parseOptions(["-c", str(file)])
    assert options.configuration.process.workers == 3
    options = Options()
    options.parseOptions(["-c", str(file), "--workers", "4"])
    assert options.configuration.process.workers == 4


@pytest.mark.parametrize("words", [["--workers", "many"], ["--workers", "0"], ["--workers", "-1"]])
def test_a_wrong_number_of_workers_is_named(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        Options().parseOptions(words)
    assert caught.value.code == 1
    assert capsys.readouterr().err.startswith("--workers: ")


def test_every_mistake_is_a_line_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mail.toml"
    file.write_text("hostname = 1\ndate = 2\n")
    with pytest.raises(SystemExit) as caught:
        Options().parseOptions(["--config", str(file)])
    assert caught.value.code == 1
    assert capsys.readouterr().err == (
        f"{file}:1: hostname: 1 is not a host name (a string in quotes)\n"
        f"{file}:2: date: there is no such setting; did you mean data?\n"
    )


def test_further_checkers_by_strcred() -> None:
    options = Options()
    options.parseOptions(["--auth", "memory:ann:secret"])
    (checker,) = options.checkers()
    assert checker.users == {"ann": "secret"}
    assert options.auth == ["memory:ann:secret"]
    with pytest.raises(UsageError):
        Options().parseOptions(["--auth", "nonsense"])


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        Options().parseOptions(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"twisted-mail-suite {__version__} (Twisted ")


def test_help_is_worth_reading() -> None:
    text = str(Options())
    for word in ("--config=", "--workers=", "--auth=", "mailctl user add ann@example.org\n", "TERM drains", "--reactor"):
        assert word in text


@pytest.mark.parametrize("command", ["twistd", "twist"])
def test_a_broken_configuration_exits_with_1_before_any_port_opens(tmp_path: Path, command: str) -> None:
    (tmp_path / "mail.toml").write_text('[imap]\nseparator = "|"\nidle = 3\n[limits]\nlogin = -1\n')
    code = {
        "twistd": "from twisted.scripts.twistd import run; sys.argv = ['twistd', '-n', *words]; run()",
        "twist": "from twisted.application.twist._twist import Twist; Twist.main(['twist', *words])",
    }[command]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; words = ['mail', '--config', 'mail.toml']; {code}"],
        capture_output=True, text=True, cwd=tmp_path, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == (
        'mail.toml:2: imap.separator: "|" is not one of "/", "."\n'
        "mail.toml:5: limits.login: -1s is too small: at least 1s\n"
    )
    assert "starting on" not in done.stdout
    assert not (tmp_path / "mail-data").exists()
