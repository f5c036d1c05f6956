"""Whom the configuration has taught."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.delivery.test_lessons import Place, School
from twisted_mail.tap.configuration import load
from twisted_mail.tap.status import exposition
from twisted_mail.tap.teaching import lesson_metrics, teaching


class _Backend:
    def __init__(self, place: Place) -> None:
        self.records, self.directory = place.records, place.directory


@pytest.mark.parametrize(
    ("text", "daemons"),
    [
        ("", 0),
        ('spamassassin = { address = "127.0.0.1:783" }', 1),
        ('spamassassin = { address = "127.0.0.1:783", learning = false }', 0),
        ('rspamd = { url = "http://127.0.0.1:11333" }', 0),
        ('rspamd = { url = "http://127.0.0.1:11333", controller = "http://127.0.0.1:11334" }', 1),
    ],
)
def test_those_are_taught_that_may_be(tmp_path: Path, text: str, daemons: int) -> None:
    file = tmp_path / "mail.toml"
    file.write_text(f"[filters]\n{text}\n")
    settings = load(file, {}).filters
    place = Place()
    backend: Any = _Backend(place)
    place.node.service.notice = None
    lessons = teaching(settings, place.clock, backend, place.node.service, None, None)
    assert (lessons is None) == (daemons == 0)
    assert (place.node.service.notice is None) == (daemons == 0)
    assert teaching(settings, place.clock, backend, place.node.service, School(), None) is not None


def test_nobody_is_taught_where_nobody_judges(tmp_path: Path) -> None:
    file = tmp_path / "mail.toml"
    file.write_text("[filters]\nenabled = false\n")
    place = Place()
    backend: Any = _Backend(place)
    assert teaching(load(file, {}).filters, place.clock, backend, place.node.service, School(), None) is None


def test_what_was_taught_is_counted() -> None:
    place = Place()
    place.say("a UID MOVE 1:2 Junk")
    text = exposition(lesson_metrics(place.lessons), "here")
    assert 'lessons_total{node="here"} 2' in text
