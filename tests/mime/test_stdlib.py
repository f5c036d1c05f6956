"""Agreement with CPython's `email` on its own tests' messages and on generated ones; where not, why."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

from tests.mime.generate import PROPER, SHAPES, generate_shape
from tests.mime.reading import assert_sound, parse, parse_pieces
from tests.mime.stdlib import ours, theirs

EMPTY_PART: Final = "a multipart without delimiters of its own: BODYSTRUCTURE needs a part, so there is an empty one"
HEADER_END: Final = "a line in a header that is no field: it ends the header there; here the blank line does"
NO_BOUNDARY: Final = "no boundary: RFC 2045 section 5.2 makes plain text of it; there it stays a multipart"
SAME_BOUNDARY: Final = "an inner multipart has the boundary of the outer one: " + EMPTY_PART
EXCEPTIONS: Final = {
    "msg_15.txt": SAME_BOUNDARY,
    "msg_17.txt": EMPTY_PART,
    "msg_25.txt": NO_BOUNDARY,
    "msg_31.txt": EMPTY_PART,
    "msg_35.txt": HEADER_END,
    "msg_37.txt": "two delimiters in a row have an empty part between them; there they count as one",
    "msg_39.txt": SAME_BOUNDARY,
    "msg_41.txt": NO_BOUNDARY,
    "msg_42.txt": EMPTY_PART,
    "msg_47.txt": HEADER_END,
}


def cpython_messages() -> list[Path]:
    """The messages of CPython's own email tests; where they are not installed, none."""
    try:
        spec = find_spec("test.test_email")
    except ImportError:
        return []
    if spec is None or spec.origin is None:
        return []
    return sorted((Path(spec.origin).parent / "data").glob("msg_*.txt"))


MESSAGES: Final = cpython_messages()


@pytest.mark.skipif(not MESSAGES, reason="CPython's own tests are not installed")
@pytest.mark.parametrize("path", MESSAGES, ids=lambda path: path.name)
def test_cpythons_own_messages(path: Path) -> None:
    octets = path.read_bytes()
    for variant in (octets, octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")):
        message = parse(variant)
        assert_sound(variant, message)
        assert parse_pieces(variant[at : at + 7] for at in range(0, len(variant), 7)) == message
        if path.name in EXCEPTIONS:
            # Were it to agree, the reason given would no longer be one.
            assert ours(variant, message.root) != theirs(variant), EXCEPTIONS[path.name]
        else:
            assert ours(variant, message.root) == theirs(variant)


@pytest.mark.parametrize("shape", sorted(PROPER))
def test_generated_messages(shape: str) -> None:
    for seed in range(25):
        octets = generate_shape(shape, seed)
        assert ours(octets, parse(octets).root) == theirs(octets), seed


BROKEN_BUT_AGREED: Final = ("bare LF", "undeclared 8-bit", "huge header", "no header", "header only", "mbox", "long line")


@pytest.mark.parametrize("shape", BROKEN_BUT_AGREED)
def test_broken_messages_on_which_both_agree(shape: str) -> None:
    assert shape in SHAPES
    for seed in range(8):
        octets = generate_shape(shape, seed)
        assert ours(octets, parse(octets).root) == theirs(octets), seed
