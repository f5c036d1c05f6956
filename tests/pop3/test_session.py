"""What transcripts do not say: failures at QUIT, lost locks, restarts, 50,000 messages, slow peers, and anything at all."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no types)

from __future__ import annotations

import base64
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap
from twisted.trial.unittest import TestCase

from tests.auth.support import ScramClient
from tests.pop3.support import (
    BINDINGS,
    Conversation,
    House,
    HouseCase,
    identity,
    logged_in,
    message_of,
)
from tests.pop3.test_wire import as_sent, received
from twisted_mail.account.entries import pack_uids
from twisted_mail.account.errors import AccountUnavailable, OutcomeUnknown
from twisted_mail.account.intents import AddMessages, CopyMessages, Expunge, new_message
from twisted_mail.pop3.settings import Settings
from twisted_mail.services import Account, StoredMessage
from twisted_mail.storage.interfaces import Unavailable
from twisted_mail.values import MessageId, MessageKey


class UpdateTests(HouseCase):
    async def test_a_commit_that_fails_deletes_nothing_and_says_so(self) -> None:
        house = await self.memory()
        talk = await logged_in(house, [message_of(100), message_of(100)])
        account = await house.accounts.open(identity("mrose"))

        async def fail(intent: object) -> None:
            raise AccountUnavailable("gone")

        self.patch(account, "commit", fail)
        await talk.say("DELE 1")
        answer = await talk.say("QUIT")
        self.assertEqual(answer, b"-ERR [SYS/TEMP] nothing was deleted\r\n")
        self.assertTrue(talk.session.closing)
        self.assertEqual(len(await house.inbox("mrose")), 2)
        self.assertEqual([type(error) for error in house.failures], [AccountUnavailable])

    async def test_an_unknown_outcome_is_answered_neither_way(self) -> None:
        house = await self.memory()
        talk = await logged_in(house, [message_of(100)])
        account = await house.accounts.open(identity("mrose"))

        async def fail(intent: object) -> None:
            raise OutcomeUnknown("who knows")

        self.patch(account, "commit", fail)
        await talk.say("DELE 1")
        self.assertEqual(await talk.say("QUIT"), b"")
        self.assertTrue(talk.session.closing)

    async def test_whoever_has_lost_the_lock_deletes_nothing(self) -> None:
        house = await self.memory()
        talk = await logged_in(house, [message_of(100)])
        await talk.say("DELE 1")
        lock = talk.session._lock
        assert lock is not None
        await lock.release()  # as if it had run out
        self.assertTrue((await talk.say("QUIT")).startswith(b"-ERR [SYS/TEMP]"))
        self.assertEqual(len(await house.inbox("mrose")), 1)

    async def test_a_mailbox_with_new_uids_is_left_alone(self) -> None:
        house = await self.memory()
        talk = await logged_in(house, [message_of(100)])
        await talk.say("DELE 1")
        account = await house.accounts.open(identity("mrose"))
        account.state.inbox.uid_validity += 1
        self.assertTrue((await talk.say("QUIT")).startswith(b"-ERR [SYS/TEMP]"))
        account.state.inbox.uid_validity -= 1
        self.assertEqual(len(await house.inbox("mrose")), 1)

    async def test_a_session_without_quit_deletes_nothing_and_frees_the_maildrop(self) -> None:
        house = await self.memory()
        talk = await logged_in(house, [message_of(100)])
        await talk.say("DELE 1")
        await talk.hang_up()
        self.assertEqual(len(await house.inbox("mrose")), 1)
        other = Conversation(house)
        self.assertTrue((await other.log_in()).startswith(b"+OK"))

    async def test_the_deletions_of_a_session_are_one_entry(self) -> None:
        house = await self.memory()
        talk = await logged_in(house, [message_of(100)] * 10)
        account = await house.accounts.open(identity("mrose"))
        before = account.state.modseq
        for number in range(1, 10):
            await talk.say(f"DELE {number}")
        await talk.say("QUIT")
        self.assertEqual(account.state.modseq, before + 1)
        self.assertEqual(len(await house.inbox("mrose")), 1)

    async def test_what_goes_and_comes_meanwhile_does_not_move_the_numbers(self) -> None:
        house = await self.memory()
        talk = await logged_in(house, [message_of(100, name) for name in "abc"])
        account = await house.accounts.open(identity("mrose"))
        await account.commit(
            Expunge(mailbox=account.state.inbox.id, uids=pack_uids(BitMap([1, 2])), only_deleted=False)
        )
        await house.deliver("mrose", message_of(100, "d"))
        self.assertEqual(await talk.say("STAT"), b"+OK 3 300\r\n")
        self.assertIn(b"Subject: a\r\n", await talk.say("RETR 1"))  # it was there when the session began
        await talk.say("DELE 2")
        await talk.say("DELE 3")
        self.assertTrue((await talk.say("QUIT")).startswith(b"+OK"))
        self.assertEqual(await house.inbox("mrose"), [message_of(100, "d")])

    async def test_nothing_stays_open_behind_a_session(self) -> None:
        house = await self.memory()
        talk = await logged_in(house, [message_of(100)])
        columns = (await house.accounts.open(identity("mrose"))).state.inbox.columns
        assert columns is not None
        self.assertEqual(columns.views, 1)
        users = dict(house.accounts._users)
        await talk.say("QUIT")
        self.assertEqual(columns.views, 0)
        self.assertEqual(house.accounts._users[identity("mrose")], users[identity("mrose")] - 1)

    async def test_the_maildrop_is_free_before_the_goodbye(self) -> None:
        house = await self.memory()
        talk = await logged_in(house, [message_of(100)])
        talk.session.receive(b"QUIT\r\n")
        await talk.session.advance()
        self.assertTrue(talk.session.take_output().startswith(b"+OK"))
        self.assertTrue((await Conversation(house).log_in()).startswith(b"+OK"))


class OpeningTests(HouseCase):
    async def test_a_store_that_does_not_answer_is_a_temporary_failure_and_leaves_no_lock(self) -> None:
        house = await self.memory()
        talk = Conversation(house)

        async def fail(account: object) -> Account:
            raise AccountUnavailable("gone")

        with_patch = self.patch(house.accounts, "open", fail)
        answer = await talk.log_in()
        self.assertEqual(answer, b"-ERR [SYS/TEMP] the maildrop cannot be opened at the moment\r\n")
        with_patch.restore()
        self.assertTrue((await talk.log_in()).startswith(b"+OK"))

    async def test_a_lock_that_cannot_be_asked_for(self) -> None:
        house = await self.memory()

        async def fail(account: object, purpose: str) -> None:
            raise Unavailable("gone")

        self.patch(house.accounts, "lock", fail)
        self.assertIn(b"[SYS/TEMP]", await Conversation(house).log_in())

    async def test_scram_to_the_end_and_bound_to_the_channel(self) -> None:
        house = await self.memory()
        talk = Conversation(house, tls=True)
        await talk.say("STLS")
        talk.handshake()
        client = ScramClient("mrose", "secret", "p=tls-exporter,,", BINDINGS["tls-exporter"])
        answer = await talk.say(b"AUTH SCRAM-SHA-256-PLUS " + base64.b64encode(client.first()))
        self.assertTrue(answer.startswith(b"+ "))
        answer = await talk.say(base64.b64encode(client.final(base64.b64decode(answer[2:]))))
        self.assertEqual(base64.b64decode(answer[2:]), b"v=" + base64.b64encode(client.server_signature))
        self.assertTrue((await talk.say("")).startswith(b"+OK maildrop"))

    async def test_throttled_logins_do_not_make_a_client_ask_for_a_password(self) -> None:
        house = await self.memory()
        talk = Conversation(house, failures_per_minute=1)
        for answer in (b"-ERR [AUTH]", b"-ERR [SYS/TEMP]"):
            await talk.say("USER mrose")
            self.assertTrue((await talk.say("PASS wrong")).startswith(answer))


class MessageTests(HouseCase):
    async def test_unique_ids_survive_a_restart(self) -> None:
        house = await self.sqlite()
        await house.deliver("mrose", *[message_of(100)] * 5)
        talk = Conversation(house)
        await talk.log_in()
        before = await talk.lines("UIDL")
        await talk.say("DELE 2")
        await talk.say("QUIT")
        await house.stop()
        again = Conversation(await self.sqlite(house.folder))
        await again.log_in()
        after = await again.lines("UIDL")
        self.assertEqual(
            [line.split()[1] for line in after], [line.split()[1] for line in before if not line.startswith("2 ")]
        )
        for line in after:
            self.assertRegex(line.split()[1], r"\A[!-~]{1,70}\Z")
        await again.hang_up()

    async def test_copies_in_the_inbox_have_ids_of_their_own(self) -> None:
        house = await self.memory()
        await house.deliver("mrose", message_of(100))
        account = await house.accounts.open(identity("mrose"))
        inbox = account.state.inbox.id
        await account.columns(account.state.inbox)
        await account.commit(CopyMessages(mailbox=inbox, uids=pack_uids(BitMap([1])), target=inbox))
        talk = Conversation(house)
        await talk.log_in()
        ids = {line.split()[1] for line in await talk.lines("UIDL")}
        self.assertEqual(len(ids), 2)

    async def _round_trip(self, house: House) -> None:
        rng = random.Random(7)
        alphabet = [b"\r\n", b"\r\n.", b"..", b".", b"x" * 70, b"\r\n\r\n", b"\xff\x00", b"\r"]
        messages = [b"", b"\r\n", b".\r\n", message_of(100)]
        messages += [b"".join(rng.choices(alphabet, k=rng.randrange(40))) + b"\r\n" for _ in range(40)]
        messages += [b"A: b\r\n\r\n" + b"".join(rng.choices(alphabet, k=9000)) + b"\r\n" for _ in range(3)]
        messages += [b"A: b\n\nno CR\n.\nat all", b"no end"]
        talk = await logged_in(house, messages)
        sizes = [int(line.split()[1]) for line in await talk.lines("LIST")]
        self.assertEqual(sizes, [len(message) for message in messages])
        for number, message in enumerate(messages, 1):
            answer = await talk.say(f"RETR {number}")
            status, _, wire = answer.partition(b"\r\n")
            self.assertEqual(status, b"+OK %d octets" % len(message))
            self.assertEqual(received(wire), as_sent(message))
            if message.endswith(b"\r\n") and b"\n" not in message.replace(b"\r\n", b""):
                self.assertEqual(received(wire), message)
        self.assertFalse(house.failures)
        await talk.hang_up()

    async def test_every_message_comes_back_octet_for_octet(self) -> None:
        await self._round_trip(await self.memory())

    async def test_every_message_comes_back_octet_for_octet_from_sqlite(self) -> None:
        await self._round_trip(await self.sqlite())

    async def test_a_large_message_is_pushed_in_pieces(self) -> None:
        house = await self.memory()
        message = message_of(3_000_000)
        talk = await logged_in(house, [message])
        answer = await talk.say("RETR 1")
        self.assertEqual(received(answer.partition(b"\r\n")[2]), message)
        self.assertGreater(len(talk.pushed), 20)
        self.assertLess(max(map(len, talk.pushed)), 200_000)

    async def test_the_top_of_a_large_message_reads_only_the_top(self) -> None:
        house = await self.memory()
        talk = await logged_in(house, [message_of(3_000_000)])
        account = await house.accounts.open(identity("mrose"))
        taken: list[int] = []
        original = account.octets

        async def octets(key: MessageKey, start: int = 0, end: int | None = None) -> Any:
            async for chunk in original(key, start, end):
                taken.append(len(chunk))
                yield chunk

        self.patch(account, "octets", octets)
        answer = await talk.say("TOP 1 2")
        self.assertEqual(answer.count(b"\r\n"), 6)
        self.assertLess(sum(taken), 200_000)

    async def test_a_message_that_cannot_be_read_costs_one_error(self) -> None:
        house = await self.memory()
        talk = await logged_in(house, [message_of(100), message_of(100)])
        account = await house.accounts.open(identity("mrose"))
        columns = await account.columns(account.state.inbox)
        await house.backend.messages.delete_many(account.id, [columns.key(0)])
        self.assertEqual(await talk.say("RETR 1"), b"-ERR [SYS/TEMP] the message cannot be read at the moment\r\n")
        self.assertTrue((await talk.say("RETR 2")).startswith(b"+OK"))
        self.assertEqual(len(house.failures), 1)

    async def test_a_message_that_breaks_off_ends_the_connection_without_an_end(self) -> None:
        house = await self.memory()
        talk = await logged_in(house, [message_of(100)])
        account = await house.accounts.open(identity("mrose"))

        class BreaksOff:
            async def octets(self, key: MessageKey, start: int = 0, end: int | None = None) -> Any:
                yield b"Subject: x\r\n"
                raise Unavailable("gone")

        self.patch(account, "reading", lambda keys: BreaksOff())
        answer = await talk.say("RETR 1")
        self.assertFalse(answer.endswith(b".\r\n"))
        self.assertTrue(talk.session.closing)


class ManyMessagesTests(HouseCase):
    async def test_listings_of_50000_messages_come_from_the_columns(self) -> None:
        house = await self.memory()
        account = await house.accounts.open(identity("mrose"))
        many = 50_000
        messages = tuple(
            new_message(StoredMessage(MessageKey(0, MessageId.new()), 1000 + number, 0), 1) for number in range(many)
        )
        await account.commit(AddMessages(mailbox=account.state.inbox.id, messages=messages))

        def untouchable(*arguments: object) -> None:
            raise AssertionError("the message table was read")

        self.patch(house.backend.messages, "get_many", untouchable)
        talk = Conversation(house)
        self.assertTrue((await talk.log_in()).startswith(b"+OK maildrop has 50000 messages"))
        lines = await talk.lines("LIST")
        self.assertEqual((len(lines), lines[0], lines[-1]), (many, "1 1000", "50000 50999"))
        lines = await talk.lines("UIDL")
        self.assertEqual(len({line.split()[1] for line in lines}), many)
        await talk.say("DELE 50000")
        self.assertEqual(len(await talk.lines("LIST")), many - 1)
        self.assertLess(max(map(len, talk.pushed)), 200_000)
        self.assertEqual((await talk.say("STAT")).split()[1], b"49999")


class AnythingTests(TestCase):
    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.one_of(
                st.sampled_from(
                    "USER mrose|PASS secret|STAT|LIST|LIST 1|UIDL|RETR 1|RETR 2|TOP 1 0|DELE 1|DELE 2|RSET|NOOP|QUIT|CAPA"
                    "|AUTH PLAIN|AUTH PLAIN =|*|STLS|UTF8|LANG|AUTH LOGIN|bXJvc2U=|c2VjcmV0".split("|")
                ).map(str.encode),
                st.binary(max_size=20).map(lambda data: data.replace(b"\n", b"")),
            ),
            max_size=15,
        )
    )
    def test_any_lines_give_whole_answers_and_never_a_failure(self, lines: list[bytes]) -> None:
        async def run() -> None:
            case = HouseCase()
            house = await case.memory()
            await house.deliver("mrose", message_of(60), message_of(61))
            talk = Conversation(house, Settings(bad_commands=0, failed_logins=0))
            for line in lines:
                await talk.feed(line + b"\r\n")
            answer = talk.take()
            assert not answer or answer.endswith(b"\r\n")
            assert not house.failures, house.failures
            deleted = b"the marked messages are deleted" in answer
            assert deleted or len(await house.inbox("mrose")) == 2
            await talk.hang_up()
            case.doCleanups()

        # nothing here waits for a reactor
        coroutine = run()
        try:
            coroutine.send(None)
        except StopIteration:
            return
        raise AssertionError("it waits")
