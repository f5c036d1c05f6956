"""Commands of every state (RFC 9051 section 6.1, RFC 2971, RFC 4978, RFC 5161)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_mail.imap import codes, replies
from twisted_mail.imap.commands.any import Capability, Compress, Enable, Id, Logout, Noop
from twisted_mail.imap.replies import Condition, bye, no, ok
from twisted_mail.imap.syntax import State

if TYPE_CHECKING:
    from twisted_mail.imap.session import Session

__all__ = ["CAPABILITIES", "EXECUTE"]


def CAPABILITIES(session: Session) -> list[str]:
    """COMPRESS only until it is active (RFC 4978 section 3)."""
    names = ["UTF8=ACCEPT"]
    if session.settings.compress and not session.compressing:
        names.append("COMPRESS=DEFLATE")
    return names


async def capability(session: Session, tag: bytes, command: Capability) -> Condition:
    """RFC 9051 section 6.1.1."""
    session.write(replies.capability(session.capabilities()))
    return ok("CAPABILITY completed")


async def noop(session: Session, tag: bytes, command: Noop) -> Condition:
    """RFC 9051 section 6.1.2: a poll, so other nodes' changes are looked for; a store that is down does not matter."""
    if session.view is not None:
        await session.refresh()
    return ok("NOOP completed")


async def logout(session: Session, tag: bytes, command: Logout) -> Condition:
    """RFC 9051 section 6.1.3. Nothing is told of the mailbox any more: BYE is the last untagged response."""
    session.write(bye("Logging out").untagged())
    session.leave_account()
    session.state = State.LOGOUT
    return ok("LOGOUT completed")


async def identify(session: Session, tag: bytes, command: Id) -> Condition:
    """RFC 2971: names no version, which would only help those who look for old ones."""
    session.write(replies.id_response(dict(session.settings.server_id)))
    return ok("ID completed")


async def enable(session: Session, tag: bytes, command: Enable) -> Condition:
    """RFC 5161 section 3.1; QRESYNC brings CONDSTORE (RFC 7162 section 3.2.3). Others are passed over."""
    enabled = session.enabled
    names: list[str] = []
    for name in command.capabilities:
        match name:
            case "CONDSTORE":
                session.enable_condstore()
            case "QRESYNC":
                session.enable_condstore()
                enabled.qresync = True
            case "UTF8=ACCEPT":
                enabled.utf8 = True
            case "IMAP4REV2":
                enabled.rev2 = True
                name = "IMAP4rev2"
            case _:
                continue
        names.append(name)
    session.modes = enabled.modes()
    session.write(replies.enabled(names))
    return ok("ENABLE completed")


async def compress(session: Session, tag: bytes, command: Compress) -> Condition | None:
    """RFC 4978 section 3: the tagged OK is the last that is not compressed."""
    if command.algorithm != "DEFLATE" or not session.settings.compress:
        return no("That algorithm is not offered")
    if session.compressing:
        return no("DEFLATE is active already", codes.COMPRESSIONACTIVE)
    session.compressing = True
    await session.tell_news()
    session.write(ok("DEFLATE active").tagged(tag))
    session.sink.start_compression(session.wire.take_rest())
    return None


EXECUTE = {
    Capability: capability,
    Noop: noop,
    Logout: logout,
    Id: identify,
    Enable: enable,
    Compress: compress,
}
