"""What is learned from what people move into Junk and out of it."""

from __future__ import annotations

import base64
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from tests.filters.asking import DownRecords, now
from tests.filters.letters import HAM, SPAM
from twisted_mail.filters.bayes import Bayes, BayesSettings
from twisted_mail.filters.values import FilterDown
from twisted_mail.filters.word_table import HALVED_AT, SHARDS, WordTable, chi_square
from twisted_mail.filters.words import TEXT_OCTETS, words_in
from twisted_mail.storage.memory import MemoryRecords

WORK = "meeting budget project release review quarter schedule attached minutes invoice server deployment customer lunch".split()
SELL = (
    "casino jackpot bonus spins winner pills cheap replica watches discount credit crypto investment guaranteed".split()
)
BOTH = "hello the and you your with from this that have will please today week for not".split()


def letter(rng: random.Random, spam: bool) -> bytes:
    words = rng.choices(SELL if spam else WORK, k=8) + rng.choices(BOTH, k=25) + rng.choices(WORK + SELL, k=2)
    rng.shuffle(words)
    author = f"x{rng.randrange(999)}@{'offers' if spam else 'office'}.example"
    return (
        f"From: <{author}>\r\nTo: ann@example.org\r\nSubject: {words[0]} {words[1]}\r\n"
        f"Message-ID: <{rng.random()}@example>\r\n\r\n{' '.join(words)} {rng.randrange(10**9):x}\r\n"
    ).encode()


class House:
    def __init__(self, **settings: float) -> None:
        self.clock = Clock()
        self.records = MemoryRecords(self.clock)
        self.settings = BayesSettings(**settings)  # type: ignore[arg-type]
        self.bayes = self.node()
        self.rng = random.Random(7)

    def node(self) -> Bayes:
        return Bayes(self.records, self.clock.seconds, self.settings)

    def teach(self, number: int, user: str = "ann") -> None:
        for _ in range(number):
            for spam in (True, False):
                now(self.bayes.learn(letter(self.rng, spam), spam=spam, user=user))


def test_it_says_nothing_before_it_has_learned_enough_of_both() -> None:
    house = House(least=10)
    for _ in range(30):
        now(house.bayes.learn(letter(house.rng, True), spam=True, user="ann"))
    assert now(house.bayes.score("ann", letter(house.rng, True))) is None
    assert now(house.bayes.points("ann", letter(house.rng, True))) == 0.0
    for _ in range(10):
        now(house.bayes.learn(letter(house.rng, False), spam=False, user="ann"))
    assert now(house.bayes.score("ann", letter(house.rng, True))) is not None


def test_it_tells_what_it_has_not_seen_before_apart() -> None:
    house = House()
    house.teach(40)
    spam = [now(house.bayes.score("ann", letter(house.rng, True))) or 0.0 for _ in range(50)]
    ham = [now(house.bayes.score("ann", letter(house.rng, False))) or 0.0 for _ in range(50)]
    assert min(spam) > 0.7 and max(ham) < 0.3
    assert sum(spam) / 50 > 0.95 and sum(ham) / 50 < 0.05
    assert now(house.bayes.points("ann", letter(house.rng, True))) > 3.0
    assert now(house.bayes.points("ann", letter(house.rng, False))) < -2.0
    assert now(house.bayes.score("ann", b"Subject: zzz\r\n\r\nqwertz uiopasd\r\n")) == 0.5
    assert now(house.bayes.points("ann", b"Subject: zzz\r\n\r\nqwertz uiopasd\r\n")) == 0.0


def test_it_learns_from_real_shapes_of_mail() -> None:
    house = House(least=5)
    for each in HAM:
        now(house.bayes.learn(each.octets, spam=False, user="ann"))
    for each in SPAM:
        now(house.bayes.learn(each.octets, spam=True, user="ann"))
    assert all((now(house.bayes.score("ann", each.octets)) or 0.0) < 0.4 for each in HAM)
    assert all((now(house.bayes.score("ann", each.octets)) or 0.0) > 0.6 for each in SPAM)


def test_what_one_account_learns_another_does_not_know() -> None:
    house = House()
    house.teach(35)
    assert now(house.bayes.score("joe", letter(house.rng, True))) is None


