"""``mailctl import`` and ``mailctl export``: Maildirs and mbox files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import click

from twisted_mail.account.errors import AccountError, InvalidMailboxName, OverQuota
from twisted_mail.account.state import check_mailbox_name
from twisted_mail.admin import maildir, mbox
from twisted_mail.admin.exporting import Exporter, Layout, file_of, free_bytes
from twisted_mail.admin.importing import Importer, SourceMessage
from twisted_mail.admin.invocation import Group, on_store, the_invocation
from twisted_mail.admin.opening import Store
from twisted_mail.admin.output import size_text
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.admin.progress import Bar

__all__ = ["export_mail", "import_mail"]

_SOURCE = click.Path(exists=True, path_type=Path)
_TARGET = click.Path(path_type=Path)


@click.group("import", cls=Group)
def import_mail() -> None:
    """Bring mail in; done again after a break, it goes on where it was."""


@click.group("export", cls=Group)
def export_mail() -> None:
    """Write mail out; done again after a break, it goes on where it was."""


@import_mail.command("maildir")
@click.argument("path", type=_SOURCE)
@click.option("--to", "address", required=True, metavar="USER", help="Whose mail it becomes.")
@click.option("--below", default="", metavar="MAILBOX", help="Put all folders below this mailbox.")
@click.option("--ignore-quota", is_flag=True, help="Import although the user's quota is exceeded.")
@on_store()
async def import_maildir(store: Store, path: Path, address: str, below: str, ignore_quota: bool) -> None:
    """Import the Maildir PATH with its folders, flags and dates.

    Both layouts are read: Maildir++ (.A.B) and nested (A/B). Line ends LF become CRLF. Messages that the mailbox has
    already, with the same octets and date, are passed over.
    """
    try:
        found = maildir.folders(path)
        folders = [(each, maildir.messages(each)) for each in found]
    except OSError as error:
        raise Problem(Status.FAILED, "unreadable", f"{error.filename or path}: {error.strerror or error}") from error
    if not folders:
        raise Problem(Status.FAILED, "not-maildir", f"{path} is no Maildir: it has no folder cur, and none below it")
    total = sum(message.size for _, messages in folders for message in messages)
    mailboxes = [(_below(below, each.mailbox), messages) for each, messages in folders]
    await _import(store, address, mailboxes, ignore_quota, total)


@import_mail.command("mbox")
@click.argument("path", type=_SOURCE)
@click.option("--to", "address", required=True, metavar="USER", help="Whose mail it becomes.")
@click.option("--mailbox", metavar="NAME", help="Where a file's messages go (INBOX), or what a folder's files go below.")
@click.option("--ignore-quota", is_flag=True, help="Import although the user's quota is exceeded.")
@on_store()
async def import_mbox(store: Store, path: Path, address: str, mailbox: str | None, ignore_quota: bool) -> None:
    """Import the mbox file PATH, or every file NAME.mbox of the folder PATH into the mailbox NAME.

    Flags come from Status, X-Status and X-Keywords, dates from the From lines. Line ends LF become CRLF. Messages that
    the mailbox has already, with the same octets and date, are passed over.
    """
    if path.is_dir():
        files = [(_below(mailbox or "", name), file) for name, file in mbox.mboxes(path)]
        if not files:
            raise Problem(Status.FAILED, "not-mbox", f"{path} has no file that ends with .mbox")
    else:
        files = [(mailbox or "INBOX", path)]
    total = sum(file.stat().st_size for _, file in files)
    await _import(store, address, [(name, mbox.messages(file)) for name, file in files], ignore_quota, total)


def _below(mailbox: str, name: str) -> str:
    return f"{mailbox}/{name}" if mailbox else name


async def _import(
    store: Store, address: str, mailboxes: list[tuple[str, Any]], ignore_quota: bool, total: int
) -> None:
    # iterables of source messages, of different types by format, hence Any; total: octets of all of them
    record = await store.user(address)
    out = the_invocation().out
    async with store.account(record) as account:
        bar = Bar("importing", total, shown=not out.as_json)
        quota = None if ignore_quota else record.quota_bytes
        importer = Importer(store.accounts, account, quota_bytes=quota, advanced=bar.advance)
        report = importer.report
        try:
            with bar:
                for name, messages in mailboxes:
                    try:
                        wanted = check_mailbox_name(name)
                    except InvalidMailboxName as error:
                        importer.failed(name, str(error))
                        continue
                    try:
                        await importer.run(wanted, cast("list[SourceMessage]", messages))
                    except mbox.NotMbox as error:
                        importer.failed(name, str(error))
        except OverQuota:
            raise Problem(
                Status.FAILED,
                "over-quota",
                f"the quota of {record.address} is exhausted after {report.imported} messages: raise it with "
                "`mailctl user quota`, then run this again",
                imported=report.imported,
            ) from None
        except AccountError as error:
            if not error.temporary:
                raise
            raise Problem(
                Status.TEMPORARY,
                "unavailable",
                f"{error}; {report.imported} messages were imported, run this again",
                imported=report.imported,
            ) from error
    facts = {
        "user": record.address,
        "imported": report.imported,
        "present": report.present,
        "octets": report.octets,
        "mailboxes": report.mailboxes,
        "failed": report.failed,
    }
    _finish(out.as_json, report.failed, facts)
    out.done(
        f"{report.imported} messages ({size_text(report.octets)}) imported into {len(report.mailboxes)} mailboxes of "
        f"{record.address}; {report.present} were there already",
        **facts,
    )


def _finish(as_json: bool, failed: list[dict[str, str]], facts: dict[str, Any]) -> None:
    if failed:
        text = "\n".join(f"{each['source']}: {each['reason']}" for each in failed)
        done = facts.get("imported", facts.get("exported"))
        text += f"\n{len(failed)} failed; {done} messages are done"
        raise Problem(Status.FAILED, "some-failed", text, **facts)


@export_mail.command("maildir")
@click.argument("address", metavar="USER")
@click.argument("path", type=_TARGET)
@click.option("--mailbox", "only", multiple=True, metavar="NAME", help="Only this mailbox; may be repeated.")
@click.option(
    "--layout",
    type=click.Choice(["maildir++", "nested"]),
    default="maildir++",
    show_default=True,
    help="Folders as .A.B or as A/B.",
)
@click.option("--crlf", is_flag=True, help="Keep CRLF line ends: the octets as they are stored.")
@on_store()
async def export_maildir(
    store: Store, address: str, path: Path, only: tuple[str, ...], layout: str, crlf: bool
) -> None:
    """Write a user's mail into the Maildir PATH, with folders, flags, keywords and dates.

    Line ends become LF. What an earlier run has written is not written again; flags that changed since are brought up
    to date. Messages deleted since stay in the Maildir.
    """
    await _export(store, address, path, only, lambda exporter, each: exporter.to_maildir(
        each, path, cast("Layout", layout), crlf=crlf
    ))  # fmt: skip


@export_mail.command("mbox")
@click.argument("address", metavar="USER")
@click.argument("path", type=_TARGET)
@click.option("--mailbox", metavar="NAME", help="Only this mailbox, into the file PATH.")
@on_store()
async def export_mbox(store: Store, address: str, path: Path, mailbox: str | None) -> None:
    """Write a user's mail into mbox files (mboxrd) in the folder PATH: A/B.mbox for the mailbox A/B.

    Line ends become LF. Each file is written anew and moved to its place when it is whole.
    """
    if mailbox is None:
        if path.exists() and not path.is_dir():
            raise Problem(Status.CONFLICT, "exists", f"{path} is a file: name a folder, or one mailbox with --mailbox")
        await _export(
            store, address, path, (), lambda exporter, each: exporter.to_mbox(each, file_of(path, each.name))
        )
        return
    if path.is_dir():
        raise Problem(Status.CONFLICT, "exists", f"{path} is a folder: with --mailbox name a file")
    await _export(store, address, path, (mailbox,), lambda exporter, each: exporter.to_mbox(each, path))


async def _export(store: Store, address: str, path: Path, only: tuple[str, ...], write: Any) -> None:
    # write: (Exporter, Mailbox) -> awaitable; lambdas, hence Any
    record = await store.user(address)
    out = the_invocation().out
    async with store.account(record) as account:
        state = account.state
        for name in only:
            if check_mailbox_name(name) not in state.by_name:
                raise Problem(Status.NOT_FOUND, "not-found", f"{record.address} has no mailbox {name}")
        wanted = [state.mailbox(name) for name in only] if only else list(state.in_order())
        total = sum(each.size for each in wanted)
        if total > free_bytes(path.absolute()):
            out.note(f"note: {size_text(total)} of mail, and less room at {path}")
        with Bar("exporting", total, shown=not out.as_json) as bar:
            exporter = Exporter(store.accounts, account, advanced=bar.advance)
            for each in wanted:
                await write(exporter, each)
    report = exporter.report
    facts = {
        "user": record.address,
        "path": str(path),
        "exported": report.exported,
        "present": report.present,
        "octets": report.octets,
        "mailboxes": report.mailboxes,
        "failed": report.failed,
    }
    _finish(out.as_json, report.failed, facts)
    out.done(
        f"{report.exported} messages ({size_text(report.octets)}) of {len(report.mailboxes)} mailboxes written to {path}; "
        f"{report.present} were there already",
        **facts,
    )
