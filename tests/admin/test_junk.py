"""mailctl user junk: what a user takes for junk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.admin.calling import Mailctl

ANN = "ann@example.org"


@pytest.fixture
def ctl(tmp_path: Path) -> Mailctl:
    return Mailctl(tmp_path).with_user()


def test_lists_and_threshold_are_kept_with_the_account(ctl: Mailctl) -> None:
    assert ctl.json("user", "junk", ANN) == {"user": ANN, "threshold": "default", "allow": [], "block": []}
    ctl.good("user", "junk", ANN, "--threshold", "8.5", "--allow", "Boss@Example.com", "--block", "@spam.example")
    found = ctl.json("user", "junk", ANN, "--allow", "@example.net")
    assert found["threshold"] == "8.5"
    assert (found["allow"], found["block"]) == (["@example.net", "boss@example.com"], ["@spam.example"])


def test_who_is_put_on_one_list_leaves_the_other_and_who_is_forgotten_both(ctl: Mailctl) -> None:
    ctl.good("user", "junk", ANN, "--allow", "a@x.example", "--allow", "b@x.example", "--block", "c@x.example")
    found = ctl.json("user", "junk", ANN, "--block", "a@x.example", "--forget", "b@x.example", "--forget", "c@x.example")
    assert (found["allow"], found["block"]) == ([], ["a@x.example"])
    assert ctl.json("user", "junk", ANN, "--forget", "a@x.example", "--threshold", "default")["block"] == []


@pytest.mark.parametrize(
    "words", [("--threshold", "much"), ("--allow", "nonsense"), ("--block", "a@")], ids=lambda words: words[1]
)
def test_what_makes_no_sense_is_named_and_changes_nothing(ctl: Mailctl, words: tuple[str, str]) -> None:
    ctl.good("user", "junk", ANN, "--threshold", "off")
    result = ctl.run("user", "junk", ANN, *words)
    assert result.status == 2 and words[1] in result.err
    assert ctl.json("user", "junk", ANN) == {"user": ANN, "threshold": "off", "allow": [], "block": []}


def test_nobody_is_not_found(ctl: Mailctl) -> None:
    assert ctl.run("user", "junk", "nobody@example.org").status == 3
