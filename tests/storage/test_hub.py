"""The writer's end of the socket, fed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import msgpack
from twisted.internet.testing import StringTransport

from twisted_mail.storage.interfaces import Conflict
from twisted_mail.storage.sqlite.remote import Hub
from twisted_mail.storage.sqlite.threads import Answer
from twisted_mail.storage.sqlite.wire import ANSWER, COUNT, FAILURE, HELLO, MOVED, REQUEST, VERSION


class Ends:
    """A hub with what was submitted to it, and clients on string transports."""

    def __init__(self) -> None:
        self.submitted: list[tuple[str, Sequence[Any], Answer]] = []
        self.moved: list[tuple[bytes, int]] = []
        self.hub = Hub(
            lambda *job: self.submitted.append(job),
            lambda key, seconds, by: by * 10,
            lambda account, modseq: self.moved.append((account, modseq)),
        )

    def client(self, name: bytes | None = None) -> tuple[Any, StringTransport]:
        transport = StringTransport()
        protocol: Any = self.hub.buildProtocol(None)
        protocol.makeConnection(transport)
        if name is not None:
            protocol.dataReceived(frame(HELLO, VERSION, name))
            assert frames(transport) == [[HELLO, VERSION, b""]]
        return protocol, transport


def frame(*parts: object) -> bytes:
    data = msgpack.encode(parts)
    return len(data).to_bytes(4, "big") + data


def frames(transport: StringTransport) -> list[Any]:
    """What was written since the last call."""
    data, found = transport.value(), []
    transport.clear()
    while data:
        length = int.from_bytes(data[:4], "big")
        found.append(msgpack.decode(data[4 : 4 + length]))
        data = data[4 + length :]
    return found


def test_a_request_is_submitted_and_answered_by_its_number_however_it_is_cut() -> None:
    ends = Ends()
    client, transport = ends.client(b"a")
    stream = frame(REQUEST, 1, "log.trim", [b"x", 1]) + frame(REQUEST, 2, "log.trim", [b"y", 2])
    for at in range(len(stream)):
        client.dataReceived(stream[at : at + 1])
    assert [(name, arguments) for name, arguments, _ in ends.submitted] == [
        ("log.trim", [b"x", 1]),
        ("log.trim", [b"y", 2]),
    ]
    ends.submitted[1][2](True, 7)
    ends.submitted[0][2](False, Conflict("late"))
    assert frames(transport) == [[ANSWER, 2, 7], [FAILURE, 1, "Conflict", "late"]]
    client.dataReceived(frame(REQUEST, 3, "no.such", []) + frame(COUNT, 4, "key", 60.0, 2))
    assert [each[:3] for each in frames(transport)] == [[FAILURE, 3, "StorageError"], [ANSWER, 4, 20]]


def test_what_an_earlier_connection_of_a_process_still_sends_is_not_carried_out() -> None:
    # it may have asked, over the new one, whether that write happened, and was told that it never will
    ends = Ends()
    old, old_transport = ends.client(b"a")
    new, _ = ends.client(b"a")
    assert old_transport.disconnected
    old.dataReceived(frame(REQUEST, 1, "log.append", []))
    assert ends.submitted == []
    new.dataReceived(frame(REQUEST, 1, "log.settle", []))
    assert [name for name, _, _ in ends.submitted] == ["log.settle"]


def test_the_end_of_an_earlier_connection_does_not_forget_the_new_one() -> None:
    ends = Ends()
    old, _ = ends.client(b"a")
    _, transport = ends.client(b"a")
    old.connectionLost()
    ends.hub.tell(b"account", 3)
    assert frames(transport) == [[MOVED, b"account", 3]]


def test_notices_go_to_everybody_else() -> None:
    ends = Ends()
    one, first = ends.client(b"a")
    _, second = ends.client(b"b")
    one.dataReceived(frame(MOVED, b"account", 5))
    assert ends.moved == [(b"account", 5)]
    assert (frames(first), frames(second)) == ([], [[MOVED, b"account", 5]])


def test_nobody_is_served_before_a_greeting_of_this_version() -> None:
    for greeting in (frame(REQUEST, 1, "log.trim", []), frame(HELLO, VERSION + 1, b"a"), frame(), b"\xff\xff\xff\xff"):
        ends = Ends()
        client, transport = ends.client()
        client.dataReceived(greeting)
        client.dataReceived(frame(REQUEST, 2, "log.trim", []))
        assert ends.submitted == []
        assert transport.disconnected


def test_a_request_that_comes_while_the_writer_closes_is_refused() -> None:
    ends = Ends()
    client, transport = ends.client(b"a")
    ends.hub.close()
    client.dataReceived(frame(REQUEST, 1, "log.trim", []))
    assert ends.submitted == []
    assert frames(transport)[0][:3] == [FAILURE, 1, "Refused"]


def test_an_answer_for_a_process_that_has_gone_is_dropped() -> None:
    ends = Ends()
    client, transport = ends.client(b"a")
    client.dataReceived(frame(REQUEST, 1, "log.trim", []))
    client.connectionLost()
    ends.submitted[0][2](True, None)
    assert frames(transport) == []
    assert not ends.hub.clients and not ends.hub.connections
