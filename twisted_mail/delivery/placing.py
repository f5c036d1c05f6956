"""One copy of a message into one account: what the straight way and the worker of the queue do alike."""

from __future__ import annotations

from twisted_mail.account.errors import NoSuchMailbox
from twisted_mail.account.intents import AddMessages, new_message
from twisted_mail.account.state import AccountState, Mailbox, normal_mailbox_name
from twisted_mail.delivery.items import Copy
from twisted_mail.services import Accounts, PreparedMessage

__all__ = ["place"]


async def place(
    accounts: Accounts, prepared: PreparedMessage, copy: Copy, received: int, zone: int, *, repeated: bool
) -> None:
    """Blobs are there; the row, then the entry: a crash in between leaves nothing that can be seen.

    With *repeated* nothing is done where the delivery stands already. Raises: AccountError (OutcomeUnknown among them:
    it may still come to stand), StorageError.
    """
    account = await accounts.open(copy.account)
    try:
        stored = await account.store(prepared)
        message = new_message(stored, received, zone)
        mailbox = _mailbox(account.state, copy.detail)
        while True:
            intent = AddMessages(
                mailbox=mailbox.id,
                messages=(message,),
                delivery=copy.delivery.octets,
                quota_bytes=copy.quota,
                repeated=repeated,
            )
            try:
                await account.commit(intent)
                return
            except NoSuchMailbox:
                if mailbox.id == account.state.inbox.id:
                    raise
                # The mailbox of that name was deleted just now. The row went with the intent that was refused.
                mailbox = account.state.inbox
                message = new_message(await account.store(prepared), received, zone)
    finally:
        accounts.release(account)


def _mailbox(state: AccountState, detail: str) -> Mailbox:
    """The mailbox that is called like the sub-address, if there is one; else INBOX."""
    named = state.by_name.get(normal_mailbox_name(detail)) if detail else None
    return named if named is not None else state.inbox