def test_teaching_twice_counts_once_and_the_opposite_takes_it_back() -> None:
    house = House()
    octets = letter(house.rng, True)
    assert now(house.bayes.learned("ann")) == (0, 0)
    assert now(house.bayes.learn(octets, spam=True, user="ann"))
    assert now(house.bayes.learned("ann")) == (1, 0)
    assert not now(house.bayes.learn(octets, spam=True, user="ann"))
    (word, *_) = words_in(octets)
    assert counts(house, word) == (1, 0)
    stored = b"Received: from mx.example by us; today\r\nX-Spam-Score: 7\r\n" + octets
    assert now(house.bayes.learn(stored, spam=False, user="ann")), "the same message, with what was put in front of it"
    assert counts(house, word) == (0, 1)
    assert now(house.bayes.unlearn(octets, user="ann"))
    assert not now(house.bayes.unlearn(octets, user="ann"))
    assert counts(house, word) == (0, 0)


def counts(house: House, word: int) -> tuple[int, int]:
    table = now(house.node()._read("ann"))
    assert table is not None
    return table.counts(word)


def test_another_node_knows_it_at_once_or_within_a_minute() -> None:
    house = House(least=1)
    other = house.node()
    unknown = letter(house.rng, True)
    assert now(other.score("ann", unknown)) is None
    house.teach(20)
    assert now(other.score("ann", unknown)) is None, "it has just looked"
    assert now(house.node().score("ann", unknown)) is not None
    house.clock.advance(61)
    assert now(other.score("ann", unknown)) is not None


def test_an_account_can_be_forgotten() -> None:
    house = House(least=1)
    house.teach(3)
    now(house.bayes.forget("ann"))
    assert now(house.bayes.score("ann", letter(house.rng, True))) is None
    assert [space for space, kept in house.records._spaces.items() if kept] == []


def test_what_is_spoiled_begins_anew() -> None:
    house = House(least=1)
    house.teach(3)
    for key, value in (("words/0", b"garbage"), ("totals", b"?")):
        now(house.records.put("bayes/ann", key, value))
        node = house.node()
        assert now(node.score("ann", letter(house.rng, True))) is None
    assert now(node.learn(letter(house.rng, True), spam=True, user="ann"))


def test_a_store_that_does_not_answer_is_a_filter_that_is_down() -> None:
    bayes = Bayes(DownRecords(), Clock().seconds)
    for question in (
        bayes.score("ann", b""),
        bayes.points("ann", b""),
        bayes.learn(b"", spam=True, user="ann"),
        bayes.unlearn(b"", user="ann"),
    ):
        with pytest.raises(FilterDown):
            now(question)


def test_what_is_kept_is_small_and_read_with_one_question() -> None:
    house = House()
    house.teach(50)
    records = now(house.records.list("bayes/ann"))
    assert len(records) == SHARDS + 1
    assert all(len(record.value) < 40_000 for record in records)


def test_few_tables_stay_in_memory() -> None:
    house = House(tables=2)
    for user in ("a", "b", "c", "d"):
        now(house.bayes.learn(letter(house.rng, True), spam=True, user=user))
    assert list(house.bayes._tables) == ["c", "d"]


# --- the table


def test_counts_are_kept_through_octets() -> None:
    table = WordTable()
    rng = random.Random(1)
    words = [rng.randrange(1, 1 << 32) for _ in range(3000)]
    table.learn(words, spam=True)
    table.learn(words[:10], spam=False)
    again = WordTable.of(table.totals(), {number: table.shard(number) for number in range(SHARDS)})
    assert (again.spam, again.ham) == (1, 1)
    assert [again.counts(word) for word in words] == [table.counts(word) for word in words]
    assert again.counts(words[0]) == (1, 1) and again.counts(12345) == (0, 0)


def test_a_table_that_is_full_drives_out_the_rarest() -> None:
    table = WordTable()
    often = [1 + 4096 * step for step in range(7)]
    for _ in range(5):
        table.learn(often, spam=True)
    rng = random.Random(2)
    for _ in range(60):
        table.learn([rng.randrange(1, 1 << 32) for _ in range(1500)], spam=False)
    assert all(table.counts(word) == (5, 0) for word in often)


