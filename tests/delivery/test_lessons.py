"""What users move into Junk and out of it teaches: by IMAP, whatever fails on the way, and each message once."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from tests.account.house import now
from tests.imap.session.fakes import PASSWORD, Node, Talk
from twisted_mail.delivery.lessons import KEPT_SECONDS, OTHERS_SECONDS, SAME_SECONDS, SPACES, SWEEP_SECONDS, Lessons
from twisted_mail.filters.judged_by import JudgedBy
from twisted_mail.filters.values import FilterDown
from twisted_mail.storage.interfaces import AccountRecord, Domain
from twisted_mail.storage.memory.directory import MemoryDirectory
from twisted_mail.storage.memory.records import MemoryRecords


class School:
    """Implements `Teacher`; remembers what it was taught."""

    def __init__(self) -> None:
        self.taught: list[tuple[str, bool, str]] = []
        self.down = False
        self.refused = b"\0"
        self.waiting: Deferred[None] | None = None

    async def learn(self, octets: bytes, *, spam: bool, user: str) -> bool:
        if self.waiting is not None:
            await self.waiting
        if self.down or self.refused in octets:
            raise FilterDown("it is down")
        subject = octets.partition(b"Subject: ")[2].partition(b"\r\n")[0].decode()
        self.taught.append((subject, spam, user))
        return True


class Place:
    """A node with lessons, and ann in a session."""

    def __init__(self) -> None:
        self.node = Node()
        self.clock = self.node.house.clock
        self.records = MemoryRecords(self.clock)
        self.directory = MemoryDirectory()
        self.school = School()
        self.own = School()
        self.lessons = self.make()
        self.account = self.node.logins.account("ann")
        now(self.directory.add_domain(Domain("example.org")))
        now(self.directory.add_account(AccountRecord(self.account, "ann@example.org")))
        for subject in ("one", "two", "three", "four"):
            now(self.node.add(b"Subject: %s\r\n\r\nHello\r\n" % subject.encode()))
        self.talk = Talk(self.node)
        self.say(f"a LOGIN ann {PASSWORD}")
        self.say("a SELECT INBOX")

    def make(self) -> Lessons:
        """Of a process that has just begun."""
        lessons = Lessons(
            self.records, self.node.service, self.directory, self.clock, self.node.wall, daemons=[self.school], learners=[self.own]
        )
        self.node.service.notice = lessons.notice
        lessons.start()
        return lessons

    def say(self, line: str) -> None:
        """A command; what it causes is done."""
        said = self.talk.say(line)
        assert b"a OK" in said, said
        self.pass_by(0)

    def pass_by(self, seconds: float) -> None:
        for _ in range(20):
            self.clock.advance(0)
        self.clock.advance(seconds)
        for _ in range(20):
            self.clock.advance(0)

    def kept(self) -> int:
        return sum(len(now(self.records.list(f"lessons/{number}"))) for number in range(SPACES))


@pytest.fixture
def place() -> Place:
    return Place()


def test_a_move_into_junk_says_spam_and_a_move_out_of_it_that_it_is_none(place: Place) -> None:
    place.say("a UID MOVE 1:2 Junk")
    assert place.school.taught == [("one", True, "ann@example.org"), ("two", True, "ann@example.org")]
    assert place.own.taught == [("one", True, str(place.account)), ("two", True, str(place.account))]
    place.say("a SELECT Junk")
    place.say("a UID MOVE 1 INBOX")
    place.say("a UID MOVE 2 Archive")
    assert place.school.taught[2:] == [("one", False, "ann@example.org"), ("two", False, "ann@example.org")]
    assert place.kept() == 0
    assert place.lessons.taught == 4


def test_so_does_a_copy_that_is_expunged_later(place: Place) -> None:
    place.say("a UID COPY 3 Junk")
    place.say("a UID STORE 3 +FLAGS.SILENT (\\Deleted)")
    place.say("a EXPUNGE")
    assert place.school.taught == [("three", True, "ann@example.org")]


def test_spam_that_is_thrown_away_stays_spam(place: Place) -> None:
    place.say("a UID MOVE 1 Junk")
    place.say("a SELECT Junk")
    place.say("a UID MOVE 1 Trash")
    place.say("a SELECT Trash")
    place.say("a UID MOVE 1 INBOX")
    assert [spam for _, spam, _ in place.school.taught] == [True]


def test_other_moves_and_what_is_delivered_or_appended_teach_nothing(place: Place) -> None:
    place.say("a UID MOVE 1 Archive")
    place.say("a UID COPY 2 INBOX")
    now(place.node.add(b"Subject: five\r\n\r\nHello\r\n", mailbox="Junk"))
    place.say("a APPEND Junk {5+}\r\nhello")
    place.pass_by(SWEEP_SECONDS)
    assert place.school.taught == []


def test_the_keywords_teach_too(place: Place) -> None:
    place.say("a UID STORE 1 +FLAGS ($Junk)")
    place.say("a UID STORE 2 +FLAGS ($NotJunk \\Seen)")
    place.say("a UID STORE 1 +FLAGS ($Junk)")  # it has it already
    place.say("a UID STORE 1 -FLAGS ($Junk)")
    place.say("a UID STORE 3 +FLAGS (Junk NonJunk)")  # who says both says nothing
    assert [(subject, spam) for subject, spam, _ in place.school.taught] == [("one", True), ("two", False)]


@pytest.mark.parametrize(
    ("commands", "taught"),
    [
        (["+FLAGS (Junk)"], [True]),
        (["+FLAGS (jUNK $JUNK)"], [True]),
        (["+FLAGS (NonJunk)"], [False]),
        (["+FLAGS (NotJunk)", "+FLAGS (NonJunk)", "+FLAGS ($NotJunk)"], [False]),
        (["+FLAGS (NonJunk)", "+FLAGS (Junk)", "-FLAGS (NonJunk)"], [False, True]),  # as Thunderbird changes its mind
        (["+FLAGS (Junk)", "+FLAGS (NonJunk)", "+FLAGS ($Junk)"], [True]),
        (["FLAGS (Junk)", "FLAGS (NonJunk \\Seen)"], [True, False]),
        (["+FLAGS (Junk)", "-FLAGS (Junk)"], [True]),
        (["+FLAGS (Junker)"], []),
    ],
)
def test_signs_of_clients_teach_once_for_each_change_of_mind(place: Place, commands: list[str], taught: list[bool]) -> None:
    for command in commands:
        place.say(f"a UID STORE 1 {command}")
    assert [spam for _, spam, _ in place.school.taught] == taught


def test_who_marks_a_message_and_moves_it_gives_one_lesson(place: Place) -> None:
    place.say("a UID STORE 1 +FLAGS (Junk)")
    place.say("a UID MOVE 1 Junk")
    assert place.school.taught == [("one", True, "ann@example.org")]
    place.say("a SELECT Junk")
    place.say("a UID MOVE 1 INBOX")
    assert [spam for _, spam, _ in place.school.taught] == [True, False]
    place.say("a SELECT INBOX")
    place.say("a UID MOVE 5 Junk")
    assert [spam for _, spam, _ in place.school.taught] == [True, False, True], "another word about it is another lesson"


def test_so_does_who_moves_it_while_the_first_lesson_is_being_taught(place: Place) -> None:
    waiting: Deferred[None] = Deferred()
    place.school.waiting = waiting
    place.say("a UID STORE 1 +FLAGS (Junk)")
    place.say("a UID MOVE 1 Junk")
    place.school.waiting = None
    waiting.callback(None)
    place.pass_by(1)
    assert place.school.taught == [("one", True, "ann@example.org")]


def test_the_same_word_after_a_while_is_a_lesson_again(place: Place) -> None:
    place.say("a UID MOVE 1 Junk")
    place.say("a SELECT Junk")
    place.pass_by(SAME_SECONDS + 1)
    place.say("a UID STORE 1 +FLAGS (Junk)")
    assert len(place.school.taught) == 2


def test_where_keywords_do_not_teach_moves_do(place: Place) -> None:
    now(place.lessons.stop())
    place.lessons = Lessons(
        place.records, place.node.service, place.directory, place.clock, place.node.wall, daemons=[place.school], keywords=False
    )
    place.node.service.notice = place.lessons.notice
    place.lessons.start()
    place.say("a UID STORE 1 +FLAGS ($Junk)")
    place.say("a UID STORE 2 +FLAGS (Junk)")
    place.say("a UID MOVE 2 Junk")
    assert place.school.taught == [("two", True, "ann@example.org")]


# --- who is taught


class Engines:
    """Two engines that judge mail, one of which judged some of it."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.one, self.two = School(), School()
        now(place.lessons.stop())

        async def secret() -> bytes:
            return b"k" * 32

        self.judged_by = JudgedBy(frozenset({"one", "two"}), secret)
        place.lessons = Lessons(
            place.records,
            place.node.service,
            place.directory,
            place.clock,
            place.node.wall,
            learners=[place.own],
            engines={"one": self.one, "two": self.two},
            judged_by=self.judged_by,
        )
        place.node.service.notice = place.lessons.notice
        place.lessons.start()

    def deliver(self, subject: str, *judges: str) -> bytes:
        """A message that *judges* have judged."""
        header = f"Message-ID: <{subject}@example.net>\r\nSubject: {subject}\r\n".encode()
        field = now(self.judged_by.field(frozenset(judges), header))
        octets = (f"{field[0]}: {field[1]}\r\n".encode() if field else b"") + header + b"\r\nHello\r\n"
        now(self.place.node.add(octets))
        self.place.say("a NOOP")
        return octets

    def taught(self) -> list[list[str]]:
        return [[subject for subject, _, _ in each.taught] for each in (self.one, self.two, self.place.own)]


