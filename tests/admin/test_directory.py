"""Domains, users, aliases: what commands do, print, and exit with."""

from __future__ import annotations

import pytest

from tests.admin.calling import PASSWORD, Mailctl
from twisted_mail.account.lists import MessageLists
from twisted_mail.admin.init import put_samples
from twisted_mail.admin.opening import Store
from twisted_mail.auth.passwords import matches
from twisted_mail.storage.interfaces import AccountRecord


def record(ctl: Mailctl, address: str = "ann@example.org") -> AccountRecord:
    async def find(store: Store) -> AccountRecord:
        return await store.user(address)

    return ctl.inside(find)


def test_a_store_is_made_by_the_first_domain_and_by_nothing_else(ctl: Mailctl) -> None:
    missing = ctl.run("user", "list", "--json")
    assert (missing.status, missing.error()["code"], missing.out) == (3, "no-store", "")
    assert not (ctl.folder / "data").exists()
    assert ctl.json("domain", "add", "Example.ORG") == {"domain": "example.org", "enabled": True, "users": 0, "aliases": 0}
    assert (ctl.folder / "data").stat().st_mode & 0o077 == 0


def test_domains_live_and_die(ctl: Mailctl) -> None:
    ctl.good("domain", "add", "example.org")
    ctl.good("domain", "add", "münchen.example")
    assert [row["domain"] for row in ctl.json("domain", "list")] == ["example.org", "xn--mnchen-3ya.example"]
    assert ctl.good("domain", "list").out.splitlines()[0] == "example.org\tyes\t0\t0"
    again = ctl.run("domain", "add", "example.org", "--json")
    assert (again.status, again.error()["code"]) == (4, "exists")
    assert ctl.json("domain", "disable", "example.org") == {"domain": "example.org", "enabled": False, "changed": True}
    assert ctl.json("domain", "disable", "example.org")["changed"] is False
    assert ctl.json("domain", "show", "example.org")["enabled"] is False
    assert ctl.json("domain", "enable", "example.org")["enabled"] is True
    ctl.with_user()
    held = ctl.run("domain", "delete", "example.org", "--yes")
    assert held.status == 4 and "1 users" in held.err
    ctl.good("user", "delete", "ann@example.org", "--yes")
    assert ctl.json("domain", "delete", "example.org", "--yes") == {"domain": "example.org", "deleted": True}
    assert ctl.run("domain", "show", "example.org").status == 3


@pytest.mark.parametrize("name", ["", "a b", "-a.example", "a..b", "a" * 64 + ".example", "@example.org"])
def test_what_is_no_domain_is_wrong_usage(ctl: Mailctl, name: str) -> None:
    assert ctl.run("domain", "add", name).status == 2


def test_what_cannot_be_undone_needs_a_yes(ann: Mailctl) -> None:
    for words in (("user", "delete", "ann@example.org"), ("domain", "delete", "example.org")):
        asked = ann.run(*words)
        assert asked.status == 2 and "--yes" in asked.err
    assert len(ann.json("user", "list")) == 1


def test_a_user_has_inbox_and_default_mailboxes_at_once(ann: Mailctl) -> None:
    shown = ann.json("user", "show", "ann@example.org")
    assert [each["mailbox"] for each in shown["mailboxes"]] == ["INBOX", "Archive", "Drafts", "Junk", "Sent", "Trash"]
    assert shown["mailboxes"][4]["special_use"] == ["\\Sent"]
    assert shown["messages"] == shown["usage_bytes"] == 0 and shown["enabled"] and shown["quota_bytes"] is None
    assert set(shown) == {
        "user", "id", "name", "enabled", "quota_bytes", "password", "created", "messages", "usage_bytes", "aliases",
        "mailboxes",
    }  # fmt: skip
    plain = ann.good("user", "show", "ann@example.org").out
    assert "user: ann@example.org\n" in plain and "INBOX\t0\t0\t0\t-\n" in plain


