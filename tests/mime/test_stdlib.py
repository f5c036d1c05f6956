"""Agreement with CPython's `email` on its own tests' messages and on generated ones; where not, why."""

from __future__ import annotations

import email
import email.header
import email.policy
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

from tests.mime.generate import PROPER, SHAPES, generate_shape
from tests.mime.reading import assert_sound, parse, parse_pieces, walk
from tests.mime.stdlib import ours, theirs
from twisted_mail.mime import part_text

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


@pytest.mark.parametrize("shape", sorted(PROPER))
def test_decoded_subjects_file_names_and_texts(shape: str) -> None:
    texts = 0
    for seed in range(15):
        octets = generate_shape(shape, seed)
        message = parse(octets)
        theirs_ = email.message_from_bytes(octets, policy=email.policy.compat32)
        subject = email.header.make_header(email.header.decode_header(theirs_["Subject"]))
        assert message.subject.split() == str(subject).split()
        parts = [part for part in theirs_.walk() if not part.get_content_type().startswith("multipart/")]
        leaves = [part for part in walk(message.root) if part.type != "multipart"]
        if shape == "report":
            continue  # it parses the fields of message/delivery-status as messages
        for part, leaf in zip(parts, leaves, strict=True):
            assert leaf.content_type == part.get_content_type()
            if part.get_filename() is not None:
                assert leaf.filename == part.get_filename()
            if leaf.type == "text" and leaf.subtype != "html":
                payload = part.get_payload(decode=True)
                assert isinstance(payload, bytes)
                expected = payload.decode(str(part.get_content_charset() or "ascii")).replace("\r\n", "\n")
                body = octets[leaf.body : leaf.end]
                assert part_text(body, leaf.subtype, leaf.encoding, leaf.param("charset")) == expected
                texts += 1
    assert texts or shape in ("one attachment", "report")