def test_only_the_engines_that_judged_a_message_are_taught_by_it(place: Place) -> None:
    engines = Engines(place)
    engines.deliver("first", "one")
    engines.deliver("second", "two")
    engines.deliver("both", "one", "two")
    place.say("a UID MOVE 5:7 Junk")
    assert engines.taught() == [["first", "both"], ["second", "both"], ["first", "second", "both"]]


def test_what_nobody_judged_teaches_all(place: Place) -> None:
    engines = Engines(place)
    engines.deliver("down")
    place.say("a UID MOVE 5 Junk")
    octets = engines.deliver("sealed", "one").replace(b"sealed", b"forged")
    place.say(f"a APPEND INBOX {{{len(octets)}+}}\r\n{octets.decode()}")
    place.say("a UID MOVE 7 Junk")
    assert engines.taught() == [["down", "forged"]] * 3


def test_an_engine_that_did_not_judge_it_need_not_be_up(place: Place) -> None:
    engines = Engines(place)
    engines.two.down = True
    engines.deliver("first", "one")
    place.say("a UID MOVE 5 Junk")
    assert (place.lessons.failures, place.kept()) == (0, 0)
    assert engines.taught() == [["first"], [], ["first"]]


def test_while_a_teacher_is_down_lessons_wait_and_the_last_word_counts(place: Place) -> None:
    place.school.down = True
    place.say("a UID MOVE 1 Junk")
    place.say("a UID MOVE 2 Junk")
    place.say("a SELECT Junk")
    place.say("a UID MOVE 1 INBOX")
    assert place.school.taught == []
    assert place.kept() == 2
    place.school.down = False
    place.pass_by(SWEEP_SECONDS + 1)
    assert sorted((subject, spam) for subject, spam, _ in place.school.taught) == [("one", False), ("two", True)]
    assert place.kept() == 0


