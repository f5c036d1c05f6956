"""What each intent does to an account, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from pyroaring import BitMap

from tests.account.house import START, House, now
from twisted_mail.account.entries import pack_uids
from twisted_mail.account.errors import (
    CannotChange,
    InvalidMailboxName,
    LimitReached,
    MailboxExists,
    NoSuchMailbox,
    NoSuchMessage,
    OverQuota,
    UseTaken,
)
from twisted_mail.account.intents import (
    MAX_KEYWORDS,
    Added,
    AddMessages,
    ChangeFlags,
    CopyMessages,
    Expunge,
    NewMessage,
    ReplaceMessage,
    SetSetting,
)
from twisted_mail.account.state import check_mailbox_name
from twisted_mail.account.tree import CreateMailbox, DeleteMailbox, RenameMailbox, Subscribe
from twisted_mail.services import Account
from twisted_mail.values import MailboxId, MessageId

SECONDS = int(START)


@pytest.fixture
def account() -> Account:
    return House().open()


def message(size: int = 100, flags: tuple[str, ...] = (), received: int = SECONDS) -> NewMessage:
    return NewMessage(MessageId.new().octets, 0, size, 19_675, received, 60, flags)


def add(account: Account, *messages: NewMessage, to: str = "INBOX", **options: Any) -> Added:
    return now(account.commit(AddMessages(mailbox=account.state.mailbox(to).id, messages=messages, **options)))


def create(account: Account, name: str, *uses: str) -> MailboxId:
    return now(account.commit(CreateMailbox.of(name, SECONDS, uses)))


def flags(account: Account, uid: int, mailbox: str = "INBOX") -> set[str]:
    columns = now(account.columns(account.state.mailbox(mailbox)))
    slot = columns.slot_of(uid)
    assert slot is not None
    return set(columns.flags_of(slot))


def uids(account: Account, mailbox: str = "INBOX") -> list[int]:
    return [uid for uid, _ in now(account.columns(account.state.mailbox(mailbox))).iterate()]


def store(account: Account, wanted: list[int], mode: Any, *names: str, since: int | None = None) -> Any:
    return now(
        account.commit(
            ChangeFlags(
                mailbox=account.state.inbox.id,
                uids=pack_uids(BitMap(wanted)),
                mode=mode,
                flags=names,
                unchanged_since=since,
            )
        )
    )


def test_a_new_account_has_inbox_and_the_default_mailboxes_with_their_uses(account: Account) -> None:
    names = [mailbox.name for mailbox in account.state.in_order()]
    assert names == ["INBOX", "Archive", "Drafts", "Junk", "Sent", "Trash"]
    junk = account.state.with_use("\\junk")
    assert junk is not None and junk.name == "Junk"
    assert account.state.subscriptions == set(names)
    validities = [mailbox.uid_validity for mailbox in account.state.mailboxes.values()]
    assert len(set(validities)) == len(validities)


def test_messages_get_ascending_uids_and_the_sums_follow(account: Account) -> None:
    assert add(account, message(10), message(20, ("\\Seen",))).uids == range(1, 3)
    assert add(account, message(30, ("\\seen", "\\DELETED", "$Label", "$label"))).uids == range(3, 4)
    inbox = account.state.inbox
    assert (inbox.messages, inbox.unseen, inbox.deleted, inbox.size, inbox.uid_next) == (3, 1, 1, 60, 4)
    assert (account.state.messages, account.state.size) == (3, 60)
    assert flags(account, 3) == {"\\Seen", "\\Deleted", "$Label"}


def test_recent_cannot_be_set(account: Account) -> None:
    add(account, message(1, ("\\Recent", "\\Flagged")))
    store(account, [1], "add", "\\recent")
    assert flags(account, 1) == {"\\Flagged"}


def test_flags_are_added_removed_and_replaced(account: Account) -> None:
    add(account, message(flags=("\\Seen",)), message(), message(flags=("old",)))
    assert store(account, [1, 2, 99], "add", "\\Seen", "New").changed == BitMap([1, 2])
    assert flags(account, 1) == {"\\Seen", "New"} == flags(account, 2)
    assert store(account, [1], "remove", "new", "\\Flagged").changed == BitMap([1])
    assert flags(account, 1) == {"\\Seen"}
    assert store(account, [1, 2, 3], "replace", "\\Draft").changed == BitMap([1, 2, 3])
    assert [flags(account, uid) for uid in (1, 2, 3)] == [{"\\Draft"}] * 3
    assert account.state.inbox.unseen == 3


def test_what_changes_nothing_writes_nothing(account: Account) -> None:
    add(account, message(flags=("\\Seen",)))
    before = account.state.modseq
    assert store(account, [1], "add", "\\Seen").modseq == 0
    assert store(account, [7], "replace", "\\Seen").changed == BitMap()
    assert now(account.commit(Expunge(mailbox=account.state.inbox.id))) == BitMap()
    now(account.commit(SetSetting(name="x", value=None)))
    now(account.commit(Subscribe(name="INBOX")))
    assert account.state.modseq == before


def test_unchangedsince_fails_for_those_that_changed(account: Account) -> None:
    add(account, message(), message())
    known = account.state.modseq
    store(account, [2], "add", "\\Flagged")
    done = store(account, [1, 2], "add", "\\Seen", since=known)
    assert (done.changed, done.failed) == (BitMap([1]), BitMap([2]))
    assert flags(account, 2) == {"\\Flagged"}


def test_one_entry_carries_one_modseq_for_all_its_messages(account: Account) -> None:
    add(account, *[message() for _ in range(5)])
    done = store(account, [1, 3, 5], "replace", "\\Seen", "a", "b")
    columns = now(account.columns(account.state.inbox))
    assert [columns.modseqs[slot] == done.modseq for slot in range(5)] == [True, False, True, False, True]
    assert account.state.inbox.highest_modseq == done.modseq


def test_only_so_many_keywords_fit_into_a_mailbox(account: Account) -> None:
    add(account, message())
    store(account, [1], "add", *[f"k{n}" for n in range(MAX_KEYWORDS)])
    with pytest.raises(LimitReached):
        store(account, [1], "add", "one-more")
    store(account, [1], "remove", "K7")
    assert "k7" not in flags(account, 1)


def test_expunge_takes_the_deleted_of_those_named(account: Account) -> None:
    add(account, *[message(n, ("\\Deleted",)) for n in (1, 2, 3)], message(4))
    inbox = account.state.inbox
    assert now(account.commit(Expunge(mailbox=inbox.id, uids=pack_uids(BitMap([2, 4]))))) == BitMap([2])
    assert now(account.commit(Expunge(mailbox=inbox.id))) == BitMap([1, 3])
    assert (uids(account), inbox.size, inbox.deleted, inbox.unseen) == ([4], 4, 0, 1)
    assert now(account.commit(Expunge(mailbox=inbox.id, uids=pack_uids(BitMap([4])), only_deleted=False))) == BitMap(
        [4]
    )
    assert add(account, message()).uids == range(5, 6)


def test_copy_keeps_flags_dates_and_the_message(account: Account) -> None:
    add(account, message(5, ("\\Seen", "Work"), received=1234))
    target = create(account, "Archive/2026")
    done = now(
        account.commit(CopyMessages(mailbox=account.state.inbox.id, uids=pack_uids(BitMap([1, 9])), target=target))
    )
    assert (done.source_uids, done.target_uids) == ((1,), range(1, 2))
    old, new = (now(account.columns(account.state.mailbox(name))) for name in ("INBOX", "Archive/2026"))
    assert flags(account, 1, "Archive/2026") == {"\\Seen", "Work"}
    assert (new.received[0], new.zones[0], new.message_id(0)) == (1234, 60, old.message_id(0))
    assert account.state.size == 10


def test_move_is_one_entry_and_may_stay_in_the_mailbox(account: Account) -> None:
    add(account, message(), message())
    inbox, trash = account.state.inbox, account.state.mailbox("Trash")
    before = account.state.modseq
    done = now(
        account.commit(CopyMessages(mailbox=inbox.id, uids=pack_uids(BitMap([1, 2])), target=trash.id, move=True))
    )
    assert (account.state.modseq, done.modseq) == (before + 1, before + 1)
    assert (uids(account), uids(account, "Trash")) == ([], [1, 2])
    again = now(account.commit(CopyMessages(mailbox=trash.id, uids=pack_uids(BitMap([1])), target=trash.id, move=True)))
    assert (again.target_uids, uids(account, "Trash")) == (range(3, 4), [2, 3])


def test_replace_is_one_entry(account: Account) -> None:
    add(account, message(10))
    inbox = account.state.inbox
    before = account.state.modseq
    done = now(
        account.commit(ReplaceMessage(mailbox=inbox.id, uid=1, target=inbox.id, message=message(7, ("\\Draft",))))
    )
    assert (done.added.uids, done.expunged, account.state.modseq) == (range(2, 3), 1, before + 1)
    assert (uids(account), inbox.size) == ([2], 7)
    with pytest.raises(NoSuchMessage):
        now(account.commit(ReplaceMessage(mailbox=inbox.id, uid=1, target=inbox.id, message=message())))


def test_a_quota_holds_for_what_is_added_and_copied_but_not_for_moves(account: Account) -> None:
    add(account, message(60), quota_bytes=100)
    with pytest.raises(OverQuota):
        add(account, message(41), quota_bytes=100)
    inbox, trash = account.state.inbox.id, account.state.mailbox("Trash").id
    one = pack_uids(BitMap([1]))
    with pytest.raises(OverQuota):
        now(account.commit(CopyMessages(mailbox=inbox, uids=one, target=trash, quota_bytes=100)))
    now(account.commit(CopyMessages(mailbox=inbox, uids=one, target=trash, move=True, quota_bytes=100)))
    assert account.state.size == 60


def test_create_makes_the_levels_above(account: Account) -> None:
    create(account, "a/b/c")
    assert {"a", "a/b", "a/b/c"} <= set(account.state.by_name)
    with pytest.raises(MailboxExists):
        create(account, "a/b")
    with pytest.raises(MailboxExists):
        create(account, "inbox")
    with pytest.raises(UseTaken):
        create(account, "Spam", "\\Junk")
    create(account, "Everything", "\\All")
    everything = account.state.with_use("\\All")
    assert everything is not None and everything.name == "Everything"


def test_a_mailbox_that_is_made_again_has_a_higher_uidvalidity(account: Account) -> None:
    create(account, "x")
    first = account.state.mailbox("x").uid_validity
    now(account.commit(DeleteMailbox(name="x")))
    create(account, "x")
    assert account.state.mailbox("x").uid_validity > first


def test_delete_leaves_inferiors_and_subscriptions(account: Account) -> None:
    create(account, "a/b")
    add(account, message(9), to="a")
    now(account.commit(Subscribe(name="a")))
    now(account.commit(DeleteMailbox(name="a")))
    assert "a" not in account.state.by_name and "a/b" in account.state.by_name
    assert "a" in account.state.subscriptions and account.state.size == 0
    with pytest.raises(NoSuchMailbox):
        now(account.commit(DeleteMailbox(name="a")))
    with pytest.raises(CannotChange):
        now(account.commit(DeleteMailbox(name="InBox")))


def test_rename_takes_inferiors_along_and_keeps_uids(account: Account) -> None:
    id = create(account, "a/b/c")
    add(account, message(), to="a/b/c")
    now(account.commit(RenameMailbox.of(account.state, "a", "new/place", SECONDS)))
    assert {"new", "new/place", "new/place/b", "new/place/b/c"} <= set(account.state.by_name)
    assert "a" not in account.state.by_name
    assert account.state.mailbox("new/place/b/c").id == id
    assert uids(account, "new/place/b/c") == [1]
    with pytest.raises(CannotChange):
        now(account.commit(RenameMailbox.of(account.state, "new", "new/deeper", SECONDS)))
    with pytest.raises(MailboxExists):
        now(account.commit(RenameMailbox.of(account.state, "new", "Trash", SECONDS)))
    with pytest.raises(NoSuchMailbox):
        RenameMailbox.of(account.state, "nowhere", "elsewhere", SECONDS)


def test_renaming_inbox_moves_its_messages_and_leaves_it_empty(account: Account) -> None:
    create(account, "INBOX/sub")
    add(account, message(5, ("\\Seen",)), message(6))
    now(account.commit(RenameMailbox.of(account.state, "inbox", "old-mail", SECONDS)))
    assert (uids(account), uids(account, "old-mail")) == ([], [1, 2])
    assert "INBOX/sub" in account.state.by_name
    assert account.state.inbox.uid_next == 3


@pytest.mark.parametrize(
    "name",
    ["", "/", "a//b", "/a", "a/", "a\x00b", "a\nb", "a\x7fb", "a\x85", "100%", "a*", "../x", "a/./b", "\ud800"],
)
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(InvalidMailboxName):
        check_mailbox_name(name)


@pytest.mark.parametrize("name", ["x" * 1001, "/".join("x" * 101), "/".join("x" * 1000)])
def test_names_too_long_and_too_deep(name: str) -> None:
    with pytest.raises(InvalidMailboxName):
        check_mailbox_name(name)


def test_inbox_is_one_mailbox_in_any_case() -> None:
    assert check_mailbox_name("iNbOx") == "INBOX"
    assert check_mailbox_name("inbox/Work") == "INBOX/Work"
    assert check_mailbox_name("Inboxes") == "Inboxes"
    assert check_mailbox_name("Ünïcödé/日本語") == "Ünïcödé/日本語"


def test_a_mailbox_that_is_gone_refuses_everything(account: Account) -> None:
    id = create(account, "x")
    now(account.commit(DeleteMailbox(name="x")))
    nothing = pack_uids(BitMap([1]))
    for intent in (
        AddMessages(mailbox=id, messages=(message(),)),
        ChangeFlags(mailbox=id, uids=nothing, mode="add", flags=("\\Seen",)),
        Expunge(mailbox=id),
        CopyMessages(mailbox=id, uids=nothing, target=account.state.inbox.id),
        CopyMessages(mailbox=account.state.inbox.id, uids=nothing, target=id),
    ):
        with pytest.raises(NoSuchMailbox):
            now(account.commit(intent))
