"""Limits over all nodes."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from tests.filters.asking import DownCache, ann, client, mail, now, recipient
from twisted_mail.filters.rates import DEFAULT_LIMITS, Limit, Rates, limits_from
from twisted_mail.filters.stages import AtConnect, AtMail, AtRcpt, AtUnknown
from twisted_mail.filters.values import ACCEPTED, Action, FilterDown, Verdict
from twisted_mail.storage.memory import MemoryAllowances, MemoryCache

START = 1_700_006_400.0 - 1_700_006_400.0 % 86_400
"""Midnight UTC."""


class House:
    def __init__(self, *lines: str) -> None:
        self.clock = Clock()
        self.clock.advance(START)
        self.cache = MemoryCache(self.clock)
        self.allowances = MemoryAllowances()
        self.lines = lines
        self.one, self.other = self.node(), self.node()

    def node(self) -> Rates:
        return Rates(self.cache, self.allowances, self.clock.seconds, limits_from(self.lines))


def test_a_limit_holds_over_all_nodes_and_slides() -> None:
    house = House("connections per address 10/1m")
    assert (
        isinstance(house.one, AtConnect)
        and isinstance(house.one, AtMail)
        and isinstance(house.one, AtRcpt)
        and isinstance(house.one, AtUnknown)
    )
    for number in range(10):
        assert now((house.one, house.other)[number % 2].connect(client())) == ACCEPTED
    refused = now(house.one.connect(client()))
    assert refused.action is Action.DEFER and refused.answer is not None
    assert (refused.answer.code, refused.answer.enhanced) == (421, "4.7.0")
    assert "198.51.100.7" in refused.reason and "198.51" not in refused.answer.text
    assert now(house.one.connect(client("198.51.100.8"))) == ACCEPTED, "another address has a limit of its own"
    house.clock.advance(90)  # half of the window before still counts: 5 + 5
    assert [now(house.one.connect(client())).action for _ in range(6)] == [Action.ACCEPT] * 5 + [Action.DEFER]
    house.clock.advance(3600)
    assert now(house.one.connect(client())) == ACCEPTED


def test_what_was_refused_does_not_count() -> None:
    house = House("connections per address 2/1m", "connections per network 100/1h")
    for _ in range(50):
        now(house.one.connect(client()))
    house.clock.advance(120)
    assert [now(house.one.connect(client())).action for _ in range(3)] == [Action.ACCEPT, Action.ACCEPT, Action.DEFER]
    for number in range(96):
        assert now(house.one.connect(client(f"198.51.100.{100 + number}"))) == ACCEPTED


def test_each_thing_is_counted_by_whoever_does_it() -> None:
    def acts(line: str) -> list[Action]:
        house = House(line)
        transaction = mail("Bob+x@Example.net", client("2001:db8::1", "MX.example"))
        similar = mail("bob@example.NET", client("2001:db8::2", "mx.example"))
        other = mail("joe@example.com", client("2001:db9::1", "other.example"))
        verdicts = []
        for each, to in ((transaction, "Ann+a@example.org"), (similar, "ann@EXAMPLE.org"), (other, "joe@example.org")):
            answers = [
                now(house.one.connect(each.client)),
                now(house.one.mail(each)),
                now(house.one.rcpt(each, recipient(to))),
            ]
            verdicts.append(max(answer.action for answer in answers))
        return verdicts

    deferred = [Action.ACCEPT, Action.DEFER, Action.ACCEPT]
    for line in (
        "address 1/1h",
        "network 1/1h",
        "helo 1/1h",
        "sender 1/1h",
        "sender_domain 1/1h",
        "recipient 1/1h",
        "recipients per sender 1/1h",
        "messages per address 1/1h",
    ):
        assert acts(line) == deferred, line
    assert acts("login 1/1h") == [Action.ACCEPT] * 3, "nobody has logged in"


def test_the_null_sender_has_no_limit_of_its_own() -> None:
    house = House("sender 1/1h", "sender_domain 1/1h")
    for _ in range(3):
        assert now(house.one.mail(mail(""))) == ACCEPTED


def test_users_are_counted_by_their_login_and_nothing_else() -> None:
    house = House("messages per login 2/1h", "messages per address 1/1h", "recipients per login 3/1h")
    user = client(identity=ann())
    verdicts = [now(house.one.mail(mail("ann@example.org", user))) for _ in range(3)]
    assert [verdict.action for verdict in verdicts] == [Action.ACCEPT, Action.ACCEPT, Action.DEFER]
    assert verdicts[2].answer is not None
    assert (verdicts[2].answer.code, verdicts[2].answer.enhanced) == (450, "4.7.1")
    transaction = mail("ann@example.org", user)
    rcpts = [now(house.one.rcpt(transaction, recipient(f"x{n}@example.net"))).action for n in range(4)]
    assert rcpts == [Action.ACCEPT] * 3 + [Action.DEFER]


def test_what_a_login_may_send_in_a_day_lasts_when_the_cache_is_lost_and_begins_anew_at_midnight() -> None:
    house = House("messages per login 100/1d")
    transaction = mail("ann@example.org", client(identity=ann()))
    let_in = 0
    for number in range(150):
        house.cache = MemoryCache(house.clock)
        let_in += now((house.one, house.other)[number % 2].mail(transaction)).action is Action.ACCEPT
    assert let_in == 100
    house.clock.advance(86_400)
    assert now(house.one.mail(transaction)) == ACCEPTED


def test_a_tarpit_holds_answers_back_longer_and_longer_up_to_half_a_minute() -> None:
    house = House("messages per address 10/1h tarpit")
    verdicts = [now(house.one.mail(mail())) for _ in range(60)]
    assert verdicts[:10] == [ACCEPTED] * 10
    delays = [verdict.delay_seconds for verdict in verdicts[10:]]
    assert delays[0] == 2.0 and delays == sorted(delays) and delays[-1] == 30.0
    assert {verdict.action for verdict in verdicts} == {Action.ACCEPT}


def test_who_guesses_recipients_is_slowed_down() -> None:
    house = House("unknown per address 10/10m tarpit", "unknown per network 15/10m")

    def guess() -> Verdict:
        return now(house.one.unknown(client(), "nobody@example.org"))

    assert [guess().delay_seconds for _ in range(10)] == [0.0] * 10
    assert guess().delay_seconds > 0
    last = [guess() for _ in range(10)][-1]
    assert last.action is Action.DEFER and last.answer is not None and last.answer.code == 421


def test_trusted_peers_are_not_counted() -> None:
    house = House("connections per address 1/1m")
    for _ in range(5):
        assert now(house.one.connect(client(trusted=True))) == ACCEPTED


def test_counters_that_do_not_answer_are_a_filter_that_is_down() -> None:
    house = House("connections per address 1/1m")
    house.cache = DownCache()  # type: ignore[assignment]
    with pytest.raises(FilterDown):
        now(house.node().connect(client()))


def test_limits_are_read_and_written() -> None:
    assert Limit.parse("address 100/1m") == Limit("connections", "address", 100, 60.0)
    assert Limit.parse(" messages per sender_domain 5/2h tarpit") == Limit("messages", "sender_domain", 5, 7200.0, True)
    assert Limit.parse("login 100/d") == Limit("messages", "login", 100, 86_400.0)
    for line in DEFAULT_LIMITS:
        assert str(Limit.parse(line)) == line
    assert str(Limit.parse("recipient 3/90s defer")) == "recipients per recipient 3/90s"
    assert len(limits_from(DEFAULT_LIMITS)) == len(DEFAULT_LIMITS)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("", "limits are like"),
        ("address", "limits are like"),
        ("address 100", "limits are like"),
        ("address 100/1y", "limits are like"),
        ("address -1/1m", "limits are like"),
        ("planet 100/1m", "planet"),
        ("cows per address 100/1m", "cows"),
        ("connections per sender 100/1m", "connections are counted by"),
        ("address 0/1m", "at least 1"),
        ("address 1/0s", "between 1 s"),
        ("address 1/32d", "between 1 s"),
        ("address 100/1m explode", "limits are like"),
    ],
)
def test_a_line_that_is_no_limit_is_explained(line: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        Limit.parse(line)


def test_the_same_limit_twice_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="already"):
        limits_from(["address 100/1m", "connections per address 50/60s"])