def test_a_message_that_no_teacher_takes_keeps_nobody_from_learning(place: Place) -> None:
    place.school.refused = b"Subject: two"
    place.say("a UID MOVE 1:4 Junk")
    for _ in range(4):
        place.pass_by(SWEEP_SECONDS + 1)
    assert {subject for subject, _, _ in place.school.taught} == {"one", "three", "four"}
    assert place.kept() == 1
    place.pass_by(KEPT_SECONDS)
    assert place.kept() == 0


def test_a_node_that_begins_again_teaches_what_it_left(place: Place) -> None:
    place.school.down = True
    place.say("a UID MOVE 1 Junk")
    now(place.lessons.stop())
    place.school.down = False
    place.make()
    place.pass_by(2)
    assert [subject for subject, _, _ in place.school.taught] == ["one"]
    assert place.kept() == 0


def test_what_was_noticed_just_before_the_end_is_written_down(place: Place) -> None:
    place.school.waiting = Deferred()
    place.say("a UID MOVE 1 Junk")
    place.say("a UID MOVE 2 Junk")
    stopping = Deferred.fromCoroutine(place.lessons.stop())
    assert stopping.called
    assert place.kept() == 2
    assert place.school.taught == []


def test_another_node_takes_over_after_a_while(place: Place) -> None:
    place.school.down = True
    place.say("a UID MOVE 1 Junk")
    now(place.lessons.stop())
    other = Lessons(place.records, place.node.service, place.directory, place.clock, place.node.wall, daemons=[place.school])
    other.start()
    place.pass_by(1)  # it begins: all that is there is its own by then
    assert place.school.taught == []
    place.school.down = False
    place.pass_by(OTHERS_SECONDS)
    place.pass_by(SWEEP_SECONDS)
    assert [subject for subject, _, _ in place.school.taught] == ["one"]


def test_a_teacher_that_never_answers_is_given_up(place: Place) -> None:
    place.school.waiting = Deferred()
    place.say("a UID MOVE 1 Junk")
    place.pass_by(121)
    assert place.lessons.failures == 1
    assert place.kept() == 1


def test_a_message_that_is_gone_is_no_lesson(place: Place) -> None:
    place.school.down = True
    place.say("a UID MOVE 1 Junk")
    for number in range(SPACES):
        for record in now(place.records.list(f"lessons/{number}")):
            at = record.value.index(place.account.octets) + len(place.account.octets)
            now(place.records.put(f"lessons/{number}", "gone", record.value[: at + 4] + b"\7" * 15 + record.value[at + 19 :]))
            now(place.records.put(f"lessons/{number}", "broken", b"broken"))
            now(place.records.delete(f"lessons/{number}", record.key))
    now(place.lessons.stop())
    place.school.down = False
    place.lessons = place.make()
    place.pass_by(2)
    assert place.school.taught == []
    assert place.lessons.dropped == 1
    assert place.kept() == 0


def test_an_account_that_was_erased_teaches_nothing_and_stays_erased(place: Place) -> None:
    place.school.down = True
    place.say("a UID MOVE 1 Junk")
    now(place.lessons.stop())
    now(place.directory.remove_account(place.account))
    place.school.down = False
    place.lessons = place.make()
    place.pass_by(2)
    assert (place.school.taught, place.lessons.dropped, place.kept()) == ([], 1, 0)


def test_a_whole_mailbox_teaches_some_of_it(place: Place) -> None:
    for number in range(220):
        now(place.node.add(b"Subject: %d\r\n\r\nHello\r\n" % number))
    place.say("a NOOP")
    place.say("a UID MOVE 1:* Junk")
    place.pass_by(1)
    assert len(place.school.taught) == 200
