"""The reference of the configuration is what the code says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.tap.installation import ROOT
from twisted_mail.tap.configuration import fields_of, load
from twisted_mail.tap.reference import main, reference
from twisted_mail.tap.settings import Configuration

FILE = ROOT / "docs" / "reference" / "configuration.md"


def test_the_reference_is_up_to_date() -> None:
    assert FILE.read_text("utf-8") == reference(), "run `make docs`"


def test_the_reference_names_every_setting() -> None:
    text = reference()
    for section in (each for each in fields_of(Configuration) if each.section):
        assert section.section is not None
        part = text.partition(f"\n## `[{section.name}]`\n")[2].partition("\n## ")[0]
        for each in fields_of(section.section):
            if each.declared is not None:
                assert f"\n### `{each.name}`\n" in part, each.name


def test_defaults_in_the_reference_are_toml_that_the_configuration_accepts(tmp_path: Path) -> None:
    file = tmp_path / "mail.toml"
    lines, table = [], ""
    for line in reference().splitlines():
        if found := re.fullmatch(r"## `(\[[a-z]+\])`", line):
            lines.append(table := found[1])
        elif line.startswith("## "):
            table = ""
        elif found := re.fullmatch(r"### `(\w+)`", line):
            key = found[1]
        elif (found := re.fullmatch(r"- Default: `(.*)`\.", line)) and table:
            lines.append(f"{key} = {found[1]}")
    file.write_text("\n".join(lines))
    assert len(lines) > 30
    environment = {"TWISTED_MAIL__DATA": str(tmp_path / "mail-data"), "TWISTED_MAIL__RELAY__ENABLED": "true"}
    assert load(file, {}) == load(None, environment), tomllib.loads("\n".join(lines))


def test_check_says_whether_the_file_is_old(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "configuration.md"
    assert main(["--check", str(file)]) == 1
    assert "make docs" in capsys.readouterr().err
    assert main([str(file)]) == 0
    assert main(["--check", str(file)]) == 0
    assert main([]) == 2
