"""What an ``s3:`` URL may say, and what is said about one that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from twisted_mail.storage.s3.options import Settings, parse
from twisted_mail.storage.s3.sealing import Keyring

HERE = Path("/nowhere")
KEY = "ab" * 32


def test_a_url_with_nothing_but_what_it_needs() -> None:
    assert parse("s3://key:se%2Fcret@objects.example.org/mail", HERE) == Settings(
        "https://objects.example.org", "mail", "key", "se/cret"
    )


def test_a_url_with_everything(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"# of May\n{KEY}\n")
    (tmp_path / "login").write_text("key\nsecret\n")
    said = "tls=false&region=eu-1&threads=4&timeout=2.5&prefix=/a/b/&addressing=virtual&ca=ca.pem"
    settings = parse(f"s3://[::1]:7070/mail?{said}&encryption=file:keys&credentials=file:login", tmp_path)
    assert settings.endpoint == "http://[::1]:7070"
    assert (settings.key, settings.secret, settings.region) == ("key", "secret", "eu-1")
    assert (settings.threads, settings.timeout_seconds, settings.prefix) == (4, 2.5, "a/b/")
    assert (settings.addressing, settings.authorities) == ("virtual", str(tmp_path / "ca.pem"))
    assert settings.keyring is not None and settings.keyring.ids == Keyring.parse(KEY).ids
    assert parse(f"s3://host/mail?encryption=keys:{KEY}", HERE).keyring is not None
    assert parse("s3://host/mail?credentials=env", HERE).key == ""


@pytest.mark.parametrize(
    "url",
    [
        "s3:",
        "s3:///bucket",
        "s3://host",
        "s3://host/",
        "s3://host/a/b",
        "s3://host:port/bucket",
        "s3://host/bucket#part",
        "s3://key-only@host/bucket",
        "s3://key:hidden@host/bucket?credentials=env",
        "s3://key:hidden@host/bucket?colour=red",
        "s3://key:hidden@host/bucket?tls=perhaps",
        "s3://key:hidden@host/bucket?threads=0",
        "s3://key:hidden@host/bucket?timeout=soon",
        "s3://key:hidden@host/bucket?prefix=a%20b",
        "s3://key:hidden@host/bucket?addressing=dns",
        "s3://key:hidden@host/bucket?encryption=on",
        "s3://key:hidden@host/bucket?encryption=keys:hidden",
        "s3://key:hidden@host/bucket?encryption=file:missing",
        "s3://host/bucket?credentials=file:missing",
    ],
)
def test_a_wrong_url_is_refused_in_words_that_show_no_secret(url: str) -> None:
    with pytest.raises(ValueError) as raised:
        parse(url, HERE)
    assert "object store" in str(raised.value) or "64 hexadecimal" in str(raised.value)
    assert "hidden" not in str(raised.value)


def test_settings_print_no_secret() -> None:
    assert "hidden" not in repr(parse("s3://key:hidden@host/mail", HERE))