def test_a_user_that_exists_and_a_domain_that_does_not(ann: Mailctl) -> None:
    ann.good("alias", "add", "info@example.org", "ann@example.org")
    for address, status, code in (
        ("Ann@EXAMPLE.org", 4, "exists"),
        ("info@example.org", 4, "exists"),
        ("ann@elsewhere.example", 3, "not-found"),
        ("ann", 2, "usage"),
        ("@example.org", 2, "usage"),
        ("a b@example.org", 2, "usage"),
        ("a..b@example.org", 2, "usage"),
    ):
        result = ann.run("user", "add", address, "--password-stdin", "--json", given="x1234\n")
        assert (result.status, result.error()["code"], result.error()["exit"]) == (status, code, status), address


def test_passwords_are_stored_hashed_and_printed_never(ctl: Mailctl) -> None:
    ctl.good("domain", "add", "example.org")
    added = ctl.good("user", "add", "ann@example.org", "--password-stdin", "--json", given=PASSWORD + "\n")
    assert PASSWORD not in added.out + added.err and "generated_password" not in added.json()
    stored = record(ctl).credentials
    assert matches(PASSWORD, stored) and not any(PASSWORD in each for each in stored)
    changed = ctl.good("user", "passwd", "ann@example.org", "--password-stdin", given="another one\r\n")
    assert "another" not in changed.out
    assert matches("another one", record(ctl).credentials) and not matches(PASSWORD, record(ctl).credentials)


def test_a_generated_password_is_printed_once_and_is_a_good_one(ctl: Mailctl) -> None:
    ctl.good("domain", "add", "example.org")
    word = ctl.json("user", "add", "ann@example.org", "--generate")["generated_password"]
    assert len(word) == 23 and matches(word, record(ctl).credentials)
    assert word not in str(ctl.json("user", "show", "ann@example.org"))
    plain = ctl.good("user", "passwd", "ann@example.org", "--generate").out
    assert matches(plain.split("password: ")[1].strip(), record(ctl).credentials)


def test_without_a_terminal_a_password_must_come_from_somewhere(ann: Mailctl) -> None:
    for words in (("user", "add", "bob@example.org"), ("user", "passwd", "ann@example.org")):
        result = ann.run(*words)
        assert result.status == 2 and "--password-stdin or --generate" in result.err
    assert ann.run("user", "passwd", "ann@example.org", "--password-stdin", given="\n").status == 2
    assert ann.run("user", "passwd", "ann@example.org", "--password-stdin", "--generate", given="x\n").status == 2
    assert ann.run("user", "passwd", "ann@example.org", "--password-stdin", given="bell\x07\n").status == 2
    assert matches(PASSWORD, record(ann).credentials)


def test_no_command_takes_a_password_as_an_argument() -> None:
    import click

    from twisted_mail.admin.cli import mailctl

    def commands(group: click.Group) -> list[click.Command]:
        context = click.Context(group)
        here = [group.get_command(context, name) for name in group.list_commands(context)]
        below = [commands(each) if isinstance(each, click.Group) else [each] for each in here if each is not None]
        return [command for some in below for command in some]

    for command in commands(mailctl):
        for parameter in command.params:
            if "password" in (parameter.name or ""):
                assert isinstance(parameter, click.Option) and parameter.is_flag, command.name


def test_users_are_disabled_renamed_and_held_to_a_quota(ann: Mailctl) -> None:
    assert ann.json("user", "disable", "ann@example.org")["changed"] is True
    assert record(ann).enabled is False
    assert ann.json("user", "enable", "ann@example.org") == {"user": "ann@example.org", "enabled": True, "changed": True}
    assert ann.json("user", "quota", "ann@example.org", "1.5GiB")["quota_bytes"] == 3 << 29
    assert ann.json("user", "quota", "ann@example.org", "2kB")["quota_bytes"] == 2000
    assert ann.json("user", "quota", "ann@example.org", "none")["quota_bytes"] is None
    assert ann.run("user", "quota", "ann@example.org", "a lot").status == 2
    before = record(ann)
    assert ann.json("user", "rename", "ann@example.org", "anna@example.org", "--keep-alias")["user"] == "anna@example.org"
    after = record(ann, "anna@example.org")
    assert (after.id, after.credentials) == (before.id, before.credentials)
    assert ann.json("alias", "list") == [{"alias": "ann@example.org", "targets": ["anna@example.org"], "catch_all": False}]
    assert ann.json("user", "show", "anna@example.org")["aliases"] == ["ann@example.org"]
    assert ann.run("user", "rename", "anna@example.org", "ann@example.org").status == 4
    assert ann.run("user", "rename", "nobody@example.org", "x@example.org").status == 3


