"""Who the client is (RFC 9051 section 6.2, RFC 4959, RFC 5530, RFC 8437)."""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from twisted_mail.imap import codes
from twisted_mail.imap.codes import Code
from twisted_mail.imap.commands.auth import Authenticate, Login, StartTls, Unauthenticate, decode_response
from twisted_mail.imap.replies import Condition, bad, continuation, no, ok
from twisted_mail.imap.syntax import State
from twisted_mail.services import AuthenticationFailed, Challenge, Exchange, Identity, UnknownMechanism

if TYPE_CHECKING:
    from twisted_mail.imap.session import Session

__all__ = ["CAPABILITIES", "EXECUTE", "offers"]

CAPABILITIES = ("UNAUTHENTICATE",)

REASONS: Final[Mapping[str, Code]] = {
    "credentials": codes.AUTHENTICATIONFAILED,
    "privacy": codes.PRIVACYREQUIRED,
    "disabled": codes.AUTHORIZATIONFAILED,
    "throttled": codes.UNAVAILABLE,
    "unavailable": codes.UNAVAILABLE,
}
"""RFC 5530 section 3."""


def offers(session: Session) -> list[str]:
    """What of CAPABILITY is about logging in: STARTTLS, LOGINDISABLED, AUTH= (RFC 9051 section 6.2)."""
    names = []
    if _may_start_tls(session):
        names.append("STARTTLS")
    if not session.authentication.cleartext_allowed(session.peer):
        names.append("LOGINDISABLED")
    names += [f"AUTH={name}" for name in session.authentication.mechanisms(session.peer)]
    return names


def _may_start_tls(session: Session) -> bool:
    return session.tls_available and not session.peer.secure and not session.compressing


async def start_tls(session: Session, tag: bytes, command: StartTls) -> Condition | None:
    """RFC 9051 section 6.2.1: what came behind the command in the clear is thrown away."""
    if not _may_start_tls(session):
        return bad("TLS is active" if session.peer.secure else "TLS is not available")
    session.write(ok("Begin TLS negotiation now").tagged(tag))
    session.wire.discard_buffered()
    session.peer = await session.sink.start_tls()
    session.wire.discard_buffered()
    return None


async def login(session: Session, tag: bytes, command: Login) -> Condition:
    """RFC 9051 section 6.2.3."""
    if not session.authentication.cleartext_allowed(session.peer):
        return no("Use STARTTLS first", codes.PRIVACYREQUIRED)
    try:
        identity = await session.authentication.login(command.user, command.password, session.peer)
    except AuthenticationFailed as error:
        return _failed(error)
    return await _enter(session, identity)


async def authenticate(session: Session, tag: bytes, command: Authenticate) -> Condition:
    """RFC 9051 section 6.2.2: challenges and responses in base64, ``*`` gives up."""
    try:
        exchange = session.authentication.begin(command.mechanism, session.peer)
    except UnknownMechanism:
        if not session.authentication.cleartext_allowed(session.peer) and _may_start_tls(session):
            return no("Use STARTTLS first", codes.PRIVACYREQUIRED)
        return no("No such mechanism", codes.CANNOT)
    except AuthenticationFailed as error:
        return _failed(error)
    return await _exchange(session, exchange, command.initial)


async def _exchange(session: Session, exchange: Exchange, response: bytes | None) -> Condition:
    while True:
        try:
            step = await exchange.step(response)
        except AuthenticationFailed as error:
            return _failed(error)
        if isinstance(step, Identity):
            return await _enter(session, step)
        assert isinstance(step, Challenge)
        session.write(continuation(b2a_base64(step.data, newline=False)))
        line = await session.next_line()
        if line is None:
            return bad("The response is too long")
        response = decode_response(line)
        if response is None:
            return bad("Authentication cancelled")


def _failed(error: AuthenticationFailed) -> Condition:
    if error.reason in ("malformed", "cancelled"):
        return bad(error.text)
    return no(error.text, REASONS.get(error.reason, codes.AUTHENTICATIONFAILED))


async def _enter(session: Session, identity: Identity) -> Condition:
    account = await session.accounts.open(identity.account)
    session.enter_account(identity, account)
    await session.refresh()
    return ok("Logged in", codes.capability(session.capabilities()))


async def unauthenticate(session: Session, tag: bytes, command: Unauthenticate) -> Condition:
    """RFC 8437 section 3: everything is as after the greeting, but for TLS and compression."""
    session.leave_account()
    session.state = State.NOT_AUTHENTICATED
    return ok("Logged out", codes.capability(session.capabilities()))


EXECUTE = {StartTls: start_tls, Login: login, Authenticate: authenticate, Unauthenticate: unauthenticate}
