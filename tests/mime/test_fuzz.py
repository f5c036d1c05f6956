"""Long runs of mutated messages (`make fuzz`): sound, and the same however they are cut."""

from __future__ import annotations

import random

import pytest

from tests.mime.generate import generate
from tests.mime.reading import assert_sound, parse, parse_pieces
from tests.mime.test_parser import SCRAPS
from twisted_mail.mime import Limits, decode_layout, encode_layout

LIMITS = (None, Limits(depth=2, parts=3, text_bytes=50), Limits(header_bytes=1024, text_bytes=1000))


def mutated(dice: random.Random) -> bytes:
    """A message with holes, scraps and wrong octets, or nothing but scraps."""
    if dice.random() < 0.4:
        return b"".join(dice.choice(SCRAPS) for _ in range(dice.randint(0, 60)))
    octets = bytearray(generate(dice.randrange(10**6))[:8000])
    for _ in range(dice.randint(0, 20)):
        at = dice.randrange(len(octets) + 1)
        roll = dice.random()
        if roll < 0.3:
            del octets[at : at + dice.randint(1, 50)]
        elif roll < 0.6:
            octets[at:at] = dice.choice(SCRAPS)
        else:
            octets[at : at + 1] = bytes([dice.randrange(256)])
    return bytes(octets)


def run(seed: int, messages: int) -> None:
    dice = random.Random(seed)
    for _ in range(messages):
        octets, limits = mutated(dice), dice.choice(LIMITS)
        message = parse(octets, limits)
        assert_sound(octets, message)
        places = [0, *sorted(dice.randrange(len(octets) + 1) for _ in range(dice.randint(0, 30))), len(octets)]
        assert parse_pieces((octets[a:b] for a, b in zip(places, places[1:])), limits) == message
        layout = encode_layout(message.root)
        assert encode_layout(decode_layout(layout)) == layout


def test_mutated_messages() -> None:
    run(1, 1000)


@pytest.mark.fuzz
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(2, 10))
def test_many_mutated_messages(seed: int) -> None:
    run(seed, 30_000)
