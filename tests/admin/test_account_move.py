"""mailctl account move: the log, then the directory; may be interrupted and given again."""

from __future__ import annotations

import pytest

from tests.admin.calling import Mailctl
from twisted_mail.account import moving, sending
from twisted_mail.admin.opening import Store
from twisted_mail.tap import stores

USER = "ann@example.org"


def in_datacenter(name: str, patch: pytest.MonkeyPatch) -> None:
    """As if the metadata's URL named this data centre."""
    patch.setattr(stores, "datacenter_of", lambda configuration: name)
    patch.setattr(moving, "SEEN_SECONDS", 0.0)
    patch.setattr(sending, "UNSENT_SECONDS", 0.0)


def homes(ctl: Mailctl) -> tuple[str, str]:
    """As the log says, and as the directory says."""

    async def look(store: Store) -> tuple[str, str]:
        record = await store.user(USER)
        async with store.account(record) as account:
            return account.state.settings.get("home", ""), record.home

    return ctl.inside(look)


def test_where_there_is_one_data_centre_nothing_moves(ann: Mailctl) -> None:
    result = ann.run("account", "move", USER, "--to", "dc2", "--json")
    assert (result.status, result.error()["code"]) == (1, "one-datacenter")


def test_a_move_is_written_to_the_log_and_when_it_is_seen_to_the_directory(
    ann: Mailctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_datacenter("dc1", monkeypatch)
    assert ann.json("account", "move", USER, "--to", "dc1") == {"user": USER, "from": "dc1", "to": "dc1", "seen": True}
    refused = ann.run("account", "move", USER, "--to", "dc2", "--json")
    assert (refused.status, refused.error()["code"]) == (3, "no-datacenter")
    assert homes(ann) == ("dc1", "dc1")
    unseen = ann.run("account", "move", USER, "--to", "dc2", "--unseen")
    assert unseen.status == 75 and "run this again" in unseen.err
    assert homes(ann) == ("dc2", "dc1"), "the directory follows when the new home has the log"
    in_datacenter("dc2", monkeypatch)
    line = ann.good("account", "move", USER, "--to", "dc2").out
    assert line == f"{USER}: at home in dc2\n"
    assert homes(ann) == ("dc2", "dc2")
    assert ann.json("account", "log", USER, "--limit", "1")[0]["cause"] == "move-home"


def test_a_move_from_elsewhere_with_no_node_of_the_home_changes_nothing(
    ann: Mailctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_datacenter("dc1", monkeypatch)
    ann.good("account", "move", USER, "--to", "dc1")
    in_datacenter("dc2", monkeypatch)
    result = ann.run("account", "move", USER, "--to", "dc2", "--json")
    assert (result.status, result.error()["code"]) == (75, "unavailable")
    assert homes(ann) == ("dc1", "dc1")