def test_after_thousands_of_messages_counts_are_halved() -> None:
    table = WordTable()
    for _ in range(HALVED_AT):
        table.learn([77], spam=True)
    table.learn([99], spam=False)
    table.learn([77], spam=True)
    assert (table.spam, table.ham) == (HALVED_AT // 2 + 1, 1)
    assert table.counts(77) == (HALVED_AT // 2 + 1, 0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sets(st.integers(1, 40), max_size=10), st.booleans()), max_size=20))
def test_learning_and_unlearning_leaves_nothing(lessons: list[tuple[set[int], bool]]) -> None:
    table = WordTable()
    for words, spam in lessons:
        table.learn(words, spam=spam)
    assert 0.0 <= table.probability(range(1, 41)) <= 1.0
    for words, spam in reversed(lessons):
        table.unlearn(words, spam=spam)
    assert (table.spam, table.ham) == (0, 0)
    assert all(table.counts(word) == (0, 0) for word in range(1, 41))


def test_the_inverse_chi_square_has_its_known_values() -> None:
    """From tables: 2 degrees of freedom, 5 %: 5.991; 10 degrees, 5 %: 18.307; 20 degrees, 1 %: 37.566."""
    assert chi_square(5.991, 1) == pytest.approx(0.05, abs=1e-4)
    assert chi_square(18.307, 5) == pytest.approx(0.05, abs=1e-4)
    assert chi_square(37.566, 10) == pytest.approx(0.01, abs=1e-4)
    assert chi_square(0.0, 150) == 1.0 and chi_square(10_000.0, 150) == 0.0


def test_one_word_has_the_probability_of_robinson() -> None:
    """(s x + n p) / (s + n) with s = 0.45, x = 0.5; Fisher's method leaves that of a single word as it is."""
    table = WordTable()
    for _ in range(4):
        table.learn([5], spam=True)
    for _ in range(2):
        table.learn([6], spam=False)
    table.learn([5], spam=False)
    p = (4 / 4) / (4 / 4 + 1 / 3)
    assert table.probability([5]) == pytest.approx((0.45 * 0.5 + 5 * p) / (0.45 + 5))


# --- words


def test_words_are_the_same_however_the_text_is_sent() -> None:
    text = "Schöne Grüße von der Konferenz, das Büro öffnet morgen\r\n"
    header = b"From: Ann <ann@example.org>\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nContent-Type: text/plain; charset=%s\r\nContent-Transfer-Encoding: %s\r\n\r\n"
    plain = header % (b"utf-8", b"8bit") + text.encode()
    encoded = header % (b"utf-8", b"base64") + base64.encodebytes(text.encode())
    latin = header % (b"iso-8859-1", b"8bit") + text.encode("latin-1")
    shouted = header % (b"utf-8", b"8bit") + text.upper().replace("SS", "ß").encode()
    assert words_in(plain) == words_in(encoded) == words_in(latin) == words_in(shouted)
    assert len(words_in(plain)) > 10


def test_links_of_html_and_words_of_its_parts_count_but_attachments_do_not() -> None:
    message = (
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n"
        b"<p>visible <a href='https://target.example/x'>word</a></p>\r\n--b\r\n"
        b"Content-Type: application/pdf\r\n\r\nsecret\r\n--b--\r\n"
    )
    without = message.replace(b"secret", b"others")
    assert words_in(message) == words_in(without)
    assert words_in(message) != words_in(message.replace(b"target", b"elsewhere"))


@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=500),
    st.sampled_from([b"", b"Content-Type: text/html\r\n\r\n", b"From: ", b"Subject: =?utf-8?q?"]),
)
def test_garbage_has_words_or_none(octets: bytes, before: bytes) -> None:
    words = words_in(before + octets)
    assert len(words) <= 2000 and all(0 <= word < 1 << 32 for word in words)


def test_large_mail_is_cut() -> None:
    rng = random.Random(3)
    octets = b"Subject: x\r\n\r\n" + b" ".join(b"%x" % rng.randrange(10**9, 10**10) for _ in range(100_000))
    began = time.process_time()
    assert len(words_in(octets)) == 2000
    assert words_in(octets) == words_in(octets[:TEXT_OCTETS])
    assert time.process_time() - began < 0.5
