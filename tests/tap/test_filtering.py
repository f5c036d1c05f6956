"""`[filters]`: manners, limits, points."""

from __future__ import annotations

from pathlib import Path

import pytest

from twisted_mail.filters.helo import DEFAULTS
from twisted_mail.filters.rates import DEFAULT_LIMITS
from twisted_mail.tap.configuration import ConfigurationError, load
from twisted_mail.tap.filtering import FilterSettings


def read(tmp_path: Path, lines: str) -> FilterSettings:
    file = tmp_path / "mail.toml"
    file.write_text(f"[filters]\n{lines}\n")
    return load(file, {}).filters


def test_left_out_they_are_modest(tmp_path: Path) -> None:
    settings = read(tmp_path, "")
    assert settings.early_talkers == 3.0
    assert settings.helo == DEFAULTS
    assert settings.dnsbl == () and not settings.greylisting
    assert [str(limit) for limit in settings.rates] == list(DEFAULT_LIMITS)
    assert settings.score_rules["gtube"].points == 1000


def test_they_are_read(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        """early_talkers = "reject"
        helo = { own_name = "reject", dynamic = 0 }
        dnsbl = { "zen.example" = 5.0, "wl.example" = { "127.0.*.3" = -3.0 } }
        rates = ["address 10/1m"]
        score_rules = { only_html = 0 }""",
    )
    assert settings.early_talkers is None
    assert (settings.helo["own_name"], settings.helo["dynamic"], settings.helo["literal"]) == ("reject", 0.0, 2.0)
    assert [zone.name for zone in settings.dnsbl] == ["zen.example", "wl.example"]
    assert [str(limit) for limit in settings.rates] == ["connections per address 10/1m"]
    assert settings.score_rules["only_html"].points == 0


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('early_talkers = "kill"', "early_talkers"),
        ("early_talkers = -1", "early_talkers"),
        ("helo = { polite = 1 }", "polite"),
        ('dnsbl = { "zen.example" = "much" }', "zen.example"),
        ('dnsbl = { "zen.example" = { "10.0.0.1" = 1 } }', "10.0.0.1"),
        ('rates = ["address many/1m"]', "many"),
        ('rates = "address 10/1m"', "rates"),
        ("score_rules = { no_such_rule = 1 }", "no_such_rule"),
        ("bayes_least = 0", "bayes_least"),
    ],
)
def test_what_means_nothing_is_named(tmp_path: Path, line: str, what: str) -> None:
    with pytest.raises(ConfigurationError, match=what.replace(".", r"\.")):
        read(tmp_path, line)