def test_ensure_is_idempotent(ctl: Mailctl) -> None:
    ctl.good("domain", "add", "example.org")
    words = ("user", "ensure", "ann@example.org", "--name", "Ann", "--quota", "1GiB", "--password-stdin")
    first = ctl.json(*words, given=PASSWORD + "\n")
    assert first["added"] is True and first["name"] == "Ann" and first["quota_bytes"] == 1 << 30
    before = record(ctl)
    assert ctl.json(*words, given=PASSWORD + "\n")["changed"] == []
    assert record(ctl) == before
    other = ctl.json("user", "ensure", "ann@example.org", "--password-stdin", "--disabled", given="new password\n")
    assert other["changed"] == ["enabled", "password"]
    assert "generated_password" not in ctl.json("user", "ensure", "ann@example.org", "--generate")
    assert matches("new password", record(ctl).credentials)
    assert ctl.run("user", "ensure", "bob@example.org").status == 2
    assert len(ctl.json("user", "ensure", "bob@example.org", "--generate")["generated_password"]) == 23


def test_a_deleted_user_leaves_no_mail_behind(ann: Mailctl) -> None:
    id = record(ann).id

    async def fill(store: Store) -> None:
        await put_samples(store, "ann@example.org", [], 1_790_000_000, 30)
        async with store.account(record_now) as account:
            await MessageLists(store.backend.lists).rebuild(account)
            await MessageLists(store.backend.lists).bring_up_to_date(account)

    async def left(store: Store) -> tuple[int, int, int]:
        rows = [key async for keys in store.backend.messages.iterate(id) for key in keys]
        lists = [int(await store.backend.lists.reached(id, bucket)) for bucket in range(4)]
        return int(await store.backend.account_log.head(id)), len(rows), sum(lists)

    record_now = record(ann)
    ann.inside(fill)
    head, rows, reached = ann.inside(left)
    assert head > 1 and rows == 30 and reached > 1
    ann.good("user", "delete", "ann@example.org", "--yes")
    assert ann.inside(left) == (0, 0, 0)
    assert ann.run("user", "delete", "ann@example.org", "--yes").status == 3
    ann.with_user()  # the address is free again


def test_aliases_have_several_targets_and_catch_what_nobody_else_does(ann: Mailctl) -> None:
    added = ann.json("alias", "add", "team@example.org", "ann@example.org", "Eve@Elsewhere.example")
    assert added == {"alias": "team@example.org", "targets": ["ann@example.org", "eve@elsewhere.example"], "catch_all": False}
    assert ann.json("alias", "add", "@example.org", "ann@example.org")["catch_all"] is True
    note = ann.good("alias", "add", "sales@example.org", "nobody@example.org")
    assert "no user and no alias nobody@example.org" in note.err
    assert ann.good("alias", "list").out.splitlines()[0] == "@example.org\tann@example.org"
    assert len(ann.json("alias", "list", "--domain", "example.org")) == 3
    assert ann.json("alias", "show", "team@example.org")["targets"] == added["targets"]
    assert ann.run("alias", "add", "team@example.org", "ann@example.org").status == 4
    assert ann.json("alias", "add", "team@example.org", "ann@example.org", "--replace")["targets"] == ["ann@example.org"]
    assert ann.run("alias", "add", "ann@example.org", "x@example.org", "--replace").status == 4, "a user has the address"
    assert ann.run("alias", "add", "a@example.org", "a@example.org").status == 2
    assert ann.run("alias", "add", "a@other.example", "ann@example.org").status == 3
    assert ann.run("alias", "add", "a@example.org").status == 2
    assert ann.json("alias", "delete", "@example.org", "--yes") == {"alias": "@example.org", "deleted": True}
    assert ann.run("alias", "show", "@example.org").status == 3
