"""The transcripts' commands in any order, cut, doubled and with octets changed: never a defect, never out of step."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.imap.session.fakes import Node, add
from tests.imap.session.mailbox import MESSAGES
from tests.imap.session.transcripts import ROOT, load

LINES = sorted(
    {
        re.sub(r"^\S+", "", text)
        for path in ROOT.glob("*.txt")
        for kind, _, text in load(path).lines
        if kind == "C" and re.match(r"[A-Za-z0-9]+ [A-Z]{2}", text) and "LOGOUT" not in text and "IDLE" not in text
    }
)


@st.composite
def scripts(draw: st.DrawFn) -> list[bytes]:
    chosen = draw(st.lists(st.sampled_from(LINES), min_size=1, max_size=12))
    out = []
    for number, text in enumerate(chosen):
        line = f"t{number}{text}".encode()
        change = draw(st.integers(0, 5))
        if change == 0 and len(line) > 4:
            at = draw(st.integers(3, len(line) - 1))
            line = line[:at] + draw(st.binary(max_size=3)).replace(b"\n", b"").replace(b"{", b"") + line[at + 1 :]
        elif change == 1:
            line = line[: draw(st.integers(3, len(line)))]
        # a literal that is announced without being synchronising is sent in full
        literal = re.search(rb"\{(\d{1,4})\+\}$", line)
        if literal:
            line += b"\r\n" + b"x" * int(literal[1])
        out.append(line)
    return out


def test_there_is_something_to_choose_from() -> None:
    assert len(LINES) > 150


@given(script=scripts(), selected=st.booleans())
@settings(max_examples=250, deadline=None)
def test_any_order_of_any_commands(script: list[bytes], selected: bool) -> None:
    node = Node()
    for message in MESSAGES:
        add(node, message.octets, flags=message.flags, received=message.received, zone=message.zone)
    talk = node.talk().login()
    if selected:
        talk.select()
    for line in script:
        if talk.ended:
            break
        answer = talk.say(line)
        if answer.startswith(b"+ "):
            # a literal is awaited, or a SASL response: give something that ends either
            answer = talk.say(b"*" * 4096 + b"\r\n" + b"\r\n" * 2)
        assert not talk.failures, (line, talk.failures)
        assert talk.error is None, (line, talk.error)
    if not talk.ended:
        talk.say(b"\r\n" + b"x" * 2_000 + b"\r\n")
        if not talk.ended:
            assert b"last OK" in talk.say("last NOOP")
