"""Which word index a configuration chooses, and where its shards lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from twisted_mail.storage.shards import LocalShards, SharedShards
from twisted_mail.tap.configuration import load
from twisted_mail.tap.listeners import StartError
from twisted_mail.tap.stores import open_stores, search_url

OBJECTS = "s3://key:secret@127.0.0.1:1/bucket?tls=false"


def url(**environment: str) -> str:
    return search_url(
        load(None, {f"TWISTED_MAIL__SEARCH__{name.upper()}": value for name, value in environment.items()})
    )


def test_tantivy_is_used_where_it_is_installed_and_else_whoosh(monkeypatch: pytest.MonkeyPatch) -> None:
    tail = ":?shards=auto&cache=1073741824"
    monkeypatch.setattr("twisted_mail.tap.stores.find_spec", lambda name: object())
    assert url() == url(engine="tantivy") == f"tantivy{tail}"
    assert url(engine="whoosh") == f"whoosh{tail}"
    monkeypatch.setattr("twisted_mail.tap.stores.find_spec", lambda name: None)
    assert url() == f"whoosh{tail}"
    assert url(engine="none") == ""
    assert url(engine="whoosh", shards="local", cache="2MiB") == "whoosh:?shards=local&cache=2097152"


@pytest.mark.parametrize(
    ("environment", "form"),
    [
        ({}, LocalShards),
        ({"STORAGE__BLOBS": OBJECTS}, SharedShards),
        ({"STORAGE__BLOBS": OBJECTS, "SEARCH__SHARDS": "local"}, LocalShards),
        ({"STORAGE__BLOBS": OBJECTS, "SEARCH__ENGINE": "none"}, type(None)),
    ],
)
def test_shards_lie_beside_the_blobs_where_those_are_objects(
    tmp_path: Path, environment: dict[str, str], form: type
) -> None:
    from twisted.internet import reactor

    given = {"SEARCH__ENGINE": "whoosh", "DATA": str(tmp_path), **environment}
    configuration = load(None, {f"TWISTED_MAIL__{name}": value for name, value in given.items()})
    assert type(open_stores(reactor, configuration, "node-1").backend.search) is form
    assert not list(tmp_path.iterdir()), "nothing is opened before it is started"


def test_an_index_that_is_not_installed_is_named_with_what_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from twisted.internet import reactor

    def missing(urls: object, context: object) -> None:
        raise ModuleNotFoundError("No module named 'tantivy'", name="tantivy")

    monkeypatch.setattr("twisted_mail.tap.stores.open_backend", missing)
    configuration = load(None, {"TWISTED_MAIL__DATA": str(tmp_path), "TWISTED_MAIL__SEARCH__ENGINE": "tantivy"})
    with pytest.raises(StartError) as raised:
        open_stores(reactor, configuration, "node-1")
    assert str(raised.value) == "storage: tantivy is not installed: pip install 'twisted-mail-suite[tantivy]'"
