"""The envelope test (RFC 5228 section 5.4), with what DSN and DELIVERBY add to an envelope (RFC 6009 section 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Final

from twisted_mail.sieve.arguments import Arguments
from twisted_mail.sieve.commands.base import ADDRESS_PARTS, address_part
from twisted_mail.sieve.commands.date import date_part, zone_of
from twisted_mail.sieve.comparators import fold
from twisted_mail.sieve.matching import MATCHING, matcher
from twisted_mail.sieve.message import Address
from twisted_mail.sieve.registry import Check, Kind, Operand, Tag, TestSyntax
from twisted_mail.sieve.running import Run
from twisted_mail.sieve.values import SieveError

__all__ = ["CAPABILITIES", "TESTS"]

CAPABILITIES = ("envelope", "envelope-deliverby", "envelope-dsn")

_ADDRESSES: Final = ("from", "to", "auth")
_EXTRA: Final = {
    "notify": "envelope-dsn",
    "orcpt": "envelope-dsn",
    "ret": "envelope-dsn",
    "envid": "envelope-dsn",
    "bytimeabsolute": "envelope-deliverby",
    "bytimerelative": "envelope-deliverby",
    "bymode": "envelope-deliverby",
    "bytrace": "envelope-deliverby",
}


def _envelope(args: Arguments) -> Check:
    texts = args.texts("envelope parts")
    for name in texts.constant or ():
        _check_part(args, fold(name))
    match = matcher(args)
    part = address_part(args)
    counts = match.counts  # RFC 5231 section 4.2: the null reverse-path counts nothing
    whole = (args.choice("part") or "all") == "all"
    line, zone = args.line, zone_of(args)

    def values_of(run: Run, name: str) -> Sequence[str]:
        if name in _ADDRESSES:
            address = _parsed(_of_environment(run, name))
            if address is None or (counts and not address.full):
                return ()
            value = part(run, address) if address.full else ""
            return () if value is None else (value,)
        if name not in _EXTRA:
            raise SieveError(f"an envelope has no part {name[:100]!r}", line)
        extra = run.environment.envelope_extra.get(name, "") or _deliver_by(run, name, zone)
        if not extra or not whole:
            # RFC 6009 section 2: of what is no address there are no parts.
            return ()
        return extra.split(",") if name == "notify" else (extra,)

    def check(run: Run) -> bool:
        return match(run, [value for name in texts(run) for value in values_of(run, fold(name))])

    return check


def _deliver_by(run: Run, name: str, zone: Callable[[Run], int | None]) -> str:
    """Until when the sender wants it delivered; empty: nothing was said."""
    given = run.environment.deliver_by
    if given is None:
        return ""
    until, mode = given
    match name:
        case "bytimeabsolute":
            iso8601 = date_part("iso8601")
            assert iso8601 is not None
            return iso8601(datetime.fromtimestamp(until, timezone(timedelta(minutes=zone(run) or 0))))
        case "bytimerelative":
            return str(int(until - run.environment.now))
        case "bymode":
            return mode[:1]
        case "bytrace":
            return mode[1:]
    return ""


def _check_part(args: Arguments, name: str) -> None:
    if name in _EXTRA:
        if not args.scope.uses(_EXTRA[name]):
            args.fail(f'the envelope part {name!r} needs: require "{_EXTRA[name]}"', "envelope parts")
    elif name not in _ADDRESSES:
        args.fail(f"an envelope has no part {name!r}", "envelope parts")


def _of_environment(run: Run, name: str) -> str | None:
    environment = run.environment
    if name == "from":
        return environment.envelope_from
    if name == "to":
        return environment.envelope_to or None
    return environment.envelope_auth or None


def _parsed(text: str | None) -> Address | None:
    """An address of the envelope, without the source route (section 5.4); the null reverse-path is the empty string."""
    if text is None:
        return None
    text = text.strip().removeprefix("<").removesuffix(">")
    if text.startswith("@") and ":" in text:
        text = text.partition(":")[2]
    local, _, domain = text.rpartition("@")
    if not local:
        local, domain = domain, ""
    if len(local) > 1 and local[0] == local[-1] == '"':
        local = local[1:-1].replace("\\", "")
    return Address(text, local, domain, True)


TESTS = {
    "envelope": TestSyntax(
        compile=_envelope,
        needs="envelope",
        tags=(*MATCHING, *ADDRESS_PARTS, Tag("zone", Kind.STRING, needs="envelope-deliverby")),
        operands=(Operand("envelope parts", Kind.STRINGS), Operand("keys", Kind.STRINGS)),
    ),
}
