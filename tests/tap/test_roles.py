"""Which listeners a node opens, what else it does, and that no secret of a URL is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from twisted_mail.tap.configuration import ConfigurationError, load
from twisted_mail.tap.listeners import StartError
from twisted_mail.tap.masking import masked, masked_in
from twisted_mail.tap.settings import ROLES, listeners_of
from twisted_mail.tap.stores import datacenter_of, open_stores
from twisted_mail.tap.wiring import Node


def read(tmp_path: Path, text: str) -> Any:
    """A Configuration, whose sections are used as they are."""
    file = tmp_path / "mail.toml"
    file.write_text(text)
    return load(file, {})


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as raised:
        read(tmp_path, text)
    return [str(problem).partition("mail.toml:")[2] for problem in raised.value.problems]


def test_by_default_a_node_does_everything(tmp_path: Path) -> None:
    configuration = load(None, {})
    assert configuration.roles == ROLES
    assert listeners_of(configuration) == (
        "smtp", "submission", "submissions", "lmtp", "imap", "imaps", "pop3", "pop3s", "managesieve"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ('["smtp"]', ("smtp",)),
        ('["imap", "delivery"]', ("imap", "imaps")),
        ('["submission", "relay"]', ("submission", "submissions")),
        ('["pop3", "lmtp", "http", "managesieve"]', ("lmtp", "pop3", "pop3s", "managesieve")),
        ('["delivery"]', ()),
    ],
)
def test_roles_choose_among_the_listeners(tmp_path: Path, roles: str, expected: tuple[str, ...]) -> None:
    assert listeners_of(read(tmp_path, f"roles = {roles}")) == expected


def test_probes_are_answered_whatever_the_roles(tmp_path: Path) -> None:
    configuration = read(tmp_path, 'roles = ["delivery"]\n[listen]\nmetrics = ["tcp:0"]\n')
    assert listeners_of(configuration) == ("metrics",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("roles = []", "1: roles: at least 1 must be named"),
        ('roles = [\n"smpt"]', '2: roles[1]: "smpt" is not one of '),
        ('roles = ["imap",\n"imap"]', '2: roles[2]: "imap" is named twice'),
        ('roles = ["smtp"]\n[listen]\nimap = ["tcp:1"]', "1: roles: no listener in [listen] belongs to these roles"),
        ('roles = ["smtp"]\n[listen]\nmetrics = ["tcp:1"]', "2: listen: nothing listens anywhere"),
        ('roles = ["imap", "delivery"]\n[listen]\n', "2: listen: nothing listens anywhere"),
        ('node = "a b"', '1: node: "a b" is not a name of letters, digits, - _ and .'),
        ('[listen]\nimap = ["tcp:1"]\nmetrics = ["tcp:1"]', '3: listen.metrics[1]: "tcp:1" is taken by listen.imap'),
        ('[delivery]\nexpire = "1s"', "2: delivery.expire: 1s is too small: at least 1m"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, expected: str) -> None:
    [said] = problems(tmp_path, text)
    assert said.startswith(expected), said


def test_roles_and_names_come_from_the_environment_too() -> None:
    environment = {"TWISTED_MAIL__ROLES": "smtp,delivery", "TWISTED_MAIL__NODE": "mx1"}
    configuration = load(None, environment)
    assert (configuration.roles, configuration.node) == (("smtp", "delivery"), "mx1")


def test_names_of_nodes() -> None:
    assert Node(1, 1).name("mx1") == "mx1"
    assert Node(2, 3).name("mx1") == "mx1-2"
    assert Node(1, 1).name("").endswith("-1")


# --- secrets


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("cql://mail:s3cr3t@10.0.0.1,10.0.0.2:9042/mail?datacenter=dc1", "cql://mail:…@10.0.0.1,10.0.0.2:9042/mail?datacenter=dc1"),
        ("s3://key:a/b+c=@host:7070/bucket?tls=false", "s3://key:…@host:7070/bucket?tls=false"),
        ("s3://key:p@ss@host/bucket", "s3://key:…@host/bucket"),
        ("nats://token@10.0.0.1:4222", "nats://…@10.0.0.1:4222"),
        ("nats://10.0.0.1:4222?user=a&password=b&ca=/x", "nats://10.0.0.1:4222?user=a&password=…&ca=/x"),
        ("s3://host/b?encryption_key=abc&secret_access=x&tls=true", "s3://host/b?encryption_key=…&secret_access=…&tls=true"),
        ("sqlite:", "sqlite:"),
        ("file:///srv/mail?threads=4", "file:///srv/mail?threads=4"),
    ],
)
def test_secrets_of_a_url_are_not_shown(url: str, shown: str) -> None:
    assert masked(url) == shown
    assert masked_in(f"{url!r}: no such option", (url,)) == f"{shown!r}: no such option"


def test_a_start_that_fails_names_the_store_and_no_secret(tmp_path: Path) -> None:
    from twisted.internet import reactor

    url = "sqlite://user:s3cr3t@host/file"
    configuration = load(None, {"TWISTED_MAIL__DATA": str(tmp_path), "TWISTED_MAIL__STORAGE__METADATA": url})
    with pytest.raises(StartError, match=r"storage: 'sqlite://user:…@host/file"):
        open_stores(reactor, configuration)


def test_engines_get_the_sizes_of_their_pools_unless_their_url_says_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from twisted.internet import reactor

    opened: list[dict[str, str]] = []

    def refuse(urls: dict[str, str], context: object) -> None:
        opened.append(urls)
        raise ValueError("enough")

    monkeypatch.setattr("twisted_mail.tap.stores.open_backend", refuse)
    given = {"METADATA": "sqlite:///x/mail?patience=3", "BLOBS": "file:?threads=9", "MESSAGING": "nats://127.0.0.1:4222"}
    for environment in ({}, {f"TWISTED_MAIL__STORAGE__{name}": url for name, url in given.items()}):
        with pytest.raises(StartError, match="enough"):
            open_stores(reactor, load(None, environment))
    assert opened == [
        {"metadata": "sqlite:?readers=4", "blobs": "file:?threads=4"},
        {"metadata": "sqlite:///x/mail?patience=3&readers=4", "blobs": "file:?threads=9", "messaging": given["MESSAGING"]},
    ]


def test_a_driver_that_is_missing_is_named_with_what_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from twisted.internet import reactor

    def missing(urls: object, context: object) -> None:
        raise ImportError("No module named 'cassandra'")

    monkeypatch.setattr("twisted_mail.tap.stores.open_backend", missing)
    configuration = load(None, {"TWISTED_MAIL__STORAGE__METADATA": "cql://user:s3cr3t@host/mail?datacenter=dc1"})
    with pytest.raises(StartError) as raised:
        open_stores(reactor, configuration)
    assert str(raised.value) == (
        "storage: a driver is not installed (No module named 'cassandra'); scylla-driver: "
        "pip install 'twisted-mail-suite[cluster]'"
    )
    assert datacenter_of(configuration) == "dc1"
