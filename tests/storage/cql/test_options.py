"""The URL of a cluster, and whose turn it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_mail.storage import open_engine
from twisted_mail.storage.cql.fairness import FairQueue, Full
from twisted_mail.storage.cql.options import Options, parse_url
from twisted_mail.storage.cql.schema import keyspace_text
from twisted_mail.storage.interfaces import EngineContext


def test_a_url_says_everything() -> None:
    options = parse_url(
        "cql://us%40er:pass%3Aword@10.0.0.1,[::1]:9142/mail_2?datacenter=dc1&replication=dc1:3,dc2:2&consistency=quorum"
        "&stale_reads=false&tls=true&ca=/c.pem&certificate=/a.pem&key=/k.pem&check_hostname=no&timeout=2.5&in_flight=10"
        "&in_flight_per_account=3&waiting=99&tablets=true&durable_writes=yes&append_bytes=65536"
    )
    assert options == Options(
        hosts=("10.0.0.1", "::1"),
        port=9142,
        keyspace="mail_2",
        user="us@er",
        password="pass:word",
        datacenter="dc1",
        replication={"dc1": 3, "dc2": 2},
        consistency="QUORUM",
        stale_reads=False,
        tls=True,
        ca="/c.pem",
        certificate="/a.pem",
        key="/k.pem",
        check_hostname=False,
        timeout=2.5,
        in_flight=10,
        in_flight_per_account=3,
        waiting=99,
        tablets=True,
        append_bytes=65536,
    )
    assert options.copies == 3
    assert "pass" not in repr(options)


def test_one_host_is_enough() -> None:
    options = parse_url("cql://db.example")
    assert (options.hosts, options.port, options.keyspace) == (("db.example",), 9042, "mail")
    assert (options.consistency, options.stale_reads, options.copies) == ("LOCAL_QUORUM", True, 3)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("cql://", "hosts"),
        ("cql:", "hosts"),
        ("cql://a,a/mail", "hosts"),
        ("cql://a,,b/mail", "hosts"),
        ("cql://a:1,b:2/mail", "port"),
        ("cql://a:99999/mail", "port"),
        ("cql://a:x/mail", "port"),
        ("cql://:secret@a/mail", "user"),
        ("cql://a/Mail", "keyspace"),
        ("cql://a/x/y", "keyspace"),
        ("cql://a/mail?colour=red", "colour"),
        ("cql://a/mail?timeout=1&timeout=2", "timeout"),
        ("cql://a/mail?timeout=soon", "timeout"),
        ("cql://a/mail?timeout=nan", "timeout"),
        ("cql://a/mail?datacenter=", "datacenter"),
        ("cql://a/mail?datacenter=a'b", "datacenter"),
        ("cql://a/mail?replication=0", "replication"),
        ("cql://a/mail?replication=many", "replication"),
        ("cql://a/mail?replication=dc1:3,2", "replication"),
        ("cql://a/mail?replication=:3", "replication"),
        ("cql://a/mail?replication=dc1:3,dc1:2", "replication"),
        ("cql://a/mail?consistency=ONE", "consistency"),
        ("cql://a/mail?stale_reads=perhaps", "stale_reads"),
        ("cql://a/mail?in_flight=0", "in_flight"),
        ("cql://a/mail?append_bytes=1", "append_bytes"),
        ("cql://a/mail?ca=/c.pem", "ca"),
        ("cql://a/mail?tls=true&key=/k.pem", "certificate"),
        ("cql://a/mail?tls", "options"),
        ("cql://a/mail#x", "cql://"),
    ],
)
def test_what_is_wrong_is_named(url: str, named: str) -> None:
    with pytest.raises(ValueError, match=named) as raised:
        parse_url(url)
    assert str(raised.value).startswith(named) or named in ("cql://", "options")
    assert "secret" not in str(raised.value)


def test_options_from_elsewhere_fill_in_and_those_of_other_engines_are_passed_over() -> None:
    options = parse_url("cql://a?timeout=3", {"timeout": "9", "in_flight": "7", "readers": "4"})
    assert (options.timeout, options.in_flight) == (3.0, 7)


def test_the_scheme_is_registered() -> None:
    made = open_engine("cql://127.0.0.1:1/mail", EngineContext(None, Path("/nonexistent")))
    assert made.account_log is not None
    assert made.blobs is None
    assert made.health() == "not connected"


def test_a_keyspace_is_made_as_asked_for_and_without_tablets_on_scylla_alone() -> None:
    options = parse_url("cql://a/mail?replication=2")
    text = keyspace_text(options, "dc1", scylla=False, tablets=False)
    assert "{'class': 'NetworkTopologyStrategy', 'dc1': 2}" in text
    assert "tablets" not in text
    assert "tablets" not in keyspace_text(options, "dc1", scylla=True, tablets=False)
    assert "AND tablets = {'enabled': false}" in keyspace_text(options, "dc1", scylla=True, tablets=True)
    asked = parse_url("cql://a/mail?tablets=true&replication=dc1:3,dc2:3")
    text = keyspace_text(asked, "dc9", scylla=True, tablets=True)
    assert "AND tablets = {'enabled': true}" in text
    assert "'dc1': 3, 'dc2': 3" in text


# --- whose turn it is


def test_accounts_take_turns_and_none_has_more_under_way_than_it_may() -> None:
    queue: FairQueue[str] = FairQueue(total=4, each=2, waiting=100)
    for number in range(10):
        queue.push("import", f"i{number}")
    queue.push("reader", "r0")
    taken = [queue.pop() for _ in range(4)]
    assert taken == [("import", "i0"), ("reader", "r0"), ("import", "i1"), None]
    queue.landed("import")
    assert queue.pop() == ("import", "i2")
    queue.push("reader", "r1")
    queue.push("reader", "r2")
    assert queue.pop() == ("reader", "r1")
    assert queue.pop() is None, "four are under way"
    queue.landed("reader")
    queue.landed("reader")
    assert queue.pop() == ("reader", "r2")


def test_what_waits_is_bounded() -> None:
    queue: FairQueue[int] = FairQueue(total=1, each=1, waiting=2)
    queue.push(None, 1)
    queue.push("a", 2)
    with pytest.raises(Full):
        queue.push("b", 3)
    assert sorted(queue.clear()) == [1, 2]
    assert queue.pop() is None


@given(
    st.lists(st.tuples(st.sampled_from(["push", "push", "pop", "land"]), st.sampled_from([None, 1, 2, 3])), max_size=80)
)
def test_everything_that_waits_goes_in_its_accounts_order_and_within_the_bounds(
    steps: list[tuple[str, int | None]],
) -> None:
    queue: FairQueue[tuple[int | None, int]] = FairQueue(total=5, each=2, waiting=1000)
    pushed, flying, order = 0, [], []
    for step, key in [*steps, *[("pop", None), ("land", None)] * 200]:
        if step == "push":
            queue.push(key, (key, pushed))
            pushed += 1
        elif step == "pop":
            turn = queue.pop()
            if turn is not None:
                flying.append(turn[0])
                order.append(turn[1])
                assert len(flying) <= 5
                assert all(flying.count(one) <= 2 for one in (1, 2, 3))
        elif flying:
            queue.landed(flying.pop(0))
    assert len(order) == pushed
    for key in (None, 1, 2, 3):
        mine = [number for one, number in order if one == key]
        assert mine == sorted(mine)
